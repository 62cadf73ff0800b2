//! What can be wrong, in words for whoever wrote it.

use std::{fmt, path::PathBuf};

use super::{FILE_BYTES, Place};

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something in it is wrong: all of that, a line each.
    #[error("{}", Lines(.0))]
    Refused(Vec<Refusal>),
}

/// Something that is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Where.
    pub place: Place,
    /// What.
    pub problem: Problem,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.place, self.problem)
    }
}

/// What is wrong.
#[derive(Clone, Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// Not in the encoding of TOML. Which it is in.
    #[error("the file is {0}; save it as UTF-8")]
    NoText(&'static str),
    /// Too much of it.
    #[error("{0} bytes are no configuration; at most {FILE_BYTES}")]
    TooLong(u64),
    /// A key nobody reads.
    #[error("unknown key `{key}`; {hint}")]
    UnknownKey {
        /// The key, dotted.
        key: String,
        /// What may have been meant.
        hint: String,
    },
    /// A section that is none.
    #[error("`{key}` is a section: write [{key}] and its keys below, not {value}")]
    NoSection {
        /// The section.
        key: String,
        /// What stands there.
        value: String,
    },
    /// A known key with a value that makes no sense.
    #[error("`{key}`: {what}")]
    Value {
        /// The key, dotted.
        key: String,
        /// What was expected.
        what: String,
    },
    /// A flag or a variable with such a value: its name is its place.
    #[error("{0}")]
    Outside(String),
    /// A key that cannot be obeyed, and without which the relay would be another one.
    #[error("`{key}` cannot be obeyed: {instead}")]
    Refused {
        /// The key, as it is spelled.
        key: String,
        /// What to do.
        instead: &'static str,
    },
    /// One key, two values.
    #[error("`{key}` and {other} are the same setting with different values; keep one")]
    Contradiction {
        /// The key, as it is spelled at the second place.
        key: String,
        /// The other spelling and its place.
        other: String,
    },
    /// One of `tls.cert` and `tls.key` without the other.
    #[error("`{present}` needs `{missing}` beside it")]
    HalfTls {
        /// The key that is there.
        present: String,
        /// The key that is not.
        missing: &'static str,
    },
    /// Values that make no sense together.
    #[error("{0}")]
    Together(String),
    /// No rule says who may connect.
    #[error(
        "nobody may connect: set `auth.public` to the prefix that is open to all, \
         or to \"\" to open everything; or `auth.key` to let in who has a token"
    )]
    NobodyAllowed,
}

struct Lines<'a>(&'a [Refusal]);

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
