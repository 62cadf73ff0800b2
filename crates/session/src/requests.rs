//! Requests on the peer's streams, and their dispatch.

use relay_model::{
    Ask, Hop, Prefs, StreamCode, limits,
    transport::{ReadError, Stream, Transport},
};
use relay_wire::{
    DecodeError,
    lite::{self, BidiType, UniType},
};

use crate::{
    control_stream::ControlStreamReader,
    ingest::Ingest,
    probe,
    session::{Cx, Session, SessionOutput, StreamKind},
    sub::RequestKind,
    work,
};

/// Code of a STOP_SENDING after everything needed was read.
pub(crate) const NO_ERROR: StreamCode = StreamCode::INTERNAL;
/// Result of reading a stream.
pub(crate) enum ReadOutcome {
    /// The stream stays open, with this role.
    Keep(StreamKind),
    /// The stream needs no further handling.
    Done,
}

/// A completely received request of the peer.
enum PeerRequest {
    Announce(lite::AnnounceRequest),
    Subscribe(lite::Subscribe),
    Track(lite::TrackRequest),
    Fetch(lite::Fetch),
    Probe,
    Goaway,
}

impl Session {
    /// Continues to read a stream, according to its role.
    pub(crate) fn readable<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, stream: Stream) {
        let Some(role) = self.streams.remove(&stream) else { return };
        let next = match role {
            StreamKind::Group(ingest) => self.read_group(t, cx, stream, ingest),
            StreamKind::Request(reader, kind) => self.read_request(t, cx, stream, reader, kind),
            StreamKind::Header(reader) => self.read_header(t, cx, stream, reader),
            StreamKind::Setup(reader) => self.read_setup(t, cx, stream, reader),
            StreamKind::ClientSetup(reader) => self.read_client_setup(t, cx, stream, reader),
            StreamKind::Session(reader) => self.read_session(t, cx, stream, reader),
            StreamKind::Watch(reader) => self.read_watch(t, cx, stream, reader),
            StreamKind::Sub(sub, reader) => self.read_sub(t, cx, stream, sub, reader),
            StreamKind::AnnounceUp(reader, receiver) => self.read_announces(t, cx, stream, reader, receiver),
            StreamKind::TrackUp(reader, log) => self.read_track_up(t, cx, stream, reader, log),
            StreamKind::SubscribeUp(reader, log) => self.read_subscribe_up(t, cx, stream, reader, log),
            StreamKind::FetchUp(ingest) => self.read_fetch_up(t, cx, stream, ingest),
            StreamKind::Probe(reader) => self.read_probe(t, cx, stream, reader),
            StreamKind::SendOnly => ReadOutcome::Done,
        };
        if let ReadOutcome::Keep(role) = next {
            self.streams.insert(stream, role);
            // Reading may have stopped because the budget was spent.
            if cx.work.is_spent() && !self.unread.contains(&stream) {
                self.unread.push_back(stream);
            }
        }
    }

    /// Handles STOP_SENDING on one of our sending sides.
    pub(crate) fn stopped<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        code: StreamCode,
    ) {
        match self.streams.get(&stream) {
            Some(StreamKind::Watch(_)) => {
                self.drop_watch(cx, stream);
                self.control.reset(t, stream, code);
                self.forget(t, stream);
            }
            Some(StreamKind::Probe(_)) => {
                self.probes.remove(stream);
                self.control.reset(t, stream, code);
                self.forget(t, stream);
            }
            Some(StreamKind::Sub(sub, _)) => {
                // A peer that stops reading the response has no use for it; a stopped stream lives until it is
                // reset.
                let sub = *sub;
                self.drop_sub(t, cx, sub);
                self.control.reset(t, stream, code);
                self.forget(t, stream);
            }
            // Ending this stream would end the session.
            Some(StreamKind::ClientSetup(_) | StreamKind::Session(_)) => {}
            Some(_) => self.control.reset(t, stream, code),
            None => {
                let over = self.with_egress(t, cx, |egress, out| egress.stopped(out, stream, code));
                self.finish_subs(t, cx, over);
            }
        }
    }

    fn read_request<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
        mut kind: Option<BidiType>,
    ) -> ReadOutcome {
        if self.opening.is_some() && kind.is_none() {
            return self.read_first(t, cx, stream, reader);
        }
        if !self.may_ask() || !self.pace.allows(cx.now) {
            self.hold_back(stream);
            return ReadOutcome::Keep(StreamKind::Request(reader, kind));
        }
        reader.fill(t, stream, cx.work);
        if kind.is_none()
            && let Some(id) = reader.buffer.next_varint()
        {
            kind = BidiType::from_id(self.config.version, id);
            if kind.is_none() {
                return refuse(t, cx, stream, StreamCode::CANCEL);
            }
        }
        let version = self.config.version;
        let parsed = match kind {
            None => Ok(None),
            Some(BidiType::Announce) => {
                reader.buffer.next(version).map(|message| message.map(PeerRequest::Announce))
            }
            Some(BidiType::Subscribe) => {
                reader.buffer.next(version).map(|message| message.map(PeerRequest::Subscribe))
            }
            Some(BidiType::Track) => {
                reader.buffer.next(version).map(|message| message.map(PeerRequest::Track))
            }
            Some(BidiType::Goaway) => reader
                .buffer
                .next::<lite::Goaway>(version)
                .map(|message| message.map(|_| PeerRequest::Goaway)),
            Some(BidiType::Fetch) => {
                reader.buffer.next(version).map(|message| message.map(PeerRequest::Fetch))
            }
            Some(BidiType::Probe) => Ok(Some(PeerRequest::Probe)),
        };
        let role = match parsed {
            Err(error) => return self.bad_request(t, cx, stream, &error),
            Ok(None) if reader.end().is_some() => return refuse(t, cx, stream, StreamCode::CANCEL),
            Ok(None) => return ReadOutcome::Keep(StreamKind::Request(reader, kind)),
            Ok(Some(asked)) => {
                self.pace.took(cx.now);
                cx.work.take(work::REQUEST);
                cx.work.take(self.egress.scan_units());
                self.begin(t, cx, stream, reader, asked)
            }
        };
        if let Some(role) = role {
            // More data may follow the request.
            self.streams.insert(stream, role);
            self.readable(t, cx, stream);
        }
        ReadOutcome::Done
    }

    /// Handles a request. Returns the stream's new role, if it stays in use.
    fn begin<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        reader: ControlStreamReader,
        asked: PeerRequest,
    ) -> Option<StreamKind> {
        match asked {
            PeerRequest::Announce(_) if self.watches.len() >= limits::ANNOUNCE_REQUESTS => {
                cx.meter.watches_limited += 1;
                refuse(t, cx, stream, StreamCode::EXCESSIVE_LOAD);
                None
            }
            PeerRequest::Announce(request) => {
                self.start_watch(t, cx, stream, &request);
                Some(StreamKind::Watch(reader))
            }
            PeerRequest::Subscribe(request) => {
                let wanted = (request.id, request.prefs, RequestKind::Live);
                let sub = self.start_sub(t, cx, stream, &request.broadcast, request.track, wanted)?;
                Some(StreamKind::Sub(sub, reader))
            }
            PeerRequest::Track(request) => {
                let wanted = (0, Prefs::default(), RequestKind::Info);
                let sub = self.start_sub(t, cx, stream, &request.broadcast, request.track, wanted)?;
                Some(StreamKind::Sub(sub, reader))
            }
            PeerRequest::Fetch(request) => {
                let sub = self.start_fetch(t, cx, stream, request)?;
                Some(StreamKind::Sub(sub, reader))
            }
            PeerRequest::Probe if t.stats().rtt.is_none() || self.probes.len() >= probe::PROBES => {
                refuse(t, cx, stream, StreamCode::NOT_FOUND);
                None
            }
            PeerRequest::Probe => {
                self.probes.add(stream, cx.now);
                self.probes.pump(t, &mut self.control, self.config.version, cx.now);
                Some(StreamKind::Probe(reader))
            }
            PeerRequest::Goaway => {
                // The peer closes the session itself; until then it is served, and its routes are the last
                // choice.
                if !std::mem::replace(&mut self.peer.draining, true) {
                    cx.meter.goaways_in += 1;
                    self.ask(cx, Ask::Draining);
                }
                self.control.finish(t, stream);
                t.stop(stream, NO_ERROR);
                None
            }
        }
    }

    fn read_probe<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
    ) -> ReadOutcome {
        reader.fill(t, stream, cx.work);
        if reader.end().is_none() && reader.buffer.is_empty() {
            return ReadOutcome::Keep(StreamKind::Probe(reader));
        }
        if reader.end().is_none() {
            t.stop(stream, NO_ERROR);
        }
        self.probes.remove(stream);
        self.control.finish(t, stream);
        ReadOutcome::Done
    }

    /// Handles a malformed request: exceeding a limit closes the session, other errors only the stream.
    pub(crate) fn bad_request<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        error: &DecodeError,
    ) -> ReadOutcome {
        match error {
            DecodeError::MessageTooLarge
            | DecodeError::Path(_)
            | DecodeError::TrackNameTooLong
            | DecodeError::TooManyHops
            | DecodeError::TooManyAnnounces
            | DecodeError::TooManyParameters
            | DecodeError::UriTooLong => {
                self.violation(t, cx, &error.to_string());
                ReadOutcome::Done
            }
            _ => refuse(t, cx, stream, StreamCode::CANCEL),
        }
    }

    /// Resets a stream whose type or request has not arrived in time.
    pub(crate) fn header_is_late<T: Transport>(&mut self, t: &mut T, stream: Stream) {
        let late = matches!(self.streams.get(&stream), Some(StreamKind::Request(..) | StreamKind::Header(_)))
            && !self.paused_streams.contains(&stream);
        if late {
            self.streams.remove(&stream);
            t.stop(stream, StreamCode::CONTROL_TIMEOUT);
            t.reset(stream, StreamCode::CONTROL_TIMEOUT);
        }
    }

    fn read_header<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
    ) -> ReadOutcome {
        // Reads one byte at a time up to the type, so that group bytes stay in the transport.
        let kind = loop {
            if let Some(kind) = reader.buffer.next_varint() {
                break kind;
            }
            cx.work.take(work::READ);
            match t.read(stream, 1) {
                Ok(Some(byte)) => reader.buffer.push(&byte),
                Ok(None) => return ReadOutcome::Done,
                Err(ReadError::Blocked) => return ReadOutcome::Keep(StreamKind::Header(reader)),
                Err(ReadError::Reset(_) | ReadError::Gone) => return ReadOutcome::Done,
            }
        };
        match UniType::from_id(self.config.version, kind) {
            Some(UniType::Setup) if std::mem::replace(&mut self.has_setup, true) => {
                self.violation(t, cx, "duplicate SETUP stream");
                ReadOutcome::Done
            }
            Some(UniType::Setup) => self.read_setup(t, cx, stream, reader),
            Some(UniType::Group) => {
                self.read_group(t, cx, stream, Box::new(Ingest::new(self.config.version)))
            }
            None => {
                t.stop(stream, NO_ERROR);
                ReadOutcome::Done
            }
        }
    }

    fn read_setup<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
    ) -> ReadOutcome {
        reader.fill(t, stream, cx.work);
        match reader.buffer.next::<lite::Setup>(self.config.version) {
            Ok(None) if reader.end().is_some() => {
                self.violation(t, cx, "truncated SETUP");
                ReadOutcome::Done
            }
            Ok(None) => ReadOutcome::Keep(StreamKind::Setup(reader)),
            Ok(Some(setup)) => {
                t.stop(stream, NO_ERROR);
                self.take_setup(t, cx, setup);
                ReadOutcome::Done
            }
            Err(error) => {
                cx.meter.violations += 1;
                self.close(t, cx.now, error.session_code(), &error.to_string());
                ReadOutcome::Done
            }
        }
    }
}

impl Session {
    /// Processes the peer's SETUP.
    fn take_setup<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, setup: lite::Setup) {
        self.peer.is_known = true;
        (self.peer.price, self.peer.role) = (setup.cost, setup.role);
        if setup.cost.is_some() {
            // Only relays declare a cost.
            self.know_relay();
        }
        self.check_role(t, cx);
        if self.is_over() {
            return;
        }
        if !self.config.has_url && self.grant.is_none() {
            cx.out
                .push(SessionOutput::Authorize { target: setup.path.unwrap_or_default(), role: setup.role });
        }
        if self.config.version.has_announce_ids() {
            self.peer.exclude = setup.hop.unwrap_or(Hop::ANONYMOUS);
            for watching in &mut self.watches {
                watching.exclude(self.peer.exclude);
            }
            if self.grant.is_some() {
                self.met(t, cx);
            }
        }
    }
}

/// Refuses a request: only its stream ends.
pub(crate) fn refuse<T: Transport>(
    t: &mut T,
    cx: &mut Cx<'_>,
    stream: Stream,
    code: StreamCode,
) -> ReadOutcome {
    cx.meter.requests_refused += 1;
    t.reset(stream, code);
    t.stop(stream, NO_ERROR);
    ReadOutcome::Done
}
