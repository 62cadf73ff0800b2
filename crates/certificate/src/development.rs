//! Self-signed certificates for development.

use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, PKCS_ECDSA_P256_SHA256};
use rustls::pki_types::PrivatePkcs8KeyDer;

use super::{CertificateLoadError, Identity};

/// Validity from the moment of creation. Browsers accept a pinned certificate only with a period of at most 14 days.
const LIFETIME: Duration = Duration::from_secs(13 * DAY);
/// Time by which `notBefore` precedes the creation, for clients whose clocks are behind.
const BACKDATED: Duration = Duration::from_secs(3_600);
/// Remaining validity at which a certificate is replaced.
const RENEW_BEFORE: Duration = Duration::from_secs(3 * DAY);
const DAY: u64 = 24 * 3_600;

/// Host name of the local machine, whose addresses are [`LOOPBACK`].
const LOCAL: &str = "localhost";
const LOOPBACK: [&str; 2] = ["127.0.0.1", "::1"];

/// Names of a certificate generated for `asked`: with `localhost`, the loopback addresses are added.
pub fn names(asked: &[String]) -> Vec<String> {
    let mut all = asked.to_vec();
    if asked.iter().any(|name| name == LOCAL) {
        let more = LOOPBACK.into_iter().filter(|address| !asked.iter().any(|name| name == address));
        all.extend(more.map(str::to_owned));
    }
    all
}

impl Identity {
    /// Generates a self-signed ECDSA P-256 certificate for these names and addresses, valid from `now` for less
    /// than 14 days.
    ///
    /// # Errors
    /// A name is invalid, or the system provides no random bytes.
    pub fn generate(asked: &[String], now: SystemTime) -> Result<Self, CertificateLoadError> {
        let fail = |error: rcgen::Error| CertificateLoadError::Generate(error.to_string());
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

    /// Whether a generated certificate is due for replacement.
    pub(super) fn is_to_be_renewed(&self, now: SystemTime) -> bool {
        now + RENEW_BEFORE >= self.not_after
    }
}
