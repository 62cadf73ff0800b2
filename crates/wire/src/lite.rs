//! moq-lite 01 to 06 behind one set of message types (draft-lcurley-moq-lite-01 to 05; for 06 the deployed
//! relays, captured: its draft text differs from the bytes they send).
//!
//! A message body is parsed to its last byte or rejected.

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
pub use relay_model::Role;
pub use setup::Setup;
pub use subscribe::{Subscribe, SubscribeOk, SubscribeResponse, SubscribeUpdate};

use crate::{
    DecodeError,
    body::{BodyReader, put_sized},
};

/// Version of moq-lite. Later versions compare greater.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// moq-lite-01: negotiated in the SETUP exchange of [`legacy`]; announces without hop chains, subscriptions
    /// with a priority only.
    V01,
    /// moq-lite-02: like 01, with an empty SUBSCRIBE_OK.
    V02,
    /// moq-lite-03: negotiated by ALPN, hop counts, group ranges, PROBE.
    V03,
    /// moq-lite-04: hop ids, GOAWAY, round-trip time in PROBE.
    V04,
    /// moq-lite-05: SETUP, timestamps, TRACK, FETCH, datagrams.
    V05,
    /// moq-lite-06: announce ids, route costs, frame ranges.
    V06,
}

impl Version {
    /// Versions with their own ALPN name, newest first.
    pub const ALL: &'static [Self] = &[Self::V06, Self::V05, Self::V04, Self::V03];

    /// Versions negotiated in the session's first stream ([`legacy`]), newest first.
    pub const LEGACY: &'static [Self] = &[Self::V02, Self::V01];

    /// Returns all versions, newest first.
    pub fn every() -> impl DoubleEndedIterator<Item = Self> + Clone {
        Self::ALL.iter().chain(Self::LEGACY).copied()
    }

    /// Returns the name of the version.
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

    /// Returns the name in ALPN and in WebTransport and WebSocket subprotocols. The versions of [`Self::LEGACY`]
    /// share one name.
    pub const fn alpn(self) -> &'static str {
        match self {
            Self::V01 | Self::V02 => legacy::ALPN,
            named => named.name(),
        }
    }

    /// Returns the version that an ALPN name selects; `None` for unknown and shared names.
    pub fn from_alpn(alpn: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|version| version.alpn() == alpn)
    }

    /// Whether a session begins with the SETUP exchange of [`legacy`], whose stream stays open as long as the
    /// session.
    pub const fn has_legacy_setup(self) -> bool {
        matches!(self, Self::V01 | Self::V02)
    }

    /// Whether an announce stream begins with [`AnnounceInit`].
    pub fn has_announce_init(self) -> bool {
        self <= Self::V02
    }

    /// Whether announces carry a hop chain, or at least its length.
    pub fn has_hops(self) -> bool {
        self >= Self::V03
    }

    /// Whether a subscription carries a group range and a maximum age and can be updated
    /// ([`SubscribeUpdate`]); otherwise it carries only a priority.
    pub fn has_ranges(self) -> bool {
        self >= Self::V03
    }

    /// Whether subscribe responses have a type, which makes [`SubscribeResponse::Drop`] possible; otherwise
    /// there is a single untyped response.
    pub fn has_drops(self) -> bool {
        self >= Self::V03
    }

    /// Whether [`SubscribeOk`] has fields.
    pub fn has_ok_fields(self) -> bool {
        self != Self::V02
    }

    /// Whether the peer's bitrate estimate can be requested ([`Probe`]).
    pub fn has_probe(self) -> bool {
        self >= Self::V03
    }

    /// Whether each side sends a [`Setup`].
    pub fn has_setup(self) -> bool {
        self >= Self::V05
    }

    /// Whether an announce stream begins with [`AnnounceOk`], whose sender id is omitted from the hop chains.
    pub fn has_announce_ok(self) -> bool {
        self >= Self::V05
    }

    /// Whether hop chains carry ids; otherwise at most their length.
    pub fn has_hop_ids(self) -> bool {
        self >= Self::V04
    }

    /// Whether an [`AnnounceRequest`] carries the requester's hop id; moq-lite-06 carries it in [`Setup`].
    pub fn has_exclude_hop(self) -> bool {
        matches!(self, Self::V04 | Self::V05)
    }

    /// Whether announces have ids, can be updated, and carry a route cost.
    pub fn has_announce_ids(self) -> bool {
        self >= Self::V06
    }

    /// Whether a live announce may be replaced in place; otherwise it must end first.
    pub fn replaces_announces(self) -> bool {
        self >= Self::V05
    }

    /// Whether TRACK and FETCH streams are served.
    pub fn has_tracks(self) -> bool {
        self >= Self::V05
    }

    /// Whether frames carry timestamps. The same versions have datagrams.
    pub fn has_timestamps(self) -> bool {
        self >= Self::V05
    }

    /// Whether a subscription is accepted with [`SubscribeResponse::Ok`]; later versions accept implicitly and
    /// report the first and the last group.
    pub fn has_subscribe_ok(self) -> bool {
        self <= Self::V04
    }

    /// Whether groups and ranges can begin or end at a frame inside a group.
    pub fn has_frame_ranges(self) -> bool {
        self >= Self::V06
    }

    /// Whether a subscription can ask for older groups first (the `ordered` byte).
    pub fn has_order_hint(self) -> bool {
        (Self::V03..=Self::V05).contains(&self)
    }

    /// Whether a [`Probe`] carries the round-trip time.
    pub fn has_round_trips(self) -> bool {
        self >= Self::V04
    }

    /// Whether [`Goaway`] exists.
    pub fn has_goaway(self) -> bool {
        self >= Self::V04
    }
}

