//! Session ticket keys (RFC 8446 §4.6.1), renewed when the certificate changes.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use quinn_proto::{
    ConnectionId,
    crypto::{
        self, Keys, UnsupportedVersion,
        rustls::{NoInitialCipherSuite, QuicServerConfig},
    },
    transport_parameters::TransportParameters,
};
use rustls::{ServerConfig, crypto::aws_lc_rs::Ticketer, server::ProducesTickets};

/// Session ticket keys. After [`Tickets::renew`] older tickets are rejected, so that every client's next
/// handshake is a full one with the current certificate.
#[derive(Default)]
pub struct Tickets {
    /// `None` before the first renewal: no tickets.
    current: RwLock<Option<Keyring>>,
}

type Keyring = Arc<dyn ProducesTickets>;

impl Tickets {
    /// Draws new keys, to be called after the certificate changed. Tickets of handshakes that began before are
    /// rejected, even if they are issued later.
    ///
    /// # Errors
    /// The system provides no random bytes; the previous keys stay in use.
    pub fn renew(&self) -> Result<(), rustls::Error> {
        let next = Ticketer::new()?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(())
    }

    /// Returns the current keys.
    pub fn current(&self) -> Option<Arc<dyn ProducesTickets>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

/// TLS configuration that gives each handshake the ticket keys current at its start. With the keys current at
/// its end, a handshake during a certificate change would issue a ticket valid under the new keys to a client
/// that has seen only the old certificate.
pub(in crate::quic) struct TicketedConfig {
    tls: ServerConfig,
    tickets: Arc<Tickets>,
    current: RwLock<Current>,
}

#[derive(Clone)]
struct Current {
    keyring: Option<Keyring>,
    quic: Arc<QuicServerConfig>,
}

impl Current {
    fn new(mut tls: ServerConfig, keyring: Option<Keyring>) -> Result<Self, NoInitialCipherSuite> {
        if let Some(keyring) = &keyring {
            tls.ticketer = keyring.clone();
        }
        Ok(Self { keyring, quic: Arc::new(QuicServerConfig::try_from(tls)?) })
    }

    fn is_of(&self, keyring: Option<&Keyring>) -> bool {
        match (&self.keyring, keyring) {
            (Some(ours), Some(theirs)) => Arc::ptr_eq(ours, theirs),
            (ours, theirs) => ours.is_none() && theirs.is_none(),
        }
    }
}

impl TicketedConfig {
    /// Creates the configuration from `tls`, with the keys of `tickets` once there are any.
    pub(super) fn new(tls: ServerConfig, tickets: Arc<Tickets>) -> Result<Self, NoInitialCipherSuite> {
        let current = RwLock::new(Current::new(tls.clone(), tickets.current())?);
        Ok(Self { tls, tickets, current })
    }

    fn current(&self) -> Arc<QuicServerConfig> {
        let keyring = self.tickets.current();
        let known = self.current.read().unwrap_or_else(PoisonError::into_inner).clone();
        if known.is_of(keyring.as_ref()) {
            return known.quic;
        }
        // Cannot fail: the same conversion succeeded in `new`.
        let Ok(next) = Current::new(self.tls.clone(), keyring) else { return known.quic };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
        next.quic
    }
}

impl crypto::ServerConfig for TicketedConfig {
    fn initial_keys(&self, version: u32, dst_cid: &ConnectionId) -> Result<Keys, UnsupportedVersion> {
        self.current().initial_keys(version, dst_cid)
    }

    fn retry_tag(&self, version: u32, orig_dst_cid: &ConnectionId, packet: &[u8]) -> [u8; 16] {
        self.current().retry_tag(version, orig_dst_cid, packet)
    }

    fn start_session(
        self: Arc<Self>,
        version: u32,
        params: &TransportParameters,
    ) -> Box<dyn crypto::Session> {
        self.current().start_session(version, params)
    }
}
