//! A relay in a process of its own, so that its figures exclude the clients: the test binary starts itself again with
//! one ignored test, which serves and answers queries on its standard input.

use std::{
    io::{BufRead, BufReader, Write},
    process::{Child, ChildStdin, ChildStdout, Command, Stdio},
};

use crate::relay::TestRelay;

/// Prefix of answers; all other lines are the test harness's.
const MARK: &str = "relay> ";

/// Body of the ignored test: serves until standard input ends.
#[expect(clippy::print_stdout, reason = "the answers")]
pub fn serve(relay: &TestRelay) {
    println!("\n{MARK}{}", relay.schemes().join(" "));
    for question in std::io::stdin().lines().map_while(Result::ok) {
        let counts = relay.counts();
        let answer = match question.as_str() {
            "paths" => counts.store.board_paths as u64,
            "left" => relay.left().iter().map(|(_, count)| count).sum(),
            "closed" => counts.total().sessions_closed,
            "panics" => counts.panics(),
            "sessions" => counts.total().sessions,
            "bytes" => counts.store.bytes,
            "refused" => {
                let total = counts.total();
                total.refused_memory + total.requests_refused_memory + total.groups_refused
            }
            other => panic!("what is {other}?"),
        };
        println!("{MARK}{answer}");
    }
}

/// Client side of the relay's process.
#[derive(Debug)]
pub struct Process {
    child: Child,
    ask: ChildStdin,
    answers: BufReader<ChildStdout>,
    /// URLs of the relay: moq on QUIC, WebTransport.
    pub urls: Vec<String>,
}

impl Process {
    /// Starts this binary's test of that name.
    pub fn start(test: &str) -> Self {
        Self::start_by(Command::new(std::env::current_exe().expect("a binary")), test)
    }

    /// The same with a command that runs this binary, such as one that enters a namespace.
    pub fn start_by(mut command: Command, test: &str) -> Self {
        let mut child = command
            .args(["--exact", test, "--ignored", "--nocapture"])
            // One heap: with one per thread, the resident memory is the sum of their peaks, which depends on the random
            // distribution of sessions over workers.
            .env("MALLOC_ARENA_MAX", "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a process");
        let ask = child.stdin.take().expect("its input");
        let answers = BufReader::new(child.stdout.take().expect("its output"));
        let mut process = Self { child, ask, answers, urls: Vec::new() };
        process.urls = process.answer().split(' ').map(str::to_owned).collect();
        process
    }

    /// Queries a counter.
    pub fn count(&mut self, what: &str) -> u64 {
        writeln!(self.ask, "{what}").expect("a live process");
        self.answer().parse().expect("a number")
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether the process has ended, by itself or killed by the kernel.
    pub fn has_ended(&mut self) -> bool {
        self.child.try_wait().expect("a child").is_some()
    }

    /// Resident memory, bytes.
    pub fn resident(&self) -> u64 {
        crate::memory::resident(self.child.id())
    }

    fn answer(&mut self) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.answers.read_line(&mut line).expect("a live process");
            assert!(read > 0, "the relay is gone");
            if let Some(answer) = line.strip_prefix(MARK) {
                return answer.trim_end().to_owned();
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
