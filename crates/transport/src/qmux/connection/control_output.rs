//! Output that belongs to no stream: transport parameters, ping responses, close frames.

use std::collections::VecDeque;

use relay_model::SessionCode;
use relay_wire::varint;

use crate::qmux::{QmuxFraming, frame, limits, output::UnitWriter, violation::Violation, websocket::Sent};

/// Reason of the close that is sent to the peer.
#[derive(Debug)]
pub(super) enum CloseCause<'a> {
    Application(SessionCode, &'a str),
    Violation(Violation),
    /// The peer closed first.
    Nothing,
}

/// Frames that close the connection.
#[derive(Debug, Default)]
struct CloseFrames {
    frame: Option<Vec<u8>>,
    /// WebSocket close frame, with its optional code.
    websocket: Option<Option<u16>>,
}

/// Pending control output of a connection.
#[derive(Debug)]
pub(super) struct ControlOutput {
    /// Transport parameters frame, until it is sent.
    hello: Option<Vec<u8>>,
    close: CloseFrames,
    /// Payload of the last WebSocket ping to be answered.
    websocket_pong: Option<Vec<u8>>,
    /// Sequence numbers of the peer's pings to be answered.
    pongs: VecDeque<u64>,
}

impl ControlOutput {
    /// Creates the output of a new connection, which begins with `hello`.
    pub(super) fn new(hello: Option<Vec<u8>>) -> Self {
        Self { hello, close: CloseFrames::default(), websocket_pong: None, pongs: VecDeque::new() }
    }

    /// Queues the response to a ping; the oldest are dropped above the limit.
    pub(super) fn pong(&mut self, sequence: u64) {
        if self.pongs.len() == limits::PONGS {
            self.pongs.pop_front();
        }
        self.pongs.push_back(sequence);
    }

    /// Queues the response to a WebSocket ping. Only the most recent one needs a response (RFC 6455 §5.5.3).
    pub(super) fn websocket_pong(&mut self, body: Vec<u8>) {
        self.websocket_pong = Some(body);
    }

    /// Takes the next ping to answer.
    pub(super) fn take_pong(&mut self) -> Option<u64> {
        self.pongs.pop_front()
    }

    /// Returns whether pings are to be answered.
    pub(super) fn has_pongs(&self) -> bool {
        !self.pongs.is_empty()
    }

    /// Queues the close for `cause`, and a WebSocket close frame if the carrier is one.
    pub(super) fn close(&mut self, framing: QmuxFraming, is_websocket: bool, cause: &CloseCause<'_>) {
        let mut put = |is_application, code: u64, reason: &str| {
            let mut out = Vec::new();
            let code = code.min(varint::MAX);
            frame::put_close(framing, is_application, code, shortened(reason).as_bytes(), &mut out);
            self.close.frame = Some(out);
        };
        let websocket = match cause {
            CloseCause::Application(code, reason) => {
                put(true, code.0.into(), reason);
                None
            }
            CloseCause::Violation(violation) => {
                put(false, violation.code, violation.what);
                violation.websocket
            }
            CloseCause::Nothing => {
                // The peer has closed: nothing is sent.
                self.hello = None;
                None
            }
        };
        self.close.websocket = is_websocket.then_some(websocket);
    }

    /// Returns whether [`Self::put_unit`] has a unit.
    pub(super) fn has_unit(&self) -> bool {
        self.hello.is_some()
            || self.close.frame.is_some()
            || self.close.websocket.is_some()
            || self.websocket_pong.is_some()
    }

    /// Writes the next unit that precedes all other output; `false` if there is none.
    pub(super) fn put_unit(&mut self, writer: &mut UnitWriter<'_>) -> bool {
        if let Some(frame) = self.hello.take().or_else(|| self.close.frame.take()) {
            writer.unit(&frame, 0, []);
        } else if let Some(code) = self.close.websocket.take() {
            let body = code.map(u16::to_be_bytes);
            writer.websocket(Sent::Close, body.as_ref().map_or(&[], |body| body), 0, []);
        } else if let Some(body) = self.websocket_pong.take() {
            writer.websocket(Sent::Pong, &body, 0, []);
        } else {
            return false;
        }
        true
    }

    /// Drops all but the transport parameters and the close frames.
    pub(super) fn drop_pongs(&mut self) {
        self.pongs.clear();
        self.websocket_pong = None;
    }

    /// Drops everything.
    pub(super) fn clear(&mut self) {
        *self = Self::new(None);
    }
}

/// Truncates a close reason to [`limits::REASON_BYTES`].
fn shortened(reason: &str) -> &str {
    let end = reason.floor_char_boundary(limits::REASON_BYTES);
    reason.get(..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::qmux::QmuxCarrier;

    const FRAMING: QmuxFraming = QmuxFraming::Qmux00;

    /// Number of units written.
    fn units(output: &mut ControlOutput) -> usize {
        let mut out = Vec::new();
        let mut writer = UnitWriter::new(FRAMING, QmuxCarrier::WebSocket, None, &mut out);
        std::iter::from_fn(|| output.put_unit(&mut writer).then_some(())).count()
    }

    #[test]
    fn hello_and_close_precede_the_websocket_close() {
        let mut output = ControlOutput::new(Some(vec![1]));
        output.close(FRAMING, true, &CloseCause::Application(SessionCode::NONE, "bye"));
        assert!(output.has_unit());
        assert_eq!(units(&mut output), 3);
        assert!(!output.has_unit());
    }

    #[test]
    fn nothing_precedes_the_answer_to_a_close() {
        let mut output = ControlOutput::new(Some(vec![1]));
        output.close(FRAMING, true, &CloseCause::Nothing);
        assert_eq!(units(&mut output), 1);
        output.close(FRAMING, false, &CloseCause::Nothing);
        assert_eq!(units(&mut output), 0);
    }

    #[test]
    fn oldest_ping_responses_are_dropped() {
        let mut output = ControlOutput::new(None);
        (0..limits::PONGS as u64 + 2).for_each(|sequence| output.pong(sequence));
        assert_eq!(output.take_pong(), Some(2));
        output.websocket_pong(vec![1]);
        output.drop_pongs();
        assert!(!output.has_pongs() && !output.has_unit());
    }

    #[test]
    fn cleared_output_sends_no_close() {
        let mut output = ControlOutput::new(Some(vec![1]));
        output.close(FRAMING, true, &CloseCause::Violation(Violation::protocol("x")));
        output.clear();
        assert_eq!(units(&mut output), 0);
    }
}
