//! What all endpoints of a process share: keys, TLS, limits.

use std::{sync::Arc, time::Duration};

use aws_lc_rs::{hkdf, hmac};
use quinn_proto::{
    AckFrequencyConfig, EndpointConfig, IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig,
    VarInt,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use relay_model::{WorkerId, limits};
use rustls::{
    crypto::{CryptoProvider, aws_lc_rs as provider},
    pki_types::{CertificateDer, PrivateKeyDer},
    server::ResolvesServerCert,
    sign::{CertifiedKey, SingleCertAndKey},
};

use super::{H3, Version, cid, rate, versions::Versions};

/// Smallest datagram every path must carry (RFC 9000).
const INITIAL_MTU: u16 = 1_200;
/// Largest datagram tried: an Ethernet frame over IPv6, less 28 bytes for tunnels.
const LARGEST_MTU: u16 = 1_452;
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
    NoInitialSuite,
    /// More workers than a connection id can name, or none.
    #[error("worker count must be 1 to {}", limits::WORKERS)]
    Workers,
    /// A duration QUIC cannot express.
    #[error("idle timeout out of range")]
    Idle,
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
}

/// Knobs with good defaults.
#[derive(Clone, Debug)]
pub struct Tuning {
    /// Silence after which a connection is given up.
    pub idle: Duration,
    /// Pings after so much silence.
    pub keep_alive: Duration,
    /// Who decides how much may be in flight.
    pub congestion: Congestion,
    /// Protocol versions spoken, in any order; a client of raw QUIC gets the newest it offers, one of
    /// WebTransport the first it offers.
    pub versions: Vec<Version>,
}

impl Default for Tuning {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(10),
            keep_alive: Duration::from_secs(5),
            congestion: Congestion::default(),
            versions: Version::ALL.to_vec(),
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
}

impl Config {
    /// `resolver` gives the certificate; `secret` is stable over restarts (reset tokens, retry tokens
    /// and connection-id checks are derived from it); `workers` is the size of the reuseport group.
    pub fn new(
        resolver: Arc<dyn ResolvesServerCert>,
        secret: &[u8; 32],
        workers: u16,
        tuning: &Tuning,
    ) -> Result<Self, ConfigError> {
        if workers == 0 || usize::from(workers) > limits::WORKERS {
            return Err(ConfigError::Workers);
        }
        let versions = Versions::of(&tuning.versions).ok_or(ConfigError::Versions)?;
        let tls = server_tls(resolver, versions)?;
        let crypto = QuicServerConfig::try_from(tls).map_err(|_| ConfigError::NoInitialSuite)?;
        let token_key = hkdf::Salt::new(hkdf::HKDF_SHA256, b"relay token").extract(secret);
        let mut server = ServerConfig::new(Arc::new(crypto), Arc::new(token_key));
        server.transport_config(Arc::new(transport(tuning)?));
        Ok(Self {
            server: Arc::new(server),
            reset_key: Arc::new(derive(secret, b"relay reset")),
            cid_key: derive(secret, b"relay connection id"),
            workers,
            versions,
        })
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
        let crypto = QuicClientConfig::try_from(tls).map_err(|_| ConfigError::NoInitialSuite)?;
        let mut inner = quinn_proto::ClientConfig::new(Arc::new(crypto));
        inner.transport_config(Arc::new(transport(tuning)?));
        Ok(Self { inner })
    }
}

fn derive(secret: &[u8; 32], label: &[u8]) -> hmac::Key {
    let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), label);
    hmac::Key::new(hmac::HMAC_SHA256, tag.as_ref())
}

fn server_tls(
    resolver: Arc<dyn ResolvesServerCert>,
    versions: Versions,
) -> Result<rustls::ServerConfig, ConfigError> {
    // AES-128 first: with hardware AES it costs the least, and a client that lacks it offers ChaCha20.
    let suites = vec![
        provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
        provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
        provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    let provider_ = CryptoProvider { cipher_suites: suites, ..provider::default_provider() };
    let mut tls = rustls::ServerConfig::builder_with_provider(Arc::new(provider_))
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .with_no_client_auth()
        .with_cert_resolver(resolver);
    tls.ignore_client_order = true;
    let names = versions.iter().map(Version::alpn).chain([H3]);
    tls.alpn_protocols = names.map(|name| name.as_bytes().to_vec()).collect();
    tls.max_early_data_size = 0;
    tls.ticketer = provider::Ticketer::new()?;
    Ok(tls)
}

fn transport(tuning: &Tuning) -> Result<TransportConfig, ConfigError> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(LARGEST_MTU);
    let mut acks = AckFrequencyConfig::default();
    acks.ack_eliciting_threshold(ACK_THRESHOLD.into());
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(varint(limits::BIDI_STREAMS))
        .max_concurrent_uni_streams(varint(limits::UNI_STREAMS))
        .receive_window(varint(limits::CONNECTION_WINDOW))
        .stream_receive_window(varint(limits::STREAM_WINDOW))
        .send_window(FIRST_SEND_WINDOW)
        .send_fairness(true)
        .datagram_receive_buffer_size(Some(limits::DATAGRAM_BUFFER))
        .datagram_send_buffer_size(limits::DATAGRAM_QUEUE)
        .initial_mtu(INITIAL_MTU)
        .mtu_discovery_config(Some(mtu))
        .ack_frequency_config(Some(acks))
        .keep_alive_interval(Some(tuning.keep_alive))
        .max_idle_timeout(Some(IdleTimeout::try_from(tuning.idle).map_err(|_| ConfigError::Idle)?))
        .congestion_controller_factory(rate::factory(tuning.congestion));
    Ok(config)
}

fn varint(value: u64) -> VarInt {
    VarInt::from_u64(value).unwrap_or(VarInt::MAX)
}
