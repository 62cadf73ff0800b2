//! What all endpoints of a process share: keys, TLS, limits.

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

use super::{Tls, Version, cid, rate, versions::Versions};

/// Sizes of datagrams, bytes.
pub mod mtu {
    /// What every path must carry (RFC 9000).
    pub const SMALLEST: u16 = 1_200;
    /// What is tried by default: an Ethernet frame over IPv6, less a few bytes for tunnels.
    pub const DEFAULT: u16 = 1_452;
    /// An Ethernet frame over IPv4: what an endpoint takes in at most.
    pub const LARGEST: u16 = 1_472;
}

/// Packets a peer may take in before it must acknowledge (where it knows the extension): fewer
/// acknowledgements to read, still several a congestion window.
const ACK_THRESHOLD: u32 = 10;
/// Send window before the first valve setting: an initial congestion window and the valve's slack.
const FIRST_SEND_WINDOW: u64 = 64 * 1024;

/// Why a configuration cannot work.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// TLS refused the certificate, the key or the parameters.
    #[error("tls: {0}")]
    Tls(#[from] rustls::Error),
    /// No TLS 1.3 suite for QUIC's first packets.
    #[error("no cipher suite for initial packets")]
    NoInitialSuite(#[from] NoInitialCipherSuite),
    /// More workers than a connection id can name, or none.
    #[error("worker count must be 1 to {}", limits::WORKERS)]
    Workers,
    /// A duration QUIC cannot express.
    #[error("idle timeout out of range")]
    Idle,
    /// A size outside of [`mtu`], or a first one above the largest.
    #[error(
        "datagrams must have {} to {} bytes, and start with no more than they may grow to",
        mtu::SMALLEST,
        mtu::LARGEST
    )]
    Mtu,
    /// [`Tuning::versions`] is empty.
    #[error("no protocol version to speak")]
    Versions,
}

/// Congestion controllers on offer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Congestion {
    /// RFC 9438.
    #[default]
    Cubic,
    /// The library's BBR, version 1: weaker than its name.
    Bbr,
    /// RFC 9002's own.
    NewReno,
}

/// Knobs with good defaults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tuning {
    /// Silence after which a connection is given up.
    pub idle: Duration,
    /// Pings after so much silence; `None` sends none.
    pub keep_alive: Option<Duration>,
    /// Who decides how much may be in flight.
    pub congestion: Congestion,
    /// Whether many datagrams may be handed to the system as one.
    pub segmentation: bool,
    /// Where growth of the streams a peer may open stops, in each direction; `None` = that of
    /// [`limits`].
    pub max_streams: Option<u64>,
    /// Largest datagram before the path was probed, bytes (see [`mtu`]).
    pub initial_mtu: u16,
    /// Largest datagram probed for, bytes; no less than the first.
    pub max_mtu: u16,
    /// Whether the path is probed for larger datagrams at all.
    pub mtu_discovery: bool,
    /// Protocol versions spoken, in any order; a client of raw QUIC gets the newest it offers, one of
    /// WebTransport the first it offers.
    /// Those that have one name together ([`Version::LEGACY`]) are spoken if any of them is here.
    pub versions: Vec<Version>,
}

impl Default for Tuning {
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
            versions: Version::ALL.iter().copied().chain([Version::V02]).collect(),
        }
    }
}

/// Shared by all endpoints of a process; made once. Cheap to clone.
#[derive(Clone)]
pub struct Config {
    pub(super) server: Arc<ServerConfig>,
    reset_key: Arc<hmac::Key>,
    cid_key: hmac::Key,
    pub(super) workers: u16,
    pub(super) versions: Versions,
    pub(super) most: Most,
    protocols: &'static [&'static str],
    segmentation: bool,
}