/// Type of a bidirectional stream, its first integer (draft-lcurley-moq-lite-05, Bidirectional Streams).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BidiType {
    /// Broadcasts below a prefix: [`AnnounceRequest`], answered by [`AnnounceOk`] and [`Announce`]s.
    Announce = 1,
    /// Groups of a track: [`Subscribe`] and [`SubscribeUpdate`]s, answered by [`SubscribeResponse`]s.
    Subscribe = 2,
    /// One group: [`Fetch`], answered by frames without a group header.
    Fetch = 3,
    /// Measurements of the connection: no request message, answered by [`Probe`]s.
    Probe = 4,
    /// Graceful shutdown: [`Goaway`].
    Goaway = 5,
    /// Properties of a track: [`TrackRequest`], answered by [`relay_model::TrackInfo`].
    Track = 6,
}

impl BidiType {
    /// Returns the stream type on the wire.
    pub const fn id(self) -> u64 {
        self as u64
    }

    /// Returns the type with this number, if `version` has it. FETCH exists on moq-lite-03 and 04 too, but
    /// deployed publishers refuse it there.
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

/// Type of a unidirectional stream, its first integer (draft-lcurley-moq-lite-05, Unidirectional Streams).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UniType {
    /// [`Group`] header and frames, parsed by [`GroupReader`].
    Group = 0,
    /// [`Setup`] message.
    Setup = 1,
}

impl UniType {
    /// Returns the stream type on the wire.
    pub const fn id(self) -> u64 {
        self as u64
    }

    /// Returns the type with this number, if `version` has it.
    pub fn from_id(version: Version, id: u64) -> Option<Self> {
        Some(match id {
            0 => Self::Group,
            1 if version.has_setup() => Self::Setup,
            _ => return None,
        })
    }
}

/// Size-prefixed control message (draft-lcurley-moq-lite-05, Message Length).
///
/// [`SubscribeResponse`] and [`Announce`] do not implement it: they may have a type before the size.
pub trait Message: Sized {
    /// Decodes a body without its size prefix, which must be consumed to the last byte.
    fn decode(version: Version, body: &[u8]) -> Result<Self, DecodeError>;

    /// Appends the message with its size prefix.
    fn encode(&self, version: Version, out: &mut Vec<u8>);
}

/// Codec of the fields of a message, without its size prefix.
pub(crate) trait Body: Sized {
    fn read(version: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError>;
    fn write(&self, version: Version, out: &mut Vec<u8>);
}

impl<T: Body> Message for T {
    fn decode(version: Version, body: &[u8]) -> Result<Self, DecodeError> {
        let mut input = BodyReader::new(body);
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
