//! Messages of the announce stream, which lists the broadcasts below a prefix.

use relay_model::{Cost, Hop, Hops, Path, limits};

use super::{Body, Version};
use crate::{
    DecodeError, MessageBuf,
    body::{BodyReader, put_cost, put_hops, put_sized, put_str, whole},
    varint,
};

/// Request for the broadcasts below `prefix`, present and future (draft-lcurley-moq-lite-03,
/// ANNOUNCE_PLEASE; draft-lcurley-moq-lite-05, ANNOUNCE_REQUEST).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// Prefix to which the announced suffixes are relative.
    pub prefix: Path,
    /// Hop whose routes the requester does not want (its own id); anonymous = none. On the wire on moq-lite-04
    /// and 05 only.
    pub exclude_hop: Hop,
}

/// First response to an [`AnnounceRequest`] on moq-lite-01 and 02: the broadcasts active at the time
/// (draft-lcurley-moq-lite-02, ANNOUNCE_INIT).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceInit {
    /// Paths below the requested prefix, without duplicates. At most [`Self::MOST`].
    pub suffixes: Vec<Path>,
}

impl AnnounceInit {
    /// Limit of paths in a list: more than a session routes by default, so that a long list does not end the
    /// session. [`limits::CONTROL_MESSAGE_BYTES`] bounds the memory.
    pub const MOST: usize = limits::CONTROL_MESSAGE_BYTES / 8;
}

/// First response to an [`AnnounceRequest`] from moq-lite-05 on (draft-lcurley-moq-lite-05, ANNOUNCE_OK).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceOk {
    /// Hop id of the sender. Not in the chains that follow: the receiver appends it.
    pub hop: Hop,
    /// Number of following [`Announce`]s that make up the initial set.
    pub count: u64,
}

/// Advertisement, update or withdrawal of one broadcast (draft-lcurley-moq-lite-03, ANNOUNCE; moq-lite-06:
/// deployed relays, captured).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announce {
    /// The broadcast is available. On moq-lite-05 a second one for a live path replaces its route in place;
    /// earlier versions must end it first, 06 has [`Announce::Restart`]. On moq-lite-06 it takes the next
    /// announce id of the stream, from 0.
    Active {
        /// Path below the requested prefix.
        suffix: Path,
        /// Hop chain, original publisher first; on moq-lite-05 and later without the sender. On moq-lite-03
        /// only the length is on the wire, and all hops are anonymous. Empty on 01 and 02.
        hops: Hops,
        /// Route cost without this link; [`Cost::UNKNOWN`] before moq-lite-06.
        cost: Cost,
    },
    /// The broadcast is no longer available (before moq-lite-06).
    Ended {
        /// Path below the requested prefix.
        suffix: Path,
    },
    /// The route of a live announce changed (moq-lite-06: deployed relays, captured; ANNOUNCE_UPDATE in the
    /// draft).
    Restart {
        /// Announce id on this stream.
        id: u64,
        /// New hop chain, without the sender.
        hops: Hops,
        /// New route cost.
        cost: Cost,
    },
    /// A live announce ended (moq-lite-06: deployed relays, captured).
    EndedId {
        /// Announce id on this stream; never reused.
        id: u64,
    },
}

// Announce status before moq-lite-06 (draft-lcurley-moq-lite-03, ANNOUNCE).
const ENDED: u64 = 0;
const ACTIVE: u64 = 1;
/// Obsolete status for a second [`ACTIVE`]; accepted, never sent.
const REPLACED: u64 = 2;

// Message types of moq-lite-06 (deployed relays, captured).
const START: u64 = 0;
const END: u64 = 1;
const RESTART: u64 = 2;

impl Announce {
    /// Takes one announce. `None` while it is incomplete. On moq-lite-06 unknown types are skipped.
    pub fn next(inbox: &mut MessageBuf, version: Version) -> Result<Option<Self>, DecodeError> {
        if !version.has_announce_ids() {
            let body = inbox.next_message()?;
            return body.map(|body| whole(&body, |input| Self::read_status(version, input))).transpose();
        }
        while let Some((kind, body)) = inbox.next_typed(|_| true)? {
            if matches!(kind, START | END | RESTART) {
                return whole(&body, |input| Self::read_typed(kind, input)).map(Some);
            }
        }
        Ok(None)
    }

