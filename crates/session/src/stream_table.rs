//! Table of a session's streams, with a count of the bytes held.

use relay_model::transport::Stream;
use std::collections::{HashMap, hash_map};

use foldhash::fast::RandomState;

use crate::{footprint::STREAM, session::StreamKind};

/// Open streams and their roles.
#[derive(Debug, Default)]
pub(crate) struct StreamTable {
    roles: HashMap<Stream, StreamKind, RandomState>,
    bytes: u64,
}

impl StreamTable {
    /// Number of open streams.
    pub(crate) fn len(&self) -> usize {
        self.roles.len()
    }

    pub(crate) fn insert(&mut self, stream: Stream, role: StreamKind) {
        self.bytes += role.footprint();
        if let Some(before) = self.roles.insert(stream, role) {
            self.bytes -= before.footprint();
        }
    }

    pub(crate) fn remove(&mut self, stream: &Stream) -> Option<StreamKind> {
        let role = self.roles.remove(stream)?;
        self.bytes -= role.footprint();
        Some(role)
    }

    pub(crate) fn get(&self, stream: &Stream) -> Option<&StreamKind> {
        self.roles.get(stream)
    }

    /// The group being received on `stream`. Its footprint is constant: payload has a budget of its own.
    pub(crate) fn group_mut(&mut self, stream: Stream) -> Option<&mut crate::ingest::Ingest> {
        match self.roles.get_mut(&stream)? {
            StreamKind::Group(ingest) => Some(ingest),
            _ => None,
        }
    }

    pub(crate) fn retain(&mut self, mut keep: impl FnMut(&Stream, &StreamKind) -> bool) {
        let bytes = &mut self.bytes;
        self.roles.retain(|stream, role| {
            let kept = keep(stream, role);
            if !kept {
                *bytes -= role.footprint();
            }
            kept
        });
    }

    pub(crate) fn iter(&self) -> hash_map::Iter<'_, Stream, StreamKind> {
        self.roles.iter()
    }

    /// Memory held for the streams, bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes
    }
}

impl StreamKind {
    /// Memory held for the stream, bytes. Streams opened by the relay cost their unparsed bytes only: the rest
    /// is charged to the requesting session.
    fn footprint(&self) -> u64 {
        match self {
            Self::Request(reader, _)
            | Self::Header(reader)
            | Self::Setup(reader)
            | Self::ClientSetup(reader)
            | Self::Session(reader)
            | Self::Watch(reader)
            | Self::Sub(_, reader)
            | Self::Probe(reader) => STREAM + reader.buffer.len() as u64,
            Self::Group(_) => STREAM,
            Self::AnnounceUp(reader, _) | Self::TrackUp(reader, _) | Self::SubscribeUp(reader, _) => {
                reader.buffer.len() as u64
            }
            Self::FetchUp(_) | Self::SendOnly => 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{control_stream::ControlStreamReader, ingest::Ingest};

    #[test]
    fn stream_charge_follows_unparsed_bytes() {
        let mut table = StreamTable::default();
        let mut reader = ControlStreamReader::default();
        reader.buffer.push(&[0; 100]);
        table.insert(Stream(0), StreamKind::Request(reader, None));
        table.insert(Stream(2), StreamKind::Group(Box::new(Ingest::new(relay_wire::lite::Version::V05))));
        table.insert(Stream(1), StreamKind::SendOnly);
        assert_eq!(table.bytes(), 2 * STREAM + 100);
        table.insert(Stream(0), StreamKind::Request(ControlStreamReader::default(), None));
        assert_eq!(table.bytes(), 2 * STREAM);
        table.retain(|stream, _| *stream != Stream(2));
        assert_eq!(table.bytes(), STREAM);
        assert!(table.remove(&Stream(0)).is_some() && table.remove(&Stream(0)).is_none());
        assert_eq!(table.bytes(), 0);
    }
}
