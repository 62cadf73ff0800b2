//! Handles to publish with: broadcast, track, group.

use std::sync::Arc;

use bytes::Bytes;
use relay_model::{Hop, Path, Prefs, StreamCode, TrackInfo, TrackName};
use relay_wire::lite::Datagram;
use tokio::sync::watch;

use crate::{
    error::Error,
    grouplog::{End, GroupLog},
    publish::TrackState,
    session::Session,
};

/// Groups a track keeps to answer late subscriptions and fetches with.
const RETAIN: usize = 4;

/// A broadcast of this client. Dropped, it is withdrawn and its tracks are forgotten.
#[derive(Debug)]
pub struct Broadcast {
    session: Arc<Session>,
    path: Path,
}

impl Broadcast {
    pub(crate) fn new(session: Arc<Session>, path: Path) -> Self {
        Self { session, path }
    }

    /// Tells every peer that watches, now and later.
    pub fn announce(&self) {
        self.announce_through(&[]);
    }

    /// The same with a hop chain, original publisher first and this client left out. Announcing what
    /// is already announced replaces its route.
    pub fn announce_through(&self, hops: &[Hop]) {
        self.session.published.announce(&self.path, hops.into());
    }

    /// Takes the announcement back; tracks are still served.
    pub fn withdraw(&self) {
        self.session.published.withdraw(&self.path);
    }

    /// Adds a track that can be subscribed to.
    pub fn track(&self, name: &str, info: TrackInfo) -> Result<Track, Error> {
        let name = TrackName::parse(name).ok_or_else(|| Error::Name(name.to_owned()))?;
        let state = Arc::new(TrackState::new(info, RETAIN));
        self.session.published.add_track(&self.path, name, state.clone());
        Ok(Track { session: self.session.clone(), live: state.live(), state })
    }
}

impl Drop for Broadcast {
    fn drop(&mut self) {
        self.session.published.remove(&self.path);
    }
}

/// Who is subscribed to a track.
#[derive(Clone, Debug, Default)]
pub struct Live {
    /// Live subscriptions: id and what they ask.
    pub subscriptions: Vec<(u64, Prefs)>,
    /// Most that were ever live at once.
    pub peak: usize,
    /// How many there were in all.
    pub ever: u64,
    /// SUBSCRIBE_UPDATEs received.
    pub updates: u64,
}

/// A track of this client. Groups written to it go to every live subscription.
#[derive(Clone, Debug)]
pub struct Track {
    session: Arc<Session>,
    state: Arc<TrackState>,
    live: watch::Receiver<Live>,
}

impl Track {
    /// How many subscriptions are live.
    pub fn live_subscriptions(&self) -> usize {
        self.live.borrow().subscriptions.len()
    }

    /// Everything known of subscriptions, now.
    pub fn live(&self) -> Live {
        self.live.borrow().clone()
    }

    /// Waits until `done` says so of the subscriptions.
    pub async fn wait_live(&self, mut done: impl FnMut(&Live) -> bool) {
        let mut live = self.live.clone();
        // The sender lives in `self.state`.
        let _ = live.wait_for(|live| done(live)).await;
    }

    /// Waits for a subscription.
    pub async fn wait_subscribed(&self) {
        self.wait_live(|live| !live.subscriptions.is_empty()).await;
    }

    /// Waits until nobody is subscribed.
    pub async fn wait_unsubscribed(&self) {
        self.wait_live(|live| live.subscriptions.is_empty()).await;
    }

    /// How many groups are kept for late subscriptions and fetches; at least one.
    pub fn retain(&self, groups: usize) {
        self.state.set_retain(groups);
    }

    /// Opens a group, on every live subscription that wants it.
    pub fn group(&self, sequence: u64) -> GroupWriter {
        let log = Arc::new(GroupLog::new(sequence, self.session.version));
        self.state.open(log.clone());
        GroupWriter { log, done: false }
    }

    /// Sends a group of one small frame as a datagram.
    pub fn datagram(&self, sequence: u64, tick: u64, payload: Bytes) -> Result<(), Error> {
        for subscribe in self.state.ids(sequence) {
            let mut body = Vec::with_capacity(24 + payload.len());
            Datagram { subscribe, sequence, tick, payload: payload.clone() }
                .encode(self.session.version, &mut body);
            self.session.carrier.send_datagram(&body)?;
        }
        Ok(())
    }

    /// Says that these groups, both ends included, will not come.
    pub fn dropped(&self, start: u64, end: u64, code: u64) {
        self.state.dropped(start, end, code);
    }

    /// Ends the track cleanly: END with this exclusive bound, what is open goes out, then FIN.
    pub fn end(&self, bound: u64) {
        self.state.end(bound);
    }

    /// Ends the track with a code, open groups too.
    pub fn abort(&self, code: StreamCode) {
        self.state.abort(code);
    }
}

/// A group being written. Dropped unfinished, it is reset.
#[derive(Debug)]
pub struct GroupWriter {
    log: Arc<GroupLog>,
    done: bool,
}

impl GroupWriter {
    /// Its number in the track.
    pub fn sequence(&self) -> u64 {
        self.log.sequence
    }

    /// Adds a whole frame.
    pub fn frame(&self, tick: i64, payload: Bytes) {
        self.log.frame(tick, payload);
    }

    /// Begins a frame of `size` bytes, which must follow by [`GroupWriter::payload`].
    pub fn begin(&self, tick: i64, size: u64) {
        self.log.begin(tick, size);
    }

    /// More bytes of the frame begun, or, unbegun, anything at all.
    pub fn payload(&self, piece: Bytes) {
        self.log.payload(piece);
    }

    /// The group is complete.
    pub fn finish(mut self) {
        self.done = true;
        self.log.end(End::Finished);
    }

    /// The group breaks off, also where it waits for credit.
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
