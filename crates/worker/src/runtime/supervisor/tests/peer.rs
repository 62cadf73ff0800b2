//! Test peer over a stream socket, driven by polling.

use std::{
    collections::BTreeMap,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::net::UnixStream,
};

use bytes::Bytes;
use crossbeam_channel::Receiver;
use relay_model::{
    Cost, Path, Prefs, TrackName,
    transport::{Dir, Stream, Transport, TransportClosed as Ending, TransportEvent as Heard},
};
use relay_transport::qmux::{self, ConnPhase, QmuxCarrier, QmuxConnection, QmuxFraming};
use relay_wire::{
    MessageBuf,
    lite::{self, BidiType, Message, UniType},
    varint,
};

use super::*;
use crate::{AcceptedSocket as Given, Admission, AdmittedSocket, ConnInfo, PendingSession, RejectReason};

pub(super) const VERSION: lite::Version = lite::Version::V05;

/// Socket of the peer.
trait Duplex: Read + Write {}
impl<T: Read + Write> Duplex for T {}

/// Both ends of a connection.
pub(super) struct Ends {
    pub(super) pending: PendingSession,
    link: AdmittedSocket,
    socket: Box<dyn Duplex>,
    tls: Option<rustls::ClientConnection>,
}

impl Ends {
    /// Returns the relay's end and closes the other.
    pub(super) fn into_link(self) -> AdmittedSocket {
        self.link
    }

    /// Returns the relay's end and keeps the other.
    pub(super) fn take_link(&mut self) -> AdmittedSocket {
        let other = Given::Tcp(tcp_pair().0);
        std::mem::replace(&mut self.link, AdmittedSocket { socket: other, tls: None, received: Vec::new() })
    }

    /// Whether the relay has closed its end.
    pub(super) fn is_closed(&mut self) -> bool {
        match self.socket.read(&mut [0; 1_024]) {
            Ok(count) => count == 0,
            Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        }
    }
}

fn pending(over: QmuxCarrier, transport: &'static str) -> PendingSession {
    let unspecified = SocketAddr::new(Ipv4Addr::UNSPECIFIED.into(), 0);
    PendingSession {
        framing: QmuxFraming::Qmux01,
        over,
        conn: ConnInfo {
            version: Some(VERSION.alpn()),
            target: (over == QmuxCarrier::WebSocket).then(|| "/".to_owned()),
            ..ConnInfo::new(transport, unspecified, unspecified)
        },
    }
}

fn tcp_pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let theirs = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    (listener.accept().unwrap().0, theirs)
}

pub(super) fn tcp(over: QmuxCarrier) -> Ends {
    let (ours, theirs) = tcp_pair();
    theirs.set_nonblocking(true).unwrap();
    let transport = if over == QmuxCarrier::WebSocket { "websocket" } else { "tcp" };
    let link = AdmittedSocket { socket: Given::Tcp(ours), tls: None, received: Vec::new() };
    Ends { pending: pending(over, transport), link, socket: Box::new(theirs), tls: None }
}

pub(super) fn unix() -> Ends {
    let (ours, theirs) = UnixStream::pair().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let link = AdmittedSocket { socket: Given::Unix(ours), tls: None, received: Vec::new() };
    Ends { pending: pending(QmuxCarrier::Bytes, "unix"), link, socket: Box::new(theirs), tls: None }
}

/// A TCP connection with TLS, after its handshake.
pub(super) fn tls() -> Ends {
    let identity = rcgen::generate_simple_self_signed(vec!["localhost".to_owned()]).unwrap();
    let key = rustls_pki_types::PrivatePkcs8KeyDer::from(identity.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server = rustls::ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![identity.cert.der().clone()], key.into())
        .unwrap();
    let mut roots = rustls::RootCertStore::empty();
    roots.add(identity.cert.der().clone()).unwrap();
    let client = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth();
    let (mut ours, mut theirs) = tcp_pair();
    let accepted = thread::spawn(move || {
        let mut tls = rustls::ServerConnection::new(Arc::new(server)).unwrap();
        tls.complete_io(&mut ours).unwrap();
        (ours, tls)
    });
    let mut tls = rustls::ClientConnection::new(Arc::new(client), "localhost".try_into().unwrap()).unwrap();
    tls.complete_io(&mut theirs).unwrap();
    let (ours, accepted) = accepted.join().unwrap();
    theirs.set_nonblocking(true).unwrap();
    let link =
        AdmittedSocket { socket: Given::Tcp(ours), tls: Some(Box::new(accepted)), received: Vec::new() };
    Ends { pending: pending(QmuxCarrier::Bytes, "tcp"), link, socket: Box::new(theirs), tls: Some(tls) }
}

