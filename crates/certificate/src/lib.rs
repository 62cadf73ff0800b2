//! Server certificates, loaded from PEM files and reloaded on change or generated for development, and the
//! authorities for client certificates.

mod countdown;
mod development;
mod error;
mod events;
mod names;
mod pem;
mod poll;
mod store;
mod warning;
mod watched;
mod watcher;

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
    path::Path,
    sync::Arc,
    time::{Duration, SystemTime},
};

use aws_lc_rs::{digest, hkdf};
use rustls::{
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivateKeyDer},
    sign::CertifiedKey,
};
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

pub use development::names as made_for;
pub use error::CertificateLoadError;
pub use events::CertificateEvent;
pub use poll::authorities;
pub use store::CertificateStore;
pub use warning::ending;
pub use warning::warnings;
pub use watcher::Watcher;

/// A certificate chain, leaf first, with the private key of its leaf.
pub struct Identity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
    not_before: SystemTime,
    not_after: SystemTime,
}

/// SHA-256 of a leaf certificate: what a browser pins in `serverCertificateHashes`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// Hashes a certificate (DER).
    pub fn of(certificate: &[u8]) -> Self {
        let mut out = [0; 32];
        out.copy_from_slice(digest::digest(&digest::SHA256, certificate).as_ref());
        Self(out)
    }

    /// The hash itself.
    pub fn bytes(self) -> [u8; 32] {
        self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Identity {
    /// Reads the chain in `cert` and the key in `key` (PEM), and checks that they belong together. They may be
    /// expired or not valid yet: see [`Self::valid_at`].
    pub fn load(cert: &Path, key: &Path) -> Result<Self, CertificateLoadError> {
        Self::of(cert, &pem::read(cert)?, key, &pem::read(key)?)
    }

    /// Parses a chain and a key from file contents; the paths are for errors.
    fn of(cert: &Path, cert_text: &[u8], key: &Path, key_text: &[u8]) -> Result<Self, CertificateLoadError> {
        let chain = pem::certificates(cert, cert_text)?;
        let private = pem::private_key(key, key_text)?;
        let validity = validity(&chain, cert)?;
        let identity = Self { chain, key: private, not_before: validity.0, not_after: validity.1 };
        identity.certified().map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => CertificateLoadError::Mismatch {
                cert: cert.into(),
                key: key.into(),
                place: identity.place_of_key(),
            },
            other => CertificateLoadError::UnusableKey { key: key.into(), why: other.to_string() },
        })?;
        Ok(identity)
    }

    /// Checks that the leaf, which is from the file `cert`, is valid at `now`.
    ///
    /// # Errors
    /// [`CertificateLoadError::Expired`] or [`CertificateLoadError::NotYetValid`].
    pub fn valid_at(&self, cert: &Path, now: SystemTime) -> Result<(), CertificateLoadError> {
        if now > self.not_after {
            return Err(CertificateLoadError::Expired { file: cert.into(), date: date(self.not_after) });
        }
        if now < self.not_before {
            return Err(CertificateLoadError::NotYetValid { file: cert.into(), date: date(self.not_before) });
        }
        Ok(())
    }

    /// Whether the leaf is neither expired nor not valid yet.
    pub fn is_valid_at(&self, now: SystemTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }

    /// Position, counted from 1, of the certificate in the chain that the key belongs to.
    fn place_of_key(&self) -> Option<usize> {
        let fits = |certificate: &CertificateDer<'static>| {
            let alone = vec![certificate.clone()];
            CertifiedKey::from_der(alone, self.key.clone_key(), &default_provider()).is_ok()
        };
        self.chain.iter().position(fits).map(|index| index + 1)
    }

    /// The names and addresses the leaf is for, as it spells them.
    pub fn names(&self) -> Vec<String> {
        self.chain.first().map(|leaf| names_of(leaf)).unwrap_or_default()
    }

    /// Number of certificates in the chain.
    pub fn chain_len(&self) -> usize {
        self.chain.len()
    }

    /// Builds the chain and signing key for rustls.
    ///
    /// # Errors
    /// The key is of no known kind, or does not belong to the chain.
    pub fn certified(&self) -> Result<Arc<CertifiedKey>, rustls::Error> {
        CertifiedKey::from_der(self.chain.clone(), self.key.clone_key(), &default_provider()).map(Arc::new)
    }

    /// SHA-256 of the leaf.
    pub fn fingerprint(&self) -> Fingerprint {
        Fingerprint::of(self.chain.first().map_or(&[][..], |leaf| leaf.as_ref()))
    }

    /// End of the leaf's validity (`notAfter`).
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// Length of the leaf's validity period.
    pub fn lifetime(&self) -> Duration {
        self.not_after.duration_since(self.not_before).unwrap_or_default()
    }

    /// Remaining validity of the leaf after `now`.
    pub fn remaining(&self, now: SystemTime) -> Duration {
        self.not_after.duration_since(now).unwrap_or_default()
    }

    /// Derives (HKDF) a secret that is the same after a restart with the same private key, so that a restarted relay
    /// can send stateless resets for connections of its previous run.
    pub fn stable_secret(&self) -> [u8; 32] {
        let salt = hkdf::Salt::new(hkdf::HKDF_SHA256, b"moq-relay endpoint secret");
        let mut out = [0; 32];
        salt.extract(self.key.secret_der())
            .expand(&[b"reset and address tokens"], hkdf::HKDF_SHA256)
            .and_then(|okm| okm.fill(&mut out))
            .expect("32 bytes are within what HKDF-SHA256 can give");
        out
    }
}

/// Validity period of the leaf.
fn validity(
    chain: &[CertificateDer<'_>],
    file: &Path,
) -> Result<(SystemTime, SystemTime), CertificateLoadError> {
    let leaf = chain.first().map_or(&[][..], |leaf| leaf.as_ref());
    let certificate = Certificate::from_der(leaf)
        .map_err(|e| CertificateLoadError::Unparsable { file: file.into(), why: e.to_string() })?;
    let validity = certificate.tbs_certificate().validity();
    Ok((validity.not_before.to_system_time(), validity.not_after.to_system_time()))
}

/// DNS names and IP addresses of a certificate (DER), as it spells them.
fn names_of(leaf: &[u8]) -> Vec<String> {
    let leaf = Certificate::from_der(leaf).ok();
    let names = leaf.as_ref().and_then(|leaf| {
        leaf.tbs_certificate().get_extension::<SubjectAltName>().ok().flatten().map(|(_, names)| names.0)
    });
    names.unwrap_or_default().iter().filter_map(name).collect()
}

/// Text of a DNS name or IP address; `None` for other kinds, which do not identify TLS servers.
fn name(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().escape_default().to_string()),
        GeneralName::IpAddress(bytes) => match bytes.as_bytes() {
            bytes if bytes.len() == 4 => Some(Ipv4Addr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string()),
            bytes => Some(Ipv6Addr::from(<[u8; 16]>::try_from(bytes).ok()?).to_string()),
        },
        _ => None,
    }
}

/// Calendar day (UTC) of `at`.
pub fn date(at: SystemTime) -> time::Date {
    time::OffsetDateTime::from(at).date()
}

#[cfg(test)]
mod tests;
