//! Version negotiation on the first stream: the client lists versions, the relay answers with one. The stream
//! stays open, and its end is the end of the session.

use std::time::Instant;

use relay_model::{
    SessionCode, StreamCode, limits,
    transport::{ReadError, Stream, Transport},
};
use relay_wire::lite::{
    self, BidiType,
    legacy::{self, ClientSetup, ServerSetup, SessionInfo},
};

use crate::{
    control_stream::ControlStreamReader,
    requests::{ReadOutcome, refuse},
    session::{Cx, Session, SessionOutput, StreamKind},
    work::MESSAGE,
};

/// Negotiation in progress.
#[derive(Debug, Default)]
pub(crate) struct VersionNegotiation {
    /// Deadline, once the session has been started.
    by: Option<Instant>,
    /// Whether the client's stream has been opened.
    begun: bool,
}

impl VersionNegotiation {
    /// Negotiation for a session of `version`, if that version uses one.
    pub(crate) fn of(version: lite::Version) -> Option<Self> {
        version.has_legacy_setup().then(Self::default)
    }

    pub(crate) fn start(&mut self, now: Instant) {
        self.by.get_or_insert(now + limits::SETUP_TIMEOUT);
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.by
    }
}

impl Session {
    /// Protocol version, once known.
    pub fn version(&self) -> Option<lite::Version> {
        self.opening.is_none().then_some(self.config.version)
    }

    /// Starts the session: requests authorisation at once for versions without SETUP on a transport without a
    /// URL, since no message names a path. If the version is still to be negotiated, starts that deadline
    /// instead. Call once, when the transport is ready.
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        if let Some(opening) = &mut self.opening {
            opening.start(cx.now);
            return;
        }
        if !self.config.has_url && !self.config.version.has_setup() {
            cx.out.push(SessionOutput::Authorize { target: String::new(), role: None });
        }
    }

    /// Reads the type of a stream while the version is unknown. Reads one byte at a time, so that the bodies of
    /// other requests stay in the transport.
    pub(crate) fn read_first<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
    ) -> ReadOutcome {
        let id = loop {
            if let Some(id) = reader.buffer.next_varint() {
                break id;
            }
            match t.read(stream, 1) {
                Ok(Some(byte)) => reader.buffer.push(&byte),
                Err(ReadError::Blocked) => return ReadOutcome::Keep(StreamKind::Request(reader, None)),
                Ok(None) | Err(ReadError::Reset(_) | ReadError::Gone) => {
                    return refuse(t, cx, stream, StreamCode::CANCEL);
                }
            }
        };
        if id == legacy::CLIENT_SETUP
            && let Some(opening) = &mut self.opening
            && !std::mem::replace(&mut opening.begun, true)
        {
            return self.read_client_setup(t, cx, stream, reader);
        }
        // Both legacy versions have the same request types.
        let kind = BidiType::from_id(self.config.version, id);
        if kind.is_none() {
            return refuse(t, cx, stream, StreamCode::CANCEL);
        }
        self.hold_back(stream);
        ReadOutcome::Keep(StreamKind::Request(reader, kind))
    }

    pub(crate) fn read_client_setup<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
    ) -> ReadOutcome {
        reader.fill(t, stream, cx.work);
        let setup = match ClientSetup::next(&mut reader.buffer) {
            Ok(Some(setup)) => setup,
            Ok(None) if reader.end().is_some() => {
                self.violation(t, cx, "truncated SETUP");
                return ReadOutcome::Done;
            }
            Ok(None) => return ReadOutcome::Keep(StreamKind::ClientSetup(reader)),
            Err(error) => {
                cx.meter.violations += 1;
                self.close(t, cx.now, error.session_code(), &error.to_string());
                return ReadOutcome::Done;
            }
        };
        let Some(version) = setup.choose() else {
            cx.meter.refused_version += 1;
            self.close(t, cx.now, SessionCode::VERSION, "no version in common");
            return ReadOutcome::Done;
        };
        let mut answer = Vec::new();
        ServerSetup { version }.encode(&mut answer);
        self.control.send(t, cx.now, stream, answer);
        self.agreed(t, cx, version);
        self.read_session(t, cx, stream, reader)
    }

    /// Completes the negotiation and resumes deferred streams.
    fn agreed<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, version: lite::Version) {
        self.opening = None;
        self.config.version = version;
        self.egress.speak(version);
        if self.grant.is_some() {
            self.met(t, cx);
            self.resume_paused(t, cx);
        } else if !self.config.has_url {
            cx.out.push(SessionOutput::Authorize { target: String::new(), role: None });
        }
    }

    /// Reads the session's first stream. The peer's measurements on it are ignored.
    pub(crate) fn read_session<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
    ) -> ReadOutcome {
        loop {
            let more = reader.fill(t, stream, cx.work);
            loop {
                match reader.buffer.next::<SessionInfo>(self.config.version) {
                    Ok(Some(_)) => cx.work.take(MESSAGE),
                    Ok(None) => break,
                    Err(error) => {
                        self.violation(t, cx, &error.to_string());
                        return ReadOutcome::Done;
                    }
                }
                if cx.work.is_spent() {
                    return ReadOutcome::Keep(StreamKind::Session(reader));
                }
            }
            if !more {
                break;
            }
        }
        if reader.end().is_some() {
            self.close(t, cx.now, SessionCode::NONE, "session stream ended");
            return ReadOutcome::Done;
        }
        ReadOutcome::Keep(StreamKind::Session(reader))
    }

    /// Whether the negotiation has exceeded its deadline.
    pub(crate) fn is_opening_late(&self, now: Instant) -> bool {
        self.opening.as_ref().and_then(VersionNegotiation::deadline).is_some_and(|by| now >= by)
    }
}
