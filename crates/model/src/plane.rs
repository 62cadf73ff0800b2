//! Messages between the control plane and the data plane: sessions send asks, core sends orders. Policy only:
//! never payload, never a position in a log (`store` resolves those under the log's lock).

use crate::{
    code::{SessionCode, StreamCode},
    id::{Epoch, LogId, SessionId, SubId},
    path::Path,
    route::{Cost, Hop, Hops},
    track::{Prefs, TrackName},
};

/// Extent of interest in a track.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// Its properties only (a TRACK request), or old groups from the cache (a FETCH request).
    Info,
    /// Its groups as they are published.
    Live,
}

/// Message from a session to core. Paths are absolute (the session has prepended its root).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The peer announces `path`; replaces the route in place if `path` is already announced.
    Announce {
        /// Absolute path of the broadcast.
        path: Path,
        /// Hop chain: original publisher first, the peer itself last, never empty.
        hops: Hops,
        /// Cost including the link to the peer.
        cost: Cost,
    },
    /// The peer withdraws `path`. Unknown paths are ignored.
    Unannounce {
        /// Absolute path of the broadcast.
        path: Path,
    },
    /// A downstream subscription or track-info request; answered by [`Order::Attach`] or [`Order::Refuse`].
    Subscribe {
        /// The session's own key, never reused by it.
        sub: SubId,
        /// Absolute path of the broadcast.
        path: Path,
        /// Track in it.
        track: TrackName,
        /// Preferences of the subscriber.
        prefs: Prefs,
        /// Properties only, or groups.
        want: Want,
    },
    /// New preferences of a live subscription.
    Update {
        /// The session's own key.
        sub: SubId,
        /// The complete preferences, changed or not.
        prefs: Prefs,
    },
    /// The subscription is over (either side ended it). Unknown keys are ignored.
    Unsubscribe {
        /// The session's own key.
        sub: SubId,
    },
    /// A FETCH requests a group that the log neither holds nor knows to be absent: core asks its publisher for
    /// the whole group. `sub` is attached, and waits for the group's entries in the log until it unsubscribes.
    /// The publisher is asked once, however many fetches wait.
    Pull {
        /// The session's own key.
        sub: SubId,
        /// The group's sequence.
        group: u64,
    },
    /// The peer's own hop: routes through it are of no use to the peer. Replaces the previous value; anonymous
    /// = none.
    Exclude {
        /// The peer's hop.
        hop: Hop,
    },
    /// The peer is going away (GOAWAY): its routes become the last choice, and tracks it serves move to other
    /// routes where possible.
    Draining,
    /// An [`Order::Pull`] has ended, successfully or not; the log holds its outcome. The group may be requested
    /// again.
    Pulled {
        /// The log.
        log: LogId,
        /// Epoch of the writer that received the order.
        epoch: Epoch,
        /// The group's sequence.
        group: u64,
    },
    /// The upstream side of `log` has ended: refused, reset or finished; the session has already appended the
    /// end to the log. Later subscribers get a new log.
    Ended {
        /// The log that ended.
        log: LogId,
        /// Epoch of the writer that ended it; the end reported by an older writer is stale.
        epoch: Epoch,
        /// Whether the publisher answered that it has no such track.
        missing: bool,
    },
    /// Whether requests to the peer wait for its stream credit. While some wait, the streams of logs without
    /// readers are released at once.
    StreamsBlocked {
        /// Whether at least one request waits.
        blocked: bool,
    },
}

/// Message from core to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Request a track from the peer and append its data to `log`, as writer of `epoch`.
    Open {
        /// Log that receives the data.
        log: LogId,
        /// Epoch to claim the log's writer with; a stale one fails.
        epoch: Epoch,
        /// Absolute path of the broadcast.
        path: Path,
        /// Original publisher: the first hop of the route, anonymous when it has no id. A SUBSCRIBE names a
        /// path only; the session makes sure that this publisher answers.
        publisher: Hop,
        /// Track in it.
        track: TrackName,
        /// Union of the readers' preferences.
        prefs: Prefs,
        /// Properties only, or groups.
        want: Want,
        /// Session on whose behalf it is requested: waiting requests are served round-robin by session.
        asker: SessionId,
    },
    /// Another session reads a log of a peer whose stream credit is used up: a still waiting request for the
    /// log also counts for that session's turn.
    Asked {
        /// An open log.
        log: LogId,
        /// The session that reads it.
        asker: SessionId,
    },
    /// The readers of an open log changed: new union, or groups wanted where only properties were.
    Prefs {
        /// An open log.
        log: LogId,
        /// Union of the readers' preferences.
        prefs: Prefs,
        /// Properties only, or groups.
        want: Want,
    },
    /// `log` has no reader any more: unsubscribe upstream and drop its writer.
    Close {
        /// An open log.
        log: LogId,
    },
    /// Fetch one old group of an open log from the peer, whole, into the log; always answered by
    /// [`Ask::Pulled`], unless the log is closed or the pull dropped first.
    Pull {
        /// An open log.
        log: LogId,
        /// The group's sequence.
        group: u64,
        /// Session on whose behalf it is fetched.
        asker: SessionId,
    },
    /// No fetch waits for that group any more: cancel it.
    DropPull {
        /// The log.
        log: LogId,
        /// The group's sequence.
        group: u64,
    },
    /// Serve subscription `sub` from `log`; a subscription served from another log of the same publisher's
    /// track continues at its position.
    Attach {
        /// The session's key.
        sub: SubId,
        /// The log that serves it.
        log: LogId,
    },
    /// `sub` cannot be served.
    Refuse {
        /// The session's key.
        sub: SubId,
        /// Code sent to the subscriber.
        code: StreamCode,
    },
    /// End the session.
    Kill {
        /// Close code sent to the peer.
        code: SessionCode,
        /// Close reason sent to the peer.
        reason: &'static str,
    },
}
