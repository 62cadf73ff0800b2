//! `sub`: writes a track to standard output, groups in order of their sequence.

mod window;

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use clap::Args;
use relay_client::{Client, Error, Event, Piece, Prefs, ReceivedGroup, Start, Subscription, lite::Version};
use tokio::time::{sleep, sleep_until, timeout};

use crate::{
    args::{ConnectArgs, TrackArgs, duration},
    assemble::Assembler,
    connect::{connect, describe, refused},
    exit::{EXIT_CODES, Exit, Failure},
    framing::{ByteFraming, FramingArgs},
    output::{Ended, Output},
    progress::{Progress, note},
    stop::Stop,
    track::Named,
};
use window::Window;

/// Time for which groups that can still be had are waited for, unless the command line sets it.
const MAX_AGE: Duration = Duration::from_secs(30);
/// Groups that may be queued behind an earlier one; with one more, the earlier one is given up.
const WAITING: usize = 32;
/// Time after which a group that a later one overtook is fetched: a stream that was reset before its first byte leaves
/// no trace.
const OVERTAKEN: Duration = Duration::from_millis(100);
/// Time after which a refused group is requested again: it may not have begun yet.
const RETRY: Duration = Duration::from_secs(1);
/// Time for groups in flight to arrive after the end of the track.
const STRAGGLERS: Duration = Duration::from_secs(2);
/// Versions offered, best first. moq-lite-06 cannot ask for the latest group and all later ones at any age: a
/// subscription would start with old groups.
const VERSIONS: [Version; 4] = [Version::V05, Version::V06, Version::V04, Version::V03];
/// Time after which waiting for the broadcast is reported.
const WAIT_NOTICE: Duration = Duration::from_secs(1);

/// Arguments of `sub`.
#[derive(Clone, Debug, Args)]
#[command(
    after_long_help = EXIT_CODES,
    override_usage = "moq-relay sub [OPTIONS] <URL> <BROADCAST> <TRACK>"
)]
pub struct SubArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// Path of the broadcast, then name of the track (or --broadcast B --track T)
    #[arg(value_name = "BROADCAST TRACK", num_args = 0..=2)]
    names: Vec<String>,

    #[command(flatten)]
    track: TrackArgs,

    #[command(flatten)]
    framing: FramingArgs,

    /// The group to begin with: a number, or `latest` (on moq-lite-06 the oldest within --max-age, or 30 s)
    #[arg(long, value_name = "GROUP", value_parser = from, default_value = "latest")]
    from: From,

    /// The last group wanted
    #[arg(long, value_name = "GROUP")]
    until: Option<u64>,

    /// Groups older than this are skipped when a newer one is there; without it nothing is skipped that can
    /// still be had
    #[arg(long, value_name = "TIME", value_parser = duration)]
    max_age: Option<Duration>,

    /// Priority of the subscription, 0 to 255: higher goes first
    #[arg(long, value_name = "N", default_value_t = 127)]
    priority: u8,

    /// Time limit for the broadcast to be announced; none by default
    #[arg(long, value_name = "TIME", value_parser = duration)]
    wait: Option<Duration>,
}

/// First group of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum From {
    Latest,
    Group(u64),
}

fn from(text: &str) -> Result<From, String> {
    match text {
        "latest" => Ok(From::Latest),
        number => number.parse().map(From::Group).map_err(|_| "expected a number or `latest`".to_owned()),
    }
}

pub(crate) async fn run(args: &SubArgs) -> Result<Exit, Failure> {
    let (named, _) = args.track.resolve(&args.names)?;
    let mut stop = Stop::listen()?;
    let client = connect(&args.connect, &VERSIONS, &mut stop).await?;
    if let Some(exit) = announced(args, &client, &named, &mut stop).await? {
        return Ok(exit);
    }
    let prefs = args.prefs();
    let subscription = client.subscribe(&named.broadcast, &named.track, prefs).await;
    let what = format!("track {} of {}", named.track, named.broadcast);
    let subscription = subscription.map_err(|error| refused(&error, &what))?;
    let output = Output::start()?;
    let mut reader = TrackReader {
        args,
        client: &client,
        what,
        subscription,
        window: Window::new(prefs, args.until, args.max_age.is_none() && client.version().has_tracks()),
        next: match args.from {
            From::Group(group) => Some(group),
            From::Latest => None,
        },
        waiting: BTreeMap::new(),
        dropped_ranges: BTreeMap::new(),
        bound: None,
        finished: None,
        since: None,
        refused: None,
        skipped: 0,
        broken: 0,
        progress: Progress::new(),
        named,
    };
    let ended = reader.read(&output, &mut stop).await;
    let verdict = reader.verdict(ended);
    // After a signal, a stalled reader is not waited for.
    match ended {
        Ok(Some(_)) => {}
        _ => output.finish().await?,
    }
    verdict
}

