//! Traffic of the demonstration: a publisher with a clock and a picture, and a subscriber, over QUIC.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anstyle::{AnsiColor, Reset, Style};
use relay_client::{Certs, Client, ClientConfig, Prefs, Track, TrackInfo};
use tokio::time::{Instant, sleep_until};

use crate::{
    exit::{Exit, Failure},
    terminal::{ERASE_REST, HOME},
};

/// Path of the broadcast.
pub const BROADCAST: &str = "demo/clock";
/// Track of timestamps: one group per second.
pub const CLOCK: &str = "clock";
/// Track of pictures for a terminal.
pub const PATTERN: &str = "pattern";

/// Frames per second of each track, and per group.
const FPS: u64 = 10;
/// Latency samples kept between two calls of [`Actors::figures`].
const SAMPLES: usize = 4_096;
const WIDTH: u64 = 64;
const HEIGHT: u64 = 16;
/// Colours of the bars, from left to right.
const BARS: [AnsiColor; 8] = [
    AnsiColor::White,
    AnsiColor::Cyan,
    AnsiColor::Magenta,
    AnsiColor::Blue,
    AnsiColor::Yellow,
    AnsiColor::Green,
    AnsiColor::Red,
    AnsiColor::Black,
];
const BAR_COUNT: u64 = BARS.len() as u64;

/// Counters of the subscriber.
#[derive(Debug, Default)]
struct SubscriberCounters {
    frames: AtomicU64,
    bytes: AtomicU64,
    /// From publishing to receiving, µs.
    latency_us: Mutex<Vec<u64>>,
    failure: Mutex<Option<String>>,
}

/// The publisher and the subscriber; both stop when it is dropped.
#[derive(Debug)]
pub struct Actors {
    seen: Arc<SubscriberCounters>,
    stop: Option<tokio::sync::oneshot::Sender<()>>,
    thread: Option<thread::JoinHandle<()>>,
}

/// Figures of the subscriber since the last call of [`Actors::figures`].
#[derive(Clone, Debug, Default)]
pub struct DemoFigures {
    /// Frames received.
    pub frames: u64,
    /// Bytes received.
    pub bytes: u64,
    /// Median and largest latency, ms; `None` when no frame arrived.
    pub latency_ms: Option<(f64, f64)>,
    /// Error that ended the subscription.
    pub trouble: Option<String>,
}

impl Actors {
    /// Starts both, connected to the relay at `url`, whose certificate has this fingerprint.
    ///
    /// # Errors
    /// The runtime or its thread cannot be created.
    pub fn start(url: String, fingerprint: [u8; 32]) -> Result<Self, Failure> {
        let seen = Arc::new(SubscriberCounters::default());
        let (stop, stopped) = tokio::sync::oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let shared = seen.clone();
        let work = move || {
            runtime.block_on(async {
                tokio::select! {
                    ended = act(&url, fingerprint, &shared) => {
                        let why = ended.err().map_or_else(|| "the track ended".to_owned(), |e| e.to_string());
                        *shared.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(why);
                    }
                    _ = stopped => {}
                }
                // Tasks of the connections send the closes.
                tokio::time::sleep(Duration::from_millis(50)).await;
            });
        };
        let thread = thread::Builder::new().name("demo".to_owned()).spawn(work)?;
        Ok(Self { seen, stop: Some(stop), thread: Some(thread) })
    }

    /// Returns the figures since the last call.
    pub fn figures(&self) -> DemoFigures {
        let lock = |samples: &Mutex<Vec<u64>>| {
            std::mem::take(&mut *samples.lock().unwrap_or_else(PoisonError::into_inner))
        };
        let mut samples = lock(&self.seen.latency_us);
        samples.sort_unstable();
        let ms = |us: &u64| *us as f64 / 1_000.0;
        DemoFigures {
            frames: self.seen.frames.swap(0, Relaxed),
            bytes: self.seen.bytes.swap(0, Relaxed),
            latency_ms: samples
                .get(samples.len() / 2)
                .zip(samples.last())
                .map(|(p50, max)| (ms(p50), ms(max))),
            trouble: self.seen.failure.lock().unwrap_or_else(PoisonError::into_inner).clone(),
        }
    }

    /// Closes both sessions and waits until they have ended.
    pub fn close(mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // A panic of the thread was printed already.
            let _ = thread.join();
        }
    }
}

/// CPU time used by this process.
pub fn cpu() -> Duration {
    relay_load::process::cpu(std::process::id()).unwrap_or_default()
}

/// Memory of this process, MiB.
pub fn memory_mib() -> u64 {
    relay_load::process::rss_kib(std::process::id()).unwrap_or_default() / 1_024
}

