//! Promise: configuration files of deployed relays are accepted with warnings, or refused with a remedy.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

use relay_auth::{Algorithm, Key};
use relay_client::{Client, ClientConfig, Tuning};
use rustix::process::Signal;
use tempfile::TempDir;

use common::{Running, file, free_address, http::free_tcp, relay, run, run_alone};

enum Outcome {
    /// Serves; the log has each of these texts.
    Started(&'static [&'static str]),
    /// Serves and admits nobody; the log has each of these texts.
    Closed(&'static [&'static str]),
    /// Ends with status 1; the error has each of these texts.
    Refused(&'static [&'static str]),
}

use Outcome::{Closed, Refused, Started};

const FILES: &[(&str, Outcome)] = &[
    ("seed", Started(&["publish=anon/**"])),
    ("minimal", Started(&["anon/**"])),
    (
        "dev-0.14",
        Started(&[
            "listening for http",
            "`stats.enabled` has no effect",
            "`iroh.secret` has no effect",
            "subscribe=everything",
        ]),
    ),
    (
        "open-0.14",
        Started(&[
            "not supported, and not offered: moq-transport-16",
            "`cluster.node` has no effect",
            "publish=anon/**, demo/viewer/** subscribe=anon/**, demo/**",
        ]),
    ),
    ("prod-0.14", Started(&["listening for https", "publish=anon/**, demo/viewer/** subscribe=anon/**"])),
    ("leaf-0.14", Refused(&["`cluster.connect` is not supported: relays are not linked yet"])),
    ("root-0.14", Started(&["listening for http", "publish=everything"])),
    (
        "edge-0.17",
        Started(&[
            "`listen.timeout` has no effect",
            "`quic.receive_window` has no effect",
            "listening for http",
            "listening for internal",
            "publish=anon/** subscribe=anon/**, demo/**",
        ]),
    ),
    // No auth server runs at its URL.
    ("auth-0.17", Closed(&["credentials=\"auth.url\""])),
];

/// The file and the certificate it names, in a new folder.
fn prepared(name: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/fixtures/{name}.toml"));
    let text = fs::read_to_string(file).unwrap().replace("/path/to/", "");
    fs::write(folder.path().join("relay.toml"), text).unwrap();
    let jwk = Key::generate(Algorithm::HS256, None).unwrap().to_json();
    fs::write(folder.path().join("root.jwk"), jwk).unwrap();
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    fs::write(folder.path().join("cert.pem"), certificate.pem()).unwrap();
    fs::write(folder.path().join("ca.pem"), certificate.pem()).unwrap();
    fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    folder
}

async fn serves(name: &str, said: &[&str], lets_in: bool) {
    let folder = prepared(name);
    let address = free_address();
    let mut command = relay();
    command.current_dir(folder.path()).args(["relay.toml", "--server-bind", &address]);
    // The configured ports may be in use on this machine.
    let text = fs::read_to_string(folder.path().join("relay.toml")).unwrap();
    for (section, flag) in [
        ("[web.http]", "--web-http-listen"),
        ("[web.https]", "--web-https-listen"),
        ("[internal]", "--internal-listen"),
    ] {
        if text.contains(section) {
            command.args([flag, &free_tcp()]);
        }
    }
    let relay = Running::start(&mut command);
    let mut log = relay.line_with("");
    while !log.contains(" serving ") {
        log = log + "\n" + &relay.line_with("");
    }
    assert!(said.iter().all(|text| log.contains(text)), "{name}: {log}");
    let client = Client::connect(&format!("moqt://{address}/anon"), ClientConfig::default()).await.unwrap();
    match lets_in {
        true => drop(client.peer_setup().await.unwrap()),
        false => drop(client.closed().await),
    }
    relay.signal(Signal::TERM);
    drop(client);
    assert_eq!(relay.end().code(), Some(0), "{name}");
}

#[test]
fn deployed_configuration_files_start_or_are_refused() {
    for (name, outcome) in FILES {
        match outcome {
            Started(said) => run(serves(name, said, true)),
            Closed(said) => run(serves(name, said, false)),
            Refused(said) => {
                let folder = prepared(name);
                let mut command = relay();
                let Output { status, stderr, .. } =
                    command.current_dir(folder.path()).arg("relay.toml").output().unwrap();
                let stderr = String::from_utf8(stderr).unwrap();
                assert_eq!(status.code(), Some(1), "{name}: {stderr}");
                assert!(said.iter().all(|text| stderr.contains(text)), "{name}: {stderr}");
            }
        }
    }
}

/// Number of worker threads of the process.
fn workers(relay: &Running) -> usize {
    let threads = fs::read_dir(format!("/proc/{}/task", relay.child.id())).unwrap();
    let names = threads.filter_map(|thread| fs::read_to_string(thread.unwrap().path().join("comm")).ok());
    names.filter(|name| name.starts_with("worker-")).count()
}

#[test]
fn worker_and_quic_settings_are_applied() {
    run_alone(async {
        let address = free_address();
        let (_folder, path) = file(&format!(
            "auth.public = \"\"\nserver.bind = {address:?}\nruntime.workers = 3\n\
             quic = {{ idle_timeout = \"1s\", keep_alive = 0 }}\n"
        ));
        let relay = Running::start(relay().arg(&path));
        relay.line_with("serving");
        // A thread sets its name after it has started.
        while workers(&relay) != 3 {
            tokio::task::yield_now().await;
        }
        let long = Duration::from_secs(60);
        let tuning = Tuning { idle: long, keep_alive: None, ..Tuning::default() };
        let config = ClientConfig { tuning, ..ClientConfig::default() };
        let client = Client::connect(&format!("moqt://{address}/"), config).await.unwrap();
        let started = Instant::now();
        client.closed().await;
        assert!(started.elapsed() < Duration::from_secs(8), "earlier than the default timeout");
        relay.signal(Signal::TERM);
        assert_eq!(relay.end().code(), Some(0));
    });
}
