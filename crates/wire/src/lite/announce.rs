//! The announce stream: which broadcasts there are below a prefix.

use relay_model::{Hop, Hops, Path};

use super::{Body, Version};
use crate::{
    Error,
    body::{Reader, put_hops, put_str},
    varint,
};

/// Asks for the broadcasts below `prefix`, now and later.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnounceRequest {
    /// What suffixes are relative to.
    pub prefix: Path,
    /// Routes through this hop are of no use to the asker; anonymous = none.
    pub exclude_hop: Hop,
}

/// First answer to an [`AnnounceRequest`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AnnounceOk {
    /// The sender's id; not in the chains that follow, the receiver appends it.
    pub hop: Hop,
    /// How many [`Announce`]s that follow make up the initial set.
    pub count: u64,
}

/// One broadcast came, changed its route, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announce {
    /// Which of these.
    pub status: Status,
    /// Path below the prefix asked for.
    pub suffix: Path,
    /// Chain without the sender, original publisher first; empty when ended.
    pub hops: Hops,
}

/// State of an announced broadcast.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Gone.
    Ended,
    /// There; for a path already there: its route is replaced in place.
    Active,
}

impl Status {
    const fn id(self) -> u64 {
        match self {
            Self::Ended => 0,
            Self::Active => 1,
        }
    }

    /// 2 is an older word for a second "active".
    const fn from_id(id: u64) -> Option<Self> {
        match id {
            0 => Some(Self::Ended),
            1 | 2 => Some(Self::Active),
            _ => None,
        }
    }
}

impl Body for AnnounceRequest {
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self { prefix: input.path()?, exclude_hop: input.hop()? })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        put_str(self.prefix.as_str(), out);
        varint::put(self.exclude_hop.0, out);
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

impl Body for Announce {
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        let status = Status::from_id(input.varint()?).ok_or(Error::Value("announce status"))?;
        Ok(Self { status, suffix: input.path()?, hops: input.hops()? })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        varint::put(self.status.id(), out);
        put_str(self.suffix.as_str(), out);
        put_hops(&self.hops, out);
    }
}
