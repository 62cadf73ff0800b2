//! Upstream subscriptions to a publishing peer, and how they end.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use relay_model::{
    Epoch, Hop, LogId, Path, Prefs, SessionId, Start, StreamCode, TrackName, Want, limits, transport::Stream,
};
use relay_store::{LogEnd, Resume, Writer};

/// Time in which groups may still arrive after the publisher's end, as streams may be reordered.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// Further time for a group that has begun to arrive by then.
const LAST_GROUPS: Duration = Duration::from_secs(4);
/// Time for a resumed subscription to get a response before it is repeated without a start group, since the
/// publisher may have restarted its group numbers.
const RESUME: Duration = Duration::from_secs(2);

/// One upstream subscription.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) log: LogId,
    pub(crate) epoch: Epoch,
    /// Subscribe id, chosen by the relay.
    pub(crate) wire_id: u64,
    /// Absolute path of the broadcast.
    pub(crate) path: Path,
    /// Original publisher of the broadcast.
    pub(crate) publisher: Hop,
    /// Path of the broadcast relative to the session's root.
    pub(crate) broadcast: Path,
    pub(crate) track: TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
    pub(crate) writer: Writer,
    /// Session on whose behalf it is requested.
    pub(crate) asker: SessionId,
    /// Time SUBSCRIBE was sent.
    asked_at: Option<Instant>,
    /// Whether TRACK was sent.
    is_track_asked: bool,
    /// Whether the publisher has sent anything about the track other than its end.
    has_answered: bool,
    pub(crate) track_stream: Option<Stream>,
    pub(crate) subscribe_stream: Option<Stream>,
    /// Old groups being fetched, and the stream of each once it is open.
    pub(crate) pulls: Vec<(u64, Option<Stream>)>,
    /// Resume point of an earlier writer of the log.
    pub(crate) resume: Option<Resume>,
    /// Whether it was repeated from the latest group after no response.
    from_latest: bool,
    /// Deadline for the first response to a resumed subscription.
    resume_by: Option<Instant>,
    /// Group streams being received.
    pub(crate) groups: usize,
    /// First group of the subscription: as sent by the publisher, until then the lowest received.
    first: Option<u64>,
    started: bool,
    /// Number of groups received or reported as dropped.
    accounted: u64,
    /// Exclusive end of the track, once sent by the publisher.
    pub(crate) bound: Option<u64>,
    finishing: Option<Instant>,
}

impl Upstream {
    /// Preferences for SUBSCRIBE: from the resume point of an earlier writer, if any. Groups younger than that
    /// count as fresh until the gap is closed.
    pub(crate) fn subscribe_prefs(&self) -> Prefs {
        let Some(resume) = self.resume.filter(|_| !self.from_latest) else { return self.prefs };
        let (group, frame) =
            if resume.finished { (resume.group.saturating_add(1), 0) } else { (resume.group, resume.object) };
        Prefs {
            start: match self.prefs.start {
                Start::Fresh { .. } => Start::Fresh { floor: group },
                Start::Latest | Start::Group(_) => Start::Group(group),
            },
            start_frame: frame,
            max_age_ms: self.prefs.max_age_ms.max(limits::LINGER.as_millis() as u64),
            ..self.prefs
        }
    }

    /// Applies new preferences. True when the publisher's start is now later than wanted and SUBSCRIBE must be
    /// repeated: the start is resolved once, and an update comes too late.
    pub(crate) fn update_prefs(&mut self, prefs: Prefs) -> bool {
        let before = self.subscribe_prefs().start.floor();
        self.prefs = prefs;
        let now = self.subscribe_prefs().start.floor();
        let is_earlier = before.is_some_and(|before| now.map_or(before > 0, |now| now < before));
        is_earlier && self.accounted == 0
    }

    /// Requests the latest group; the first group received then decides whether numbering continued or
    /// restarted.
    pub(crate) fn ask_for_latest(&mut self) {
        self.from_latest = true;
    }

