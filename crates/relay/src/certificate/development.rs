//! Certificates made on the spot.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::{Error, Identity};

/// Browsers accept a pinned certificate only when it is valid for at most 14 days in all.
const LIFETIME: Duration = Duration::from_secs(13 * DAY);
/// Clocks of clients on other machines may be behind.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// A certificate this close to its end is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(3 * DAY);
const DAY: u64 = 24 * 3_600;

/// The name of one's own machine, and the addresses it stands for.
const LOCAL: &str = "localhost";
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

/// What a certificate is for that is made for `asked`: who asks for localhost gets its addresses too.
pub(crate) fn names(asked: &[String]) -> Vec<String> {
    let mut all = asked.to_vec();
    if asked.iter().any(|name| name == LOCAL) {
        let more = LOOPBACK.into_iter().filter(|address| !asked.iter().any(|name| name == address));
        all.extend(more.map(str::to_owned));
    }
    all
}

impl Identity {
    /// Makes a self-signed ECDSA P-256 certificate for these names and addresses, valid from `now` for less
    /// than 14 days.
    ///
    /// # Errors
    /// One of them is no name, or the system gives no random bytes.
    pub fn generate(asked: &[String], now: SystemTime) -> Result<Self, Error> {
        let fail = |error: rcgen::Error| Error::Generate(error.to_string());
        let key = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(fail)?;
        let mut params = CertificateParams::new(names(asked)).map_err(fail)?;
        let (not_before, not_after) = (now - BACKDATED, now + LIFETIME);
        params.not_before = not_before.into();
        params.not_after = not_after.into();
        params.distinguished_name = DistinguishedName::new();
        params.distinguished_name.push(DnType::CommonName, "moq-relay development");
        let certificate = params.self_signed(&key).map_err(fail)?;
        Ok(Self {
            chain: vec![certificate.der().clone()],
            key: PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
            not_before,
            not_after,
        })
    }

    /// Whether a certificate that was made here is to be replaced.
    pub(super) fn is_to_be_renewed(&self, now: SystemTime) -> bool {
        now + RENEW_BEFORE >= self.not_after
    }
}
