//! Start of a session: version negotiation on the first stream (moq-lite-01 and 02), and SETUP (from 05 on).

use std::time::Instant;

use relay_model::{
    Hop, SessionCode, StreamCode, limits,
    transport::{ReadError, Stream, Transport},
};
use relay_wire::{
    DecodeError,
    lite::{
        self, BidiType, Message, UniType, Version,
        legacy::{self, ClientSetup, ServerSetup, SessionInfo},
    },
    varint,
};

use super::{
    ReadContext,
    streams::{StreamKind, StreamStep, refuse},
};
use crate::{
    control_stream::ControlStreamReader,
    request::{Incoming, PeerSetup},
    work::MESSAGE,
};

/// Progress of the exchange of SETUP and of the negotiation.
#[derive(Debug)]
pub(super) struct Handshake {
    /// Negotiation in progress.
    negotiation: Option<VersionNegotiation>,
    received: SetupProgress,
    is_sent: bool,
    /// Cost of the link from the peer, as declared in SETUP.
    price: Option<u64>,
}

/// Progress of the peer's SETUP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SetupProgress {
    Absent,
    Begun,
    Read,
}

/// Negotiation in progress: the client lists versions, the relay answers with one. The stream stays open, and
/// its end is the end of the session.
#[derive(Debug, Default)]
struct VersionNegotiation {
    /// Deadline, once the session has been started.
    by: Option<Instant>,
    /// Whether the client's stream has been opened.
    has_begun: bool,
}

impl Handshake {
    pub(super) fn new(version: Version) -> Self {
        let negotiation = version.has_legacy_setup().then(VersionNegotiation::default);
        Self { negotiation, received: SetupProgress::Absent, is_sent: false, price: None }
    }

    pub(super) fn is_negotiating(&self) -> bool {
        self.negotiation.is_some()
    }

    /// Starts the deadline of the negotiation. False without one.
    pub(super) fn start(&mut self, now: Instant) -> bool {
        let Some(negotiation) = &mut self.negotiation else { return false };
        negotiation.by.get_or_insert(now + limits::SETUP_TIMEOUT);
        true
    }

    pub(super) fn deadline(&self) -> Option<Instant> {
        self.negotiation.as_ref().and_then(|negotiation| negotiation.by)
    }

    /// Whether announces may be exchanged: SETUP carries their cost and filter where announces have ids.
    pub(super) fn allows_announces(&self, version: Version) -> bool {
        !self.is_negotiating() && (self.received == SetupProgress::Read || !version.has_announce_ids())
    }

    /// Cost of the link from the peer; `None` if it declared none.
    pub(super) fn price(&self) -> Option<u64> {
        self.price
    }

    /// Our SETUP with its stream type. `None` if it was sent, or the version has none.
    pub(super) fn setup(&self, version: Version, hop: Hop, has_probe: bool) -> Option<Vec<u8>> {
        if self.is_sent || !version.has_setup() {
            return None;
        }
        let setup =
            lite::Setup { probe: u64::from(has_probe), path: None, role: None, cost: None, hop: Some(hop) };
        let mut message = Vec::new();
        varint::put(UniType::Setup.id(), &mut message);
        setup.encode(version, &mut message);
        Some(message)
    }

    pub(super) fn set_sent(&mut self) {
        self.is_sent = true;
    }

    /// Records the peer's SETUP stream. False if there was one before.
    pub(super) fn begin_setup(&mut self) -> bool {
        let is_first = self.received == SetupProgress::Absent;
        if is_first {
            self.received = SetupProgress::Begun;
        }
        is_first
    }

    /// Reads the peer's SETUP.
    pub(super) fn read_setup<T: Transport>(
        &mut self,
        io: &mut ReadContext<'_, T>,
        stream: Stream,
        version: Version,
        reader: &mut ControlStreamReader,
    ) -> StreamStep {
        reader.fill(io.t, stream, io.work);
        match reader.buffer.next::<lite::Setup>(version) {
            Ok(None) if reader.end().is_some() => {
                StreamStep::Last(Incoming::Violation("truncated SETUP".to_owned()))
            }
            Ok(None) => StreamStep::Blocked,
            Ok(Some(setup)) => {
                io.t.stop(stream, super::NO_ERROR);
                StreamStep::Last(Incoming::Setup(self.take_setup(version, setup)))
            }
            Err(error) => StreamStep::Last(malformed_setup(io, &error)),
        }
    }

