//! Helpers of the tests that run the binary as a process.

#![allow(dead_code, reason = "each test file uses what it needs")]

pub(crate) mod golden;
pub(crate) mod http;
pub(crate) mod site;
pub(crate) mod web;

use std::{
    env, fs,
    future::Future,
    io::{BufRead, BufReader, Read},
    net::UdpSocket,
    path::PathBuf,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex, PoisonError, RwLock, mpsc},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use relay_client::{Client, ClientConfig};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// Timeout of any step on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) fn relay() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_moq-relay"));
    for name in ["MOQ_CONFIG", "MOQ_BIND", "MOQ_WORKERS", "MOQ_LOG_FORMAT", "NOTIFY_SOCKET", "RUST_LOG"] {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A configuration file in a folder of its own.
pub(crate) fn file(text: &str) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("relay.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

/// A UDP address that was free a moment ago.
pub(crate) fn free_address() -> String {
    UdpSocket::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Resident memory of a process, bytes.
pub(crate) fn resident(process: u32) -> u64 {
    let pages = fs::read_to_string(format!("/proc/{process}/statm")).unwrap();
    let pages: u64 = pages.split(' ').nth(1).unwrap().parse().unwrap();
    pages * rustix::param::page_size() as u64
}

/// All output lines of a relay.
pub(crate) struct Recording {
    said: Arc<Mutex<Vec<String>>>,
    thread: JoinHandle<()>,
}

impl Recording {
    /// Waits for a line with `text`.
    pub(crate) fn wait_for(&self, text: &str) {
        let began = Instant::now();
        while !self.said.lock().unwrap().iter().any(|line| line.contains(text)) {
            assert!(began.elapsed() < PATIENCE, "no line with {text:?}");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns all lines once the relay has ended.
    pub(crate) fn all(self) -> Vec<String> {
        self.thread.join().unwrap();
        std::mem::take(&mut *self.said.lock().unwrap())
    }
}

/// A running relay with its output lines.
pub(crate) struct Running {
    pub(crate) child: Child,
    lines: Mutex<mpsc::Receiver<String>>,
}

impl Running {
    pub(crate) fn start(command: &mut Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let (sender, lines) = mpsc::sync_channel(1_000);
        forward(child.stdout.take().unwrap(), sender.clone());
        forward(child.stderr.take().unwrap(), sender);
        Self { child, lines: Mutex::new(lines) }
    }

    /// Records all further lines, for tests that read them later.
    pub(crate) fn record(&mut self) -> Recording {
        let (_, nothing) = mpsc::sync_channel(0);
        let lines = std::mem::replace(self.lines.get_mut().unwrap(), nothing);
        let said = Arc::<Mutex<Vec<String>>>::default();
        let into = said.clone();
        let thread = thread::spawn(move || lines.iter().for_each(|line| into.lock().unwrap().push(line)));
        Recording { said, thread }
    }

    /// Waits for the next line with `text`.
    pub(crate) fn line_with(&self, text: &str) -> String {
        loop {
            let line =
                self.lines.lock().unwrap().recv_timeout(PATIENCE).expect("a line before the relay ends");
            if line.contains(text) {
                return line;
            }
        }
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
    }

    /// Waits for the end; returns the status and the remaining lines.
    pub(crate) fn end_saying(mut self) -> (ExitStatus, Vec<String>) {
        let mut said = Vec::new();
        loop {
            match self.lines.lock().unwrap().recv_timeout(PATIENCE) {
                Ok(line) => said.push(line),
                Err(mpsc::RecvTimeoutError::Disconnected) => return (self.child.wait().unwrap(), said),
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the relay did not end"),
            }
        }
    }

    /// Waits for the end; returns the status.
    pub(crate) fn end(mut self) -> ExitStatus {
        loop {
            match self.lines.lock().unwrap().recv_timeout(PATIENCE) {
                Ok(_) => {}
                Err(mpsc::RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(mpsc::RecvTimeoutError::Timeout) => panic!("the relay did not end"),
            }
        }
    }
}

fn forward(output: impl Read + Send + 'static, sender: mpsc::SyncSender<String>) {
    let lines = BufReader::new(output).lines().map_while(Result::ok);
    thread::spawn(move || lines.into_iter().try_for_each(|line| sender.send(line)));
}

impl Drop for Running {
    fn drop(&mut self) {
        // Only matters when a test failed; the process may be gone.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A relay with a drain timeout of `window`, and a client of it.
pub(crate) async fn with_client(window: Duration) -> (TempDir, Running, String, Client) {
    let address = free_address();
    let text = format!(
        "drain_timeout = {}\n[server]\nbind = {address:?}\n[auth]\npublic = \"\"\n",
        window.as_secs_f64()
    );
    let (folder, path) = file(&text);
    let relay = Running::start(relay().arg(&path));
    relay.line_with("serving");
    let url = format!("moqt://{address}/");
    let client = Client::connect(&url, ClientConfig::default()).await.unwrap();
    client.peer_setup().await.unwrap();
    (folder, relay, url, client)
}

/// Held shared by each test on a runtime, and exclusively by those with a bound on a duration.
static TIMING: RwLock<()> = RwLock::new(());

/// Runs a test on a runtime of its own.
pub(crate) fn run(test: impl Future<Output = ()>) {
    let _shared = TIMING.read().unwrap_or_else(PoisonError::into_inner);
    block_on(test);
}

/// Runs a test while no other test of the binary is in [`run`], for tests with a bound on a duration.
pub(crate) fn run_alone(test: impl Future<Output = ()>) {
    let _exclusive = TIMING.write().unwrap_or_else(PoisonError::into_inner);
    block_on(test);
}

/// Notes that a test cannot run here.
///
/// # Panics
/// In CI, where everything that the tests need is installed.
#[expect(clippy::print_stdout, reason = "why a test does nothing")]
pub(crate) fn skip(reason: &str) {
    assert!(env::var_os("CI").is_none(), "skipped in CI: {reason}");
    println!("skipped: {reason}");
}

fn block_on(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(PATIENCE * 3, test).await }).expect("in time");
}
