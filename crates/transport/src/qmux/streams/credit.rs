//! Flow control credit of a connection in both directions (RFC 9000 §4.1).

use relay_model::limits as model;

use crate::qmux::{limits, violation::Violation};

/// Credit for sending, granted by the peer.
#[derive(Debug)]
pub(super) struct SendCredit {
    /// Stream bytes accepted in total.
    written: u64,
    /// The peer's limit on them (MAX_DATA).
    limit: u64,
}

impl SendCredit {
    /// Creates a credit of `limit` bytes.
    pub(super) fn new(limit: u64) -> Self {
        Self { written: 0, limit }
    }

    /// Bytes that may be written.
    pub(super) fn left(&self) -> u64 {
        self.limit.saturating_sub(self.written)
    }

    /// Uses credit for accepted bytes.
    pub(super) fn take(&mut self, bytes: u64) {
        self.written = self.written.saturating_add(bytes);
    }

    /// Returns the credit of bytes that are discarded unsent.
    pub(super) fn give_back(&mut self, bytes: u64) {
        self.written = self.written.saturating_sub(bytes);
    }

    /// Raises the limit (RFC 9000 §19.9).
    pub(super) fn raise(&mut self, limit: u64) {
        self.limit = self.limit.max(limit);
    }
}

/// Credit for receiving, granted to the peer.
#[derive(Debug)]
pub(super) struct RecvCredit {
    /// Stream bytes received in total.
    received: u64,
    /// Those of them that were read or discarded.
    released: u64,
    /// Limit announced to the peer.
    announced: u64,
}

impl RecvCredit {
    /// Creates a credit of `announced` bytes; `u64::MAX` for framings without credit.
    pub(super) fn new(announced: u64) -> Self {
        Self { received: 0, released: 0, announced }
    }

    /// Checks that `size` more bytes are allowed.
    pub(super) fn check(&self, size: u64) -> Result<(), Violation> {
        if self.received.saturating_add(size) > self.announced {
            return Err(Violation::flow("connection flow control limit exceeded"));
        }
        Ok(())
    }

    /// Counts received bytes.
    pub(super) fn receive(&mut self, bytes: u64) {
        self.received = self.received.saturating_add(bytes);
    }

    /// Counts bytes skipped by a reset with a final size.
    pub(super) fn skip(&mut self, bytes: u64) -> Result<(), Violation> {
        self.receive(bytes);
        if self.received > self.announced {
            return Err(Violation::flow("final size above the connection flow control limit"));
        }
        Ok(())
    }

    /// Counts bytes that were read or discarded.
    pub(super) fn release(&mut self, bytes: u64) {
        self.released = self.released.saturating_add(bytes);
    }

    /// Bytes received and neither read nor discarded.
    pub(super) fn unread(&self) -> u64 {
        self.received.saturating_sub(self.released)
    }

    /// Returns the new limit if its growth is worth a frame.
    pub(super) fn due(&self) -> Option<u64> {
        let credit = self.released.saturating_add(model::CONNECTION_WINDOW);
        let grown = credit.saturating_sub(self.announced);
        (grown >= model::CONNECTION_WINDOW / limits::CREDIT_SHARE).then_some(credit)
    }

    /// Takes the new limit if its growth is worth a frame, and records it as announced.
    pub(super) fn take_due(&mut self) -> Option<u64> {
        let credit = self.due()?;
        self.announced = credit;
        Some(credit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn discarded_bytes_return_their_send_credit() {
        let mut credit = SendCredit::new(100);
        credit.take(80);
        assert_eq!(credit.left(), 20);
        credit.give_back(30);
        credit.raise(90);
        assert_eq!(credit.left(), 50, "a lower limit changes nothing");
        credit.raise(110);
        assert_eq!(credit.left(), 60);
    }

    #[test]
    fn data_above_the_receive_credit_is_a_violation() {
        let mut credit = RecvCredit::new(100);
        assert!(credit.check(100).is_ok());
        assert!(credit.check(101).is_err());
        credit.receive(100);
        assert!(credit.check(1).is_err());
        assert!(credit.skip(1).is_err());
        assert!(RecvCredit::new(u64::MAX).check(u64::MAX).is_ok());
    }

    #[test]
    fn credit_is_announced_once_its_growth_is_worth_a_frame() {
        let mut credit = RecvCredit::new(model::CONNECTION_WINDOW);
        let step = model::CONNECTION_WINDOW / limits::CREDIT_SHARE;
        credit.receive(step);
        credit.release(step - 1);
        assert_eq!((credit.unread(), credit.take_due()), (1, None));
        credit.release(1);
        assert_eq!(credit.take_due(), Some(model::CONNECTION_WINDOW + step));
        assert_eq!((credit.unread(), credit.due()), (0, None));
    }
}
