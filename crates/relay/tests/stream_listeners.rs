//! Promise: sessions over WebSocket, TLS, TCP, Unix sockets and QUIC exchange broadcasts with each other; and a Unix
//! socket accepts only the configured users.

#![allow(missing_docs)]

mod common;

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::Duration};

use relay_client::{Client, ClientConfig, Event, Prefs, TrackInfo};
use tempfile::TempDir;

use common::{Running, file, free_address, http::free_tcp, relay, run, site::flows};

/// A relay with every kind of listener.
struct Site {
    folder: TempDir,
    relay: Running,
    quic: String,
    http: String,
    https: String,
    tcp: String,
}

impl Site {
    /// Starts it; `more` returns further keys of `[server]`.
    fn start(more: impl FnOnce(&Path) -> String) -> Self {
        let [quic, http, https, tcp] = [free_address(), free_tcp(), free_tcp(), free_tcp()];
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("sessions.sock");
        let more = more(&socket);
        let text = format!(
            "[server]\nbind = \"{quic}\"\n{more}\n[web]\nhttp.listen = \"{http}\"\nhttps.listen = \"{https}\"\n\
             [auth]\npublic = \"\"\n"
        )
        .replace("{tcp}", &tcp);
        let (kept, path) = file(&text);
        let relay = Running::start(relay().arg(&path));
        relay.line_with("serving");
        drop(kept);
        Self { folder, relay, quic, http, https, tcp }
    }

    fn unix(&self) -> String {
        format!("unix://{}:/", self.folder.path().join("sessions.sock").display())
    }

    async fn enter(&self, url: &str) -> Client {
        Client::connect(url, ClientConfig::default()).await.unwrap_or_else(|error| panic!("{url}: {error}"))
    }
}

#[test]
fn sessions_of_all_transports_exchange_broadcasts() {
    run(async {
        let site =
            Site::start(|socket| format!("tcp.bind = \"{{tcp}}\"\nunix.bind = \"{}\"", socket.display()));
        let entrances = [
            format!("moqt://{}/", site.quic),
            format!("https://{}/", site.quic),
            format!("ws://{}/", site.http),
            format!("wss://{}/", site.https),
            format!("tcp://{}/", site.tcp),
            site.unix(),
        ];
        for (at, publisher) in entrances.iter().enumerate() {
            for subscriber in &entrances {
                let (one, other) = (site.enter(publisher).await, site.enter(subscriber).await);
                let path = format!("{at}-{}", subscriber.split(':').next().unwrap());
                flows(&one, &path, &other, &path).await;
            }
        }
        site.relay.signal(rustix::process::Signal::TERM);
        assert_eq!(site.relay.end().code(), Some(0));
    });
}

#[test]
fn datagrams_are_relayed_between_stream_transports() {
    run(async {
        let site = Site::start(|_| "tcp.bind = \"{tcp}\"".to_owned());
        for url in [format!("ws://{}/", site.http), format!("tcp://{}/", site.tcp)] {
            let (one, other) = (site.enter(&url).await, site.enter(&url).await);
            let path = &url[..2];
            let broadcast = one.broadcast(path).unwrap();
            let track = broadcast.track("t", TrackInfo::default()).unwrap();
            broadcast.announce();
            other.announced("").await.unwrap().wait(path, true).await.unwrap();
            let mut subscription = other.subscribe(path, "t", Prefs::default()).await.unwrap();
            track.wait_subscribed().await;
            // A late subscriber begins with a later datagram.
            let sending = async {
                for number in 0.. {
                    track.datagram(number, 0, "small".into()).unwrap();
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            let received = tokio::select! {
                () = sending => unreachable!("it has no end"),
                event = subscription.next() => event,
            };
            assert!(
                matches!(&received, Event::Datagram { payload, .. } if payload == "small"),
                "{url}: {received:?}"
            );
        }
    });
}

#[test]
fn unix_socket_rejects_users_that_are_not_listed() {
    run(async {
        let own = fs::metadata("/proc/self").unwrap().uid();
        let allows = |uid: u32| {
            move |socket: &Path| format!("unix.bind = \"{}\"\nunix.allow.uid = [{uid}]", socket.display())
        };
        let open = Site::start(allows(own));
        let (one, other) = (open.enter(&open.unix()).await, open.enter(&open.unix()).await);
        flows(&one, "cam", &other, "cam").await;
        let closed = Site::start(allows(own + 1));
        let refused = async {
            let client = Client::connect(&closed.unix(), ClientConfig::default()).await?;
            client.announced("").await.map(|_| ())
        };
        assert!(refused.await.is_err(), "it was admitted");
        closed.relay.line_with("uid");
    });
}
