//! The server half of a session, for tests.

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use quinn::crypto::rustls::QuicServerConfig;
use relay_model::{Hop, Path, Prefs, SessionCode, TrackInfo, TrackName};
use relay_wire::lite::{Fetch, Setup, Version};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::oneshot;
use web_transport_proto::{ConnectRequest, ConnectResponse};
use web_transport_trait::Session as _;

use crate::{
    Announced, Broadcast, Closed, Error, Raw, ReceivedGroup, Subscription,
    carrier::{Carrier, Wire},
    client::manual,
    h3,
    session::ClientSession,
};

pub(super) struct Listener {
    endpoint: quinn::Endpoint,
    pub(super) addr: SocketAddr,
    pub(super) fingerprint: [u8; 32],
}

impl Listener {
    pub(super) fn new() -> Self {
        let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let cert = made.cert.der().clone();
        let fingerprint = crate::tls::fingerprint(&cert);
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![cert], key.into())
            .unwrap();
        let versions = Version::ALL.iter().map(|version| version.alpn());
        tls.alpn_protocols = versions.chain(["h3"]).map(|name| name.as_bytes().to_vec()).collect();
        let crypto = QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = endpoint.local_addr().unwrap();
        Self { endpoint, addr, fingerprint }
    }

    /// URL to dial.
    pub(super) fn url(&self, scheme: &str) -> String {
        format!("{scheme}://{}/app?jwt=a.b", self.addr)
    }

    /// Accepts the next session.
    pub(super) async fn accept(&self) -> Server {
        let (connection, alpn) = self.connection().await;
        Server::establish(connection, alpn, self.endpoint.clone(), false).await.0
    }

    /// Accepts the next session, with the peer's streams left to the test.
    pub(super) async fn accept_manual(&self) -> (Server, Raw) {
        let (connection, alpn) = self.connection().await;
        Server::establish(connection, alpn, self.endpoint.clone(), true).await
    }

    /// Refuses the next CONNECT.
    pub(super) async fn refuse(&self, status: u16) {
        let (connection, _) = self.connection().await;
        let _control = h3::send_settings(&connection).await.unwrap();
        let (mut send, mut recv) = connection.accept_bi().await.unwrap();
        ConnectRequest::read(&mut recv).await.unwrap();
        let mut out = BytesMut::new();
        ConnectResponse::new(status.try_into().unwrap()).encode(&mut out).unwrap();
        send.write_all(&out).await.unwrap();
        connection.closed().await;
    }

    async fn connection(&self) -> (quinn::Connection, String) {
        loop {
            let connecting = self.endpoint.accept().await.unwrap();
            let Ok(connection) = connecting.await else { continue };
            let data = connection.handshake_data().unwrap();
            let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
            return (connection, String::from_utf8(data.protocol.unwrap()).unwrap());
        }
    }
}

pub(super) struct Server {
    session: Arc<ClientSession>,
    connect: tokio::sync::Mutex<Option<quinn::SendStream>>,
    _control: Option<quinn::SendStream>,
    _endpoint: Option<quinn::Endpoint>,
}

impl Server {
    async fn establish(
        connection: quinn::Connection,
        alpn: String,
        endpoint: quinn::Endpoint,
        by_hand: bool,
    ) -> (Self, Raw) {
        let (mut control, mut connect, mut closing) = (None, None, None);
        let webtransport = alpn == "h3";
        let mut protocol = alpn;
        if webtransport {
            control = Some(h3::send_settings(&connection).await.unwrap());
            let (mut send, mut recv) = connection.accept_bi().await.unwrap();
            let request = ConnectRequest::read(&mut recv).await.unwrap();
            assert_eq!(request.protocols.len(), 1);
            protocol = request.protocols[0].clone();
            let mut out = BytesMut::new();
            ConnectResponse::OK.with_protocol(protocol.as_str()).encode(&mut out).unwrap();
            send.write_all(&out).await.unwrap();
            connect = Some(send);
            closing = Some(recv);
        }
        let version = Version::from_alpn(&protocol).unwrap();
        let carrier = Carrier { wire: Wire::Quic { connection, webtransport }, version };
        let (manual, incoming) = manual(by_hand);
        let raw = Raw { carrier: carrier.clone(), incoming };
        let session = ClientSession::new(carrier, Hop(1), Arc::default(), manual, oneshot::channel().0);
        let session = Arc::new(session);
        session.start();
        if let Some(recv) = closing {
            let session = session.clone();
            tokio::spawn(async move {
                if let Some(closed) = h3::closed(recv).await {
                    session.set_closed(closed);
                }
            });
        }
        let connect = tokio::sync::Mutex::new(connect);
        (Self { session, connect, _control: control, _endpoint: Some(endpoint) }, raw)
    }

