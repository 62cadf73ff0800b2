//! Limits of unsent bytes of a connection.

use crate::qmux::limits;

/// Unsent bytes of a connection and their limits: media low, so that the order of groups is decided late;
/// control messages are exempt from it and have a limit of their own.
#[derive(Debug, Default)]
pub(super) struct UnsentValve {
    media: u64,
    control: u64,
    /// Whether writes are exempt from the limit of media.
    is_exempt: bool,
    /// Whether a write was short or refused since the last `Room`.
    is_starved: bool,
    /// Whether data was sent or credit received since then.
    is_freed: bool,
}

impl UnsentValve {
    /// Returns whether writes are exempt from the limit of media.
    pub(super) fn is_exempt(&self) -> bool {
        self.is_exempt
    }

    /// Sets whether writes are exempt from the limit of media.
    pub(super) fn exempt(&mut self, on: bool) {
        self.is_exempt = on;
    }

    /// Bytes that may be added now.
    pub(super) fn room(&self, is_exempt: bool) -> u64 {
        if is_exempt {
            limits::UNSENT_CONTROL.saturating_sub(self.control)
        } else {
            limits::UNSENT_MEDIA.saturating_sub(self.media)
        }
    }

    /// Adds accepted bytes of a write.
    pub(super) fn add(&mut self, bytes: u64) {
        let unsent = if self.is_exempt { &mut self.control } else { &mut self.media };
        *unsent = unsent.saturating_add(bytes);
    }

    /// Removes bytes that were sent or discarded.
    pub(super) fn remove(&mut self, media: u64, control: u64) {
        self.media = self.media.saturating_sub(media);
        self.control = self.control.saturating_sub(control);
        self.is_freed = true;
    }

    /// Notes a short or refused write.
    pub(super) fn starve(&mut self) {
        self.is_starved = true;
    }

    /// Notes new credit.
    pub(super) fn free(&mut self) {
        self.is_freed = true;
    }

    /// Returns whether `Room` is due: at least half of the limit of media is free, to avoid tiny writes.
    pub(super) fn has_room(&self) -> bool {
        self.is_starved && self.is_freed && self.media <= limits::UNSENT_MEDIA / 2
    }

    /// Returns whether `Room` is due; once per refused write.
    pub(super) fn take_room(&mut self) -> bool {
        let is_due = self.has_room();
        if is_due {
            (self.is_starved, self.is_freed) = (false, false);
        }
        is_due
    }

    /// Forgets all unsent bytes.
    pub(super) fn clear(&mut self) {
        *self = Self { is_exempt: self.is_exempt, is_freed: self.is_freed, ..Self::default() };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_is_exempt_from_the_limit_of_media() {
        let mut valve = UnsentValve::default();
        valve.add(limits::UNSENT_MEDIA);
        assert_eq!((valve.room(false), valve.room(true)), (0, limits::UNSENT_CONTROL));
        valve.exempt(true);
        valve.add(10);
        assert_eq!((valve.room(false), valve.room(true)), (0, limits::UNSENT_CONTROL - 10));
        valve.remove(5, 10);
        assert_eq!((valve.room(false), valve.room(true)), (5, limits::UNSENT_CONTROL));
    }

    #[test]
    fn room_is_reported_at_half_the_limit() {
        let mut valve = UnsentValve::default();
        valve.add(limits::UNSENT_MEDIA);
        valve.starve();
        valve.remove(limits::UNSENT_MEDIA / 2 - 1, 0);
        assert!(!valve.take_room());
        valve.remove(1, 0);
        assert!(valve.take_room());
        assert!(!valve.take_room(), "once per refused write");
    }

    #[test]
    fn room_needs_a_refused_write_and_a_change() {
        let mut valve = UnsentValve::default();
        valve.free();
        assert!(!valve.has_room());
        valve.take_room();
        valve.clear();
        valve.starve();
        assert!(valve.has_room(), "credit came before the refusal");
        valve.clear();
        assert!(!valve.has_room());
    }
}
