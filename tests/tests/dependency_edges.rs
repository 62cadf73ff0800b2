//! Promise: the crates depend on each other only as the architecture allows, and each heavy library is named by its
//! owner only.

#![allow(missing_docs)]

use std::{
    collections::{BTreeMap, BTreeSet},
    process::Command,
};

use serde_json::Value;

/// Workspace crates that each crate may use. Anything else is a change of architecture and belongs in this table, with
/// a reason.
const EDGES: &[(&str, &[&str])] = &[
    // The vocabulary and the counters have no dependencies in the workspace.
    ("relay-model", &[]),
    ("relay-meter", &[]),
    // Leaves over the vocabulary.
    ("relay-wire", &["relay-model"]),
    ("relay-store", &["relay-model"]),
    ("relay-auth", &["relay-model"]),
    // The control plane knows policies, but neither wire formats nor the store.
    ("relay-core", &["relay-model", "relay-auth"]),
    // The data plane: no core, no library that does I/O. Counters are arguments. Of auth it takes the permit, which
    // only auth can make.
    ("relay-session", &["relay-model", "relay-auth", "relay-wire", "relay-store", "relay-meter"]),
    // Transports of a session, beside the session: both know only the trait between them, which is in the vocabulary
    // because it is types and signatures without I/O. The codes and version names are in the wire crate.
    ("relay-transport", &["relay-model", "relay-wire"]),
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
    // The client shares only the codec with the relay. It uses another QUIC library, so that a mistake in our transport
    // is not on both ends of a test.
    ("relay-client", &["relay-model", "relay-wire"]),
    ("relay-load", &["relay-model", "relay-wire", "relay-client"]),
    // The verbs are clients of any relay, or work on keys and tokens; they use no relay internals.
    ("relay-cli", &["relay-model", "relay-auth", "relay-client", "relay-load"]),
    // The HTTP side reads state from the crates that hold it.
    (
        "relay-http",
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
    // The configuration fills the settings types of the parts that are configured, and starts none of them.
    ("relay-config", &["relay-model", "relay-auth", "relay-worker", "relay-http"]),
    // The gate that the worker asks: reads keys and asks servers, so that `relay-auth` does neither.
    ("relay-access", &["relay-model", "relay-auth", "relay-worker", "relay-http", "relay-config"]),
    // Certificates as the configuration names them, for the TLS settings of the worker.
    ("relay-certificate", &["relay-worker", "relay-config"]),
    // Explains why a start fails or would fail, so it tries what each part needs of the machine, and makes a handshake
    // with the relay's own port, as any client does.
    (
        "relay-host",
        &[
            "relay-model",
            "relay-worker",
            "relay-http",
            "relay-client",
            "relay-config",
            "relay-certificate",
            "relay-access",
        ],
    ),
    // The binary wires up the parts; it handles no wire format.
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
            "relay-http",
            "relay-config",
            "relay-access",
            "relay-certificate",
            "relay-host",
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
    ("tokio", &["relay-client", "relay-load", "relay-cli", "relay-http", "relay-access", "relay-host"]),
    ("axum", &["relay-http"]),
    ("tower-http", &["relay-http"]),
    // One side serves, the other queries auth servers.
    ("hyper", &["relay-http", "relay-access"]),
    ("tokio-rustls", &["relay-http", "relay-client", "relay-access"]),
    ("tungstenite", &["relay-transport"]),
    ("web-transport-proto", &["relay-transport", "relay-client"]),
    ("rcgen", &["relay-certificate"]),
    ("toml", &["relay-config"]),
    ("x509-cert", &["relay-certificate", "relay-transport"]),
    ("procfs-core", &["relay-host"]),
    ("sd-notify", &["relay-host"]),
    ("signal-hook", &["relay-host"]),
];

/// Never in the build: there is one crypto provider (aws-lc-rs) and one TLS library (rustls).
const BANNED: &[&str] = &["ring", "openssl-sys", "native-tls"];

/// Exempt from the tables: they may use everything, and nothing may use them.
const OUTSIDE: &[&str] = &["relay-tests", "relay-bench", "relay-sim"];

/// Output of a cargo command.
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
    let metadata: Value = serde_json::from_str(&metadata).expect("cargo prints JSON");
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
    // Every crate is below the crates it may use, in the order of the table.
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
    // The metadata contains optional dependencies; the tree contains those that are built.
    let tree = cargo(&["tree", "--workspace", "--prefix", "none", "--no-dedupe", "--format", "{p}"]);
    let mut wrong = BTreeSet::new();
    for package in tree.lines().filter(|line| !line.is_empty()) {
        let mut words = package.split(' ');
        let name = words.next().unwrap_or_default();
        if BANNED.contains(&name) {
            wrong.insert(format!("{name} is in the tree"));
        }
        // Packages of crates.io have no source here; workspace packages have a folder.
        if let Some(source) = words.find(|word| word.contains("://")) {
            wrong.insert(format!("{name} comes from {source}"));
        }
    }
    assert!(tree.contains("aws-lc-rs v"), "the tree was not read:\n{tree}");
    assert!(wrong.is_empty(), "{wrong:#?}");
}