/// Announces a connection to the relay; returns a channel for the verdict.
pub(super) fn announce(relay: &Relay, pending: PendingSession) -> Receiver<Result<Admission, RejectReason>> {
    let (say, heard) = crossbeam_channel::bounded(1);
    relay.arrivals().arrive(pending, Box::new(move |what| drop(say.send(what))));
    heard
}

pub(super) fn verdict(relay: &Relay, pending: PendingSession) -> Result<Admission, RejectReason> {
    announce(relay, pending).recv_timeout(Duration::from_secs(10)).expect("a verdict")
}

pub(super) struct Peer {
    pub(super) session: SessionId,
    conn: QmuxConnection,
    socket: Box<dyn Duplex>,
    tls: Option<rustls::ClientConnection>,
    unsent: Vec<u8>,
    /// Received bytes by stream.
    came: BTreeMap<Stream, Vec<u8>>,
    answered: Vec<Stream>,
    /// Subscribe id of the relay's subscription.
    pub(super) wanted: Option<u64>,
    pub(super) closed: Option<Ending>,
}

impl Peer {
    /// Connects a session, waits until it is ready, and sends SETUP.
    pub(super) fn enter(relay: &Relay, ends: Ends) -> Self {
        let has_url = ends.pending.conn.target.is_some();
        let mut peer = Self::begin(relay, ends);
        let deadline = Instant::now() + Duration::from_secs(10);
        while peer.conn.phase() != ConnPhase::Ready {
            assert!(Instant::now() < deadline && peer.closed.is_none(), "not ready: {:?}", peer.closed);
            peer.pump();
            thread::sleep(Duration::from_millis(1));
        }
        peer.set_up(has_url);
        peer
    }

    /// Connects a session that has a place and its socket.
    pub(super) fn begin(relay: &Relay, ends: Ends) -> Self {
        let Ends { pending, link, socket, tls } = ends;
        let over = pending.over;
        let place = verdict(relay, pending).expect("it is let in");
        let session = place.session();
        place.take(link);
        let config = qmux::QmuxConfig {
            is_client: true,
            protocol: Some(VERSION.alpn()),
            mask_seed: 7,
            ..qmux::QmuxConfig::new(QmuxFraming::Qmux01, over)
        };
        let conn = QmuxConnection::new(config, Instant::now());
        Self {
            session,
            conn,
            socket,
            tls,
            unsent: Vec::new(),
            came: BTreeMap::new(),
            answered: Vec::new(),
            wanted: None,
            closed: None,
        }
    }

    fn set_up(&mut self, has_url: bool) {
        let stream = self.conn.open(Dir::Uni, 0).expect("credit");
        let mut message = Vec::new();
        varint::put(UniType::Setup.id(), &mut message);
        let path = (!has_url).then(|| "/".to_owned());
        lite::Setup { probe: 0, path, role: None, cost: None, hop: None }.encode(VERSION, &mut message);
        self.write(stream, message);
        self.conn.finish(stream);
        self.pump();
    }

    fn write(&mut self, stream: Stream, message: Vec<u8>) {
        let mut chunks = [Bytes::from(message)];
        self.conn.exempt(true);
        self.conn.write(stream, &mut chunks).expect("room");
        assert!(chunks.iter().all(Bytes::is_empty), "room for all of it");
    }

    pub(super) fn subscribe(&mut self, path: &str) {
        let stream = self.conn.open(Dir::Bi, 0).expect("credit");
        let mut message = Vec::new();
        varint::put(BidiType::Subscribe.id(), &mut message);
        let (broadcast, track) = (Path::parse(path).unwrap(), TrackName::parse("video").unwrap());
        let prefs = Prefs { max_age_ms: 10_000, ..Prefs::default() };
        lite::Subscribe { id: 0, broadcast, track, prefs }.encode(VERSION, &mut message);
        self.write(stream, message);
        self.pump();
    }

