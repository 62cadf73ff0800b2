//! What makes a session resumable, until the certificate changes.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{crypto::aws_lc_rs::Ticketer, server::ProducesTickets};

/// Keys of session tickets. After [`Tickets::renew`] no older ticket is taken: the next handshake of everybody
/// is a whole one, and shows the certificate of now.
#[derive(Default)]
pub struct Tickets {
    /// `None` before the first time: no tickets.
    current: RwLock<Option<Arc<dyn ProducesTickets>>>,
}

impl Tickets {
    /// Draws new keys; a ticket of before is worth nothing from now on.
    ///
    /// # Errors
    /// The system gives no random bytes; what was, stays.
    pub fn renew(&self) -> Result<(), rustls::Error> {
        let next = Ticketer::new()?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Some(next);
        Ok(())
    }

    fn current(&self) -> Option<Arc<dyn ProducesTickets>> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl ProducesTickets for Tickets {
    fn enabled(&self) -> bool {
        self.current().is_some()
    }

    fn lifetime(&self) -> u32 {
        self.current().map_or(0, |current| current.lifetime())
    }

    fn encrypt(&self, plain: &[u8]) -> Option<Vec<u8>> {
        self.current()?.encrypt(plain)
    }

    fn decrypt(&self, cipher: &[u8]) -> Option<Vec<u8>> {
        self.current()?.decrypt(cipher)
    }
}

impl fmt::Debug for Tickets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tickets").finish_non_exhaustive()
    }
}
