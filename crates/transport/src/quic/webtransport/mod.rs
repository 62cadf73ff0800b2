//! The server's side of HTTP/3 as far as one WebTransport session needs it: SETTINGS, one CONNECT,
//! stream prefixes, the close capsule (RFC 9114, RFC 9220, draft-ietf-webtrans-http3).
//!
//! Streams of the session pass through untouched; only what is not (yet) the session's has a
//! [`Role`] here. Every write of ours goes through [`Owed`], since the peer's credit may refuse it.

mod capsule;
mod head;
mod request;
mod roles;

use bytes::Bytes;
use quinn_proto::{Connection, Dir, Side, StreamId, VarInt};
use relay_model::SessionCode;
use relay_session::transport::PRIORITY_CONTROL;
use relay_wire::lite;
use web_transport_proto::{ConnectResponse, Settings, http::StatusCode};

use self::{capsule::Reader, head::Head, request::Request};
use super::{code::h3, versions::Versions};

/// Streams that are not (yet) the session's: control, QPACK, CONNECT, requests being read, streams
/// that came before their CONNECT. Past it new ones are rejected.
const SPARE_STREAMS: usize = 64;
/// Requests being read at once; browsers have one.
const REQUESTS: usize = 4;
/// Bytes of one request: the field section we advertise, and some unknown frames before it.
const REQUEST_BYTES: usize = 20 * 1024;
/// Bytes of the control stream up to the end of SETTINGS.
const SETTINGS_BYTES: usize = 4 * 1024;
/// Bytes discarded of one control or QPACK stream: without a dynamic table they have little to say.
const DISCARD_BYTES: usize = 64 * 1024;
/// Bytes read at once from a stream of ours.
const PIECE: usize = 16 * 1024;

/// HTTP/3 of one connection.
pub(super) struct Http {
    /// The peer's SETTINGS, once seen.
    peer: Option<Peer>,
    control_seen: bool,
    settings_sent: bool,
    session: Option<Session>,
    roles: Vec<(StreamId, Role)>,
    owed: Vec<Owed>,
    /// Held streams may be released.
    releasing: bool,
    refused: bool,
    end: Option<End>,
    /// Offered to clients as subprotocols.
    versions: Versions,
}

#[derive(Clone, Copy)]
struct Peer {
    datagrams: bool,
}

/// The accepted CONNECT.
struct Session {
    id: StreamId,
    target: Box<str>,
    origin: Option<Box<str>>,
    protocol: &'static str,
}

