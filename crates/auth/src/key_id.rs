//! The name of a key, fit for a file name and a URL.

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::rand;

use crate::KeyError;

/// Longest name of a key in bytes.
pub const KEY_ID_BYTES: usize = 128;
/// Random bytes of a name we choose.
const RANDOM_BYTES: usize = 8;

/// A `kid`: 1 to 128 of `A-Z a-z 0-9 _ -`, so never a path.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

/// The text is no [`KeyId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id is 1 to {KEY_ID_BYTES} letters, digits, `-` and `_`")]
pub struct NoKeyId;

impl KeyId {
    /// A name nobody has had before. Errors when the system has no random numbers.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = [0; RANDOM_BYTES];
        rand::fill(&mut bytes).map_err(|_| KeyError::Random)?;
        Ok(Self(hex(&bytes).into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for KeyId {
    type Err = NoKeyId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fits = (1..=KEY_ID_BYTES).contains(&text.len());
        let is_plain = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        if fits && is_plain { Ok(Self(text.into())) } else { Err(NoKeyId) }
    }
}

impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut out, byte| {
        // Writing to a `String` cannot fail.
        let _ = write!(out, "{byte:02x}");
        out
    })
}
