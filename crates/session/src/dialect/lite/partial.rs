//! Streams with a partial frame held back for more of it.

use std::time::{Duration, Instant};

use relay_model::transport::Stream;

/// Longest time a partial frame is held back for more of it.
const PARTIAL_DELAY: Duration = Duration::from_millis(1);

/// Streams that hold a partial frame, with one deadline for all of them.
#[derive(Debug, Default)]
pub(super) struct PartialFrames {
    streams: Vec<Stream>,
    due: Option<Instant>,
}

impl PartialFrames {
    pub(super) fn add(&mut self, stream: Stream, now: Instant) {
        self.streams.push(stream);
        self.due.get_or_insert(now + PARTIAL_DELAY);
    }

    /// Time at which the frames are to be appended as far as received.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Takes the streams, if they are due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Stream> {
        match self.due.take_if(|due| now >= *due) {
            Some(_) => std::mem::take(&mut self.streams),
            None => Vec::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partial_frames_are_due_with_the_first() {
        let (mut partial, now) = (PartialFrames::default(), Instant::now());
        partial.add(Stream(1), now);
        partial.add(Stream(2), now + PARTIAL_DELAY / 2);
        assert_eq!(partial.deadline(), Some(now + PARTIAL_DELAY));
        assert!(partial.take_due(now).is_empty());
        assert_eq!(partial.take_due(now + PARTIAL_DELAY), [Stream(1), Stream(2)]);
        assert_eq!(partial.deadline(), None);
    }
}