    /// Appends the announce in the encoding of `version`. A variant that `version` does not have is a bug of the
    /// caller and appends nothing.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if version.has_announce_ids() { self.put_typed(out) } else { self.put_status(version, out) }
    }

    fn read_status(version: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        let status = input.varint()?;
        let suffix = input.path()?;
        let hops = match (version.has_hops(), version.has_hop_ids()) {
            (false, _) => [].into(),
            (_, false) => input.hop_count()?,
            (_, true) => input.hops()?,
        };
        match status {
            ENDED => Ok(Self::Ended { suffix }),
            ACTIVE | REPLACED => Ok(Self::Active { suffix, hops, cost: Cost::UNKNOWN }),
            _ => Err(DecodeError::Value("announce status")),
        }
    }

    fn put_status(&self, version: Version, out: &mut Vec<u8>) {
        let (status, suffix, hops) = match self {
            Self::Active { suffix, hops, .. } => (ACTIVE, suffix, &hops[..]),
            Self::Ended { suffix } => (ENDED, suffix, &[][..]),
            Self::Restart { .. } | Self::EndedId { .. } => {
                debug_assert!(false, "{self:?} on {version:?}");
                return;
            }
        };
        put_sized(out, |out| {
            varint::put(status, out);
            put_str(suffix.as_str(), out);
            match (version.has_hops(), version.has_hop_ids()) {
                (false, _) => {}
                (_, false) => varint::put(hops.len() as u64, out),
                (_, true) => put_hops(hops, out),
            }
        });
    }

    fn read_typed(kind: u64, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        Ok(match kind {
            START => Self::Active { suffix: input.path()?, hops: input.hops()?, cost: input.cost()? },
            RESTART => Self::Restart { id: input.varint()?, hops: input.hops()?, cost: input.cost()? },
            _ => Self::EndedId { id: input.varint()? },
        })
    }

    fn put_typed(&self, out: &mut Vec<u8>) {
        let kind = match self {
            Self::Active { .. } => START,
            Self::Restart { .. } => RESTART,
            Self::EndedId { .. } => END,
            Self::Ended { .. } => {
                debug_assert!(false, "{self:?} has no number");
                return;
            }
        };
        varint::put(kind, out);
        put_sized(out, |out| match self {
            Self::Active { suffix, hops, cost } => {
                put_str(suffix.as_str(), out);
                put_hops(hops, out);
                put_cost(*cost, out);
            }
            Self::Restart { id, hops, cost } => {
                varint::put(*id, out);
                put_hops(hops, out);
                put_cost(*cost, out);
            }
            Self::EndedId { id } => varint::put(*id, out),
            Self::Ended { .. } => {}
        });
    }
}

impl Body for AnnounceRequest {
    fn read(version: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        let prefix = input.path()?;
        let exclude_hop = if version.has_exclude_hop() { input.hop()? } else { Hop::ANONYMOUS };
        Ok(Self { prefix, exclude_hop })
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        put_str(self.prefix.as_str(), out);
        if version.has_exclude_hop() {
            varint::put(self.exclude_hop.0, out);
        }
    }
}

impl Body for AnnounceInit {
    fn read(_: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        let count = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
        if count > Self::MOST {
            return Err(DecodeError::TooManyAnnounces);
        }
        let mut suffixes = Vec::with_capacity(count.min(input.rest()));
        for _ in 0..count {
            let suffix = input.path()?;
            if suffix.as_str().is_empty() && suffixes.iter().any(|other: &Path| other.as_str().is_empty()) {
                // An empty suffix takes one byte on the wire but far more in memory: reject repetitions.
                return Err(DecodeError::Value("announce list"));
            }
            suffixes.push(suffix);
        }
        Ok(Self { suffixes })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        varint::put(self.suffixes.len() as u64, out);
        for suffix in &self.suffixes {
            put_str(suffix.as_str(), out);
        }
    }
}

impl Body for AnnounceOk {
    fn read(_: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { hop: input.hop()?, count: input.varint()? })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        varint::put(self.hop.0, out);
        varint::put(self.count, out);
    }
}
