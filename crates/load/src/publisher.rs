//! One simulated publisher.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use anyhow::{Context, Result};
use relay_client::{Client, GroupWriter, SessionCode, TrackInfo};
use tokio::time::{Instant, sleep_until};

use crate::{
    arrival::Clock,
    frame::{Filling, Stamp},
    run::RunTarget,
    scenario::Shape,
};

/// Timescale of the tracks, ticks per second.
const TIMESCALE: u64 = 1_000_000;
/// Largest age of a superseded group, ms: the scenarios allow no skipped groups.
const MAX_AGE_MS: u64 = 5_000;
/// Name of each broadcast's only track.
pub(crate) const TRACK: &str = "load";

/// A publisher that sends until its stop number is set and reached.
pub(crate) struct Publisher {
    /// The session must stay open until every viewer is judged.
    pub(crate) client: Client,
    /// Schedule of the frames.
    pub(crate) pace: Arc<Pace>,
    task: tokio::task::JoinHandle<()>,
    broadcast: relay_client::Broadcast,
}

/// Schedule that is shared with the sending task.
#[derive(Debug)]
pub(crate) struct Pace {
    /// Time at which frame 0 is due, ns on the process's clock; 0 = not started.
    start_ns: AtomicU64,
    /// Frames from this number on are not sent.
    stop: AtomicU64,
    /// Largest delay of a frame behind its schedule, us.
    late_us: AtomicU64,
    sent: AtomicU64,
    period: Duration,
}

impl Pace {
    /// Number of the first frame due at or after `at_ns`; `None` before the start.
    pub(crate) fn first_due(&self, at_ns: u64) -> Option<u64> {
        match self.start_ns.load(Relaxed) {
            0 => None,
            start => {
                let elapsed = at_ns.saturating_sub(start);
                Some((u128::from(elapsed)).div_ceil(self.period.as_nanos().max(1)) as u64)
            }
        }
    }

    /// Sets the number of the first frame that is not sent.
    pub(crate) fn stop_at(&self, number: u64) {
        self.stop.store(number, Relaxed);
    }

    pub(crate) fn sent(&self) -> u64 {
        self.sent.load(Relaxed)
    }

    pub(crate) fn late_us(&self) -> u64 {
        self.late_us.load(Relaxed)
    }

    /// Resets the delay: frames before the window do not count.
    pub(crate) fn forget_late(&self) {
        self.late_us.store(0, Relaxed);
    }
}

impl Publisher {
    /// Connects and announces; frames are sent once the relay has subscribed.
    pub(crate) async fn start(target: &RunTarget, shape: Shape, index: u32, clock: Clock) -> Result<Self> {
        let (client, _) = target.connect().await.with_context(|| format!("publisher {index}"))?;
        let broadcast = client.broadcast(&target.path(index))?;
        let info = TrackInfo { timescale: TIMESCALE, max_age_ms: MAX_AGE_MS, ..TrackInfo::default() };
        let track = broadcast.track(TRACK, info)?;
        broadcast.announce();
        let pace = Arc::new(Pace {
            start_ns: AtomicU64::new(0),
            stop: AtomicU64::new(u64::MAX),
            late_us: AtomicU64::new(0),
            sent: AtomicU64::new(0),
            period: shape.period(),
        });
        let task = tokio::spawn(send(track, pace.clone(), shape, index, clock));
        Ok(Self { client, pace, task, broadcast })
    }

    /// Withdraws the broadcast and closes the session.
    pub(crate) async fn stop(self) {
        self.task.abort();
        self.broadcast.withdraw();
        self.client.close(SessionCode::NONE, "").await;
    }
}

/// Sends on an absolute schedule: a late frame does not delay the next one.
async fn send(track: relay_client::Track, pace: Arc<Pace>, shape: Shape, publisher: u32, clock: Clock) {
    track.wait_subscribed().await;
    let filling = Filling::new(shape.frame_bytes);
    let start = Instant::now() + shape.offset(publisher);
    pace.start_ns.store(clock.ns_at(start.into_std()).max(1), Relaxed);
    let mut open: Option<GroupWriter> = None;
    for number in 0.. {
        let due = start + pace.period.mul_f64(number as f64);
        sleep_until(due).await;
        let open_writer = open.take();
        if number >= pace.stop.load(Relaxed) {
            // Dropped, the group would be reset.
            if let Some(writer) = open_writer {
                writer.finish();
            }
            return;
        }
        let (group, index) = shape.place(number);
        let writer = open_writer.unwrap_or_else(|| track.group(group));
        let sent_ns = clock.now_ns();
        let stamp = Stamp { publisher, len: shape.frame_bytes as u32, group, index, sent_ns };
        let tick = due.duration_since(start).as_micros() as i64;
        writer.frame(tick, filling.frame(stamp));
        if index + 1 == shape.group_frames {
            writer.finish();
        } else {
            open = Some(writer);
        }
        pace.sent.store(number + 1, Relaxed);
        pace.late_us.fetch_max(sent_ns.saturating_sub(clock.ns_at(due.into_std())) / 1_000, Relaxed);
    }
}
