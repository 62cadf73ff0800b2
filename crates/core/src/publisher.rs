//! Identity of a publisher.

use relay_model::{Hop, Path, Route, TrackName};

/// Origin of a broadcast, which must not change within a log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PublisherId {
    /// First hop of the chain. The same hop on another session continues the broadcast.
    Named(Hop),
    /// Publisher without a hop id: each announce is a publisher of its own.
    Anonymous(u64),
}

impl PublisherId {
    /// Publisher of `route`, which was announced with the number `serial`.
    pub(crate) fn of(route: &Route, serial: u64) -> Self {
        match route.publisher() {
            Hop::ANONYMOUS => Self::Anonymous(serial),
            hop => Self::Named(hop),
        }
    }
}

/// Track of one publisher.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct TrackKey {
    pub(crate) path: Path,
    pub(crate) publisher: PublisherId,
    pub(crate) track: TrackName,
}
