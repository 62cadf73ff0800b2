//! Reading of the streams that do not belong to the session, step by step.

use bytes::Bytes;
use quinn_proto::{Connection, Dir, ReadError, StreamId};
use relay_model::SessionCode;
use web_transport_proto::{Frame, Setting, Settings, SettingsError, VarInt, http::StatusCode};

use super::{
    DISCARD_BYTES, End, Http, PIECE, Peer, REQUEST_BYTES, REQUESTS, Role, SETTINGS_BYTES, Step, abandon,
    capsule::Reader,
    head::{self, Head, Kind},
    request,
};
use crate::quic::code::h3;

// Unidirectional stream types (RFC 9114 §6.2.1, RFC 9204 §4.2).
const CONTROL_STREAM: u64 = 0x00;
const QPACK_ENCODER: u64 = 0x02;
const QPACK_DECODER: u64 = 0x03;

/// Result of a read.
enum Piece {
    Bytes(Bytes),
    Blocked,
    Fin,
    Gone,
}

impl Http {
    /// Reads a stream once, according to its role.
    pub(super) fn step(&mut self, quic: &mut Connection, id: StreamId, role: Role) -> Step {
        match role {
            Role::Nascent(head) => self.nascent(quic, id, head),
            Role::Held(session) => Step::Keep(Role::Held(session)),
            Role::Control(bytes) => self.control(quic, id, bytes),
            Role::Discard(count) => self.discard(quic, id, count),
            Role::Request(bytes) => self.request(quic, id, bytes),
            Role::Waiting(request, rest) => Step::Keep(Role::Waiting(request, rest)),
            Role::Session(reader) => self.capsules(quic, id, reader),
        }
    }

    fn nascent(&mut self, quic: &mut Connection, id: StreamId, mut head: Head) -> Step {
        let session_type = if id.dir() == Dir::Bi { head::BIDI } else { head::UNI };
        let Some(kind) = head.kind(session_type) else {
            return match read(quic, id, head.missing(session_type).max(1)) {
                Piece::Bytes(bytes) => {
                    head.push(&bytes);
                    Step::Again(Role::Nascent(head))
                }
                Piece::Blocked => Step::Keep(Role::Nascent(head)),
                Piece::Fin | Piece::Gone => {
                    abandon(quic, id, h3::REQUEST_INCOMPLETE);
                    Step::Drop
                }
            };
        };
        match kind {
            Kind::Session(session) => self.belongs(quic, id, session),
            Kind::Other(_) if id.dir() == Dir::Bi => {
                let reading = |role: &Role| matches!(role, Role::Request(_) | Role::Waiting(..));
                if self.roles.iter().filter(|(_, role)| reading(role)).count() >= REQUESTS {
                    abandon(quic, id, h3::REQUEST_REJECTED);
                    return Step::Drop;
                }
                Step::Again(Role::Request(head.bytes().to_vec()))
            }
            Kind::Other(CONTROL_STREAM) if self.control_seen => {
                self.violation(h3::STREAM_CREATION, "second control stream");
                Step::Drop
            }
            Kind::Other(CONTROL_STREAM) => {
                self.control_seen = true;
                Step::Again(Role::Control(head.bytes().to_vec()))
            }
            Kind::Other(QPACK_ENCODER | QPACK_DECODER) => Step::Again(Role::Discard(0)),
            Kind::Other(_) => {
                abandon(quic, id, h3::STREAM_CREATION);
                Step::Drop
            }
        }
    }

    fn belongs(&mut self, quic: &mut Connection, id: StreamId, session: u64) -> Step {
        match &self.session {
            Some(open) if u64::from(open.id) == session => Step::Ours,
            None => Step::Keep(Role::Held(session)),
            Some(_) => {
                abandon(quic, id, h3::BUFFERED_STREAM_REJECTED);
                Step::Drop
            }
        }
    }

