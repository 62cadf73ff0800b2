//! Replies of the peer to requests of the relay, read from the streams of those requests.

use relay_model::{
    StreamCode, TrackInfo,
    transport::{Stream, Transport},
};
use relay_wire::lite::{SubscribeResponse, Version};

use super::{
    NO_ERROR, ReadContext,
    announces::AnnounceReceiver,
    request_id,
    streams::{StreamStep, refuse},
};
use crate::{
    control_stream::{ControlStreamReader, StreamEnd},
    request::{Incoming, Reply},
    work::MESSAGE,
};

/// Reads the announces below a prefix.
pub(super) fn read_announces<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    version: Version,
    price: Option<u64>,
    (reader, receiver): (&mut ControlStreamReader, &mut AnnounceReceiver),
) -> StreamStep {
    let mut more = true;
    loop {
        loop {
            if !io.access.may_ask {
                return StreamStep::Paused;
            }
            if let Some(announcement) = receiver.take_queued() {
                return StreamStep::Event(Incoming::Announcement(request_id(stream), announcement));
            }
            if io.work.is_spent() {
                return StreamStep::Blocked;
            }
            match receiver.read(&mut reader.buffer, version, price) {
                Ok(true) => io.work.take(MESSAGE),
                Ok(false) => break,
                Err(error) => return StreamStep::Last(Incoming::Violation(error.to_string())),
            }
        }
        if !more {
            break;
        }
        more = reader.fill(io.t, stream, io.work);
    }
    if reader.end().is_none() {
        return StreamStep::Blocked;
    }
    io.control.finish(io.t, stream);
    StreamStep::Last(Incoming::AnnouncementsEnded(request_id(stream), receiver.take_live()))
}

/// Reads the properties of a track.
pub(super) fn read_info<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    version: Version,
    reader: &mut ControlStreamReader,
) -> StreamStep {
    reader.fill(io.t, stream, io.work);
    let reply = match reader.buffer.next::<TrackInfo>(version) {
        Ok(Some(info)) => {
            io.t.stop(stream, NO_ERROR);
            io.control.finish(io.t, stream);
            Reply::Info(info)
        }
        Ok(None) => {
            let code = match reader.end() {
                None => return StreamStep::Blocked,
                Some(StreamEnd::Fin) => StreamCode::NOT_FOUND,
                Some(StreamEnd::Reset(code)) => code,
            };
            io.control.reset(io.t, stream, StreamCode::CANCEL);
            Reply::Refused { code }
        }
        Err(_) => {
            refuse(io, stream, StreamCode::CANCEL);
            Reply::Refused { code: StreamCode::MALFORMED_TRACK }
        }
    };
    StreamStep::Last(Incoming::Reply(request_id(stream), reply))
}

/// Reads the responses to a SUBSCRIBE, then its end.
pub(super) fn read_responses<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    version: Version,
    (reader, has_bound): (&mut ControlStreamReader, &mut bool),
) -> StreamStep {
    let mut more = true;
    loop {
        if io.work.is_spent() {
            return StreamStep::Blocked;
        }
        let response = match SubscribeResponse::next(&mut reader.buffer, version) {
            Ok(response) => response,
            Err(_) => {
                refuse(io, stream, StreamCode::CANCEL);
                return last_reply(stream, Reply::Refused { code: StreamCode::MALFORMED_TRACK });
            }
        };
        if let Some(response) = response {
            io.work.take(MESSAGE);
            let reply = match response {
                SubscribeResponse::Ok(ok) => Reply::Accepted { priority: ok.priority },
                SubscribeResponse::Start { group } => Reply::Started { group },
                SubscribeResponse::Drop { start, end, code } => {
                    Reply::Dropped { first: start, last: end, code }
                }
                SubscribeResponse::End { group } => {
                    *has_bound = true;
                    Reply::Ended { bound: group }
                }
            };
            return StreamStep::Event(Incoming::Reply(request_id(stream), reply));
        }
        if !more {
            break;
        }
        more = reader.fill(io.t, stream, io.work);
    }
    let Some(end) = reader.end() else { return StreamStep::Blocked };
    io.control.finish(io.t, stream);
    last_reply(
        stream,
        match end {
            // Before moq-lite-05 a FIN is the only signal of the end.
            StreamEnd::Fin if *has_bound || !version.has_tracks() => Reply::Finished,
            StreamEnd::Fin => Reply::Refused { code: StreamCode::CANCEL },
            StreamEnd::Reset(code) => Reply::Refused { code },
        },
    )
}

fn last_reply(stream: Stream, reply: Reply) -> StreamStep {
    StreamStep::Last(Incoming::Reply(request_id(stream), reply))
}
