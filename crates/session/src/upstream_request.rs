//! Requests of the relay to a peer, as they wait for its stream credit.

use relay_model::{LogId, Path};

/// Request to be sent to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamRequest {
    /// Move to another session.
    Goaway,
    /// Announces below an absolute prefix.
    Announces(Path),
    /// Properties of the track of a log.
    Track(LogId),
    /// Groups of the track of a log.
    Subscribe(LogId),
    /// One old group of the track of a log.
    Fetch(LogId, u64),
}
