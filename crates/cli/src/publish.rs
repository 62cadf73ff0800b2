//! `pub`: publishes standard input or a file as a track.

use std::{path::Path, time::Duration};

use bytes::BytesMut;
use clap::Args;
use relay_client::{Client, GroupWriter, Track, TrackFigures, TrackInfo, lite::Role};
use relay_model::SessionCode;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::{
    args::{ConnectArgs, TrackArgs, duration},
    connect::{NEWEST_FIRST, broken, connect_as},
    exit::{EXIT_CODES, Exit, Failure},
    framing::{FRAME_BYTES, FramingArgs},
    input,
    progress::{Progress, note},
    stop::Stop,
};

/// Default size at which a group ends, bytes. A subscriber that is a few such groups behind still gets all of them from
/// the relay's cache.
const GROUP_BYTES: usize = 256 * 1024;
/// Default duration after which a group ends.
const GROUP_TIME: Duration = Duration::from_secs(2);
/// Largest group, bytes: the relay's limit.
const GROUP_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes that may be in flight to the relay.
const IN_FLIGHT: usize = 4 * 1024 * 1024;
/// Bytes of finished groups kept for late subscriptions and fetches.
const RETAIN_BYTES: usize = 32 * 1024 * 1024;
/// Largest age of a superseded group in TRACK_INFO, ms.
const MAX_AGE_MS: u64 = 30_000;
/// Time for which the last groups can be fetched after the end; each fetch restarts it.
const LINGER: Duration = Duration::from_millis(500);
/// The same before moq-lite-05, where no message names the last group: a relay waits for stragglers, and so does the
/// publisher.
const LINGER_UNNAMED: Duration = Duration::from_secs(4);
/// Time for the relay to acknowledge the rest of the track.
const ACK_TIMEOUT: Duration = Duration::from_secs(20);
/// Time for which the first group stays the only one. A subscription to the latest group starts with the one that is
/// the latest when the relay serves it, a moment after the subscription is seen here. The wait ends when the subscriber
/// moves its window, which only `sub` does.
const FIRST_GROUP_TIME: Duration = Duration::from_millis(250);
/// Time after which waiting for a subscriber is reported.
const WAIT_NOTICE: Duration = Duration::from_secs(1);

/// Arguments of `pub`.
#[derive(Clone, Debug, Args)]
#[command(
    after_long_help = EXIT_CODES,
    override_usage = "moq-relay pub [OPTIONS] <URL> <BROADCAST> <TRACK> [FILE]"
)]
pub struct PubArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// Path of the broadcast and name of the track (or --broadcast B --track T), then the file; `-` or none is
    /// standard input
    #[arg(value_name = "BROADCAST TRACK FILE", num_args = 0..=3)]
    names: Vec<String>,

    #[command(flatten)]
    track: TrackArgs,

    #[command(flatten)]
    framing: FramingArgs,

    /// A frame is this many bytes; without it, what there is at a time, up to 16384
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u32).range(1..=FRAME_BYTES as i64),
        conflicts_with_all = ["lines", "length_prefixed"], help_heading = "Framing")]
    frame_size: Option<u32>,

    /// A group is this many frames; without it and --group-time, 256 KiB or two seconds
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u64).range(1..), help_heading = "Framing")]
    group_frames: Option<u64>,

    /// A group is what comes within this time
    #[arg(long, value_name = "TIME", value_parser = duration, help_heading = "Framing")]
    group_time: Option<Duration>,

    /// At most this many bytes a second, for subscribers that do not say how fast they are
    #[arg(long, value_name = "BYTES", value_parser = clap::value_parser!(u64).range(1..))]
    rate: Option<u64>,

    /// Priority of the track, 0 to 255: higher goes first
    #[arg(long, value_name = "N", default_value_t = 127)]
    priority: u8,

    /// Reads only while somebody is subscribed; this is the default
    #[arg(long, overrides_with = "no_wait")]
    wait: bool,

    /// Reads at once and always, for live sources
    #[arg(long, overrides_with = "wait")]
    no_wait: bool,
}

