//! Promise: the service manager is notified of readiness, liveness and shutdown; and the log is machine-readable.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    os::unix::net::UnixDatagram,
    process::{Child, Stdio},
    time::{Duration, Instant},
};

use relay_client::{Client, ClientConfig, SessionCode};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;

use common::{PATIENCE, Running, file, free_address, relay, run};

/// Receives messages up to one with `text`.
fn heard(socket: &UnixDatagram, text: &str) -> String {
    let mut buffer = [0; 1_024];
    let began = Instant::now();
    while began.elapsed() < PATIENCE {
        let len = socket.recv(&mut buffer).expect("a message in time");
        let message = String::from_utf8(buffer[..len].to_vec()).unwrap();
        if message.contains(text) {
            return message;
        }
    }
    panic!("no message with {text}");
}

#[test]
fn service_manager_is_notified_of_ready_watchdog_and_stop() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let address = free_address();
    let mut command = relay();
    command.args(["--bind", &address, "--workers", "2"]);
    command.env("NOTIFY_SOCKET", &path).env("WATCHDOG_USEC", "200000");
    let relay = Running::start(&mut command);
    assert!(heard(&socket, "READY=1").contains(&format!("STATUS=serving on udp {address}")));
    // The relay serves once it has reported readiness.
    run(async {
        let client = Client::connect(&format!("moqt://{address}/"), ClientConfig::default()).await.unwrap();
        assert!(heard(&socket, "STATUS=serving ").contains("1 sessions"));
        // Idle threads answer liveness probes.
        for _ in 0..4 {
            assert_eq!(heard(&socket, "WATCHDOG"), "WATCHDOG=1");
        }
        client.close(SessionCode::NONE, "done").await;
    });
    relay.signal(Signal::TERM);
    assert!(heard(&socket, "STOPPING=1").contains("EXTEND_TIMEOUT_USEC=15000000"));
    assert_eq!(relay.end().code(), Some(0));
}

#[test]
fn unusable_notify_socket_does_not_prevent_serving() {
    for name in ["tcp:1".to_owned(), format!("/{}", "x".repeat(300)), "/nonexistent/notify".to_owned()] {
        let mut command = relay();
        command.args(["--bind", &free_address(), "--workers", "1"]).env("NOTIFY_SOCKET", &name);
        let relay = Running::start(&mut command);
        relay.line_with("certificate");
        relay.signal(Signal::TERM);
        assert_eq!(relay.end().code(), Some(0), "{name}");
    }
}

/// A relay that logs to a file; killed with the test.
struct Logging {
    child: Child,
    folder: TempDir,
}

impl Logging {
    fn start(filter: &str, format: &str) -> (Self, String) {
        let address = free_address();
        let (folder, path) = file(&format!("[server]\nbind = {address:?}\n[auth]\npublic = \"\"\n"));
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let mut command = relay();
        command.arg(&path).args(["--log-format", format]).env("RUST_LOG", filter);
        let child = command.stdout(Stdio::null()).stderr(log).spawn().unwrap();
        (Self { child, folder }, address)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap()
    }

    async fn until(&self, text: &str) {
        let began = Instant::now();
        while !self.log().contains(text) {
            assert!(began.elapsed() < PATIENCE, "no {text} in {}", self.log());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        // Only matters when a test failed; the process may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Log of a relay while one client connects, announces broadcasts, and closes once `text` is in the log.
fn logged(filter: &str, format: &str, text: &str) -> Vec<String> {
    let (mut relay, address) = Logging::start(filter, format);
    run(async {
        let url = format!("https://{address}/room/one?x=SECRET");
        let client = loop {
            if let Ok(client) = Client::connect(&url, ClientConfig::default()).await {
                break client;
            }
        };
        client.peer_setup().await.unwrap();
        let unroutable = client.broadcast("cam\x1b[2J").unwrap();
        unroutable.announce();
        let broadcast = client.broadcast("cam").unwrap();
        broadcast.announce();
        relay.until(text).await;
        client.close(SessionCode::NONE, "bye\nbye").await;
        client.drained().await;
    });
    rustix::process::kill_process(rustix::process::Pid::from_child(&relay.child), Signal::TERM).unwrap();
    assert_eq!(relay.child.wait().unwrap().code(), Some(0));
    relay.log().lines().map(str::to_owned).collect()
}

#[test]
fn every_line_of_a_session_is_json_and_carries_its_id() {
    let lines = logged("moq_relay=trace", "json", "Announce");
    let lines: Vec<Value> = lines.iter().map(|line| serde_json::from_str(line).expect(line)).collect();
    let of = |message: &str| lines.iter().find(|line| line["message"] == message).expect(message);
    let accepted = of("accepted");
    assert_eq!(
        (&accepted["transport"], &accepted["path"], &accepted["version"]),
        (&"webtransport".into(), &"room/one".into(), &"moq-lite-05".into())
    );
    assert!(accepted["peer"].as_str().unwrap().starts_with("127.0.0.1:"));
    let ended = of("ended");
    assert_eq!((&ended["by"], &ended["reason"]), (&"peer".into(), &"bye\nbye".into()));
    assert!(ended["duration_ms"].is_u64());
    let session = &accepted["session"];
    let own: Vec<&Value> = lines.iter().filter(|line| line["target"] == "moq_relay::session").collect();
    assert!(own.len() > 2, "it asked for something in between: {own:?}");
    for line in own {
        assert_eq!(&line["session"], session, "{line}");
    }
    // Other crates log the same session id.
    assert!(of("asks")["ask"].as_str().unwrap().contains("cam"));
    let unroutable = lines.iter().find(|line| line["error"].is_string()).unwrap();
    assert!(unroutable["path"].as_str().unwrap().contains("cam\\u{1b}[2J"), "{unroutable}");
    assert_eq!(&unroutable["session"], session);
    assert!(lines.iter().all(|line| !line.to_string().contains("SECRET")), "a token is in the log");
}

#[test]
fn info_log_counts_sessions_and_escapes_peer_texts() {
    let lines = logged("info", "text", "counts sessions=1");
    assert!(lines.iter().any(|line| line.contains("counts sessions=1")), "{lines:#?}");
    assert!(!lines.iter().any(|line| line.contains("accepted")), "{lines:#?}");
    let lines = logged("info,moq_relay::session=debug", "text", "accepted");
    let ended = lines.iter().find(|line| line.contains(" ended ")).unwrap();
    assert!(ended.contains(r#"reason="bye\nbye""#), "{ended}");
    assert!(lines.iter().all(|line| !line.contains('\x1b')));
}
