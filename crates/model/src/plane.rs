//! The messages between the planes: sessions ask, core orders. Policy only: never payload,
//! never a position in a log (`store` resolves those under the log's lock).

use crate::{
    code::{SessionCode, StreamCode},
    id::{Epoch, LogId, SessionId, SubId},
    path::Path,
    route::{Cost, Hop, Hops},
    track::{Prefs, TrackName},
};

/// How much of a track is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Want {
    /// Its properties only (a TRACK request), or old groups out of the cache (a FETCH request).
    Info,
    /// Its groups as they come.
    Live,
}

/// A session to core. Paths are absolute (the session has prepended its root).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ask {
    /// The peer publishes `path`; for a live path: replaces the route in place.
    Announce {
        /// Absolute path of the broadcast.
        path: Path,
        /// Chain, original publisher first, the peer itself last, never empty.
        hops: Hops,
        /// Price including the link.
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
        /// What is wanted of it.
        prefs: Prefs,
        /// Properties only, or groups.
        want: Want,
    },
    /// New preferences of a live subscription.
    Update {
        /// The session's own key.
        sub: SubId,
        /// All of them, changed or not.
        prefs: Prefs,
    },
    /// The subscription is over (either side ended it). Unknown keys are ignored.
    Unsubscribe {
        /// The session's own key.
        sub: SubId,
    },
    /// A FETCH wants a group that the log neither holds nor knows to be absent: ask its publisher for
    /// all of it. `sub` is attached, and waits for the group's entries in the log until it
    /// unsubscribes. However many ask, the publisher is asked once.
    Pull {
        /// The session's own key.
        sub: SubId,
        /// The group's sequence.
        group: u64,
    },
    /// The peer said its own hop: routes through it are of no use to it. Replaces what it said before;
    /// anonymous = none.
    Exclude {
        /// The peer's hop.
        hop: Hop,
    },
    /// The peer is going away (GOAWAY): its routes are the last choice from now on, and what flows
    /// through it moves where it can.
    Draining,
    /// An [`Order::Pull`] is over, however: the log has its outcome. The group may be asked for again.
    Pulled {
        /// The log.
        log: LogId,
        /// The writer that was ordered.
        epoch: Epoch,
        /// The group's sequence.
        group: u64,
    },
    /// The upstream side of `log` is over: refused, reset or finished; the session has already
    /// appended the end to the log. Later subscribers get a new log.
    Ended {
        /// The log that ended.
        log: LogId,
        /// The writer that ended it; an older one's end is stale.
        epoch: Epoch,
        /// Whether the publisher answered that it has no such track.
        missing: bool,
    },
    /// Requests toward the peer wait for its stream credit (`true`), or none waits any more. While some
    /// wait, the streams of logs that nobody reads are given back at once.
    StreamsBlocked {
        /// Whether some wait.
        blocked: bool,
    },
}

/// Core to a session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Order {
    /// Ask the peer for a track and append what comes to `log`, as writer of `epoch`.
    Open {
        /// Where it goes.
        log: LogId,
        /// Claim the log's writer with this; a stale one fails.
        epoch: Epoch,
        /// Absolute path of the broadcast.
        path: Path,
        /// Who made it: the first hop of the route, anonymous when it has no name. A SUBSCRIBE names a
        /// path only; the session sees to it that this publisher answers.
        publisher: Hop,
        /// Track in it.
        track: TrackName,
        /// The union of what readers ask.
        prefs: Prefs,
        /// Properties only, or groups.
        want: Want,
        /// The session it is asked for: those who ask take turns where requests have to wait.
        asker: SessionId,
    },
    /// Another session reads a log of a peer whose stream credit is used up: a request for it that still
    /// waits is in the line of this session, too.
    Asked {
        /// An open log.
        log: LogId,
        /// The session.
        asker: SessionId,
    },
    /// Readers of an open log changed: new union, or groups wanted where only info was.
    Prefs {
        /// An open log.
        log: LogId,
        /// The union of what readers ask.
        prefs: Prefs,
        /// Properties only, or groups.
        want: Want,
    },
    /// Nobody reads `log` any more: unsubscribe upstream and drop its writer.
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
        /// The session it is fetched for.
        asker: SessionId,
    },
    /// Nobody waits for that group any more: cancel the fetch.
    DropPull {
        /// The log.
        log: LogId,
        /// The group's sequence.
        group: u64,
    },
    /// Serve subscription `sub` from `log`; one that is served from another log of the same publisher's
    /// track goes on where it is.
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
        /// Why.
        code: StreamCode,
    },
    /// End the session.
    Kill {
        /// Why, as the peer sees it.
        code: SessionCode,
        /// A few words for the peer.
        reason: &'static str,
    },
}
