//! Sessions on stream sockets, against the server's side of the published `qmux`.

use std::{net::SocketAddr, sync::Arc};

use relay_model::{Prefs, SessionCode, StreamCode, TrackInfo};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, UnixListener},
};

use super::server::Server;
use crate::{Certs, Client, ClientConfig, Closed, Code, Error, lite::Version};

const SCHEMES: [&str; 4] = ["ws", "wss", "tcp", "unix"];

/// Listener for clients of one scheme.
struct Listener {
    scheme: &'static str,
    tcp: TcpListener,
    unix: Option<(UnixListener, std::path::PathBuf)>,
    tls: tokio_rustls::TlsAcceptor,
    fingerprint: [u8; 32],
}

impl Listener {
    async fn new(scheme: &'static str) -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let cert = made.cert.der().clone();
        let fingerprint = crate::tls::fingerprint(&cert);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key.into())
            .unwrap();
        let unix = (scheme == "unix").then(|| {
            use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
            static NEXT: AtomicU64 = AtomicU64::new(0);
            let name = format!("relay-client-{}-{}.sock", std::process::id(), NEXT.fetch_add(1, Relaxed));
            let file = std::env::temp_dir().join(name);
            (UnixListener::bind(&file).unwrap(), file)
        });
        Self {
            scheme,
            tcp: TcpListener::bind("127.0.0.1:0").await.unwrap(),
            unix,
            tls: Arc::new(tls).into(),
            fingerprint,
        }
    }

    fn url(&self) -> String {
        match &self.unix {
            Some((_, file)) => format!("unix://{}:/app?jwt=a.b", file.display()),
            None => format!("{}://{}/app?jwt=a.b", self.scheme, self.addr()),
        }
    }

    fn addr(&self) -> SocketAddr {
        self.tcp.local_addr().unwrap()
    }

    async fn accept(&self) -> Server {
        let names = Version::ALL.iter().map(|version| version.alpn());
        if let Some((unix, _)) = &self.unix {
            let (socket, _) = unix.accept().await.unwrap();
            let config = qmux::uds::Config::new(qmux::Version::QMux01).protocols(names);
            return Server::on_socket(config.accept(socket).await.unwrap());
        }
        let (socket, _) = self.tcp.accept().await.unwrap();
        let mut upgrade = qmux::ws::Server::new();
        for name in names.clone() {
            upgrade = upgrade.with_protocol(name, &[qmux::Version::QMux01]);
        }
        Server::on_socket(match self.scheme {
            "tcp" => {
                let config = qmux::tcp::Config::new(qmux::Version::QMux01).protocols(names);
                config.accept(socket).await.unwrap()
            }
            "ws" => upgrade.accept(socket).await.unwrap(),
            _ => upgrade.accept(self.tls.accept(socket).await.unwrap()).await.unwrap(),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some((_, file)) = &self.unix {
            let _ = std::fs::remove_file(file);
        }
    }
}

async fn pair(scheme: &'static str, version: Version) -> (Client, Server) {
    let listener = Listener::new(scheme).await;
    let config = ClientConfig { version, ..ClientConfig::default() };
    let url = listener.url();
    let (client, server) = tokio::join!(Client::connect(&url, config), listener.accept());
    (client.unwrap(), server)
}

#[tokio::test]
async fn groups_arrive_whole_both_ways_on_every_socket_and_version() {
    for (scheme, version) in SCHEMES.into_iter().flat_map(|s| Version::ALL.iter().map(move |v| (s, *v))) {
        let (client, server) = pair(scheme, version).await;
        let broadcast = client.broadcast("live/cam").unwrap();
        let track = broadcast.track("video", TrackInfo::default()).unwrap();
        let mut subscription = server.subscribe("live/cam", "video", Prefs::default()).await;
        track.wait_subscribed().await;
        // More than a record, and more than the credit of a stream.
        let big = vec![7; 6_000_000];
        let group = track.group(9);
        group.frame(5, "small".into());
        group.frame(4, big.clone().into());
        group.finish();
        let frames = subscription.next_group().await.unwrap().frames().await.unwrap();
        assert_eq!(frames.iter().map(|f| f.payload.len()).collect::<Vec<_>>(), [5, big.len()], "{scheme}");
        assert!(frames[1].payload == big);

        let broadcast = server.broadcast("back");
        let track = broadcast.track("audio", TrackInfo::default()).unwrap();
        let mut subscription = client.subscribe("back", "audio", Prefs::default()).await.unwrap();
        track.wait_subscribed().await;
        let group = track.group(0);
        group.frame(1, "x".into());
        let mut received = subscription.next_group().await.unwrap();
        assert_eq!(received.frame().await.unwrap().unwrap().payload, "x");
        group.reset(StreamCode(70));
        assert!(matches!(received.frame().await, Err(Error::Reset(Code::App(70)))), "{scheme}");
        assert!(client.quic().is_none());
        assert_eq!(client.local_addr().is_ok(), scheme != "unix");
    }
}

#[tokio::test]
async fn the_end_of_a_session_is_told_both_ways() {
    for scheme in SCHEMES {
        let (client, server) = pair(scheme, Version::V05).await;
        server.setup().await;
        server.close(SessionCode::UNAUTHORIZED, "no").await;
        let told = Closed::Peer { code: Code::App(2), reason: "no".into() };
        assert_eq!(client.closed().await, told, "{scheme}");
        assert!(Error::from(told).is_unauthorized());

        let (client, server) = pair(scheme, Version::V05).await;
        client.close(SessionCode(70), "bye").await;
        client.drained().await;
        assert_eq!(server.closed().await, Closed::Peer { code: Code::App(70), reason: "bye".into() });
        assert_eq!(client.is_closed(), Some(Closed::Local));

        // Dropping the last handle closes the session.
        let (client, server) = pair(scheme, Version::V05).await;
        drop(client);
        server.closed().await;
    }
}

#[tokio::test]
async fn setup_carries_the_path_where_no_request_does() {
    for scheme in SCHEMES {
        let (_client, server) = pair(scheme, Version::V05).await;
        let path = ["tcp", "unix"].contains(&scheme).then(|| "/app?jwt=a.b".to_owned());
        assert_eq!(server.setup().await.path, path, "{scheme}");
    }
}

#[tokio::test]
async fn datagrams_arrive_on_a_socket() {
    let (client, server) = pair("ws", Version::V05).await;
    let broadcast = client.broadcast("b").unwrap();
    let track = broadcast.track("t", TrackInfo::default()).unwrap();
    let mut subscription = server.subscribe("b", "t", Prefs::default()).await;
    track.wait_subscribed().await;
    assert_eq!(track.datagram(3, 60, "small".into()).unwrap(), 1);
    loop {
        if let crate::Event::Datagram { sequence, payload, .. } = subscription.next().await {
            return assert_eq!((sequence, payload.as_ref()), (3, &b"small"[..]));
        }
    }
}

/// Answers one upgrade request with `words` and returns the request.
async fn answer(listener: &Listener, words: &str) -> String {
    let (mut socket, _) = listener.tcp.accept().await.unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await.unwrap());
    }
    socket.write_all(words.as_bytes()).await.unwrap();
    String::from_utf8(head).unwrap()
}

