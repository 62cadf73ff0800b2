//! Keys and certificates of a run.

use std::{sync::Arc, time::Duration};

use anyhow::Result;
use relay_transport::quic::{ALPN, ClientConfig, Config, Tuning, certificate};
use rustls_pki_types::PrivatePkcs8KeyDer;

/// What QUIC keys are derived from.
const SECRET: [u8; 32] = [3; 32];
/// The name on the certificate.
pub(crate) const NAME: &str = "localhost";

/// QUIC as the relay and as its clients are configured.
pub(crate) struct Identity {
    pub(crate) server: Config,
    pub(crate) client: ClientConfig,
}

impl Identity {
    /// Makes a certificate and trusts it.
    pub(crate) fn generate() -> Result<Self> {
        let made = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
        let key = PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
        let resolver = certificate(vec![made.cert.der().clone()], key.into())?;
        let server = Config::new(resolver, &SECRET, 1, &Tuning::default())?;

        let mut roots = rustls::RootCertStore::empty();
        roots.add(made.cert.der().clone())?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        tls.alpn_protocols = vec![ALPN[0].as_bytes().to_vec()];
        // The relay keeps a quiet connection alive; a client need not.
        let tuning = Tuning { keep_alive: Duration::from_secs(60), ..Tuning::default() };
        Ok(Self { server, client: ClientConfig::new(tls, &tuning)? })
    }
}
