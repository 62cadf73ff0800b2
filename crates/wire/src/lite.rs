//! moq-lite, version by version behind one set of types.
//!
//! A message body is read to its last byte or not at all.

mod announce;
mod control;
mod datagram;
mod group;
mod setup;
mod subscribe;

pub use announce::{Announce, AnnounceOk, AnnounceRequest, Status};
pub use control::{Fetch, GOAWAY_URI_BYTES, Goaway, Probe, TrackRequest};
pub use datagram::Datagram;
pub use group::{FrameHead, Group, GroupEvent, GroupReader, TICK_MAX, put_frame_head, put_group_header};
pub use setup::{Role, Setup};
pub use subscribe::{Subscribe, SubscribeResponse, SubscribeUpdate};

use crate::{
    Error,
    body::{Reader, put_sized},
};

/// A version of moq-lite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// moq-lite-05.
    V05,
}

impl Version {
    /// All of them, newest first.
    pub const ALL: &'static [Self] = &[Self::V05];

    /// Its name in ALPN and in WebTransport and WebSocket subprotocols.
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::V05 => "moq-lite-05",
        }
    }

    /// The version of that name.
    pub fn from_alpn(alpn: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|version| version.alpn() == alpn)
    }
}

/// First integer of a bidirectional stream: what its opener asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BidiType {
    /// Broadcasts below a prefix: [`AnnounceRequest`], answered [`AnnounceOk`] and [`Announce`]s.
    Announce = 1,
    /// Groups of a track: [`Subscribe`] and [`SubscribeUpdate`]s, answered [`SubscribeResponse`]s.
    Subscribe = 2,
    /// One old group: [`Fetch`], answered by bare frames.
    Fetch = 3,
    /// Nothing asked; answered [`Probe`]s.
    Probe = 4,
    /// [`Goaway`].
    Goaway = 5,
    /// A track's properties: [`TrackRequest`], answered [`relay_model::TrackInfo`].
    Track = 6,
}

impl BidiType {
    /// The type on the wire.
    pub const fn id(self) -> u64 {
        self as u64
    }

    /// The type of that number.
    pub const fn from_id(id: u64) -> Option<Self> {
        Some(match id {
            1 => Self::Announce,
            2 => Self::Subscribe,
            3 => Self::Fetch,
            4 => Self::Probe,
            5 => Self::Goaway,
            6 => Self::Track,
            _ => return None,
        })
    }
}

/// First integer of a unidirectional stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UniType {
    /// [`Group`] and its frames: [`GroupReader`].
    Group = 0,
    /// [`Setup`].
    Setup = 1,
}

impl UniType {
    /// The type on the wire.
    pub const fn id(self) -> u64 {
        self as u64
    }

    /// The type of that number.
    pub const fn from_id(id: u64) -> Option<Self> {
        Some(match id {
            0 => Self::Group,
            1 => Self::Setup,
            _ => return None,
        })
    }
}

/// A size-prefixed control message.
///
/// [`SubscribeResponse`] is none: its type stands before its size.
pub trait Message: Sized {
    /// Decodes a body, without its size, and all of it.
    fn decode(version: Version, body: &[u8]) -> Result<Self, Error>;

    /// Appends the message with its size.
    fn encode(&self, version: Version, out: &mut Vec<u8>);
}

/// The fields of a message, without its size.
pub(crate) trait Body: Sized {
    fn read(version: Version, input: &mut Reader<'_>) -> Result<Self, Error>;
    fn write(&self, version: Version, out: &mut Vec<u8>);
}

impl<T: Body> Message for T {
    fn decode(version: Version, body: &[u8]) -> Result<Self, Error> {
        let mut input = Reader::new(body);
        let message = T::read(version, &mut input)?;
        input.end()?;
        Ok(message)
    }

    fn encode(&self, version: Version, out: &mut Vec<u8>) {
        put_sized(out, |out| self.write(version, out));
    }
}

#[cfg(test)]
mod tests;
