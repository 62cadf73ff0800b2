//! The two tables of a session that grow with what its peer sends. Both count the bytes they hold.

use std::collections::{HashMap, hash_map};

use foldhash::fast::RandomState;
use relay_model::Path;

use crate::{
    footprint::{ANNOUNCE, HOP, STREAM},
    intake::Heard,
    session::Role,
    transport::Stream,
};

/// Open streams and what each is for.
#[derive(Debug, Default)]
pub(crate) struct StreamTable {
    roles: HashMap<Stream, Role, RandomState>,
    bytes: u64,
}

impl StreamTable {
    pub(crate) fn insert(&mut self, stream: Stream, role: Role) {
        self.bytes += role.footprint();
        if let Some(before) = self.roles.insert(stream, role) {
            self.bytes -= before.footprint();
        }
    }

    pub(crate) fn remove(&mut self, stream: &Stream) -> Option<Role> {
        let role = self.roles.remove(stream)?;
        self.bytes -= role.footprint();
        Some(role)
    }

    pub(crate) fn get(&self, stream: &Stream) -> Option<&Role> {
        self.roles.get(stream)
    }

    /// The group that is received on `stream`. Its footprint does not change: payload has a budget of its own.
    pub(crate) fn group_mut(&mut self, stream: Stream) -> Option<&mut crate::ingest::Ingest> {
        match self.roles.get_mut(&stream)? {
            Role::Group(ingest) => Some(ingest),
            _ => None,
        }
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Stream, &Role) -> bool) {
        let bytes = &mut self.bytes;
        self.roles.retain(|stream, role| {
            let kept = keep(stream, role);
            if !kept {
                *bytes -= role.footprint();
            }
            kept
        });
    }

    pub(crate) fn iter(&self) -> hash_map::Iter<'_, Stream, Role> {
        self.roles.iter()
    }

    /// Memory held for the streams.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Role {
    /// Memory held for the stream. Streams that the relay opened cost their unparsed bytes only: what they are
    /// for is charged to the session that asked for it.
    fn footprint(&self) -> u64 {
        match self {
            Self::Request(inlet, _)
            | Self::Header(inlet)
            | Self::Setup(inlet)
            | Self::ClientSetup(inlet)
            | Self::Session(inlet)
            | Self::Watch(inlet)
            | Self::Sub(_, inlet)
            | Self::Probe(inlet) => STREAM + inlet.inbox.len() as u64,
            Self::Group(_) => STREAM,
            Self::Intake(inlet, _) | Self::TrackUp(inlet, _) | Self::SubscribeUp(inlet, _) => {
                inlet.inbox.len() as u64
            }
            Self::FetchUp(_) | Self::Said => 0,
        }
    }
}

/// Broadcasts that the peer announces, whether core routes them or not.
#[derive(Debug, Default)]
pub(crate) struct HeardTable {
    paths: HashMap<Path, Heard, RandomState>,
    bytes: u64,
}

impl HeardTable {
    pub(crate) fn len(&self) -> usize {
        self.paths.len()
    }

    pub(crate) fn contains_key(&self, path: &Path) -> bool {
        self.paths.contains_key(path)
    }

    pub(crate) fn get(&self, path: &Path) -> Option<&Heard> {
        self.paths.get(path)
    }

    /// The caller leaves the hop chain as it is.
    pub(crate) fn get_mut(&mut self, path: &Path) -> Option<&mut Heard> {
        self.paths.get_mut(path)
    }

    pub(crate) fn insert(&mut self, path: Path, heard: Heard) {
        self.bytes += footprint(&path, &heard);
        let len = path.as_str().len() as u64;
        if let Some(before) = self.paths.insert(path, heard) {
            self.bytes -= ANNOUNCE + len + HOP * before.hops.len() as u64;
        }
    }

    pub(crate) fn remove(&mut self, path: &Path) {
        if let Some((path, heard)) = self.paths.remove_entry(path) {
            self.bytes -= footprint(&path, &heard);
        }
    }

    pub(crate) fn keys(&self) -> impl Iterator<Item = &Path> {
        self.paths.keys()
    }

    /// Memory held for the announces.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

fn footprint(path: &Path, heard: &Heard) -> u64 {
    ANNOUNCE + path.as_str().len() as u64 + HOP * heard.hops.len() as u64
}

#[cfg(test)]
mod tests {
    use relay_model::{Cost, Hop};

    use super::*;
    use crate::{ingest::Ingest, inlet::Inlet};

    fn heard(hops: usize) -> Heard {
        Heard::new((0..hops as u64).map(Hop).collect(), Cost::UNKNOWN)
    }

    #[test]
    fn announces_are_charged_and_released_to_zero() {
        let (mut table, path) = (HeardTable::default(), Path::parse("room/camera").unwrap());
        table.insert(path.clone(), heard(3));
        assert_eq!(table.bytes(), ANNOUNCE + 11 + 3 * HOP);
        table.insert(path.clone(), heard(1));
        assert_eq!(table.bytes(), ANNOUNCE + 11 + HOP, "a replaced chain is charged once");
        table.remove(&path);
        table.remove(&path);
        assert_eq!((table.bytes(), table.len()), (0, 0));
    }

    #[test]
    fn stream_charge_follows_unparsed_bytes() {
        let mut table = StreamTable::default();
        let mut inlet = Inlet::default();
        inlet.inbox.push(&[0; 100]);
        table.insert(Stream(0), Role::Request(inlet, None));
        table.insert(Stream(2), Role::Group(Box::new(Ingest::new(relay_wire::lite::Version::V05))));
        table.insert(Stream(1), Role::Said);
        assert_eq!(table.bytes(), 2 * STREAM + 100);
        table.insert(Stream(0), Role::Request(Inlet::default(), None));
        assert_eq!(table.bytes(), 2 * STREAM);
        table.retain(|stream, _| *stream != Stream(2));
        assert_eq!(table.bytes(), STREAM);
        assert!(table.remove(&Stream(0)).is_some() && table.remove(&Stream(0)).is_none());
        assert_eq!(table.bytes(), 0);
    }
}
