//! Encoding of media, without the state of a session.

use bytes::Bytes;

use relay_model::transport::{Stream, Transport};

use super::{ObjectFraming, lite};
use crate::{
    control::Outbound,
    request::{Reply, RequestId},
};

/// Encoder of group headers, datagrams and the progress of subscriptions, in a negotiated version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum MediaEncoder {
    /// moq-lite 01 to 06.
    Lite(lite::LiteEncoder),
}

/// Datagram of a subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) struct OutgoingDatagram<'a> {
    pub(crate) alias: u64,
    pub(crate) group: u64,
    /// Timestamp, ms.
    pub(crate) tick: i64,
    pub(crate) payload: &'a Bytes,
}

impl MediaEncoder {
    /// Layout of objects on group streams.
    pub(crate) fn framing(self) -> ObjectFraming {
        match self {
            Self::Lite(lite) => lite.framing(),
        }
    }

    /// The start of a group stream, before its first object.
    pub(crate) fn group_header(self, alias: u64, group: u64, first: u64) -> Bytes {
        match self {
            Self::Lite(lite) => lite.group_header(alias, group, first),
        }
    }

    /// A media datagram; `None` in versions without datagrams.
    pub(crate) fn datagram(self, datagram: &OutgoingDatagram<'_>) -> Option<Bytes> {
        match self {
            Self::Lite(lite) => lite.datagram(datagram),
        }
    }

    /// Stream that carries the objects of a fetch.
    pub(crate) fn fetch_stream(self, request: RequestId) -> Stream {
        match self {
            Self::Lite(_) => lite::stream_of(request),
        }
    }

    /// Sends a reply that is not the last one.
    pub(crate) fn progress<T: Transport>(self, out: &mut Outbound<'_, T>, request: RequestId, reply: &Reply) {
        match self {
            Self::Lite(lite) => {
                if let Some(message) = lite.reply(reply) {
                    out.send(lite::stream_of(request), message);
                }
            }
        }
    }
}
