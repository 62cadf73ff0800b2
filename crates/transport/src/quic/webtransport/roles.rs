//! Reading of the streams that do not belong to the session, step by step.

use bytes::Bytes;
use quinn_proto::{Connection, Dir, ReadError, StreamId};
use relay_model::SessionCode;
use web_transport_proto::{Frame, Setting, Settings, SettingsError, VarInt, http::StatusCode};

use super::{
    ConnectEnd, DISCARD_BYTES, H3Layer, H3StreamRole, H3StreamStep, PIECE, PeerSettings, REQUEST_BYTES,
    REQUESTS, SETTINGS_BYTES, abandon,
    capsule::CapsuleReader,
    head::{self, H3StreamKind, StreamHead},
    request,
};
use crate::quic::code::h3;

// Unidirectional stream types (RFC 9114 §6.2.1, RFC 9204 §4.2).
const CONTROL_STREAM: u64 = 0x00;
const QPACK_ENCODER: u64 = 0x02;
const QPACK_DECODER: u64 = 0x03;

/// Result of a read.
enum H3StreamRead {
    Bytes(Bytes),
    Blocked,
    Fin,
    Gone,
}

impl H3Layer {
    /// Reads a stream once, according to its role.
    pub(super) fn step(&mut self, quic: &mut Connection, id: StreamId, role: H3StreamRole) -> H3StreamStep {
        match role {
            H3StreamRole::Nascent(head) => self.nascent(quic, id, head),
            H3StreamRole::Held(session) => H3StreamStep::Keep(H3StreamRole::Held(session)),
            H3StreamRole::Control(bytes) => self.control(quic, id, bytes),
            H3StreamRole::Discard(count) => self.discard(quic, id, count),
            H3StreamRole::Request(bytes) => self.request(quic, id, bytes),
            H3StreamRole::Waiting(request, rest) => H3StreamStep::Keep(H3StreamRole::Waiting(request, rest)),
            H3StreamRole::Session(reader) => self.capsules(quic, id, reader),
        }
    }

    fn nascent(&mut self, quic: &mut Connection, id: StreamId, mut head: StreamHead) -> H3StreamStep {
        let session_type = if id.dir() == Dir::Bi { head::BIDI } else { head::UNI };
        let Some(kind) = head.kind(session_type) else {
            return match read(quic, id, head.missing(session_type).max(1)) {
                H3StreamRead::Bytes(bytes) => {
                    head.push(&bytes);
                    H3StreamStep::Again(H3StreamRole::Nascent(head))
                }
                H3StreamRead::Blocked => H3StreamStep::Keep(H3StreamRole::Nascent(head)),
                H3StreamRead::Fin | H3StreamRead::Gone => {
                    abandon(quic, id, h3::REQUEST_INCOMPLETE);
                    H3StreamStep::Drop
                }
            };
        };
        match kind {
            H3StreamKind::Session(session) => self.belongs(quic, id, session),
            H3StreamKind::Other(_) if id.dir() == Dir::Bi => {
                let reading = |role: &H3StreamRole| {
                    matches!(role, H3StreamRole::Request(_) | H3StreamRole::Waiting(..))
                };
                if self.roles.iter().filter(|(_, role)| reading(role)).count() >= REQUESTS {
                    abandon(quic, id, h3::REQUEST_REJECTED);
                    return H3StreamStep::Drop;
                }
                H3StreamStep::Again(H3StreamRole::Request(head.bytes().to_vec()))
            }
            H3StreamKind::Other(CONTROL_STREAM) if self.control_seen => {
                self.violation(h3::STREAM_CREATION, "second control stream");
                H3StreamStep::Drop
            }
            H3StreamKind::Other(CONTROL_STREAM) => {
                self.control_seen = true;
                H3StreamStep::Again(H3StreamRole::Control(head.bytes().to_vec()))
            }
            H3StreamKind::Other(QPACK_ENCODER | QPACK_DECODER) => {
                H3StreamStep::Again(H3StreamRole::Discard(0))
            }
            H3StreamKind::Other(_) => {
                abandon(quic, id, h3::STREAM_CREATION);
                H3StreamStep::Drop
            }
        }
    }

    fn belongs(&self, quic: &mut Connection, id: StreamId, session: u64) -> H3StreamStep {
        match &self.session {
            Some(open) if u64::from(open.id) == session => H3StreamStep::Ours,
            None => H3StreamStep::Keep(H3StreamRole::Held(session)),
            Some(_) => {
                abandon(quic, id, h3::BUFFERED_STREAM_REJECTED);
                H3StreamStep::Drop
            }
        }
    }

