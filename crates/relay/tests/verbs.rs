//! Promise: the output of `sub` equals the input of `pub`, and every verb has its documented exit status.

#![allow(missing_docs)]

mod common;

use std::{
    fs::File,
    io::{Read, Write},
    process::{Child, ChildStdin, Command, Output, Stdio},
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use aws_lc_rs::digest::{Context, SHA256};
use rustix::process::{Pid, Signal, kill_process};

use common::{PATIENCE, Running, free_address, relay};

/// A relay and its URL.
struct Stage {
    _relay: Running,
    url: String,
}

impl Stage {
    fn new() -> Self {
        let address = free_address();
        let running = Running::start(relay().args(["--bind", &address, "--workers", "2"]));
        running.line_with("certificate");
        Self { _relay: running, url: format!("moqt://{address}/") }
    }

    fn verb(&self, verb: &str, args: &[&str]) -> Command {
        let mut command = relay();
        command.arg(verb).arg(&self.url).args(args);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    /// Runs a verb without input.
    fn output(&self, verb: &str, args: &[&str]) -> Output {
        ended(self.verb(verb, args).stdin(Stdio::null()).spawn().unwrap())
    }

    /// Runs `pub` with `input`, to its end, beside one `sub` that started before it.
    fn through(&self, name: &str, input: &[u8], framing: &[&str], publish: &[&str]) -> Output {
        let reader = self.verb("sub", &[&[name, "t"][..], framing].concat()).spawn().unwrap();
        let writer = self.verb("pub", &[&[name, "t"][..], framing, publish].concat()).spawn().unwrap();
        let writer = fed(writer, input.to_vec());
        let output = ended(reader);
        let said = writer.join().unwrap();
        assert_eq!(said.status.code(), Some(0), "{}", text(&said.stderr));
        output
    }
}

/// Writes `input` to a process and waits for its end.
fn fed(mut child: Child, input: Vec<u8>) -> JoinHandle<Output> {
    thread::spawn(move || {
        let mut stdin: ChildStdin = child.stdin.take().unwrap();
        // The process may end before it has read everything.
        let _ = stdin.write_all(&input);
        drop(stdin);
        ended(child)
    })
}

/// Waits for the end of a process, with a timeout.
fn ended(child: Child) -> Output {
    let pid = Pid::from_child(&child);
    let waiting = thread::spawn(move || child.wait_with_output().unwrap());
    let started = Instant::now();
    while !waiting.is_finished() {
        if started.elapsed() > PATIENCE * 3 {
            let _ = kill_process(pid, Signal::KILL);
            panic!("it did not end: {}", text(&waiting.join().unwrap().stderr));
        }
        thread::sleep(Duration::from_millis(10));
    }
    waiting.join().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[track_caller]
fn good(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    text(&output.stdout)
}

/// Pseudo-random bytes, the same in every run.
struct Noise {
    state: u64,
    left: usize,
}

impl Read for Noise {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let len = out.len().min(self.left) / 8 * 8;
        for word in out[..len].chunks_exact_mut(8) {
            self.state ^= self.state << 13;
            self.state ^= self.state >> 7;
            self.state ^= self.state << 17;
            word.copy_from_slice(&self.state.to_le_bytes());
        }
        self.left -= len;
        Ok(len)
    }
}

fn copy_hashed(mut from: impl Read, mut to: impl Write) -> (u64, Vec<u8>) {
    let (mut hash, mut bytes, mut buffer) = (Context::new(&SHA256), 0, vec![0; 1 << 16]);
    loop {
        let len = from.read(&mut buffer).unwrap();
        if len == 0 {
            return (bytes, hash.finish().as_ref().to_vec());
        }
        hash.update(&buffer[..len]);
        to.write_all(&buffer[..len]).unwrap();
        bytes += len as u64;
    }
}

#[test]
fn hundred_megabytes_pass_through_unchanged() {
    let stage = Stage::new();
    let mut reader = stage.verb("sub", &["big", "t"]).stderr(Stdio::inherit()).spawn().unwrap();
    let mut writer = stage.verb("pub", &["big", "t"]).stderr(Stdio::inherit()).spawn().unwrap();
    let (input, output) = (writer.stdin.take().unwrap(), reader.stdout.take().unwrap());
    let received = thread::spawn(move || copy_hashed(output, std::io::sink()));
    let sent = copy_hashed(Noise { state: 0x2545_f491, left: 100_000_000 }, input);
    assert_eq!(ended(writer).status.code(), Some(0));
    assert_eq!(received.join().unwrap(), sent);
    assert_eq!(ended(reader).status.code(), Some(0));
    assert_eq!(sent.0, 100_000_000);
}

#[test]
fn framed_input_passes_through_unchanged() {
    let stage = Stage::new();
    let lines = b"one\n\nthree\r\n\xff\n";
    let prefixed = b"\0\0\0\x03one\0\0\0\0\0\0\0\x01x";
    for (name, input, framing, publish) in [
        ("lines", &lines[..], &["--lines"][..], &[][..]),
        ("chat", lines, &["--lines"], &["--group-frames", "1"]),
        ("prefixed", prefixed, &["--length-prefixed"], &["--group-time", "2s"]),
        ("sized", b"0123456789", &[], &["--frame-size", "4"]),
        ("empty", b"", &[], &[]),
    ] {
        let output = stage.through(name, input, framing, publish);
        good(&output);
        assert_eq!(output.stdout, input, "{name}");
    }
}

#[test]
fn many_small_groups_come_out_in_order() {
    let stage = Stage::new();
    let input: String = (0..2_000).map(|n| format!("{n}\n")).collect();
    let output = stage.through("many", input.as_bytes(), &["--lines"], &["--group-frames", "1"]);
    assert_eq!(good(&output), input);
}

#[test]
fn several_subscribers_may_start_after_the_publisher() {
    let stage = Stage::new();
    let writer = stage.verb("pub", &["late", "t", "--lines"]).spawn().unwrap();
    let writer = fed(writer, b"a\nb\n".repeat(1_000));
    // The publisher waits for a subscriber.
    let listed = loop {
        let listed = good(&stage.output("ls", &[]));
        if !listed.is_empty() {
            break listed;
        }
    };
    assert_eq!(listed, "late\n");
    let readers: Vec<Child> = (0..2)
        .map(|_| stage.verb("sub", &["late", "t", "--lines", "--from", "0"]).spawn().unwrap())
        .collect();
    for reader in readers {
        assert_eq!(good(&ended(reader)), "a\nb\n".repeat(1_000));
    }
    assert_eq!(writer.join().unwrap().status.code(), Some(0));
}

#[test]
fn past_groups_and_frames_can_be_fetched() {
    let stage = Stage::new();
    let mut writer =
        stage.verb("pub", &["past", "t", "--lines", "--group-frames", "3", "--no-wait"]).spawn().unwrap();
    let mut input = writer.stdin.take().unwrap();
    input.write_all(b"0\n1\n2\n3\n4\n5\n6\n").unwrap();
    let fetch = |more: &[&str]| loop {
        let output = stage.output("fetch", &[&["past", "t", "--lines"], more].concat());
        // A group exists only after its input was read.
        if output.status.code() != Some(5) {
            return good(&output);
        }
    };
    assert_eq!(fetch(&["--group", "1"]), "3\n4\n5\n");
    assert_eq!(fetch(&["--group", "1", "--frames", "1.."]), "4\n5\n");
    assert_eq!(fetch(&["--group", "0", "--frames", "..2"]), "0\n1\n");
    let older = ["--group", "0", "--frames", "1..=1", "--protocol", "moq-lite-05"];
    assert_eq!(fetch(&older), "1\n");
    assert_eq!(stage.output("fetch", &["past", "t", "--group", "77"]).status.code(), Some(5));
    drop(input);
    assert_eq!(ended(writer).status.code(), Some(0));
}

#[test]
fn list_has_one_line_per_broadcast_and_can_follow() {
    let stage = Stage::new();
    let mut follower = stage.verb("ls", &["", "--follow", "--json"]).spawn().unwrap();
    let mut followed = std::io::BufReader::new(follower.stdout.take().unwrap());
    let writer = stage.verb("pub", &["room/a", "t"]).spawn().unwrap();
    let mut line = String::new();
    std::io::BufRead::read_line(&mut followed, &mut line).unwrap();
    assert!(line.contains(r#""event":"announced""#) && line.contains(r#""path":"room/a""#), "{line}");
    assert_eq!(good(&stage.output("ls", &["room"])), "room/a\n");
    assert_eq!(good(&stage.output("ls", &["elsewhere"])), "");
    for version in ["moq-lite-03", "moq-lite-04", "moq-lite-05", "moq-lite-06"] {
        assert_eq!(good(&stage.output("ls", &["--protocol", version])), "room/a\n", "{version}");
    }
    // Without a subscriber a signal still ends the publisher.
    kill_process(Pid::from_child(&writer), Signal::INT).unwrap();
    assert_eq!(ended(writer).status.code(), Some(130));
    line.clear();
    std::io::BufRead::read_line(&mut followed, &mut line).unwrap();
    assert!(line.contains(r#""event":"ended""#), "{line}");
    kill_process(Pid::from_child(&follower), Signal::TERM).unwrap();
    assert_eq!(ended(follower).status.code(), Some(143));
}

#[test]
fn signal_ends_a_publisher_after_its_pending_input() {
    let stage = Stage::new();
    let mut reader = stage.verb("sub", &["cut", "t", "--lines"]).spawn().unwrap();
    let mut writer = stage.verb("pub", &["cut", "t", "--lines"]).spawn().unwrap();
    let mut input = writer.stdin.take().unwrap();
    input.write_all(b"one\n").unwrap();
    let mut first = [0; 4];
    reader.stdout.as_mut().unwrap().read_exact(&mut first).unwrap();
    kill_process(Pid::from_child(&writer), Signal::INT).unwrap();
    assert_eq!(ended(writer).status.code(), Some(130));
    assert_eq!(ended(reader).status.code(), Some(0), "the track ended well");
    drop(input);
}

#[test]
fn closed_output_pipe_ends_a_subscriber_quietly() {
    let stage = Stage::new();
    let mut reader = stage.verb("sub", &["pipe", "t"]).spawn().unwrap();
    let writer = stage.verb("pub", &["pipe", "t"]).stdin(File::open("/dev/zero").unwrap()).spawn().unwrap();
    let mut first = [1; 10];
    reader.stdout.take().unwrap().read_exact(&mut first).unwrap();
    let output = ended(reader);
    assert_eq!((output.status.code(), first), (Some(0), [0; 10]));
    assert!(!text(&output.stderr).contains("ipe"), "{}", text(&output.stderr));
    kill_process(Pid::from_child(&writer), Signal::INT).unwrap();
    assert_eq!(ended(writer).status.code(), Some(130));
}

#[test]
fn unreachable_or_missing_targets_have_their_status() {
    let stage = Stage::new();
    let wrong = "0".repeat(64);
    let dead = format!("moqt://{}/?jwt=secret", free_address());
    for (verb, url, more, status, said) in [
        ("ls", "relay", &[][..], 2, "is no address of a relay"),
        ("ls", &dead, &[], 3, "nothing listens on UDP"),
        ("ls", "moqt://name.invalid/", &[], 3, "cannot be resolved"),
        ("ls", &stage.url, &["--fingerprint", &wrong], 3, "is not trusted"),
        ("sub", &stage.url, &["b", "t", "--wait", "300ms"], 5, "broadcast b is not announced"),
        ("sub", &stage.url, &["b"], 2, "TRACK is missing"),
        ("fetch", &stage.url, &["b", "t", "--group", "0"], 5, "group 0 of track t of b"),
        ("pub", &stage.url, &["b", "t", "/nonexistent"], 1, "cannot read /nonexistent"),
    ] {
        let output = relay().arg(verb).arg(url).args(more).output().unwrap();
        let stderr = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{verb} {url}: {stderr}");
        assert!(stderr.contains(said), "{verb} {url}: {stderr}");
        assert!(!stderr.contains("secret") && output.stdout.is_empty(), "{stderr}");
    }
}

#[test]
fn demo_runs_and_ends_by_itself() {
    let address = free_address();
    let output = relay().args(["demo", "--bind", &address, "--for", "3s"]).output().unwrap();
    let said = good(&output);
    assert!(said.contains("reachable from this machine only"), "{said}");
    let status = said.lines().rfind(|line| line.contains("frames/s")).unwrap();
    assert!(status.starts_with("2 sessions  1 broadcast  ") && status.contains("latency "), "{status}");
    assert!(!status.contains("latency -"), "{status}");
}
