//! Promise: a log that cannot be written neither stops nor blocks the relay; dropped lines are counted.

#![allow(missing_docs)]

mod common;

use std::{
    fs::File,
    io::{PipeReader, PipeWriter},
    process::{Child, Command, ExitStatus, Stdio},
    time::{Duration, Instant},
};

use relay_client::{Client, ClientConfig};
use rustix::process::{Pid, Signal, kill_process};

use common::{
    PATIENCE, file, free_address,
    http::{eventually, free_tcp, get},
    relay, run,
};

/// A relay that logs everything to `stderr`; killed with the test.
struct Logging {
    child: Child,
    url: String,
    internal: String,
    _folder: tempfile::TempDir,
}

impl Logging {
    fn start(stderr: impl Into<Stdio>) -> Self {
        let (address, internal) = (free_address(), free_tcp());
        let (folder, path) = file(&format!(
            "drain_timeout = \"1s\"\n[server]\nbind = {address:?}\n[auth]\npublic = \"\"\n[internal]\nlisten = {internal:?}\n"
        ));
        let mut command = relay();
        command.arg(&path).env("RUST_LOG", "debug,moq_relay=trace").stdout(Stdio::null()).stderr(stderr);
        let child = command.spawn().unwrap();
        // The command holds a copy of the descriptor.
        drop(command);
        let relay = Self { child, url: format!("moqt://{address}/"), internal, _folder: folder };
        eventually("it serves", || std::net::TcpStream::connect(&relay.internal).ok());
        relay
    }

    /// Connects this many clients, one after the other.
    async fn serves(&self, clients: usize) {
        for _ in 0..clients {
            let client = Client::connect(&self.url, ClientConfig::default()).await.unwrap();
            client.announced("").await.unwrap();
        }
    }

    fn dropped(&self) -> u64 {
        let metrics = get(&self.internal, "/metrics");
        let line =
            metrics.text().lines().find_map(|line| line.strip_prefix("moq_relay_log_lines_dropped_total "));
        line.unwrap().parse().unwrap()
    }

    fn drops_lines(&self) {
        eventually("dropped lines are counted", || (self.dropped() > 0).then_some(()));
    }

    fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    fn end(mut self) -> ExitStatus {
        self.signal(Signal::TERM);
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status;
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        panic!("it does not end");
    }
}

impl Drop for Logging {
    fn drop(&mut self) {
        // Only matters when a test failed; the process may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn pipe() -> (PipeReader, PipeWriter) {
    std::io::pipe().unwrap()
}

#[test]
fn full_disk_under_the_log_ends_nothing() {
    run(async {
        let relay = Logging::start(File::options().write(true).open("/dev/full").unwrap());
        relay.serves(3).await;
        relay.drops_lines();
        assert_eq!(relay.end().code(), Some(0));
    });
}

#[test]
fn log_pipe_whose_reader_is_gone_ends_nothing() {
    run(async {
        let (reader, writer) = pipe();
        let relay = Logging::start(writer);
        drop(reader);
        relay.serves(3).await;
        relay.drops_lines();
        relay.signal(Signal::HUP);
        relay.serves(1).await;
        assert_eq!(relay.end().code(), Some(0));
    });
}

#[test]
fn unread_log_pipe_does_not_block_the_relay() {
    run(async {
        let (reader, writer) = pipe();
        let relay = Logging::start(writer);
        // The pipe fills after some clients, and the queue after some hundred more.
        let began = Instant::now();
        while relay.dropped() == 0 {
            relay.serves(5).await;
            assert!(began.elapsed() < PATIENCE * 2, "the queue is unbounded");
        }
        relay.serves(5).await;
        assert_eq!(relay.end().code(), Some(0));
        drop(reader);
    });
}

#[test]
fn closed_standard_streams_end_nothing() {
    run(async {
        let address = free_address();
        let binary = relay();
        let script = "exec \"$0\" --bind \"$1\" <&- >&- 2>&-";
        let mut command = Command::new("sh");
        command.args(["-c", script]).arg(binary.get_program()).arg(&address).env("RUST_LOG", "trace");
        command.env_remove("MOQ_CONFIG");
        let mut child = command.spawn().unwrap();
        let url = format!("moqt://{address}/");
        let began = Instant::now();
        while Client::connect(&url, ClientConfig::default()).await.is_err() {
            assert!(began.elapsed() < PATIENCE, "it does not serve: {:?}", child.try_wait());
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn largest_file_size_under_the_log_ends_nothing() {
    run(async {
        let folder = tempfile::tempdir().unwrap();
        let address = free_address();
        let binary = relay();
        // In blocks of 512 or 1,024 bytes, depending on the shell.
        let script = "ulimit -f 1 && exec \"$0\" --bind \"$1\" >/dev/null 2>\"$2\"";
        let mut command = Command::new("sh");
        command
            .args(["-c", script])
            .arg(binary.get_program())
            .args([&address])
            .arg(folder.path().join("log"));
        command.env("RUST_LOG", "trace").env_remove("MOQ_CONFIG");
        let mut child = command.spawn().unwrap();
        let url = format!("moqt://{address}/");
        let began = Instant::now();
        let mut served = 0;
        while served < 5 {
            served += usize::from(Client::connect(&url, ClientConfig::default()).await.is_ok());
            assert!(began.elapsed() < PATIENCE, "it does not serve: {:?}", child.try_wait());
        }
        kill_process(Pid::from_child(&child), Signal::TERM).unwrap();
        assert_eq!(child.wait().unwrap().code(), Some(0));
    });
}

#[test]
fn verbs_do_not_panic_on_full_standard_streams() {
    for (args, out) in [
        (&["token", "generate"][..], "/dev/full"),
        (&["token", "sign", "--key", "/nonexistent"], "/dev/full"),
        (&["man"], "/dev/full"),
        (&["check", "/nonexistent"], "/dev/full"),
        (&["doctor", "--running", "--bind", "127.0.0.1:1"], "/dev/full"),
        (&["ls", "nowhere"], "/dev/full"),
        (&["/nonexistent"], "/dev/full"),
    ] {
        let full = || File::options().write(true).open(out).unwrap();
        let status = relay().args(args).stdout(full()).stderr(full()).status().unwrap();
        assert!(status.code().is_some_and(|code| code != 101), "{args:?}: {status}");
    }
}
