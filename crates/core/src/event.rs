//! Events the core handles and actions it emits.

use relay_auth::Permit;
use relay_model::{Ask, Epoch, LogId, Order, Path, Route, SessionId, StreamCode};

/// An event of one session. Events of one session arrive in the order they happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CoreEvent {
    /// The session was admitted. First event of a session.
    Opened {
        /// Its id, never reused.
        session: SessionId,
        /// Permissions of the session.
        permit: Permit,
    },
    /// The permissions of the session changed. The new permit has the same subject.
    Revised {
        /// Affected session.
        session: SessionId,
        /// Permissions from now on.
        permit: Permit,
    },
    /// The session sent a request.
    Ask {
        /// Requesting session.
        session: SessionId,
        /// The request.
        ask: Ask,
    },
    /// The session is closed. Last event of a session.
    Closed {
        /// Closed session.
        session: SessionId,
        /// Whether it ended without a close (idle timeout, reset, or a panic of ours), and so may be back
        /// soon. False when the peer or we closed it.
        vanished: bool,
    },
}

/// An action for the caller; actions are executed in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Deliver `order` to the worker that owns `session`.
    Order {
        /// Receiving session.
        session: SessionId,
        /// The order.
        order: Order,
    },
    /// The advertised routes of `path` are now these.
    Board {
        /// Absolute path of the broadcast.
        path: Path,
        /// Best first; empty if the broadcast is withdrawn.
        routes: Vec<Route>,
    },
    /// Create a log in the store.
    Create {
        /// Its id, never reused.
        log: LogId,
    },
    /// From now on only the writer of `epoch` may append to `log`.
    Fence {
        /// An existing log.
        log: LogId,
        /// Grows by one each time, from 1.
        epoch: Epoch,
    },
    /// Append an unclean end to `log`: its publisher did not come back, or another one replaced it.
    End {
        /// An existing log.
        log: LogId,
        /// Reason for the end.
        code: StreamCode,
    },
    /// Drop `log`: it has neither readers nor a writer.
    Retire {
        /// An existing log.
        log: LogId,
    },
}

/// Sizes of the core's tables. All zero once every session is closed, the lingers passed and all actions were
/// taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreCounts {
    /// Admitted sessions that are not closed.
    pub sessions: usize,
    /// Paths with a route or a log.
    pub paths: usize,
    /// Routes announced by sessions and not withdrawn, over all paths.
    pub routes: usize,
    /// Routes of vanished sessions kept for their return, and withdrawn routes still advertised during the
    /// hold-down.
    pub stale_routes: usize,
    /// Memory of these routes, bytes.
    pub stale_bytes: u64,
    /// Created logs that are not retired.
    pub logs: usize,
    /// Subscriptions attached to a log.
    pub readers: usize,
    /// Old groups that at least one reader waits for.
    pub pulls: usize,
    /// Actions not taken yet.
    pub pending: usize,
    /// Armed timers.
    pub timers: usize,
}

/// Refused and dropped requests since the start, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct CoreTally {
    /// Messages for an unknown (or no longer known) session, subscription or log, or with a reused id.
    pub unknown: u64,
    /// Announces outside the permit, and those ended by a narrower permit.
    pub announce_denied: u64,
    /// Announces whose chain contains our own hop.
    pub looped: u64,
    /// Announces whose chain is longer than [`relay_model::limits::HOPS`].
    pub too_many_hops: u64,
    /// Subscriptions outside the permit, and those ended by a narrower permit.
    pub subscribe_denied: u64,
    /// Subscriptions to a track that its publisher recently reported as missing, refused without asking
    /// again.
    pub missing: u64,
    /// Subscriptions queued because the session mostly asks for missing tracks.
    pub braked: u64,
    /// Subscriptions refused because the queue of throttled requests was full.
    pub brake_refused: u64,
    /// Subscriptions to a path with no usable route.
    pub unroutable: u64,
    /// Pulls of a subscription that is not attached (any more), or whose log has ended.
    pub pull_unknown: u64,
    /// Announces that wait because another subject holds the path.
    pub takeover_held: u64,
    /// Vanished or withdrawn routes that were not kept because the limit on stale routes was reached.
    pub stale_limit: u64,
    /// Logs retired at once because the limit on the memory of lingering logs was reached.
    pub linger_limit: u64,
    /// Logs ended because their publisher did not come back.
    pub abandoned: u64,
    /// Logs ended because their publisher was gone and another one served the path.
    pub replaced: u64,
    /// Logs ended because the session asked for them may have answered with another publisher's track.
    pub ambiguous: u64,
    /// Logs merged into another log of the same track and writer.
    pub merged: u64,
}
