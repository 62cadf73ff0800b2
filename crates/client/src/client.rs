//! Handle of one session, and its connection setup.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use quinn::{Runtime, crypto::rustls::QuicClientConfig};
use relay_model::{Path, Prefs, SessionCode, TrackInfo, TrackName};
use relay_wire::lite::{Fetch, Setup, UniType, Version};
use tokio::sync::{mpsc, oneshot};

use crate::{
    announced::Announced,
    carrier::{Carrier, Wire},
    code::Closed,
    config::ClientConfig,
    control::request,
    error::Error,
    groups::ReceivedGroup,
    h3,
    link::Link,
    publish::Published,
    publisher::Broadcast,
    race::race,
    raw::{Incoming, Raw},
    requests::Probes,
    session::{ClientSession, EVENTS, Manual},
    socket,
    subscribe::Subscription,
    target::{DialTarget, Scheme},
    tls,
};

/// Time for the peer to acknowledge a graceful close.
const CLOSE_WAIT: Duration = Duration::from_millis(250);
/// Time for written bytes to leave a stream socket before it is closed.
const WRITE_WAIT: Duration = Duration::from_millis(10);

/// A session with a relay, on a socket of its own. Cheap to clone; closed when the last clone is dropped.
#[derive(Clone)]
pub struct Client(Arc<Handle>);

struct Handle {
    session: Arc<ClientSession>,
    socket: LocalEnd,
    link: Link,
    config: ClientConfig,
    established: Instant,
    incoming: Mutex<Option<Incoming>>,
    /// Sending half of the CONNECT stream.
    connect: tokio::sync::Mutex<Option<quinn::SendStream>>,
    /// Our HTTP/3 control stream, which must stay open.
    _control: Option<quinn::SendStream>,
}

impl Client {
    /// Connects to `https://host:port/path` (WebTransport), `moqt://host:port/path` (moq on QUIC),
    /// `wss://host:port/path` (WebSocket on TLS), `ws://host:port/path` (WebSocket), `tcp://host:port/path`
    /// or `unix:///file:/path` and sends SETUP if the version has it. The server's SETUP is not waited for.
    /// Before moq-lite-05 nothing carries the path of a `moqt`, `tcp` or `unix` URL: the server sees none.
    pub async fn connect(url: &str, config: ClientConfig) -> Result<Self, Error> {
        Self::connect_publishing(url, config, Arc::default()).await
    }

    /// The same, serving what is already published.
    pub(crate) async fn connect_publishing(
        url: &str,
        config: ClientConfig,
        published: Arc<Published>,
    ) -> Result<Self, Error> {
        let timeout = config.connect_timeout;
        let dial = Self::dial(url, config, published);
        tokio::time::timeout(timeout, dial).await.map_err(|_| Error::ConnectTimeout)?
    }

    async fn dial(url: &str, config: ClientConfig, published: Arc<Published>) -> Result<Self, Error> {
        let target = DialTarget::parse(url)?;
        if !matches!(target.scheme, Scheme::WebTransport | Scheme::Raw) {
            return Self::dial_socket(&target, config, published).await;
        }
        let addresses = target.resolve().await?;
        let (connection, endpoint, link) =
            race(&addresses, |remote| Self::handshake(&target, &config, remote)).await?;
        let webtransport = target.scheme == Scheme::WebTransport;
        let carrier = Carrier { wire: Wire::Quic { connection, webtransport }, version: config.version };
        Self::begin(&target, config, published, carrier, (LocalEnd::Quic(endpoint), link)).await
    }

    /// Opens a QUIC connection with `remote`, on a socket of its own.
    async fn handshake(
        target: &DialTarget,
        config: &ClientConfig,
        remote: SocketAddr,
    ) -> Result<(quinn::Connection, quinn::Endpoint, Link), Error> {
        let link = Link::default();
        let socket = bind(config, &link, remote)?;
        let runtime = Arc::new(quinn::TokioRuntime);
        let endpoint_config = quinn::EndpointConfig::default();
        let endpoint = quinn::Endpoint::new_with_abstract_socket(endpoint_config, None, socket, runtime)?;
        let alpn = match target.scheme {
            Scheme::WebTransport => "h3",
            _ => config.version.alpn(),
        };
        let tls = tls::client_config(&config.certs, config.identity.as_ref(), alpn.as_bytes())?;
        let tls = QuicClientConfig::try_from(tls).map_err(|e| Error::Setup(e.to_string()))?;
        let mut quic = quinn::ClientConfig::new(Arc::new(tls));
        quic.transport_config(Arc::new(config.tuning.to_quinn()));
        let connecting =
            endpoint.connect_with(quic, remote, &target.host).map_err(|e| Error::Setup(e.to_string()))?;
        Ok((connecting.await?, endpoint, link))
    }