    /// A session on a stream socket.
    pub(super) fn on_socket(session: qmux::Session) -> Self {
        let version = Version::from_alpn(session.protocol().unwrap()).unwrap();
        let carrier = Carrier { wire: Wire::Socket(session), version };
        let session = ClientSession::new(carrier, Hop(1), Arc::default(), None, oneshot::channel().0);
        let session = Arc::new(session);
        session.start();
        Self { session, connect: tokio::sync::Mutex::new(None), _control: None, _endpoint: None }
    }

    pub(super) fn broadcast(&self, path: &str) -> Broadcast {
        Broadcast::new(self.session.published.clone(), Path::parse(path).unwrap())
    }

    pub(super) async fn subscribe(&self, path: &str, track: &str, prefs: Prefs) -> Subscription {
        let (path, track) = (Path::parse(path).unwrap(), TrackName::parse(track).unwrap());
        Subscription::open(self.session.clone(), path, track, prefs).await.unwrap()
    }

    pub(super) async fn announced(&self, prefix: &str) -> Announced {
        Announced::open(self.session.clone(), Path::parse(prefix).unwrap(), Hop(0)).await.unwrap()
    }

    pub(super) async fn setup(&self) -> Setup {
        let mut setup = self.session.setup.subscribe();
        setup.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    pub(super) async fn close(&self, code: SessionCode, reason: &str) {
        if let Some(mut connect) = self.connect.lock().await.take() {
            h3::close(&mut connect, code.0, reason).await;
            let _ = connect.stopped().await;
        }
        self.session.carrier.close(code.0, reason);
    }

    pub(super) async fn closed(&self) -> Closed {
        let mut closed = self.session.closed.subscribe();
        closed.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    pub(super) fn is_closed(&self) -> Option<Closed> {
        self.session.closed.borrow().clone()
    }

    /// Access to streams of any kind.
    pub(super) fn raw(&self) -> Raw {
        Raw { carrier: self.session.carrier.clone(), incoming: None }
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.session.carrier.quic().unwrap().remote_address()
    }

    /// Whether the client has sent a SETUP so far.
    pub(super) fn has_setup(&self) -> bool {
        self.session.setup.borrow().is_some()
    }

    pub(super) async fn go_away(&self, uri: &str) -> Result<(), Error> {
        self.session.go_away(uri).await
    }

    pub(super) async fn goaway(&self) -> String {
        let mut goaway = self.session.goaway.subscribe();
        goaway.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    pub(super) async fn track_info(&self, path: &str, track: &str) -> Result<TrackInfo, Error> {
        self.session.track_info(Path::parse(path).unwrap(), TrackName::parse(track).unwrap()).await
    }

    /// Fetches frames from the first of `frames` to the second, of a group of `b/t`.
    pub(super) async fn fetch(&self, group: u64, frames: (u64, Option<u64>)) -> Result<ReceivedGroup, Error> {
        let (broadcast, track) = (Path::parse("b").unwrap(), TrackName::parse("t").unwrap());
        let (start_frame, end_frame) = frames;
        self.session.fetch(Fetch { broadcast, track, priority: 1, group, start_frame, end_frame }).await
    }
}
