//! moq-lite, version by version behind one set of types.
//!
//! A message body is read to its last byte or not at all.

mod announce;
pub mod carries;
mod control;
mod datagram;
mod group;
mod setup;
mod subscribe;

pub use announce::{Announce, AnnounceOk, AnnounceRequest};
pub use control::{Fetch, Goaway, Probe, TrackRequest};
pub use datagram::Datagram;
pub use group::{FrameHead, Group, GroupEvent, GroupReader, TICK_MAX, put_frame_head, put_group_header};
pub use setup::{Role, Setup};
pub use subscribe::{Subscribe, SubscribeOk, SubscribeResponse, SubscribeUpdate};

use crate::{
    Error,
    body::{Reader, put_sized},
};

/// A version of moq-lite. Later ones compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// moq-lite-03: no SETUP, hop counts, frames without timestamps.
    V03,
    /// moq-lite-04: hop ids, GOAWAY, round trips in PROBE.
    V04,
    /// moq-lite-05: SETUP, timestamps, TRACK, FETCH, datagrams.
    V05,
    /// moq-lite-06: announce ids and prices, frame ranges.
    V06,
}

impl Version {
    /// All of them, newest first.
    pub const ALL: &'static [Self] = &[Self::V06, Self::V05, Self::V04, Self::V03];

    /// Its name in ALPN and in WebTransport and WebSocket subprotocols.
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::V03 => "moq-lite-03",
            Self::V04 => "moq-lite-04",
            Self::V05 => "moq-lite-05",
            Self::V06 => "moq-lite-06",
        }
    }

    /// The version of that name.
    pub fn from_alpn(alpn: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|version| version.alpn() == alpn)
    }

    /// Whether each side sends a [`Setup`].
    pub fn has_setup(self) -> bool {
        self >= Self::V05
    }

    /// Whether an announce stream begins with [`AnnounceOk`], whose sender is left out of the chains.
    pub fn has_announce_ok(self) -> bool {
        self >= Self::V05
    }

    /// Whether chains hold ids; else only their length is known.
    pub fn has_hop_ids(self) -> bool {
        self >= Self::V04
    }

    /// Whether an [`AnnounceRequest`] names the asker's hop; later versions name it in [`Setup`].
    pub fn has_exclude_hop(self) -> bool {
        matches!(self, Self::V04 | Self::V05)
    }

    /// Whether announces are named by number, can change, and carry a price.
    pub fn has_announce_ids(self) -> bool {
        self >= Self::V06
    }

    /// Whether a live announce may be replaced in place; else it must end first.
    pub fn replaces_announces(self) -> bool {
        self >= Self::V05
    }

    /// Whether track properties and old groups can be asked for: TRACK and FETCH streams.
    pub fn has_tracks(self) -> bool {
        self >= Self::V05
    }

    /// Whether frames and datagrams carry timestamps; earlier versions have no datagrams.
    pub fn has_timestamps(self) -> bool {
        self >= Self::V05
    }

    /// Whether a subscription is accepted with [`SubscribeResponse::Ok`]; later ones are implicitly,
    /// and say their first and last group.
    pub fn has_subscribe_ok(self) -> bool {
        self <= Self::V04
    }

    /// Whether a group may begin, and a range begin and end, at a frame.
    pub fn has_frame_ranges(self) -> bool {
        self >= Self::V06
    }

    /// Whether older groups first can be asked for.
    pub fn has_order_hint(self) -> bool {
        self <= Self::V05
    }

    /// Whether a [`Probe`] tells round trips.
    pub fn has_round_trips(self) -> bool {
        self >= Self::V04
    }

    /// Whether a session can be asked to move.
    pub fn has_goaway(self) -> bool {
        self >= Self::V04
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

    /// The type of that number, if `version` has it. (FETCH has a form before moq-lite-05 that nobody
    /// serves.)
    pub fn from_id(version: Version, id: u64) -> Option<Self> {
        Some(match id {
            1 => Self::Announce,
            2 => Self::Subscribe,
            3 if version.has_tracks() => Self::Fetch,
            4 => Self::Probe,
            5 if version.has_goaway() => Self::Goaway,
            6 if version.has_tracks() => Self::Track,
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

    /// The type of that number, if `version` has it.
    pub fn from_id(version: Version, id: u64) -> Option<Self> {
        Some(match id {
            0 => Self::Group,
            1 if version.has_setup() => Self::Setup,
            _ => return None,
        })
    }
}

/// A size-prefixed control message.
///
/// [`SubscribeResponse`] and [`Announce`] are none: their type may stand before their size.
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
