//! The announce stream: which broadcasts there are below a prefix.

use relay_model::{Cost, Hop, Hops, Path, limits};

use super::{Body, Version};
use crate::{
    Error, Inbox,
    body::{Reader, put_cost, put_hops, put_sized, put_str, whole},
    varint,
};

/// Asks for the broadcasts below `prefix`, now and later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// What suffixes are relative to.
    pub prefix: Path,
    /// Routes through this hop are of no use to the asker; anonymous = none. Travels on moq-lite-04 and
    /// 05 only.
    pub exclude_hop: Hop,
}

/// First answer to an [`AnnounceRequest`] on moq-lite-01 and 02: all that is there at the time.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AnnounceInit {
    /// Paths below the prefix asked for; none may come twice. At most [`Self::MOST`].
    pub suffixes: Vec<Path>,
}

impl AnnounceInit {
    /// Paths of a list. More than a session routes by default, since a list of any length must not cost the
    /// session; [`limits::CONTROL_MESSAGE_BYTES`] bounds what it may take.
    pub const MOST: usize = limits::CONTROL_MESSAGE_BYTES / 8;
}

/// First answer to an [`AnnounceRequest`], from moq-lite-05 on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceOk {
    /// The sender's id; not in the chains that follow, the receiver appends it.
    pub hop: Hop,
    /// How many [`Announce`]s that follow make up the initial set.
    pub count: u64,
}

/// One broadcast came, changed its route, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Announce {
    /// There. For a path already there: its route is replaced in place (moq-lite-05; earlier ones want it
    /// ended first, 06 has [`Announce::Restart`]). On moq-lite-06 it takes the stream's next number,
    /// from 0.
    Active {
        /// Path below the prefix asked for.
        suffix: Path,
        /// Chain, original publisher first. On moq-lite-05 and later without the sender. On moq-lite-03
        /// only its length travels: all anonymous. Before, nothing: empty.
        hops: Hops,
        /// Its price without this link; [`Cost::UNKNOWN`] before moq-lite-06.
        cost: Cost,
    },
    /// Gone (before moq-lite-06).
    Ended {
        /// Path below the prefix asked for.
        suffix: Path,
    },
    /// The route of a live announce changed (moq-lite-06).
    Restart {
        /// The announce's number on this stream.
        id: u64,
        /// Its new chain, without the sender.
        hops: Hops,
        /// Its new price.
        cost: Cost,
    },
    /// A live announce is over (moq-lite-06).
    EndedId {
        /// The announce's number on this stream; never used again.
        id: u64,
    },
}

const ENDED: u64 = 0;
const ACTIVE: u64 = 1;
/// An older word for a second [`ACTIVE`].
const REPLACED: u64 = 2;

const START: u64 = 0;
const END: u64 = 1;
const RESTART: u64 = 2;

impl Announce {
    /// Takes one announce. `None` until it is whole. On moq-lite-06 types that are not known are
    /// passed over.
    pub fn next(inbox: &mut Inbox, version: Version) -> Result<Option<Self>, Error> {
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

    /// Appends it, in the form that `version` has for it. The forms of other versions are a bug of the
    /// caller's, and are left out.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        if version.has_announce_ids() { self.put_typed(out) } else { self.put_status(version, out) }
    }

    fn read_status(version: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
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
            _ => Err(Error::Value("announce status")),
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

    fn read_typed(kind: u64, input: &mut Reader<'_>) -> Result<Self, Error> {
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
    fn read(version: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
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
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        let count = usize::try_from(input.varint()?).unwrap_or(usize::MAX);
        if count > Self::MOST {
            return Err(Error::TooManyAnnounces);
        }
        let mut suffixes = Vec::with_capacity(count.min(input.rest()));
        for _ in 0..count {
            let suffix = input.path()?;
            if suffix.as_str().is_empty() && suffixes.iter().any(|other: &Path| other.as_str().is_empty()) {
                // It takes one byte: a list of nothing else would cost us far more than its sender.
                return Err(Error::Value("announce list"));
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
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self { hop: input.hop()?, count: input.varint()? })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        varint::put(self.hop.0, out);
        varint::put(self.count, out);
    }
}