/// Why the session is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// The peer closed it.
    ByPeer(SessionCode, String),
    /// The CONNECT stream broke.
    Lost(&'static str),
    /// The peer broke HTTP/3: close the connection with this code.
    Violation(u32, &'static str),
}

/// What a stream that is not the session's is for.
enum Role {
    /// Its type is not known yet.
    Nascent(Head),
    /// A session's, whose CONNECT has not come.
    Held(u64),
    /// The control stream up to SETTINGS.
    Control(Vec<u8>),
    /// Read and forgotten; bytes so far.
    Discard(usize),
    /// A request up to its field section.
    Request(Vec<u8>),
    /// A good request that waits for SETTINGS, and what followed it.
    Waiting(Request, Vec<u8>),
    /// The CONNECT stream.
    Session(Reader),
}

/// Bytes of ours that must precede all others of their stream.
struct Owed {
    id: StreamId,
    bytes: Bytes,
    fin: bool,
}

/// What reading a stream of ours gave.
enum Step {
    /// Nothing more now.
    Keep(Role),
    /// Go on at once.
    Again(Role),
    /// It is none of our business any more.
    Drop,
    /// It belongs to the session.
    Ours,
}

impl Http {
    /// Nothing said or heard yet.
    pub(super) fn new(versions: Versions) -> Self {
        Self {
            peer: None,
            control_seen: false,
            settings_sent: false,
            session: None,
            roles: Vec::new(),
            owed: Vec::new(),
            releasing: false,
            refused: false,
            end: None,
            versions,
        }
    }

    /// Path and query of the CONNECT.
    pub(super) fn target(&self) -> Option<&str> {
        self.session.as_ref().map(|session| &*session.target)
    }

    /// The `origin` header of the CONNECT.
    pub(super) fn origin(&self) -> Option<&str> {
        self.session.as_ref()?.origin.as_deref()
    }

    /// The subprotocol, once a session is accepted.
    pub(super) fn protocol(&self) -> Option<&'static str> {
        self.session.as_ref().map(|session| session.protocol)
    }

    /// Whether a CONNECT was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Whether the peer takes HTTP datagrams.
    pub(super) fn datagrams(&self) -> bool {
        self.peer.is_some_and(|peer| peer.datagrams)
    }

    /// Why the session is over, once.
    pub(super) fn take_end(&mut self) -> Option<End> {
        self.end.take()
    }

    /// Opens the control stream if that was not possible before, and writes what is owed.
    pub(super) fn flush(&mut self, quic: &mut Connection) {
        if !self.settings_sent
            && let Some(id) = quic.streams().open(Dir::Uni)
        {
            let mut settings = Settings::default();
            settings.enable_webtransport(1);
            let mut bytes = Vec::new();
            settings.encode(&mut bytes);
            self.settings_sent = true;
            self.owe(quic, id, bytes, false);
        }
        self.owed.retain_mut(|owed| !owed.pay(quic));
    }

    /// Whether bytes of ours must still precede what the session writes to `id`.
    pub(super) fn owes(&self, id: StreamId) -> bool {
        !self.owed.is_empty() && self.owed.iter().any(|owed| owed.id == id)
    }

    /// The session's end of a stream whose prefix is still owed: FIN follows the prefix. Whether
    /// that was so.
    pub(super) fn finish_owed(&mut self, id: StreamId) -> bool {
        let owed = self.owed.iter_mut().find(|owed| owed.id == id);
        owed.map(|owed| owed.fin = true).is_some()
    }

    /// Forgets what is owed to a stream that is being reset.
    pub(super) fn forget_owed(&mut self, id: StreamId) {
        self.owed.retain(|owed| owed.id != id);
    }

    /// A stream the session opened: its prefix goes first.
    pub(super) fn opened(&mut self, quic: &mut Connection, id: StreamId) {
        let Some(session) = &self.session else { return };
        let stream_type = if id.dir() == Dir::Bi { head::BIDI } else { head::UNI };
        let bytes = head::prefix(stream_type, session.id.into());
        self.owe_as_is(quic, id, bytes, false);
    }

    /// A stream the peer opened. Whether it is the session's already.
    pub(super) fn accepted(&mut self, quic: &mut Connection, id: StreamId) -> bool {
        if self.roles.len() >= SPARE_STREAMS {
            abandon(quic, id, h3::BUFFERED_STREAM_REJECTED);
            return false;
        }
        self.roles.push((id, Role::Nascent(Head::default())));
        self.readable(quic, id) == Some(true)
    }

    /// A stream has something to read: `None` when it is not ours but the session's, else whether
    /// it has just become the session's.
    pub(super) fn readable(&mut self, quic: &mut Connection, id: StreamId) -> Option<bool> {
        let index = self.roles.iter().position(|(other, _)| *other == id)?;
        let (_, mut role) = self.roles.swap_remove(index);
        let (kept, ours) = loop {
            match self.step(quic, id, role) {
                Step::Again(next) => role = next,
                Step::Keep(role) => break (Some(role), false),
                Step::Drop => break (None, false),
                Step::Ours => break (None, true),
            }
        };
        self.roles.extend(kept.map(|role| (id, role)));
        self.answer_waiting(quic);
        Some(ours)
    }

    /// The peer stopped a stream. Whether it was one of ours.
    pub(super) fn stopped(&mut self, quic: &mut Connection, id: StreamId) -> bool {
        if self.session.as_ref().is_some_and(|session| session.id == id) {
            self.end = self.end.take().or(Some(End::Lost("peer stopped the connect stream")));
            return true;
        }
        // Streams of the peer are owed answers only; the session's own are owed prefixes.
        let answer = id.initiator() == Side::Client && self.owes(id);
        let ours = answer || self.roles.iter().any(|(other, _)| *other == id);
        if ours {
            abandon(quic, id, h3::NO_ERROR);
            self.forget_owed(id);
            self.roles.retain(|(other, _)| *other != id);
        }
        ours
    }

    /// Next stream that was held for the session just accepted; those of others are rejected.
    pub(super) fn release(&mut self, quic: &mut Connection) -> Option<StreamId> {
        if !self.releasing {
            return None;
        }
        let session: u64 = self.session.as_ref()?.id.into();
        while let Some(index) = self.roles.iter().position(|(_, role)| matches!(role, Role::Held(_))) {
            // Order is kept: streams are told as they came.
            let (id, role) = self.roles.remove(index);
            match role {
                Role::Held(of) if of == session => return Some(id),
                _ => abandon(quic, id, h3::BUFFERED_STREAM_REJECTED),
            }
        }
        self.releasing = false;
        None
    }

    /// Ends the session from our side: the capsule, then FIN.
    pub(super) fn close(&mut self, quic: &mut Connection, code: SessionCode, reason: &str) {
        if let Some(session) = &self.session {
            let id = session.id;
            self.owe(quic, id, capsule::close(code.0, reason), true);
        }
    }

    /// Whether `id` is the CONNECT stream.
    pub(super) fn is_session(&self, id: StreamId) -> bool {
        self.session.as_ref().is_some_and(|session| session.id == id)
    }

    /// The datagram with the session's quarter stream id in front.
    pub(super) fn wrap(&self, payload: &[u8]) -> Option<Bytes> {
        let quarter = self.quarter()?;
        let mut out = Vec::with_capacity(payload.len().saturating_add(quarter.size()));
        quarter.encode(&mut out);
        out.extend_from_slice(payload);
        Some(out.into())
    }

    /// The payload of a datagram of the session.
    pub(super) fn unwrap(&self, datagram: Bytes) -> Option<Bytes> {
        let mut rest: &[u8] = &datagram;
        let quarter = web_transport_proto::VarInt::decode(&mut rest).ok()?;
        let payload = datagram.slice(datagram.len().saturating_sub(rest.len())..);
        (Some(quarter) == self.quarter()).then_some(payload)
    }

    /// What [`Http::wrap`] adds, bytes.
    pub(super) fn datagram_overhead(&self) -> usize {
        self.quarter().map_or(0, web_transport_proto::VarInt::size)
    }

    fn quarter(&self) -> Option<web_transport_proto::VarInt> {
        let id: u64 = self.session.as_ref()?.id.into();
        web_transport_proto::VarInt::from_u64(id / 4).ok()
    }

    /// Answers requests that waited for SETTINGS.
    fn answer_waiting(&mut self, quic: &mut Connection) {
        while self.peer.is_some()
            && let Some(index) = self.roles.iter().position(|(_, role)| matches!(role, Role::Waiting(..)))
        {
            let (id, role) = self.roles.swap_remove(index);
            let Role::Waiting(request, rest) = role else { continue };
            if self.session.is_some() {
                // One session a connection: SETTINGS said so.
                self.refuse(quic, id, StatusCode::NOT_FOUND);
                continue;
            }
            let spoken = |offer: &String| self.versions.named(offer.as_bytes());
            match request.protocols.iter().find_map(spoken) {
                Some(protocol) => self.accept(quic, id, request, protocol, &rest),
                // What is spoken then is agreed on in the session.
                None if request.protocols.is_empty() && self.versions.has_unnamed() => {
                    self.accept(quic, id, request, lite::legacy::ALPN, &rest);
                }
                None => {
                    // The answer the WebSocket entrance gives: clients try what else they have.
                    self.refused = true;
                    self.refuse(quic, id, StatusCode::BAD_REQUEST);
                }
            }
        }
    }

    fn accept(
        &mut self,
        quic: &mut Connection,
        id: StreamId,
        request: Request,
        protocol: &'static str,
        rest: &[u8],
    ) {
        let response = match request.protocols.is_empty() {
            true => ConnectResponse::OK,
            false => ConnectResponse::OK.with_protocol(protocol),
        };
        self.session = Some(Session {
            id,
            target: request.target.into(),
            origin: request.origin.map(Into::into),
            protocol,
        });
        self.releasing = true;
        self.refused = false;
        self.respond(quic, id, response, false);
        let mut reader = Reader::default();
        if let Some(close) = reader.push(rest) {
            self.end = Some(End::ByPeer(SessionCode(close.code), close.reason));
        }
        self.roles.push((id, Role::Session(reader)));
        // What came with the request has had its event already.
        self.readable(quic, id);
    }

    fn refuse(&mut self, quic: &mut Connection, id: StreamId, status: StatusCode) -> Step {
        if self.owed.len() < SPARE_STREAMS {
            self.respond(quic, id, ConnectResponse::new(status), true);
            stop(quic, id, h3::NO_ERROR);
        } else {
            abandon(quic, id, h3::REQUEST_REJECTED);
        }
        Step::Drop
    }

    fn respond(&mut self, quic: &mut Connection, id: StreamId, response: ConnectResponse, fin: bool) {
        let mut bytes = Vec::new();
        if response.encode(&mut bytes).is_err() {
            debug_assert!(false, "our own answers can be encoded");
        }
        self.owe(quic, id, bytes, fin);
    }

    fn owe(&mut self, quic: &mut Connection, id: StreamId, bytes: Vec<u8>, fin: bool) {
        let _ = quic.send_stream(id).set_priority(PRIORITY_CONTROL.saturating_add(1));
        self.owe_as_is(quic, id, bytes, fin);
    }

    fn owe_as_is(&mut self, quic: &mut Connection, id: StreamId, bytes: Vec<u8>, fin: bool) {
        let mut owed = Owed { id, bytes: bytes.into(), fin };
        // In order behind what the same stream is owed already.
        if self.owes(id) || !owed.pay(quic) {
            self.owed.push(owed);
        }
    }

    fn violation(&mut self, code: u32, reason: &'static str) {
        self.end = self.end.take().or(Some(End::Violation(code, reason)));
    }
}

impl Owed {
    /// Writes what the peer's credit allows; whether nothing is left to do.
    fn pay(&mut self, quic: &mut Connection) -> bool {
        let mut stream = quic.send_stream(self.id);
        while !self.bytes.is_empty() {
            match stream.write_chunks(std::slice::from_mut(&mut self.bytes)) {
                Ok(_) => {}
                Err(quinn_proto::WriteError::Blocked) => return false,
                Err(_) => return true,
            }
        }
        if self.fin {
            // Refused only where the peer has stopped the stream.
            let _ = stream.finish();
        }
        true
    }
}

fn stop(quic: &mut Connection, id: StreamId, code: u32) {
    // Fails where the peer's side has ended already.
    let _ = quic.recv_stream(id).stop(VarInt::from_u32(code));
}

/// Both directions of a stream of the peer that nobody wants.
fn abandon(quic: &mut Connection, id: StreamId, code: u32) {
    debug_assert_eq!(id.initiator(), Side::Client);
    stop(quic, id, code);
    if id.dir() == Dir::Bi {
        // Fails where it has ended already.
        let _ = quic.send_stream(id).reset(VarInt::from_u32(code));
    }
}
