//! Certificates made on the spot, and their renewal while the relay runs.

use std::{
    fmt,
    sync::{Arc, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::{
    pki_types::PrivatePkcs8KeyDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::{Error, Fingerprint, Identity};

/// Browsers accept a pinned certificate only when it is valid for at most 14 days in all.
const LIFETIME: Duration = Duration::from_secs(13 * DAY);
/// Clocks of clients on other machines may be behind.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// A certificate this close to its end is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(3 * DAY);
const DAY: u64 = 24 * 3_600;

/// The names and addresses of one's own machine.
const NAMES: [&str; 3] = ["localhost", "127.0.0.1", "::1"];

impl Identity {
    /// Makes a self-signed ECDSA P-256 certificate for one's own machine, valid from `now` for
    /// less than 14 days.
    pub fn generate(now: SystemTime) -> Result<Self, Error> {
        let fail = |error: rcgen::Error| Error::Generate(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
        let mut params = CertificateParams::new(NAMES.map(str::to_owned)).map_err(fail)?;
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + LIFETIME).into();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "moq-relay development");
        let certificate = params.self_signed(&key).map_err(fail)?;
        Ok(Self {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            not_after: now + LIFETIME,
        })
    }
}

/// A generated certificate that is replaced before it ends.
pub struct Renewing {
    current: RwLock<Current>,
}

struct Current {
    certified: Arc<CertifiedKey>,
    not_after: SystemTime,
}

impl Renewing {
    /// Shows `identity` until it is renewed.
    ///
    /// # Errors
    /// The identity cannot sign.
    pub fn new(identity: &Identity) -> Result<Self, rustls::Error> {
        Ok(Self { current: RwLock::new(Current::of(identity)?) })
    }

    /// Replaces the certificate when it nears its end at `now`. Returns the new one's fingerprint.
    pub fn renew(&self, now: SystemTime) -> Result<Option<Fingerprint>, Error> {
        if now + RENEW_BEFORE < self.read(|current| current.not_after) {
            return Ok(None);
        }
        let identity = Identity::generate(now)?;
        let next = Current::of(&identity).map_err(|error| Error::Generate(error.to_string()))?;
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(Some(identity.fingerprint()))
    }

    fn read<T>(&self, get: impl FnOnce(&Current) -> T) -> T {
        get(&self.current.read().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Current {
    fn of(identity: &Identity) -> Result<Self, rustls::Error> {
        Ok(Self { certified: identity.certified()?, not_after: identity.not_after() })
    }
}

impl ResolvesServerCert for Renewing {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.read(|current| current.certified.clone()))
    }
}

impl fmt::Debug for Renewing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Renewing").finish_non_exhaustive()
    }
}
