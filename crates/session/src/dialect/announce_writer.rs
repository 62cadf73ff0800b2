//! Announces to a peer on one of its announce requests.

use relay_model::{Hop, Scope, transport::Transport};
use relay_store::BoardWatch;

use super::{Dialect, lite};
use crate::{advertise_policy::AdvertisePolicy, control::Outbound, request::RequestId};

/// A position on the announce board, and an encoder for the peer's version.
#[derive(Debug)]
pub(crate) enum AnnounceWriter {
    /// moq-lite 01 to 06.
    Lite(lite::AnnounceStream),
}

/// Work done by one call of [`AnnounceWriter::fill`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Filled {
    /// Paths examined, whether or not they were encoded.
    pub(crate) entries: usize,
    /// Whether another call has more to do.
    pub(crate) more: bool,
    /// Whether the response cannot be continued and must be reset: an announcement that was counted may no
    /// longer be sent, or withdrawals were lost.
    pub(crate) is_broken: bool,
}

impl AnnounceWriter {
    /// A writer for the version that `dialect` speaks.
    pub(crate) fn new(dialect: &Dialect, policy: AdvertisePolicy, watch: BoardWatch) -> Self {
        match dialect {
            Dialect::Lite(lite) => Self::Lite(lite.announce_stream(policy, watch)),
        }
    }

    /// Sends the next messages: examines at most `max_entries` paths.
    pub(crate) fn fill<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        request: RequestId,
        max_entries: usize,
    ) -> Filled {
        match self {
            Self::Lite(stream) => {
                let mut messages = Vec::new();
                let filled = stream.fill(max_entries, &mut messages);
                if !messages.is_empty() {
                    out.send(lite::stream_of(request), messages);
                }
                filled
            }
        }
    }

    /// Memory held for this request, bytes.
    pub(crate) fn footprint(&self) -> u64 {
        match self {
            Self::Lite(stream) => stream.footprint(),
        }
    }

    /// Withholds routes through `hop`.
    pub(crate) fn exclude(&mut self, hop: Hop) {
        match self {
            Self::Lite(stream) => stream.exclude(hop),
        }
    }

    /// Treats the peer as a relay: sends the routes withheld from readers.
    pub(crate) fn advertise_all(&mut self) {
        match self {
            Self::Lite(stream) => stream.advertise_all(),
        }
    }

    /// Replaces the scope of the peer.
    pub(crate) fn revise(&mut self, scope: Scope) {
        match self {
            Self::Lite(stream) => stream.revise(scope),
        }
    }
}