    async fn dial_socket(
        target: &DialTarget,
        config: ClientConfig,
        published: Arc<Published>,
    ) -> Result<Self, Error> {
        let (session, here) = socket::dial(target, &config).await?;
        let carrier = Carrier { wire: Wire::Socket(session), version: config.version };
        Self::begin(target, config, published, carrier, (LocalEnd::Socket(here), Link::default())).await
    }

    /// Starts a session on an open connection.
    async fn begin(
        target: &DialTarget,
        config: ClientConfig,
        published: Arc<Published>,
        carrier: Carrier,
        (socket, link): (LocalEnd, Link),
    ) -> Result<Self, Error> {
        // The loops hold the connection: a cancelled dial must end them.
        let mut guard = Guard(Some(carrier.clone()));
        let (settings_sender, settings) = oneshot::channel();
        let (manual, incoming) = manual(config.manual);
        let session = Arc::new(ClientSession::new(carrier, config.hop, published, manual, settings_sender));
        let socket = ConnectionParts { socket, link, incoming };
        let client = Self::establish(target, config, session, socket, settings).await?;
        guard.0 = None;
        Ok(client)
    }

    async fn establish(
        target: &DialTarget,
        config: ClientConfig,
        session: Arc<ClientSession>,
        socket: ConnectionParts,
        settings: oneshot::Receiver<Result<(), Error>>,
    ) -> Result<Self, Error> {
        let established = Instant::now();
        session.start();
        let (mut control, mut connect) = (None, None);
        if let Wire::Quic { connection, webtransport: true } = session.carrier.wire.clone() {
            control = Some(h3::send_settings(&connection).await?);
            tokio::select! {
                Ok(outcome) = settings => outcome?,
                error = connection.closed() => return Err(error.into()),
            }
            let stream = h3::connect(&connection, target, config.version.alpn()).await?;
            connect = Some(stream.send);
            let session = session.clone();
            tokio::spawn(async move {
                if let Some(closed) = h3::closed(stream.recv).await {
                    session.set_closed(closed);
                }
            });
        }
        let handle = Handle {
            session,
            socket: socket.socket,
            link: socket.link,
            config,
            established,
            incoming: Mutex::new(socket.incoming),
            connect: tokio::sync::Mutex::new(connect),
            _control: control,
        };
        let client = Self(Arc::new(handle));
        if !client.0.config.manual && client.version().has_setup() {
            client.send_setup((!target.scheme.has_url()).then(|| target.path.clone())).await?;
        }
        Ok(client)
    }

    async fn send_setup(&self, path: Option<String>) -> Result<(), Error> {
        let config = &self.0.config;
        let setup =
            Setup { path, role: config.role, cost: config.cost, hop: Some(config.hop), ..Setup::default() };
        let mut stream = self.0.session.carrier.open_uni().await?;
        stream.write(&request(UniType::Setup.id(), &setup, config.version)).await?;
        stream.finish();
        Ok(())
    }

    /// The session's version.
    pub fn version(&self) -> Version {
        self.0.session.version
    }

    /// Time when the session setup began, after the handshake of the connection.
    pub fn established(&self) -> Instant {
        self.0.established
    }

    /// Round-trip time, the transport's current estimate; 0 where it has none.
    pub fn rtt(&self) -> Duration {
        self.0.session.carrier.rtt()
    }

    /// The QUIC connection; `None` on a stream socket.
    pub fn quic(&self) -> Option<&quinn::Connection> {
        self.0.session.carrier.quic()
    }

    /// Local address, with the port in use. [`Error::Unsupported`] on a Unix socket.
    pub fn local_addr(&self) -> Result<SocketAddr, Error> {
        match &self.0.socket {
            LocalEnd::Quic(endpoint) => Ok(endpoint.local_addr()?),
            LocalEnd::Socket(here) => {
                here.ok_or(Error::Unsupported("a socket in the file system", "address"))
            }
        }
    }

