//! Upstream subscriptions to a publishing peer, and how they end.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use relay_meter::Worker as Meter;
use relay_model::{Epoch, Hop, LogId, Path, Prefs, SessionId, Start, StreamCode, TrackName, Want, limits};
use relay_store::{Budget, CommitError, LogEnd, Resume, WakeSet, Writer};

use crate::{
    ingest::{AppendTarget, GroupOpen},
    request::RequestId,
};

mod progress;
use progress::GroupProgress;

/// Time for a resumed subscription to get a response before it is repeated without a start group, since the
/// publisher may have restarted its group numbers.
const RESUME: Duration = Duration::from_secs(2);

/// Parameters of an upstream subscription.
#[derive(Debug)]
pub(crate) struct UpstreamParams {
    pub(crate) log: LogId,
    pub(crate) epoch: Epoch,
    /// Absolute path of the broadcast.
    pub(crate) path: Path,
    /// Original publisher of the broadcast.
    pub(crate) publisher: Hop,
    /// Path of the broadcast relative to the session's root.
    pub(crate) broadcast: Path,
    pub(crate) track: TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
    /// Session on whose behalf it is requested.
    pub(crate) asker: SessionId,
}

/// One upstream subscription.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) params: UpstreamParams,
    /// Number of the subscription on data streams, chosen by the relay.
    pub(crate) alias: u64,
    pub(crate) writer: Writer,
    /// Requests to the publisher that are open.
    pub(crate) track_request: Option<RequestId>,
    pub(crate) subscribe_request: Option<RequestId>,
    /// Old groups being fetched, and the request for each once it is sent.
    pub(crate) pulls: Vec<(u64, Option<RequestId>)>,
    /// Time SUBSCRIBE was sent.
    asked_at: Option<Instant>,
    /// Whether the track's properties were requested.
    is_track_asked: bool,
    /// Whether the publisher has sent anything about the track other than its end.
    has_answered: bool,
    resume: ResumeAttempt,
    progress: GroupProgress,
}

/// Continuation of an earlier writer's log.
#[derive(Debug)]
struct ResumeAttempt {
    /// Resume point, until the first group has arrived.
    point: Option<Resume>,
    /// Whether the subscription was repeated from the latest group after no response.
    from_latest: bool,
    /// Deadline for the first response to a resumed subscription.
    by: Option<Instant>,
}

impl Upstream {
    /// Preferences for SUBSCRIBE: from the resume point of an earlier writer, if any. Groups younger than that
    /// count as fresh until the gap is closed.
    pub(crate) fn subscribe_prefs(&self) -> Prefs {
        let prefs = self.params.prefs;
        let Some(resume) = self.resume.point.filter(|_| !self.resume.from_latest) else { return prefs };
        let (group, frame) =
            if resume.finished { (resume.group.saturating_add(1), 0) } else { (resume.group, resume.object) };
        Prefs {
            start: match prefs.start {
                Start::Fresh { .. } => Start::Fresh { floor: group },
                Start::Latest | Start::Group(_) => Start::Group(group),
            },
            start_frame: frame,
            max_age_ms: prefs.max_age_ms.max(limits::LINGER.as_millis() as u64),
            ..prefs
        }
    }

    /// Applies new preferences. True when the publisher's start is now later than wanted and SUBSCRIBE must be
    /// repeated: the start is resolved once, and an update comes too late.
    pub(crate) fn update_prefs(&mut self, prefs: Prefs) -> bool {
        let before = self.subscribe_prefs().start.floor();
        self.params.prefs = prefs;
        let now = self.subscribe_prefs().start.floor();
        let is_earlier = before.is_some_and(|before| now.map_or(before > 0, |now| now < before));
        is_earlier && !self.progress.has_groups()
    }

    /// Requests the latest group; the first group received then decides whether numbering continued or
    /// restarted.
    pub(crate) fn ask_for_latest(&mut self) {
        self.resume.from_latest = true;
    }

    /// Records that SUBSCRIBE was sent, and starts the deadline of a resumed one.
    pub(crate) fn subscribed(&mut self, request: RequestId, now: Instant) {
        self.subscribe_request = Some(request);
        self.asked_at = Some(now);
        self.resume.by = self.resume.point.filter(|_| !self.resume.from_latest).map(|_| now + RESUME);
    }

    /// Records that the publisher sent something about the track.
    pub(crate) fn set_answered(&mut self) {
        self.has_answered = true;
    }

