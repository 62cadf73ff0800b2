//! Requests and replies between the engine and a dialect, free of any wire format.
//!
//! The same types serve both directions: requests of the peer with the relay's replies, and requests of the
//! relay with the peer's replies. A dialect turns them into messages and streams.

use relay_model::{Cost, Hop, Hops, Path, Prefs, Role, SessionCode, StreamCode, TrackInfo, TrackName};

/// Identifies a request of one session, in either direction. Assigned by the dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct RequestId(pub(crate) u64);

/// Request for something of the other side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Request {
    /// Broadcasts below a prefix, now and later.
    Watch {
        /// Prefix relative to the session's root.
        prefix: Path,
        /// Hop whose routes are not wanted; `None` if the request cannot carry one.
        exclude: Option<Hop>,
    },
    /// Groups of a track as they are published.
    Subscribe {
        /// Number that names the subscription on data streams; chosen by the subscriber.
        alias: u64,
        /// Path relative to the session's root.
        broadcast: Path,
        track: TrackName,
        prefs: Prefs,
    },
    /// New preferences of a subscription.
    Update(PrefsUpdate),
    /// Properties of a track.
    TrackInfo { broadcast: Path, track: TrackName },
    /// One group.
    Fetch { broadcast: Path, track: TrackName, priority: u8, group: u64, range: ObjectRange },
    /// Path statistics of the sender.
    Probe,
    /// Request to move to another session.
    Goaway,
    /// End of a request by its sender. Acknowledged with the reply it carries.
    Cancel(Reply),
}

/// Change of a subscription's preferences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PrefsUpdate {
    /// All preferences.
    All(Prefs),
    /// The priority only; the rest stays.
    Priority(u8),
}

/// Objects of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ObjectRange {
    pub(crate) first: u64,
    /// Last object, inclusive; `None` = to the end of the group.
    pub(crate) last: Option<u64>,
}

impl ObjectRange {
    /// All objects.
    pub(crate) const ALL: Self = Self { first: 0, last: None };
}

/// Reply to a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Reply {
    /// The subscription is accepted, with its priority.
    Accepted { priority: u8 },
    /// First group of the subscription.
    Started { group: u64 },
    /// Groups that will not be sent, and the reason.
    Dropped { first: u64, last: u64, code: u64 },
    /// The track has ended: exclusive bound of its groups. Last reply of the relay; a peer's is followed by
    /// [`Self::Finished`].
    Ended { bound: u64 },
    /// Properties of the track; last reply.
    Info(TrackInfo),
    /// Path statistics: bits per second and milliseconds, 0 = unknown.
    Measured { bitrate: u64, rtt_ms: u64 },
    /// The request failed, or the response is cut short; last reply.
    Refused { code: StreamCode },
    /// The response is complete without a message; last reply.
    Finished,
    /// The requested group was sent, and its stream finished, by the egress; last reply.
    Delivered,
}

/// Change of the broadcasts below a requested prefix. Paths are relative to that prefix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Announcement {
    /// A broadcast is live, or its route has changed.
    Live {
        path: Path,
        /// Hop chain, original publisher first, the peer last if it has an id.
        hops: Hops,
        /// Cost, with that of the link to the peer where the dialect has costs.
        cost: Cost,
        /// Whether the path was not live on this request before.
        is_new: bool,
    },
    /// A broadcast has ended.
    Ended { path: Path },
}

/// Result of a FETCH whose data went to the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct FetchResult {
    /// Whether the group was opened in the log.
    pub(crate) has_begun: bool,
    /// Code of a response that was cut short.
    pub(crate) code: Option<StreamCode>,
}

/// Properties that the peer declares once.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct PeerSetup {
    /// Raw path and query, on transports without a URL.
    pub(crate) target: Option<String>,
    /// Only role of the peer; `None` = both, or none declared.
    pub(crate) role: Option<Role>,
    /// Whether it forwards other publishers' broadcasts.
    pub(crate) is_relay: bool,
    /// Hop whose routes are not advertised to it; `None` if its version names it in each request.
    pub(crate) exclude: Option<Hop>,
}

/// Message of the peer, parsed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Incoming {
    /// The version has been negotiated.
    Negotiated,
    Setup(PeerSetup),
    Request(RequestId, Request),
    /// Reply to a request of the relay.
    Reply(RequestId, Reply),
    /// Change on a [`Request::Watch`] of the relay.
    Announcement(RequestId, Announcement),
    /// End of a [`Request::Watch`] of the relay: the paths that were live.
    AnnouncementsEnded(RequestId, Vec<Path>),
    /// End of a [`Request::Fetch`] of the relay.
    Fetched(RequestId, FetchResult),
    /// The peer broke the protocol.
    Violation(String),
    /// The session must be closed for another reason.
    Close(SessionCode, String),
}
