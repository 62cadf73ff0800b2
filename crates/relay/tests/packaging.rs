//! Promise: the steps of `docs/operations.md` name existing files in a working order, and the container image has
//! all that a relay needs.

#![allow(missing_docs)]

use std::{
    fs,
    path::{Path, PathBuf},
};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

fn read(name: &str) -> String {
    fs::read_to_string(root().join(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Commands in the section `title` of `docs/operations.md`, with continued lines joined.
fn commands(title: &str) -> Vec<String> {
    let page = read("docs/operations.md");
    let (_, section) = page.split_once(&format!("\n## {title}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap().replace("\\\n", " ");
    section.lines().filter_map(|line| line.strip_prefix("    ")).map(str::to_owned).collect()
}

/// Index of the first command that contains `text`.
fn at(commands: &[String], text: &str) -> usize {
    commands
        .iter()
        .position(|line| line.contains(text))
        .unwrap_or_else(|| panic!("no {text} in {commands:#?}"))
}

#[test]
fn installed_files_exist_in_the_source() {
    let commands = commands("Install");
    let installed = commands.iter().filter_map(|line| line.strip_prefix("sudo install "));
    let mut files = 0;
    for line in installed {
        let source = line.split(' ').find(|word| word.contains('/')).unwrap();
        // Build results are not in the source.
        if !source.starts_with("target/dist/") {
            assert!(root().join(source).is_file(), "{source} of {line:?}");
            files += 1;
        }
    }
    assert_eq!(files, 3, "{commands:#?}");
}

#[test]
fn service_is_started_after_all_it_needs() {
    let steps = commands("Install");
    let start = at(&steps, "systemctl enable --now moq-relay");
    for before in
        ["cargo build", "relay.toml /etc/moq-relay/", "groupadd --system --force moq-certs", "daemon-reload"]
    {
        assert!(at(&steps, before) < start, "{before}");
    }
    let page = read("docs/operations.md");
    let certificate = page.find("get one now").unwrap();
    assert!(certificate < page.find("enable --now").unwrap());
    let unit = read("packaging/moq-relay.service");
    assert!(unit.contains("SupplementaryGroups=moq-certs") && unit.contains("StartLimitIntervalSec=0"));
}

#[test]
fn container_has_authorities_and_sends_no_build_results() {
    let file = read("packaging/Containerfile");
    let (_, last) = file.rsplit_once("\nFROM ").unwrap();
    assert!(last.contains("ca-certificates") && last.contains("HEALTHCHECK") && last.contains("WORKDIR"));
    let ignored = read(".dockerignore");
    for name in ["**/target", ".git", "**/node_modules"] {
        assert!(ignored.lines().any(|line| line == name), "{name}");
    }
    let steps = commands("Install");
    // The default format of podman drops the health check.
    assert!(steps[at(&steps, "podman build")].contains("--format docker"));
    let run = &steps[at(&steps, "podman run")];
    for part in
        ["-p 4443:4443/udp", "-p 4443:4443/tcp", "/etc/moq-relay:ro", "/etc/letsencrypt:ro", "--group-add"]
    {
        assert!(run.contains(part), "{part} in {run}");
    }
}

#[test]
fn pages_do_not_deny_what_exists() {
    for (page, stale) in [
        ("SECURITY.md", "no command that ends one session"),
        ("SECURITY.md", "There is no limit on connections from one address"),
        ("docs/configuration.md", "counts for nothing"),
    ] {
        assert!(!read(page).contains(stale), "{page}: {stale}");
    }
}