    /// Whether the publisher has sent anything about the track other than its end.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered || self.progress.has_started() || self.progress.has_groups()
    }

    /// Whether the track's properties were requested.
    pub(crate) fn was_asked(&self) -> bool {
        self.is_track_asked
    }

    /// Whether SUBSCRIBE was sent so recently that another publisher of the path may have answered it.
    pub(crate) fn is_young(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.saturating_duration_since(at) < limits::OWNER_CHANGE_WINDOW)
    }

    /// Whether a resumed subscription got no response in time. True once.
    pub(crate) fn resume_timed_out(&mut self, now: Instant) -> bool {
        self.resume.by.take_if(|by| now >= *by).is_some()
    }

    /// Checks a received group of a resumed subscription: false when its number is before the resume point,
    /// which means that the publisher restarted its numbers. Only the first group is checked.
    fn continues(&mut self, sequence: u64) -> bool {
        self.resume.by = None;
        self.resume.point.take().is_none_or(|resume| sequence >= resume.group)
    }

    /// Records the first group named by the publisher.
    pub(crate) fn start(&mut self, first: u64) {
        self.progress.start(first);
    }

    /// Records that the publisher will not send `first..=last`.
    pub(crate) fn dropped(&mut self, first: u64, last: u64) {
        self.progress.dropped(first, last);
    }

    /// Records the exclusive end of the track.
    pub(crate) fn set_bound(&mut self, bound: u64) {
        self.progress.set_bound(bound);
    }

    /// Records that the publisher is done; its last groups may still arrive.
    pub(crate) fn finish(&mut self, now: Instant) {
        self.subscribe_request = None;
        self.progress.finish(now);
    }

    /// Whether the publisher is done.
    pub(crate) fn is_finishing(&self) -> bool {
        self.progress.is_finishing()
    }

    /// Time at which it must be checked again.
    fn deadline(&self) -> Option<Instant> {
        self.progress.deadline().into_iter().chain(self.resume.by).min()
    }
}

/// All upstream subscriptions of a session.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    by_log: HashMap<LogId, Upstream, RandomState>,
    by_alias: HashMap<u64, LogId, RandomState>,
    next_alias: u64,
    /// Requests for properties without a response, by requesting session.
    unanswered: HashMap<SessionId, usize, RandomState>,
    /// Group streams being received.
    open_groups: usize,
    /// Logs whose publisher has restarted its group numbers, or may have changed.
    restarted: Vec<LogId>,
    /// Whether a writer may hold uncommitted data.
    is_dirty: bool,
}

/// Writer that could not commit: its log, epoch and error.
pub(crate) type LostWriter = (LogId, Epoch, CommitError);

impl Upstreams {
    pub(crate) fn insert(&mut self, params: UpstreamParams, writer: Writer, resume: Option<Resume>) {
        let alias = self.next_alias();
        let log = params.log;
        self.by_alias.insert(alias, log);
        let upstream = Upstream {
            params,
            alias,
            writer,
            track_request: None,
            subscribe_request: None,
            pulls: Vec::new(),
            asked_at: None,
            is_track_asked: false,
            has_answered: false,
            resume: ResumeAttempt { point: resume, from_latest: false, by: None },
            progress: GroupProgress::default(),
        };
        self.by_log.insert(log, upstream);
    }

    fn next_alias(&mut self) -> u64 {
        let alias = self.next_alias;
        self.next_alias = self.next_alias.saturating_add(1);
        alias
    }

    /// Whether a group is being received.
    pub(crate) fn is_receiving(&self) -> bool {
        self.open_groups > 0
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.by_log.is_empty()
    }

    pub(crate) fn get(&self, log: LogId) -> Option<&Upstream> {
        self.by_log.get(&log)
    }

    pub(crate) fn get_mut(&mut self, log: LogId) -> Option<&mut Upstream> {
        self.by_log.get_mut(&log)
    }

    pub(crate) fn by_alias(&mut self, alias: u64) -> Option<&mut Upstream> {
        self.by_log.get_mut(self.by_alias.get(&alias)?)
    }

    /// Records that the track's properties were requested.
    pub(crate) fn track_asked(&mut self, log: LogId, request: RequestId) {
        if let Some(up) = self.by_log.get_mut(&log) {
            (up.is_track_asked, up.track_request) = (true, Some(request));
            *self.unanswered.entry(up.params.asker).or_default() += 1;
        }
    }

    /// Records the response to a request for properties.
    pub(crate) fn track_answered(&mut self, log: LogId) {
        let Some(up) = self.by_log.get_mut(&log) else { return };
        if up.track_request.take().is_some() {
            let asker = up.params.asker;
            self.answered(asker);
        }
    }

