//! Input of a connection: units of the carrier, and the frames in them.

use std::time::Instant;

use relay_model::{
    SessionCode,
    transport::{TransportClosed, TransportEvent},
};

use super::{
    CloseCause, QmuxConnection,
    parser::{CUT, FrameParser, StreamData},
};
use crate::qmux::{
    carrier::{CarrierItem, CarrierReader},
    frame::QmuxFrame,
    params::Parameters,
    violation::Violation,
};

impl QmuxConnection {
    /// Handles received bytes of the carrier, after TLS.
    pub fn receive(&mut self, now: Instant, mut bytes: &[u8]) {
        self.life.set_now(now);
        self.traffic.bytes_in = self.traffic.bytes_in.saturating_add(bytes.len() as u64);
        self.timers.on_input(now);
        while !self.life.is_over() {
            match self.reader.next(&mut bytes) {
                Ok(None) => return,
                Ok(Some(item)) => {
                    if let Err(violation) = self.on_item(item) {
                        self.depart(violation.closed(), &CloseCause::Violation(violation));
                    }
                }
                Err(violation) => {
                    // The rest of the input cannot be parsed.
                    return self.depart(violation.closed(), &CloseCause::Violation(violation));
                }
            }
        }
    }

    fn on_item(&mut self, item: CarrierItem<'_>) -> Result<(), Violation> {
        self.frames = self.frames.saturating_add(1);
        if self.life.is_leaving(matches!(item, CarrierItem::Close(_))) {
            return Ok(());
        }
        match item {
            CarrierItem::Part(part, is_end) => {
                // Moved out, so that the frames that it passes on can change the connection.
                let mut parser = std::mem::take(&mut self.parser);
                let result = self.on_part(&mut parser, &part, is_end);
                self.parser = parser;
                result?;
            }
            CarrierItem::Ping(body) => self.output.websocket_pong(body),
            CarrierItem::Pong => {}
            CarrierItem::Close(code) => {
                let why = code.map_or_else(
                    || "websocket closed by the peer".to_owned(),
                    |code| format!("websocket closed by the peer with code {code}"),
                );
                self.depart(TransportClosed::Lost(why), &CloseCause::Nothing);
            }
        }
        Ok(())
    }

    /// Parses part of a record, a message, or the sequence of bare frames.
    fn on_part(&mut self, parser: &mut FrameParser, mut part: &[u8], is_end: bool) -> Result<(), Violation> {
        let framing = self.framing;
        while self.life.is_open() {
            let goes_on = if let Some(piece) = parser.piece(&mut part, is_end) {
                self.streams.push(piece.id, piece.bytes, piece.fin)?;
                if !piece.is_whole && is_end {
                    return Err(CUT);
                }
                piece.is_whole
            } else if part.is_empty() && parser.is_empty() {
                false
            } else {
                parser.frame(framing, &mut part, is_end, |frame| self.on_frame(frame))?
            };
            if !goes_on {
                break;
            }
        }
        Ok(())
    }

    /// Handles a frame; returns the stream data that follows it, if any.
    fn on_frame(&mut self, frame: QmuxFrame<'_>) -> Result<Option<StreamData>, Violation> {
        self.frames = self.frames.saturating_add(1);
        let is_first = self.life.is_opening();
        match frame {
            QmuxFrame::Idle => {}
            QmuxFrame::Parameters(body) => self.on_parameters(body)?,
            QmuxFrame::Close { is_application, code, reason } => {
                self.depart(closed_by_peer(is_application, code, reason), &CloseCause::Nothing);
            }
            _ if is_first => return Err(Violation::protocol("first frame is not transport parameters")),
            QmuxFrame::Stream { id, offset, size, fin } => {
                if size.is_none() && matches!(self.reader, CarrierReader::Frames) {
                    return Err(Violation::encoding("STREAM frame without a length on a byte stream"));
                }
                self.streams.begin(id, offset, size)?;
                return Ok(Some(StreamData { id, left: size, fin }));
            }
            QmuxFrame::Reset { id, code, size } => self.streams.on_reset(id, code, size)?,
            QmuxFrame::Stop { id, code } => self.streams.on_stop(id, code)?,
            QmuxFrame::MaxData(max) => self.streams.send.on_max_data(max),
            QmuxFrame::MaxStreamData { id, max } => self.streams.on_max_stream_data(id, max)?,
            QmuxFrame::MaxStreams { dir, max } => self.streams.on_max_streams(dir, max),
            // Credit is announced as the reader progresses, whether or not the peer is blocked.
            QmuxFrame::Blocked => {}
            QmuxFrame::StreamsBlocked { dir, limit } => self.streams.on_streams_blocked(dir, limit),
            QmuxFrame::Ping(sequence) => self.output.pong(sequence),
            QmuxFrame::Pong(sequence) => self.timers.pong(sequence, self.life.now()),
            QmuxFrame::Datagram(payload) => {
                if self.datagrams.receive(payload) {
                    self.streams.events.push_back(TransportEvent::Datagram);
                }
            }
        }
        Ok(None)
    }

    /// Handles the peer's transport parameters, its first frame (draft-ietf-quic-qmux-01 §4.2).
    fn on_parameters(&mut self, body: &[u8]) -> Result<(), Violation> {
        if !self.life.is_opening() {
            return Err(Violation::protocol("duplicate transport parameters"));
        }
        let peer = Parameters::get(self.framing, body)?;
        self.timers.limit_idle(peer.idle);
        self.streams.set_peer(&peer);
        self.datagrams.set_peer(peer.datagram, peer.record);
        if self.protocols.agree(&peer.protocols) {
            self.life.ready();
        } else {
            let why = "no protocol in common";
            self.depart(
                TransportClosed::Lost(why.to_owned()),
                &CloseCause::Application(SessionCode::VERSION, why),
            );
        }
        Ok(())
    }
}

fn closed_by_peer(is_application: bool, code: u64, reason: &[u8]) -> TransportClosed {
    let reason = String::from_utf8_lossy(reason).into_owned();
    if is_application {
        TransportClosed::ByPeer(SessionCode(u32::try_from(code).unwrap_or(u32::MAX)), reason)
    } else {
        TransportClosed::Lost(format!("closed by the peer's transport with code {code:#x}: {reason}"))
    }
}
