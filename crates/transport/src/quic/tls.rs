//! TLS of the server: certificate, client authentication and session tickets, all replaceable at run time.

mod clients;
mod peer;
mod tickets;

use std::sync::Arc;

use rustls::{
    crypto::{CryptoProvider, aws_lc_rs as provider},
    server::{NoServerSessionStorage, ResolvesServerCert},
};

use super::{ConfigError, H3, versions::VersionSet};

pub use clients::{Clients, RootsError};
pub use peer::PeerCertificate;
pub(super) use tickets::TicketedConfig;
pub use tickets::Tickets;

/// TLS settings of the server. Cheap to clone; clones share their state.
#[derive(Clone, Debug)]
pub struct ServerTls {
    /// Resolver of the certificate.
    pub resolver: Arc<dyn ResolvesServerCert>,
    /// Verifier of client certificates; `None` requests none.
    pub clients: Option<Arc<Clients>>,
    /// Ticket keys, to be renewed with the certificate, since a resumed session does not receive it.
    pub tickets: Arc<Tickets>,
}

impl From<Arc<dyn ResolvesServerCert>> for ServerTls {
    fn from(resolver: Arc<dyn ResolvesServerCert>) -> Self {
        Self { resolver, clients: None, tickets: Arc::default() }
    }
}

impl ServerTls {
    /// Creates the TLS 1.3 configuration for the ALPN names of `versions`.
    pub(super) fn server(self, versions: VersionSet) -> Result<TicketedConfig, ConfigError> {
        // AES-128 first: the cheapest with hardware AES, and clients without it offer ChaCha20.
        let suites = vec![
            provider::cipher_suite::TLS13_AES_128_GCM_SHA256,
            provider::cipher_suite::TLS13_AES_256_GCM_SHA384,
            provider::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
        ];
        let provider_ = CryptoProvider { cipher_suites: suites, ..provider::default_provider() };
        let builder = rustls::ServerConfig::builder_with_provider(Arc::new(provider_))
            .with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut tls = match &self.clients {
            None => builder.with_no_client_auth(),
            Some(clients) => builder.with_client_cert_verifier(clients.clone()),
        }
        .with_cert_resolver(self.resolver);
        tls.ignore_client_order = true;
        let names = versions.names().into_iter().chain([H3]);
        tls.alpn_protocols = names.map(|name| name.as_bytes().to_vec()).collect();
        tls.max_early_data_size = 0;
        if self.clients.is_some() {
            // A resumed session would keep a certificate that an old root verified: no resumption.
            tls.send_tls13_tickets = 0;
            tls.session_storage = Arc::new(NoServerSessionStorage {});
            return Ok(TicketedConfig::new(tls, Arc::default())?);
        }
        self.tickets.renew()?;
        Ok(TicketedConfig::new(tls, self.tickets)?)
    }
}