pub(crate) async fn run(args: &PubArgs) -> Result<Exit, Failure> {
    let (named, rest) = args.track.resolve(&args.names)?;
    if rest.len() > 1 {
        return Err(Failure::new(Exit::Usage, format!("`{}` is one argument too many", rest.join(" "))));
    }
    let file = rest.first().map(Path::new);
    let mut stop = Stop::listen()?;
    let client = connect_as(Some(Role::Publisher), &args.connect, &NEWEST_FIRST, &mut stop).await?;
    let bad = |error: relay_client::Error| Failure::new(Exit::Usage, error.to_string());
    let broadcast = client.broadcast(&named.broadcast).map_err(bad)?;
    let info = TrackInfo { priority: args.priority, max_age_ms: MAX_AGE_MS, ..TrackInfo::default() };
    let track = broadcast.track(&named.track, info).map_err(bad)?;
    broadcast.announce();
    let mut publisher = InputPublisher {
        client: &client,
        track,
        stop,
        wait: !args.no_wait,
        started: Instant::now(),
        flowing: None,
        group: None,
        next: 0,
        largest: 1,
        progress: Progress::new(),
    };
    let outcome = publisher.all(args, file).await;
    if client.is_closed().is_none() {
        publisher.finish().await;
    }
    let outcome =
        outcome.and_then(|exit| publisher.verdict(exit)).and_then(|exit| match client.is_closed() {
            // A session that was refused is reported even if there was nothing to publish.
            Some(closed) if exit == Exit::Done => Err(broken(&closed)),
            _ => Ok(exit),
        });
    broadcast.withdraw();
    client.close(SessionCode::NONE, "done").await;
    outcome
}

struct InputPublisher<'a> {
    client: &'a Client,
    track: Track,
    stop: Stop,
    wait: bool,
    started: Instant,
    /// Time of the first frame.
    flowing: Option<Instant>,
    group: Option<Open>,
    /// Sequence of the next group.
    next: u64,
    /// Size of the largest group, bytes.
    largest: usize,
    progress: Progress,
}

/// The group being written.
struct Open {
    writer: GroupWriter,
    frames: u64,
    bytes: usize,
    since: Instant,
}

