use std::{
    cell::Cell,
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use proptest::prelude::*;
use relay_model::{Cost, Hop, Path, Route, SessionId, WorkerId};

use super::{table::prefixes, *};
use crate::{Store, StoreConfig, bounds};

const W0: WorkerId = WorkerId(0);
const W1: WorkerId = WorkerId(1);

fn store() -> Arc<Store> {
    Store::new(StoreConfig {
        workers: 2,
        capacity: 1 << 30,
        ceiling: 1 << 31,
        max_age: Duration::from_secs(30),
    })
}

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

fn routes(cost: u64) -> Vec<Route> {
    vec![Route {
        session: SessionId(1),
        hops: Arc::new([Hop(1)]),
        cost: Cost { warm: 0, cold: cost },
        stale: false,
    }]
}

thread_local! {
    /// Virtual time of [`set`].
    static NOW: Cell<Instant> = Cell::new(Instant::now());
}

/// Sets a path one second after the previous call, so that no change is delayed.
fn set(board: &AnnounceBoard, raw: &str, cost: Option<u64>) -> WakeSet {
    let mut wakes = WakeSet::new();
    let now = NOW.get() + Duration::from_secs(1);
    NOW.set(now);
    board.set(path(raw), cost.map(routes).unwrap_or_default(), now, &mut wakes);
    wakes
}

/// Visits at most `max` changes of a watch whose owner knows the cost of each path: path and cost, `None` =
/// withdrawn. Returns whether there may be more.
fn step(watch: &mut BoardWatch, max: usize, out: &mut Vec<(String, Option<u64>)>) -> bool {
    let visited = watch.visit(max, |candidate| {
        let WatchCandidate { path, routes, is_live, advert } = candidate;
        let cost = routes.first().map(|route| route.cost.cold).filter(|_| is_live);
        if cost != advert.map(|advert| advert.mark) {
            out.push((path.to_string(), cost));
        }
        VisitStep::Next(cost.map(|mark| Advert { id: 0, mark }))
    });
    assert!(visited.entries <= max && !visited.is_lost);
    visited.more
}

/// All changes of a watch.
fn walk(watch: &mut BoardWatch) -> Vec<(String, Option<u64>)> {
    let mut out = Vec::new();
    while step(watch, 3, &mut out) {}
    assert!(!step(watch, 3, &mut out));
    out
}

fn said(all: &[(&str, Option<u64>)]) -> Vec<(String, Option<u64>)> {
    all.iter().map(|(path, cost)| ((*path).to_owned(), *cost)).collect()
}

#[test]
fn the_first_walk_gives_what_is_live_below_the_prefix() {
    let store = store();
    let board = store.board();
    for raw in ["a", "a/b", "a/c/d", "ab", "b"] {
        set(board, raw, Some(1));
    }
    let mut watch = board.watch(W0, path("a"));
    assert_eq!(walk(&mut watch), said(&[("a", Some(1)), ("a/b", Some(1)), ("a/c/d", Some(1))]));
    assert_eq!(walk(&mut board.watch(W0, Path::root())).len(), 5);
    assert_eq!(walk(&mut board.watch(W0, path("c"))), said(&[]));
}

#[test]
fn changes_of_one_path_collapse_into_its_newest_state() {
    let store = store();
    let board = store.board();
    let mut watch = board.watch(W0, Path::root());
    walk(&mut watch);
    set(board, "a", Some(1));
    set(board, "b", Some(1));
    set(board, "a", Some(2));
    set(board, "gone", Some(1));
    set(board, "gone", None);
    assert_eq!(walk(&mut watch), said(&[("a", Some(2)), ("b", Some(1))]));
    set(board, "a", None);
    set(board, "a", Some(3));
    set(board, "b", None);
    assert_eq!(walk(&mut watch), said(&[("a", Some(3)), ("b", None)]));
    assert_eq!(walk(&mut watch), said(&[]));
}

#[test]
fn setting_equal_routes_is_no_change() {
    let store = store();
    let board = store.board();
    let mut watch = board.watch(W0, Path::root());
    walk(&mut watch);
    assert!(!set(board, "a", Some(1)).is_empty());
    walk(&mut watch);
    assert!(set(board, "a", Some(1)).is_empty());
    assert!(set(board, "never", None).is_empty());
    assert!(!watch.is_pending());
}

#[test]
fn only_workers_that_watch_a_prefix_of_the_path_are_woken() {
    let store = store();
    let board = store.board();
    let _a = board.watch(W0, path("a"));
    let b = board.watch(W1, path("b"));
    let wakes = set(board, "a/x", Some(1));
    assert!(wakes.contains(W0) && !wakes.contains(W1));
    assert!(store.ready_list(W0).take(&mut Vec::new()));
    assert!(!store.ready_list(W0).take(&mut Vec::new()));
    assert!(!store.ready_list(W1).take(&mut Vec::new()));
    assert!(set(board, "b", Some(1)).contains(W1));
    drop(b);
    assert!(set(board, "b/c", Some(1)).is_empty());
}

#[test]
fn a_walk_appends_no_more_than_asked() {
    let store = store();
    let board = store.board();
    for at in 0..10 {
        set(board, &format!("p{at}"), Some(1));
    }
    let mut watch = board.watch(W0, Path::root());
    let mut out = Vec::new();
    assert!(step(&mut watch, 0, &mut out) && out.is_empty());
    assert!(step(&mut watch, 4, &mut out));
    assert_eq!(out.len(), 4);
    while step(&mut watch, 4, &mut out) {}
    assert_eq!(out.len(), 10);
}

#[test]
fn lagging_watch_makes_a_pass_and_reports_withdrawals() {
    let store = store();
    let board = store.board();
    for raw in ["keep", "lose", "turn"] {
        set(board, raw, Some(1));
    }
    let mut watch = board.watch(W0, Path::root());
    walk(&mut watch);
    set(board, "lose", None);
    set(board, "turn", Some(2));
    set(board, "new", Some(1));
    for at in 0..2 * bounds::BOARD_CHANGES as u64 {
        set(board, "churn", Some(at));
        set(board, "churn", None);
    }
    let mut got = walk(&mut watch);
    got.sort();
    assert_eq!(got, said(&[("lose", None), ("new", Some(1)), ("turn", Some(2))]));
}

#[test]
fn changes_kept_by_a_prefix_are_bounded() {
    let store = store();
    let board = store.board();
    let mut watch = board.watch(W0, Path::root());
    for at in 0..10 * bounds::BOARD_CHANGES as u64 {
        set(board, "churn", Some(at));
    }
    assert_eq!(board.inner.table.read().remembered(), bounds::BOARD_CHANGES);
    assert_eq!(walk(&mut watch).len(), 1);
}

#[test]
fn no_state_is_left_without_watches() {
    let store = store();
    let board = store.board();
    let watches = [board.watch(W0, path("a")), board.watch(W1, path("a")), board.watch(W0, Path::root())];
    set(board, "a/b", Some(1));
    assert_eq!((board.watches(), board.paths()), (3, 1));
    drop(watches);
    set(board, "a/b", None);
    assert_eq!((board.watches(), board.paths()), (0, 0));
    assert_eq!(board.inner.table.read().watched_prefixes(), 0);
}

#[test]
fn prefixes_of_a_path_are_its_leading_segments() {
    let all = |raw: &'static str| prefixes(raw).collect::<Vec<_>>();
    assert_eq!(all(""), [""]);
    assert_eq!(all("a"), ["", "a"]);
    assert_eq!(all("a/bc/d"), ["", "a", "a/bc", "a/bc/d"]);
}

#[test]
fn hundred_thousand_paths_are_walked_in_bounded_time() {
    let started = Instant::now();
    let store = store();
    let board = store.board();
    let mut early = board.watch(W0, Path::root());
    let all = 100_000;
    for at in 0..all {
        set(board, &format!("room/{}/user/{at}", at % 1_000), Some(1));
    }
    let mut narrow: Vec<BoardWatch> =
        (0..1_000).map(|at| board.watch(W1, path(&format!("room/{at}")))).collect();
    assert!(narrow.iter_mut().all(|watch| walk(watch).len() == 100));
    assert_eq!(walk(&mut early).len(), all);
    for at in 0..all / 2 {
        set(board, &format!("room/{}/user/{at}", at % 1_000), None);
    }
    assert_eq!(walk(&mut early).len(), all / 2);
    assert_eq!(board.paths(), all / 2);
    let remembered = board.inner.table.read().remembered();
    assert!(remembered <= all / 2 + 1_001 * bounds::BOARD_CHANGES, "{remembered} changes remembered");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn second_start_and_unknown_end_are_never_shown() {
    let store = store();
    let board = store.board();
    for at in 0..600 {
        set(board, &format!("p{at:03}"), Some(1));
    }
    let mut watch = board.watch(W0, Path::root());
    let mut out = Vec::new();
    step(&mut watch, 300, &mut out);
    // Behind and ahead of the position of the first pass.
    set(board, "p100", None);
    set(board, "p500", None);
    set(board, "p500", Some(1));
    set(board, "p550", None);
    while step(&mut watch, 7, &mut out) {}
    let ends: Vec<_> = out.iter().filter(|(_, cost)| cost.is_none()).collect();
    assert_eq!(ends, [&("p100".to_owned(), None)]);
    assert_eq!(out.len(), 600 - 1 + 1);
    assert_eq!(watch.advertised(), 598);
}

#[test]
fn a_watch_of_20_000_paths_takes_16_bytes_a_path() {
    let store = store();
    let board = store.board();
    // The order of slots differs from that of paths.
    for at in 0..20_000u64 {
        set(board, &format!("room/{}", at * 7_919 % 20_000), Some(1));
    }
    let mut watches: Vec<BoardWatch> = (0..64).map(|_| board.watch(W0, Path::root())).collect();
    for watch in &mut watches {
        assert_eq!(walk(watch).len(), 20_000);
    }
    let bytes: usize = watches.iter().map(|watch| size_of::<BoardWatch>() + watch.heap_bytes()).sum();
    assert!(bytes <= 16 * 64 * 20_000, "{} bytes a path and watch", bytes as f64 / (64.0 * 20_000.0));
}

#[test]
fn withdrawn_paths_go_once_all_watches_have_passed() {
    let store = store();
    let board = store.board();
    let mut quick = board.watch(W0, Path::root());
    let mut slow = board.watch(W1, Path::root());
    set(board, "keep", Some(1));
    for watch in [&mut quick, &mut slow] {
        walk(watch);
    }
    let slots = || board.inner.table.read().slots();
    let churn = |watches: &mut [&mut BoardWatch]| {
        for at in 0..4 * bounds::BOARD_WITHDRAWN {
            set(board, &format!("churn/{at}"), Some(1));
            watches.iter_mut().for_each(|watch| drop(walk(watch)));
            set(board, &format!("churn/{at}"), None);
            watches.iter_mut().for_each(|watch| drop(walk(watch)));
        }
    };
    churn(&mut [&mut quick, &mut slow]);
    assert!(slots() <= bounds::BOARD_WITHDRAWN + 1, "{}", slots());
    churn(&mut [&mut quick]);
    assert!(slots() > 4 * bounds::BOARD_WITHDRAWN, "one watch has not passed them: {}", slots());
    walk(&mut slow);
    churn(&mut [&mut quick, &mut slow]);
    churn(&mut [&mut quick, &mut slow]);
    assert!(slots() <= 2 * bounds::BOARD_WITHDRAWN + 1, "{}", slots());
}

#[test]
fn a_watch_left_too_far_behind_is_lost_and_others_are_not() {
    let store = store();
    let board = store.board();
    let mut left = board.watch(W0, Path::root());
    let mut apart = board.watch(W0, path("apart"));
    let mut empty = board.watch(W0, Path::root());
    set(board, "first", Some(1));
    set(board, "apart/x", Some(1));
    walk(&mut left);
    walk(&mut apart);
    for at in 0..2 * bounds::BOARD_WITHDRAWN_MAX + 2 {
        set(board, &format!("churn/{at}"), Some(1));
        set(board, &format!("churn/{at}"), None);
    }
    assert!(board.inner.table.read().slots() <= 2 * bounds::BOARD_WITHDRAWN_MAX + 2);
    let visited = left.visit(1, |candidate| VisitStep::Next(candidate.advert));
    assert!(visited.is_lost && visited.entries == 0);
    set(board, "apart/x", None);
    assert_eq!(walk(&mut apart), said(&[("apart/x", None)]));
    assert_eq!(walk(&mut empty), said(&[("first", Some(1))]));
}

#[test]
fn flapping_path_is_rate_limited_and_ends_newest() {
    let store = store();
    let board = store.board();
    let mut watch = board.watch(W0, Path::root());
    walk(&mut watch);
    let begun = Instant::now();
    let mut exact = board.watch(W0, Path::root());
    exact.set_exact();
    walk(&mut exact);
    let (mut wakes, mut seen, mut seen_exactly) = (WakeSet::new(), Vec::new(), 0);
    for ms in 0..2_000u64 {
        let now = begun + Duration::from_millis(ms);
        board.release(now, &mut wakes);
        let cost = if ms % 2 == 0 { routes(ms) } else { vec![] };
        board.set(path("flapping"), cost, now, &mut wakes);
        if ms % 100 == 50 {
            board.set(path(&format!("steady/{ms}")), routes(1), now, &mut wakes);
            assert_eq!(walk(&mut watch).last(), Some(&(format!("steady/{ms}"), Some(1))), "not delayed");
        }
        seen.extend(walk(&mut watch).iter().map(|_| ms));
        seen_exactly += walk(&mut exact).iter().filter(|(path, _)| path == "flapping").count();
    }
    assert!(seen.len() >= 4 && seen_exactly == 2_000, "{} and {seen_exactly}", seen.len());
    let most = seen.iter().map(|at| seen.iter().filter(|other| (*at..at + 1_000).contains(*other)).count());
    assert!(most.max() <= Some(PATH_CHANGES_PER_SECOND as usize), "{seen:?}");
    let end = begun + Duration::from_secs(2);
    board.release(end, &mut wakes);
    for cost in 3..=7 {
        board.set(path("flapping"), routes(cost), end, &mut wakes);
    }
    let due = board.release(end, &mut wakes).expect("a change was held back");
    let mut wakes = WakeSet::new();
    assert_eq!(board.release(due, &mut wakes), None);
    assert!(wakes.contains(W0));
    assert_eq!(walk(&mut watch), said(&[("flapping", Some(7))]));
    assert_eq!(board.list(&path("flapping"), None, 1)[0].routes[..], routes(7)[..]);
}

const PATHS: [&str; 8] = ["", "a", "a/b", "a/b/c", "a0", "b", "b/a", "c"];
const PREFIXES: [&str; 4] = ["", "a", "a/b", "b"];

#[derive(Clone, Debug)]
enum Op {
    Set { path: usize, cost: Option<u64> },
    Churn { path: usize },
    Watch { prefix: usize },
    Drop { at: usize },
    Walk { at: usize, max: usize },
}

fn op() -> impl Strategy<Value = Op> {
    let path = 0..PATHS.len();
    prop_oneof![
        6 => (path.clone(), prop::option::of(1..4u64)).prop_map(|(path, cost)| Op::Set { path, cost }),
        1 => path.prop_map(|path| Op::Churn { path }),
        1 => (0..PREFIXES.len()).prop_map(|prefix| Op::Watch { prefix }),
        1 => (0..4usize).prop_map(|at| Op::Drop { at }),
        4 => (0..4usize, 1..4usize).prop_map(|(at, max)| Op::Walk { at, max }),
    ]
}

/// A watch and its owner's view of the board.
struct Watcher {
    watch: BoardWatch,
    believes: BTreeMap<String, u64>,
}

impl Watcher {
    fn walk(&mut self, max: usize) -> bool {
        let mut out = Vec::new();
        let more = step(&mut self.watch, max, &mut out);
        for (key, cost) in out {
            assert!(path(&key).has_prefix(self.watch.prefix()));
            match cost {
                Some(cost) => {
                    self.believes.insert(key, cost);
                }
                None => assert!(self.believes.remove(&key).is_some(), "withdrew {key}, never announced"),
            }
        }
        more
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn every_watch_converges_to_the_set_routes(ops in prop::collection::vec(op(), 1..120)) {
        let store = store();
        let board = store.board();
        let mut model: BTreeMap<String, u64> = BTreeMap::new();
        let mut watchers: Vec<Watcher> = Vec::new();
        for op in ops {
            match op {
                Op::Set { path, cost } => {
                    set(board, PATHS[path], cost);
                    match cost {
                        Some(cost) => model.insert(PATHS[path].to_owned(), cost),
                        None => model.remove(PATHS[path]),
                    };
                }
                Op::Churn { path } => {
                    for cost in 0..bounds::BOARD_CHANGES as u64 + 1 {
                        set(board, PATHS[path], Some(cost + 10));
                    }
                    model.insert(PATHS[path].to_owned(), bounds::BOARD_CHANGES as u64 + 10);
                }
                Op::Watch { prefix } if watchers.len() < 4 => watchers.push(Watcher {
                    watch: board.watch(W0, path(PREFIXES[prefix])),
                    believes: BTreeMap::new(),
                }),
                Op::Drop { at } if at < watchers.len() => drop(watchers.swap_remove(at)),
                Op::Walk { at, max } if at < watchers.len() => {
                    watchers[at].walk(max);
                }
                _ => {}
            }
        }
        for watcher in &mut watchers {
            while watcher.walk(2) {}
            let prefix = watcher.watch.prefix();
            let below = model.iter().filter(|(raw, _)| path(raw).has_prefix(prefix));
            let expected: BTreeMap<_, _> = below.map(|(path, cost)| (path.clone(), *cost)).collect();
            prop_assert_eq!(&watcher.believes, &expected);
        }
        let prefixes: BTreeSet<_> = watchers.iter().map(|watcher| watcher.watch.prefix().to_string()).collect();
        prop_assert_eq!(board.inner.table.read().watched_prefixes(), prefixes.len());
    }
}
