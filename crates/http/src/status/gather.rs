//! Queries of a relay's state: every worker, core and the store, each with a time limit.

use std::time::{Duration, Instant};

use relay_model::{LogId, Path, SessionId};
use relay_store::LogStats;
use relay_worker::{Inspector, ListingQuery, SessionQuery, SessionSeen, WorkerTraffic};
use tokio::{
    sync::{mpsc, oneshot},
    time::timeout_at,
};

/// Time limit of an answer: a turn takes milliseconds. Threads that miss it are listed as silent.
pub(crate) const ANSWER_TIMEOUT: Duration = Duration::from_millis(500);
/// Largest number of list entries.
pub(crate) const LISTED: usize = 1_000;
/// Largest number of tracks over all listed broadcasts.
pub(crate) const TRACKS: usize = 10_000;

/// Answers of the workers.
#[derive(Debug, Default)]
pub(crate) struct Sessions {
    /// Sorted by id.
    pub(crate) list: Vec<SessionSeen>,
    pub(crate) total: usize,
    /// By worker: time of the answer and traffic totals, if it answered.
    pub(crate) workers: Vec<Option<(Instant, WorkerTraffic)>>,
}

impl Sessions {
    /// Threads that did not answer.
    pub(crate) fn silent(&self) -> impl Iterator<Item = String> {
        let silent = self.workers.iter().enumerate().filter(|(_, answer)| answer.is_none());
        silent.map(|(worker, _)| format!("worker-{worker}"))
    }
}

/// A broadcast, with the store's figures.
#[derive(Debug)]
pub(crate) struct BroadcastStats {
    pub(crate) path: Path,
    pub(crate) age: Option<Duration>,
    pub(crate) publisher: Option<SessionId>,
    pub(crate) viewers: usize,
    pub(crate) tracks: Vec<TrackStats>,
}

/// A track, with the store's figures.
#[derive(Debug)]
pub(crate) struct TrackStats {
    pub(crate) name: String,
    pub(crate) viewers: usize,
    /// Bytes received, by log.
    pub(crate) logs: Vec<(LogId, u64)>,
    /// Sum over all its logs.
    pub(crate) figures: LogStats,
}

/// Answer of core, with the store's figures.
#[derive(Debug, Default)]
pub(crate) struct Broadcasts {
    /// Sorted by path.
    pub(crate) list: Vec<BroadcastStats>,
    pub(crate) total: usize,
}

/// Lists the requested sessions. Those of a worker that does not answer are missing; of an unfiltered total, its last
/// published count is part.
pub(crate) async fn sessions(inspector: &Inspector, wanted: SessionQuery) -> Sessions {
    let limit = wanted.limit;
    let is_everybody = wanted.prefix.is_root();
    let (sender, mut answers) = mpsc::channel(inspector.workers().max(1));
    let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
    inspector.sessions(wanted, move |list| {
        // The channel has room for every worker; sending fails only after the deadline, when nobody receives.
        let _ = sender.try_send(list);
    });
    let mut found = Sessions { workers: vec![None; inspector.workers()], ..Sessions::default() };
    while let Ok(Some(part)) = timeout_at(deadline, answers.recv()).await {
        found.list.extend(part.sessions);
        found.total += part.total;
        if let Some(worker) = found.workers.get_mut(usize::from(part.worker.0)) {
            *worker = Some((part.at, part.traffic));
        }
    }
    if is_everybody && found.workers.contains(&None) {
        let shown = inspector.counts().workers;
        let silent = found.workers.iter().zip(&shown).filter(|(answer, _)| answer.is_none());
        found.total += silent.map(|(_, shown)| shown.sessions as usize).sum::<usize>();
    }
    found.list.sort_unstable_by_key(|session| session.id);
    found.list.truncate(limit);
    found
}

/// Lists the requested broadcasts; `None`: core does not answer.
pub(crate) async fn broadcasts(inspector: &Inspector, look: ListingQuery) -> Option<Broadcasts> {
    let (sender, answer) = oneshot::channel();
    let deadline = tokio::time::Instant::now() + ANSWER_TIMEOUT;
    inspector.broadcasts(look, move |listing| {
        let _ = sender.send(listing);
    });
    let listing = timeout_at(deadline, answer).await.ok()?.ok()?;
    let now = Instant::now();
    let track = |seen: relay_worker::TrackSeen| {
        let figures = seen.logs.iter().filter_map(|log| Some((*log, inspector.figures(*log)?)));
        let figures: Vec<(LogId, LogStats)> = figures.collect();
        TrackStats {
            name: seen.name.as_str().to_owned(),
            viewers: seen.viewers,
            logs: figures.iter().map(|(log, figures)| (*log, figures.bytes)).collect(),
            figures: figures.into_iter().map(|(_, figures)| figures).fold(LogStats::default(), together),
        }
    };
    let broadcast = |seen: relay_worker::BroadcastSeen| BroadcastStats {
        path: seen.path,
        age: seen.since.map(|since| now.saturating_duration_since(since)),
        publisher: seen.publisher,
        viewers: seen.viewers,
        tracks: seen.tracks.into_iter().map(track).collect(),
    };
    Some(Broadcasts { list: listing.broadcasts.into_iter().map(broadcast).collect(), total: listing.total })
}

/// Combines the figures of two logs of one track.
fn together(one: LogStats, other: LogStats) -> LogStats {
    LogStats {
        groups: one.groups + other.groups,
        frames: one.frames + other.frames,
        bytes: one.bytes + other.bytes,
        latest: one.latest.max(other.latest),
        cached_groups: one.cached_groups + other.cached_groups,
        cached_bytes: one.cached_bytes + other.cached_bytes,
    }
}
