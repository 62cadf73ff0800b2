//! Promise: a relay that receives twice its memory limit is not killed, and recovers afterwards.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use relay_client::{Client, ClientConfig, Prefs, Start, Track, TrackInfo};

use common::{PATIENCE, Running, file, free_address, relay, run, skip};

/// Memory limit of the relay's control group, bytes.
const LIMIT: u64 = 128 << 20;
/// Published tracks, and subscribers that do not read.
const TRACKS: usize = 8;
const SLOW: usize = 16;
/// Size of a group, bytes, and the number of groups: twice the limit in all.
const GROUP: usize = 1 << 20;
const GROUPS: usize = 2 * (LIMIT as usize) / GROUP;
/// Duration of the load.
const LOAD: Duration = Duration::from_secs(12);

/// A memory control group for the test.
struct Group {
    folder: PathBuf,
    v2: bool,
}

impl Group {
    /// Creates a group; `None`, with a note, where that is not possible.
    fn new() -> Option<Self> {
        let own = format!("moq-relay-{}", std::process::id());
        let places = [("/sys/fs/cgroup/memory", false), ("/sys/fs/cgroup", true)];
        for (mount, v2) in places {
            let (folder, limit) =
                (Path::new(mount).join(&own), if v2 { "memory.max" } else { "memory.limit_in_bytes" });
            if fs::create_dir(&folder).is_err() {
                continue;
            }
            let group = Self { folder, v2 };
            if fs::write(group.folder.join(limit), LIMIT.to_string()).is_ok() {
                return Some(group);
            }
        }
        skip("no memory control group can be made here");
        None
    }

    /// Wraps `command` in a shell that joins the group first.
    fn around(&self, command: &Command) -> Command {
        let mut shell = Command::new("sh");
        shell.args(["-c", "echo $$ > \"$0\" && exec \"$@\""]);
        shell.arg(self.folder.join("cgroup.procs")).arg(command.get_program()).args(command.get_args());
        shell.stdin(std::process::Stdio::null());
        shell
    }

    /// Number of processes in it that the kernel killed for memory.
    fn kills(&self) -> u64 {
        let file = if self.v2 { "memory.events" } else { "memory.oom_control" };
        let text = fs::read_to_string(self.folder.join(file)).unwrap();
        let line = text.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap();
        line.trim().parse().unwrap()
    }

    /// Peak memory, bytes.
    fn peak(&self) -> u64 {
        let file = if self.v2 { "memory.peak" } else { "memory.max_usage_in_bytes" };
        fs::read_to_string(self.folder.join(file)).map_or(0, |text| text.trim().parse().unwrap())
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The kernel may need a moment after its processes have ended.
        for _ in 0..50 {
            if fs::remove_dir(&self.folder).is_ok() {
                return;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

#[test]
#[expect(clippy::print_stdout, reason = "what was measured")]
fn load_of_twice_the_memory_limit_is_survived() {
    let Some(group) = Group::new() else { return };
    let address = free_address();
    let text = format!("[server]\nbind = {address:?}\n[auth]\npublic = \"\"\n[cache]\nduration = \"60s\"\n");
    let (_folder, path) = file(&text);
    let mut binary = relay();
    binary.arg(&path);
    let relay = Running::start(&mut group.around(&binary));
    relay.line_with("serving");
    let url = format!("moqt://{address}/");
    run(async {
        {
            let publisher = Client::connect(&url, ClientConfig::default()).await.unwrap();
            let broadcast = publisher.broadcast("flood").unwrap();
            let info = TrackInfo { max_age_ms: 60_000, ..TrackInfo::default() };
            let tracks: Vec<Track> =
                (0..TRACKS).map(|at| broadcast.track(&format!("t{at}"), info).unwrap()).collect();
            broadcast.announce();
            let slow = readers(&url).await;
            for track in &tracks {
                track.wait_subscribed().await;
            }
            let pause = LOAD / GROUPS as u32;
            for number in 0..GROUPS {
                let sequence = (number / TRACKS) as u64;
                let group = tracks[number % TRACKS].group(sequence);
                group.frame(0, vec![number as u8; GROUP].into());
                group.finish();
                tokio::time::sleep(pause).await;
            }
            drop(slow);
        }
        // The clients have left; the relay releases their memory and serves again.
        let since = Instant::now();
        while !serves(&url).await {
            assert!(since.elapsed() < PATIENCE, "the relay does not recover");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    });
    println!("peak {} MiB of {}, {} kills", group.peak() >> 20, LIMIT >> 20, group.kills());
    assert_eq!(group.kills(), 0, "the kernel had to act");
    relay.signal(rustix::process::Signal::TERM);
    assert_eq!(relay.end().code(), Some(0));
}

/// Clients that subscribe to everything and read nothing.
async fn readers(url: &str) -> Vec<(Client, Vec<relay_client::Subscription>)> {
    let mut slow = Vec::new();
    for _ in 0..SLOW {
        let Ok(client) = Client::connect(url, ClientConfig::default()).await else { continue };
        let mut watch = client.announced("").await.unwrap();
        watch.wait("flood", true).await.unwrap();
        let mut subscriptions = Vec::new();
        for track in 0..TRACKS {
            let prefs = Prefs { max_age_ms: 60_000, start: Start::Group(0), ..Prefs::default() };
            subscriptions.push(client.subscribe("flood", &format!("t{track}"), prefs).await.unwrap());
        }
        slow.push((client, subscriptions));
    }
    slow
}

/// Whether a new publisher reaches a new subscriber.
async fn serves(url: &str) -> bool {
    let attempt = async {
        let publisher = Client::connect(url, ClientConfig::default()).await.ok()?;
        let broadcast = publisher.broadcast("after").ok()?;
        let track = broadcast.track("t", TrackInfo::default()).ok()?;
        broadcast.announce();
        let viewer = Client::connect(url, ClientConfig::default()).await.ok()?;
        let mut watch = viewer.announced("").await.ok()?;
        watch.wait("after", true).await.ok()?;
        let mut subscription = viewer.subscribe("after", "t", Prefs::default()).await.ok()?;
        track.wait_subscribed().await;
        let group = track.group(0);
        group.frame(0, "served".into());
        group.finish();
        let mut received = subscription.next_group().await.ok()?;
        let frame = received.frame().await.ok()??;
        (frame.payload == "served").then_some(())
    };
    tokio::time::timeout(Duration::from_secs(3), attempt).await.ok().flatten().is_some()
}
