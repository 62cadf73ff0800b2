//! Facts about the configured certificates.

use std::{path::PathBuf, time::SystemTime};

use relay_certificate::{CertificateLoadError, Identity, authorities as authorities_of, ending, made_for};
use relay_config::{CertFiles, Tls};
use relay_host::diagnostics::Diagnostic;

/// A certificate that the relay would use.
#[derive(Debug)]
pub(super) enum CertificateCheck {
    /// Generated at start, for these names.
    Made(Vec<String>),
    /// Loaded from files.
    Read {
        /// File of the chain.
        file: String,
        /// DNS names and IP addresses.
        names: Vec<String>,
        /// Its last day.
        until: String,
        /// Remaining validity, days.
        days: u64,
        /// SHA-256 of the leaf.
        fingerprint: String,
        /// Warning that it expires soon or is not valid.
        ending: Option<Diagnostic>,
    },
    /// Failure to load it.
    None(String),
}

impl CertificateCheck {
    /// Loads the certificates that `tls` names; the first is the one for clients without a server name.
    pub(super) fn all(tls: &Tls, now: SystemTime) -> Vec<Self> {
        match tls {
            Tls::Generated(names) => vec![Self::Made(made_for(names))],
            Tls::Files(pairs) => Self::files(pairs, now),
        }
    }

    /// Loads `pairs`.
    pub(super) fn files(pairs: &[CertFiles], now: SystemTime) -> Vec<Self> {
        pairs.iter().map(|pair| Self::of(pair, now)).collect()
    }

    fn of(CertFiles { cert, key }: &CertFiles, now: SystemTime) -> Self {
        match Identity::load(cert, key) {
            Err(error) => Self::None(error.to_string()),
            Ok(identity) => Self::Read {
                file: cert.display().to_string(),
                names: identity.names(),
                until: time::OffsetDateTime::from(identity.not_after()).date().to_string(),
                days: identity.remaining(now).as_secs() / 86_400,
                fingerprint: identity.fingerprint().to_string(),
                ending: ending(&identity, cert, now),
            },
        }
    }
}

/// Number of client authorities in `files`, or why they cannot be used; `None` without files.
pub(super) fn authorities(files: &[PathBuf]) -> Option<Result<usize, CertificateLoadError>> {
    (!files.is_empty()).then(|| authorities_of(files))
}
