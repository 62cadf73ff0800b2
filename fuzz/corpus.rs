//! Inputs of a decoder family: the files in `fuzz/regressions/FAMILY`, and deterministic changes of each. Included by
//! the replay tests of the crates that own the decoders.

use std::{fs, path::Path, thread};

/// Positions at which a long file is changed.
const POSITIONS: usize = 256;
/// Changes of a file at several random positions.
const RANDOM: u64 = 128;

/// Prints the input during which a check panics, so that it can become a file of the corpus.
struct Running<'a>(&'a str, &'a [u8]);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        if thread::panicking() {
            eprintln!("family {}, input in hexadecimal: {}", self.0, hex(self.1));
        }
    }
}

/// Calls `check` with every file of a family and every change of it.
pub(crate) fn replay(family: &str, mut check: impl FnMut(&[u8])) {
    for (_, seed) in seeds(family) {
        for input in std::iter::once(seed.clone()).chain(changed(&seed)) {
            let running = Running(family, &input);
            check(running.1);
        }
    }
}

/// Names and contents of the files of a family, in order of name.
pub(crate) fn seeds(family: &str) -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/regressions").join(family);
    let mut seeds: Vec<_> = fs::read_dir(&folder)
        .expect("every family has a folder")
        .map(|entry| {
            let path = entry.expect("an entry of the folder").path();
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            (name, fs::read(path).expect("a readable seed"))
        })
        .collect();
    assert!(!seeds.is_empty(), "{family} has no seeds");
    seeds.sort();
    seeds
}

/// Every prefix; every byte changed, removed and doubled; and changes at several random positions.
fn changed(seed: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    let at = || (0..seed.len()).step_by(seed.len().div_ceil(POSITIONS).max(1));
    let cut = at().map(move |end| seed[..end].to_vec());
    let replaced = at().flat_map(move |at| {
        let old = seed[at];
        [old ^ 0x01, old ^ 0x40, old ^ 0x80, old.wrapping_add(1), 0x00, 0xff].map(move |new| {
            let mut input = seed.to_vec();
            input[at] = new;
            input
        })
    });
    let removed = at().map(move |at| [&seed[..at], &seed[at + 1..]].concat());
    let doubled = at().map(move |at| [&seed[..=at], &seed[at..]].concat());
    let mixed = (0..RANDOM).map(move |number| mixed(seed, number));
    cut.chain(replaced).chain(removed).chain(doubled).chain(mixed).filter(move |input| input != seed)
}

/// Change number `number` at one to eight positions, and of the length.
fn mixed(seed: &[u8], number: u64) -> Vec<u8> {
    let mut state = number;
    let mut next = move |below: usize| {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        (mixed ^ (mixed >> 27)) as usize % below.max(1)
    };
    let mut input = seed.to_vec();
    for _ in 0..=next(8) {
        let at = next(input.len() + 1);
        match (next(3), input.get_mut(at)) {
            (0, Some(byte)) => *byte = next(256) as u8,
            (1, Some(_)) => drop(input.remove(at)),
            _ => input.insert(at, next(256) as u8),
        }
    }
    input
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