    /// Records that SUBSCRIBE was sent, and starts the deadline of a resumed one.
    pub(crate) fn subscribed(&mut self, stream: Stream, now: Instant) {
        self.subscribe_stream = Some(stream);
        self.asked_at = Some(now);
        self.resume_by = self.resume.filter(|_| !self.from_latest).map(|_| now + RESUME);
    }

    /// Records that the publisher sent something about the track.
    pub(crate) fn set_answered(&mut self) {
        self.has_answered = true;
    }

    /// Whether the publisher has sent anything about the track other than its end.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered || self.started || self.accounted > 0
    }

    /// Whether TRACK was sent.
    pub(crate) fn was_asked(&self) -> bool {
        self.is_track_asked
    }

    /// Whether SUBSCRIBE was sent so recently that another publisher of the path may have answered it.
    pub(crate) fn is_young(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.saturating_duration_since(at) < limits::OWNER_CHANGE_WINDOW)
    }

    /// Whether a resumed subscription got no response in time. True once.
    pub(crate) fn resume_timed_out(&mut self, now: Instant) -> bool {
        self.resume_by.take_if(|by| now >= *by).is_some()
    }

    /// Checks a received group of a resumed subscription: false when its number is before the resume point,
    /// which means that the publisher restarted its numbers. Only the first group is checked.
    pub(crate) fn continues(&mut self, sequence: u64) -> bool {
        self.resume_by = None;
        self.resume.take().is_none_or(|resume| sequence >= resume.group)
    }

    /// Records the start of a group stream.
    pub(crate) fn group_opened(&mut self, sequence: u64) {
        self.groups = self.groups.saturating_add(1);
        self.accounted = self.accounted.saturating_add(1);
        if !self.started {
            self.first = Some(self.first.map_or(sequence, |first| first.min(sequence)));
        }
    }

    /// Records the first group sent by the publisher.
    pub(crate) fn start(&mut self, first: u64) {
        self.first = Some(first);
        self.started = true;
    }

    /// Records that the publisher will not send `start..=end`.
    pub(crate) fn dropped(&mut self, start: u64, end: u64) {
        let start = start.max(self.first.unwrap_or(0));
        let count = end.checked_sub(start).map_or(0, |more| more.saturating_add(1));
        self.accounted = self.accounted.saturating_add(count);
    }

    /// Records the end of a group stream.
    pub(crate) fn group_closed(&mut self) {
        self.groups = self.groups.saturating_sub(1);
    }

    /// Records that the publisher is done; its last groups may still arrive.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.finishing = Some(now + STRAGGLERS);
    }

    /// Whether the publisher is done.
    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing.is_some()
    }

    /// Time at which it must be checked again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let late = if self.groups == 0 { Duration::ZERO } else { LAST_GROUPS };
        self.finishing.map(|at| at + late).into_iter().chain(self.resume_by).min()
    }

    /// End of the track, once nothing more is expected. In versions that do not send the last group, a timeout
    /// decides.
    pub(crate) fn ended(&self, now: Instant) -> Option<LogEnd> {
        let deadline = self.finishing?;
        let counted = self.first.unwrap_or(0).saturating_add(self.accounted);
        let complete = self.groups == 0 && self.bound.is_some_and(|bound| counted >= bound);
        let waited = now >= deadline && (self.groups == 0 || now >= deadline + LAST_GROUPS);
        (complete || waited).then_some(LogEnd { final_group: self.bound, code: None })
    }
}

/// All upstream subscriptions of a session.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    by_log: HashMap<LogId, Upstream, foldhash::fast::RandomState>,
    by_wire: HashMap<u64, LogId, foldhash::fast::RandomState>,
    next_id: u64,
    /// TRACK requests without a response, by requesting session.
    unanswered: HashMap<SessionId, usize, foldhash::fast::RandomState>,
}

/// Parameters of a new upstream subscription.
pub(crate) struct UpstreamParams {
    pub(crate) log: LogId,
    pub(crate) epoch: Epoch,
    pub(crate) path: Path,
    pub(crate) publisher: Hop,
    pub(crate) broadcast: Path,
    pub(crate) track: TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
    pub(crate) writer: Writer,
    pub(crate) asker: SessionId,
    pub(crate) resume: Option<Resume>,
}

