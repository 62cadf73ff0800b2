//! Healthy sessions: one publisher of 10 groups of 12,500 B per second, and 20 viewers, in a process of their own.

use std::{
    collections::BTreeSet,
    io::Read,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context, Result};
use bytes::{BufMut, BytesMut};
use relay_client::{Client, ClientConfig, Prefs, TrackInfo};
use serde::{Deserialize, Serialize};
use tokio::task::JoinSet;

/// Number of viewers.
const VIEWERS: usize = 20;
/// Time between two groups: with [`GROUP_BYTES`], 1 Mbit/s per viewer.
const INTERVAL: Duration = Duration::from_millis(100);
/// Payload of one group, bytes.
const GROUP_BYTES: usize = 12_500;
/// Largest age of a group in the subscriptions, ms.
const MAX_AGE_MS: u64 = 3_000;
/// Parts of a run whose percentiles are compared.
const FIFTHS: usize = 5;
const PATH: &str = "healthy/live";
/// Line that is printed once every viewer receives.
pub(crate) const READY: &str = "ready";

/// Figures of one run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Figures {
    /// Groups published since every viewer received.
    pub(crate) groups: u64,
    /// Groups missing, summed over the viewers.
    pub(crate) lost: u64,
    /// Sessions that ended.
    pub(crate) ended: usize,
    /// Delay from publishing a group to its complete arrival, ms: the 99th percentile of each fifth of the run, of
    /// which this is the median.
    pub(crate) p99_ms: f64,
    /// The largest delay, ms.
    pub(crate) max_ms: f64,
}

#[derive(Debug, Default)]
struct Seen {
    groups: Vec<BTreeSet<u64>>,
    /// Time of publishing, microseconds since the start, and delay of each group at each viewer.
    delays_us: Vec<(u64, u64)>,
    ended: usize,
}

type Shared = Arc<Mutex<Seen>>;

/// Publishes and subscribes until standard input ends; prints [`Figures`] as JSON.
pub(crate) async fn run(url: &str) -> Result<()> {
    let began = Instant::now();
    let publisher = Client::connect(url, ClientConfig::default()).await?;
    let broadcast = publisher.broadcast(PATH)?;
    let track = broadcast.track("v", TrackInfo { max_age_ms: 10_000, ..TrackInfo::default() })?;
    broadcast.announce();
    let seen = Shared::default();
    lock(&seen).groups = vec![BTreeSet::new(); VIEWERS];
    let mut viewers = JoinSet::new();
    for viewer in 0..VIEWERS {
        let client = Client::connect(url, ClientConfig::default()).await.context("a viewer")?;
        client.announced("").await?.wait(PATH, true).await?;
        viewers.spawn(view(client, viewer, Arc::clone(&seen), began));
    }
    track.wait_subscribed().await;
    let mut stop = std::pin::pin!(read_to_end());
    let mut ticks = tokio::time::interval(INTERVAL);
    let (mut next, mut first) = (0, None);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                let group = track.group(next);
                let mut payload = BytesMut::zeroed(GROUP_BYTES);
                let mut head = &mut payload[..16];
                head.put_u64(next);
                head.put_u64(began.elapsed().as_micros() as u64);
                group.frame(next as i64, payload.freeze());
                group.finish();
                next += 1;
                if first.is_none() && lock(&seen).groups.iter().all(|groups| !groups.is_empty()) {
                    first = Some(next);
                    println!("{READY}");
                }
            }
            () = &mut stop => break,
        }
    }
    // Groups in flight arrive.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let seen = lock(&seen);
    let first = first.context("not every viewer received")?;
    let mut delays = seen.delays_us.clone();
    // In order of publishing.
    delays.sort_unstable();
    let mut fifths: Vec<f64> = delays.chunks(delays.len().div_ceil(FIFTHS).max(1)).map(p99_ms).collect();
    fifths.sort_unstable_by(f64::total_cmp);
    let lost =
        seen.groups.iter().map(|groups| (first..next).filter(|group| !groups.contains(group)).count() as u64);
    let figures = Figures {
        groups: next - first,
        lost: lost.sum(),
        ended: seen.ended,
        p99_ms: fifths.get(fifths.len() / 2).copied().unwrap_or_default(),
        max_ms: delays.iter().map(|(_, delay)| *delay).max().unwrap_or_default() as f64 / 1_000.0,
    };
    println!("{}", serde_json::to_string(&figures)?);
    Ok(())
}

/// 99th percentile of the delays of some groups, ms.
fn p99_ms(groups: &[(u64, u64)]) -> f64 {
    let mut delays: Vec<u64> = groups.iter().map(|(_, delay)| *delay).collect();
    delays.sort_unstable();
    let at = (delays.len() * 99 / 100).min(delays.len().saturating_sub(1));
    delays.get(at).copied().unwrap_or_default() as f64 / 1_000.0
}

async fn view(client: Client, viewer: usize, seen: Shared, began: Instant) {
    let prefs = Prefs { max_age_ms: MAX_AGE_MS, ..Prefs::default() };
    let read = async {
        let mut subscription = client.subscribe(PATH, "v", prefs).await?;
        loop {
            let mut group = subscription.next_group().await?;
            let seen = Arc::clone(&seen);
            // A group that is cut counts as lost.
            tokio::spawn(async move {
                let Ok(Some(frame)) = group.frame().await else { return };
                let Some((head, _)) = frame.payload.split_first_chunk::<16>() else { return };
                let [number, sent] = [&head[..8], &head[8..]]
                    .map(|part| part.iter().fold(0, |value, byte| value << 8 | u64::from(*byte)));
                let mut seen = lock(&seen);
                seen.groups[viewer].insert(number);
                seen.delays_us.push((sent, (began.elapsed().as_micros() as u64).saturating_sub(sent)));
            });
        }
    };
    let ended: Result<(), relay_client::Error> = read.await;
    drop(ended);
    lock(&seen).ended += 1;
}

fn lock(seen: &Shared) -> std::sync::MutexGuard<'_, Seen> {
    seen.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn read_to_end() {
    let read = tokio::task::spawn_blocking(|| std::io::stdin().read_to_end(&mut Vec::new()));
    let _ = read.await;
}
