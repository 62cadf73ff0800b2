//! Replay of fuzzer findings and seeds on the stable toolchain.

use std::{fs, path::PathBuf};

use relay_wire::fuzzing::FAMILIES;

#[test]
fn no_known_input_breaks_a_decoder() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions");
    for (family, check) in FAMILIES {
        let mut inputs = 0;
        for entry in fs::read_dir(root.join(family)).expect("every family has a folder") {
            check(&fs::read(entry.unwrap().path()).unwrap());
            inputs += 1;
        }
        assert!(inputs > 0, "{family} has seeds");
    }
}