async fn act(url: &str, fingerprint: [u8; 32], seen: &Arc<SubscriberCounters>) -> Result<(), Failure> {
    let config = || ClientConfig { certs: Certs::Pinned(vec![fingerprint]), ..ClientConfig::default() };
    let failed = |error: relay_client::Error| Failure::new(Exit::Failed, error.to_string());
    let publisher = Client::connect(url, config()).await.map_err(failed)?;
    let broadcast = publisher.broadcast(BROADCAST).map_err(failed)?;
    let info = TrackInfo { timescale: 1_000_000, ..TrackInfo::default() };
    let clock = broadcast.track(CLOCK, info).map_err(failed)?;
    let pattern = broadcast.track(PATTERN, info).map_err(failed)?;
    for track in [&clock, &pattern] {
        // Half a minute of groups to fetch.
        track.retain(30);
    }
    broadcast.announce();
    let viewer = Client::connect(url, config()).await.map_err(failed)?;
    viewer.announced(BROADCAST).await.map_err(failed)?.wait(BROADCAST, true).await.map_err(failed)?;
    tokio::select! {
        () = publish(&clock, &pattern) => Ok(()),
        ended = view(&viewer, CLOCK, seen) => ended.map_err(failed),
        ended = view(&viewer, PATTERN, seen) => ended.map_err(failed),
    }
}

/// Publishes one group per second, numbered by its Unix time, so that numbers keep rising after a restart.
async fn publish(clock: &Track, pattern: &Track) {
    let mut group = unix_us() / 1_000_000;
    loop {
        let started = Instant::now();
        let (times, pictures) = (clock.group(group), pattern.group(group));
        for index in 0..FPS {
            sleep_until(started + Duration::from_millis(1_000 * index / FPS)).await;
            let tick = unix_us();
            let ticks = i64::try_from(tick).unwrap_or(i64::MAX);
            times.frame(ticks, utc(tick).into());
            pictures.frame(ticks, picture(group * FPS + index, &utc(tick)).into());
        }
        times.finish();
        pictures.finish();
        group += 1;
        sleep_until(started + Duration::from_secs(1)).await;
    }
}

async fn view(
    client: &Client,
    track: &str,
    seen: &Arc<SubscriberCounters>,
) -> Result<(), relay_client::Error> {
    let mut subscription = client.subscribe(BROADCAST, track, Prefs::default()).await?;
    loop {
        let mut group = subscription.next_group().await?;
        let seen = seen.clone();
        tokio::spawn(async move {
            while let Ok(Some(frame)) = group.frame().await {
                let now = unix_us();
                seen.frames.fetch_add(1, Relaxed);
                seen.bytes.fetch_add(frame.payload.len() as u64, Relaxed);
                let sent = frame.tick.and_then(|tick| u64::try_from(tick).ok());
                let mut samples = seen.latency_us.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(sent) = sent.filter(|_| samples.len() < SAMPLES) {
                    samples.push(now.saturating_sub(sent));
                }
            }
        });
    }
}

fn unix_us() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_micros()).unwrap_or(u64::MAX)
}

/// Formats a time by ISO 8601, to the millisecond.
fn utc(unix_us: u64) -> String {
    let at = time::OffsetDateTime::from(UNIX_EPOCH + Duration::from_micros(unix_us));
    format!(
        "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
        at.year(),
        u8::from(at.month()),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.millisecond()
    )
}

/// Draws colour bars with a moving dot, over the previous picture.
fn picture(number: u64, time: &str) -> String {
    let mut out = String::with_capacity(2_048);
    out.push_str(HOME);
    let bounce = |at: u64, size: u64| (at % (2 * size)).min(2 * size - 1 - at % (2 * size));
    let (x, y) = (bounce(number, WIDTH), bounce(number / 2, HEIGHT));
    for row in 0..HEIGHT {
        for (bar, colour) in (0..).zip(BARS) {
            let style = Style::new().bg_color(Some(colour.into()));
            out.push_str(&style.to_string());
            for column in bar * WIDTH / BAR_COUNT..(bar + 1) * WIDTH / BAR_COUNT {
                out.push_str(if (column, row) == (x, y) { "\u{25cf}" } else { " " });
            }
        }
        out.push_str(&format!("{Reset}{ERASE_REST}\r\n"));
    }
    out.push_str(&format!("{time}  frame {number}{ERASE_REST}\r\n"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_as_everybody_reads_it() {
        assert_eq!(utc(1_790_000_000_123_456), "2026-09-21T14:13:20.123Z");
    }

    #[test]
    fn every_picture_has_one_dot() {
        for number in 0..300 {
            assert_eq!(picture(number, "").matches('\u{25cf}').count(), 1, "{number}");
        }
    }
}
