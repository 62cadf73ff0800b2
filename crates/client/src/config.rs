//! Everything a caller may turn, from credentials to a starved receive window.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use relay_model::Hop;
use relay_wire::lite;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Which server certificates are believed.
#[derive(Clone, Debug, Default)]
pub enum Certs {
    /// Any. For tests and load on machines of one's own.
    #[default]
    Any,
    /// Only a leaf whose DER has one of these SHA-256 fingerprints.
    Pinned(Vec<[u8; 32]>),
    /// What chains up to one of these certificates (DER), is for the host dialled and in its time.
    Roots(Vec<CertificateDer<'static>>),
}

/// A certificate of the client's own, shown to a server that asks for one. `Debug` leaves the key out.
#[derive(Clone)]
pub struct Identity {
    /// The certificate, then those between it and the authority (DER).
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
}

impl Identity {
    /// `chain` begins with the client's own certificate; `key` is the key of that.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key: Arc::new(key) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Turns a bound socket into what quinn reads and writes; the default is quinn's own for tokio.
pub type SocketFactory =
    Arc<dyn Fn(std::net::UdpSocket) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> + Send + Sync>;

/// How to connect.
#[derive(Clone)]
pub struct ClientConfig {
    /// Which server certificates are believed.
    pub certs: Certs,
    /// What is shown to a server that asks who we are; default: nothing.
    pub identity: Option<Identity>,
    /// Local address; default: any port on the remote's address family.
    pub bind: Option<SocketAddr>,
    /// The one protocol version offered.
    pub version: lite::Version,
    /// Our hop id: in SETUP and ANNOUNCE_OK, before them at the end of announced chains. Default: random.
    /// Keep it to come back as the same publisher.
    pub hop: Hop,
    /// Routes through this hop are not announced to us (moq-lite-04 and 05; later, the hop id of SETUP
    /// says so). Default: none.
    pub exclude_hop: Hop,
    /// The role in SETUP, which moq-lite-03 and 04 do not have; default: both.
    pub role: Option<lite::Role>,
    /// The egress price in SETUP; default: not sent.
    pub cost: Option<u64>,
    /// QUIC transport settings.
    pub tuning: Tuning,
    /// Kernel receive buffer of the socket, bytes; default: the system's.
    pub socket_receive_buffer: Option<usize>,
    /// Replaces quinn's socket.
    pub socket: Option<SocketFactory>,
    /// No SETUP is sent and no stream of the peer is answered: everything is left to [`crate::Raw`].
    pub manual: bool,
    /// How long handshake and session establishment may take.
    pub connect_timeout: Duration,
}

impl Default for ClientConfig {
    fn default() -> Self {
        Self {
            certs: Certs::Any,
            identity: None,
            bind: None,
            version: lite::Version::V05,
            hop: random_hop(),
            exclude_hop: Hop::ANONYMOUS,
            role: None,
            cost: None,
            tuning: Tuning::default(),
            socket_receive_buffer: None,
            socket: None,
            manual: false,
            connect_timeout: Duration::from_secs(10),
        }
    }
}

/// What we ask the peer's acknowledgements to be like (QUIC ACK frequency).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckFrequency {
    /// Ack-eliciting packets the peer may receive before it acknowledges.
    pub threshold: u32,
    /// How long it may wait; `None` = its own default.
    pub max_delay: Option<Duration>,
}

/// QUIC transport settings. The defaults are those of an ordinary viewer.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Unidirectional streams the peer may have open: 0 makes a reader without stream credit.
    /// On WebTransport the peer needs three for HTTP/3 itself.
    pub uni_streams: u32,
    /// Bidirectional streams the peer may have open.
    pub bidi_streams: u32,
    /// Receive window of one stream, bytes.
    pub stream_window: u32,
    /// Receive window of the connection, bytes.
    pub connection_window: u32,
    /// Bytes we may have in flight unacknowledged.
    pub send_window: u64,
    /// The connection dies after this long without a packet.
    pub idle: Duration,
    /// How often a packet is sent on a quiet connection; `None` = never.
    pub keep_alive: Option<Duration>,
    /// Asked of the peer; `None` = not asked.
    pub ack_frequency: Option<AckFrequency>,
    /// Size of the first packets, bytes.
    pub initial_mtu: u16,
    /// Whether larger packets are tried.
    pub mtu_discovery: bool,
    /// Buffer for received datagrams, bytes; `None` = datagrams not offered.
    pub datagram_buffer: Option<usize>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            uni_streams: 256,
            bidi_streams: 256,
            stream_window: 2 * 1024 * 1024,
            connection_window: 16 * 1024 * 1024,
            send_window: 16 * 1024 * 1024,
            idle: Duration::from_secs(10),
            keep_alive: Some(Duration::from_secs(3)),
            ack_frequency: None,
            initial_mtu: 1200,
            mtu_discovery: true,
            datagram_buffer: Some(1024 * 1024),
        }
    }
}

impl Tuning {
    pub(crate) fn to_quinn(self) -> quinn::TransportConfig {
        let mut out = quinn::TransportConfig::default();
        out.max_concurrent_uni_streams(self.uni_streams.into())
            .max_concurrent_bidi_streams(self.bidi_streams.into())
            .stream_receive_window(self.stream_window.into())
            .receive_window(self.connection_window.into())
            .send_window(self.send_window)
            .max_idle_timeout(quinn::IdleTimeout::try_from(self.idle).ok())
            .keep_alive_interval(self.keep_alive)
            .initial_mtu(self.initial_mtu)
            .datagram_receive_buffer_size(self.datagram_buffer);
        if !self.mtu_discovery {
            out.mtu_discovery_config(None);
        }
        if let Some(ask) = self.ack_frequency {
            let mut frequency = quinn::AckFrequencyConfig::default();
            frequency.ack_eliciting_threshold(ask.threshold.into()).max_ack_delay(ask.max_delay);
            out.ack_frequency_config(Some(frequency));
        }
        out
    }
}

/// Below 2^53, so that JavaScript peers can hold it, and never 0, which means anonymous.
fn random_hop() -> Hop {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    Hop((random >> 11) | 1)
}
