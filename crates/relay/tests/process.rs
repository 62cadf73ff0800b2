//! Promise: the binary starts, refuses to start and ends as documented.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    net::{TcpListener, UdpSocket},
    process::{Command, Output},
};

use common::{
    PATIENCE, Running, file, free_address, relay, run,
    site::{Site, key, token},
    with_client,
};
use relay_client::{Client, ClientConfig};
use rustix::process::Signal;

/// Runs a relay that is expected to refuse to start; returns its status and standard error.
fn refused(command: &mut Command) -> (Option<i32>, String) {
    let Output { status, stderr, .. } = command.output().unwrap();
    (status.code(), String::from_utf8(stderr).unwrap())
}

#[test]
fn a_relay_does_not_run_open_when_its_keys_are_missing() {
    let (_folder, path) = file("[auth]\npublic = \"anon\"\nkey = \"root.jwk\"\n");
    for by_flag in [false, true] {
        let mut command = relay();
        if by_flag {
            command.arg("--config");
        }
        let (code, said) = refused(command.arg(&path));
        assert_eq!(code, Some(1));
        assert!(said.contains("moq-relay: `auth.key`: root.jwk: there is no such file"), "{said}");
    }
}

#[test]
fn a_file_named_by_the_environment_is_read() {
    let (_folder, path) = file("[sever]\n");
    let (code, said) = refused(relay().env("MOQ_CONFIG", &path));
    assert_eq!(code, Some(1));
    assert!(said.contains(":1:2: unknown key `sever`; did you mean the section `server`?"), "{said}");
}

#[test]
fn a_missing_certificate_is_named() {
    let (_folder, path) =
        file("[tls]\ncert = \"/nonexistent/cert.pem\"\nkey = \"/k\"\n[auth]\npublic = \"\"\n");
    let (code, said) = refused(relay().arg(&path));
    assert_eq!(code, Some(1));
    assert!(said.contains("there is no file /nonexistent/cert.pem"), "{said}");
}

#[test]
fn a_wrong_flag_is_a_usage_error() {
    assert_eq!(refused(relay().args(["--workers", "0"])).0, Some(2));
    assert_eq!(refused(relay().args(["--bind", "nowhere"])).0, Some(2));
}

#[test]
fn a_busy_address_is_named() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let (code, said) = refused(relay().args(["--bind", &address]));
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("udp {address} is already in use")), "{said}");
}

#[test]
fn development_relay_prints_its_url_and_ends_on_signals() {
    for signal in [Signal::TERM, Signal::INT] {
        let address = free_address();
        let relay = Running::start(relay().args(["--bind", &address, "--workers", "2"]));
        assert!(relay.line_with("https://").contains(&format!("https://{address}/")));
        let certificate = relay.line_with("certificate");
        let fingerprint = certificate.split_whitespace().nth(1).unwrap();
        assert!(fingerprint.len() == 64 && fingerprint.bytes().all(|b| b.is_ascii_hexdigit()));
        relay.signal(signal);
        assert_eq!(relay.end().code(), Some(0));
    }
}

#[test]
fn signals_for_users_are_ignored_with_one_warning() {
    let relay = Running::start(relay().args(["--bind", &free_address(), "--workers", "1"]));
    relay.line_with("certificate");
    for (signal, name) in [(Signal::USR1, "SIGUSR1"), (Signal::USR2, "SIGUSR2")] {
        relay.signal(signal);
        assert!(relay.line_with(name).contains("is ignored"));
        relay.signal(signal);
    }
    relay.signal(Signal::HUP);
    relay.line_with("certificates reloaded");
    relay.signal(Signal::TERM);
    let (status, said) = relay.end_saying();
    assert_eq!(status.code(), Some(0));
    assert!(!said.iter().any(|line| line.contains("is ignored")), "once each: {said:#?}");
}

