//! Configuration of a client, from credentials to a tiny receive window.

use std::{fmt, io, net::SocketAddr, sync::Arc, time::Duration};

use relay_model::Hop;
use relay_wire::lite;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// Server certificates that are trusted.
#[derive(Clone, Debug, Default)]
pub enum Certs {
    /// Any certificate. For tests and load on local machines.
    #[default]
    Any,
    /// A leaf whose DER has one of these SHA-256 fingerprints.
    Pinned(Vec<[u8; 32]>),
    /// A certificate that chains up to one of these (DER), matches the host and is in its validity period.
    Roots(Vec<CertificateDer<'static>>),
}

/// Client certificate, sent to servers that request one. `Debug` leaves the key out.
#[derive(Clone)]
pub struct ClientIdentity {
    /// The certificate, then its intermediates (DER).
    pub(crate) chain: Vec<CertificateDer<'static>>,
    pub(crate) key: Arc<PrivateKeyDer<'static>>,
}

impl ClientIdentity {
    /// Creates an identity; `chain` begins with the client's certificate, whose key is `key`.
    pub fn new(chain: Vec<CertificateDer<'static>>, key: PrivateKeyDer<'static>) -> Self {
        Self { chain, key: Arc::new(key) }
    }
}

impl fmt::Debug for ClientIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("certificates", &self.chain.len()).finish_non_exhaustive()
    }
}

/// Wraps a bound socket for quinn; the default is quinn's own wrapper for tokio.
pub type SocketFactory =
    Arc<dyn Fn(std::net::UdpSocket) -> io::Result<Arc<dyn quinn::AsyncUdpSocket>> + Send + Sync>;

/// Connection settings.
#[derive(Clone)]
pub struct ClientConfig {
    /// Server certificates that are trusted.
    pub certs: Certs,
    /// Client certificate; default: none.
    pub identity: Option<ClientIdentity>,
    /// Local address; default: any port on the remote's address family.
    pub bind: Option<SocketAddr>,
    /// The one protocol version offered.
    pub version: lite::Version,
    /// Hop id of this client: in SETUP and ANNOUNCE_OK, before them at the end of announced chains. Default: random.
    /// Keep it across sessions to remain the same publisher.
    pub hop: Hop,
    /// Routes through this hop are not announced to us (moq-lite-04 and 05; in later versions the hop id in SETUP has
    /// this effect). Default: none.
    pub exclude_hop: Hop,
    /// Role in SETUP, which moq-lite-03 and 04 do not have; default: both.
    pub role: Option<lite::Role>,
    /// Egress cost in SETUP; default: not sent.
    pub cost: Option<u64>,
    /// QUIC transport settings.
    pub tuning: Tuning,
    /// Kernel receive buffer of the socket, bytes; default: the system's.
    pub socket_receive_buffer: Option<usize>,
    /// Replaces quinn's socket.
    pub socket: Option<SocketFactory>,
    /// Manual mode: no SETUP is sent and no stream of the peer is answered; [`crate::Raw`] has access to everything.
    pub manual: bool,
    /// Time limit of handshake and session setup.
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

/// Requested acknowledgement frequency of the peer (QUIC ACK frequency).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AckFrequency {
    /// Ack-eliciting packets the peer may receive before it acknowledges.
    pub threshold: u32,
    /// Time for which the peer may delay an acknowledgement; `None` = its default.
    pub max_delay: Option<Duration>,
}

/// QUIC transport settings. The defaults are those of a typical viewer.
#[derive(Clone, Copy, Debug)]
pub struct Tuning {
    /// Unidirectional streams the peer may have open: 0 leaves it without stream credit. On WebTransport the peer needs
    /// three for HTTP/3 itself.
    pub uni_streams: u32,
    /// Bidirectional streams the peer may have open.
    pub bidi_streams: u32,
    /// Receive window of one stream, bytes.
    pub stream_window: u32,
    /// Receive window of the connection, bytes.
    pub connection_window: u32,
    /// Unacknowledged bytes that may be in flight to the peer.
    pub send_window: u64,
    /// Idle timeout of the connection.
    pub idle: Duration,
    /// Interval of keep-alive packets on an idle connection; `None` = never.
    pub keep_alive: Option<Duration>,
    /// Acknowledgement frequency requested from the peer; `None` = not requested.
    pub ack_frequency: Option<AckFrequency>,
    /// Size of the first packets, bytes.
    pub initial_mtu: u16,
    /// Whether path MTU discovery is enabled.
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

/// Random hop id below 2^53, so that JavaScript peers can hold it, and never 0, which means anonymous.
fn random_hop() -> Hop {
    use std::hash::{BuildHasher, Hasher};
    let random = std::collections::hash_map::RandomState::new().build_hasher().finish();
    Hop((random >> 11) | 1)
}
