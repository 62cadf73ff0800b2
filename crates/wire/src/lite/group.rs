//! Incremental decoding of group streams: a header, then frames.

use bytes::{Buf, Bytes};
use relay_model::limits;

use super::{Body, Message, UniType, Version};
use crate::{DecodeError, body::BodyReader, varint};

/// Highest timestamp in ticks. The zigzag delta of two ticks in `0..=TICK_MAX` always fits a varint, so that
/// every received frame can be re-encoded.
pub const TICK_MAX: i64 = (1 << 61) - 1;

/// Header of a group stream (draft-lcurley-moq-lite-03, GROUP; first frame: deployed relays, captured).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Subscribe id.
    pub subscribe: u64,
    /// Group sequence in the track.
    pub sequence: u64,
    /// Index of the first frame on this stream within the group (moq-lite-06; before, always 0).
    pub first_frame: u64,
}

/// Header of a frame (draft-lcurley-moq-lite-05, FRAME).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameHead {
    /// Absolute timestamp in ticks of the track's timescale, in `0..=`[`TICK_MAX`]; `None` before moq-lite-05.
    pub tick: Option<i64>,
    /// Payload size in bytes, at most [`limits::FRAME_BYTES`].
    pub size: u64,
}

/// Event decoded by a [`GroupReader`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GroupEvent {
    /// The group header; once, as the first event.
    Header(Group),
    /// Start of a frame; `size` bytes of [`GroupEvent::Payload`] follow.
    Frame(FrameHead),
    /// Next payload bytes of the current frame, a slice of the input; never empty.
    Payload(Bytes),
}

/// Incremental decoder of a group stream after its stream type. Of fixed size: it holds no payload.
#[derive(Debug)]
pub struct GroupReader {
    version: Version,
    state: GroupReaderState,
    partial: Partial,
    tick: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum GroupReaderState {
    HeaderSize,
    /// `left` header bytes remain, including this field.
    Subscribe {
        left: u64,
    },
    Sequence {
        left: u64,
        subscribe: u64,
    },
    FirstFrame {
        left: u64,
        subscribe: u64,
        sequence: u64,
    },
    Tick,
    Size,
    Payload {
        left: u64,
    },
    Failed(DecodeError),
}

impl GroupReader {
    /// Creates a decoder that expects a header, then frames.
    pub fn new(version: Version) -> Self {
        Self::at(version, GroupReaderState::HeaderSize)
    }

    /// Creates a decoder that expects frames without a header: the response to a [`super::Fetch`].
    pub fn frames(version: Version) -> Self {
        Self::at(version, GroupReaderState::frame(version))
    }

    fn at(version: Version, state: GroupReaderState) -> Self {
        Self { version, state, partial: Partial::default(), tick: 0 }
    }

    /// Returns the next event and takes its bytes off `input`; `None` when `input` is exhausted. An error is
    /// permanent: every later call returns it again.
    pub fn next(&mut self, input: &mut Bytes) -> Result<Option<GroupEvent>, DecodeError> {
        loop {
            if let GroupReaderState::Payload { left } = self.state {
                return Ok(self.payload(left, input));
            }
            if let GroupReaderState::Failed(error) = self.state {
                return Err(error);
            }
            let Some((value, width)) = self.partial.next(input) else { return Ok(None) };
            match self.field(value, width) {
                Ok(None) => {}
                Ok(event) => return Ok(event),
                Err(error) => {
                    self.state = GroupReaderState::Failed(error);
                    return Err(error);
                }
            }
        }
    }

    /// Returns whether the header was read and no frame is incomplete, so that a FIN is clean here.
    pub fn at_boundary(&self) -> bool {
        self.state == GroupReaderState::frame(self.version) && self.partial.is_empty()
    }

    fn payload(&mut self, left: u64, input: &mut Bytes) -> Option<GroupEvent> {
        if input.is_empty() {
            return None;
        }
        let take = usize::try_from(left).unwrap_or(usize::MAX).min(input.len());
        let piece = input.split_to(take);
        let left = left.saturating_sub(take as u64);
        self.state = if left == 0 {
            GroupReaderState::frame(self.version)
        } else {
            GroupReaderState::Payload { left }
        };
        Some(GroupEvent::Payload(piece))
    }