#[tokio::test]
async fn upgrade_keeps_version_and_path_and_reports_its_status() {
    let listener = Listener::new("ws").await;
    for status in [400, 401, 403, 503] {
        let url = format!("ws://{}/a/../b%2e?jwt=a.b", listener.addr());
        let words = format!("HTTP/1.1 {status} No\r\ncontent-length: 0\r\n\r\n");
        let config = ClientConfig { version: Version::V04, ..ClientConfig::default() };
        let (client, asked) = tokio::join!(Client::connect(&url, config), answer(&listener, &words));
        let error = client.unwrap_err();
        assert!(matches!(error, Error::Status(said) if said == status), "{error}");
        assert_eq!(error.is_unauthorized(), matches!(status, 401 | 403));
        assert!(asked.starts_with("GET /a/../b%2e?jwt=a.b HTTP/1.1\r\n"), "{asked}");
        let asked = asked.to_lowercase();
        assert!(asked.contains("sec-websocket-protocol: qmux-01.moq-lite-04\r\n"), "{asked}");
        assert!(asked.contains(&format!("host: {}\r\n", listener.addr())), "{asked}");
    }
}

#[tokio::test]
async fn a_server_without_the_version_is_no_session() {
    for scheme in ["ws", "tcp"] {
        let listener = Listener::new(scheme).await;
        let serve = async {
            let (socket, _) = listener.tcp.accept().await.unwrap();
            match scheme {
                "tcp" => {
                    let config = qmux::tcp::Config::new(qmux::Version::QMux01).protocols(["other"]);
                    drop(config.accept(socket).await);
                }
                _ => {
                    let server = qmux::ws::Server::new().with_protocol("other", &[qmux::Version::QMux01]);
                    assert!(server.accept(socket).await.is_err());
                }
            }
        };
        let url = listener.url();
        let (client, ()) = tokio::join!(Client::connect(&url, ClientConfig::default()), serve);
        let error = client.unwrap_err();
        assert!(matches!(error, Error::Socket(_) | Error::Status(400)), "{scheme}: {error:?}");
    }
}

#[tokio::test]
async fn a_certificate_that_is_not_believed_is_no_session() {
    let listener = Listener::new("wss").await;
    let pinned = |pin| ClientConfig { certs: Certs::Pinned(vec![pin]), ..ClientConfig::default() };
    let (url, serve) =
        (listener.url(), async { listener.tls.accept(listener.tcp.accept().await.unwrap().0).await });
    let (client, server) = tokio::join!(Client::connect(&url, pinned([0; 32])), serve);
    assert!(client.unwrap_err().to_string().contains("invalid peer certificate"));
    assert!(server.is_err());
    let config = pinned(listener.fingerprint);
    let (client, _server) = tokio::join!(Client::connect(&url, config), listener.accept());
    client.unwrap();
}

#[tokio::test]
async fn refused_connection_fails_at_once() {
    let listener = Listener::new("tcp").await;
    let addr = listener.addr();
    drop(listener);
    for scheme in ["tcp", "ws", "wss"] {
        let error =
            Client::connect(&format!("{scheme}://{addr}/"), ClientConfig::default()).await.unwrap_err();
        let Error::Io(error) = error else { panic!("{error}") };
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
    }
}
