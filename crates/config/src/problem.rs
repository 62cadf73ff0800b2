//! Configuration errors, worded for operators.

use std::{fmt, path::PathBuf};

use super::{FILE_BYTES, Place};

/// Failure to load a configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigLoadError {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Error of the system.
        source: std::io::Error,
    },
    /// All problems in it, one per line.
    #[error("{}", Lines(.0))]
    Refused(Vec<LocatedProblem>),
}

/// A problem and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LocatedProblem {
    /// Place of the problem.
    pub place: Place,
    /// The problem.
    pub problem: Problem,
}

impl fmt::Display for LocatedProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.problem)
    }
}

/// A value that is not of the kind of its key; describes the expected value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct InvalidValue(pub String);

/// A problem in the configuration.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// Not UTF-8, the encoding of TOML. Names the encoding.
    #[error("the file is {0}; save it as UTF-8")]
    NoText(&'static str),
    /// Larger than [`FILE_BYTES`].
    #[error("the file has {0} bytes; at most {FILE_BYTES} are read")]
    TooLong(u64),
    /// An unknown key.
    #[error("unknown key `{key}`; {hint}")]
    UnknownKey {
        /// The key, dotted.
        key: String,
        /// Suggestion.
        hint: String,
    },
    /// A value in place of a section.
    #[error("`{key}` is a section: write [{key}] and its keys below, not {value}")]
    NoSection {
        /// The section.
        key: String,
        /// The value.
        value: String,
    },
    /// A known key with an invalid value.
    #[error("`{key}`: {what}")]
    Value {
        /// The key, dotted.
        key: String,
        /// Description of the expected value.
        what: String,
    },
    /// A flag or variable with an invalid value; its name is its place.
    #[error("{0}")]
    Outside(String),
    /// An unsupported key that cannot be ignored safely.
    #[error("`{key}` is not supported: {instead}")]
    Refused {
        /// The key, as spelled.
        key: String,
        /// Cause and remedy.
        instead: &'static str,
    },
    /// One setting with two values.
    #[error("`{key}` and {other} are the same setting with different values; keep one")]
    Contradiction {
        /// The key, as spelled at the second place.
        key: String,
        /// The other spelling and its place.
        other: String,
    },
    /// One of `tls.cert` and `tls.key` without the other.
    #[error("`{present}` needs `{missing}` beside it")]
    HalfTls {
        /// The key that is there.
        present: String,
        /// The missing key.
        missing: &'static str,
    },
    /// Values that contradict each other.
    #[error("{0}")]
    Together(String),
    /// No rule admits anybody.
    #[error(
        "nobody may connect: set `auth.public` to the prefix that is open to all, \
         or to \"\" to open everything; or `auth.key` to admit clients with a token"
    )]
    NobodyAllowed,
}

struct Lines<'a>(&'a [LocatedProblem]);

impl fmt::Display for Lines<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, refusal) in self.0.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{refusal}")?;
        }
        Ok(())
    }
}
