//! moq-lite, version by version behind one set of types.
//!
//! A message body is read to its last byte or not at all.

mod announce;
pub mod carries;
mod control;
mod datagram;
mod group;
pub mod legacy;
mod setup;
mod subscribe;

pub use announce::{Announce, AnnounceInit, AnnounceOk, AnnounceRequest};
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
    /// moq-lite-01: agreed on in the exchange of [`legacy`]; announces without chains, subscriptions
    /// that are a priority and nothing else.
    V01,
    /// moq-lite-02: the same, but for an acceptance that says nothing.
    V02,
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
    /// Those that have a name of their own in ALPN, newest first.
    pub const ALL: &'static [Self] = &[Self::V06, Self::V05, Self::V04, Self::V03];

    /// The older ones, newest first: which of them a session has is said in its first stream
    /// ([`legacy`]).
    pub const LEGACY: &'static [Self] = &[Self::V02, Self::V01];

    /// All there are, newest first.
    pub fn every() -> impl DoubleEndedIterator<Item = Self> + Clone {
        Self::ALL.iter().chain(Self::LEGACY).copied()
    }

    /// What it is called.
    pub const fn name(self) -> &'static str {
        match self {
            Self::V01 => "moq-lite-01",
            Self::V02 => "moq-lite-02",
            Self::V03 => "moq-lite-03",
            Self::V04 => "moq-lite-04",
            Self::V05 => "moq-lite-05",
            Self::V06 => "moq-lite-06",
        }
    }

    /// The name that a connection has for it in ALPN and in WebTransport and WebSocket subprotocols:
    /// those of [`Self::LEGACY`] have one together.
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::V01 | Self::V02 => legacy::ALPN,
            named => named.name(),
        }
    }

    /// The version of that name in ALPN, if it names one.
    pub fn from_alpn(alpn: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|version| version.alpn() == alpn)
    }

    /// Whether a session begins with the exchange of [`legacy`], whose stream stays open as long as it.
    pub fn has_legacy_setup(self) -> bool {
        self <= Self::V02
    }

    /// Whether an announce stream begins with [`AnnounceInit`].
    pub fn has_announce_init(self) -> bool {
        self <= Self::V02
    }

    /// Whether announces have chains, if only their length.
    pub fn has_hops(self) -> bool {
        self >= Self::V03
    }

    /// Whether a subscription says which groups it wants and how old they may be, and may change its
    /// mind ([`SubscribeUpdate`]); else it is a priority.
    pub fn has_ranges(self) -> bool {
        self >= Self::V03
    }

    /// Whether answers to a subscription have types, so that groups that will not come can be named
    /// ([`SubscribeResponse::Drop`]); else there is one answer.
    pub fn has_drops(self) -> bool {
        self >= Self::V03
    }

    /// Whether [`SubscribeOk`] says anything.
    pub fn has_ok_fields(self) -> bool {
        self != Self::V02
    }

    /// Whether the bitrate of a connection can be asked for ([`Probe`]).
    pub fn has_probe(self) -> bool {
        self >= Self::V03
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
        (Self::V03..=Self::V05).contains(&self)
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
            4 if version.has_probe() => Self::Probe,
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
