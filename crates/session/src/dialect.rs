//! Boundary between the engine and the wire formats: requests, replies and data in terms that every dialect of
//! MoQ has (`crate::request`), and one module for each dialect that owns its bytes and streams.
//!
//! A dialect is dispatched on once for an event of the transport, or for a message of the engine; within one
//! event it parses and appends objects on its own.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use relay_meter::Worker as Meter;
use relay_model::{
    Hop, LogId, Path, StreamCode,
    transport::{Dir, Stream, Transport},
};
use relay_store::Budget;
use relay_wire::Version;

use crate::{
    control::{ControlQueue, Outbound},
    request::{Incoming, PrefsUpdate, Reply, Request, RequestId},
    request_limiter::RequestLimiter,
    upstream::Upstreams,
    work::Work,
};

mod announce_writer;
mod encoder;
mod framing;
mod lite;

pub(crate) use announce_writer::{AnnounceWriter, Filled};
pub(crate) use encoder::{MediaEncoder, OutgoingDatagram};
pub(crate) use framing::ObjectFraming;
use lite::Lite;

/// Protocol spoken with the peer.
#[derive(Debug)]
pub(crate) enum Dialect {
    /// moq-lite 01 to 06.
    Lite(Lite),
}

/// Context of reading a stream.
pub(crate) struct ReadContext<'a, T: Transport> {
    pub(crate) t: &'a mut T,
    pub(crate) now: Instant,
    pub(crate) work: &'a mut Work,
    pub(crate) meter: &'a mut Meter,
    pub(crate) budget: &'a Arc<Budget>,
    pub(crate) control: &'a mut ControlQueue,
    pub(crate) limiter: &'a mut RequestLimiter,
    pub(crate) upstreams: &'a mut Upstreams,
    pub(crate) access: ReadAccess,
    /// Zero of the timestamps given to frames without one.
    pub(crate) started: Instant,
}

impl<T: Transport> ReadContext<'_, T> {
    /// Whether a request may be read now.
    fn may_read_request(&mut self) -> bool {
        self.access.may_ask && self.limiter.allows(self.now)
    }
}

/// Input that may be read now.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ReadAccess {
    /// Whether the peer is admitted.
    pub(crate) is_admitted: bool,
    /// Whether messages that lead to asks may be read.
    pub(crate) may_ask: bool,
    /// Whether groups may be started.
    pub(crate) accepts_groups: bool,
}

/// Result of reading a stream.
#[derive(Debug)]
pub(crate) enum ReadStep {
    /// Nothing more can be read now, for lack of bytes or of work budget.
    Blocked,
    /// The stream must wait until requests may be read.
    Paused,
    /// Nothing more is to be read.
    Done,
    /// A message was read, and more may follow.
    Event(Incoming),
}

/// Stream whose receiver does not want more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stopped {
    /// The response to a request of the peer.
    Request(RequestId),
    /// A stream of the dialect itself, which has answered.
    Handled,
    /// None of the dialect's streams: a group.
    Media,
}

/// Datagram of a publisher.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct IncomingDatagram {
    pub(crate) alias: u64,
    pub(crate) group: u64,
    /// Timestamp, ms.
    pub(crate) tick: i64,
    pub(crate) payload: Bytes,
}

impl Dialect {
    /// The dialect of `version`. A legacy version of moq-lite only means that the version is among these and
    /// still to be negotiated.
    pub(crate) fn new(version: Version) -> Self {
        match version {
            Version::Lite(version) => Self::Lite(Lite::new(version)),
        }
    }

    /// Version, once known.
    pub(crate) fn version(&self) -> Option<Version> {
        match self {
            Self::Lite(lite) => lite.version().map(Version::Lite),
        }
    }

    /// Encoder of media in the version in force.
    pub(crate) fn encoder(&self) -> MediaEncoder {
        match self {
            Self::Lite(lite) => MediaEncoder::Lite(lite.encoder()),
        }
    }

    /// Starts the deadline of the version negotiation. False if the version is known.
    pub(crate) fn start(&mut self, now: Instant) -> bool {
        match self {
            Self::Lite(lite) => lite.start(now),
        }
    }

    /// Deadline of the version negotiation.
    pub(crate) fn negotiation_deadline(&self) -> Option<Instant> {
        match self {
            Self::Lite(lite) => lite.negotiation_deadline(),
        }
    }

    /// Whether the peer's SETUP names the request target where the transport has no URL.
    pub(crate) fn has_setup(&self) -> bool {
        match self {
            Self::Lite(lite) => lite.has_setup(),
        }
    }

