//! What goes in and what comes out.

use relay_auth::Permit;
use relay_model::{Ask, Epoch, LogId, Order, Path, Route, SessionId, StreamCode};

/// Something that happened to a session. Events of one session come in the order they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A session was admitted. First message of a session.
    Opened {
        /// Its id, never reused.
        session: SessionId,
        /// What it may do.
        permit: Permit,
    },
    /// What the session may do has changed. The permit is one of the same subject.
    Revised {
        /// Which one.
        session: SessionId,
        /// What it may do from now on.
        permit: Permit,
    },
    /// A session asks for something.
    Ask {
        /// Who asks.
        session: SessionId,
        /// What.
        ask: Ask,
    },
    /// The session is gone. Last message of a session.
    Closed {
        /// Which one.
        session: SessionId,
        /// Whether it went without a word (idle, reset, a panic of ours), and so may be back soon. Not
        /// when the peer closed it, nor when we did.
        vanished: bool,
    },
}

/// Something to be done, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Deliver `order` to the worker that owns `session`.
    Order {
        /// For whom.
        session: SessionId,
        /// What it shall do.
        order: Order,
    },
    /// The routes of `path` are now these.
    Board {
        /// Absolute path of the broadcast.
        path: Path,
        /// Best first; empty = withdrawn.
        routes: Vec<Route>,
    },
    /// Create a log in the store.
    Create {
        /// Its id, never reused.
        log: LogId,
    },
    /// Only a writer of `epoch` may append to `log` from now on.
    Fence {
        /// A created log.
        log: LogId,
        /// Grows by one each time, from 1.
        epoch: Epoch,
    },
    /// Append an unclean end to `log`: its publisher did not come back, or another one has its place.
    End {
        /// A created log.
        log: LogId,
        /// Why.
        code: StreamCode,
    },
    /// Nobody reads or writes `log` any more: drop it.
    Retire {
        /// A created log.
        log: LogId,
    },
}

/// How much the core holds. All zero when everyone left, the lingers passed and all actions were taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Sessions admitted and not closed.
    pub sessions: usize,
    /// Paths with a route or a log.
    pub paths: usize,
    /// Routes that sessions announced and did not withdraw, over all paths.
    pub routes: usize,
    /// Routes that vanished, kept for their return, and withdrawn ones that are shown for a moment yet.
    pub ghosts: usize,
    /// Memory of them, bytes.
    pub ghost_bytes: u64,
    /// Logs created and not retired.
    pub logs: usize,
    /// Subscriptions attached to a log.
    pub readers: usize,
    /// Old groups that a reader waits for.
    pub pulls: usize,
    /// Actions not taken yet.
    pub pending: usize,
    /// Lingers and hold-backs that run.
    pub timers: usize,
}

/// What was refused or dropped since the start, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Messages that named a session, subscription or log we do not know (any more), or reused an id.
    pub unknown: u64,
    /// Announces outside the permit, or that a narrower one has ended.
    pub announce_denied: u64,
    /// Announces whose chain holds our own hop.
    pub looped: u64,
    /// Announces whose chain is over [`relay_model::limits::HOPS`].
    pub too_many_hops: u64,
    /// Subscriptions outside the permit, or that a narrower one has ended.
    pub subscribe_denied: u64,
    /// Subscriptions to a track that its publisher lately said it has not: refused without asking again.
    pub missing: u64,
    /// Subscriptions of braked sessions that waited for their turn.
    pub braked: u64,
    /// Subscriptions of braked sessions that were refused because too many waited.
    pub brake_refused: u64,
    /// Subscriptions to a path with no usable route.
    pub unroutable: u64,
    /// Pulls of a subscription that is not attached (any more), or whose log is over.
    pub pull_unknown: u64,
    /// Announces that wait because another subject holds the path.
    pub takeover_held: u64,
    /// Routes that were not kept when they vanished or were withdrawn: too many were.
    pub ghost_limit: u64,
    /// Logs ended because their publisher did not come back.
    pub abandoned: u64,
    /// Logs ended because their publisher was gone and another had the path.
    pub replaced: u64,
    /// Logs ended because who was asked for them just before may have meant another publisher.
    pub doubtful: u64,
    /// Logs whose readers went over to another log of the track, as both came from one writer.
    pub merged: u64,
}
