//! Key ids (`kid`).

use std::{fmt, str::FromStr, sync::Arc};

use aws_lc_rs::rand;

use crate::KeyError;

/// Longest `kid` in bytes.
pub const KEY_ID_BYTES: usize = 128;
/// Random bytes of a generated key id.
const RANDOM_BYTES: usize = 8;

/// Key id, `kid` (RFC 7517 §4.5): any text of at most 128 bytes, compared byte by byte. Providers use `=`, `+`, `/`,
/// `:` and `.` in it, so that only [`KeyId::file_stem`] may become part of a path or URL.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(Arc<str>);

/// The text is too long for a [`KeyId`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a key id has at most {KEY_ID_BYTES} bytes")]
pub struct NoKeyId;

impl KeyId {
    /// Generates a random key id. An error if the system provides no random bytes.
    pub fn random() -> Result<Self, KeyError> {
        let mut bytes = [0; RANDOM_BYTES];
        rand::fill(&mut bytes).map_err(|_| KeyError::Random)?;
        Ok(Self(hex(&bytes).into()))
    }

    /// Returns the text, which is arbitrary and not escaped.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the text if it is safe in a file name or URL: 1 to 128 of `A-Z a-z 0-9 _ -`. `None` otherwise; such an
    /// id cannot select a key in a folder.
    pub fn file_stem(&self) -> Option<&str> {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-');
        Some(self.as_str()).filter(|text| !text.is_empty() && text.bytes().all(is_plain))
    }
}

impl FromStr for KeyId {
    type Err = NoKeyId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.len() <= KEY_ID_BYTES { Ok(Self(text.into())) } else { Err(NoKeyId) }
    }
}

/// Formats the text with control characters, quotes and backslashes escaped.
impl fmt::Display for KeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.escape_debug().fmt(f)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_plain_key_id_is_a_file_stem() {
        let id = |text: &str| text.parse::<KeyId>().unwrap();
        for plain in ["k", "k-1_A", &"k".repeat(KEY_ID_BYTES)] {
            assert_eq!(id(plain).file_stem(), Some(plain));
        }
        for odd in
            ["", ".", "..", "../k", "/etc/passwd", "k/k", "a.b", "k?x", "k#x", "%6b", "a b", "k\0", "é", "k="]
        {
            assert_eq!(id(odd).file_stem(), None, "{odd:?}");
            assert_eq!(id(odd).as_str(), odd);
        }
        assert_eq!("k".repeat(KEY_ID_BYTES + 1).parse::<KeyId>(), Err(NoKeyId));
    }

    #[test]
    fn a_shown_key_id_has_no_control_characters() {
        let id: KeyId = "a\n\u{1b}[31m\u{202e}b".parse().unwrap();
        assert_eq!(id.to_string(), "a\\n\\u{1b}[31m\\u{202e}b");
    }
}
