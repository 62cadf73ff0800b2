//! moq-lite 01 to 06: all of its bytes, stream types and version predicates.
//!
//! A request is a bidirectional stream, so a [`RequestId`] is the key of its stream.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use relay_model::{
    Hop, LogId, Path, StreamCode,
    transport::{Dir, PRIORITY_CONTROL, ReadError, Stream, Transport},
};
use relay_store::{BoardWatch, Budget, FETCHED};
use relay_wire::lite::{self, UniType, Version};

use super::{IncomingDatagram, ReadContext, ReadStep, Stopped};
use crate::{
    advertise_policy::AdvertisePolicy,
    control::Outbound,
    control_stream::ControlStreamReader,
    ingest::AppendTarget,
    request::{PrefsUpdate, Reply, Request, RequestId},
    streams::{StreamCost, StreamTable},
    upstream::Upstreams,
    work,
};

mod announce_stream;
mod announces;
mod encode;
pub(crate) mod framing;
mod group_stream;
mod handshake;
mod headers;
mod partial;
mod replies;
mod requests;
mod streams;

pub(super) use announce_stream::AnnounceStream;
pub(crate) use encode::LiteEncoder;
use group_stream::GroupStream;
use handshake::Handshake;
use headers::HeaderDeadlines;
use partial::PartialFrames;
use streams::{StreamKind, StreamStep};

/// Code of a STOP_SENDING after everything needed was read.
pub(crate) const NO_ERROR: StreamCode = StreamCode::INTERNAL;

/// State of one moq-lite session.
#[derive(Debug)]
pub(crate) struct Lite {
    version: Version,
    handshake: Handshake,
    streams: StreamTable<StreamKind>,
    partial: PartialFrames,
    headers: HeaderDeadlines,
}

impl Lite {
    /// A session of `version`, or of one of the legacy versions that is still to be negotiated.
    pub(crate) fn new(version: Version) -> Self {
        Self {
            version,
            handshake: Handshake::new(version),
            streams: StreamTable::default(),
            partial: PartialFrames::default(),
            headers: HeaderDeadlines::default(),
        }
    }

    /// Version, once known.
    pub(crate) fn version(&self) -> Option<Version> {
        (!self.handshake.is_negotiating()).then_some(self.version)
    }

    /// Encoder of the version in force.
    pub(crate) fn encoder(&self) -> LiteEncoder {
        LiteEncoder::new(self.version)
    }

    /// Starts the deadline of the negotiation. False if the version is known.
    pub(crate) fn start(&mut self, now: Instant) -> bool {
        self.handshake.start(now)
    }

    /// Announces for one of the peer's announce requests.
    pub(crate) fn announce_stream(&self, policy: AdvertisePolicy, watch: BoardWatch) -> AnnounceStream {
        AnnounceStream::new(policy, watch, self.version)
    }

    /// Deadline of the negotiation.
    pub(crate) fn negotiation_deadline(&self) -> Option<Instant> {
        self.handshake.deadline()
    }

    /// Whether SETUP carries properties of the session.
    pub(crate) fn has_setup(&self) -> bool {
        self.version.has_setup()
    }

    /// Whether announces may be exchanged with the peer.
    pub(crate) fn allows_announces(&self) -> bool {
        self.handshake.allows_announces(self.version)
    }

    /// Whether properties of tracks and old groups can be requested.
    pub(crate) fn has_tracks(&self) -> bool {
        self.version.has_tracks()
    }

    /// Whether a subscription has a start and can be updated.
    pub(crate) fn has_ranges(&self) -> bool {
        self.version.has_ranges()
    }

    /// Whether the peer can be asked to move to another session.
    pub(crate) fn has_goaway(&self) -> bool {
        self.version.has_goaway()
    }

    /// Memory held for the streams, bytes.
    pub(crate) fn footprint(&self) -> u64 {
        self.streams.bytes()
    }

    /// Earliest deadline of streams: held frames and headers.
    pub(crate) fn stream_deadline(&self) -> Option<Instant> {
        self.partial.deadline().into_iter().chain(self.headers.deadline()).min()
    }