    fn control(&mut self, quic: &mut Connection, id: StreamId, mut bytes: Vec<u8>) -> Step {
        match Settings::decode(&mut bytes.as_slice()) {
            Ok(settings) => {
                let on = |setting| settings.get(&setting).is_some_and(|value| value.into_inner() == 1);
                let datagrams = on(Setting::ENABLE_DATAGRAM) || on(Setting::ENABLE_DATAGRAM_DEPRECATED);
                self.peer = Some(Peer { datagrams });
                return Step::Again(Role::Discard(0));
            }
            Err(SettingsError::UnexpectedEnd) => {}
            Err(SettingsError::UnexpectedFrame(_)) => {
                self.violation(h3::MISSING_SETTINGS, "control stream without settings");
                return Step::Drop;
            }
            Err(_) => {
                self.violation(h3::SETTINGS, "malformed settings");
                return Step::Drop;
            }
        }
        let room = SETTINGS_BYTES.saturating_sub(bytes.len());
        if room == 0 {
            self.violation(h3::EXCESSIVE_LOAD, "settings too long");
            return Step::Drop;
        }
        match read(quic, id, room) {
            Piece::Bytes(more) => {
                bytes.extend_from_slice(&more);
                Step::Again(Role::Control(bytes))
            }
            Piece::Blocked => Step::Keep(Role::Control(bytes)),
            Piece::Fin | Piece::Gone => {
                self.violation(h3::MISSING_SETTINGS, "control stream ended early");
                Step::Drop
            }
        }
    }

    fn discard(&mut self, quic: &mut Connection, id: StreamId, count: usize) -> Step {
        if count > DISCARD_BYTES {
            self.violation(h3::EXCESSIVE_LOAD, "excess data on a control stream");
            return Step::Drop;
        }
        match read(quic, id, PIECE) {
            Piece::Bytes(bytes) => Step::Again(Role::Discard(count.saturating_add(bytes.len()))),
            Piece::Blocked => Step::Keep(Role::Discard(count)),
            Piece::Fin | Piece::Gone => Step::Drop,
        }
    }

    fn request(&mut self, quic: &mut Connection, id: StreamId, mut bytes: Vec<u8>) -> Step {
        match field_section(&bytes) {
            Section::Here(section, rest) => {
                return match request::parse(section) {
                    Ok(request) => {
                        let rest = rest.to_vec();
                        Step::Keep(Role::Waiting(request, rest))
                    }
                    Err(status) => self.refuse(quic, id, status),
                };
            }
            Section::Missing if bytes.len() < REQUEST_BYTES => {}
            Section::Missing => return self.refuse(quic, id, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Section::Unexpected => return self.refuse(quic, id, StatusCode::BAD_REQUEST),
        }
        match read(quic, id, REQUEST_BYTES.saturating_sub(bytes.len())) {
            Piece::Bytes(more) => {
                bytes.extend_from_slice(&more);
                Step::Again(Role::Request(bytes))
            }
            Piece::Blocked => Step::Keep(Role::Request(bytes)),
            Piece::Fin | Piece::Gone => {
                abandon(quic, id, h3::REQUEST_INCOMPLETE);
                Step::Drop
            }
        }
    }

    fn capsules(&mut self, quic: &mut Connection, id: StreamId, mut reader: Reader) -> Step {
        let end = match read(quic, id, PIECE) {
            Piece::Bytes(bytes) => match reader.push(&bytes) {
                None => return Step::Again(Role::Session(reader)),
                Some(close) => End::ByPeer(SessionCode(close.code), close.reason),
            },
            Piece::Blocked => return Step::Keep(Role::Session(reader)),
            Piece::Fin => End::ByPeer(SessionCode::NONE, String::new()),
            Piece::Gone => End::Lost("peer reset the connect stream"),
        };
        self.end = self.end.take().or(Some(end));
        Step::Drop
    }
}

/// First HEADERS frame of a request.
enum Section<'a> {
    /// Its body, and the bytes after it.
    Here(&'a [u8], &'a [u8]),
    Missing,
    Unexpected,
}

fn field_section(mut rest: &[u8]) -> Section<'_> {
    loop {
        let kind = Frame::decode(&mut rest);
        let len = VarInt::decode(&mut rest);
        let (Ok(kind), Ok(len)) = (kind, len) else { return Section::Missing };
        if [Frame::DATA, Frame::SETTINGS, Frame::WEBTRANSPORT].contains(&kind) {
            return Section::Unexpected;
        }
        let body = usize::try_from(len.into_inner()).ok().and_then(|len| rest.split_at_checked(len));
        let Some((body, after)) = body else { return Section::Missing };
        if kind == Frame::HEADERS {
            return Section::Here(body, after);
        }
        rest = after;
    }
}

fn read(quic: &mut Connection, id: StreamId, max: usize) -> Piece {
    let mut stream = quic.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return Piece::Gone };
    match chunks.next(max) {
        Ok(Some(chunk)) => Piece::Bytes(chunk.bytes),
        Ok(None) => Piece::Fin,
        Err(ReadError::Blocked) => Piece::Blocked,
        Err(ReadError::Reset(_)) => Piece::Gone,
    }
}
