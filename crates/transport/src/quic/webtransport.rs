//! Server side of HTTP/3, limited to one WebTransport session: SETTINGS, one CONNECT, stream prefixes, the
//! close capsule (RFC 9114, RFC 9220, draft-ietf-webtrans-http3-13 with the SETTINGS of drafts 02 and 07, which
//! browsers use).
//!
//! Streams of the session pass through unchanged; only streams that do not (yet) belong to it have a [`H3StreamRole`]
//! here. All writes of this layer go through [`PendingPrefix`], since the peer's credit may not suffice.

mod capsule;
mod head;
mod request;
mod roles;

use bytes::Bytes;
use quinn_proto::{Connection, Dir, Side, StreamId, VarInt};
use relay_model::{SessionCode, transport::PRIORITY_CONTROL};
use relay_wire::Version;
use web_transport_proto::{ConnectResponse, Settings, http::StatusCode};

use self::{capsule::CapsuleReader, head::StreamHead, request::SessionRequest};
use super::{code::h3, versions::VersionSet};

/// Limit of streams that do not (yet) belong to the session: control, QPACK, CONNECT, requests being read,
/// streams that arrived before their CONNECT. More are rejected.
const SPARE_STREAMS: usize = 64;
/// Limit of requests being read at a time; browsers send one.
const REQUESTS: usize = 4;
/// Limit in bytes of one request: the advertised field section size, and some unknown frames before it.
const REQUEST_BYTES: usize = 20 * 1024;
/// Limit in bytes of the control stream up to the end of SETTINGS.
const SETTINGS_BYTES: usize = 4 * 1024;
/// Limit in bytes discarded of one control or QPACK stream, which are short without a dynamic table.
const DISCARD_BYTES: usize = 64 * 1024;
/// Bytes read at a time from a stream of this layer.
const PIECE: usize = 16 * 1024;

/// HTTP/3 layer of one connection.
pub(super) struct H3Layer {
    /// The peer's SETTINGS, once received.
    peer: Option<PeerSettings>,
    control_seen: bool,
    settings_sent: bool,
    session: Option<ConnectSession>,
    roles: Vec<(StreamId, H3StreamRole)>,
    owed: Vec<PendingPrefix>,
    /// Whether held streams may be released.
    releasing: bool,
    refused: bool,
    end: Option<ConnectEnd>,
    /// Protocol versions accepted as subprotocols.
    versions: VersionSet,
}

#[derive(Clone, Copy)]
struct PeerSettings {
    datagrams: bool,
}

/// Accepted CONNECT.
struct ConnectSession {
    id: StreamId,
    target: Box<str>,
    origin: Option<Box<str>>,
    protocol: &'static str,
}