    /// Adds a stream that the peer opened.
    pub(crate) fn opened<T: Transport>(&mut self, t: &mut T, now: Instant, stream: Stream, dir: Dir) {
        let kind = match dir {
            Dir::Bi => {
                t.set_priority(stream, PRIORITY_CONTROL);
                StreamKind::Request(ControlStreamReader::default(), None)
            }
            Dir::Uni => StreamKind::Header(ControlStreamReader::default()),
        };
        self.streams.insert(stream, kind);
        let Self { headers, streams, .. } = self;
        headers.prune(streams.len(), |stream| waits_for_header(streams, stream));
        headers.add(stream, now);
    }

    /// Reads a stream up to its next event.
    pub(crate) fn read<T: Transport>(&mut self, io: &mut ReadContext<'_, T>, stream: Stream) -> ReadStep {
        let Some(kind) = self.streams.get_mut(stream) else { return ReadStep::Done };
        let step = match kind {
            StreamKind::Group(group) => group.read(io, stream, &mut self.partial),
            _ => self.read_control(io, stream),
        };
        match step {
            StreamStep::Blocked | StreamStep::Again => ReadStep::Blocked,
            StreamStep::Paused => ReadStep::Paused,
            StreamStep::Event(event) => ReadStep::Event(event),
            StreamStep::Last(event) => {
                self.streams.remove(stream);
                ReadStep::Event(event)
            }
            StreamStep::Done => {
                self.streams.remove(stream);
                ReadStep::Done
            }
        }
    }

    fn read_control<T: Transport>(&mut self, io: &mut ReadContext<'_, T>, stream: Stream) -> StreamStep {
        let Self { version, handshake, streams, partial, .. } = self;
        let Some(kind) = streams.get_mut(stream) else { return StreamStep::Done };
        let before = kind.cost();
        let step = loop {
            let step = match kind {
                StreamKind::Request(..) => requests::read_request(io, stream, *version, handshake, kind),
                StreamKind::Header(_) => read_header(io, stream, *version, handshake, kind),
                StreamKind::Setup(reader) => handshake.read_setup(io, stream, *version, reader),
                StreamKind::ClientSetup(_) => handshake.read_client_setup(io, stream, version, kind),
                StreamKind::Session(reader) => handshake::read_session(io, stream, *version, reader),
                StreamKind::Group(group) => group.read(io, stream, partial),
                StreamKind::Listener(reader) => requests::read_listener(io, stream, reader),
                StreamKind::Subscription(reader) => requests::read_subscription(io, stream, *version, reader),
                StreamKind::Single(reader) => requests::read_single(io, stream, reader),
                StreamKind::AnnounceUp(reader, receiver) => {
                    replies::read_announces(io, stream, *version, handshake.price(), (reader, receiver))
                }
                StreamKind::TrackUp(reader) => replies::read_info(io, stream, *version, reader),
                StreamKind::SubscribeUp { reader, has_bound } => {
                    replies::read_responses(io, stream, *version, (reader, has_bound))
                }
                StreamKind::FetchUp(group) => group.read_fetched(io, stream),
            };
            if !matches!(step, StreamStep::Again) {
                break step;
            }
        };
        let after = kind.cost();
        streams.recount(before, after);
        step
    }

