//! What the relay asks of a peer that publishes: tracks to subscribe to, and how they end.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use relay_model::{Epoch, Hop, LogId, Path, Prefs, SessionId, Start, StreamCode, TrackName, Want, limits};
use relay_store::{End, Resume, Writer};

use crate::transport::Stream;

/// How long groups may still arrive after the publisher said it was done: streams overtake each
/// other.
const STRAGGLERS: Duration = Duration::from_secs(1);
/// How much longer a group that has begun to arrive by then may take.
const LAST_GROUPS: Duration = Duration::from_secs(4);
/// How long a publisher that came back may say nothing before it is asked anew, without a number: it may
/// count from the beginning again.
const RESUME: Duration = Duration::from_secs(2);

/// One upstream subscription.
#[derive(Debug)]
pub(crate) struct Upstream {
    pub(crate) log: LogId,
    pub(crate) epoch: Epoch,
    /// Our id of the subscription.
    pub(crate) wire_id: u64,
    /// Absolute path of the broadcast.
    pub(crate) path: Path,
    /// Who made it.
    pub(crate) publisher: Hop,
    /// Its path as the peer knows it.
    pub(crate) broadcast: Path,
    pub(crate) track: TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
    pub(crate) writer: Writer,
    /// The session it is asked for.
    pub(crate) asker: SessionId,
    /// When the publisher was asked for groups.
    asked_at: Option<Instant>,
    /// Whether TRACK was sent.
    is_track_asked: bool,
    /// Whether the publisher said anything of the track but its end.
    has_answered: bool,
    pub(crate) track_stream: Option<Stream>,
    pub(crate) subscribe_stream: Option<Stream>,
    /// Old groups being fetched, and the stream of each once it is open.
    pub(crate) pulls: Vec<(u64, Option<Stream>)>,
    /// Where an earlier writer of the log left off.
    pub(crate) resume: Option<Resume>,
    /// It was asked for the latest instead, having been mute.
    anew: bool,
    /// Until when the first word of a resumed subscription is waited for.
    resume_by: Option<Instant>,
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
    /// What to ask of the publisher: from where an earlier writer left off, if there was one. Whatever is
    /// younger than that is fresh until the gap is closed.
    pub(crate) fn asked(&self) -> Prefs {
        let Some(resume) = self.resume.filter(|_| !self.anew) else { return self.prefs };
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

    /// Takes new wishes in. True when the publisher waits for a group that is not what is wanted first any
    /// more, and must be asked anew: where it begins is decided once, and an update comes too late.
    pub(crate) fn wish(&mut self, prefs: Prefs) -> bool {
        let before = self.asked().start.floor();
        self.prefs = prefs;
        let now = self.asked().start.floor();
        let is_earlier = before.is_some_and(|before| now.map_or(before > 0, |now| now < before));
        is_earlier && self.accounted == 0
    }

    /// From now on whatever comes first decides whether the publisher goes on or counts anew.
    pub(crate) fn ask_for_latest(&mut self) {
        self.anew = true;
    }

    /// The subscription was sent: a resumed one is waited for.
    pub(crate) fn subscribed(&mut self, stream: Stream, now: Instant) {
        self.subscribe_stream = Some(stream);
        self.asked_at = Some(now);
        self.resume_by = self.resume.filter(|_| !self.anew).map(|_| now + RESUME);
    }

    /// The publisher said something of the track.
    pub(crate) fn set_answered(&mut self) {
        self.has_answered = true;
    }

    /// Whether the publisher said anything of the track but its end.
    pub(crate) fn has_answered(&self) -> bool {
        self.has_answered || self.started || self.accounted > 0
    }

    /// Whether TRACK was sent.
    pub(crate) fn was_asked(&self) -> bool {
        self.is_track_asked
    }

    /// Whether it was asked for so lately that the peer may have answered with another publisher's track.
    pub(crate) fn is_young(&self, now: Instant) -> bool {
        self.asked_at.is_none_or(|at| now.saturating_duration_since(at) < limits::DOUBT)
    }

    /// Whether the first word of a resumed subscription has not come in time. True once.
    pub(crate) fn is_mute(&mut self, now: Instant) -> bool {
        self.resume_by.take_if(|by| now >= *by).is_some()
    }

    /// A group of a resumed subscription came: false when its number lies before where the log left off,
    /// which means that the publisher counts anew. After the first one this is settled.
    pub(crate) fn continues(&mut self, sequence: u64) -> bool {
        self.resume_by = None;
        self.resume.take().is_none_or(|resume| sequence >= resume.group)
    }

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

    /// Whether the publisher has said that it is done.
    pub(crate) fn is_finishing(&self) -> bool {
        self.finishing.is_some()
    }

    /// When it is to be looked at again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let late = if self.groups == 0 { Duration::ZERO } else { LAST_GROUPS };
        self.finishing.map(|at| at + late).into_iter().chain(self.resume_by).min()
    }

    /// How the track ended, once nothing more is expected. Versions that do not say where the track ends
    /// are waited for.
    pub(crate) fn ended(&self, now: Instant) -> Option<End> {
        let deadline = self.finishing?;
        let counted = self.first.unwrap_or(0).saturating_add(self.accounted);
        let complete = self.groups == 0 && self.bound.is_some_and(|bound| counted >= bound);
        let waited = now >= deadline && (self.groups == 0 || now >= deadline + LAST_GROUPS);
        (complete || waited).then_some(End { final_group: self.bound, code: None })
    }
}

/// All upstream subscriptions of a session.
#[derive(Debug, Default)]
pub(crate) struct Upstreams {
    by_log: HashMap<LogId, Upstream, foldhash::fast::RandomState>,
    by_wire: HashMap<u64, LogId, foldhash::fast::RandomState>,
    next_id: u64,
    /// TRACK requests without an answer, by the session they were made for.
    unanswered: HashMap<SessionId, usize, foldhash::fast::RandomState>,
}

/// What an upstream subscription starts from.
pub(crate) struct Opening {
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
                anew: false,
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

    /// TRACK was sent on `stream`.
    pub(crate) fn track_asked(&mut self, log: LogId, stream: Stream) {
        if let Some(up) = self.by_log.get_mut(&log) {
            (up.is_track_asked, up.track_stream) = (true, Some(stream));
            *self.unanswered.entry(up.asker).or_default() += 1;
        }
    }

    /// TRACK was answered.
    pub(crate) fn track_answered(&mut self, log: LogId) {
        let Some(up) = self.by_log.get_mut(&log) else { return };
        if up.track_stream.take().is_some() {
            let asker = up.asker;
            self.answered(asker);
        }
    }

    /// Number of TRACK requests made for `asker` without an answer.
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

    /// A new wire id for the subscription of `log`: groups of the old one are refused from now on.
    pub(crate) fn renumber(&mut self, log: LogId) {
        let Some(upstream) = self.by_log.get_mut(&log) else { return };
        self.by_wire.remove(&upstream.wire_id);
        upstream.wire_id = self.next_id;
        self.next_id = self.next_id.saturating_add(1);
        self.by_wire.insert(upstream.wire_id, log);
    }

    /// Resumed subscriptions that stayed mute.
    pub(crate) fn mute(&mut self, now: Instant) -> Vec<LogId> {
        self.by_log.values_mut().filter_map(|up| up.is_mute(now).then_some(up.log)).collect()
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Upstream> {
        self.by_log.values_mut()
    }

    /// Earliest end of a wait.
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