    /// Number of requests for properties made for `asker` without a response.
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
        if upstream.track_request.is_some() {
            self.answered(upstream.params.asker);
        }
        self.by_alias.remove(&upstream.alias);
        self.open_groups -= upstream.progress.open();
        Some(upstream)
    }

    /// Assigns a new alias to `log`: groups of the old one are refused from now on.
    pub(crate) fn renumber(&mut self, log: LogId) {
        let alias = self.next_alias();
        let Some(upstream) = self.by_log.get_mut(&log) else { return };
        self.by_alias.remove(&upstream.alias);
        upstream.alias = alias;
        self.by_alias.insert(alias, log);
    }

    /// Opens a group of one of the relay's subscriptions in its log; an error refuses it.
    pub(crate) fn open_group(
        &mut self,
        open: GroupOpen,
        budget: &Budget,
        meter: &mut Meter,
    ) -> Result<AppendTarget, StreamCode> {
        let log = *self.by_alias.get(&open.alias).ok_or(StreamCode::CANCEL)?;
        let up = self.by_log.get_mut(&log).ok_or(StreamCode::CANCEL)?;
        if !up.continues(open.group) {
            self.restart(log);
            return Err(StreamCode::CANCEL);
        }
        if up.progress.open() >= limits::UPSTREAM_GROUPS {
            return Err(StreamCode::CANCEL);
        }
        if budget.at_ceiling() {
            // The cache is already evicted: refusing a group is better than running out of memory.
            meter.groups_refused += 1;
            return Err(StreamCode::EVICTED);
        }
        up.progress.group_opened(open.group);
        up.writer.open_group_at(open.group, open.first);
        self.open_groups += 1;
        self.is_dirty = true;
        meter.groups_in += 1;
        Ok(AppendTarget { log, sequence: open.group, strand: open.subgroup })
    }

    /// Records the end of a group stream. Returns the writer, for the end of the group.
    pub(crate) fn close_group(&mut self, log: LogId) -> Option<&mut Writer> {
        let up = self.by_log.get_mut(&log)?;
        if up.progress.group_closed() {
            self.open_groups -= 1;
        }
        self.is_dirty = true;
        Some(&mut up.writer)
    }

    /// Writer of a log, to append to.
    pub(crate) fn append_to(&mut self, log: LogId) -> Option<&mut Writer> {
        let up = self.by_log.get_mut(&log)?;
        self.is_dirty = true;
        Some(&mut up.writer)
    }

    /// Marks a log whose data belongs to another log from now on.
    fn restart(&mut self, log: LogId) {
        self.restarted.push(log);
        self.is_dirty = true;
    }

    /// Marks the tracks of `path` requested just before its publisher changed: either publisher may answer
    /// them, and a log must not mix groups of both.
    pub(crate) fn drop_ambiguous(&mut self, path: &Path, publisher: Hop, now: Instant) {
        let ambiguous = self.by_log.values().filter(|up| up.params.path == *path);
        let ambiguous = ambiguous.filter(|up| up.params.publisher != publisher && up.is_young(now));
        self.restarted.extend(ambiguous.map(|up| up.params.log));
        self.is_dirty |= !self.restarted.is_empty();
    }

    /// Takes the marked logs.
    pub(crate) fn take_restarted(&mut self) -> Vec<LogId> {
        std::mem::take(&mut self.restarted)
    }

    /// Records that a writer may hold uncommitted data.
    pub(crate) fn mark_dirty(&mut self) {
        self.is_dirty = true;
    }

    /// Whether [`Self::commit`] may have something to do. True once.
    #[inline]
    pub(crate) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.is_dirty)
    }

    /// Makes appended data visible: one lock per log. Returns the writers that could not.
    pub(crate) fn commit(&mut self, now: Instant, wakes: &mut WakeSet) -> Vec<LostWriter> {
        let mut lost = Vec::new();
        for up in self.by_log.values_mut().filter(|up| up.writer.is_dirty()) {
            if let Err(error) = up.writer.commit(now, wakes) {
                lost.push((up.params.log, up.params.epoch, error));
            }
        }
        lost
    }

    /// Resumed subscriptions that got no response in time.
    pub(crate) fn timed_out_resumes(&mut self, now: Instant) -> Vec<LogId> {
        let timed_out =
            self.by_log.values_mut().filter_map(|up| up.resume_timed_out(now).then_some(up.params.log));
        timed_out.collect()
    }

    /// Earliest deadline.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.by_log.values().filter_map(Upstream::deadline).min()
    }

    /// Tracks that have ended.
    pub(crate) fn ended(&self, now: Instant) -> Vec<(LogId, LogEnd)> {
        let ended = self.by_log.values().filter_map(|up| Some((up.params.log, up.progress.ended(now)?)));
        ended.collect()
    }
}

/// End of a track whose stream ended without a bound.
pub(crate) fn unclean(code: StreamCode) -> LogEnd {
    LogEnd { final_group: None, code: Some(code) }
}