    /// Handles STOP_SENDING on one of our sending sides.
    pub(crate) fn stopped<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        stream: Stream,
        code: StreamCode,
    ) -> Stopped {
        match self.streams.get(stream) {
            // A peer that stops reading the response has no use for it; a stopped stream lives until it is
            // reset.
            Some(StreamKind::Listener(_) | StreamKind::Subscription(_) | StreamKind::Single(_)) => {
                Stopped::Request(request_id(stream))
            }
            // Ending this stream would end the session.
            Some(StreamKind::ClientSetup(_) | StreamKind::Session(_)) => Stopped::Handled,
            Some(_) => {
                out.control.reset(out.t, stream, code);
                Stopped::Handled
            }
            None => Stopped::Media,
        }
    }

    /// Resets the next stream whose type or request has not arrived in time, unless it is paused. False when
    /// none is due.
    pub(crate) fn expire_header<T: Transport>(
        &mut self,
        t: &mut T,
        now: Instant,
        is_paused: impl Fn(Stream) -> bool,
    ) -> bool {
        let Some(stream) = self.headers.take_due(now) else { return false };
        if waits_for_header(&self.streams, stream) && !is_paused(stream) {
            self.streams.remove(stream);
            t.stop(stream, StreamCode::CONTROL_TIMEOUT);
            t.reset(stream, StreamCode::CONTROL_TIMEOUT);
        }
        true
    }

    /// Appends partial frames whose hold time has passed.
    pub(crate) fn release_partial(&mut self, upstreams: &mut Upstreams, now: Instant, budget: &Arc<Budget>) {
        for stream in self.partial.take_due(now) {
            if let Some(StreamKind::Group(group)) = self.streams.get_mut(stream) {
                group.release(upstreams, budget);
            }
        }
    }

    /// Sends our SETUP once, as soon as a stream can be opened.
    pub(crate) fn send_setup<T: Transport>(&mut self, out: &mut Outbound<'_, T>, hop: Hop) {
        let has_probe = out.t.stats().rtt.is_some();
        let Some(message) = self.handshake.setup(self.version, hop, has_probe) else { return };
        let Some(stream) = out.t.open(Dir::Uni, PRIORITY_CONTROL) else { return };
        self.handshake.set_sent();
        out.send(stream, message);
        out.control.finish(out.t, stream);
    }

    /// Sends a request of the relay on a new stream; `log` receives the data of a FETCH. `None`: no stream
    /// credit.
    pub(crate) fn request<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        request: &Request,
        log: Option<LogId>,
    ) -> Option<RequestId> {
        let message = self.encoder().request(request)?;
        let stream = out.t.open(Dir::Bi, PRIORITY_CONTROL)?;
        let reader = ControlStreamReader::default();
        let kind = match (request, log) {
            (Request::Watch { .. }, _) => Some(StreamKind::AnnounceUp(reader, Box::default())),
            (Request::TrackInfo { .. }, _) => Some(StreamKind::TrackUp(reader)),
            (Request::Subscribe { .. }, _) => Some(StreamKind::SubscribeUp { reader, has_bound: false }),
            (Request::Fetch { group, .. }, Some(log)) => {
                let target = AppendTarget { log, sequence: *group, strand: FETCHED };
                Some(StreamKind::FetchUp(Box::new(GroupStream::fetched(self.version, target))))
            }
            _ => None,
        };
        let is_one_way = kind.is_none();
        if let Some(kind) = kind {
            self.streams.insert(stream, kind);
        }
        out.send(stream, message);
        if is_one_way {
            out.control.finish(out.t, stream);
            out.t.stop(stream, NO_ERROR);
        }
        Some(request_id(stream))
    }

    /// Updates a subscription of the relay.
    pub(crate) fn update<T: Transport>(
        &self,
        out: &mut Outbound<'_, T>,
        request: RequestId,
        update: PrefsUpdate,
    ) {
        if let Some(message) = self.encoder().update(update) {
            out.send(stream_of(request), message);
        }
    }

    /// Cancels a request of the relay. Returns the paths that were live on it.
    pub(crate) fn cancel<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        request: RequestId,
    ) -> Vec<Path> {
        let stream = stream_of(request);
        match self.streams.remove(stream) {
            None => Vec::new(),
            Some(StreamKind::AnnounceUp(_, mut receiver)) => {
                out.t.stop(stream, StreamCode::CANCEL);
                out.control.finish(out.t, stream);
                receiver.take_live()
            }
            Some(StreamKind::FetchUp(_)) => {
                out.t.stop(stream, StreamCode::CANCEL);
                out.control.reset(out.t, stream, StreamCode::CANCEL);
                Vec::new()
            }
            Some(_) => {
                out.t.stop(stream, NO_ERROR);
                out.control.finish(out.t, stream);
                Vec::new()
            }
        }
    }

    /// Replies to a request of the peer. A last reply ends its stream.
    pub(crate) fn reply<T: Transport>(
        &mut self,
        out: &mut Outbound<'_, T>,
        request: RequestId,
        reply: &Reply,
    ) {
        let stream = stream_of(request);
        if let Some(message) = self.encoder().reply(reply) {
            out.send(stream, message);
        }
        match *reply {
            Reply::Accepted { .. }
            | Reply::Started { .. }
            | Reply::Dropped { .. }
            | Reply::Measured { .. } => {
                return;
            }
            Reply::Info(_) | Reply::Ended { .. } | Reply::Finished => out.control.finish(out.t, stream),
            Reply::Refused { code } => out.control.reset(out.t, stream, code),
            Reply::Delivered => {}
        }
        if !self.streams.remove(stream).is_some_and(|kind| kind.has_ended()) {
            out.t.stop(stream, NO_ERROR);
        }
    }

    /// Forgets an announce on a request of the relay that is not stored.
    pub(crate) fn skip_announce(&mut self, request: RequestId, path: &Path) {
        if let Some(StreamKind::AnnounceUp(_, receiver)) = self.streams.get_mut(stream_of(request)) {
            receiver.skip(path);
        }
    }

    /// Refuses the group streams of a closed track.
    pub(crate) fn drop_groups<T: Transport>(&mut self, t: &mut T, log: LogId) {
        self.streams.retain(|stream, kind| {
            let StreamKind::Group(group) = kind else { return true };
            let is_over = group.target().is_some_and(|target| target.log == log);
            if is_over {
                t.stop(stream, StreamCode::CANCEL);
            }
            !is_over
        });
    }

    /// Parses a media datagram. `None`: it is malformed, or the version has none.
    pub(crate) fn datagram(&self, bytes: Bytes) -> Option<IncomingDatagram> {
        if !self.version.has_timestamps() {
            return None;
        }
        let datagram = lite::Datagram::decode(self.version, bytes).ok()?;
        let tick = i64::try_from(datagram.tick).ok()?;
        let (alias, group) = (datagram.subscribe, datagram.sequence);
        Some(IncomingDatagram { alias, group, tick, payload: datagram.payload })
    }
}

