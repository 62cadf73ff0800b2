//! What came of a look at the files.

use tracing::{error, info, warn};

use super::Fingerprint;
use crate::trouble::Trouble;

/// Something the log should hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum News {
    /// Another certificate is shown from now on.
    Shown {
        /// Where it is from.
        from: String,
        /// What it is for.
        names: Vec<String>,
        /// Its last day.
        until: time::Date,
        /// SHA-256 of it.
        fingerprint: Fingerprint,
    },
    /// Clients are judged by other authorities from now on.
    Roots {
        /// Where they are from.
        from: String,
        /// How many there are.
        count: usize,
    },
    /// What is there cannot be used; what was there before is kept.
    Kept(Trouble),
    /// What is there is again what is in use.
    Well(String),
    /// It can be used, but something is doubtful.
    Doubt(Trouble),
    /// It ends soon.
    Ending(Trouble),
    /// It is shown, and clients refuse it: it is expired or not valid yet.
    Invalid(Trouble),
    /// Somebody asked, and nothing is new.
    Unchanged,
}

impl News {
    /// Tells the log.
    pub fn log(&self) {
        match self {
            Self::Shown { from, names, until, fingerprint } => {
                let names = names.join(", ");
                info!(from, names, %until, %fingerprint, "showing a certificate");
            }
            Self::Roots { from, count } => {
                info!(from, count, "clients are judged by other authorities");
            }
            Self::Kept(trouble) | Self::Invalid(trouble) => error!("{trouble}"),
            Self::Well(from) => info!(from, "as it was when it was read: all is well again"),
            Self::Doubt(trouble) | Self::Ending(trouble) => warn!("{trouble}"),
            Self::Unchanged => info!("read again: no certificate has changed"),
        }
    }
}
