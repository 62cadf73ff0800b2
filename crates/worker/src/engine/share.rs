//! Shares of a turn: each part of it has time of its own, counted from its own start, and a least amount of work
//! that it does however late it is. No part can use up the share of another; what is left stays in the part's
//! queue for the next turn.

use std::time::{Duration, Instant};

use crate::socket::Io;

/// Time and least work of one part of a turn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limit {
    /// Longest time of the part. It is exceeded by at most the work between two clock reads.
    pub(super) time: Duration,
    /// Pieces of work done before the first clock read.
    pub(super) least: usize,
    /// Pieces of work between two clock reads.
    pub(super) stride: usize,
}

const fn limit(time_us: u64, least: usize, stride: usize) -> Limit {
    Limit { time: Duration::from_micros(time_us), least, stride }
}

/// Datagrams received and fed to their connections.
pub(super) const RECEIVE: Limit = limit(1_000, 64, 32);
/// Peers whose input and timers are handled.
pub(super) const PROCESS: Limit = limit(2_000, 8, 8);
/// Messages of core and of the supervisor.
pub(super) const MESSAGES: Limit = limit(1_000, 16, 1);
/// Readers that are handed changes of logs.
pub(super) const CHANGES: Limit = limit(2_000, 16, 16);
/// Watchers that are sent changes of the announce board.
pub(super) const BOARD: Limit = limit(1_000, 8, 4);
/// Peers whose packets are made and sent.
pub(super) const FLUSH: Limit = limit(2_000, 8, 1);

/// Remaining share of one part of a turn.
#[derive(Debug)]
pub(super) struct TurnShare {
    /// Latest reading of the clock.
    clock: Instant,
    time: Duration,
    /// Set by the first reading.
    end: Option<Instant>,
    /// Pieces of work until the next reading.
    until_look: usize,
    stride: usize,
}

impl TurnShare {
    /// Share of a part that begins now, with `clock` as the latest reading of the clock.
    pub(super) fn new(limit: Limit, clock: Instant) -> Self {
        Self { clock, time: limit.time, end: None, until_look: limit.least, stride: limit.stride }
    }

    /// Counts `pieces` of finished work. Returns true when the share is used up.
    #[inline]
    pub(super) fn spend(&mut self, pieces: usize, io: &impl Io) -> bool {
        self.until_look = self.until_look.saturating_sub(pieces);
        self.until_look == 0 && self.look(io)
    }

    fn look(&mut self, io: &impl Io) -> bool {
        self.until_look = self.stride;
        let (start, time) = (self.clock, self.time);
        let end = *self.end.get_or_insert_with(|| start + time);
        self.clock = io.now();
        self.clock >= end
    }

    /// Latest reading of the clock, with which the next part begins.
    pub(super) fn clock(&self) -> Instant {
        self.clock
    }
}
