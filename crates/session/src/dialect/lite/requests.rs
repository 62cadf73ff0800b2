//! Requests of the peer, read from its bidirectional streams.

use relay_model::{
    StreamCode,
    transport::{Stream, Transport},
};
use relay_wire::{
    DecodeError, MessageBuf,
    lite::{self, BidiType, Version},
};

use super::{
    NO_ERROR, ReadContext,
    handshake::Handshake,
    request_id,
    streams::{StreamKind, StreamStep, refuse},
};
use crate::{
    control_stream::{ControlStreamReader, StreamEnd},
    request::{Incoming, ObjectRange, PrefsUpdate, Reply, Request},
    work::REQUEST,
};

/// Reads a request, and sets the kind of its stream.
pub(super) fn read_request<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    version: Version,
    handshake: &mut Handshake,
    kind: &mut StreamKind,
) -> StreamStep {
    if handshake.is_negotiating() && matches!(kind, StreamKind::Request(_, None)) {
        return handshake.read_first(io, stream, version, kind);
    }
    let StreamKind::Request(reader, request) = kind else { return StreamStep::Done };
    if handshake.is_negotiating() || !io.may_read_request() {
        return StreamStep::Paused;
    }
    reader.fill(io.t, stream, io.work);
    if request.is_none()
        && let Some(id) = reader.buffer.next_varint()
    {
        *request = BidiType::from_id(version, id);
        if request.is_none() {
            return refuse(io, stream, StreamCode::CANCEL);
        }
    }
    let parsed = match parse(&mut reader.buffer, version, *request) {
        Ok(Some(parsed)) => parsed,
        Ok(None) if reader.end().is_some() => return refuse(io, stream, StreamCode::CANCEL),
        Ok(None) => return StreamStep::Blocked,
        Err(error) => return malformed(io, stream, error),
    };
    io.limiter.took(io.now);
    io.work.take(REQUEST);
    let event = Incoming::Request(request_id(stream), parsed);
    let reader = std::mem::take(reader);
    *kind = match &event {
        Incoming::Request(_, Request::Goaway) => {
            io.control.finish(io.t, stream);
            io.t.stop(stream, NO_ERROR);
            return StreamStep::Last(event);
        }
        Incoming::Request(_, Request::Subscribe { .. }) => StreamKind::Subscription(reader),
        Incoming::Request(_, Request::TrackInfo { .. } | Request::Fetch { .. }) => StreamKind::Single(reader),
        _ => StreamKind::Listener(reader),
    };
    StreamStep::Event(event)
}

/// Takes a complete request of a known type.
fn parse(
    buffer: &mut MessageBuf,
    version: Version,
    kind: Option<BidiType>,
) -> Result<Option<Request>, DecodeError> {
    Ok(match kind {
        None => None,
        Some(BidiType::Announce) => buffer.next::<lite::AnnounceRequest>(version)?.map(|request| {
            let exclude = version.has_exclude_hop().then_some(request.exclude_hop);
            Request::Watch { prefix: request.prefix, exclude }
        }),
        Some(BidiType::Subscribe) => buffer.next::<lite::Subscribe>(version)?.map(|request| {
            let lite::Subscribe { id: alias, broadcast, track, prefs } = request;
            Request::Subscribe { alias, broadcast, track, prefs }
        }),
        Some(BidiType::Track) => buffer.next::<lite::TrackRequest>(version)?.map(|request| {
            let lite::TrackRequest { broadcast, track } = request;
            Request::TrackInfo { broadcast, track }
        }),
        Some(BidiType::Fetch) => buffer.next::<lite::Fetch>(version)?.map(|request| {
            let lite::Fetch { broadcast, track, priority, group, start_frame, end_frame } = request;
            let range = ObjectRange { first: start_frame, last: end_frame };
            Request::Fetch { broadcast, track, priority, group, range }
        }),
        Some(BidiType::Goaway) => buffer.next::<lite::Goaway>(version)?.map(|_| Request::Goaway),
        Some(BidiType::Probe) => Some(Request::Probe),
    })
}

