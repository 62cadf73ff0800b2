//! What the relay asks of a peer that publishes: tracks to subscribe to, and how they end.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use relay_model::{Epoch, LogId, Path, Prefs, StreamCode, TrackName, Want};
use relay_store::{End, Writer};

use crate::transport::Stream;

/// How long groups may still arrive after the publisher said it was done: streams overtake each
/// other.
const STRAGGLERS: Duration = Duration::from_secs(1);

/// One upstream subscription.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) log: LogId,
    pub(crate) epoch: Epoch,
    /// Our id of the subscription.
    pub(crate) wire_id: u64,
    /// As the peer knows it.
    pub(crate) broadcast: Path,
    pub(crate) track: TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
    pub(crate) writer: Writer,
    pub(crate) track_stream: Option<Stream>,
    pub(crate) subscribe_stream: Option<Stream>,
    /// Group streams being received.
    pub(crate) groups: usize,
    /// First group of the subscription: as the publisher said, until then the lowest that came.
    first: Option<u64>,
    started: bool,
    /// Groups that came, or were named as dropped.
    accounted: u64,
    /// Exclusive end of the track, once the publisher has said.
    pub(crate) bound: Option<u64>,
    finishing: Option<Instant>,
}

impl Upstream {
    /// A group stream of it began.
    pub(crate) fn group_opened(&mut self, sequence: u64) {
        self.groups = self.groups.saturating_add(1);
        self.accounted = self.accounted.saturating_add(1);
        if !self.started {
            self.first = Some(self.first.map_or(sequence, |first| first.min(sequence)));
        }
    }

    /// The publisher named the first group.
    pub(crate) fn start(&mut self, first: u64) {
        self.first = Some(first);
        self.started = true;
    }

    /// The publisher will not send `start..=end`.
    pub(crate) fn dropped(&mut self, start: u64, end: u64) {
        let start = start.max(self.first.unwrap_or(0));
        let count = end.checked_sub(start).map_or(0, |more| more.saturating_add(1));
        self.accounted = self.accounted.saturating_add(count);
    }

    /// A group stream of it ended, however.
    pub(crate) fn group_closed(&mut self) {
        self.groups = self.groups.saturating_sub(1);
    }

    /// The publisher is done; its last groups may be on their way.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.finishing = Some(now + STRAGGLERS);
    }

    /// When the wait for stragglers is over.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.finishing
    }

    /// How the track ended, once nothing more is expected.
    pub(crate) fn ended(&self, now: Instant) -> Option<End> {
        let deadline = self.finishing?;
        let bound = self.bound.unwrap_or(0);
        let complete = self.groups == 0 && self.first.unwrap_or(0).saturating_add(self.accounted) >= bound;
        (complete || now >= deadline).then_some(End { final_group: Some(bound), code: None })
    }
}

/// All upstream subscriptions of a session.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    by_log: HashMap<LogId, Upstream, foldhash::fast::RandomState>,
    by_wire: HashMap<u64, LogId, foldhash::fast::RandomState>,
    next_id: u64,
}

/// What an upstream subscription starts from.
pub(crate) struct Opening {
    pub(crate) log: LogId,
    pub(crate) epoch: Epoch,
    pub(crate) broadcast: Path,
    pub(crate) track: TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
    pub(crate) writer: Writer,
}

impl Upstreams {
    pub(crate) fn insert(&mut self, opening: Opening) {
        let wire_id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        self.by_wire.insert(wire_id, opening.log);
        self.by_log.insert(
            opening.log,
            Upstream {
                log: opening.log,
                epoch: opening.epoch,
                wire_id,
                broadcast: opening.broadcast,
                track: opening.track,
                prefs: opening.prefs,
                want: opening.want,
                writer: opening.writer,
                track_stream: None,
                subscribe_stream: None,
                groups: 0,
                first: None,
                started: false,
                accounted: 0,
                bound: None,
                finishing: None,
            },
        );
    }

    pub(crate) fn get_mut(&mut self, log: LogId) -> Option<&mut Upstream> {
        self.by_log.get_mut(&log)
    }

    pub(crate) fn by_wire(&mut self, id: u64) -> Option<&mut Upstream> {
        self.by_log.get_mut(self.by_wire.get(&id)?)
    }

    pub(crate) fn remove(&mut self, log: LogId) -> Option<Upstream> {
        let upstream = self.by_log.remove(&log)?;
        self.by_wire.remove(&upstream.wire_id);
        Some(upstream)
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Upstream> {
        self.by_log.values_mut()
    }

    /// Earliest end of a wait for stragglers.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.by_log.values().filter_map(Upstream::deadline).min()
    }

    /// Tracks that have come to their end.
    pub(crate) fn ended(&self, now: Instant) -> Vec<(LogId, End)> {
        self.by_log.values().filter_map(|up| up.ended(now).map(|end| (up.log, end))).collect()
    }
}

/// How a track ends when its stream says nothing.
pub(crate) fn unclean(code: StreamCode) -> End {
    End { final_group: None, code: Some(code) }
}
