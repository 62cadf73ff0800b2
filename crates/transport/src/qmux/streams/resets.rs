//! Resets and stops that wait to be sent.

use std::collections::VecDeque;

use relay_model::StreamCode;

use crate::qmux::{QmuxFraming, frame, limits};

/// Pending RESET_STREAM or STOP_SENDING (RFC 9000 §19.4, §19.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PendingReset {
    Reset { id: u64, code: StreamCode, size: u64 },
    Stop { id: u64, code: StreamCode },
}

/// Resets and stops in order.
#[derive(Debug, Default)]
pub(super) struct ResetQueue {
    queue: VecDeque<PendingReset>,
}

impl ResetQueue {
    /// Appends a frame.
    pub(super) fn push(&mut self, reset: PendingReset) {
        self.queue.push_back(reset);
    }

    /// Returns whether input must wait until the peer has read some frames.
    pub(super) fn is_full(&self) -> bool {
        self.queue.len() >= limits::ANSWERS
    }

    /// Returns whether no frame waits.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Appends the next frame to `out`; `false` if there is none.
    pub(super) fn put(&mut self, framing: QmuxFraming, out: &mut Vec<u8>) -> bool {
        match self.queue.pop_front() {
            Some(PendingReset::Reset { id, code, size }) => {
                frame::put_reset(framing, id, code.0.into(), size, out);
            }
            Some(PendingReset::Stop { id, code }) => frame::put_stop(id, code.0.into(), out),
            None => return false,
        }
        true
    }

    /// Drops all frames.
    pub(super) fn clear(&mut self) {
        self.queue.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_written_in_order() {
        let mut resets = ResetQueue::default();
        resets.push(PendingReset::Reset { id: 2, code: StreamCode::CANCEL, size: 7 });
        resets.push(PendingReset::Stop { id: 4, code: StreamCode::CANCEL });
        let (mut first, mut second) = (Vec::new(), Vec::new());
        assert!(resets.put(QmuxFraming::Qmux01, &mut first));
        assert!(resets.put(QmuxFraming::Qmux01, &mut second));
        assert!(resets.is_empty() && !resets.put(QmuxFraming::Qmux01, &mut Vec::new()));
        let code = StreamCode::CANCEL.0 as u8;
        assert_eq!((first, second), (vec![4, 2, code, 7], vec![5, 4, code]));
    }

    #[test]
    fn input_waits_at_the_limit() {
        let mut resets = ResetQueue::default();
        for id in 0..limits::ANSWERS as u64 {
            assert!(!resets.is_full());
            resets.push(PendingReset::Stop { id, code: StreamCode::CANCEL });
        }
        assert!(resets.is_full());
        resets.clear();
        assert!(resets.is_empty());
    }
}
