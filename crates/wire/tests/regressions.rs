//! Replay of fuzzer findings and seeds, and of changes of them, on the stable toolchain.

#[path = "../../../fuzz/corpus.rs"]
mod corpus;

use relay_wire::fuzzing::FAMILIES;

#[test]
fn no_known_input_breaks_a_decoder() {
    for (family, check) in FAMILIES {
        corpus::replay(family, check);
    }
}
