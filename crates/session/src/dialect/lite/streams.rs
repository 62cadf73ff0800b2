//! Purposes of the streams of a moq-lite session.

use relay_model::{
    StreamCode,
    transport::{Stream, Transport},
};
use relay_wire::lite::BidiType;

use super::{NO_ERROR, ReadContext, announces::AnnounceReceiver, group_stream::GroupStream};
use crate::{control_stream::ControlStreamReader, footprint::STREAM, request::Incoming, streams::StreamCost};

/// Purpose of a stream, and the state of reading it.
#[derive(Debug)]
pub(super) enum StreamKind {
    /// The peer's bidirectional stream, its request not read yet.
    Request(ControlStreamReader, Option<BidiType>),
    /// The peer's unidirectional stream, its type not read yet.
    Header(ControlStreamReader),
    /// The peer's SETUP.
    Setup(ControlStreamReader),
    /// The list of versions that the peer offers.
    ClientSetup(ControlStreamReader),
    /// The session's first stream, whose end is the end of the session.
    Session(ControlStreamReader),
    /// A group from the peer.
    Group(Box<GroupStream>),
    /// The peer's announce or probe request: any byte ends it.
    Listener(ControlStreamReader),
    /// The peer's SUBSCRIBE, which updates may follow.
    Subscription(ControlStreamReader),
    /// The peer's TRACK or FETCH, which nothing may follow.
    Single(ControlStreamReader),
    /// Our announce request, and the state of its announces.
    AnnounceUp(ControlStreamReader, Box<AnnounceReceiver>),
    /// Our TRACK request.
    TrackUp(ControlStreamReader),
    /// Our SUBSCRIBE.
    SubscribeUp {
        reader: ControlStreamReader,
        /// Whether SUBSCRIBE_END was read.
        has_bound: bool,
    },
    /// Our FETCH.
    FetchUp(Box<GroupStream>),
}

/// Result of reading a stream.
#[derive(Debug)]
pub(super) enum StreamStep {
    /// Nothing more can be read now, for lack of bytes or of work budget.
    Blocked,
    /// The stream must wait until requests may be read.
    Paused,
    /// Nothing more is to be read.
    Done,
    /// A message was read, and more may follow.
    Event(Incoming),
    /// A message was read, and nothing more is to be read.
    Last(Incoming),
    /// The purpose of the stream has changed: it is read on.
    Again,
}

impl StreamKind {
    /// Whether the peer's sending side has ended, as far as read.
    pub(super) fn has_ended(&self) -> bool {
        self.reader().is_some_and(|reader| reader.end().is_some())
    }

    /// Reader of the messages of the stream; `None` for streams of payload.
    fn reader(&self) -> Option<&ControlStreamReader> {
        match self {
            Self::Request(reader, _)
            | Self::Header(reader)
            | Self::Setup(reader)
            | Self::ClientSetup(reader)
            | Self::Session(reader)
            | Self::Listener(reader)
            | Self::Subscription(reader)
            | Self::Single(reader)
            | Self::AnnounceUp(reader, _)
            | Self::TrackUp(reader)
            | Self::SubscribeUp { reader, .. } => Some(reader),
            Self::Group(_) | Self::FetchUp(_) => None,
        }
    }
}

impl StreamCost for StreamKind {
    /// Streams opened by the relay cost their unparsed bytes only: the rest is charged to the requesting
    /// session. Payload has a budget of its own.
    fn cost(&self) -> u64 {
        let unparsed = self.reader().map_or(0, |reader| reader.buffer.len() as u64);
        match self {
            Self::AnnounceUp(..) | Self::TrackUp(_) | Self::SubscribeUp { .. } | Self::FetchUp(_) => unparsed,
            _ => STREAM + unparsed,
        }
    }
}

/// Refuses a stream: only it ends.
pub(super) fn refuse<T: Transport>(
    io: &mut ReadContext<'_, T>,
    stream: Stream,
    code: StreamCode,
) -> StreamStep {
    io.meter.requests_refused += 1;
    io.t.reset(stream, code);
    io.t.stop(stream, NO_ERROR);
    StreamStep::Done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_streams_of_the_peer_are_charged_as_such() {
        let mut reader = ControlStreamReader::default();
        reader.buffer.push(&[0; 100]);
        assert_eq!(StreamKind::Request(reader, None).cost(), STREAM + 100);
        let mut reader = ControlStreamReader::default();
        reader.buffer.push(&[0; 10]);
        assert_eq!(StreamKind::TrackUp(reader).cost(), 10);
    }
}