impl Upstreams {
    pub(crate) fn insert(&mut self, opening: UpstreamParams) {
        let wire_id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        self.by_wire.insert(wire_id, opening.log);
        self.by_log.insert(
            opening.log,
            Upstream {
                log: opening.log,
                epoch: opening.epoch,
                wire_id,
                path: opening.path,
                publisher: opening.publisher,
                broadcast: opening.broadcast,
                track: opening.track,
                prefs: opening.prefs,
                want: opening.want,
                writer: opening.writer,
                asker: opening.asker,
                asked_at: None,
                is_track_asked: false,
                has_answered: false,
                track_stream: None,
                subscribe_stream: None,
                pulls: Vec::new(),
                resume: opening.resume,
                from_latest: false,
                resume_by: None,
                groups: 0,
                first: None,
                started: false,
                accounted: 0,
                bound: None,
                finishing: None,
            },
        );
    }

    /// Whether a group is being received.
    pub(crate) fn is_receiving(&self) -> bool {
        self.by_log.values().any(|up| up.groups > 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_log.is_empty()
    }

    pub(crate) fn get_mut(&mut self, log: LogId) -> Option<&mut Upstream> {
        self.by_log.get_mut(&log)
    }

    pub(crate) fn by_wire(&mut self, id: u64) -> Option<&mut Upstream> {
        self.by_log.get_mut(self.by_wire.get(&id)?)
    }

    /// Records that TRACK was sent on `stream`.
    pub(crate) fn track_asked(&mut self, log: LogId, stream: Stream) {
        if let Some(up) = self.by_log.get_mut(&log) {
            (up.is_track_asked, up.track_stream) = (true, Some(stream));
            *self.unanswered.entry(up.asker).or_default() += 1;
        }
    }

    /// Records the response to TRACK.
    pub(crate) fn track_answered(&mut self, log: LogId) {
        let Some(up) = self.by_log.get_mut(&log) else { return };
        if up.track_stream.take().is_some() {
            let asker = up.asker;
            self.answered(asker);
        }
    }

    /// Number of TRACK requests made for `asker` without a response.
    pub(crate) fn unanswered(&self, asker: SessionId) -> usize {
        self.unanswered.get(&asker).copied().unwrap_or(0)
    }

    fn answered(&mut self, asker: SessionId) {
        if let Some(count) = self.unanswered.get_mut(&asker) {
            *count -= 1;
            if *count == 0 {
                self.unanswered.remove(&asker);
            }
        }
    }

    pub(crate) fn remove(&mut self, log: LogId) -> Option<Upstream> {
        let upstream = self.by_log.remove(&log)?;
        if upstream.track_stream.is_some() {
            self.answered(upstream.asker);
        }
        self.by_wire.remove(&upstream.wire_id);
        Some(upstream)
    }

    /// Assigns a new subscribe id to `log`: groups of the old one are refused from now on.
    pub(crate) fn renumber(&mut self, log: LogId) {
        let Some(upstream) = self.by_log.get_mut(&log) else { return };
        self.by_wire.remove(&upstream.wire_id);
        upstream.wire_id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        self.by_wire.insert(upstream.wire_id, log);
    }

    /// Resumed subscriptions that got no response in time.
    pub(crate) fn timed_out_resumes(&mut self, now: Instant) -> Vec<LogId> {
        self.by_log.values_mut().filter_map(|up| up.resume_timed_out(now).then_some(up.log)).collect()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Upstream> {
        self.by_log.values_mut()
    }

    /// Earliest deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.by_log.values().filter_map(Upstream::deadline).min()
    }

    /// Tracks that have ended.
    pub(crate) fn ended(&self, now: Instant) -> Vec<(LogId, LogEnd)> {
        self.by_log.values().filter_map(|up| up.ended(now).map(|end| (up.log, end))).collect()
    }
}

/// End of a track whose stream ended without SUBSCRIBE_END.
pub(crate) fn unclean(code: StreamCode) -> LogEnd {
    LogEnd { final_group: None, code: Some(code) }
}