    fn take_setup(&mut self, version: Version, setup: lite::Setup) -> PeerSetup {
        self.received = SetupProgress::Read;
        self.price = setup.cost;
        PeerSetup {
            target: setup.path,
            role: setup.role,
            // Only relays declare a cost.
            is_relay: setup.cost.is_some(),
            exclude: version.has_announce_ids().then(|| setup.hop.unwrap_or(Hop::ANONYMOUS)),
        }
    }

    /// Reads the type of a stream while the version is unknown. Reads one byte at a time, so that the bodies of
    /// other requests stay in the transport.
    pub(super) fn read_first<T: Transport>(
        &mut self,
        io: &mut ReadContext<'_, T>,
        stream: Stream,
        version: Version,
        kind: &mut StreamKind,
    ) -> StreamStep {
        let StreamKind::Request(reader, request) = kind else { return StreamStep::Done };
        let id = loop {
            if let Some(id) = reader.buffer.next_varint() {
                break id;
            }
            match io.t.read(stream, 1) {
                Ok(Some(byte)) => reader.buffer.push(&byte),
                Err(ReadError::Blocked) => return StreamStep::Blocked,
                Ok(None) | Err(ReadError::Reset(_) | ReadError::Gone) => {
                    return refuse(io, stream, StreamCode::CANCEL);
                }
            }
        };
        if id == legacy::CLIENT_SETUP
            && let Some(negotiation) = &mut self.negotiation
            && !std::mem::replace(&mut negotiation.has_begun, true)
        {
            *kind = StreamKind::ClientSetup(std::mem::take(reader));
            return StreamStep::Again;
        }
        // Both legacy versions have the same request types.
        *request = BidiType::from_id(version, id);
        match request {
            Some(_) => StreamStep::Paused,
            None => refuse(io, stream, StreamCode::CANCEL),
        }
    }

    /// Reads the client's list of versions, and answers it.
    pub(super) fn read_client_setup<T: Transport>(
        &mut self,
        io: &mut ReadContext<'_, T>,
        stream: Stream,
        version: &mut Version,
        kind: &mut StreamKind,
    ) -> StreamStep {
        let StreamKind::ClientSetup(reader) = kind else { return StreamStep::Done };
        reader.fill(io.t, stream, io.work);
        let setup = match ClientSetup::next(&mut reader.buffer) {
            Ok(Some(setup)) => setup,
            Ok(None) if reader.end().is_some() => {
                return StreamStep::Last(Incoming::Violation("truncated SETUP".to_owned()));
            }
            Ok(None) => return StreamStep::Blocked,
            Err(error) => return StreamStep::Last(malformed_setup(io, &error)),
        };
        let Some(chosen) = setup.choose() else {
            io.meter.refused_version += 1;
            let close = Incoming::Close(SessionCode::VERSION, "no version in common".to_owned());
            return StreamStep::Last(close);
        };
        let mut answer = Vec::new();
        ServerSetup { version: chosen }.encode(&mut answer);
        io.control.send(io.t, io.now, stream, answer);
        (self.negotiation, *version) = (None, chosen);
        *kind = StreamKind::Session(std::mem::take(reader));
        StreamStep::Event(Incoming::Negotiated)
    }
}

/// Counts a SETUP that does not parse.
fn malformed_setup<T: Transport>(io: &mut ReadContext<'_, T>, error: &DecodeError) -> Incoming {
    io.meter.violations += 1;
    Incoming::Close(error.session_code(), error.to_string())
}

/// Reads the session's first stream. The peer's measurements on it are ignored.
pub(super) fn read_session<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    version: Version,
    reader: &mut ControlStreamReader,
) -> StreamStep {
    loop {
        let more = reader.fill(io.t, stream, io.work);
        loop {
            match reader.buffer.next::<SessionInfo>(version) {
                Ok(Some(_)) => io.work.take(MESSAGE),
                Ok(None) => break,
                Err(error) => return StreamStep::Last(Incoming::Violation(error.to_string())),
            }
            if io.work.is_spent() {
                return StreamStep::Blocked;
            }
        }
        if !more {
            break;
        }
    }
    if reader.end().is_some() {
        return StreamStep::Last(Incoming::Close(SessionCode::NONE, "session stream ended".to_owned()));
    }
    StreamStep::Blocked
}