#[test]
fn key_and_certificate_files_may_begin_with_a_byte_order_mark() {
    run(async {
        let key = key("root");
        let jwk = format!("\u{feff}{}\r\n", key.public().unwrap().to_json());
        let site =
            Site::with("key = \"root.jwk\"", |folder| fs::write(folder.join("root.jwk"), jwk).unwrap());
        site.enter(&format!("/room?jwt={}", token(&key, "room"))).await.unwrap();
    });
    let pair = rcgen::KeyPair::generate().unwrap();
    let cert = rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&pair).unwrap();
    let folder = tempfile::tempdir().unwrap();
    let [cert_file, key_file] = ["cert.pem", "key.pem"].map(|name| folder.path().join(name));
    fs::write(&cert_file, format!("\u{feff}{}", cert.pem().replace('\n', "\r\n"))).unwrap();
    fs::write(&key_file, format!("\u{feff}{}", pair.serialize_pem())).unwrap();
    relay_certificate::Identity::load(&cert_file, &key_file).unwrap();
}

#[test]
fn mistyped_verb_is_a_usage_error_with_the_nearest() {
    for (line, near) in [(&["demmo"][..], "moq-relay demo?"), (&["chek", "relay.toml"], "moq-relay check?")] {
        let (code, said) = refused(relay().args(line));
        assert_eq!(code, Some(2), "{said}");
        assert!(said.contains(near), "{said}");
    }
    let (code, said) = refused(relay().arg("absent.toml"));
    assert_eq!((code, said.matches("os error").count()), (Some(1), 1), "{said}");
}

#[test]
fn development_relay_listens_on_both_loopback_addresses() {
    run(async {
        let address = free_address();
        let port = address.rsplit(':').next().unwrap();
        if UdpSocket::bind("[::1]:0").is_err() {
            return;
        }
        let relay = Running::start(relay().args(["--bind", &address, "--workers", "2"]));
        relay.line_with("certificate");
        for host in ["127.0.0.1", "[::1]", "localhost"] {
            for scheme in ["moqt", "https", "ws"] {
                let url = format!("{scheme}://{host}:{port}/");
                let client = Client::connect(&url, ClientConfig::default()).await.expect(&url);
                client.announced("").await.unwrap();
            }
        }
    });
}

#[test]
fn used_port_of_the_other_loopback_address_brings_a_warning() {
    let address = free_address();
    let port = address.rsplit(':').next().unwrap();
    if UdpSocket::bind("[::1]:0").is_err() {
        return;
    }
    let _other = TcpListener::bind(format!("[::1]:{port}")).unwrap();
    let relay = Running::start(relay().args(["--bind", &address, "--workers", "1"]));
    relay.line_with(&format!("another program listens on TCP [::1]:{port}"));
}

#[test]
fn relay_with_a_certificate_file_serves() {
    let (folder, path) = file("");
    let key = rcgen::KeyPair::generate().unwrap();
    let certificate =
        rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
    let (cert_path, key_path) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    fs::write(&cert_path, certificate.pem()).unwrap();
    fs::write(&key_path, key.serialize_pem()).unwrap();
    let address = free_address();
    let text = format!(
        "[server]\nbind = {address:?}\n[tls]\ncert = {cert_path:?}\nkey = {key_path:?}\n[auth]\npublic = \"anon\"\n"
    );
    fs::write(&path, text).unwrap();
    let relay = Running::start(relay().arg(&path));
    assert!(relay.line_with("serving").contains("anon/**"));
    relay.signal(Signal::TERM);
    assert_eq!(relay.end().code(), Some(0));
}

#[test]
fn hangup_reloads_certificates_and_closes_no_session() {
    run(async {
        let (_folder, relay, _, client) = with_client(PATIENCE).await;
        for _ in 0..2 {
            relay.signal(Signal::HUP);
            relay.line_with("certificates reloaded: no change");
        }
        assert!(client.is_closed().is_none());
        relay.signal(Signal::TERM);
        drop(client);
        assert_eq!(relay.end().code(), Some(0));
    });
}
