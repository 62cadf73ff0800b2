//! TLS over TCP.

use std::sync::Arc;

use relay_transport::quic::Clients;
use rustls::{
    ServerConfig,
    crypto::aws_lc_rs::default_provider,
    server::{NoServerSessionStorage, ResolvesServerCert},
};

/// Returns the fingerprint of the QUIC certificate in hexadecimal, where clients need one.
pub type FingerprintSource = Arc<dyn Fn() -> Option<String> + Send + Sync>;

/// Builds a configuration with TLS 1.3, and 1.2 for clients and load balancers without it, and the certificates of
/// `resolver`. Clients may present a certificate if `clients` verifies them. `protocols` are the ALPN names; empty:
/// ALPN is ignored.
///
/// For TLS 1.2 the library has suites with ephemeral keys and authenticated encryption only (ECDHE with AES-GCM or
/// ChaCha20-Poly1305), and neither renegotiation nor compression.
///
/// # Errors
/// The crypto provider does not support these protocol versions.
pub fn server(
    resolver: Arc<dyn ResolvesServerCert>,
    clients: Option<Arc<Clients>>,
    protocols: &[&str],
) -> Result<Arc<ServerConfig>, rustls::Error> {
    let builder = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])?;
    let asks = clients.is_some();
    let mut tls = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => builder.with_client_cert_verifier(clients),
    }
    .with_cert_resolver(resolver);
    tls.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
    tls.max_early_data_size = 0;
    if asks {
        // A resumed session would keep a certificate that a removed authority issued: each handshake verifies anew.
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
    }
    Ok(Arc::new(tls))
}
