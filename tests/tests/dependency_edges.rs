//! Promise: the crates depend on each other only as the architecture says, and one crate only
//! names each heavy library.

#![allow(missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Which crates of the workspace each one may use. Anything else is a change of architecture and
/// belongs into this table together with a reason.
const EDGES: &[(&str, &[&str])] = &[
    // The vocabulary and the counters use nothing.
    ("relay-model", &[]),
    ("relay-meter", &[]),
    // Leaves over the vocabulary.
    ("relay-wire", &["relay-model"]),
    ("relay-store", &["relay-model"]),
    ("relay-auth", &["relay-model"]),
    // The control plane sees policy, never bytes: neither wire nor store.
    ("relay-core", &["relay-model", "relay-auth"]),
    // The data plane: no core, no auth, no library that does I/O. Counters are passed in.
    ("relay-session", &["relay-model", "relay-wire", "relay-store", "relay-meter"]),
    // Bytes under a session; the codes it maps are wire's.
    ("relay-transport", &["relay-model", "relay-wire", "relay-session"]),
    // A worker composes both planes.
    (
        "relay-worker",
        &[
            "relay-model",
            "relay-wire",
            "relay-store",
            "relay-auth",
            "relay-core",
            "relay-session",
            "relay-transport",
            "relay-meter",
        ],
    ),
    // The client shares the codec with the relay and nothing else: it runs on an async QUIC library
    // of its own, so that a mistake in our transport is not on both ends of a test.
    ("relay-client", &["relay-model", "relay-wire"]),
    ("relay-load", &["relay-model", "relay-wire", "relay-client"]),
    // The verbs are clients of any relay: they know nothing of ours.
    ("relay-cli", &["relay-model", "relay-client", "relay-load"]),
    // What HTTP shows is read from where it is held.
    (
        "relay-admin",
        &[
            "relay-model",
            "relay-store",
            "relay-auth",
            "relay-core",
            "relay-meter",
            "relay-transport",
            "relay-worker",
        ],
    ),
    // The binary wires up what the worker needs; it speaks no wire format.
    (
        "moq-relay",
        &[
            "relay-model",
            "relay-auth",
            "relay-core",
            "relay-store",
            "relay-session",
            "relay-transport",
            "relay-worker",
            "relay-meter",
            "relay-admin",
            // A handshake with the relay's own port, as any client makes it.
            "relay-client",
            "relay-cli",
        ],
    ),
];

/// Libraries that only these crates may name, so that they can be replaced in one place.
const OWNERS: &[(&str, &[&str])] = &[
    ("quinn-proto", &["relay-transport"]),
    ("quinn-udp", &["relay-worker"]),
    ("mio", &["relay-worker"]),
    ("quinn", &["relay-client"]),
    ("qmux", &["relay-client"]),
    ("web-transport-trait", &["relay-client"]),
    ("tokio", &["relay-client", "relay-load", "relay-cli", "relay-admin", "moq-relay"]),
    ("axum", &["relay-admin"]),
    // One side serves, the other asks auth servers.
    ("hyper", &["relay-admin", "moq-relay"]),
    ("tokio-rustls", &["relay-admin", "relay-client", "moq-relay"]),
    ("tungstenite", &["relay-transport"]),
    ("web-transport-proto", &["relay-transport", "relay-client"]),
    ("rcgen", &["moq-relay"]),
    ("toml", &["moq-relay"]),
];

/// Never in what we build: there is one crypto provider (aws-lc-rs) and one TLS (rustls).
const BANNED: &[&str] = &["ring", "openssl-sys", "native-tls"];

/// Not bound by the tables: they use everything, and nothing may use them.
const OUTSIDE: &[&str] = &["relay-tests", "relay-bench", "relay-sim"];

/// What a cargo command prints.
fn cargo(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO"))
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .expect("cargo runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("cargo prints text")
}

fn text(value: &Value) -> String {
    value.as_str().expect("a string").to_owned()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().expect("a list").iter()
}

/// Normal dependencies of each package of the workspace, by package name.
fn dependencies() -> BTreeMap<String, BTreeSet<String>> {
    let normal = |package: &Value| {
        items(&package["dependencies"]).filter(|d| d["kind"].is_null()).map(|d| text(&d["name"])).collect()
    };
    let metadata = cargo(&["metadata", "--no-deps", "--format-version", "1"]);
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo speaks JSON");
    items(&metadata["packages"]).map(|package| (text(&package["name"]), normal(package))).collect()
}

#[test]
fn crates_use_each_other_only_as_the_architecture_says() {
    let found = dependencies();
    let workspace: BTreeSet<&str> = found.keys().map(String::as_str).collect();
    let allowed: BTreeMap<&str, &[&str]> = EDGES.iter().copied().collect();
    let mut wrong = Vec::new();
    for (package, uses) in found.iter().filter(|(package, _)| !OUTSIDE.contains(&package.as_str())) {
        let Some(may) = allowed.get(package.as_str()) else {
            wrong.push(format!("{package} is not in the table"));
            continue;
        };
        let inside = uses.iter().filter(|name| workspace.contains(name.as_str()));
        wrong.extend(
            inside
                .filter(|name| !may.contains(&name.as_str()))
                .map(|name| format!("{package} must not use {name}")),
        );
    }
    wrong.extend(
        EDGES.iter().map(|edge| edge.0).filter(|p| !workspace.contains(p)).map(|p| format!("{p} is gone")),
    );
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn the_architecture_has_no_cycle() {
    // Every crate stands below those it may use, in the order of the table.
    for (at, (package, uses)) in EDGES.iter().enumerate() {
        for name in *uses {
            let place = EDGES.iter().position(|edge| edge.0 == *name);
            assert!(place.is_some_and(|place| place < at), "{package} uses {name}, which stands below it");
        }
    }
}

#[test]
fn a_replaceable_library_is_named_by_its_owner_alone() {
    let found = dependencies();
    let mut wrong = Vec::new();
    for (library, owners) in OWNERS {
        for (package, uses) in found.iter().filter(|(package, _)| !OUTSIDE.contains(&package.as_str())) {
            if uses.contains(*library) && !owners.contains(&package.as_str()) {
                wrong.push(format!("{package} must not name {library}"));
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn there_is_one_crypto_provider_and_one_source() {
    // Metadata lists what could be switched on; the tree is what is built.
    let tree = cargo(&["tree", "--workspace", "--prefix", "none", "--no-dedupe", "--format", "{p}"]);
    let mut wrong = BTreeSet::new();
    for package in tree.lines().filter(|line| !line.is_empty()) {
        let mut words = package.split(' ');
        let name = words.next().unwrap_or_default();
        if BANNED.contains(&name) {
            wrong.insert(format!("{name} is in the tree"));
        }
        // Packages of crates.io show no source; ours show a folder.
        if let Some(source) = words.find(|word| word.contains("://")) {
            wrong.insert(format!("{name} comes from {source}"));
        }
    }
    assert!(tree.contains("aws-lc-rs v"), "the tree was not read:\n{tree}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
