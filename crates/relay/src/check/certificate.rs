//! What there is to know about a certificate.

use std::{path::PathBuf, time::SystemTime};

use crate::{
    certificate::{Identity, authorities as authorities_of, ending, made_for},
    config::{Pair, Tls},
    trouble::Trouble,
};

/// A certificate that would be shown.
#[derive(Debug)]
pub(super) enum Certificate {
    /// One that is made at start, for these names.
    Made(Vec<String>),
    /// One that was read.
    Read {
        /// Where from.
        file: String,
        /// Whom it is for.
        names: Vec<String>,
        /// Its last day.
        until: String,
        /// How long it has.
        days: u64,
        /// SHA-256 of the leaf.
        fingerprint: String,
        /// That it ends soon, or is not valid.
        ending: Option<Trouble>,
    },
    /// None: why.
    None(String),
}

impl Certificate {
    /// Reads what `tls` names: what clients get that ask for no name first.
    pub(super) fn all(tls: &Tls, now: SystemTime) -> Vec<Self> {
        match tls {
            Tls::Generated(names) => vec![Self::Made(made_for(names))],
            Tls::Files(pairs) => Self::files(pairs, now),
        }
    }

    /// Reads `pairs`.
    pub(super) fn files(pairs: &[Pair], now: SystemTime) -> Vec<Self> {
        pairs.iter().map(|pair| Self::of(pair, now)).collect()
    }

    fn of(Pair { cert, key }: &Pair, now: SystemTime) -> Self {
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

/// Whose certificates clients may show: how many authorities there are, or why there are none.
pub(super) fn authorities(files: &[PathBuf]) -> Option<Result<usize, String>> {
    (!files.is_empty()).then(|| authorities_of(files).map_err(|error| error.to_string()))
}
