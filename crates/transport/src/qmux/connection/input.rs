//! Incremental parsing of the input. Stream data is forwarded in the pieces in which it arrives; of other
//! frames at most one is buffered until it is complete.

use std::time::Instant;

use bytes::Bytes;
use relay_model::{
    SessionCode, limits as model,
    transport::{TransportClosed, TransportEvent},
};

use super::{CloseCause, Connection, QmuxPhase};
use crate::qmux::{
    carrier::CarrierItem,
    frame::{self, QmuxFrame},
    limits,
    violation::Violation,
};

/// Parser position within the frames.
#[derive(Debug, Default)]
pub(super) struct FrameParser {
    /// Bytes of an incomplete frame.
    head: Vec<u8>,
    data: Option<Data>,
}

/// STREAM frame whose data is being received.
#[derive(Clone, Copy, Debug)]
struct Data {
    id: u64,
    /// Bytes left; `None`: up to the end of the record or message.
    left: Option<u64>,
    fin: bool,
}

const CUT: Violation = Violation::encoding("frame truncated by the end of its record");

impl Connection {
    /// Handles received bytes of the carrier, after TLS.
    pub fn receive(&mut self, now: Instant, mut bytes: &[u8]) {
        self.now = now;
        self.traffic.bytes_in += bytes.len() as u64;
        self.clock.on_input(now);
        loop {
            if self.life == QmuxPhase::Over {
                return;
            }
            match self.reader.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(brought)) => {
                    if let Err(violation) = self.on_brought(brought) {
                        self.violate(violation);
                    }
                }
                Err(violation) => {
                    self.violate(violation);
                    // The rest of the input cannot be parsed.
                    return;
                }
            }
        }
    }

    fn on_brought(&mut self, brought: CarrierItem<'_>) -> Result<(), Violation> {
        self.frames += 1;
        if let QmuxPhase::Leaving { is_heard, .. } = &mut self.life {
            *is_heard |= matches!(brought, CarrierItem::Close(_));
            return Ok(());
        }
        match brought {
            CarrierItem::Part(part, is_end) => self.on_part(&part, is_end)?,
            // Only the most recent ping needs a response (RFC 6455 §5.5.3).
            CarrierItem::Ping(body) => self.websocket_pong = Some(body),
            CarrierItem::Pong => {}
            CarrierItem::Close(code) => {
                let why = code.map_or_else(
                    || "websocket closed by the peer".to_owned(),
                    |code| format!("websocket closed by the peer with code {code}"),
                );
                self.depart(TransportClosed::Lost(why), CloseCause::Nothing);
            }
        }
        Ok(())
    }

    /// Parses part of a record, a message, or the sequence of bare frames.
    fn on_part(&mut self, mut part: &[u8], is_end: bool) -> Result<(), Violation> {
        while matches!(self.life, QmuxPhase::Opening(_) | QmuxPhase::Ready) {
            let goes_on = match self.intake.data {
                Some(data) => self.on_data(data, &mut part, is_end)?,
                None if part.is_empty() && self.intake.head.is_empty() => false,
                None => self.on_head(&mut part, is_end)?,
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Continues a STREAM frame; `false` when `part` is exhausted.
    fn on_data(&mut self, data: Data, part: &mut &[u8], is_end: bool) -> Result<bool, Violation> {
        let left = data.left.unwrap_or(u64::MAX);
        let size = usize::try_from(left).unwrap_or(usize::MAX).min(part.len());
        let (bytes, rest) = part.split_at(size);
        *part = rest;
        let left = data.left.map(|left| left - size as u64);
        let is_whole = left == Some(0) || (left.is_none() && is_end);
        self.intake.data = (!is_whole).then_some(Data { left, ..data });
        self.streams.push(data.id, bytes, is_whole && data.fin)?;
        if !is_whole && is_end {
            return Err(CUT);
        }
        Ok(is_whole)
    }

    /// Parses one frame, or the head of a STREAM frame; `false` when `part` is exhausted.
    fn on_head(&mut self, part: &mut &[u8], is_end: bool) -> Result<bool, Violation> {
        let mut head = std::mem::take(&mut self.intake.head);
        let old = head.len();
        let more = if old == 0 { 0 } else { part.len().min(limits::FRAME_BYTES + limits::HEAD_BYTES) };
        let (joined, _) = part.split_at(more);
        head.extend_from_slice(joined);
        let whole: &[u8] = if old == 0 { part } else { &head };
        let mut rest = whole;
        let ends_here = is_end && (old == 0 || more == part.len());
        let taken = frame::take(self.framing, &mut rest, ends_here)?;
        let used = whole.len() - rest.len();
        let Some(frame) = taken else {
            if ends_here {
                return Err(CUT);
            }
            if whole.len() > limits::FRAME_BYTES + limits::HEAD_BYTES {
                return Err(Violation::protocol("frame too large"));
            }
            if old == 0 {
                head.extend_from_slice(part);
            }
            *part = &[];
            self.intake.head = head;
            return Ok(false);
        };
        *part = part.split_at(used.saturating_sub(old).min(part.len())).1;
        self.on_frame(frame)?;
        Ok(true)
    }

    fn on_frame(&mut self, frame: QmuxFrame<'_>) -> Result<(), Violation> {
        self.frames += 1;
        let is_first = matches!(self.life, QmuxPhase::Opening(_));
        match frame {
            QmuxFrame::Idle => {}
            QmuxFrame::Parameters(body) => self.on_parameters(body)?,
            QmuxFrame::Close { is_application, code, reason } => self.on_close(is_application, code, reason),
            _ if is_first => return Err(Violation::protocol("first frame is not transport parameters")),
            QmuxFrame::Stream { id, offset, size, fin } => {
                if size.is_none() && matches!(self.reader, crate::qmux::carrier::CarrierReader::Frames) {
                    return Err(Violation::encoding("STREAM frame without a length on a byte stream"));
                }
                self.streams.begin(id, offset, size)?;
                self.intake.data = Some(Data { id, left: size, fin });
            }
            QmuxFrame::Reset { id, code, size } => self.streams.on_reset(id, code, size)?,
            QmuxFrame::Stop { id, code } => self.streams.on_stop(id, code)?,
            QmuxFrame::MaxData(max) => self.streams.on_max_data(max),
            QmuxFrame::MaxStreamData { id, max } => self.streams.on_max_stream_data(id, max)?,
            QmuxFrame::MaxStreams { dir, max } => self.streams.on_max_streams(dir, max),
            // Credit is announced as the reader progresses, whether or not the peer is blocked.
            QmuxFrame::Blocked => {}
            QmuxFrame::StreamsBlocked { dir, limit } => self.streams.on_streams_blocked(dir, limit),
            QmuxFrame::Ping(sequence) => {
                if self.pongs.len() == limits::PONGS {
                    self.pongs.pop_front();
                }
                self.pongs.push_back(sequence);
            }
            QmuxFrame::Pong(sequence) => self.clock.pong(sequence, self.now),
            QmuxFrame::Datagram(payload) => {
                if self.received.is_empty() {
                    self.streams.events.push_back(TransportEvent::Datagram);
                }
                self.received.push(Bytes::copy_from_slice(payload), model::DATAGRAM_BUFFER);
            }
        }
        Ok(())
    }

    fn on_close(&mut self, is_application: bool, code: u64, reason: &[u8]) {
        let reason = String::from_utf8_lossy(reason).into_owned();
        let closed = if is_application {
            TransportClosed::ByPeer(SessionCode(u32::try_from(code).unwrap_or(u32::MAX)), reason)
        } else {
            TransportClosed::Lost(format!("closed by the peer's transport with code {code:#x}: {reason}"))
        };
        self.depart(closed, CloseCause::Nothing);
    }
}