    /// Whether announces may be exchanged with the peer.
    pub(crate) fn allows_announces(&self) -> bool {
        match self {
            Self::Lite(lite) => lite.allows_announces(),
        }
    }

    /// Whether properties of tracks and old groups can be requested.
    pub(crate) fn has_tracks(&self) -> bool {
        match self {
            Self::Lite(lite) => lite.has_tracks(),
        }
    }

    /// Whether a subscription has a start and can be updated.
    pub(crate) fn has_ranges(&self) -> bool {
        match self {
            Self::Lite(lite) => lite.has_ranges(),
        }
    }

    /// Whether the peer can be asked to move to another session.
    pub(crate) fn has_goaway(&self) -> bool {
        match self {
            Self::Lite(lite) => lite.has_goaway(),
        }
    }

    /// Memory held for the streams, bytes.
    pub(crate) fn footprint(&self) -> u64 {
        match self {
            Self::Lite(lite) => lite.footprint(),
        }
    }

    /// Earliest deadline of streams.
    pub(crate) fn stream_deadline(&self) -> Option<Instant> {
        match self {
            Self::Lite(lite) => lite.stream_deadline(),
        }
    }

    /// Adds a stream that the peer opened.
    pub(crate) fn opened<T: Transport>(&mut self, t: &mut T, now: Instant, stream: Stream, dir: Dir) {
        match self {
            Self::Lite(lite) => lite.opened(t, now, stream, dir),
        }
    }

    /// Reads a stream up to its next event; the data of groups goes to the logs of `io.upstreams`.
    pub(crate) fn read<T: Transport>(&mut self, io: &mut ReadContext<'_, T>, stream: Stream) -> ReadStep {
        match self {
            Self::Lite(lite) => lite.read(io, stream),
        }
    }

    /// Handles STOP_SENDING.
    pub(crate) fn stopped<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        stream: Stream,
        code: StreamCode,
    ) -> Stopped {
        match self {
            Self::Lite(lite) => lite.stopped(out, stream, code),
        }
    }

    /// Resets the next stream whose type or request has not arrived in time. False when none is due.
    pub(crate) fn expire_header<T: Transport>(
        &mut self,
        t: &mut T,
        now: Instant,
        is_paused: impl Fn(Stream) -> bool,
    ) -> bool {
        match self {
            Self::Lite(lite) => lite.expire_header(t, now, is_paused),
        }
    }

    /// Appends partial frames that were held back long enough.
    pub(crate) fn release_partial(&mut self, upstreams: &mut Upstreams, now: Instant, budget: &Arc<Budget>) {
        match self {
            Self::Lite(lite) => lite.release_partial(upstreams, now, budget),
        }
    }

    /// Sends our SETUP once, as soon as a stream can be opened.
    pub(crate) fn send_setup<T: Transport>(&mut self, out: &mut Outbound<'_, T>, hop: Hop) {
        match self {
            Self::Lite(lite) => lite.send_setup(out, hop),
        }
    }

    /// Sends a request of the relay; `log` receives the data of a fetch. `None`: no stream credit.
    pub(crate) fn request<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        request: &Request,
        log: Option<LogId>,
    ) -> Option<RequestId> {
        match self {
            Self::Lite(lite) => lite.request(out, request, log),
        }
    }

    /// Updates a subscription of the relay.
    pub(crate) fn update<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        request: RequestId,
        update: PrefsUpdate,
    ) {
        match self {
            Self::Lite(lite) => lite.update(out, request, update),
        }
    }

    /// Cancels a request of the relay. Returns the paths that were live on it.
    pub(crate) fn cancel<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        request: RequestId,
    ) -> Vec<Path> {
        match self {
            Self::Lite(lite) => lite.cancel(out, request),
        }
    }

    /// Replies to a request of the peer. A last reply ends it.
    pub(crate) fn reply<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        request: RequestId,
        reply: &Reply,
    ) {
        match self {
            Self::Lite(lite) => lite.reply(out, request, reply),
        }
    }

    /// Forgets an announce on a request of the relay that is not stored.
    pub(crate) fn skip_announce(&mut self, request: RequestId, path: &Path) {
        match self {
            Self::Lite(lite) => lite.skip_announce(request, path),
        }
    }

    /// Refuses the group streams of a closed track.
    pub(crate) fn drop_groups<T: Transport>(&mut self, t: &mut T, log: LogId) {
        match self {
            Self::Lite(lite) => lite.drop_groups(t, log),
        }
    }

    /// Parses a media datagram. `None`: it is malformed, or the version has none.
    pub(crate) fn datagram(&self, bytes: Bytes) -> Option<IncomingDatagram> {
        match self {
            Self::Lite(lite) => lite.datagram(bytes),
        }
    }
}
