//! Promise: the help texts of the verbs match the golden files.

#![allow(missing_docs)]

mod common;

use std::{env, fs, path::Path};

use common::relay;

/// Compares with a file of `golden/`; with `UPDATE_GOLDEN` set, writes it.
fn golden(name: &str, found: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(name);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, found).unwrap();
        return;
    }
    let kept = fs::read_to_string(&path).unwrap_or_default();
    assert!(kept == found, "{name} differs; UPDATE_GOLDEN=1 rewrites it. Now:\n{found}");
}

#[test]
fn help_of_every_verb_matches_its_golden_file() {
    for verb in
        ["demo", "check", "doctor", "pub", "sub", "ls", "fetch", "load", "token", "man", "completions"]
    {
        let output = relay().args([verb, "--help"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        golden(&format!("{verb}.txt"), &String::from_utf8(output.stdout).unwrap());
    }
    for verb in ["generate", "sign", "verify", "inspect"] {
        let output = relay().args(["token", verb, "--help"]).output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        golden(&format!("token-{verb}.txt"), &String::from_utf8(output.stdout).unwrap());
    }
}

#[test]
fn every_verb_has_a_manual_page() {
    let folder = tempfile::tempdir().unwrap();
    let status = relay().args(["man", "--dir"]).arg(folder.path()).status().unwrap();
    assert!(status.success());
    for verb in ["demo", "pub", "sub", "ls", "fetch", "load", "token", "token-sign"] {
        let page = fs::read_to_string(folder.path().join(format!("moq-relay-{verb}.1"))).unwrap();
        assert!(page.contains(".SH SYNOPSIS"), "{page}");
        let one = relay().args(["man", verb.split('-').next().unwrap()]).output().unwrap();
        assert!(String::from_utf8(one.stdout).unwrap().contains(".SH SYNOPSIS"));
    }
}