/// Reads the type of a unidirectional stream, one byte at a time, so that group bytes stay in the transport.
fn read_header<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    version: Version,
    handshake: &mut Handshake,
    kind: &mut StreamKind,
) -> StreamStep {
    let StreamKind::Header(reader) = kind else { return StreamStep::Done };
    let id = loop {
        if let Some(id) = reader.buffer.next_varint() {
            break id;
        }
        io.work.take(work::READ);
        match io.t.read(stream, 1) {
            Ok(Some(byte)) => reader.buffer.push(&byte),
            Err(ReadError::Blocked) => return StreamStep::Blocked,
            Ok(None) | Err(ReadError::Reset(_) | ReadError::Gone) => return StreamStep::Done,
        }
    };
    match UniType::from_id(version, id) {
        Some(UniType::Setup) if !handshake.begin_setup() => {
            StreamStep::Last(crate::request::Incoming::Violation("duplicate SETUP stream".to_owned()))
        }
        Some(UniType::Setup) => {
            *kind = StreamKind::Setup(std::mem::take(reader));
            StreamStep::Again
        }
        Some(UniType::Group) => {
            *kind = StreamKind::Group(Box::new(GroupStream::new(version)));
            StreamStep::Again
        }
        None => {
            io.t.stop(stream, NO_ERROR);
            StreamStep::Done
        }
    }
}

/// Whether the type or request of a stream has not been read yet.
fn waits_for_header(streams: &StreamTable<StreamKind>, stream: Stream) -> bool {
    matches!(streams.get(stream), Some(StreamKind::Request(..) | StreamKind::Header(_)))
}

/// A request is the stream it is made on.
fn request_id(stream: Stream) -> RequestId {
    RequestId(stream.0)
}

pub(crate) fn stream_of(request: RequestId) -> Stream {
    Stream(request.0)
}

#[cfg(test)]
mod tests;