/// Reads what follows a SUBSCRIBE: updates, then its end.
pub(super) fn read_subscription<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    version: Version,
    reader: &mut ControlStreamReader,
) -> StreamStep {
    loop {
        let more = reader.fill(io.t, stream, io.work);
        match next_update(io, version, &mut reader.buffer) {
            Ok(Some(step)) => return with_request(stream, step),
            Ok(None) if io.work.is_spent() => return StreamStep::Blocked,
            Ok(None) => {}
            Err(error) => return cancelled_by(io, stream, error),
        }
        if !more {
            break;
        }
    }
    match reader.end() {
        None => StreamStep::Blocked,
        Some(StreamEnd::Fin) => cancelled(stream, Reply::Finished),
        Some(StreamEnd::Reset(_)) => cancelled(stream, Reply::Refused { code: StreamCode::CANCEL }),
    }
}

/// Update or delay of a subscription's stream.
enum NextUpdate {
    Update(PrefsUpdate),
    Paused,
    Blocked,
}

fn with_request(stream: Stream, next: NextUpdate) -> StreamStep {
    match next {
        NextUpdate::Update(update) => {
            StreamStep::Event(Incoming::Request(request_id(stream), Request::Update(update)))
        }
        NextUpdate::Paused => StreamStep::Paused,
        NextUpdate::Blocked => StreamStep::Blocked,
    }
}

/// Takes the next complete update. `None`: there is none.
fn next_update<T: Transport>(
    io: &mut ReadContext<'_, T>,
    version: Version,
    buffer: &mut MessageBuf,
) -> Result<Option<NextUpdate>, DecodeError> {
    if !version.has_ranges() && buffer.is_empty() {
        return Ok(None);
    }
    if !io.may_read_request() {
        return Ok((!buffer.is_empty()).then_some(NextUpdate::Paused));
    }
    let update = if !version.has_ranges() {
        // These versions define no updates; @moq/lite sends a new priority as a bare byte.
        buffer.take_last().map(PrefsUpdate::Priority)
    } else if io.work.is_spent() {
        return Ok(Some(NextUpdate::Blocked));
    } else {
        let update = buffer.next::<lite::SubscribeUpdate>(version)?;
        if update.is_some() {
            io.work.take(REQUEST);
        }
        update.map(|update| PrefsUpdate::All(update.prefs))
    };
    if update.is_some() {
        io.limiter.took(io.now);
    }
    Ok(update.map(NextUpdate::Update))
}

/// Reads what follows a TRACK or FETCH: nothing may, but its end.
pub(super) fn read_single<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    reader: &mut ControlStreamReader,
) -> StreamStep {
    loop {
        let more = reader.fill(io.t, stream, io.work);
        reader.discard();
        if !more {
            break;
        }
    }
    match reader.end() {
        // The request may be finished before its response.
        None | Some(StreamEnd::Fin) => StreamStep::Blocked,
        Some(StreamEnd::Reset(_)) => cancelled(stream, Reply::Refused { code: StreamCode::CANCEL }),
    }
}

/// Reads what follows an announce or probe request: anything ends it.
pub(super) fn read_listener<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    reader: &mut ControlStreamReader,
) -> StreamStep {
    reader.fill(io.t, stream, io.work);
    if reader.end().is_none() && reader.buffer.is_empty() {
        return StreamStep::Blocked;
    }
    cancelled(stream, Reply::Finished)
}

fn cancelled(stream: Stream, reply: Reply) -> StreamStep {
    StreamStep::Event(Incoming::Request(request_id(stream), Request::Cancel(reply)))
}

/// Ends a request by a malformed message that follows it.
fn cancelled_by<T: Transport>(io: &mut ReadContext<'_, T>, stream: Stream, error: DecodeError) -> StreamStep {
    if exceeds_limit(&error) {
        return StreamStep::Last(Incoming::Violation(error.to_string()));
    }
    io.meter.requests_refused += 1;
    cancelled(stream, Reply::Refused { code: StreamCode::CANCEL })
}

/// Handles a malformed request: exceeding a limit closes the session, other errors only the stream.
fn malformed<T: Transport>(io: &mut ReadContext<'_, T>, stream: Stream, error: DecodeError) -> StreamStep {
    match exceeds_limit(&error) {
        true => StreamStep::Last(Incoming::Violation(error.to_string())),
        false => refuse(io, stream, StreamCode::CANCEL),
    }
}

fn exceeds_limit(error: &DecodeError) -> bool {
    matches!(
        error,
        DecodeError::MessageTooLarge
            | DecodeError::Path(_)
            | DecodeError::TrackNameTooLong
            | DecodeError::TooManyHops
            | DecodeError::TooManyAnnounces
            | DecodeError::TooManyParameters
            | DecodeError::UriTooLong
    )
}
