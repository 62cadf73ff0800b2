//! Publishing handles: broadcast, track, group.

use std::sync::Arc;

use bytes::Bytes;
use relay_model::{Cost, Hop, Path, Prefs, StreamCode, TrackInfo, TrackName};
use relay_wire::lite::Datagram;
use tokio::sync::watch;

use crate::{
    error::Error,
    group_log::{End, GroupLog},
    publish::{AdvertisedRoute, Published, TrackState},
};

/// Groups that a track keeps for late subscriptions and fetches.
const RETAIN: usize = 4;

/// A broadcast of this client. Withdrawn when dropped, together with its tracks.
#[derive(Debug)]
pub struct Broadcast {
    published: Arc<Published>,
    path: Path,
}

impl Broadcast {
    pub(crate) fn new(published: Arc<Published>, path: Path) -> Self {
        Self { published, path }
    }

    /// Announces the broadcast to every peer that watches, now and later.
    pub fn announce(&self) {
        self.announce_through(&[]);
    }

    /// The same with a hop chain, original publisher first, without this client.
    pub fn announce_through(&self, hops: &[Hop]) {
        self.announce_with(hops, Cost::default());
    }

    /// The same with a cost, which is sent on moq-lite-06 only. Announcing an announced broadcast replaces its route:
    /// by RESTART on moq-lite-06, by a second active on 05, by ended and active before. A chain that exceeds the wire
    /// limit is not announced.
    pub fn announce_with(&self, hops: &[Hop], cost: Cost) {
        self.published.announce(&self.path, AdvertisedRoute { hops: hops.into(), cost });
    }

    /// Withdraws the announcement; tracks are still served.
    pub fn withdraw(&self) {
        self.published.withdraw(&self.path);
    }

    /// Adds a track that can be subscribed to.
    pub fn track(&self, name: &str, info: TrackInfo) -> Result<Track, Error> {
        let name = TrackName::parse(name).ok_or_else(|| Error::Name(name.to_owned()))?;
        let state = Arc::new(TrackState::new(info, RETAIN));
        self.published.add_track(&self.path, name, state.clone());
        Ok(Track { live: state.live(), state })
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        self.published.remove(&self.path);
    }
}

/// Subscriptions and other requests of a track, over all sessions.
#[derive(Clone, Debug, Default)]
pub struct TrackFigures {
    /// Live subscriptions: id and preferences.
    pub subscriptions: Vec<(u64, Prefs)>,
    /// Largest number that were live at once.
    pub peak: usize,
    /// Number of all subscriptions so far.
    pub ever: u64,
    /// SUBSCRIBE_UPDATEs received.
    pub updates: u64,
    /// TRACK requests received.
    pub info_requests: u64,
    /// FETCH requests by outcome.
    pub fetches: Fetches,
    /// Subscriptions and group streams that are open, or that the peer has not fully acknowledged.
    pub unfinished: usize,
}

/// FETCH requests of a track, by outcome. A request in `asked` alone is in progress, or its group was reset.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fetches {
    /// Requests received.
    pub asked: u64,
    /// Answered to the last frame.
    pub served: u64,
    /// Refused: the group is not held.
    pub refused: u64,
    /// Given up by the peer before their end, or lost with its session.
    pub cancelled: u64,
}

/// A track of this client. Groups written to it go to every live subscription.
#[derive(Clone, Debug)]
pub struct Track {
    state: Arc<TrackState>,
    live: watch::Receiver<TrackFigures>,
}

impl Track {
    /// Number of live subscriptions.
    pub fn live_subscriptions(&self) -> usize {
        self.live.borrow().subscriptions.len()
    }

    /// Current figures of subscriptions and requests.
    pub fn live(&self) -> TrackFigures {
        self.live.borrow().clone()
    }

    /// Waits until `done` returns true for the figures.
    pub async fn wait_live(&self, mut done: impl FnMut(&TrackFigures) -> bool) {
        let mut live = self.live.clone();
        // The sender lives in `self.state`.
        let _ = live.wait_for(|live| done(live)).await;
    }

    /// Waits for a subscription.
    pub async fn wait_subscribed(&self) {
        self.wait_live(|live| !live.subscriptions.is_empty()).await;
    }

    /// Waits until there is no subscription.
    pub async fn wait_unsubscribed(&self) {
        self.wait_live(|live| live.subscriptions.is_empty()).await;
    }

    /// Sets the number of groups kept for late subscriptions and fetches; at least one.
    pub fn retain(&self, groups: usize) {
        self.state.set_retain(groups);
    }

    /// Opens a group on every live subscription that wants it.
    pub fn group(&self, sequence: u64) -> GroupWriter {
        let log = Arc::new(GroupLog::new(sequence));
        self.state.open(log.clone());
        GroupWriter { log, done: false }
    }

    /// Sends a group of one small frame as a datagram; returns the number of subscriptions it was sent to. Sessions
    /// before moq-lite-05 have no datagrams and are skipped.
    pub fn datagram(&self, sequence: u64, tick: u64, payload: Bytes) -> Result<usize, Error> {
        let mut sent = 0;
        for (subscribe, carrier) in self.state.readers(sequence) {
            if carrier.version.has_timestamps() {
                let mut body = Vec::with_capacity(24 + payload.len());
                Datagram { subscribe, sequence, tick, payload: payload.clone() }
                    .encode(carrier.version, &mut body);
                carrier.send_datagram(&body)?;
                sent += 1;
            }
        }
        Ok(sent)
    }

    /// Reports that these groups, both ends included, will not be sent.
    pub fn dropped(&self, start: u64, end: u64, code: u64) {
        self.state.dropped(start, end, code);
    }

    /// Ends the track cleanly: END with this exclusive bound (from moq-lite-05 on), open groups, then FIN.
    pub fn end(&self, bound: u64) {
        self.state.end(bound);
    }

    /// Resets the track and its open groups with a code.
    pub fn abort(&self, code: StreamCode) {
        self.state.abort(code);
    }
}

/// A group being written; reset when dropped unfinished.
#[derive(Debug)]
pub struct GroupWriter {
    log: Arc<GroupLog>,
    done: bool,
}

impl GroupWriter {
    /// Sequence of the group.
    pub fn sequence(&self) -> u64 {
        self.log.sequence
    }

    /// Adds a whole frame. Its timestamp is not sent before moq-lite-05.
    pub fn frame(&self, tick: i64, payload: Bytes) {
        self.log.frame(tick, payload);
    }

    /// Begins a frame of `size` bytes, which must follow by [`GroupWriter::payload`].
    pub fn begin(&self, tick: i64, size: u64) {
        self.log.begin(tick, size);
    }

    /// Adds bytes of the frame begun; raw bytes if none was begun.
    pub fn payload(&self, piece: Bytes) {
        self.log.payload(piece);
    }

    /// Completes the group.
    pub fn finish(mut self) {
        self.done = true;
        self.log.end(End::Finished);
    }

    /// Resets the group, even while it waits for stream credit.
    pub fn reset(mut self, code: StreamCode) {
        self.done = true;
        self.log.end(End::Reset(code));
    }
}

impl Drop for GroupWriter {
    fn drop(&mut self) {
        if !self.done {
            self.log.end(End::Reset(StreamCode::CANCEL));
        }
    }
}
