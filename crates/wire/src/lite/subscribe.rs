//! The subscribe stream: what of a track is wanted, and which of it there is.

use bytes::Bytes;
use relay_model::{Path, Prefs, TrackName};

use super::{Body, Version};
use crate::{
    Error, Inbox,
    body::{Reader, put_flag, put_opt, put_sized, put_str},
    varint,
};

const START: u64 = 0;
const END: u64 = 1;
const DROP: u64 = 2;

/// Asks for the groups of a track.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// The subscriber's number for it; groups name it.
    pub id: u64,
    /// Path of the broadcast.
    pub broadcast: Path,
    /// Track in it.
    pub track: TrackName,
    /// Which groups, and how.
    pub prefs: Prefs,
}

/// New preferences of the subscription of the same stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeUpdate {
    /// All of them, changed or not.
    pub prefs: Prefs,
}

/// What a publisher says of a subscription besides its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeResponse {
    /// The first group is known.
    Start {
        /// Its sequence.
        group: u64,
    },
    /// The track is over.
    End {
        /// One past the last group; 0 = there never was one.
        group: u64,
    },
    /// These groups will not come.
    Drop {
        /// The first.
        start: u64,
        /// The last, inclusive; not below `start`.
        end: u64,
        /// Why, as the publisher numbers it.
        code: u64,
    },
}

impl SubscribeResponse {
    /// Takes one response. `None` until it is whole. An unknown type is an error: it cannot be
    /// skipped.
    pub fn next(inbox: &mut Inbox, version: Version) -> Result<Option<Self>, Error> {
        let Some((kind, body)) = inbox.next_typed(|kind| matches!(kind, START | END | DROP))? else {
            return Ok(None);
        };
        Self::decode(version, kind, &body).map(Some)
    }

    /// Appends the response with its type and size.
    pub fn encode(&self, _: Version, out: &mut Vec<u8>) {
        let (kind, fields, count) = match *self {
            Self::Start { group } => (START, [group, 0, 0], 1),
            Self::End { group } => (END, [group, 0, 0], 1),
            Self::Drop { start, end, code } => (DROP, [start, end, code], 3),
        };
        varint::put(kind, out);
        put_sized(out, |out| fields.iter().take(count).for_each(|field| varint::put(*field, out)));
    }

    fn decode(_: Version, kind: u64, body: &Bytes) -> Result<Self, Error> {
        let mut input = Reader::new(body);
        let response = match kind {
            START => Self::Start { group: input.varint()? },
            END => Self::End { group: input.varint()? },
            DROP => Self::Drop { start: input.varint()?, end: input.varint()?, code: input.varint()? },
            _ => return Err(Error::UnknownResponse),
        };
        input.end()?;
        match response {
            Self::Drop { start, end, .. } if end < start => Err(Error::Value("dropped range")),
            response => Ok(response),
        }
    }
}

impl Body for Subscribe {
    fn read(version: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            id: input.varint()?,
            broadcast: input.path()?,
            track: input.track()?,
            prefs: read_prefs(version, input)?,
        })
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        varint::put(self.id, out);
        put_str(self.broadcast.as_str(), out);
        put_str(self.track.as_str(), out);
        put_prefs(version, &self.prefs, out);
    }
}

impl Body for SubscribeUpdate {
    fn read(version: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self { prefs: read_prefs(version, input)? })
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        put_prefs(version, &self.prefs, out);
    }
}

fn read_prefs(_: Version, input: &mut Reader<'_>) -> Result<Prefs, Error> {
    Ok(Prefs {
        priority: input.u8()?,
        ordered: input.flag()?,
        max_age_ms: input.varint()?,
        start: input.opt()?,
        end: input.opt()?,
    })
}

fn put_prefs(_: Version, prefs: &Prefs, out: &mut Vec<u8>) {
    out.push(prefs.priority);
    put_flag(prefs.ordered, out);
    varint::put(prefs.max_age_ms, out);
    put_opt(prefs.start, out);
    put_opt(prefs.end, out);
}
