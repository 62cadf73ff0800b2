//! Each limit, and one past it.

use relay_model::limits;

use super::*;

#[test]
fn a_chain_at_the_limit_is_taken_and_one_past_is_dropped() {
    let mut bench = Bench::new();
    bench.open(1);
    let longest: Vec<u64> = (1..).take(limits::HOPS).collect();
    let longer: Vec<u64> = (1..).take(limits::HOPS + 1).collect();
    assert_eq!(bench.announce(1, "a", &longest, 1).len(), 1);
    assert_eq!(bench.announce(1, "b", &longer, 1), []);
    assert_eq!(bench.core.tally(), tally(|t| t.too_many_hops = 1));
    assert_eq!(bench.core.counts().paths, 1);
}