    /// Creates a broadcast that is not announced yet.
    pub fn broadcast(&self, path: &str) -> Result<Broadcast, Error> {
        Ok(Broadcast::new(self.0.session.published.clone(), parse_path(path)?))
    }

    /// Watches announcements below `prefix`. Returns after the initial set, or, before moq-lite-05, at once.
    pub async fn announced(&self, prefix: &str) -> Result<Announced, Error> {
        let prefix = parse_path(prefix)?;
        Announced::open(self.0.session.clone(), prefix, self.0.config.exclude_hop).await
    }

    /// Subscribes. Returns once the request is written: a refusal is the first event.
    pub async fn subscribe(&self, broadcast: &str, track: &str, prefs: Prefs) -> Result<Subscription, Error> {
        let (broadcast, track) = (parse_path(broadcast)?, parse_track(track)?);
        Subscription::open(self.0.session.clone(), broadcast, track, prefs).await
    }

    /// Requests the properties of a track; a refusal is [`Error::Reset`]. [`Error::Unsupported`] before moq-lite-05.
    pub async fn track_info(&self, broadcast: &str, track: &str) -> Result<TrackInfo, Error> {
        self.0.session.track_info(parse_path(broadcast)?, parse_track(track)?).await
    }

    /// Fetches one group, or (moq-lite-06) its frames from `start_frame` to `end_frame`, both included. Returns once
    /// the request is written: a refusal is the [`Error::Reset`] of its first frame. Cancelled when the group is
    /// dropped early. [`Error::Unsupported`] before moq-lite-05, and for a frame range on it.
    pub async fn fetch(
        &self,
        broadcast: &str,
        track: &str,
        group: u64,
        start_frame: u64,
        end_frame: Option<u64>,
        priority: u8,
    ) -> Result<ReceivedGroup, Error> {
        let (broadcast, track) = (parse_path(broadcast)?, parse_track(track)?);
        self.0.session.fetch(Fetch { broadcast, track, priority, group, start_frame, end_frame }).await
    }

    /// Requests measurements of the connection from the peer (PROBE).
    pub async fn probe(&self) -> Result<Probes, Error> {
        self.0.session.probe().await
    }

    /// Asks the peer to move to `uri` (GOAWAY); empty = to reconnect to the same place. [`Error::Unsupported`] on
    /// moq-lite-03.
    pub async fn go_away(&self, uri: &str) -> Result<(), Error> {
        self.0.session.go_away(uri).await
    }

    /// Waits for the peer's SETUP. [`Error::Unsupported`] before moq-lite-05.
    pub async fn peer_setup(&self) -> Result<Setup, Error> {
        self.0.session.need(self.version().has_setup(), "SETUP")?;
        self.first(self.0.session.setup.subscribe()).await
    }

    /// Waits for the peer's GOAWAY and returns its URI; empty = reconnect to the same place.
    pub async fn going_away(&self) -> Result<String, Error> {
        self.first(self.0.session.goaway.subscribe()).await
    }

    /// Waits for the end of the session and returns its cause.
    pub async fn closed(&self) -> Closed {
        let mut closed = self.0.session.closed.subscribe();
        match closed.wait_for(Option::is_some).await {
            Ok(state) => state.clone().unwrap_or(Closed::Local),
            Err(_) => Closed::Local,
        }
    }

    /// Cause of the session's end; `None` while it lives.
    pub fn is_closed(&self) -> Option<Closed> {
        self.0.session.closed.borrow().clone()
    }

    /// Closes the session with a code and a reason; on WebTransport by a capsule first.
    pub async fn close(&self, code: SessionCode, reason: &str) {
        self.0.session.set_closed(Closed::Local);
        let connect = self.0.connect.lock().await.take();
        if let Some(mut connect) = connect {
            h3::close(&mut connect, code.0, reason).await;
            let _ = tokio::time::timeout(CLOSE_WAIT, connect.stopped()).await;
        }
        if matches!(self.0.socket, LocalEnd::Socket(_)) {
            // Its close discards bytes that are being written, stream resets included.
            tokio::time::sleep(WRITE_WAIT).await;
        }
        self.0.session.carrier.close(code.0, reason);
    }

    /// Waits until the peer must have received the close.
    pub async fn drained(&self) {
        match &self.0.socket {
            LocalEnd::Quic(endpoint) => endpoint.wait_idle().await,
            // A stream socket reports no acknowledgement: a fixed time instead.
            LocalEnd::Socket(_) => tokio::time::sleep(CLOSE_WAIT).await,
        }
    }

