//! What makes a session resumable, until the certificate changes.

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

/// Keys of session tickets. After [`Tickets::renew`] no older ticket is taken: the next handshake of everybody
/// is a whole one, and shows the certificate of now.
#[derive(Default)]
pub struct Tickets {
    /// `None` before the first time: no tickets.
    current: RwLock<Option<Keyring>>,
}

type Keyring = Arc<dyn ProducesTickets>;

impl Tickets {
    /// Draws new keys, once another certificate is shown: a ticket of a handshake that began before is worth
    /// nothing from now on, also one that is handed out later.
    ///
    /// # Errors
    /// The system gives no random bytes; what was, stays.
    pub fn renew(&self) -> Result<(), rustls::Error> {
        let next = Ticketer::new()?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(())
    }

    /// The keys of now.
    pub fn current(&self) -> Option<Arc<dyn ProducesTickets>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}

/// Starts handshakes, each with the ticket keys of its beginning to its end. Were they those of its end, a
/// handshake that a new certificate overtakes would get a ticket that lasts as long as that one, and a client
/// that still goes by the old one.
pub(in crate::quic) struct Handshakes {
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

impl Handshakes {
    /// By `tls`, with tickets of `tickets` as soon as there are any.
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
        // It was possible before.
        let Ok(next) = Current::new(self.tls.clone(), keyring) else { return known.quic };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next.clone();
        next.quic
    }
}

impl crypto::ServerConfig for Handshakes {
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