    /// Sends a group of one frame.
    pub(super) fn group(&mut self, sequence: u64, payload: &str) {
        let subscribe = self.wanted.expect("somebody wants it");
        let stream = self.conn.open(Dir::Uni, 0).expect("credit");
        let mut message = Vec::new();
        let group = lite::Group { subscribe, sequence, first_frame: 0 };
        lite::put_group_header(VERSION, &group, &mut message);
        let head = lite::FrameHead { tick: None, size: payload.len() as u64 };
        lite::put_frame_head(VERSION, 0, head, &mut message);
        message.extend_from_slice(payload.as_bytes());
        self.write(stream, message);
        self.conn.finish(stream);
        self.pump();
    }

    /// Whether `text` was received on a stream.
    pub(super) fn has(&self, text: &str) -> bool {
        self.came.values().any(|came| came.windows(text.len()).any(|window| window == text.as_bytes()))
    }

    /// Reads, handles and writes as much as possible now.
    pub(super) fn pump(&mut self) {
        let now = Instant::now();
        if self.conn.timeout().is_some_and(|at| at <= now) {
            self.conn.handle_timeout(now);
        }
        let mut buffer = vec![0; 64 * 1024];
        while self.conn.wants_input() {
            let Self { socket, tls, .. } = self;
            let read = match tls {
                Some(tls) => rustls::Stream::new(tls, socket).read(&mut buffer),
                None => socket.read(&mut buffer),
            };
            match read {
                Ok(0) => self.conn.end_of_input("ended"),
                Ok(count) => self.conn.receive(now, &buffer[..count]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => self.conn.end_of_input(&error.to_string()),
            }
        }
        while let Some(event) = self.conn.poll() {
            match event {
                Heard::Opened(stream, _) | Heard::Readable(stream) => self.take(stream),
                Heard::Closed(why) => self.closed = Some(why),
                _ => {}
            }
        }
        self.send(now);
    }

    fn send(&mut self, now: Instant) {
        loop {
            let mut chunks = Vec::new();
            if self.unsent.is_empty() && self.conn.transmit(now, 64 * 1024, &mut chunks) == 0 {
                return;
            }
            chunks.iter().for_each(|chunk| self.unsent.extend_from_slice(chunk));
            let Self { socket, tls, unsent, .. } = self;
            let written = match tls {
                Some(tls) => rustls::Stream::new(tls, socket).write(unsent),
                None => socket.write(unsent),
            };
            match written {
                Ok(count) => drop(self.unsent.drain(..count)),
                Err(_) => return,
            }
        }
    }

    fn take(&mut self, stream: Stream) {
        let mut request = MessageBuf::new();
        while let Ok(Some(bytes)) = self.conn.read(stream, 64 * 1024) {
            self.came.entry(stream).or_default().extend_from_slice(&bytes);
            request.push(&bytes);
        }
        // Requests of the relay arrive whole, on its bidirectional streams.
        let is_request = stream.0 & 3 == 1 && !request.is_empty() && !self.answered.contains(&stream);
        if is_request {
            self.answered.push(stream);
            self.answer(stream, request);
        }
    }

    fn answer(&mut self, stream: Stream, mut request: MessageBuf) {
        let mut message = Vec::new();
        match BidiType::from_id(VERSION, request.next_varint().expect("its kind")) {
            Some(BidiType::Announce) => {
                lite::AnnounceOk { hop: Hop(55), count: 1 }.encode(VERSION, &mut message);
                let suffix = Path::parse("live/socket").unwrap();
                let active = lite::Announce::Active { suffix, hops: [].into(), cost: Cost::UNKNOWN };
                active.encode(VERSION, &mut message);
                self.write(stream, message);
            }
            Some(BidiType::Track) => {
                TrackInfo::default().encode(VERSION, &mut message);
                self.write(stream, message);
                self.conn.finish(stream);
            }
            Some(BidiType::Subscribe) => {
                let subscribe = request.next::<lite::Subscribe>(VERSION).unwrap().expect("a whole request");
                lite::SubscribeResponse::Start { group: 0 }.encode(VERSION, &mut message);
                self.write(stream, message);
                self.wanted = Some(subscribe.id);
            }
            _ => {}
        }
    }
}