    fn control(&mut self, quic: &mut Connection, id: StreamId, mut bytes: Vec<u8>) -> H3StreamStep {
        match Settings::decode(&mut bytes.as_slice()) {
            Ok(settings) => {
                let on = |setting| settings.get(&setting).is_some_and(|value| value.into_inner() == 1);
                let datagrams = on(Setting::ENABLE_DATAGRAM) || on(Setting::ENABLE_DATAGRAM_DEPRECATED);
                self.peer = Some(PeerSettings { datagrams });
                return H3StreamStep::Again(H3StreamRole::Discard(0));
            }
            Err(SettingsError::UnexpectedEnd) => {}
            Err(SettingsError::UnexpectedFrame(_)) => {
                self.violation(h3::MISSING_SETTINGS, "control stream without settings");
                return H3StreamStep::Drop;
            }
            Err(_) => {
                self.violation(h3::SETTINGS, "malformed settings");
                return H3StreamStep::Drop;
            }
        }
        let room = SETTINGS_BYTES.saturating_sub(bytes.len());
        if room == 0 {
            self.violation(h3::EXCESSIVE_LOAD, "settings too long");
            return H3StreamStep::Drop;
        }
        match read(quic, id, room) {
            H3StreamRead::Bytes(more) => {
                bytes.extend_from_slice(&more);
                H3StreamStep::Again(H3StreamRole::Control(bytes))
            }
            H3StreamRead::Blocked => H3StreamStep::Keep(H3StreamRole::Control(bytes)),
            H3StreamRead::Fin | H3StreamRead::Gone => {
                self.violation(h3::MISSING_SETTINGS, "control stream ended early");
                H3StreamStep::Drop
            }
        }
    }

    fn discard(&mut self, quic: &mut Connection, id: StreamId, count: usize) -> H3StreamStep {
        if count > DISCARD_BYTES {
            self.violation(h3::EXCESSIVE_LOAD, "excess data on a control stream");
            return H3StreamStep::Drop;
        }
        match read(quic, id, PIECE) {
            H3StreamRead::Bytes(bytes) => {
                H3StreamStep::Again(H3StreamRole::Discard(count.saturating_add(bytes.len())))
            }
            H3StreamRead::Blocked => H3StreamStep::Keep(H3StreamRole::Discard(count)),
            H3StreamRead::Fin | H3StreamRead::Gone => H3StreamStep::Drop,
        }
    }

    fn request(&mut self, quic: &mut Connection, id: StreamId, mut bytes: Vec<u8>) -> H3StreamStep {
        match field_section(&bytes) {
            Section::Here(section, rest) => {
                return match request::parse(section) {
                    Ok(request) => {
                        let rest = rest.to_vec();
                        H3StreamStep::Keep(H3StreamRole::Waiting(request, rest))
                    }
                    Err(status) => self.refuse(quic, id, status),
                };
            }
            Section::Missing if bytes.len() < REQUEST_BYTES => {}
            Section::Missing => return self.refuse(quic, id, StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
            Section::Unexpected => return self.refuse(quic, id, StatusCode::BAD_REQUEST),
        }
        match read(quic, id, REQUEST_BYTES.saturating_sub(bytes.len())) {
            H3StreamRead::Bytes(more) => {
                bytes.extend_from_slice(&more);
                H3StreamStep::Again(H3StreamRole::Request(bytes))
            }
            H3StreamRead::Blocked => H3StreamStep::Keep(H3StreamRole::Request(bytes)),
            H3StreamRead::Fin | H3StreamRead::Gone => {
                abandon(quic, id, h3::REQUEST_INCOMPLETE);
                H3StreamStep::Drop
            }
        }
    }

    fn capsules(&mut self, quic: &mut Connection, id: StreamId, mut reader: CapsuleReader) -> H3StreamStep {
        let end = match read(quic, id, PIECE) {
            H3StreamRead::Bytes(bytes) => match reader.push(&bytes) {
                None => return H3StreamStep::Again(H3StreamRole::Session(reader)),
                Some(close) => ConnectEnd::ByPeer(SessionCode(close.code), close.reason),
            },
            H3StreamRead::Blocked => return H3StreamStep::Keep(H3StreamRole::Session(reader)),
            H3StreamRead::Fin => ConnectEnd::ByPeer(SessionCode::NONE, String::new()),
            H3StreamRead::Gone => ConnectEnd::Lost("peer reset the connect stream"),
        };
        self.end = self.end.take().or(Some(end));
        H3StreamStep::Drop
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

fn read(quic: &mut Connection, id: StreamId, max: usize) -> H3StreamRead {
    let mut stream = quic.recv_stream(id);
    let Ok(mut chunks) = stream.read(true) else { return H3StreamRead::Gone };
    match chunks.next(max) {
        Ok(Some(chunk)) => H3StreamRead::Bytes(chunk.bytes),
        Ok(None) => H3StreamRead::Fin,
        Err(ReadError::Blocked) => H3StreamRead::Blocked,
        Err(ReadError::Reset(_)) => H3StreamRead::Gone,
    }
}
