//! Promise: without a free descriptor QUIC serves live and new sessions; HTTP recovers by itself.

#![allow(missing_docs)]

mod common;

use std::{
    io::{Read, Write},
    net::TcpStream,
    process::Command,
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use serde_json::Value;

use common::{
    Running, file, free_address,
    http::{connect, eventually, free_tcp, get},
    relay, run,
    site::{Site, flows},
};

/// Command of a relay with a limit of open files.
fn limited(files: u32) -> Command {
    let binary = relay();
    let mut command = Command::new("sh");
    command.args(["-c", "ulimit -n $0 && exec \"$@\"", &files.to_string()]).arg(binary.get_program());
    for (name, value) in binary.get_envs() {
        match value {
            Some(value) => command.env(name, value),
            None => command.env_remove(name),
        };
    }
    command
}

/// Denies the relay any further descriptor.
fn exhaust(relay: &Running) {
    let pid = Pid::from_child(&relay.child);
    let limit = prlimit(Some(pid), Resource::Nofile, Rlimit { current: Some(0), maximum: Some(4_096) });
    limit.expect("a limit of another process of one's own can be set");
}

#[test]
fn quic_serves_without_a_free_descriptor() {
    run(async {
        let mut site = Site::new("public = \"\"");
        let [publisher, viewer] = [site.enter("/").await.unwrap(), site.enter("/").await.unwrap()];
        flows(&publisher, "before", &viewer, "before").await;
        exhaust(&site.relay);
        let log = site.relay.record();
        // Longer than the interval of memory readings.
        tokio::time::sleep(std::time::Duration::from_millis(1_200)).await;
        flows(&publisher, "during", &viewer, "during").await;
        let [publisher, viewer] = [site.enter("/").await.unwrap(), site.enter("/").await.unwrap()];
        flows(&publisher, "new", &viewer, "new").await;
        let Site { relay, .. } = site;
        drop(relay);
        let log = log.all();
        assert!(!log.iter().any(|line| line.contains("cannot read memory")), "{log:#?}");
    });
}

#[test]
fn idle_tcp_connections_do_not_block_quic_and_operators() {
    run(async {
        let (udp, http, internal) = (free_address(), free_tcp(), free_tcp());
        let (_folder, path) = file(&format!(
            "[server]\nbind = {udp:?}\n[auth]\npublic = \"\"\n[web]\nhttp.listen = {http:?}\n\
             [internal]\nlisten = {internal:?}\n[runtime]\nworkers = 2\n"
        ));
        let relay = Running::start(limited(96).arg(&path));
        relay.line_with("serving");
        let idle: Vec<TcpStream> = (0..200).filter_map(|_| TcpStream::connect(&http).ok()).collect();
        // A connection beyond the limit is closed.
        let closed = |stream: &TcpStream| {
            stream.set_nonblocking(true).unwrap();
            matches!((&*stream).read(&mut [0]), Ok(0))
        };
        eventually("a connection beyond the limit is closed", || idle.iter().any(closed).then_some(()));
        let url = format!("moqt://{udp}/");
        let client =
            relay_client::Client::connect(&url, relay_client::ClientConfig::default()).await.unwrap();
        client.announced("").await.unwrap();
        let status: Value = serde_json::from_slice(&get(&internal, "/status").body).unwrap();
        assert!(status["load"]["memory_limit_bytes"].is_u64(), "{status}");
        drop(idle);
        eventually("HTTP answers again", || (get(&http, "/health").status == 200).then_some(()));
        // A keep-alive connection takes one slot only.
        let mut kept = connect(&http);
        kept.write_all(b"GET /health HTTP/1.1\r\nhost: relay.test\r\n\r\n").unwrap();
        assert_eq!(get(&internal, "/health").status, 200);
    });
}

#[test]
fn too_few_descriptors_are_refused_at_start() {
    let output = limited(12).args(["--bind", &free_address(), "--workers", "2"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("at most 12 files may be open, and 2 workers need"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
}
