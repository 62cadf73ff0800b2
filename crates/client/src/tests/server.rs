//! The server half of a session, for tests.

use std::{net::SocketAddr, sync::Arc};

use bytes::BytesMut;
use quinn::crypto::rustls::QuicServerConfig;
use relay_model::{Hop, Path, Prefs, SessionCode, TrackName};
use relay_wire::lite::{Setup, Version};
use rustls::pki_types::PrivatePkcs8KeyDer;
use tokio::sync::oneshot;
use web_transport_proto::{ConnectRequest, ConnectResponse};

use crate::{
    Announced, Broadcast, Closed, Error, Group, Subscription, carrier::Carrier, code, control::ControlReader,
    control::request, h3, session::Session,
};
use relay_wire::lite::{BidiType, Fetch, Message, TrackRequest};

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
        tls.alpn_protocols = vec![b"moq-lite-05".to_vec(), b"h3".to_vec()];
        let crypto = QuicServerConfig::try_from(tls).unwrap();
        let config = quinn::ServerConfig::with_crypto(Arc::new(crypto));
        let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
        let addr = endpoint.local_addr().unwrap();
        Self { endpoint, addr, fingerprint }
    }

    /// The next connection that is established.
    pub(super) async fn accept(&self) -> Server {
        loop {
            let connecting = self.endpoint.accept().await.unwrap();
            let Ok(connection) = connecting.await else { continue };
            let data = connection.handshake_data().unwrap();
            let data = data.downcast::<quinn::crypto::rustls::HandshakeData>().unwrap();
            let webtransport = data.protocol.as_deref() == Some(b"h3");
            return Server::establish(connection, webtransport, self.endpoint.clone()).await;
        }
    }
}

pub(super) struct Server {
    session: Arc<Session>,
    connect: tokio::sync::Mutex<Option<quinn::SendStream>>,
    _control: Option<quinn::SendStream>,
    _endpoint: quinn::Endpoint,
}

impl Server {
    async fn establish(connection: quinn::Connection, webtransport: bool, endpoint: quinn::Endpoint) -> Self {
        let (mut control, mut connect, mut closing) = (None, None, None);
        if webtransport {
            control = Some(h3::send_settings(&connection).await.unwrap());
            let (mut send, mut recv) = connection.accept_bi().await.unwrap();
            let request = ConnectRequest::read(&mut recv).await.unwrap();
            assert_eq!(request.protocols, ["moq-lite-05"]);
            let mut out = BytesMut::new();
            ConnectResponse::OK.with_protocol("moq-lite-05").encode(&mut out).unwrap();
            send.write_all(&out).await.unwrap();
            connect = Some(send);
            closing = Some(recv);
        }
        let carrier = Carrier { connection, webtransport };
        let session = Arc::new(Session::new(carrier, Version::V05, Hop(1), None, oneshot::channel().0));
        session.start();
        if let Some(recv) = closing {
            let session = session.clone();
            tokio::spawn(async move {
                if let Some(closed) = h3::closed(recv).await {
                    session.set_closed(closed);
                }
            });
        }
        Self { session, connect: tokio::sync::Mutex::new(connect), _control: control, _endpoint: endpoint }
    }

    pub(super) fn broadcast(&self, path: &str) -> Broadcast {
        Broadcast::new(self.session.clone(), Path::parse(path).unwrap())
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
        self.session.carrier.connection.close(code::to_quic(code.0), reason.as_bytes());
    }

    pub(super) async fn closed(&self) -> Closed {
        let mut closed = self.session.closed.subscribe();
        closed.wait_for(Option::is_some).await.unwrap().clone().unwrap()
    }

    pub(super) fn remote(&self) -> SocketAddr {
        self.session.carrier.connection.remote_address()
    }

    /// Requests of one answer, as a client makes them.
    pub(super) fn client_like(&self) -> Asker<'_> {
        Asker(&self.session)
    }
}

pub(super) struct Asker<'a>(&'a Session);

impl Asker<'_> {
    pub(super) async fn track_info(&self, path: &str, track: &str) -> Result<relay_model::TrackInfo, Error> {
        let ask =
            TrackRequest { broadcast: Path::parse(path).unwrap(), track: TrackName::parse(track).unwrap() };
        ControlReader::new(self.ask(BidiType::Track, &ask).await?, Version::V05).expect().await
    }

    pub(super) async fn fetch(&self, path: &str, track: &str, group: u64) -> Result<Group, Error> {
        let (broadcast, track) = (Path::parse(path).unwrap(), TrackName::parse(track).unwrap());
        let ask = Fetch { broadcast, track, priority: 1, group };
        Ok(Group::bare(self.ask(BidiType::Fetch, &ask).await?, Version::V05, group))
    }

    async fn ask<M: Message>(&self, kind: BidiType, message: &M) -> Result<crate::RecvStream, Error> {
        let (mut send, recv) = self.0.carrier.open_bidi().await?;
        send.write(&request(kind.id(), message, Version::V05)).await?;
        send.finish();
        Ok(recv)
    }
}
