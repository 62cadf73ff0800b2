//! Certificate events for the log.

use relay_config::Diagnostic;
use tracing::{error, info, warn};

use super::Fingerprint;

/// A certificate event to be logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CertificateEvent {
    /// Another certificate is in use.
    Shown {
        /// File it was loaded from.
        from: String,
        /// DNS names and IP addresses.
        names: Vec<String>,
        /// Its last day.
        until: time::Date,
        /// SHA-256 of the leaf.
        fingerprint: Fingerprint,
    },
    /// Client certificates are verified with other authorities.
    Roots {
        /// Files they were loaded from.
        from: String,
        /// Number of authorities.
        count: usize,
    },
    /// The new files cannot be used; the previous certificate or authorities are kept.
    Kept(Diagnostic),
    /// The files match the certificate in use again.
    Recovered(String),
    /// A warning about a usable certificate.
    Warning(Diagnostic),
    /// The certificate expires soon.
    Ending(Diagnostic),
    /// The certificate in use is expired or not valid yet; clients reject it.
    Invalid(Diagnostic),
    /// A requested reload found no change.
    Unchanged,
}

impl CertificateEvent {
    /// Writes the event to the log.
    pub fn log(&self) {
        match self {
            Self::Shown { from, names, until, fingerprint } => {
                let names = names.join(", ");
                info!(from, names, %until, %fingerprint, "certificate in use");
            }
            Self::Roots { from, count } => {
                info!(from, count, "client authorities changed");
            }
            Self::Kept(trouble) | Self::Invalid(trouble) => error!("{trouble}"),
            Self::Recovered(from) => info!(from, "files match the certificate in use again"),
            Self::Warning(trouble) | Self::Ending(trouble) => warn!("{trouble}"),
            Self::Unchanged => info!("certificates reloaded: no change"),
        }
    }
}
