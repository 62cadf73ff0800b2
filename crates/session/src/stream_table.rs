//! Table of a session's streams, with a count of the bytes held.

use std::collections::{HashMap, hash_map};

use foldhash::fast::RandomState;

use crate::{footprint::STREAM, session::Role, transport::Stream};

/// Open streams and their roles.
#[derive(Debug, Default)]
pub(crate) struct StreamTable {
    roles: HashMap<Stream, Role, RandomState>,
    bytes: u64,
}

impl StreamTable {
    /// Number of open streams.
    pub(crate) fn len(&self) -> usize {
        self.roles.len()
    }

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

    /// The group being received on `stream`. Its footprint is constant: payload has a budget of its own.
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

    /// Memory held for the streams, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl Role {
    /// Memory held for the stream, bytes. Streams opened by the relay cost their unparsed bytes only: the rest
    /// is charged to the requesting session.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ingest::Ingest, inlet::Inlet};

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