impl InputPublisher<'_> {
    /// Publishes the whole input, or stops at a signal.
    async fn all(&mut self, args: &PubArgs, file: Option<&Path>) -> Result<Exit, Failure> {
        // The file is opened before subscribers are waited for.
        let mut source = input::read(file)?;
        let framing = args.framing.framing(args.frame_size.map(|size| size as usize));
        let wrong = |what| Failure::new(Exit::Failed, format!("{what}"));
        let mut held = BytesMut::new();
        if let Some(exit) = self.admitted(0).await? {
            return Ok(exit);
        }
        loop {
            while let Some(frame) = framing.cut(&mut held, false).map_err(wrong)? {
                if let Some(exit) = self.frame(args, frame).await? {
                    return Ok(exit);
                }
            }
            let read = tokio::select! {
                read = source.recv() => read,
                exit = self.stop.asked() => return Ok(exit),
                closed = self.client.closed() => return Err(broken(&closed)),
            };
            match read {
                Some(bytes) => held.extend_from_slice(&bytes.map_err(|error| {
                    Failure::new(Exit::Failed, format!("cannot read the input: {error}"))
                })?),
                None => break,
            }
        }
        while let Some(frame) = framing.cut(&mut held, true).map_err(wrong)? {
            if let Some(exit) = self.frame(args, frame).await? {
                return Ok(exit);
            }
        }
        Ok(Exit::Done)
    }

    /// Writes one frame; `Some` if a signal arrived instead.
    async fn frame(&mut self, args: &PubArgs, frame: bytes::Bytes) -> Result<Option<Exit>, Failure> {
        if self.group.as_ref().is_some_and(|group| group.is_full(args, frame.len())) {
            self.end_group();
        }
        if self.group.is_none() {
            if let Some(exit) = self.admitted(self.next).await? {
                return Ok(Some(exit));
            }
            let writer = self.track.group(self.next);
            self.next += 1;
            self.progress.groups += 1;
            self.group = Some(Open { writer, frames: 0, bytes: 0, since: Instant::now() });
        }
        if let Some(exit) = self.paced(args.rate).await {
            return Ok(Some(exit));
        }
        let tick = i64::try_from(self.started.elapsed().as_millis()).unwrap_or(i64::MAX);
        if let Some(group) = &mut self.group {
            group.frames += 1;
            group.bytes += frame.len();
            self.progress.frames += 1;
            self.progress.bytes += frame.len() as u64;
            group.writer.frame(tick, frame);
        }
        self.progress.tick();
        Ok(None)
    }

    /// Waits until the published bytes are within the rate.
    async fn paced(&mut self, rate: Option<u64>) -> Option<Exit> {
        let since = *self.flowing.get_or_insert_with(Instant::now);
        let due = since + Duration::from_secs_f64(self.progress.bytes as f64 / rate? as f64);
        if due <= Instant::now() {
            return None;
        }
        tokio::select! {
            () = sleep_until(due) => None,
            exit = self.stop.asked() => Some(exit),
        }
    }

    fn end_group(&mut self) {
        let Some(group) = self.group.take() else { return };
        if group.bytes > self.largest {
            self.largest = group.bytes;
            self.track.retain((RETAIN_BYTES / self.largest).clamp(4, 1_024));
        }
        group.writer.finish();
    }

    /// Waits until group `sequence` may begin: earlier groups are in flight or done, and, unless the input cannot wait,
    /// a subscriber wants it. `Some` if a signal arrived instead.
    async fn admitted(&mut self, sequence: u64) -> Result<Option<Exit>, Failure> {
        let most = (IN_FLIGHT / self.largest).clamp(1, 64);
        let (wait, track) = (self.wait, self.track.clone());
        let wanted = |live: &TrackFigures| {
            live.subscriptions.iter().any(|(_, prefs)| prefs.end.is_none_or(|end| sequence <= end))
        };
        let ready = async {
            if sequence == 1 && wait {
                let _ = timeout(FIRST_GROUP_TIME, track.wait_live(|live| live.updates > 0)).await;
            }
            let free = |live: &TrackFigures| live.unfinished.saturating_sub(live.subscriptions.len()) < most;
            track.wait_live(|live| free(live) && (!wait || wanted(live))).await;
        };
        tokio::pin!(ready);
        let patience = sleep(WAIT_NOTICE);
        tokio::pin!(patience);
        let mut said = false;
        loop {
            tokio::select! {
                biased;
                () = &mut ready => return Ok(None),
                exit = self.stop.asked() => return Ok(Some(exit)),
                closed = self.client.closed() => {
                    return Err(broken(&closed));
                }
                () = &mut patience, if !said => {
                    said = true;
                    if wait && self.track.live_subscriptions() == 0 {
                        self.progress.clear();
                        note(format_args!("no subscriber: waiting (--no-wait would publish at once)"));
                    }
                }
            }
        }
    }

    /// Ends the track, and waits until the relay has acknowledged all of it and requests no more.
    async fn finish(&mut self) {
        self.end_group();
        self.track.end(self.next);
        let track = self.track.clone();
        let linger = if self.client.version().has_subscribe_ok() { LINGER_UNNAMED } else { LINGER };
        let _ = timeout(ACK_TIMEOUT, async {
            track.wait_live(|live| live.unfinished == 0).await;
            if track.live().ever == 0 {
                return;
            }
            loop {
                let before = track.live();
                let news = track.wait_live(|live| {
                    live.fetches != before.fetches
                        || live.ever != before.ever
                        || live.info_requests != before.info_requests
                });
                tokio::select! {
                    () = news => track.wait_live(|live| live.unfinished == 0).await,
                    () = sleep(linger) => return,
                    _ = self.client.closed() => return,
                }
            }
        })
        .await;
    }

    fn verdict(&mut self, exit: Exit) -> Result<Exit, Failure> {
        self.progress.clear();
        let live = self.track.live();
        if live.unfinished > 0 {
            return Err(Failure::new(Exit::Incomplete, "the relay did not acknowledge all of it in time"));
        }
        if live.ever == 0 && self.progress.frames > 0 {
            note(format_args!(
                "no subscriber: {} frames in {} groups were read and not delivered",
                self.progress.frames, self.progress.groups
            ));
        }
        Ok(exit)
    }
}

impl Open {
    /// Whether a frame of `more` bytes belongs in the next group.
    fn is_full(&self, args: &PubArgs, more: usize) -> bool {
        let is_default = args.group_frames.is_none() && args.group_time.is_none();
        let most = if is_default { GROUP_BYTES } else { GROUP_BYTES_MAX };
        let time = args.group_time.or(is_default.then_some(GROUP_TIME));
        self.frames > 0
            && (self.bytes + more > most
                || args.group_frames.is_some_and(|frames| self.frames >= frames)
                || time.is_some_and(|time| self.since.elapsed() >= time))
    }
}
