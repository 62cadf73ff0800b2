//! Requests and replies of the relay as moq-lite messages.

use bytes::Bytes;
use relay_model::Hop;
use relay_wire::{
    lite::{self, BidiType, Message, SubscribeResponse, Version},
    varint,
};

use super::framing;
use crate::{
    dialect::{ObjectFraming, OutgoingDatagram},
    request::{PrefsUpdate, Reply, Request},
};

/// Stateless encoder of one version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct LiteEncoder {
    version: Version,
}

impl LiteEncoder {
    pub(super) fn new(version: Version) -> Self {
        Self { version }
    }

    pub(crate) fn framing(self) -> ObjectFraming {
        match self.version.has_timestamps() {
            true => ObjectFraming::LiteTimed,
            false => ObjectFraming::LiteBare,
        }
    }

    /// The start of a group stream.
    pub(crate) fn group_header(self, alias: u64, group: u64, first: u64) -> Bytes {
        framing::group_header(self.version, alias, group, first)
    }

    /// A media datagram; `None` in versions without datagrams.
    pub(crate) fn datagram(self, datagram: &OutgoingDatagram<'_>) -> Option<Bytes> {
        if !self.version.has_timestamps() {
            return None;
        }
        let OutgoingDatagram { alias, group, tick, payload } = *datagram;
        let tick = u64::try_from(tick).unwrap_or(0);
        let message = lite::Datagram { subscribe: alias, sequence: group, tick, payload: payload.clone() };
        let mut bytes = Vec::with_capacity(payload.len() + 24);
        message.encode(self.version, &mut bytes);
        Some(bytes.into())
    }

    /// The message of a reply; `None` for those without one in this version.
    pub(crate) fn reply(self, reply: &Reply) -> Option<Vec<u8>> {
        let version = self.version;
        let response = match *reply {
            Reply::Accepted { priority } if version.has_subscribe_ok() => {
                SubscribeResponse::Ok(lite::SubscribeOk { priority, ..lite::SubscribeOk::default() })
            }
            Reply::Started { group } if !version.has_subscribe_ok() => SubscribeResponse::Start { group },
            Reply::Ended { bound } if !version.has_subscribe_ok() => SubscribeResponse::End { group: bound },
            Reply::Dropped { first, last, code } if version.has_drops() => {
                SubscribeResponse::Drop { start: first, end: last, code }
            }
            Reply::Info(info) => return Some(encoded(version, &info)),
            Reply::Measured { bitrate, rtt_ms } => {
                return Some(encoded(version, &lite::Probe { bitrate, rtt_ms }));
            }
            Reply::Accepted { .. }
            | Reply::Started { .. }
            | Reply::Ended { .. }
            | Reply::Dropped { .. }
            | Reply::Refused { .. }
            | Reply::Finished
            | Reply::Delivered => return None,
        };
        let mut message = Vec::new();
        response.encode(version, &mut message);
        Some(message)
    }

    /// The messages that begin the stream of a request; `None` for requests that are made on a stream already
    /// open, or without a message.
    pub(super) fn request(self, request: &Request) -> Option<Vec<u8>> {
        let version = self.version;
        let mut message = Vec::new();
        let mut put = |kind: BidiType| varint::put(kind.id(), &mut message);
        match request {
            Request::Goaway => {
                put(BidiType::Goaway);
                lite::Goaway { uri: String::new() }.encode(version, &mut message);
            }
            Request::Watch { prefix, exclude } => {
                put(BidiType::Announce);
                let exclude_hop = exclude.unwrap_or(Hop::ANONYMOUS);
                lite::AnnounceRequest { prefix: prefix.clone(), exclude_hop }.encode(version, &mut message);
            }
            Request::TrackInfo { broadcast, track } => {
                put(BidiType::Track);
                let (broadcast, track) = (broadcast.clone(), track.clone());
                lite::TrackRequest { broadcast, track }.encode(version, &mut message);
            }
            Request::Subscribe { alias, broadcast, track, prefs } => {
                put(BidiType::Subscribe);
                let (broadcast, track) = (broadcast.clone(), track.clone());
                lite::Subscribe { id: *alias, broadcast, track, prefs: *prefs }.encode(version, &mut message);
            }
            Request::Fetch { broadcast, track, priority, group, range } => {
                put(BidiType::Fetch);
                let fetch = lite::Fetch {
                    broadcast: broadcast.clone(),
                    track: track.clone(),
                    priority: *priority,
                    group: *group,
                    start_frame: range.first,
                    end_frame: range.last,
                };
                fetch.encode(version, &mut message);
            }
            Request::Update(_) | Request::Probe | Request::Cancel(_) => return None,
        }
        Some(message)
    }

    /// The message of an update; `None` in versions without updates.
    pub(super) fn update(self, update: PrefsUpdate) -> Option<Vec<u8>> {
        match update {
            PrefsUpdate::All(prefs) if self.version.has_ranges() => {
                Some(encoded(self.version, &lite::SubscribeUpdate { prefs }))
            }
            PrefsUpdate::All(_) | PrefsUpdate::Priority(_) => None,
        }
    }
}

/// A size-prefixed message.
pub(super) fn encoded(version: Version, message: &impl Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(version, &mut out);
    out
}

#[cfg(test)]
mod tests {
    use relay_model::StreamCode;

    use super::*;

    #[test]
    fn each_version_sends_the_replies_it_has() {
        let sends = |version, reply: &Reply| LiteEncoder::new(version).reply(reply).is_some();
        let dropped = Reply::Dropped { first: 1, last: 2, code: 0 };
        for version in Version::every() {
            assert_eq!(sends(version, &Reply::Accepted { priority: 1 }), version <= Version::V04);
            assert_eq!(sends(version, &Reply::Started { group: 1 }), version >= Version::V05);
            assert_eq!(sends(version, &Reply::Ended { bound: 1 }), version >= Version::V05);
            assert_eq!(sends(version, &dropped), version >= Version::V03);
            assert!(!sends(version, &Reply::Refused { code: StreamCode::CANCEL }));
            let update = PrefsUpdate::All(relay_model::Prefs::default());
            assert_eq!(LiteEncoder::new(version).update(update).is_some(), version >= Version::V03);
        }
    }
}
