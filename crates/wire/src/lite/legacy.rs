//! How a session of moq-lite-01 or 02 begins: nothing that comes with the connection says which it is.
//!
//! The client opens a bidirectional stream with a list of versions, the server answers on it with one of
//! them. The stream stays open: its end is the end of the session. On it either side may say what it
//! measured ([`SessionInfo`]).
//!
//! The exchange is that of moq-transport-14, whose versions may stand in the list too.

use relay_model::limits;

use super::{Body, Version};
use crate::{
    Error, Inbox,
    body::{Reader, put_bytes},
    varint,
};

/// The name in ALPN and in subprotocols of all versions that are agreed on this way.
pub const ALPN: &str = "moql";

/// First integer of the client's stream.
pub const CLIENT_SETUP: u64 = 0x20;
/// First integer of the answer.
const SERVER_SETUP: u64 = 0x21;

/// Bytes of a SETUP after its length: far more than any client has to say.
pub const SETUP_BYTES: usize = 16 * 1024;
/// Versions that a client may list.
const VERSIONS: usize = 64;

/// What versions are called in the exchange: this, plus their number.
const CODE: u64 = 0xff0d_ad00;

/// What the client of a session says first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientSetup {
    /// The versions it speaks, by their codes, best first. Not all of them are of moq-lite.
    pub versions: Vec<u64>,
    /// What else it says: an even id has an integer, an odd one has bytes.
    pub parameters: Vec<(u64, Value)>,
}

/// The value of a parameter.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Value {
    /// Of an even id.
    Number(u64),
    /// Of an odd id.
    Bytes(Vec<u8>),
}

/// The answer to a [`ClientSetup`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ServerSetup {
    /// The version of the session.
    pub version: Version,
}

/// What the sender measured, on the stream that a session began with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionInfo {
    /// Estimated bits a second; 0 = unknown.
    pub bitrate: u64,
}

/// A version's code in the exchange.
pub fn code(version: Version) -> Option<u64> {
    match version {
        Version::V01 => Some(CODE | 1),
        Version::V02 => Some(CODE | 2),
        _ => None,
    }
}

impl ClientSetup {
    /// Takes it off the front of a stream, after the stream's type. `None` until it is whole; an error as
    /// soon as its length is known to be over [`SETUP_BYTES`].
    pub fn next(inbox: &mut Inbox) -> Result<Option<Self>, Error> {
        let Some(body) = inbox.next_short(SETUP_BYTES)? else { return Ok(None) };
        let mut input = Reader::new(&body);
        let count = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
        if count > VERSIONS {
            return Err(Error::TooManyParameters);
        }
        let mut setup = Self::default();
        for _ in 0..count {
            setup.versions.push(input.varint()?);
        }
        setup.parameters = parameters(&mut input)?;
        input.end()?;
        Ok(Some(setup))
    }

    /// The first of the client's versions that is one of ours.
    pub fn choose(&self) -> Option<Version> {
        let ours =
            |offered: &u64| Version::LEGACY.iter().copied().find(|version| code(*version) == Some(*offered));
        self.versions.iter().find_map(ours)
    }

    /// Appends it with its stream's type.
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
    /// Takes it off the front of a stream. `None` until it is whole. A version that is not of moq-lite, or
    /// not agreed on this way, is an error.
    pub fn next(inbox: &mut Inbox) -> Result<Option<Self>, Error> {
        let Some(body) = inbox.next_short_typed(SERVER_SETUP, SETUP_BYTES)? else { return Ok(None) };
        let mut input = Reader::new(&body);
        let chosen = input.varint()?;
        parameters(&mut input)?;
        input.end()?;
        let version = Version::LEGACY.iter().copied().find(|version| code(*version) == Some(chosen));
        version.map(|version| Some(Self { version })).ok_or(Error::Value("setup version"))
    }

    /// Appends it with its type. What is chosen in another way is a bug of the caller's, and is left out.
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
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self { bitrate: input.varint()? })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        varint::put(self.bitrate.min(varint::MAX), out);
    }
}

/// Counted parameters; ids that come twice and ids that nobody knows are let pass, as their meaning is not
/// ours.
fn parameters(input: &mut Reader<'_>) -> Result<Vec<(u64, Value)>, Error> {
    let count = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
    if count > limits::PARAMETERS {
        return Err(Error::TooManyParameters);
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

/// Appends a body behind its length in two bytes.
fn put_short(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    write(&mut body);
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    debug_assert_eq!(usize::from(length), body.len());
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(body.get(..usize::from(length)).unwrap_or_default());
}
