//! Received groups, read by whole frames or by pieces.

use bytes::{Bytes, BytesMut};
use relay_model::StreamCode;
use relay_wire::lite::{GroupEvent, GroupReader, Version};

use crate::{error::Error, stream::RecvStream};

/// A whole frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Timestamp in ticks of the track's timescale; `None` before moq-lite-05.
    pub tick: Option<i64>,
    /// The payload.
    pub payload: Bytes,
}

/// Part of a group as it arrives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A frame begins.
    Frame {
        /// Timestamp in ticks of the track's timescale; `None` before moq-lite-05.
        tick: Option<i64>,
        /// Payload bytes that follow.
        size: u64,
    },
    /// The next bytes of the last frame.
    Payload(Bytes),
}

/// A group being received, or the answer to a fetch. Its stream is stopped with code 0 when dropped early.
#[derive(Debug)]
pub struct ReceivedGroup {
    stream: RecvStream,
    decoder: GroupReader,
    input: Bytes,
    subscribe: u64,
    sequence: u64,
    first_frame: u64,
}

impl ReceivedGroup {
    /// Reads the header of a group stream, after its type.
    pub(crate) async fn accept(stream: RecvStream, version: Version) -> Result<Self, Error> {
        let decoder = GroupReader::new(version);
        let mut group =
            Self { stream, decoder, input: Bytes::new(), subscribe: 0, sequence: 0, first_frame: 0 };
        match group.event().await? {
            Some(GroupEvent::Header(header)) => {
                group.subscribe = header.subscribe;
                group.sequence = header.sequence;
                group.first_frame = header.first_frame;
                Ok(group)
            }
            _ => Err(Error::Truncated),
        }
    }

    /// Reads frames without a group header, as in the answer to a fetch of `sequence` from `first_frame` on.
    pub(crate) fn bare(stream: RecvStream, version: Version, sequence: u64, first_frame: u64) -> Self {
        let decoder = GroupReader::frames(version);
        Self { stream, decoder, input: Bytes::new(), subscribe: 0, sequence, first_frame }
    }

    /// Sequence of the group in its track.
    pub fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Index of the first frame that is sent; 0 = the whole group.
    pub fn first_frame(&self) -> u64 {
        self.first_frame
    }

    /// Id of the subscription that the group belongs to.
    pub fn subscribe_id(&self) -> u64 {
        self.subscribe
    }

    /// Returns the next part; `None` when the group is complete. A reset is [`Error::Reset`] with its code.
    pub async fn piece(&mut self) -> Result<Option<Piece>, Error> {
        Ok(match self.event().await? {
            None => None,
            Some(GroupEvent::Frame(head)) => Some(Piece::Frame { tick: head.tick, size: head.size }),
            Some(GroupEvent::Payload(bytes)) => Some(Piece::Payload(bytes)),
            Some(GroupEvent::Header(_)) => return Err(Error::Malformed("second group header".into())),
        })
    }

    /// Returns the next whole frame; `None` when the group is complete. Not to be mixed with a half-read
    /// [`ReceivedGroup::piece`].
    pub async fn frame(&mut self) -> Result<Option<Frame>, Error> {
        let (tick, size) = match self.piece().await? {
            None => return Ok(None),
            Some(Piece::Frame { tick, size }) => (tick, size),
            Some(Piece::Payload(_)) => return Err(Error::Malformed("payload before its frame".into())),
        };
        let mut have = 0;
        let mut payload = Bytes::new();
        let mut joined = BytesMut::new();
        while have < size {
            let Some(Piece::Payload(bytes)) = self.piece().await? else { return Err(Error::Truncated) };
            have += bytes.len() as u64;
            if payload.is_empty() && joined.is_empty() {
                payload = bytes;
            } else {
                joined.extend_from_slice(&std::mem::take(&mut payload));
                joined.extend_from_slice(&bytes);
            }
        }
        let payload = if joined.is_empty() { payload } else { joined.freeze() };
        Ok(Some(Frame { tick, payload }))
    }

    /// Returns all frames to the end.
    pub async fn frames(&mut self) -> Result<Vec<Frame>, Error> {
        let mut out = Vec::new();
        while let Some(frame) = self.frame().await? {
            out.push(frame);
        }
        Ok(out)
    }

    /// Stops the stream (STOP_SENDING).
    pub fn stop(mut self, code: StreamCode) {
        self.stream.stop(code);
    }

    async fn event(&mut self) -> Result<Option<GroupEvent>, Error> {
        loop {
            if let Some(event) = self.decoder.next(&mut self.input)? {
                return Ok(Some(event));
            }
            match self.stream.read().await? {
                Some(bytes) => self.input = bytes,
                None if self.decoder.at_boundary() => return Ok(None),
                None => return Err(Error::Truncated),
            }
        }
    }
}
