//! Keys and certificates of a run.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use relay_transport::quic::{OutgoingConfig, QuicConfig, QuicTuning, certificate};
use rustls_pki_types::PrivatePkcs8KeyDer;

/// Secret from which QUIC keys are derived.
const SECRET: [u8; 32] = [3; 32];
/// Name on the certificate.
pub(crate) const NAME: &str = "localhost";

/// QUIC configuration of the relay and of its clients.
pub(crate) struct BenchIdentity {
    pub(crate) server: QuicConfig,
    pub(crate) client: OutgoingConfig,
}

impl BenchIdentity {
    /// Generates a certificate that the clients trust.
    pub(crate) fn generate() -> Result<Self> {
        // Signatures of fixed length, so that handshakes have equal sizes in every run.
        let key = KeyPair::generate_for(&PKCS_ED25519)?;
        let signed = CertificateParams::new(vec![NAME.to_owned()])?.self_signed(&key)?;
        let private = PrivatePkcs8KeyDer::from(key.serialize_der());
        let resolver = certificate(vec![signed.der().clone()], private.into())?;
        let server = QuicConfig::new(resolver, &SECRET, 1, &QuicTuning::default())?;

        let mut roots = rustls::RootCertStore::empty();
        roots.add(signed.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![relay_wire::lite::Version::V05.alpn().as_bytes().to_vec()];
        // The relay keeps idle connections alive; the clients need not.
        let tuning = QuicTuning { keep_alive: Some(Duration::from_secs(60)), ..QuicTuning::default() };
        Ok(Self { server, client: OutgoingConfig::new(tls, &tuning)? })
    }
}
