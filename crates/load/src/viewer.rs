//! One simulated viewer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result, bail};
use relay_client::{Client, Error, Event, Piece, Prefs, ReceivedGroup, Subscription};

use crate::{
    arrival::{Clock, LastArrival},
    frame::FrameVerifier,
    publisher::TRACK,
    run::RunTarget,
    scenario::Shape,
    tally::{Arrival, FrameDelay, Ledger},
};

/// Largest age of a superseded group in the subscription, ms: the scenarios allow no skipped groups.
const MAX_AGE_MS: u64 = 2_000;

/// State that a viewer's task and the run share.
#[derive(Debug, Default)]
pub(crate) struct View {
    state: Mutex<ViewerState>,
}

#[derive(Debug, Default)]
struct ViewerState {
    ledger: Ledger,
    /// Error that ended the viewer, which fails the run.
    dropped: Option<String>,
    /// Time from the established connection to the first byte of a group, and the connection's smallest round trip
    /// until then, us.
    joined: Option<(u32, u32)>,
}

impl View {
    pub(crate) fn dropped(&self) -> Option<String> {
        self.state().dropped.clone()
    }

    pub(crate) fn joined(&self) -> Option<(u32, u32)> {
        self.state().joined
    }

    /// Number of the latest frame.
    pub(crate) fn latest(&self) -> Option<u64> {
        self.state().ledger.arrivals.last().map(|arrival| arrival.number)
    }

    /// Number of the first frame.
    pub(crate) fn first(&self) -> Option<u64> {
        self.state().ledger.arrivals.first().map(|arrival| arrival.number)
    }

    pub(crate) fn with_ledger<T>(&self, read: impl FnOnce(&Ledger) -> T) -> T {
        read(&self.state().ledger)
    }

    fn state(&self) -> MutexGuard<'_, ViewerState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A viewer of one publisher, until it is dropped.
pub(crate) struct Viewer {
    pub(crate) view: Arc<View>,
    /// Index of the publisher.
    pub(crate) publisher: u32,
    task: tokio::task::JoinHandle<()>,
}

impl Viewer {
    /// Connects in a task of its own; the result is in its [`View`].
    pub(crate) fn start(target: &RunTarget, shape: Shape, publisher: u32, clock: Clock) -> Self {
        let view = Arc::new(View::default());
        let (target, shared) = (target.clone(), view.clone());
        let task = tokio::spawn(async move {
            let watching = ViewerTask { shape, publisher, clock, view: shared.clone() };
            if let Err(error) = watching.run(&target).await {
                shared.state().dropped.get_or_insert(format!("{error:#}"));
            }
        });
        Self { view, publisher, task }
    }
}

impl Viewer {
    /// Ends the viewer and closes its session.
    pub(crate) async fn stop(self) {
        self.task.abort();
        let _ = self.task.await;
    }
}

/// A viewer's session, and the arrival time of its socket.
struct ViewerLink {
    client: Client,
    last_arrival: LastArrival,
}

impl ViewerLink {
    /// Arrival time of the last data read, at most `now_ns`. On a stream socket it is unknown, and `now_ns` is used.
    fn arrived_ns(&self, now_ns: u64) -> u64 {
        match self.client.quic() {
            Some(_) => self.last_arrival.ns().min(now_ns),
            None => now_ns,
        }
    }
}

struct ViewerTask {
    shape: Shape,
    publisher: u32,
    clock: Clock,
    view: Arc<View>,
}

impl ViewerTask {
    async fn run(self, target: &RunTarget) -> Result<()> {
        let (client, last_arrival) = target.connect().await.context("connect")?;
        let link = ViewerLink { client, last_arrival };
        let prefs = Prefs { max_age_ms: MAX_AGE_MS, ..Prefs::default() };
        let mut subscription = link.client.subscribe(&target.path(self.publisher), TRACK, prefs).await?;
        loop {
            let group = next_group(&mut subscription).await?;
            // Groups are read one after another: a frame of a later group never passes one of an earlier group here.
            match self.group(&link, group).await {
                Ok(()) => {}
                Err(error @ Error::Closed(_)) => return Err(error.into()),
                Err(_) => self.view.state().ledger.broken_groups += 1,
            }
        }
    }

    async fn group(&self, link: &ViewerLink, mut group: ReceivedGroup) -> Result<(), Error> {
        let mut next_index = 0;
        let mut check = FrameVerifier::new(0);
        while let Some(piece) = group.piece().await? {
            match piece {
                Piece::Frame { size, .. } => check = FrameVerifier::new(size),
                Piece::Payload(bytes) => check.push(&bytes),
            }
            self.note_join(link);
            if check.is_whole() {
                let check = std::mem::replace(&mut check, FrameVerifier::new(0));
                self.frame(link, &group, next_index, check);
                next_index += 1;
            }
        }
        Ok(())
    }

    fn frame(&self, link: &ViewerLink, group: &ReceivedGroup, index: u64, check: FrameVerifier) {
        let now_ns = self.clock.now_ns();
        let mut state = self.view.state();
        match check.finish() {
            Some(stamp)
                if (stamp.publisher, stamp.group, stamp.index)
                    == (self.publisher, group.sequence(), index) =>
            {
                let number = stamp.group * self.shape.group_frames + stamp.index;
                let since_us =
                    |at: u64| u32::try_from(at.saturating_sub(stamp.sent_ns) / 1_000).unwrap_or(u32::MAX);
                let is_live = stamp.sent_ns >= self.clock.ns_at(link.client.established());
                // The last datagram read completed the frame, or arrived after the one that did.
                let took = is_live.then(|| FrameDelay {
                    arrived_us: since_us(link.arrived_ns(now_ns)),
                    checked_us: since_us(now_ns),
                });
                state.ledger.arrivals.push(Arrival { number, took });
            }
            _ => state.ledger.corrupt += 1,
        }
    }

    /// Records the first byte of the first group.
    fn note_join(&self, link: &ViewerLink) {
        let mut state = self.view.state();
        if state.joined.is_none() {
            let took = link.client.established().elapsed().as_micros();
            let rtt = link.client.quic().map_or_else(|| link.client.rtt(), |quic| quic.min_rtt()).as_micros();
            state.joined = Some((took as u32, rtt as u32));
        }
    }
}

async fn next_group(subscription: &mut Subscription) -> Result<ReceivedGroup> {
    loop {
        match subscription.next().await {
            Event::Group(group) => return Ok(group),
            Event::Finished { clean } => bail!("the subscription was finished, clean: {clean}"),
            Event::Failed(error) => return Err(error).context("the subscription failed"),
            Event::Ok(_)
            | Event::Start { .. }
            | Event::End { .. }
            | Event::Drop { .. }
            | Event::Datagram { .. } => {}
        }
    }
}
