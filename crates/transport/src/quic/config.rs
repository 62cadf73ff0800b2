//! Configuration shared by all endpoints of a process: keys, TLS, limits.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{hkdf, hmac};
use quinn_proto::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
    crypto::rustls::{NoInitialCipherSuite, QuicClientConfig},
};
use relay_model::{WorkerId, limits};
use rustls::{
    crypto::aws_lc_rs as provider,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::ResolvesServerCert,
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{ServerTls, Version, cid, rate, versions::VersionSet};

/// UDP payload sizes in bytes.
pub mod mtu {
    /// Smallest maximum that every path must support (RFC 9000 §14).
    pub const SMALLEST: u16 = 1_200;
    /// Default upper bound of path MTU discovery: an Ethernet frame over IPv6.
    pub const DEFAULT: u16 = 1_452;
    /// Largest supported size: an Ethernet frame over IPv4.
    pub const LARGEST: u16 = 1_472;
}

/// Ack-eliciting threshold requested from peers that support draft-ietf-quic-ack-frequency: fewer
/// acknowledgements to process, but still several per congestion window.
const ACK_THRESHOLD: u32 = 10;
/// Send window in bytes before [`QuicConnection`](super::QuicConnection) sets its valve: an initial congestion window
/// and the valve's slack.
const FIRST_SEND_WINDOW: u64 = 64 * 1024;

/// Configuration error.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// TLS rejected the certificate, the key or the parameters.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// No TLS 1.3 cipher suite for Initial packets.
    #[error("no cipher suite for initial packets")]
    NoInitialSuite(#[from] NoInitialCipherSuite),
    /// No workers, or more than a connection id can select.
    #[error("worker count must be 1 to {}", limits::WORKERS)]
    Workers,
    /// The idle timeout cannot be expressed in QUIC.
    #[error("idle timeout out of range")]
    Idle,
    /// A datagram size outside the range of [`mtu`], or an initial size above the largest.
    #[error(
        "datagram sizes must be {} to {} bytes, and the initial size at most the largest",
        mtu::SMALLEST,
        mtu::LARGEST
    )]
    Mtu,
    /// [`QuicTuning::versions`] is empty.
    #[error("no protocol version enabled")]
    Versions,
}

/// Congestion controller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// CUBIC (RFC 9438).
    #[default]
    Cubic,
    /// BBR version 1 of the QUIC library, which is experimental.
    Bbr,
    /// NewReno (RFC 9002 §7).
    NewReno,
}

/// Tuning parameters, with defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicTuning {
    /// Idle timeout (RFC 9000 §10.1).
    pub idle: Duration,
    /// Idle time after which a PING is sent; `None` sends none.
    pub keep_alive: Option<Duration>,
    /// Congestion controller.
    pub congestion: Congestion,
    /// Whether UDP segmentation offload (GSO) may be used.
    pub segmentation: bool,
    /// Limit up to which a peer's stream credit grows, per direction; `None` = the limits of [`limits`].
    pub max_streams: Option<u64>,
    /// Datagram size before path MTU discovery, in bytes (see [`mtu`]).
    pub initial_mtu: u16,
    /// Upper bound of path MTU discovery, in bytes; at least `initial_mtu`.
    pub max_mtu: u16,
    /// Whether path MTU discovery is enabled.
    pub mtu_discovery: bool,
    /// Enabled protocol versions, in any order. A raw QUIC client gets the newest version it offers, a
    /// WebTransport client the first it offers. The versions of [`Version::LEGACY`], which share one name, are
    /// all enabled if any of them is listed.
    pub versions: Vec<Version>,
}

impl Default for QuicTuning {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(10),
            keep_alive: Some(Duration::from_secs(5)),
            congestion: Congestion::default(),
            segmentation: true,
            max_streams: None,
            initial_mtu: mtu::SMALLEST,
            max_mtu: mtu::DEFAULT,
            mtu_discovery: true,
            versions: Version::ALL.iter().copied().chain([Version::ANY_LEGACY]).collect(),
        }
    }
}

/// Configuration shared by all endpoints of a process; created once, cheap to clone.
#[derive(Clone)]
pub struct QuicConfig {
    pub(super) server: Arc<ServerConfig>,
    reset_key: Arc<hmac::Key>,
    cid_key: hmac::Key,
    pub(super) workers: u16,
    pub(super) versions: VersionSet,
    pub(super) most: Most,
    protocols: &'static [&'static str],
    segmentation: bool,
}

/// Limits up to which a peer's stream credit grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Most {
    bidi: u64,
    uni: u64,
}

impl Default for Most {
    fn default() -> Self {
        Self { bidi: limits::BIDI_STREAMS_MAX, uni: limits::UNI_STREAMS_MAX }
    }
}

impl Most {
    fn of(tuning: &QuicTuning) -> Self {
        tuning.max_streams.map_or_else(Self::default, |most| Self { bidi: most, uni: most })
    }

    pub(super) fn towards(self, dir: quinn_proto::Dir) -> u64 {
        match dir {
            quinn_proto::Dir::Bi => self.bidi,
            quinn_proto::Dir::Uni => self.uni,
        }
    }
}