impl SubArgs {
    fn prefs(&self) -> Prefs {
        let age = self.max_age.unwrap_or(MAX_AGE);
        Prefs {
            priority: self.priority,
            ordered: true,
            max_age_ms: u64::try_from(age.as_millis()).unwrap_or(u64::MAX),
            start: match self.from {
                From::Latest => Start::Latest,
                From::Group(group) => Start::Group(group),
            },
            end: self.until,
            ..Prefs::default()
        }
    }
}

/// Waits for the broadcast; `Some` if a signal arrived instead.
async fn announced(
    args: &SubArgs,
    client: &Client,
    named: &Named,
    stop: &mut Stop,
) -> Result<Option<Exit>, Failure> {
    let path = named.broadcast.trim_matches('/').to_owned();
    let what = format!("broadcast {path}");
    let mut watch = client.announced(&path).await.map_err(|error| refused(&error, &what))?;
    let waited = async {
        let there = watch.wait(&path, true);
        tokio::pin!(there);
        if let Ok(there) = timeout(WAIT_NOTICE, &mut there).await {
            return there;
        }
        note(format_args!("waiting for broadcast {path} to be announced"));
        there.await
    };
    let limit = args.wait.unwrap_or(Duration::MAX);
    tokio::select! {
        there = timeout(limit, waited) => match there {
            Ok(Ok(_)) => Ok(None),
            Ok(Err(error)) => Err(refused(&error, &what)),
            Err(_) => Err(Failure::new(
                Exit::NotFound,
                format!("{what} is not announced: is the path right (`moq-relay ls` lists what is there)?"),
            )),
        },
        exit = stop.asked() => Ok(Some(exit)),
    }
}

struct TrackReader<'a> {
    args: &'a SubArgs,
    client: &'a Client,
    named: Named,
    what: String,
    subscription: Subscription,
    window: Window,
    /// The group to write next; `None` until the first one is known.
    next: Option<u64>,
    /// Later groups, not read yet.
    waiting: BTreeMap<u64, ReceivedGroup>,
    /// Groups that will not arrive: last by first.
    dropped_ranges: BTreeMap<u64, u64>,
    /// Exclusive end of the track.
    bound: Option<u64>,
    /// Time and error of the end of the subscription.
    finished: Option<(Instant, Option<Error>)>,
    /// Time since when a later group has been waiting for the next one.
    since: Option<Instant>,
    /// Time when a fetch of the next group was refused.
    refused: Option<Instant>,
    skipped: u64,
    broken: u64,
    progress: Progress,
}

/// Next step for the next group.
enum Next {
    Read(ReceivedGroup),
    /// It will not arrive on its subscription stream.
    Missing(u64),
    Wait,
    Over,
}