    /// Handles one integer of a group or frame header, `width` bytes wide.
    fn field(&mut self, value: u64, width: u64) -> Result<Option<GroupEvent>, DecodeError> {
        let (state, event) = match self.state {
            GroupReaderState::HeaderSize => (GroupReaderState::Subscribe { left: value }, None),
            GroupReaderState::Subscribe { left } => {
                let left = left.checked_sub(width).ok_or(DecodeError::Short)?;
                (GroupReaderState::Sequence { left, subscribe: value }, None)
            }
            GroupReaderState::Sequence { left, subscribe } => {
                let left = left.checked_sub(width).ok_or(DecodeError::Short)?;
                if self.version.has_frame_ranges() {
                    (GroupReaderState::FirstFrame { left, subscribe, sequence: value }, None)
                } else {
                    self.header(left, Group { subscribe, sequence: value, first_frame: 0 })?
                }
            }
            GroupReaderState::FirstFrame { left, subscribe, sequence } => {
                let left = left.checked_sub(width).ok_or(DecodeError::Short)?;
                self.header(left, Group { subscribe, sequence, first_frame: value })?
            }
            GroupReaderState::Tick => {
                let tick = self.tick.checked_add(unzigzag(value)).ok_or(DecodeError::Timestamp)?;
                if !(0..=TICK_MAX).contains(&tick) {
                    return Err(DecodeError::Timestamp);
                }
                self.tick = tick;
                (GroupReaderState::Size, None)
            }
            GroupReaderState::Size => {
                if value > limits::FRAME_BYTES {
                    return Err(DecodeError::FrameTooLarge);
                }
                let tick = self.version.has_timestamps().then_some(self.tick);
                let head = FrameHead { tick, size: value };
                let next = if value == 0 {
                    GroupReaderState::frame(self.version)
                } else {
                    GroupReaderState::Payload { left: value }
                };
                (next, Some(GroupEvent::Frame(head)))
            }
            // Unreachable: `next` returns before it reads an integer in these states.
            state @ (GroupReaderState::Payload { .. } | GroupReaderState::Failed(_)) => (state, None),
        };
        self.state = state;
        Ok(event)
    }

    /// Completes the group header; `left` unread header bytes are an error.
    fn header(&self, left: u64, group: Group) -> Result<(GroupReaderState, Option<GroupEvent>), DecodeError> {
        match left {
            0 => Ok((GroupReaderState::frame(self.version), Some(GroupEvent::Header(group)))),
            _ => Err(DecodeError::Leftover),
        }
    }
}

impl GroupReaderState {
    /// Returns the state at the start of a frame.
    fn frame(version: Version) -> Self {
        if version.has_timestamps() { Self::Tick } else { Self::Size }
    }
}

/// Appends the stream type and the group header.
pub fn put_group_header(version: Version, group: &Group, out: &mut Vec<u8>) {
    varint::put(UniType::Group.id(), out);
    group.encode(version, out);
}

/// Appends the header of a frame after a frame at `previous_tick` (0 before the first). A frame without a
/// tick repeats the previous tick.
pub fn put_frame_head(version: Version, previous_tick: i64, head: FrameHead, out: &mut Vec<u8>) {
    if version.has_timestamps() {
        let tick = head.tick.unwrap_or(previous_tick);
        debug_assert!((0..=TICK_MAX).contains(&previous_tick) && (0..=TICK_MAX).contains(&tick));
        varint::put(zigzag(tick.saturating_sub(previous_tick)), out);
    }
    varint::put(head.size, out);
}

impl Body for Group {
    fn read(version: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self {
            subscribe: input.varint()?,
            sequence: input.varint()?,
            first_frame: if version.has_frame_ranges() { input.varint()? } else { 0 },
        })
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        varint::put(self.subscribe, out);
        varint::put(self.sequence, out);
        if version.has_frame_ranges() {
            varint::put(self.first_frame, out);
        }
    }
}

/// Varint that arrives in pieces.
#[derive(Debug, Default)]
struct Partial {
    value: u64,
    /// Bytes read, and bytes of the whole integer; both 0 before the first byte.
    read: u8,
    width: u8,
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.read == 0
    }

    /// Returns the integer and its width in bytes once it is complete.
    fn next(&mut self, input: &mut Bytes) -> Option<(u64, u64)> {
        if self.is_empty() {
            let mut peek: &[u8] = input;
            if let Ok(value) = varint::get(&mut peek) {
                let width = input.len().saturating_sub(peek.len());
                input.advance(width);
                return Some((value, width as u64));
            }
        }
        while let Some(byte) = input.first().copied() {
            input.advance(1);
            if self.is_empty() {
                self.width = 1 << (byte >> 6);
                self.value = u64::from(byte & 0x3f);
            } else {
                self.value = (self.value << 8) | u64::from(byte);
            }
            self.read = self.read.saturating_add(1);
            if self.read >= self.width {
                let whole = std::mem::take(self);
                return Some((whole.value, u64::from(whole.width)));
            }
        }
        None
    }
}

/// Zigzag encoding: 0, -1, 1, -2, 2 become 0, 1, 2, 3, 4 (draft-lcurley-moq-lite-05, FRAME).
fn zigzag(value: i64) -> u64 {
    (value.cast_unsigned() << 1) ^ (value >> 63).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}