impl QuicConfig {
    /// Creates the configuration. `tls` supplies the certificate (a resolver alone suffices). `secret` must be
    /// stable across restarts: stateless reset tokens, Retry tokens and connection id checks are derived from it.
    /// `workers` is the size of the reuseport group.
    pub fn new(
        tls: impl Into<ServerTls>,
        secret: &[u8; 32],
        workers: u16,
        tuning: &QuicTuning,
    ) -> Result<Self, ConfigError> {
        if workers == 0 || usize::from(workers) > limits::WORKERS {
            return Err(ConfigError::Workers);
        }
        let versions = VersionSet::of(&tuning.versions).ok_or(ConfigError::Versions)?;
        let crypto = tls.into().server(versions)?;
        let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, b"relay token").extract(secret);
        let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        server.transport_config(Arc::new(transport(tuning)?));
        Ok(Self {
            server: Arc::new(server),
            reset_key: Arc::new(derive(secret, b"relay reset")),
            cid_key: derive(secret, b"relay connection id"),
            workers,
            versions,
            most: Most::of(tuning),
            // Leaked once per process: connections that negotiate in-band hold the names for their lifetime.
            protocols: versions.names().leak(),
            segmentation: tuning.segmentation,
        })
    }

    /// ALPN names of the enabled protocol versions, newest first.
    pub fn protocols(&self) -> &'static [&'static str] {
        self.protocols
    }

    /// Largest number of datagrams per send, given the socket's maximum `offered`.
    pub fn segments(&self, offered: usize) -> usize {
        if self.segmentation { offered.max(1) } else { 1 }
    }

    /// Creates the endpoint configuration of one worker, whose connection ids select it.
    pub(super) fn endpoint(&self, worker: WorkerId, seed: [u8; 32]) -> EndpointConfig {
        let mut config = EndpointConfig::new(self.reset_key.clone());
        let (key, workers) = (self.cid_key.clone(), self.workers);
        config.cid_generator(move || Box::new(cid::CidGenerator::new(key.clone(), &seed, worker.0, workers)));
        config
    }
}

/// Creates a resolver that always returns this chain.
pub fn certificate(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<dyn ResolvesServerCert>, ConfigError> {
    let certified = CertifiedKey::from_der(chain, key, &provider::default_provider())?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

/// Configuration of outgoing connections.
#[derive(Clone)]
pub struct OutgoingConfig {
    pub(super) inner: quinn_proto::ClientConfig,
}

impl OutgoingConfig {
    /// Creates the configuration. `tls` holds the trusted roots and the ALPN names to offer.
    pub fn new(tls: rustls::ClientConfig, tuning: &QuicTuning) -> Result<Self, ConfigError> {
        let crypto = QuicClientConfig::try_from(tls)?;
        let mut inner = quinn_proto::ClientConfig::new(Arc::new(crypto));
        inner.transport_config(Arc::new(transport(tuning)?));
        Ok(Self { inner })
    }
}

fn derive(secret: &[u8; 32], label: &[u8]) -> hmac::Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), label);
    hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref())
}

fn transport(tuning: &QuicTuning) -> Result<TransportConfig, ConfigError> {
    let (first, largest) = (tuning.initial_mtu, tuning.max_mtu);
    if !(mtu::SMALLEST..=largest).contains(&first) || largest > mtu::LARGEST {
        return Err(ConfigError::Mtu);
    }
    let mut probing = MtuDiscoveryConfig::default();
    probing.upper_bound(largest);
    let most = Most::of(tuning);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(ACK_THRESHOLD.into());
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(varint(limits::BIDI_STREAMS.min(most.bidi)))
        .max_concurrent_uni_streams(varint(limits::UNI_STREAMS.min(most.uni)))
        .receive_window(varint(limits::CONNECTION_WINDOW))
        .stream_receive_window(varint(limits::STREAM_WINDOW))
        .send_window(FIRST_SEND_WINDOW)
        .send_fairness(true)
        .datagram_receive_buffer_size(Some(limits::DATAGRAM_BUFFER))
        .datagram_send_buffer_size(limits::DATAGRAM_QUEUE)
        .initial_mtu(first)
        .mtu_discovery_config(tuning.mtu_discovery.then_some(probing))
        .ack_frequency_config(Some(acks))
        .keep_alive_interval(tuning.keep_alive)
        .max_idle_timeout(Some(IdleTimeout::try_from(tuning.idle).map_err(|_| ConfigError::Idle)?))
        .congestion_controller_factory(rate::factory(tuning.congestion));
    Ok(config)
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Debug output of the QUIC library's configuration for `tuning`.
    fn told(tuning: &QuicTuning) -> String {
        format!("{:?}", transport(tuning).unwrap())
    }

    #[test]
    fn what_is_tuned_reaches_the_library() {
        let tuning = QuicTuning {
            idle: Duration::from_secs(3),
            keep_alive: Some(Duration::from_millis(700)),
            max_streams: Some(20),
            initial_mtu: 1_300,
            max_mtu: 1_400,
            ..QuicTuning::default()
        };
        let told = told(&tuning);
        for part in [
            "max_idle_timeout: Some(3000)",
            "keep_alive_interval: Some(700ms)",
            "max_concurrent_bidi_streams: 20,",
            "max_concurrent_uni_streams: 16,",
            "initial_mtu: 1300",
            "upper_bound: 1400",
        ] {
            assert!(told.contains(part), "{part} in {told}");
        }
    }

    #[test]
    fn what_is_turned_off_is_off() {
        let quiet = told(&QuicTuning { keep_alive: None, mtu_discovery: false, ..QuicTuning::default() });
        assert!(quiet.contains("keep_alive_interval: None"), "{quiet}");
        assert!(quiet.contains("mtu_discovery_config: None"), "{quiet}");
    }

    #[test]
    fn sizes_no_path_could_carry_are_refused() {
        let of =
            |initial_mtu, max_mtu| transport(&QuicTuning { initial_mtu, max_mtu, ..QuicTuning::default() });
        assert!(of(1_200, 1_200).is_ok() && of(1_472, 1_472).is_ok());
        for (first, largest) in [(1_199, 1_452), (1_400, 1_300), (1_200, 1_473)] {
            assert!(matches!(of(first, largest), Err(ConfigError::Mtu)), "{first} {largest}");
        }
    }
}