    /// Moves the connection to a new local port, as a NAT rebinding does. [`Error::Unsupported`] on a stream socket.
    pub fn rebind(&self) -> Result<(), Error> {
        let (LocalEnd::Quic(endpoint), Some(connection)) = (&self.0.socket, self.quic()) else {
            return Err(Error::Unsupported("a stream socket", "other address"));
        };
        let socket = bind(&self.0.config, &self.0.link, connection.remote_address())?;
        Ok(endpoint.rebind_abstract(socket)?)
    }

    /// Control over the link: silence, loss, rate. Without effect on a stream socket.
    pub fn link(&self) -> &Link {
        &self.0.link
    }

    /// While true, incoming unidirectional streams stay in the transport, unread: no group arrives and no stream credit
    /// is returned. (A reader that only pauses keeps its [`ReceivedGroup`]s and does not read them.)
    pub fn pause_streams(&self, hold: bool) {
        self.0.session.pause_streams.send_replace(hold);
    }

    /// Access to streams and datagrams without the protocol. In manual mode the first caller receives the peer's
    /// streams.
    pub fn raw(&self) -> Raw {
        let incoming = self.0.incoming.lock().unwrap_or_else(PoisonError::into_inner).take();
        Raw { carrier: self.0.session.carrier.clone(), incoming }
    }

    /// The session, for use in this crate.
    pub(crate) fn session(&self) -> &Arc<ClientSession> {
        &self.0.session
    }

    async fn first<T: Clone>(&self, mut value: tokio::sync::watch::Receiver<Option<T>>) -> Result<T, Error> {
        tokio::select! {
            found = value.wait_for(Option::is_some) => match found.map(|v| v.clone()) {
                Ok(Some(value)) => Ok(value),
                _ => Err(Error::Ended),
            },
            closed = self.closed() => Err(Error::Closed(closed)),
        }
    }
}

/// Parts of a connection that are not the carrier.
struct ConnectionParts {
    socket: LocalEnd,
    link: Link,
    incoming: Option<Incoming>,
}

/// Local end of the connection.
enum LocalEnd {
    Quic(quinn::Endpoint),
    /// Its address, except for a Unix socket.
    Socket(Option<SocketAddr>),
}

/// Closes the connection when dropped, unless disarmed.
struct Guard(Option<Carrier>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(carrier) = &self.0 {
            carrier.close(SessionCode::NONE.0, "");
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.session.set_closed(Closed::Local);
        self.session.carrier.close(SessionCode::NONE.0, "");
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").field("on", &self.0.session.carrier.wire).finish_non_exhaustive()
    }
}

pub(crate) fn parse_path(raw: &str) -> Result<Path, Error> {
    Path::parse(raw).map_err(|e| Error::Name(e.to_string()))
}

fn parse_track(raw: &str) -> Result<TrackName, Error> {
    TrackName::parse(raw).ok_or_else(|| Error::Name(raw.to_owned()))
}

pub(crate) fn manual(wanted: bool) -> (Option<Manual>, Option<Incoming>) {
    if !wanted {
        return (None, None);
    }
    let (uni_sender, uni) = mpsc::channel(EVENTS);
    let (bidi_sender, bidi) = mpsc::channel(EVENTS);
    let (datagram_sender, datagrams) = mpsc::channel(EVENTS);
    let manual = Manual { uni: uni_sender, bidi: bidi_sender, datagrams: datagram_sender };
    (Some(manual), Some(Incoming { uni, bidi, datagrams }))
}

/// Binds a new socket for `remote`, wrapped in the link and the caller's socket factory.
fn bind(
    config: &ClientConfig,
    link: &Link,
    remote: SocketAddr,
) -> Result<Arc<dyn quinn::AsyncUdpSocket>, Error> {
    let any = match remote {
        SocketAddr::V4(_) => SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)),
        SocketAddr::V6(_) => SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0)),
    };
    let socket = UdpSocket::bind(config.bind.unwrap_or(any))?;
    if let Some(bytes) = config.socket_receive_buffer {
        socket2::SockRef::from(&socket).set_recv_buffer_size(bytes)?;
    }
    let inner = match &config.socket {
        Some(make) => make(socket)?,
        None => quinn::TokioRuntime.wrap_udp_socket(socket)?,
    };
    Ok(link.wrap(inner))
}
