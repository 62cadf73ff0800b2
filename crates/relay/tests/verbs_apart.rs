//! Promise: the verbs handle certificate chains, rejected tokens and interrupted groups.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use relay_client::{Client, ClientConfig, StreamCode, TrackInfo};
use serde_json::Value;
use tempfile::TempDir;

use common::{Running, free_address, golden::golden, relay, run};

const DAY: Duration = Duration::from_secs(24 * 3_600);

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap()
}

/// A relay whose certificate is signed by an intermediate authority.
struct Chained {
    folder: TempDir,
    _relay: Running,
    address: String,
}

impl Chained {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = |name: &str| {
            let mut params = CertificateParams::new(Vec::new()).unwrap();
            params.distinguished_name.push(DnType::CommonName, name);
            params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
            params
        };
        let (root_key, middle_key, key) =
            (KeyPair::generate().unwrap(), KeyPair::generate().unwrap(), KeyPair::generate().unwrap());
        let root = authority("root").self_signed(&root_key).unwrap().pem();
        let root_issuer = Issuer::new(authority("root"), root_key);
        let middle = authority("middle").signed_by(&middle_key, &root_issuer).unwrap().pem();
        let middle_issuer = Issuer::new(authority("middle"), middle_key);
        let mut leaf = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap();
        leaf.not_before = (SystemTime::now() - DAY).into();
        leaf.not_after = (SystemTime::now() + DAY * 90).into();
        let leaf = leaf.signed_by(&key, &middle_issuer).unwrap().pem();
        let at = |name: &str| folder.path().join(name);
        let other = authority("root").self_signed(&KeyPair::generate().unwrap()).unwrap().pem();
        fs::write(at("other.pem"), other).unwrap();
        fs::write(at("root.pem"), root).unwrap();
        fs::write(at("cert.pem"), format!("{leaf}{middle}")).unwrap();
        fs::write(at("key.pem"), key.serialize_pem()).unwrap();
        private(&at("key.pem"));
        let address = free_address();
        let file = at("relay.toml");
        let show = |name: &str| at(name).display().to_string();
        let (cert, key) = (show("cert.pem"), show("key.pem"));
        let config = format!(
            "[server]\nbind = \"{address}\"\n[tls]\ncert = \"{cert}\"\nkey = \"{key}\"\n[auth]\npublic = \"\"\n"
        );
        fs::write(&file, config).unwrap();
        let running = Running::start(relay().arg(&file));
        running.line_with("serving");
        Self { _relay: running, address, folder }
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn list(&self, scheme: &str, more: &[&str]) -> Output {
        let url = format!("{scheme}://{}/", self.address);
        relay().args(["ls", &url]).args(more).output().unwrap()
    }
}

fn private(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    fs::set_permissions(file, fs::Permissions::from_mode(0o600)).unwrap();
}

#[test]
fn chain_is_trusted_by_its_root_only() {
    let relay = Chained::new();
    let root = relay.file("root.pem").display().to_string();
    for scheme in ["moqt", "https"] {
        let believed = relay.list(scheme, &["--root", &root]);
        assert_eq!(believed.status.code(), Some(0), "{scheme}: {}", text(&believed.stderr));
        let other = relay.file("other.pem").display().to_string();
        let doubted = relay.list(scheme, &["--root", &other]);
        assert_eq!(doubted.status.code(), Some(3), "{scheme}");
        assert!(text(&doubted.stderr).contains("is not trusted"), "{}", text(&doubted.stderr));
    }
    let none = relay.list("moqt", &["--root", &relay.file("key.pem").display().to_string()]);
    assert_eq!(none.status.code(), Some(1));
    assert!(text(&none.stderr).contains("key.pem: holds no certificate"), "{}", text(&none.stderr));
}

#[test]
fn doctor_accepts_a_relay_with_a_certificate_chain() {
    let relay = Chained::new();
    let file = relay.file("relay.toml").display().to_string();
    let Output { status, stdout, stderr } = common::relay().args(["doctor", &file]).output().unwrap();
    assert_eq!((status.code(), text(&stderr)), (Some(0), ""), "{}", text(&stdout));
    let folder = format!("{}/", relay.folder.path().display());
    let of_the_relay =
        |line: &&str| [" configuration ", " certificate ", " port "].iter().any(|name| line.contains(name));
    let lines: Vec<&str> = text(&stdout).lines().filter(of_the_relay).collect();
    let said = lines.join("\n").replace(&folder, "").replace(&relay.address, "ADDRESS");
    golden("doctor/chain.txt", &format!("{}\n", masked(&said)));
}

