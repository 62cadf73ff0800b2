//! The subscribe stream: what of a track is wanted, and which of it there is.

use relay_model::{Path, Prefs, Start, TrackName};

use super::{Body, Version};
use crate::{
    Error, Inbox,
    body::{Reader, put_flag, put_opt, put_sized, put_str, whole},
    varint,
};

/// What a subscription that says no age is taken to mean, ms: as long as publishers keep a group by
/// themselves. It begins with the latest.
const UNSAID_AGE_MS: u64 = 5_000;

const OK: u64 = 0;
const OK_DROP: u64 = 1;
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

/// Accepts a subscription (before moq-lite-05; 02 says that much and no more, 01 its priority): what the publisher makes of the preferences. Peers echo
/// the priority and leave the rest at zero.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOk {
    /// Publisher priority, higher wins.
    pub priority: u8,
    /// Whether groups are meant to be delivered in order.
    pub ordered: bool,
    /// How long a superseded group stays useful, in ms.
    pub max_age_ms: u64,
    /// First group, if known.
    pub start: Option<u64>,
    /// Last group, if known.
    pub end: Option<u64>,
}

/// What a publisher says of a subscription besides its groups.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeResponse {
    /// It is served (before moq-lite-05); first response.
    Ok(SubscribeOk),
    /// The first group is known (moq-lite-05 and later).
    Start {
        /// Its sequence.
        group: u64,
    },
    /// The track is over (moq-lite-05 and later; before, a FIN says so).
    End {
        /// One past the last group; 0 = there never was one.
        group: u64,
    },
    /// These groups will not come (from moq-lite-03 on).
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
        if !version.has_drops() {
            let body = inbox.next_message()?;
            return body.map(|body| whole(&body, |input| Self::read(version, OK, input))).transpose();
        }
        let known: fn(u64) -> bool = match version.has_subscribe_ok() {
            true => |kind| matches!(kind, OK | OK_DROP),
            false => |kind| matches!(kind, START | END | DROP),
        };
        let Some((kind, body)) = inbox.next_typed(known)? else { return Ok(None) };
        let response = whole(&body, |input| Self::read(version, kind, input))?;
        match response {
            Self::Drop { start, end, .. } if end < start => Err(Error::Value("dropped range")),
            response => Ok(Some(response)),
        }
    }

    /// Appends the response with its type and size. What `version` has no form for is a bug of the
    /// caller's, and is left out.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        let old = version.has_subscribe_ok();
        let kind = match self {
            Self::Ok(_) if old => OK,
            Self::Drop { .. } if old && version.has_drops() => OK_DROP,
            Self::Start { .. } if !old => START,
            Self::End { .. } if !old => END,
            Self::Drop { .. } if !old => DROP,
            Self::Ok(_) | Self::Start { .. } | Self::End { .. } | Self::Drop { .. } => {
                debug_assert!(false, "{self:?} on {version:?}");
                return;
            }
        };
        if version.has_drops() {
            varint::put(kind, out);
        }
        put_sized(out, |out| match *self {
            Self::Ok(_) if !version.has_ok_fields() => {}
            Self::Ok(ok) if !version.has_drops() => out.push(ok.priority),
            Self::Ok(ok) => {
                out.push(ok.priority);
                put_flag(ok.ordered, out);
                varint::put(ok.max_age_ms, out);
                put_opt(ok.start, out);
                put_opt(ok.end, out);
            }
            Self::Start { group } | Self::End { group } => varint::put(group, out),
            Self::Drop { start, end, code } => {
                [start, end, code].into_iter().for_each(|field| varint::put(field, out));
            }
        });
    }

    fn read(version: Version, kind: u64, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(match (version.has_subscribe_ok(), kind) {
            (true, OK) if !version.has_ok_fields() => Self::Ok(SubscribeOk::default()),
            (true, OK) if !version.has_drops() => {
                Self::Ok(SubscribeOk { priority: input.u8()?, ..SubscribeOk::default() })
            }
            (true, OK) => Self::Ok(SubscribeOk {
                priority: input.u8()?,
                ordered: input.flag()?,
                max_age_ms: input.varint()?,
                start: input.opt()?,
                end: input.opt()?,
            }),
            (false, START) => Self::Start { group: input.varint()? },
            (false, END) => Self::End { group: input.varint()? },
            _ => Self::Drop { start: input.varint()?, end: input.varint()?, code: input.varint()? },
        })
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

fn read_prefs(version: Version, input: &mut Reader<'_>) -> Result<Prefs, Error> {
    if !version.has_ranges() {
        return Ok(Prefs { priority: input.u8()?, max_age_ms: UNSAID_AGE_MS, ..Prefs::default() });
    }
    if !version.has_frame_ranges() {
        return Ok(Prefs {
            priority: input.u8()?,
            ordered: input.flag()?,
            max_age_ms: input.varint()?,
            start: input.opt()?.map_or(Start::Latest, Start::Group),
            end: input.opt()?,
            ..Prefs::default()
        });
    }
    let prefs = Prefs {
        priority: input.u8()?,
        ordered: false,
        max_age_ms: input.varint()?,
        start: Start::Fresh { floor: input.varint()? },
        end: input.opt()?,
        start_frame: input.varint()?,
        end_frame: input.opt()?,
    };
    if prefs.end_frame.is_some() && prefs.end.is_none() {
        return Err(Error::Value("end frame without an end group"));
    }
    Ok(prefs)
}

/// Appends them as `version` can say them.
///
/// A start that it has no form for becomes the nearest one: on moq-lite-06 the latest becomes no floor and
/// a group its floor; before, a floor becomes the group to begin with, and no floor the latest. So what a
/// subscriber without wishes asks in one version is what it would ask in the other.
fn put_prefs(version: Version, prefs: &Prefs, out: &mut Vec<u8>) {
    out.push(prefs.priority);
    if !version.has_ranges() {
        return;
    }
    if version.has_frame_ranges() {
        let floor = prefs.start.floor();
        varint::put(prefs.max_age_ms, out);
        varint::put(floor.unwrap_or(0).min(varint::MAX), out);
        put_opt(prefs.end, out);
        // With no floor, it would be read as a frame of group 0.
        varint::put(floor.map_or(0, |_| prefs.start_frame).min(varint::MAX), out);
        put_opt(prefs.end_frame.filter(|_| prefs.end.is_some()), out);
        return;
    }
    put_flag(prefs.ordered, out);
    varint::put(prefs.max_age_ms, out);
    put_opt(prefs.start.floor().filter(|_| prefs.start != Start::Fresh { floor: 0 }), out);
    put_opt(prefs.end, out);
}
