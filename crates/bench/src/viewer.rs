//! Viewer of the track, which checks every frame.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use relay_model::{
    Prefs, TrackName,
    transport::{ReadError, Stream, Transport},
};
use relay_transport::quic::QuicConnection;
use relay_wire::{
    lite::{BidiType, Group, GroupEvent, GroupReader, Role, Subscribe, UniType},
    varint,
};

use crate::{
    client::{self, ClientBehaviour, VERSION},
    publisher::broadcast,
    scenario::DeliveryShape,
};

/// Maximum age of groups in the subscription, ms.
const MAX_AGE_MS: u64 = 10_000;
const READ: usize = 64 * 1024;

/// A viewer of one track.
pub(crate) struct BenchViewer {
    shape: DeliveryShape,
    groups: Vec<(Stream, ViewerStream)>,
    /// Number of complete frames.
    pub(crate) frames: u64,
}

/// A unidirectional stream of the relay.
struct ViewerStream {
    /// `None` until its type is known.
    reader: Option<GroupReader>,
    is_setup: bool,
    group: Option<Group>,
    /// Frames of the group begun so far.
    begun: u64,
    /// Payload bytes received of the current frame.
    received: u64,
}

impl BenchViewer {
    pub(crate) fn new(shape: DeliveryShape) -> Self {
        Self { shape, groups: Vec::new(), frames: 0 }
    }

    fn take(&mut self, at: usize, mut bytes: Bytes) -> Result<()> {
        let reading = &mut self.groups[at].1;
        if reading.is_setup {
            return Ok(());
        }
        if reading.reader.is_none() {
            // The type is one byte long.
            let mut peek: &[u8] = &bytes;
            let kind = varint::get(&mut peek).ok().context("half a stream type")?;
            let rest = bytes.split_off(bytes.len() - peek.len());
            bytes = rest;
            reading.is_setup = UniType::from_id(VERSION, kind) != Some(UniType::Group);
            reading.reader = Some(GroupReader::new(VERSION));
        }
        while !reading.is_setup
            && let Some(reader) = &mut reading.reader
            && let Some(event) = reader.next(&mut bytes)?
        {
            match event {
                GroupEvent::Header(group) => reading.group = Some(group),
                GroupEvent::Frame(head) => {
                    ensure!(head.size == self.shape.frame_bytes as u64, "a frame of {} bytes", head.size);
                    reading.begun += 1;
                    reading.received = 0;
                }
                GroupEvent::Payload(payload) => {
                    let sequence = reading.group.context("a frame before its group")?.sequence;
                    let number = sequence * self.shape.group_frames + reading.begun - 1;
                    let intact = match payload.split_first_chunk() {
                        Some((first, _)) if reading.received == 0 => *first == number.to_be_bytes(),
                        Some(_) if reading.received >= 8 => payload.last() == Some(&(number as u8)),
                        // A packet boundary lies within a few bytes of a frame boundary.
                        _ => true,
                    };
                    ensure!(intact, "frame {number} is not what was sent");
                    reading.received += payload.len() as u64;
                    self.frames += u64::from(reading.received == self.shape.frame_bytes as u64);
                }
            }
        }
        Ok(())
    }
}

impl ClientBehaviour for BenchViewer {
    fn ready(&mut self, conn: &mut QuicConnection) -> Result<()> {
        client::set_up(conn, Role::Subscriber)?;
        let track = TrackName::parse("track").context("a track name")?;
        let prefs = Prefs { max_age_ms: MAX_AGE_MS, ..Prefs::default() };
        client::request(
            conn,
            BidiType::Subscribe,
            &Subscribe { id: 0, broadcast: broadcast()?, track, prefs },
        )?;
        Ok(())
    }

    fn readable(&mut self, conn: &mut QuicConnection, stream: Stream) -> Result<()> {
        let is_uni = stream.0 & 2 != 0;
        let at = match self.groups.iter().position(|(of, _)| *of == stream) {
            Some(at) => at,
            None => {
                let reading =
                    ViewerStream { reader: None, is_setup: !is_uni, group: None, begun: 0, received: 0 };
                self.groups.push((stream, reading));
                self.groups.len() - 1
            }
        };
        loop {
            match conn.read(stream, READ) {
                Ok(Some(bytes)) => self.take(at, bytes)?,
                Err(ReadError::Blocked) => return Ok(()),
                // Gone: its end was already read.
                Ok(None) | Err(ReadError::Gone) => {
                    self.groups.swap_remove(at);
                    return Ok(());
                }
                Err(error) => return Err(error).context("a stream of the relay's was cut short"),
            }
        }
    }

    fn act(&mut self, _: &mut QuicConnection, _: Instant) -> Result<()> {
        Ok(())
    }

    fn next(&self) -> Option<Instant> {
        None
    }
}
