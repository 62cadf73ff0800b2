//! Promise: any broken configuration file is refused with a position, without a panic.

#![allow(missing_docs)]

use std::{fs, path::Path};

use proptest::prelude::*;
use relay_config::{Config, Place, SettingOverrides};

/// Valid files to mutate.
fn seeds() -> Vec<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../relay/tests/fixtures");
    let files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let mut seeds: Vec<_> = files.filter(|path| path.is_file()).collect();
    seeds.sort();
    seeds.iter().map(|path| fs::read_to_string(path).unwrap()).collect()
}

/// Parses `text`, and checks the positions of the problems.
fn parse(text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    fs::write(&file, text).unwrap();
    let resolution = Config::resolve(Some(&file), &SettingOverrides::default()).unwrap();
    let lines = text.lines().count() + 1;
    for refusal in &resolution.refusals {
        assert!(!refusal.to_string().is_empty());
        match &refusal.place {
            Place::File(named, at) => {
                assert_eq!(named, &file);
                assert!(at.is_none_or(|at| (1..=lines).contains(&at.line) && at.column >= 1), "{refusal}");
            }
            other => panic!("{other:?} is no place in a file"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn mutated_file_is_parsed_or_refused_with_position(
        seed in 0usize..9,
        at in 0usize..1_000,
        hole in 0usize..30,
        patch in "[\\[\\]=\"'a-z0-9\\n.,{}#%\\\\-]{0,12}",
    ) {
        let seeds = seeds();
        let text: Vec<char> = seeds[seed % seeds.len()].chars().collect();
        let at = at % (text.len() + 1);
        let end = (at + hole).min(text.len());
        let broken: String = text[..at].iter().copied().chain(patch.chars()).chain(text[end..].iter().copied()).collect();
        parse(&broken);
    }

    #[test]
    fn any_value_of_any_key_is_parsed_or_refused_with_position(
        key in 0usize..200,
        value in prop_oneof![
            "\"[^\"\\\\\\x00-\\x1f\\x7f]{0,24}\"",
            any::<i64>().prop_map(|number| number.to_string()),
            any::<f64>().prop_map(|number| if number.is_finite() { format!("{number:?}") } else { "nan".into() }),
            Just("true".to_owned()), Just("[]".to_owned()), Just("[1, [\"a\"]]".to_owned()),
            Just("{}".to_owned()), Just("{ a = { b = 1 } }".to_owned()), Just("1979-05-27T07:32:00Z".to_owned()),
            Just("99999999999999999999999".to_owned()), Just("0xffffffffffffffff".to_owned()),
        ],
    ) {
        let keys: Vec<&str> = relay_config::table::entries().flat_map(|entry| entry.all_spellings()).collect();
        let key = keys[key % keys.len()].replace('*', "x");
        parse(&format!("{key} = {value}\n"));
    }
}

#[test]
fn invalid_toml_is_refused_with_position() {
    for text in [
        "\0",
        "[[server]]\nbind = 1\n",
        "a",
        "=",
        "[]",
        "\"",
        "[server]\n[server]\n",
        "\u{feff}x=1",
        "a.b.c.d.e.f=1",
    ] {
        parse(text);
    }
    parse(&"[".repeat(10_000));
    parse(&format!("server.bind = {}1{}\n", "[".repeat(5_000), "]".repeat(5_000)));
    parse(&format!("{}x = 1\n", "a.".repeat(5_000)));
}

#[test]
fn file_that_is_not_utf8_or_too_long_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    fs::write(&file, [0xff, 0xfe, 0x00]).unwrap();
    assert!(Config::load(&file).unwrap_err().to_string().contains("UTF-16"));
    fs::write(&file, [0xc3, 0x28]).unwrap();
    assert!(Config::load(&file).unwrap_err().to_string().contains("UTF-8"));
    fs::write(&file, "#".repeat(1024 * 1024 + 1)).unwrap();
    assert!(Config::load(&file).unwrap_err().to_string().contains("at most 1048576"));
    fs::write(&file, format!("{}\nauth.public = \"\"\n", "#".repeat(1024 * 1024 - 18))).unwrap();
    Config::load(&file).unwrap();
    assert!(Config::load(folder.path()).is_err(), "a folder");
}
