//! Promise: `doctor` reports whether a relay can run here, with the documented exit status.

#![allow(missing_docs)]

mod common;

use std::{
    net::UdpSocket,
    process::{Command, Output},
};

use serde_json::Value;

use common::{Running, file, free_address, golden::golden, http::free_tcp, relay};

/// Checks whose outcome depends on the machine.
const OF_THE_MACHINE: [&str; 8] =
    ["cores", "memory", "open files", "clock", "buffers", "offload", "steering", "IPv6"];

fn doctor(args: &[&str]) -> (Option<i32>, String) {
    let mut command: Command = relay();
    let Output { status, stdout, stderr } = command.arg("doctor").args(args).output().unwrap();
    assert!(stderr.is_empty(), "{}", String::from_utf8_lossy(&stderr));
    (status.code(), String::from_utf8(stdout).unwrap())
}

/// Checks of a JSON report: name, status and texts; those of the machine by name only.
fn checks(json: &str) -> String {
    let report: Value = serde_json::from_str(json).expect("one JSON object");
    let mut out = String::new();
    for check in report["checks"].as_array().unwrap() {
        let name = check["check"].as_str().unwrap();
        if OF_THE_MACHINE.contains(&name) {
            assert!(check["what"].as_str().is_some_and(|what| !what.is_empty()), "{check}");
            assert_eq!(check["todo"].is_null(), check["status"] == "ok", "{check}");
            out.push_str(&format!("{name}: (of the machine)\n"));
        } else {
            out.push_str(&format!("{name}: {} {} {}\n", check["status"], check["what"], check["todo"]));
        }
    }
    out
}

#[test]
fn machine_without_a_relay_is_checked() {
    let address = free_address();
    let (code, json) = doctor(&["--bind", &address, "--json"]);
    golden("doctor/free.txt", &checks(&json).replace(&address, "ADDRESS"));
    let failures = serde_json::from_str::<Value>(&json).unwrap()["failures"].as_u64().unwrap();
    assert_eq!(code, Some(i32::from(failures > 0)));
    // The table has the same checks, one per line.
    let (_, table) = doctor(&["--bind", &address]);
    for name in OF_THE_MACHINE.iter().chain(&["configuration", "certificate", "port"]) {
        assert!(table.lines().any(|line| line.contains(&format!(" {name} "))), "{name} is not in {table}");
    }
    assert!(!table.contains('\x1b'), "no terminal, no colours");
}

#[test]
fn running_relay_answers_a_handshake() {
    let address = free_address();
    let running = Running::start(relay().args(["--bind", &address]));
    running.line_with("https://");
    let (code, said) = doctor(&["--bind", &address, "--running"]);
    assert_eq!(code, Some(0), "{said}");
    let holder = format!("moq-relay (pid {}) answers QUIC at {address}", running.child.id());
    assert!(said.contains(&holder), "{said}");
}

#[test]
fn relay_with_a_previous_certificate_is_reported() {
    let (folder, path) = file("");
    let address = free_address();
    let write = || {
        let key = rcgen::KeyPair::generate().unwrap();
        let cert =
            rcgen::CertificateParams::new(vec!["localhost".into()]).unwrap().self_signed(&key).unwrap();
        std::fs::write(folder.path().join("cert.pem"), cert.pem()).unwrap();
        std::fs::write(folder.path().join("key.pem"), key.serialize_pem()).unwrap();
    };
    write();
    let (cert, key) = (folder.path().join("cert.pem"), folder.path().join("key.pem"));
    let text = format!(
        "server.bind = {address:?}\ntls = {{ cert = {cert:?}, key = {key:?} }}\nauth.public = \"\"\n"
    );
    std::fs::write(&path, text).unwrap();
    let running = Running::start(relay().arg(&path));
    running.line_with("serving");
    let ask = || doctor(&[path.to_str().unwrap(), "--running"]);
    let (code, said) = ask();
    assert_eq!(code, Some(0), "{said}");
    assert!(
        said.contains("ok    certificate   the one in ") && said.contains("cert.pem is in use, until "),
        "{said}"
    );
    std::fs::write(&cert, "torn").unwrap();
    let line = running.line_with("keeping the previous certificate");
    assert!(line.contains("ERROR") && line.contains("no certificate in "), "{line}");
    let (code, said) = ask();
    assert_eq!(code, Some(0), "it serves: {said}");
    assert!(said.contains("warn  certificate   no certificate in "), "{said}");
    assert!(said.contains("cert.pem: the relay uses a previous one ("), "{said}");
    write();
    running.line_with("certificate in use");
    assert!(ask().1.contains("cert.pem is in use, until "));
}

