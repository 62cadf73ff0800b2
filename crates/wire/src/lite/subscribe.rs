//! Messages of the subscribe stream.

use relay_model::{Path, Prefs, Start, TrackName};

use super::{Body, Version};
use crate::{
    DecodeError, MessageBuf,
    body::{BodyReader, put_flag, put_opt, put_sized, put_str, whole},
    varint,
};

/// Maximum age in ms assumed for subscriptions without that field (moq-lite-01 and 02): the default cache
/// duration of publishers. Such subscriptions start at the latest group.
const DEFAULT_AGE_MS: u64 = 5_000;

// Response types: moq-lite-03 and 04 (OK, OK_DROP; draft-lcurley-moq-lite-03, SUBSCRIBE_DROP), and from
// moq-lite-05 on (START, called SUBSCRIBE_OK there, END, DROP; draft-lcurley-moq-lite-05).
const OK: u64 = 0;
const OK_DROP: u64 = 1;
const START: u64 = 0;
const END: u64 = 1;
const DROP: u64 = 2;

/// Request for the groups of a track (draft-lcurley-moq-lite-03, SUBSCRIBE; moq-lite-06: deployed relays,
/// captured).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subscribe {
    /// Subscribe id, chosen by the subscriber and carried by every group.
    pub id: u64,
    /// Path of the broadcast.
    pub broadcast: Path,
    /// Name of the track.
    pub track: TrackName,
    /// Range, priority and maximum age.
    pub prefs: Prefs,
}

/// New preferences of the subscription on the same stream (draft-lcurley-moq-lite-03, SUBSCRIBE_UPDATE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SubscribeUpdate {
    /// All preferences, changed or not.
    pub prefs: Prefs,
}

/// Acceptance of a subscription before moq-lite-05, with the publisher's preferences: only the priority on
/// 01, empty on 02 (draft-lcurley-moq-lite-03, SUBSCRIBE_OK). Deployed peers echo the priority and leave the
/// other fields 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SubscribeOk {
    /// Publisher priority; higher values are sent first.
    pub priority: u8,
    /// Whether older groups are to be sent first.
    pub ordered: bool,
    /// Maximum age in ms of a group that is not the latest.
    pub max_age_ms: u64,
    /// First group sequence, if known.
    pub start: Option<u64>,
    /// Last group sequence, inclusive, if known.
    pub end: Option<u64>,
}

/// Message from the publisher on the subscribe stream (draft-lcurley-moq-lite-05, SUBSCRIBE_OK,
/// SUBSCRIBE_END and SUBSCRIBE_DROP).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SubscribeResponse {
    /// The subscription is accepted (before moq-lite-05); first response.
    Ok(SubscribeOk),
    /// The first group is known (moq-lite-05 and later; SUBSCRIBE_OK in the draft).
    Start {
        /// Group sequence.
        group: u64,
    },
    /// The track ended (moq-lite-05 and later; earlier versions send only a FIN).
    End {
        /// One past the last group sequence; 0 = no group was produced.
        group: u64,
    },
    /// A range of groups will not be delivered (moq-lite-03 and later).
    Drop {
        /// First group sequence.
        start: u64,
        /// Last group sequence, inclusive; not below `start`.
        end: u64,
        /// Error code of the publisher.
        code: u64,
    },
}

impl SubscribeResponse {
    /// Takes one response. `None` while it is incomplete. An unknown type is an error.
    pub fn next(inbox: &mut MessageBuf, version: Version) -> Result<Option<Self>, DecodeError> {
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
            Self::Drop { start, end, .. } if end < start => Err(DecodeError::Value("dropped range")),
            response => Ok(Some(response)),
        }
    }

    /// Appends the response with its type and size. A variant that `version` does not have is a bug of the
    /// caller and appends nothing.
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

    fn read(version: Version, kind: u64, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
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
    fn read(version: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
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
    fn read(version: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { prefs: read_prefs(version, input)? })
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        put_prefs(version, &self.prefs, out);
    }
}

fn read_prefs(version: Version, input: &mut BodyReader<'_>) -> Result<Prefs, DecodeError> {
    if !version.has_ranges() {
        return Ok(Prefs { priority: input.u8()?, max_age_ms: DEFAULT_AGE_MS, ..Prefs::default() });
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
        return Err(DecodeError::Value("end frame: no end group"));
    }
    Ok(prefs)
}

/// Appends the preferences in the encoding of `version`.
///
/// A start that `version` cannot express becomes the nearest one. On moq-lite-06 `Latest` becomes floor 0 and
/// `Group` a floor; earlier versions encode a floor as the start group, and floor 0 as the latest. The
/// default start of one version therefore maps to the default of the other.
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
        // Without a floor the peer would read the frame as one of group 0.
        varint::put(floor.map_or(0, |_| prefs.start_frame).min(varint::MAX), out);
        put_opt(prefs.end_frame.filter(|_| prefs.end.is_some()), out);
        return;
    }
    put_flag(prefs.ordered, out);
    varint::put(prefs.max_age_ms, out);
    put_opt(prefs.start.floor().filter(|_| prefs.start != Start::Fresh { floor: 0 }), out);
    put_opt(prefs.end, out);
}