/// Masks numbers that differ from run to run: process ids, times, days left, fingerprints.
fn masked(said: &str) -> String {
    let digits = |word: &str| word.len() == 64 && word.chars().all(|c| c.is_ascii_hexdigit());
    let words = said.split_inclusive([' ', '\n', '(', ')', ',']).map(|word| {
        let bare = word.trim_end_matches([' ', '\n', '(', ')', ',']);
        let tail = &word[bare.len()..];
        match bare {
            _ if digits(bare) => format!("FINGERPRINT{tail}"),
            _ if !bare.is_empty() && bare.starts_with(|c: char| c.is_ascii_digit()) => format!("N{tail}"),
            _ => word.to_owned(),
        }
    });
    words.collect()
}

/// A relay with default settings.
fn open() -> (Running, String) {
    let address = free_address();
    let running = Running::start(relay().args(["--bind", &address]));
    running.line_with("certificate");
    (running, address)
}

#[test]
fn rejected_token_has_its_status_and_is_never_shown() {
    let (_relay, address) = open();
    for (verb, names) in
        [("ls", &[][..]), ("sub", &["b", "t"]), ("pub", &["b", "t"]), ("fetch", &["b", "t", "--group", "0"])]
    {
        for scheme in ["moqt", "https"] {
            let url = format!("{scheme}://{address}/room?jwt=sesame.open.now");
            let mut command: Command = relay();
            let output = command.args([verb, &url]).args(names).output().unwrap();
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(4), "{verb} {scheme}: {said}");
            assert!(!said.contains("sesame") && output.stdout.is_empty(), "{said}");
        }
    }
}

#[test]
fn unauthorized_publisher_fails_at_once() {
    let address = free_address();
    let (_folder, file) = common::file(&format!(
        "[server]\nbind = \"{address}\"\n[auth.public]\nsubscribe = \"\"\npublish = \"studio\"\n"
    ));
    let running = Running::start(relay().arg(&file));
    running.line_with("serving");
    let publish = |target: &str, more: &[&str]| {
        let url = format!("moqt://{address}{target}");
        relay().args(["pub", &url, "b", "t", "--insecure"]).args(more).output().unwrap()
    };
    let refused = publish("/stage", &[]);
    assert_eq!(refused.status.code(), Some(4), "{}", text(&refused.stderr));
    assert_eq!(publish("/studio", &["--no-wait"]).status.code(), Some(0));
}

#[test]
fn load_prints_json_objects_on_request() {
    let (_relay, address) = open();
    let url = format!("https://{address}/");
    let args = ["load", "video", "--url", &url, "--subscribers", "4", "--window", "1s", "--json"];
    let output = relay().args(args).output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    let lines: Vec<&str> = text(&output.stdout).lines().collect();
    assert!(!lines.is_empty());
    for line in lines {
        let row: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(row.is_object(), "{row}");
    }
}

#[test]
fn interrupted_group_is_fetched_and_written_whole() {
    run(async {
        let (_relay, address) = open();
        let url = format!("moqt://{address}/");
        let publisher = Client::connect(&url, ClientConfig::default()).await.unwrap();
        let broadcast = publisher.broadcast("torn").unwrap();
        let track = broadcast.track("t", TrackInfo::default()).unwrap();
        track.retain(100);
        broadcast.announce();
        let reader = tokio::task::spawn_blocking(move || {
            relay().args(["sub", &url, "torn", "t", "--lines", "--insecure"]).output().unwrap()
        });
        track.wait_subscribed().await;
        for sequence in 0..4 {
            let group = track.group(sequence);
            group.frame(0, format!("{sequence} a").into());
            if sequence == 0 {
                // The subscriber starts at this group, the latest.
                group.frame(1, format!("{sequence} b").into());
                group.finish();
                track.wait_live(|live| live.updates > 0).await;
                continue;
            }
            if sequence != 2 {
                group.frame(1, format!("{sequence} b").into());
                group.finish();
                continue;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
            group.reset(StreamCode::INTERNAL);
            // The fetch is answered by a second group with the same sequence.
            let again = track.group(sequence);
            again.frame(0, format!("{sequence} a").into());
            again.frame(1, format!("{sequence} b").into());
            again.finish();
        }
        tokio::time::sleep(Duration::from_millis(300)).await;
        track.end(4);
        let output = reader.await.unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
        let whole: String = (0..4).map(|group| format!("{group} a\n{group} b\n")).collect();
        assert_eq!(text(&output.stdout), whole, "{}", text(&output.stderr));
    });
}
