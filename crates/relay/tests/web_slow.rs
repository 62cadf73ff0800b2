//! Promise: slow and hostile HTTP clients do not affect others, and a long list needs little memory.

#![allow(missing_docs)]

mod common;

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use relay_client::{Broadcast, Client, ClientConfig, Prefs, TrackInfo};
use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::task::spawn_blocking;

use common::{PATIENCE, Running, file, http::get, relay, resident, run_alone};

/// Number of slow clients.
const SLOW: usize = 2_000;
/// Longest time a new session may take meanwhile.
const NEWCOMER: Duration = Duration::from_millis(200);
/// Number of new sessions; a busy machine may delay some of them.
const NEWCOMERS: usize = 5;
/// Shortest time the slow clients are held.
const HELD: Duration = Duration::from_secs(3);
/// Names in the list, and the number of publishers.
const NAMES: usize = 100_000;
const PUBLISHERS: usize = 100;
/// Growth of the memory allowed while the list is read, bytes; the list is ten times as long.
const LIST_BOUND: u64 = 1 << 20;

/// A relay that serves HTTP and QUIC at one address.
struct Site {
    _folder: tempfile::TempDir,
    relay: Running,
    address: SocketAddr,
}

impl Site {
    fn start() -> Self {
        let address = free_of_both();
        let text = format!(
            "[server]\nbind = \"{address}\"\n[web.http]\nlisten = \"{address}\"\n[auth]\npublic = \"\"\n"
        );
        let (folder, path) = file(&text);
        let relay = Running::start(relay().arg(&path));
        relay.line_with("serving");
        Self { _folder: folder, relay, address }
    }

    async fn client(&self) -> Client {
        Client::connect(&format!("moqt://{}/", self.address), ClientConfig::default()).await.unwrap()
    }

    fn resident(&self) -> u64 {
        resident(self.relay.child.id())
    }

    fn socket(&self) -> TcpStream {
        let socket = TcpStream::connect(self.address).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        socket
    }
}