#[test]
fn port_of_another_process_is_a_failure() {
    let other = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = other.local_addr().unwrap().to_string();
    let (code, said) = doctor(&["--bind", &address]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("udp {address} is already in use by")), "{said}");
    assert!(said.contains("which does not answer as a relay"), "{said}");
}

#[test]
fn health_check_fails_without_a_listener() {
    let address = free_address();
    let (code, said) = doctor(&["--bind", &address, "--running"]);
    assert_eq!(code, Some(1));
    assert!(said.contains(&format!("no process listens at udp {address}")), "{said}");
}

#[test]
fn refused_file_and_missing_certificate_are_failures() {
    let (_folder, path) = file("[sever]\n");
    let (code, said) = doctor(&[path.to_str().unwrap(), "--bind", &free_address()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("unknown key `sever`"), "{said}");
    let (_folder, path) = file("[tls]\ncert = \"/nonexistent/c.pem\"\nkey = \"/k\"\n[auth]\npublic = \"\"\n");
    let (code, said) = doctor(&[path.to_str().unwrap(), "--bind", &free_address()]);
    assert_eq!(code, Some(1));
    assert!(said.contains("fail  certificate   there is no file /nonexistent/c.pem"), "{said}");
}

#[test]
fn sysctl_file_matches_the_doctor() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/../../packaging/99-moq-relay.conf");
    let text = std::fs::read_to_string(file).unwrap();
    for name in ["rmem_max", "wmem_max"] {
        let line = format!("net.core.{name} = {}", relay_worker::BUFFER_BYTES);
        assert!(text.lines().any(|found| found == line), "{line}");
    }
}

#[test]
fn unusable_listeners_certificates_and_keys_are_failures() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap();
    let address = free_address();
    let (folder, path) = file(&format!(
        "[server]\nbind = {address:?}\nunix.bind = \"/nonexistent/relay.sock\"\n[auth]\nkey = \"absent.jwk\"\n\
         [web]\nhttp.listen = \"{http}\"\nhttps.listen = \"127.0.0.1:0\"\nhttps.cert = \"absent.pem\"\n\
         https.key = \"absent.key\"\n"
    ));
    let (code, said) = doctor(&[path.to_str().unwrap()]);
    assert_eq!(code, Some(1), "{said}");
    for failure in [
        "there is no file absent.pem",
        "`auth.key`: absent.jwk: there is no such file",
        &format!("tcp {http}, where HTTP is to be served, is already in use by "),
        "cannot listen on /nonexistent/relay.sock: there is no folder /nonexistent",
    ] {
        let line = said.lines().find(|line| line.contains(failure));
        assert!(line.is_some_and(|line| line.trim_start().starts_with("fail")), "{failure}: {said}");
    }
    // The relay refuses to start, too.
    let mut command = relay();
    let output = command.arg(&path).current_dir(folder.path()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
}

#[test]
fn listeners_of_a_running_relay_are_ok() {
    let (udp, http, internal) = (free_address(), free_tcp(), free_tcp());
    let (folder, path) = file("");
    let socket = folder.path().join("relay.sock");
    let text = format!(
        "[server]\nbind = {udp:?}\nunix.bind = {socket:?}\n[auth]\npublic = \"\"\n[web]\nhttp.listen = {http:?}\n\
         [internal]\nlisten = {internal:?}\n"
    );
    std::fs::write(&path, text).unwrap();
    let running = Running::start(relay().arg(&path));
    running.line_with("serving");
    let (_, said) = doctor(&[path.to_str().unwrap()]);
    for place in [&http, &internal, socket.to_str().unwrap()] {
        let line = said.lines().find(|line| line.contains(&format!("the relay listens at {place}")));
        assert!(line.is_some_and(|line| line.trim_start().starts_with("ok")), "{place}: {said}");
    }
}

#[test]
fn machine_without_ipv6_is_no_failure_where_a_relay_runs() {
    let off = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 net.ipv6.conf.lo.disable_ipv6=1 && ip link set lo up && \
               exec \"$@\"";
    let prefix = ["-n", "sh", "-c", off, "sh"];
    let works = Command::new("unshare").args(prefix).arg("true").output();
    if !works.is_ok_and(|output| output.status.success()) {
        return;
    }
    let port = free_address();
    let bind = format!("[::]:{}", port.rsplit(':').next().unwrap());
    let binary = relay();
    let mut command = Command::new("unshare");
    command.args(prefix).arg(binary.get_program()).args(["doctor", "--bind", &bind]).env_remove("MOQ_CONFIG");
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let line = said.lines().find(|line| line.contains("this machine has no IPv6"));
    assert!(line.is_some_and(|line| line.trim_start().starts_with("warn")), "{said}");
    assert!(
        !said.lines().any(|line| line.trim_start().starts_with("fail") && line.contains("IPv6")),
        "{said}"
    );
}
