//! Deadlines by which the peer's streams must have their type and request.

use std::{collections::VecDeque, time::Instant};

use relay_model::{limits, transport::Stream};

/// Deadlines kept before obsolete ones are pruned.
const KEPT: usize = 64;

/// Streams with a header deadline, oldest first.
#[derive(Debug, Default)]
pub(super) struct HeaderDeadlines {
    streams: VecDeque<(Instant, Stream)>,
}

impl HeaderDeadlines {
    pub(super) fn add(&mut self, stream: Stream, now: Instant) {
        self.streams.push_back((now + limits::STREAM_HEADER_TIMEOUT, stream));
    }

    /// Earliest deadline.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.streams.front().map(|(due, _)| *due)
    }

    /// Takes the next stream whose deadline has passed.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<Stream> {
        self.streams.pop_front_if(|(due, _)| now >= *due).map(|(_, stream)| stream)
    }

    /// Prunes deadlines of streams that no longer wait for a header, once they outnumber the `open` streams: a
    /// peer that opens and resets streams must not grow the queue.
    pub(super) fn prune(&mut self, open: usize, waits: impl Fn(Stream) -> bool) {
        if self.streams.len() > 2 * open + KEPT {
            self.streams.retain(|(_, stream)| waits(*stream));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn obsolete_deadlines_are_pruned_past_a_bound() {
        let (mut headers, now) = (HeaderDeadlines::default(), Instant::now());
        for stream in 0..=KEPT as u64 {
            headers.add(Stream(stream), now);
        }
        headers.prune(1, |_| false);
        assert_eq!(headers.streams.len(), KEPT + 1);
        headers.prune(0, |stream| stream == Stream(3));
        let due = now + limits::STREAM_HEADER_TIMEOUT;
        assert_eq!((headers.deadline(), headers.take_due(now)), (Some(due), None));
        assert_eq!((headers.take_due(due), headers.take_due(due)), (Some(Stream(3)), None));
    }
}