/// Where growth of the streams a peer may open stops.
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
    fn of(tuning: &Tuning) -> Self {
        tuning.max_streams.map_or_else(Self::default, |most| Self { bidi: most, uni: most })
    }

    pub(super) fn towards(self, dir: quinn_proto::Dir) -> u64 {
        match dir {
            quinn_proto::Dir::Bi => self.bidi,
            quinn_proto::Dir::Uni => self.uni,
        }
    }
}

impl Config {
    /// `tls` gives the certificate (a resolver alone will do); `secret` is stable over restarts (reset tokens,
    /// retry tokens and connection-id checks are derived from it); `workers` is the size of the reuseport group.
    pub fn new(
        tls: impl Into<Tls>,
        secret: &[u8; 32],
        workers: u16,
        tuning: &Tuning,
    ) -> Result<Self, ConfigError> {
        if workers == 0 || usize::from(workers) > limits::WORKERS {
            return Err(ConfigError::Workers);
        }
        let versions = Versions::of(&tuning.versions).ok_or(ConfigError::Versions)?;
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
            // Made once a process, and small: whoever agrees on one in-band holds it as long as it lives.
            protocols: versions.names().leak(),
            segmentation: tuning.segmentation,
        })
    }

    /// The protocol versions spoken, newest first, as ALPN names them.
    pub fn protocols(&self) -> &'static [&'static str] {
        self.protocols
    }

    /// Most datagrams handed over as one, of `offered` by the socket.
    pub fn segments(&self, offered: usize) -> usize {
        if self.segmentation { offered.max(1) } else { 1 }
    }

    /// The endpoint configuration of one worker, whose connection ids name it.
    pub(super) fn endpoint(&self, worker: WorkerId, seed: [u8; 32]) -> EndpointConfig {
        let mut config = EndpointConfig::new(self.reset_key.clone());
        let (key, workers) = (self.cid_key.clone(), self.workers);
        config.cid_generator(move || Box::new(cid::Generator::new(key.clone(), &seed, worker.0, workers)));
        config
    }
}

/// A resolver that always gives this chain.
pub fn certificate(
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
) -> Result<Arc<dyn ResolvesServerCert>, ConfigError> {
    let certified = CertifiedKey::from_der(chain, key, &provider::default_provider())?;
    Ok(Arc::new(SingleCertAndKey::from(certified)))
}

/// For outgoing connections.
#[derive(Clone)]
pub struct ClientConfig {
    pub(super) inner: quinn_proto::ClientConfig,
}

impl ClientConfig {
    /// `tls` says whom to trust and which ALPN to offer; the rest is as for the server.
    pub fn new(tls: rustls::ClientConfig, tuning: &Tuning) -> Result<Self, ConfigError> {
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

fn transport(tuning: &Tuning) -> Result<TransportConfig, ConfigError> {
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

    /// What the library was told, as it shows it.
    fn told(tuning: &Tuning) -> String {
        format!("{:?}", transport(tuning).unwrap())
    }

    #[test]
    fn what_is_tuned_reaches_the_library() {
        let tuning = Tuning {
            idle: Duration::from_secs(3),
            keep_alive: Some(Duration::from_millis(700)),
            max_streams: Some(20),
            initial_mtu: 1_300,
            max_mtu: 1_400,
            ..Tuning::default()
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
        let quiet = told(&Tuning { keep_alive: None, mtu_discovery: false, ..Tuning::default() });
        assert!(quiet.contains("keep_alive_interval: None"), "{quiet}");
        assert!(quiet.contains("mtu_discovery_config: None"), "{quiet}");
    }

    #[test]
    fn sizes_no_path_could_carry_are_refused() {
        let of = |initial_mtu, max_mtu| transport(&Tuning { initial_mtu, max_mtu, ..Tuning::default() });
        assert!(of(1_200, 1_200).is_ok() && of(1_472, 1_472).is_ok());
        for (first, largest) in [(1_199, 1_452), (1_400, 1_300), (1_200, 1_473)] {
            assert!(matches!(of(first, largest), Err(ConfigError::Mtu)), "{first} {largest}");
        }
    }
}
