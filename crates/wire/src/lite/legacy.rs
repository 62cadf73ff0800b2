//! SETUP exchange of moq-lite-01 and 02, whose version is not negotiated by ALPN
//! (draft-lcurley-moq-lite-02, SessionCompat).
//!
//! The client opens a bidirectional stream with a list of versions, and the server replies on it with one of
//! them. The stream stays open for the life of the session; its end ends the session. Either side may send
//! [`SessionInfo`] on it.
//!
//! The encoding is that of draft-ietf-moq-transport-14, whose versions may be in the list too.

use relay_model::limits;

use super::{Body, Version};
use crate::{
    DecodeError, MessageBuf,
    body::{BodyReader, put_bytes},
    varint,
};

/// Name in ALPN and in subprotocols of all versions negotiated by SETUP (deployed relays, captured).
pub const ALPN: &str = "moql";

/// Type of the client's stream, CLIENT_SETUP (draft-lcurley-moq-lite-02, SessionCompat).
pub const CLIENT_SETUP: u64 = 0x20;
/// Type of the reply, SERVER_SETUP (deployed relays, captured).
const SERVER_SETUP: u64 = 0x21;

/// Limit in bytes of a SETUP body; known clients send less than 100.
pub const SETUP_BYTES: usize = 16 * 1024;
/// Limit of versions in a client's list.
const VERSIONS: usize = 64;

/// Version code of moq-lite draft 00; the draft number is added (draft-lcurley-moq-lite-02, Session).
const CODE: u64 = 0xff0d_ad00;

/// CLIENT_SETUP, the first message of a client (draft-lcurley-moq-lite-02, SessionCompat).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSetup {
    /// Version codes that the client supports, preferred first; may include moq-transport versions.
    pub versions: Vec<u64>,
    /// Parameters: an even id has an integer value, an odd id has bytes.
    pub parameters: Vec<(u64, Value)>,
}

/// Value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Value of an even id.
    Number(u64),
    /// Value of an odd id.
    Bytes(Vec<u8>),
}

/// SERVER_SETUP, the reply to a [`ClientSetup`] (draft-lcurley-moq-lite-02, SessionCompat).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSetup {
    /// Selected version.
    pub version: Version,
}

/// Measurement by the sender, on the setup stream (draft-lcurley-moq-lite-02, SESSION_UPDATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Estimated bitrate in bits per second; 0 = unknown.
    pub bitrate: u64,
}

/// Returns the version code; `None` for versions that are not negotiated by SETUP.
pub fn code(version: Version) -> Option<u64> {
    match version {
        Version::V01 => Some(CODE | 1),
        Version::V02 => Some(CODE | 2),
        _ => None,
    }
}

impl ClientSetup {
    /// Takes the message off the front of a stream, after the stream type. `None` while it is incomplete; an
    /// error as soon as its length is known to exceed [`SETUP_BYTES`].
    pub fn next(inbox: &mut MessageBuf) -> Result<Option<Self>, DecodeError> {
        let Some(body) = inbox.next_short(SETUP_BYTES)? else { return Ok(None) };
        let mut input = BodyReader::new(&body);
        let count = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
        if count > VERSIONS {
            return Err(DecodeError::TooManyParameters);
        }
        let mut setup = Self::default();
        for _ in 0..count {
            setup.versions.push(input.varint()?);
        }
        setup.parameters = parameters(&mut input)?;
        input.end()?;
        Ok(Some(setup))
    }

    /// Returns the client's most preferred version that is supported.
    pub fn choose(&self) -> Option<Version> {
        let ours =
            |offered: &u64| Version::LEGACY.iter().copied().find(|version| code(*version) == Some(*offered));
        self.versions.iter().find_map(ours)
    }

    /// Appends the message with the stream type.
    pub fn encode(&self, out: &mut Vec<u8>) {
        varint::put(CLIENT_SETUP, out);
        put_short(out, |out| {
            varint::put(self.versions.len() as u64, out);
            self.versions.iter().for_each(|version| varint::put(*version, out));
            varint::put(self.parameters.len() as u64, out);
            for (id, value) in &self.parameters {
                varint::put(*id, out);
                match value {
                    Value::Number(number) => varint::put(*number, out),
                    Value::Bytes(bytes) => put_bytes(bytes, out),
                }
            }
        });
    }
}

impl ServerSetup {
    /// Takes the message with its type off the front of a stream. `None` while it is incomplete; an error for a
    /// version outside [`Version::LEGACY`].
    pub fn next(inbox: &mut MessageBuf) -> Result<Option<Self>, DecodeError> {
        let Some(body) = inbox.next_short_typed(SERVER_SETUP, SETUP_BYTES)? else { return Ok(None) };
        let mut input = BodyReader::new(&body);
        let chosen = input.varint()?;
        parameters(&mut input)?;
        input.end()?;
        let version = Version::LEGACY.iter().copied().find(|version| code(*version) == Some(chosen));
        version.map(|version| Some(Self { version })).ok_or(DecodeError::Value("setup version"))
    }

    /// Appends the message with its type. A version outside [`Version::LEGACY`] is a bug of the caller and
    /// appends nothing.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let Some(code) = code(self.version) else {
            debug_assert!(false, "{:?} is not chosen in SETUP", self.version);
            return;
        };
        varint::put(SERVER_SETUP, out);
        put_short(out, |out| {
            varint::put(code, out);
            // No parameters.
            varint::put(0, out);
        });
    }
}

impl Body for SessionInfo {
    fn read(_: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { bitrate: input.varint()? })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        varint::put(self.bitrate.min(varint::MAX), out);
    }
}

/// Reads counted parameters. Repeated and unknown ids are accepted, since no parameter is interpreted.
fn parameters(input: &mut BodyReader<'_>) -> Result<Vec<(u64, Value)>, DecodeError> {
    let count = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
    if count > limits::PARAMETERS {
        return Err(DecodeError::TooManyParameters);
    }
    let mut all = Vec::with_capacity(count.min(input.rest()));
    for _ in 0..count {
        let id = input.varint()?;
        let value = match id % 2 {
            0 => Value::Number(input.varint()?),
            _ => Value::Bytes(input.bytes()?.to_vec()),
        };
        all.push((id, value));
    }
    Ok(all)
}

/// Appends a body with a two-byte big-endian length prefix.
fn put_short(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    write(&mut body);
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    debug_assert_eq!(usize::from(length), body.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body.get(..usize::from(length)).unwrap_or_default());
}
