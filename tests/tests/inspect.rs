//! Promise: the state of a relay is visible over HTTP, exactly and at once, and costs nothing without watchers.

#![allow(missing_docs)]

use std::{
    collections::BTreeSet,
    net::SocketAddr,
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use relay_client::Closed;
use relay_http::{
    internal,
    status::{Memory, RelayFacts, Status},
};
use relay_model::{SessionCode, SessionId};
use relay_tests::{
    media::{Source, Viewer},
    relay::TestRelay,
    run, run_alone, wait_until, within,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// The private listener of a relay, on loopback.
struct Desk {
    status: Status,
    addr: SocketAddr,
    server: JoinHandle<()>,
    /// Number of samples taken for `/status`.
    looks: Arc<AtomicUsize>,
    /// Number of drain requests to the binary.
    drains: Arc<AtomicUsize>,
}

impl Desk {
    async fn open(relay: &TestRelay) -> Self {
        let (looks, drains) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (looked, drained) = (looks.clone(), drains.clone());
        let about = RelayFacts {
            version: "1.2.3".to_owned(),
            name: "here".to_owned(),
            fingerprint: Arc::new(|| Some("ab".to_owned())),
            memory: Arc::new(move || {
                looked.fetch_add(1, Ordering::SeqCst);
                Memory { resident: 5, limit: Some(9) }
            }),
            figures: Arc::new(Vec::new),
            drain: Arc::new(move || {
                drained.fetch_add(1, Ordering::SeqCst);
            }),
        };
        let status = Status::new(relay.shared(), about);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let addr = listener.local_addr().expect("an address");
        let router = internal::router(status.clone());
        let server = tokio::spawn(async move { axum::serve(listener, router).await.expect("it serves") });
        Self { status, addr, server, looks, drains }
    }

    /// Sends a request and returns the connection before the answer.
    async fn send(&self, request: &str, headers: &str, body: &str) -> TcpStream {
        let mut stream = TcpStream::connect(self.addr).await.expect("a connection");
        let length = body.len();
        let text = format!(
            "{request} HTTP/1.0\r\nHost: {}\r\nContent-Length: {length}\r\n{headers}\r\n{body}",
            self.addr
        );
        stream.write_all(text.as_bytes()).await.expect("a request");
        stream
    }

    /// Sends a request; returns status and body of the answer.
    async fn ask_with(&self, request: &str, headers: &str, body: &str) -> (u16, String) {
        let mut stream = self.send(request, headers, body).await;
        let mut text = String::new();
        within(request, 10, stream.read_to_string(&mut text)).await.expect("an answer");
        let (head, body) = text.split_once("\r\n\r\n").expect("a head");
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).expect("a status");
        (status, body.to_owned())
    }

    async fn ask(&self, request: &str) -> (u16, String) {
        self.ask_with(request, "", "").await
    }

    async fn json(&self, path: &str) -> Value {
        let (status, body) = self.ask(&format!("GET {path}")).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("JSON")
    }

    /// Requests `/status` until it meets `condition`.
    async fn until(&self, what: &str, seconds: u64, condition: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(seconds);
        loop {
            let status = self.json("/status").await;
            if condition(&status) {
                return status;
            }
            assert!(Instant::now() < end, "waited {seconds} s for {what}: {status:#}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn stream(&self, path: &str) -> Events {
        let stream = self.send(&format!("GET {path}"), "Accept: text/event-stream\r\n", "").await;
        Events { stream, text: String::new() }
    }
}

impl Drop for Desk {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// Reads the events of a stream.
struct Events {
    stream: TcpStream,
    text: String,
}

impl Events {
    async fn next(&mut self) -> Value {
        loop {
            if let Some(start) = self.text.find("event: status\ndata: ")
                && let Some(length) = self.text[start..].find("\n\n")
            {
                let event = self.text[start..start + length].to_owned();
                self.text.drain(..start + length + 2);
                return serde_json::from_str(event.trim_start_matches("event: status\ndata: "))
                    .expect("JSON");
            }
            let mut piece = [0; 65_536];
            let count = within("an event", 10, self.stream.read(&mut piece)).await.expect("bytes");
            assert!(count > 0, "the stream ended");
            self.text.push_str(std::str::from_utf8(&piece[..count]).expect("text"));
        }
    }

    /// Reads events until one meets `condition`.
    async fn until(&mut self, what: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + Duration::from_secs(15);
        loop {
            let event = self.next().await;
            if condition(&event) {
                return event;
            }
            assert!(Instant::now() < end, "waited for {what}: {event:#}");
        }
    }
}

fn list(value: &Value) -> &[Value] {
    value.as_array().expect("a list")
}

fn number(value: &Value) -> u64 {
    value.as_u64().unwrap_or_else(|| panic!("a number, not {value}"))
}

#[test]
fn the_figures_are_exact_and_go_back_to_zero() {
    run(60, async {
        let relay = TestRelay::start(2);
        let desk = Desk::open(&relay).await;
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "live/cam", 400);
        relay.announced("live/cam").await;
        let clients = relay.clients(2).await;
        let mut viewers = Vec::new();
        for client in &clients {
            viewers.push(Viewer::join(client, "live/cam").await);
        }
        within("the subscription", 10, source.track.wait_subscribed()).await;
        relay.wait_readers(2).await;
        for _ in 0..3 {
            let group = source.group(4);
            for viewer in &viewers {
                viewer.wait_group(group).await;
            }
        }
        let at_rest = |status: &Value| {
            status["sessions_total"] == 3 && status["broadcasts"][0]["tracks"][0]["groups"] == 3
        };
        let status = desk.until("three groups", 5, at_rest).await;
        assert_eq!(status["broadcasts_total"], 1);
        let broadcast = &status["broadcasts"][0];
        assert_eq!((&broadcast["path"], &broadcast["viewers"]), (&"live/cam".into(), &2.into()));
        let [track] = list(&broadcast["tracks"]) else { panic!("{broadcast:#}") };
        let expected = [
            ("name", Value::from("video")),
            ("viewers", 2.into()),
            ("frames", 12.into()),
            ("bytes", (12 * 400).into()),
            ("latest_group", 2.into()),
            ("cached_groups", 3.into()),
        ];
        for (name, value) in expected {
            assert_eq!(track[name], value, "{name} of {track:#}");
        }
        assert!(number(&track["cached_bytes"]) >= 12 * 400, "{track:#}");

        let sessions = list(&status["sessions"]);
        let [own] = &sessions.iter().filter(|it| it["publishes"] == 1).collect::<Vec<_>>()[..] else {
            panic!("{sessions:#?}")
        };
        assert_eq!(own["id"], broadcast["publisher"]);
        assert_eq!(own["remote"], format!("127.0.0.1:{}", publisher.local_addr().expect("a socket").port()));
        assert_eq!((&own["subscriptions"], &own["version"]), (&0.into(), &"moq-lite-05".into()));
        assert!(number(&own["bytes_in"]) > 12 * 400 && own["rtt_ms"].is_number(), "{own:#}");
        let watching = sessions.iter().filter(|it| it["subscriptions"] == 1);
        let by: BTreeSet<&str> = watching.filter_map(|it| it["transport"].as_str()).collect();
        assert_eq!(by, BTreeSet::from(["quic", "webtransport"]));

        let traffic = &status["traffic"];
        assert_eq!((&traffic["frames_in"], &traffic["frames_out"]), (&12.into(), &24.into()));
        let out: u64 = sessions.iter().map(|it| number(&it["bytes_out"])).sum();
        assert!(number(&traffic["bytes_out"]) >= out && out > 24 * 400, "{status:#}");
        assert_eq!((&status["relay"]["name"], &status["relay"]["workers"]), (&"here".into(), &2.into()));
        assert_eq!(status["load"]["memory_limit_bytes"], 9);

        // A broadcast that ends is removed from the list.
        drop(source);
        desk.until("the end of the broadcast", 2, |status| status["broadcasts_total"] == 0).await;
        drop((viewers, clients, publisher));
        let nobody = desk.until("nobody", 10, |status| status["sessions_total"] == 0).await;
        assert!(list(&nobody["sessions"]).is_empty() && list(&nobody["broadcasts"]).is_empty());
    });
}

#[test]
fn rates_follow_what_flows() {
    run(60, async {
        let relay = TestRelay::start(1);
        let desk = Desk::open(&relay).await;
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", 10_000);
        relay.announced("cam").await;
        let client = relay.connect().await;
        let _viewer = Viewer::join(&client, "cam").await;
        within("the subscription", 10, source.track.wait_subscribed()).await;
        let mut events = desk.stream("/status").await;
        let rate = |event: &Value| number(&event["broadcasts"][0]["tracks"][0]["in_bps"]);
        events.until("the track", |event| event["broadcasts"][0]["tracks"][0]["name"] == "video").await;
        events.next().await;

        let (mut sent, mut shown) = (0, 0);
        let mut last = number(&events.next().await["broadcasts"][0]["tracks"][0]["bytes"]);
        for _ in 0..3 {
            for _ in 0..10 {
                source.group(1);
                sent += 10_000;
            }
            let event = events.until("what was sent", |event| rate(event) > 0).await;
            let bytes = number(&event["broadcasts"][0]["tracks"][0]["bytes"]);
            // Bits per second over about a second.
            let expected = (bytes - last) * 8;
            assert!(rate(&event).abs_diff(expected) < expected / 4, "{} for {expected}", rate(&event));
            assert!(number(&event["traffic"]["out_bps"]) > 0, "{event:#}");
            (last, shown) = (bytes, bytes);
        }
        let quiet = |event: &Value| rate(event) == 0 && number(&event["traffic"]["out_bps"]) < 20_000;
        events.until("silence", quiet).await;
        let total = |event: &Value| number(&event["broadcasts"][0]["tracks"][0]["bytes"]);
        assert!(shown <= sent && total(&events.next().await) == sent, "all of it is counted");
    });
}

#[test]
fn status_is_sampled_once_a_second_and_only_when_watched() {
    run_alone(60, async {
        let relay = TestRelay::start(1);
        let desk = Desk::open(&relay).await;
        let looks = desk.looks.clone();
        assert_eq!(looks.load(Ordering::SeqCst), 0);
        let mut watchers = Vec::new();
        for at in 0..30 {
            let path = ["/status", "/status?path=a", "/status?path=b"][at % 3];
            watchers.push(desk.stream(path).await);
        }
        let mut events = 0;
        let began = Instant::now();
        for _ in 0..3 {
            for watcher in &mut watchers {
                watcher.next().await;
                events += 1;
            }
        }
        let seconds = began.elapsed().as_secs() as usize;
        let count = looks.load(Ordering::SeqCst);
        assert!(events == 90 && count <= 3 + seconds, "{count} samples in {seconds} s");
        assert_eq!(desk.status.watchers(), 30);
        drop(watchers);
        wait_until("free places", 10, || desk.status.watchers() == 0).await;
        // The task is the last holder of the sampling functions.
        drop(desk);
        wait_until("the end of the looks", 10, || Arc::strong_count(&looks) == 1).await;
    });
}

#[test]
fn kicked_session_receives_the_reason() {
    run(60, async {
        let relay = TestRelay::start(2);
        let desk = Desk::open(&relay).await;
        let clients = relay.clients(4).await;
        let sessions = desk.until("four sessions", 5, |it| it["sessions_total"] == 4).await;
        let of = |port: u16| {
            let remote = format!("127.0.0.1:{port}");
            let found = list(&sessions["sessions"]).iter().find(|it| it["remote"] == remote.as_str());
            found.and_then(|it| it["id"].as_str()).expect("a session").to_owned()
        };
        let asked = [
            ("", "", 2, "ended by the operator"),
            ("?code=77&reason=too%20loud", "", 77, "too loud"),
            ("", r#"{"code":0,"reason":"come again"}"#, 0, "come again"),
        ];
        for (client, (query, body, code, reason)) in clients.iter().zip(asked) {
            let id = of(client.local_addr().expect("a socket").port());
            let kick = format!("POST /sessions/{id}/kick");
            let (status, answer) = desk.ask_with(&format!("{kick}{query}"), "", body).await;
            assert_eq!((status, answer.as_str()), (200, r#"{"kicked":true}"#));
            let closed = within("the end", 10, client.closed()).await;
            let Closed::Peer { code: said, reason: words } = &closed else { panic!("{closed:?}") };
            assert_eq!((said.session(), words.as_str()), (Some(SessionCode(code)), reason), "{closed:?}");
            assert_eq!(desk.ask(&kick).await.0, 404, "once");
        }
        assert_eq!(clients[3].is_closed(), None, "nobody else");
        desk.until("one session", 5, |it| it["sessions_total"] == 1).await;
        let id = of(clients[3].local_addr().expect("a socket").port());
        let long = "x".repeat(257);
        for (request, body, expected) in [
            ("POST /sessions/nobody/kick".to_owned(), "", 404),
            (format!("POST /sessions/{}/kick", SessionId(u64::MAX)), "", 404),
            (format!("POST /sessions/{id}/kick?reason={long}"), "", 400),
            (format!("POST /sessions/{id}/kick"), "no JSON", 400),
            (format!("POST /sessions/{id}/kick"), &" ".repeat(5_000), 413),
            (format!("GET /sessions/{id}/kick"), "", 405),
        ] {
            assert_eq!(desk.ask_with(&request, "", body).await.0, expected, "{request}");
        }
        assert_eq!(clients[3].is_closed(), None);
    });
}

#[test]
fn lists_are_cut_at_their_limit_and_read_in_pages() {
    run(90, async {
        let relay = TestRelay::start(2);
        let desk = Desk::open(&relay).await;
        let clients = relay.clients(5).await;
        let mut held = Vec::new();
        for at in 0..1_001 {
            let client = &clients[at % 2];
            let broadcast = client.broadcast(&format!("room/{at:04}")).expect("a path");
            broadcast.announce();
            held.push(broadcast);
        }
        let status = desk.until("all", 20, |it| it["broadcasts_total"] == 1_001).await;
        assert_eq!(list(&status["broadcasts"]).len(), 1_000);
        assert_eq!(status["broadcasts"][999]["path"], "room/0999");
        let narrow = desk.json("/status?path=room/1000").await;
        assert_eq!(
            (&narrow["broadcasts_total"], &narrow["broadcasts"][0]["path"]),
            (&1.into(), &"room/1000".into())
        );
        assert_eq!(narrow["sessions_total"], 5, "only broadcasts are narrowed");

        let (mut seen, mut after) = (BTreeSet::new(), String::new());
        loop {
            let page = desk.json(&format!("/broadcasts?path=room&limit=400{after}")).await;
            assert_eq!(page["total"], 1_001);
            seen.extend(list(&page["broadcasts"]).iter().map(|it| it["path"].to_string()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(seen.len(), 1_001);

        let (mut seen, mut after) = (BTreeSet::new(), String::new());
        loop {
            let page = desk.json(&format!("/sessions?limit=2{after}")).await;
            assert!(page["total"] == 5 && list(&page["sessions"]).len() <= 2, "{page:#}");
            seen.extend(list(&page["sessions"]).iter().map(|it| it["id"].to_string()));
            let Some(next) = page["next"].as_str() else { break };
            after = format!("&after={next}");
        }
        assert_eq!(seen.len(), 5);
        assert_eq!(desk.json("/sessions?path=elsewhere").await["total"], 0);
        for wrong in
            ["/sessions?limit=0", "/sessions?limit=1001", "/sessions?after=x", "/broadcasts?limit=-1"]
        {
            assert_eq!(desk.ask(&format!("GET {wrong}")).await.0, 400, "{wrong}");
        }
        let deep = "a/".repeat(40);
        assert_eq!(desk.ask(&format!("GET /status?path={deep}")).await.0, 400);
    });
}

/// Blocks the first worker that passes while it is shut.
#[derive(Default)]
struct Barrier {
    shut: Mutex<bool>,
    open: Condvar,
    held: AtomicBool,
}

impl Barrier {
    fn pass(&self) {
        let mut shut = self.shut.lock().expect("a lock");
        if *shut && !self.held.swap(true, Ordering::SeqCst) {
            while *shut {
                shut = self.open.wait(shut).expect("a lock");
            }
        }
    }

    fn set(&self, shut: bool) {
        *self.shut.lock().expect("a lock") = shut;
        self.open.notify_all();
    }
}

#[test]
fn a_worker_that_is_stuck_is_named_and_not_waited_for() {
    run_alone(60, async {
        let barrier = Arc::new(Barrier::default());
        let fault = barrier.clone();
        let relay = TestRelay::with(2, |options| options.fault = Some(Arc::new(move |_, _| fault.pass())));
        let desk = Desk::open(&relay).await;
        let clients = relay.clients(16).await;
        wait_until("sessions on all workers", 5, || relay.busy_workers() == 2).await;
        desk.until("all sessions", 5, |it| it["sessions_total"] == 16).await;
        assert_eq!(desk.ask("GET /health").await.0, 200);
        barrier.set(true);
        // Work for a worker.
        let held = clients[0].broadcast("a").expect("a path");
        held.announce();
        wait_until("a worker that is stuck", 10, || barrier.held.load(Ordering::SeqCst)).await;
        let began = Instant::now();
        let listed = desk.json("/sessions").await;
        assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
        let [silent] = list(&listed["silent"]) else { panic!("{listed:#}") };
        assert!(silent == "worker-0" || silent == "worker-1", "{silent}");
        assert_eq!(listed["total"], 16, "its last published count is included");
        assert!(list(&listed["sessions"]).len() < 16 && !list(&listed["sessions"]).is_empty(), "{listed:#}");
        let (status, health) = desk.ask("GET /health").await;
        assert!(status == 503 && health.contains(silent.as_str().expect("a name")), "{status} {health}");
        let event = desk.stream("/status").await.next().await;
        assert_eq!(list(&event["silent"]), std::slice::from_ref(silent));
        barrier.set(false);
        desk.until("all sessions again", 5, |it| list(&it["sessions"]).len() == 16).await;
        assert_eq!(desk.ask("GET /health").await.0, 200);
    });
}

#[test]
fn a_drain_is_asked_for_once_and_never_by_a_page_of_others() {
    run(60, async {
        let relay = TestRelay::start(1);
        let desk = Desk::open(&relay).await;
        assert_eq!(desk.ask("GET /ready").await, (200, r#"{"ready":true}"#.to_owned()));
        assert_eq!(desk.ask("GET /drain").await.0, 405);
        for origin in ["https://evil.example", "null", "http://127.0.0.1:1"] {
            let refused = desk.ask_with("POST /drain", &format!("Origin: {origin}\r\n"), "").await;
            assert_eq!(refused.0, 403, "{origin}");
        }
        assert_eq!(desk.drains.load(Ordering::SeqCst), 0);
        for _ in 0..2 {
            assert_eq!(desk.ask("POST /drain").await, (202, r#"{"draining":true}"#.to_owned()));
        }
        assert_eq!(desk.drains.load(Ordering::SeqCst), 1);
        assert_eq!(desk.ask("GET /ready").await.0, 503);
        let nodes = desk.json("/nodes").await;
        let [node] = list(&nodes["nodes"]) else { panic!("{nodes:#}") };
        assert_eq!((&node["self"], &node["draining"]), (&true.into(), &true.into()));
        let (status, metrics) = desk.ask("GET /metrics").await;
        assert!(status == 200 && metrics.contains("\nmoq_relay_draining 1\n"), "{metrics}");
        let help = "# HELP moq_relay_deliveries_total Frames written to subscribers' streams.\n";
        assert!(metrics.contains(help), "{metrics}");
    });
}