/// An address that is free for both UDP and TCP.
fn free_of_both() -> SocketAddr {
    loop {
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = udp.local_addr().unwrap();
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// Relays a group every 20 ms, each awaited, until `stop` is set; returns their number.
async fn healthy(site: &Site, stop: &AtomicBool) -> u64 {
    let (publisher, subscriber) = (site.client().await, site.client().await);
    let broadcast = publisher.broadcast("healthy").unwrap();
    let track = broadcast.track("t", TrackInfo { max_age_ms: 30_000, ..TrackInfo::default() }).unwrap();
    broadcast.announce();
    subscriber.announced("").await.unwrap().wait("healthy", true).await.unwrap();
    let prefs = Prefs { max_age_ms: 30_000, ..Prefs::default() };
    let mut subscription = subscriber.subscribe("healthy", "t", prefs).await.unwrap();
    track.wait_subscribed().await;
    let mut number = 0;
    while !stop.load(Ordering::Relaxed) {
        let group = track.group(number);
        group.frame(0, number.to_string().into());
        group.finish();
        let mut received = subscription.next_group().await.unwrap();
        assert_eq!(received.sequence(), number, "a group is missing");
        assert_eq!(received.frame().await.unwrap().unwrap().payload, number.to_string());
        number += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    number
}

/// Opens sockets of every slow kind in turn: silent, half a request line, an endless header, an unread answer, half
/// an upgrade, half a TLS record.
fn slow(site: &Site) -> Vec<TcpStream> {
    (0..SLOW)
        .map(|number| {
            let mut socket = site.socket();
            let said: &[u8] = match number % 6 {
                0 => b"",
                1 => b"GET /announc",
                2 => b"GET / HTTP/1.1\r\nhost: relay\r\nx-more: ",
                3 => b"GET /announced HTTP/1.1\r\nhost: relay\r\naccept: text/event-stream\r\n\r\n",
                4 => b"GET / HTTP/1.1\r\nhost: relay\r\nupgrade: websocket\r\nconnection: upgrade\r\n",
                _ => b"\x16\x03\x01\x02\x00\x01",
            };
            // The relay may have closed the socket already.
            let _ = socket.write_all(said);
            socket
        })
        .collect()
}

#[test]
#[expect(clippy::print_stdout, reason = "what was measured")]
fn two_thousand_slow_sockets_do_not_affect_sessions() {
    // A quarter of the files that the relay does not need itself is for HTTP.
    let files = SLOW as u64 * 4 + 3_000;
    setrlimit(Resource::Nofile, Rlimit { current: Some(files), maximum: Some(files) }).unwrap();
    run_alone(async {
        let site = Arc::new(Site::start());
        let stop = Arc::new(AtomicBool::new(false));
        let flowing = tokio::spawn({
            let (site, stop) = (site.clone(), stop.clone());
            async move { healthy(&site, &stop).await }
        });
        let began = Instant::now();
        let held = spawn_blocking({
            let site = site.clone();
            move || slow(&site)
        });
        let held = held.await.unwrap();
        let opened = began.elapsed();
        let mut newcomers = Vec::new();
        for _ in 0..NEWCOMERS {
            let asked = Instant::now();
            let client = site.client().await;
            newcomers.push(asked.elapsed());
            drop(client);
        }
        newcomers.sort();
        let health = spawn_blocking({
            let site = site.clone();
            move || {
                let asked = Instant::now();
                let answer = get(&site.address.to_string(), "/health");
                assert_eq!(answer.status, 200, "{answer:?}");
                asked.elapsed()
            }
        });
        let health = health.await.unwrap();
        // The slow clients stay for a while, so that any effect shows.
        tokio::time::sleep(HELD).await;
        stop.store(true, Ordering::Relaxed);
        let groups = flowing.await.unwrap();
        println!("{SLOW} in {opened:?}; newcomers {newcomers:?}, /health {health:?}, {groups} groups");
        assert!(newcomers[NEWCOMERS / 2] < NEWCOMER, "half of {newcomers:?} waited for too long");
        assert!(health < PATIENCE / 2, "/health took {health:?}");
        assert!(groups > 50, "{groups} groups");
        drop(held);
    });
}

#[test]
#[expect(clippy::print_stdout, reason = "what was measured")]
fn hundred_thousand_names_are_listed_in_little_memory() {
    run_alone(async {
        let site = Arc::new(Site::start());
        let mut publishers: Vec<(Client, Vec<Broadcast>)> = Vec::new();
        for publisher in 0..PUBLISHERS {
            let client = site.client().await;
            let broadcasts: Vec<Broadcast> = (0..NAMES / PUBLISHERS)
                .map(|number| {
                    let path =
                        format!("a-rather-long-name-of-a-room/{publisher:03}/and-of-a-camera/{number:04}");
                    let broadcast = client.broadcast(&path).unwrap();
                    broadcast.announce();
                    broadcast
                })
                .collect();
            publishers.push((client, broadcasts));
        }
        let list = || {
            let site = site.clone();
            spawn_blocking(move || list_slowly(&site))
        };
        let began = Instant::now();
        // Once to warm up caches, and until all names are announced.
        let mut names = 0;
        while names < NAMES {
            assert!(began.elapsed() < PATIENCE * 2, "only {names} names were listed");
            names = list().await.unwrap().0;
        }
        let before = site.resident();
        let (names, bytes, most) = list().await.unwrap();
        println!("{names} names, {bytes} bytes; {before} bytes held before, {most} at most");
        assert_eq!(names, NAMES);
        assert!(bytes as u64 > LIST_BOUND * 5, "the list is too short for a measurement");
        assert!(most <= before + LIST_BOUND, "{before} bytes before, {most} at most");
        drop(publishers);
    });
}

/// Reads `/announced` in small pieces with a pause in the middle; returns the number of names and bytes, and the peak
/// memory of the relay meanwhile.
fn list_slowly(site: &Site) -> (usize, usize, u64) {
    let mut socket = site.socket();
    write!(socket, "GET /announced HTTP/1.1\r\nhost: relay\r\nconnection: close\r\n\r\n").unwrap();
    let (mut names, mut bytes, mut most, mut paused, mut last) = (0, 0, site.resident(), false, 0);
    let mut piece = vec![0; 64 << 10];
    loop {
        let read = socket.read(&mut piece).unwrap();
        let Some(read) = piece.get(..read).filter(|read| !read.is_empty()) else {
            return (names, bytes, most);
        };
        bytes += read.len();
        // Each name ends with a newline; lines of the header and of chunks end with a carriage return, too.
        for byte in read {
            names += usize::from(*byte == b'\n' && last != b'\r');
            last = *byte;
        }
        if bytes > 1 << 20 && !std::mem::replace(&mut paused, true) {
            // Gives the relay time to fill any buffers.
            std::thread::sleep(Duration::from_millis(300));
        }
        most = most.max(site.resident());
    }
}