impl TrackReader<'_> {
    /// Reads to the end. `Some`: a signal arrived; `Err`: the output is closed.
    async fn read(&mut self, output: &Output, stop: &mut Stop) -> Result<Option<Exit>, ()> {
        loop {
            self.progress.tick();
            let ended = match self.step() {
                Next::Over => return Ok(None),
                Next::Read(group) => self.group(group, output, stop).await,
                Next::Missing(sequence) => self.missing(sequence, output, stop).await,
                Next::Wait => self.wait(output, stop).await,
            };
            match ended {
                Ok(()) => {}
                Err(Ended::Closed) => return Err(()),
                Err(Ended::Stopped(exit)) => return Ok(Some(exit)),
            }
            self.credit().await;
        }
    }

    fn step(&mut self) -> Next {
        if let (None, Some(first)) = (self.next, self.waiting.keys().next().copied()) {
            // Streams overtake each other: the group that arrives first need not be the first of the subscription,
            // which the publisher names in versions that can.
            let since = *self.since.get_or_insert_with(Instant::now);
            let is_said = self.client.version().has_tracks();
            if is_said && self.finished.is_none() && since.elapsed() < STRAGGLERS {
                return Next::Wait;
            }
            self.begin(first);
        }
        let Some(next) = self.next else {
            return if self.finished.is_some() { Next::Over } else { Next::Wait };
        };
        if self.args.until.is_some_and(|until| next > until) || self.bound.is_some_and(|bound| next >= bound)
        {
            return Next::Over;
        }
        if let Some(group) = self.waiting.remove(&next) {
            self.since = None;
            return Next::Read(group);
        }
        let is_gone = self.is_dropped(next);
        let late = match (&self.finished, self.waiting.is_empty()) {
            // The end of the track is known; the last streams arrive within [`STRAGGLERS`].
            (Some((at, None)), true) => match self.bound {
                Some(_) => at.elapsed() >= STRAGGLERS || self.window.repairs(),
                None => return if at.elapsed() >= STRAGGLERS { Next::Over } else { Next::Wait },
            },
            (Some((_, Some(_))), true) => return Next::Over,
            (Some((at, _)), false) => at.elapsed() >= STRAGGLERS || self.window.repairs(),
            (None, true) => false,
            (None, false) => {
                let since = *self.since.get_or_insert_with(Instant::now);
                Instant::now() >= self.due(since) || self.waiting.len() > WAITING
            }
        };
        if is_gone || late { Next::Missing(next) } else { Next::Wait }
    }

    fn begin(&mut self, first: u64) {
        (self.next, self.since) = (Some(first), None);
        self.waiting = self.waiting.split_off(&first);
        if first > 0 {
            self.progress.clear();
            note(format_args!("starting with group {first}, the latest one of the relay"));
        }
    }

    fn is_dropped(&self, sequence: u64) -> bool {
        self.dropped_ranges.range(..=sequence).next_back().is_some_and(|(_, last)| sequence <= *last)
    }

    /// Time when the next group, overtaken `since`, is fetched or skipped.
    fn due(&self, since: Instant) -> Instant {
        match (self.window.repairs(), self.refused) {
            (false, _) => since + self.args.max_age.unwrap_or(MAX_AGE),
            (true, None) => since + OVERTAKEN,
            (true, Some(at)) => at + RETRY,
        }
    }

    /// Waits for an event or for the next deadline.
    async fn wait(&mut self, output: &Output, stop: &mut Stop) -> Result<(), Ended> {
        let pause = match (&self.finished, self.since) {
            (Some((at, _)), _) => Some(*at + STRAGGLERS),
            (None, Some(since)) if self.next.is_none() => Some(since + STRAGGLERS),
            (None, Some(since)) => Some(self.due(since)),
            (None, None) => None,
        };
        let alarm = async {
            match pause {
                Some(at) => sleep_until(at.into()).await,
                None => std::future::pending().await,
            }
        };
        let tick = sleep(WAIT_NOTICE);
        tokio::select! {
            event = self.subscription.next() => self.event(event),
            () = alarm => {}
            () = tick => {}
            () = output.closed() => return Err(Ended::Closed),
            exit = stop.asked() => return Err(Ended::Stopped(exit)),
        }
        Ok(())
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::Start { group } => {
                if self.args.from == From::Latest {
                    if self.next.is_none() {
                        self.begin(group);
                    }
                } else if let Some(next) = self.next.filter(|next| group > *next) {
                    self.skip(next, group - 1, "no longer available");
                }
            }
            Event::End { group } => self.bound = Some(group),
            Event::Drop { start, end, .. } => {
                self.dropped_ranges.insert(start, end);
                while self.dropped_ranges.len() > WAITING * 8 {
                    self.dropped_ranges.pop_first();
                }
            }
            Event::Group(group) => {
                let sequence = group.sequence();
                if self.next.is_none_or(|next| sequence >= next) {
                    self.waiting.insert(sequence, group);
                }
            }
            Event::Datagram { .. } | Event::Ok(_) => {}
            Event::Finished { .. } => self.finished = Some((Instant::now(), None)),
            Event::Failed(Error::Ended) if self.finished.is_some() => {}
            Event::Failed(error) => self.finished = Some((Instant::now(), Some(error))),
        }
    }

    /// Moves the end of the subscription ahead of the next group.
    async fn credit(&mut self) {
        let Some(next) = self.next.filter(|_| self.finished.is_none()) else { return };
        if let Some(prefs) = self.window.update(next, MAX_AGE) {
            // A closed session is reported by its events.
            let _ = self.subscription.update(prefs).await;
        }
    }

    /// Writes one group, and fetches it again if it breaks off.
    async fn group(&mut self, group: ReceivedGroup, output: &Output, stop: &mut Stop) -> Result<(), Ended> {
        let sequence = group.sequence();
        let mut assembler = Assembler::new(self.framing());
        let broke = match self.pieces(group, &mut assembler, output, stop).await? {
            Ok(()) => None,
            Err(error) if self.window.repairs() => {
                assembler.again();
                match self.fetched(sequence, &mut assembler, output, stop).await? {
                    Ok(()) => None,
                    Err(_) => Some(error),
                }
            }
            Err(error) => Some(error),
        };
        if let Some(error) = broke {
            self.broken += 1;
            self.progress.clear();
            note(format_args!(
                "group {sequence} broke off after {} frames: {}",
                assembler.whole,
                describe(&error)
            ));
        }
        self.passed(sequence, &assembler);
        Ok(())
    }

    async fn missing(&mut self, sequence: u64, output: &Output, stop: &mut Stop) -> Result<(), Ended> {
        let mut assembler = Assembler::new(self.framing());
        if self.window.repairs() && self.fetched(sequence, &mut assembler, output, stop).await?.is_ok() {
            self.passed(sequence, &assembler);
            return Ok(());
        }
        let may_come = self.finished.is_none()
            && !self.is_dropped(sequence)
            && self.waiting.len() <= WAITING
            && self.since.is_some_and(|since| since.elapsed() < MAX_AGE);
        if self.window.repairs() && assembler.whole == 0 && may_come {
            self.refused = Some(Instant::now());
            return Ok(());
        }
        if assembler.whole > 0 {
            self.broken += 1;
            note(format_args!("group {sequence} broke off after {} frames", assembler.whole));
            self.passed(sequence, &assembler);
            return Ok(());
        }
        // All groups known to be missing are reported together.
        let gone = self.dropped_ranges.range(..=sequence).next_back().map(|(_, last)| *last);
        let before = self.waiting.keys().next().map(|next| next - 1);
        let last = match (gone.filter(|last| *last >= sequence), before) {
            _ if self.window.repairs() => sequence,
            (Some(last), Some(before)) => last.min(before),
            (Some(last), None) => last,
            (None, before) => before.unwrap_or(sequence),
        };
        self.skip(sequence, last, "not delivered");
        Ok(())
    }

    /// Reads a group by FETCH.
    async fn fetched(
        &mut self,
        sequence: u64,
        assembler: &mut Assembler,
        output: &Output,
        stop: &mut Stop,
    ) -> Result<Result<(), Error>, Ended> {
        let Named { broadcast, track } = &self.named;
        let asked = self.client.fetch(broadcast, track, sequence, 0, None, self.args.priority).await;
        match asked {
            Ok(group) => self.pieces(group, assembler, output, stop).await,
            Err(error) => Ok(Err(error)),
        }
    }

    /// Writes the pieces of a group as they arrive.
    async fn pieces(
        &mut self,
        mut group: ReceivedGroup,
        assembler: &mut Assembler,
        output: &Output,
        stop: &mut Stop,
    ) -> Result<Result<(), Error>, Ended> {
        loop {
            let piece: Result<Option<Piece>, Error> = tokio::select! {
                biased;
                piece = group.piece() => piece,
                event = self.subscription.next(), if self.finished.is_none() => {
                    self.event(event);
                    if self.args.max_age.is_some() && self.waiting.len() > WAITING {
                        return Ok(Err(Error::Ended));
                    }
                    continue;
                }
                () = output.closed() => return Err(Ended::Closed),
                exit = stop.asked() => return Err(Ended::Stopped(exit)),
            };
            match piece {
                Ok(Some(piece)) => {
                    if let Some(bytes) = assembler.push(piece) {
                        self.progress.bytes += bytes.len() as u64;
                        self.window.took(bytes.len());
                        output.write(bytes, stop).await?;
                    }
                    self.progress.tick();
                }
                Ok(None) => return Ok(Ok(())),
                Err(error) => return Ok(Err(error)),
            }
        }
    }

    fn framing(&self) -> ByteFraming {
        self.args.framing.framing(None)
    }

    fn passed(&mut self, sequence: u64, assembler: &Assembler) {
        self.progress.groups += 1;
        self.progress.frames += assembler.whole;
        self.window.passed();
        self.moved(sequence + 1);
    }

    fn skip(&mut self, first: u64, last: u64, why: &str) {
        self.skipped += last - first + 1;
        self.progress.clear();
        match first == last {
            true => note(format_args!("skipped group {first}: {why}")),
            false => note(format_args!("skipped groups {first} to {last}: {why}")),
        }
        self.moved(last + 1);
    }

    fn moved(&mut self, next: u64) {
        self.next = Some(next);
        (self.since, self.refused) = (None, None);
        self.waiting = self.waiting.split_off(&next);
        self.dropped_ranges.retain(|_, last| *last >= next);
    }

    fn verdict(&mut self, ended: Result<Option<Exit>, ()>) -> Result<Exit, Failure> {
        self.progress.clear();
        match ended {
            Ok(Some(exit)) => return Ok(exit),
            Err(()) => return Ok(Exit::Done),
            Ok(None) => {}
        }
        if let Some((_, Some(error))) = &self.finished {
            let nothing = self.progress.groups == 0;
            let failure = refused(error, &self.what);
            let exit = if nothing { failure.exit } else { Exit::Incomplete };
            return Err(Failure::new(exit, failure.to_string()));
        }
        match (self.skipped, self.broken) {
            (0, 0) => Ok(Exit::Done),
            (skipped, broken) => Err(Failure::new(
                Exit::Incomplete,
                format!("{}: {skipped} groups were skipped, {broken} broke off", self.what),
            )),
        }
    }
}