/// End of the session.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum ConnectEnd {
    /// Closed by the peer.
    ByPeer(SessionCode, String),
    /// The CONNECT stream failed.
    Lost(&'static str),
    /// HTTP/3 violation by the peer: the connection is closed with this code.
    Violation(u32, &'static str),
}

/// Role of a stream that does not belong to the session.
enum H3StreamRole {
    /// Stream of unknown type.
    Nascent(StreamHead),
    /// Stream of a session whose CONNECT has not arrived (draft-ietf-webtrans-http3-13 §4.5).
    Held(u64),
    /// Control stream up to SETTINGS (RFC 9114 §6.2.1).
    Control(Vec<u8>),
    /// Stream whose data is discarded, with the bytes so far.
    Discard(usize),
    /// Request up to its field section.
    Request(Vec<u8>),
    /// Valid request that waits for the peer's SETTINGS, and the bytes after it.
    Waiting(SessionRequest, Vec<u8>),
    /// CONNECT stream.
    Session(CapsuleReader),
}

/// Bytes of this layer that must precede all other bytes of their stream.
struct PendingPrefix {
    id: StreamId,
    bytes: Bytes,
    fin: bool,
}

/// Result of reading a stream of this layer.
enum H3StreamStep {
    /// No more data now.
    Keep(H3StreamRole),
    /// Continue at once.
    Again(H3StreamRole),
    /// Drop the role.
    Drop,
    /// The stream belongs to the session.
    Ours,
}

impl H3Layer {
    /// Creates the layer of a new connection.
    pub(super) fn new(versions: VersionSet) -> Self {
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

    /// Raw path and query of the CONNECT.
    pub(super) fn target(&self) -> Option<&str> {
        self.session.as_ref().map(|session| &*session.target)
    }

    /// `origin` header of the CONNECT.
    pub(super) fn origin(&self) -> Option<&str> {
        self.session.as_ref()?.origin.as_deref()
    }

    /// Subprotocol, once a session is accepted.
    pub(super) fn protocol(&self) -> Option<&'static str> {
        self.session.as_ref().map(|session| session.protocol)
    }

    /// Returns whether a CONNECT was refused.
    pub(super) fn is_refused(&self) -> bool {
        self.refused
    }

    /// Returns whether the peer supports HTTP datagrams (RFC 9297 §2.1.1).
    pub(super) fn datagrams(&self) -> bool {
        self.peer.is_some_and(|peer| peer.datagrams)
    }

    /// Takes the end of the session; returned once.
    pub(super) fn take_end(&mut self) -> Option<ConnectEnd> {
        self.end.take()
    }

    /// Opens the control stream if it is not open yet, and writes owed bytes.
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

    /// Returns whether owed bytes must still precede the session's writes to `id`.
    pub(super) fn owes(&self, id: StreamId) -> bool {
        !self.owed.is_empty() && self.owed.iter().any(|owed| owed.id == id)
    }

    /// Finishes a stream whose prefix is still owed, with FIN after the prefix. Returns whether that applies.
    pub(super) fn finish_owed(&mut self, id: StreamId) -> bool {
        let owed = self.owed.iter_mut().find(|owed| owed.id == id);
        owed.map(|owed| owed.fin = true).is_some()
    }

    /// Drops the bytes owed to a stream that is being reset.
    pub(super) fn forget_owed(&mut self, id: StreamId) {
        self.owed.retain(|owed| owed.id != id);
    }

    /// Queues the prefix of a stream that the session opened.
    pub(super) fn opened(&mut self, quic: &mut Connection, id: StreamId) {
        let Some(session) = &self.session else { return };
        let stream_type = if id.dir() == Dir::Bi { head::BIDI } else { head::UNI };
        let bytes = head::prefix(stream_type, session.id.into());
        self.owe_as_is(quic, id, bytes, false);
    }

    /// Handles a stream opened by the peer; returns whether it already belongs to the session.
    pub(super) fn accepted(&mut self, quic: &mut Connection, id: StreamId) -> bool {
        if self.roles.len() >= SPARE_STREAMS {
            abandon(quic, id, h3::BUFFERED_STREAM_REJECTED);
            return false;
        }
        self.roles.push((id, H3StreamRole::Nascent(StreamHead::default())));
        self.readable(quic, id) == Some(true)
    }

    /// Handles a readable stream: `None` for a stream of the session, otherwise whether it now belongs to the
    /// session.
    pub(super) fn readable(&mut self, quic: &mut Connection, id: StreamId) -> Option<bool> {
        let index = self.roles.iter().position(|(other, _)| *other == id)?;
        let (_, mut role) = self.roles.swap_remove(index);
        let (kept, ours) = loop {
            match self.step(quic, id, role) {
                H3StreamStep::Again(next) => role = next,
                H3StreamStep::Keep(role) => break (Some(role), false),
                H3StreamStep::Drop => break (None, false),
                H3StreamStep::Ours => break (None, true),
            }
        };
        self.roles.extend(kept.map(|role| (id, role)));
        self.answer_waiting(quic);
        Some(ours)
    }

    /// Handles STOP_SENDING on a stream; returns whether it was a stream of this layer.
    pub(super) fn stopped(&mut self, quic: &mut Connection, id: StreamId) -> bool {
        if self.session.as_ref().is_some_and(|session| session.id == id) {
            self.end = self.end.take().or(Some(ConnectEnd::Lost("peer stopped the connect stream")));
            return true;
        }
        // Bytes owed on streams of the peer are responses; those on the session's own streams are prefixes.
        let answer = id.initiator() == Side::Client && self.owes(id);
        let ours = answer || self.roles.iter().any(|(other, _)| *other == id);
        if ours {
            abandon(quic, id, h3::NO_ERROR);
            self.forget_owed(id);
            self.roles.retain(|(other, _)| *other != id);
        }
        ours
    }

    /// Releases the next stream held for the accepted session; streams held for other sessions are rejected.
    pub(super) fn release(&mut self, quic: &mut Connection) -> Option<StreamId> {
        if !self.releasing {
            return None;
        }
        let session: u64 = self.session.as_ref()?.id.into();
        while let Some(index) = self.roles.iter().position(|(_, role)| matches!(role, H3StreamRole::Held(_)))
        {
            // Streams are reported in order of arrival.
            let (id, role) = self.roles.remove(index);
            match role {
                H3StreamRole::Held(of) if of == session => return Some(id),
                _ => abandon(quic, id, h3::BUFFERED_STREAM_REJECTED),
            }
        }
        self.releasing = false;
        None
    }

    /// Closes the session locally: the close capsule, then FIN (draft-ietf-webtrans-http3-13 §6).
    pub(super) fn close(&mut self, quic: &mut Connection, code: SessionCode, reason: &str) {
        if let Some(session) = &self.session {
            let id = session.id;
            self.owe(quic, id, capsule::close(code.0, reason), true);
        }
    }

    /// Returns whether `id` is the CONNECT stream.
    pub(super) fn is_session(&self, id: StreamId) -> bool {
        self.session.as_ref().is_some_and(|session| session.id == id)
    }

    /// Prefixes a datagram with the session's quarter stream id (RFC 9297 §2.1).
    pub(super) fn wrap(&self, payload: &[u8]) -> Option<Bytes> {
        let quarter = self.quarter()?;
        let mut out = Vec::with_capacity(payload.len().saturating_add(quarter.size()));
        quarter.encode(&mut out);
        out.extend_from_slice(payload);
        Some(out.into())
    }

    /// Returns the payload of a datagram; `None` if it is not of the session.
    pub(super) fn unwrap(&self, datagram: Bytes) -> Option<Bytes> {
        let mut rest: &[u8] = &datagram;
        let quarter = web_transport_proto::VarInt::decode(&mut rest).ok()?;
        let payload = datagram.slice(datagram.len().saturating_sub(rest.len())..);
        (Some(quarter) == self.quarter()).then_some(payload)
    }

    /// Number of bytes added by [`H3Layer::wrap`].
    pub(super) fn datagram_overhead(&self) -> usize {
        self.quarter().map_or(0, web_transport_proto::VarInt::size)
    }

    fn quarter(&self) -> Option<web_transport_proto::VarInt> {
        let id: u64 = self.session.as_ref()?.id.into();
        web_transport_proto::VarInt::from_u64(id / 4).ok()
    }

    /// Answers the requests that waited for the peer's SETTINGS.
    fn answer_waiting(&mut self, quic: &mut Connection) {
        while self.peer.is_some()
            && let Some(index) =
                self.roles.iter().position(|(_, role)| matches!(role, H3StreamRole::Waiting(..)))
        {
            let (id, role) = self.roles.swap_remove(index);
            let H3StreamRole::Waiting(request, rest) = role else { continue };
            if self.session.is_some() {
                // One session per connection, as advertised in SETTINGS.
                self.refuse(quic, id, StatusCode::NOT_FOUND);
                continue;
            }
            let spoken = |offer: &String| self.versions.named(offer.as_bytes());
            match request.protocols.iter().find_map(spoken) {
                Some(protocol) => self.accept(quic, id, request, protocol, &rest),
                // The version is negotiated in the session, by the legacy SETUP.
                None if request.protocols.is_empty() && self.versions.has_unnamed() => {
                    self.accept(quic, id, request, Version::LEGACY_ALPN, &rest);
                }
                None => {
                    // The same status as on WebSocket; clients then try their other transports.
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
        request: SessionRequest,
        protocol: &'static str,
        rest: &[u8],
    ) {
        let response = match request.protocols.is_empty() {
            true => ConnectResponse::OK,
            false => ConnectResponse::OK.with_protocol(protocol),
        };
        self.session = Some(ConnectSession {
            id,
            target: request.target.into(),
            origin: request.origin.map(Into::into),
            protocol,
        });
        self.releasing = true;
        self.refused = false;
        self.respond(quic, id, response, false);
        let mut reader = CapsuleReader::default();
        if let Some(close) = reader.push(rest) {
            self.end = Some(ConnectEnd::ByPeer(SessionCode(close.code), close.reason));
        }
        self.roles.push((id, H3StreamRole::Session(reader)));
        // Data received with the request raises no further event.
        self.readable(quic, id);
    }

    fn refuse(&mut self, quic: &mut Connection, id: StreamId, status: StatusCode) -> H3StreamStep {
        if self.owed.len() < SPARE_STREAMS {
            self.respond(quic, id, ConnectResponse::new(status), true);
            stop(quic, id, h3::NO_ERROR);
        } else {
            abandon(quic, id, h3::REQUEST_REJECTED);
        }
        H3StreamStep::Drop
    }

    fn respond(&mut self, quic: &mut Connection, id: StreamId, response: ConnectResponse, fin: bool) {
        let mut bytes = Vec::new();
        if response.encode(&mut bytes).is_err() {
            debug_assert!(false, "own responses can be encoded");
        }
        self.owe(quic, id, bytes, fin);
    }

    fn owe(&mut self, quic: &mut Connection, id: StreamId, bytes: Vec<u8>, fin: bool) {
        let _ = quic.send_stream(id).set_priority(PRIORITY_CONTROL.saturating_add(1));
        self.owe_as_is(quic, id, bytes, fin);
    }

    fn owe_as_is(&mut self, quic: &mut Connection, id: StreamId, bytes: Vec<u8>, fin: bool) {
        let mut owed = PendingPrefix { id, bytes: bytes.into(), fin };
        // Keep the order with bytes already owed on the same stream.
        if self.owes(id) || !owed.pay(quic) {
            self.owed.push(owed);
        }
    }

    fn violation(&mut self, code: u32, reason: &'static str) {
        self.end = self.end.take().or(Some(ConnectEnd::Violation(code, reason)));
    }
}

impl PendingPrefix {
    /// Writes as much as the peer's credit allows; returns whether nothing is left to do.
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
            // Fails only if the peer has stopped the stream.
            let _ = stream.finish();
        }
        true
    }
}

fn stop(quic: &mut Connection, id: StreamId, code: u32) {
    // Fails if the peer's side has ended already.
    let _ = quic.recv_stream(id).stop(VarInt::from_u32(code));
}

/// Rejects both directions of a stream opened by the peer.
fn abandon(quic: &mut Connection, id: StreamId, code: u32) {
    debug_assert_eq!(id.initiator(), Side::Client);
    stop(quic, id, code);
    if id.dir() == Dir::Bi {
        // Fails if it has ended already.
        let _ = quic.send_stream(id).reset(VarInt::from_u32(code));
    }
}

#[cfg(test)]
mod tests;
