//! Reading side of a scripted peer.

use std::time::Instant;

use bytes::Bytes;
use relay_model::{
    StreamCode, TrackInfo,
    transport::{Dir, ReadError, Stream, Transport, TransportEvent},
};
use relay_wire::{
    MessageBuf,
    lite::{
        AnnounceInit, AnnounceOk, BidiType, Datagram, GroupEvent, GroupReader, Setup, SubscribeOk,
        SubscribeResponse, SubscribeUpdate, UniType,
    },
};

use crate::{
    peer::{Announcing, Ask, Asked, Ended, GroupIn, Peer, encoded, path},
    record::{UNTIMED, hear_watch},
};

/// Purpose of a stream read by the peer.
pub(crate) enum Role {
    Header(MessageBuf),
    Request(MessageBuf, Option<BidiType>),
    Setup(MessageBuf),
    Group(usize, GroupReader),
    Fetch(Stream, GroupReader),
    Watch(MessageBuf, Stream),
    Sub(MessageBuf, Stream),
    Track(MessageBuf, Stream),
    Asked(MessageBuf, usize),
    /// Bytes are stored without parsing.
    Raw(Stream),
}

impl Peer {
    /// Runs one turn: processes events, reads and writes as much as possible.
    pub(crate) fn turn(&mut self, now: Instant) {
        self.now = now;
        while let Some(event) = self.t().poll() {
            self.event(event);
        }
        if !self.reads {
            return;
        }
        for stream in self.roles.keys().copied().collect::<Vec<_>>() {
            self.read(stream);
        }
        for stream in self.pending.keys().copied().collect::<Vec<_>>() {
            self.flush(stream);
        }
        self.open_groups();
    }

    fn event(&mut self, event: TransportEvent) {
        match event {
            TransportEvent::Ready => self.ready = true,
            TransportEvent::Opened(stream, Dir::Uni) => {
                self.roles.insert(stream, Role::Header(MessageBuf::new()));
            }
            TransportEvent::Opened(stream, Dir::Bi) => {
                self.roles.insert(stream, Role::Request(MessageBuf::new(), None));
            }
            TransportEvent::Stopped(stream, code) => {
                self.stopped.insert(stream, code);
                self.reset(stream, code);
            }
            TransportEvent::Datagram => {
                while let Some(bytes) = self.t().recv_datagram() {
                    self.datagrams.push(Datagram::decode(self.version, bytes).unwrap());
                }
            }
            TransportEvent::Closed(why) => {
                assert_eq!(self.closed, None);
                self.closed = Some(why);
            }
            TransportEvent::Readable(_)
            | TransportEvent::Writable(_)
            | TransportEvent::Openable(_)
            | TransportEvent::Room
            | TransportEvent::Moved(_) => {}
        }
    }

    fn read(&mut self, stream: Stream) {
        let Some(mut role) = self.roles.remove(&stream) else { return };
        loop {
            if matches!(role, Role::Group(..)) && !self.reads_groups {
                break;
            }
            // Reads one byte at a time up to a group's type, so that its bytes stay in order.
            let max = if matches!(role, Role::Header(_)) { 1 } else { 64 * 1024 };
            let ended = match self.t().read(stream, max) {
                Ok(Some(bytes)) => {
                    role = self.hear(stream, role, bytes);
                    continue;
                }
                Ok(None) => Ended::Fin(self.now),
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => Ended::Reset(code, self.now),
                Err(ReadError::Gone) => return,
            };
            return self.ended(role, ended);
        }
        self.roles.insert(stream, role);
    }

    fn ended(&mut self, role: Role, ended: Ended) {
        match role {
            Role::Group(at, reader) => {
                let group = &mut self.groups[at];
                group.clean = reader.at_boundary();
                group.end = Some(ended);
            }
            Role::Fetch(key, reader) => {
                let group = self.fetches.get_mut(&key).unwrap();
                group.clean = reader.at_boundary();
                group.end = Some(ended);
            }
            Role::Watch(_, key) => self.watches.get_mut(&key).unwrap().end = Some(ended),
            Role::Sub(_, key) => self.subs.get_mut(&key).unwrap().end = Some(ended),
            Role::Track(_, key) => self.track_answers.get_mut(&key).unwrap().end = Some(ended),
            Role::Raw(key) => self.raw.get_mut(&key).unwrap().1 = Some(ended),
            Role::Asked(_, at) => {
                self.asked[at].end = Some(ended);
                let stream = self.asked[at].stream;
                self.finish(stream);
            }
            Role::Header(_) | Role::Request(..) | Role::Setup(_) => {}
        }
    }

    fn hear(&mut self, stream: Stream, mut role: Role, bytes: Bytes) -> Role {
        let version = self.version;
        match &mut role {
            Role::Header(inbox) => {
                inbox.push(&bytes);
                match inbox
                    .next_varint()
                    .map(|kind| UniType::from_id(version, kind).expect("a known stream type"))
                {
                    None => {}
                    Some(UniType::Setup) => return Role::Setup(MessageBuf::new()),
                    Some(UniType::Group) => {
                        self.groups.push(GroupIn::default());
                        return Role::Group(self.groups.len() - 1, GroupReader::new(version));
                    }
                }
            }
            Role::Setup(inbox) => {
                inbox.push(&bytes);
                self.setups.extend(inbox.next::<Setup>(version).unwrap());
            }
            Role::Group(at, reader) => hear_group(&mut self.groups[*at], reader, bytes),
            Role::Fetch(key, reader) => hear_group(self.fetches.get_mut(key).unwrap(), reader, bytes),
            Role::Watch(inbox, key) => {
                inbox.push(&bytes);
                hear_watch(version, inbox, self.watches.get_mut(key).unwrap());
            }
            Role::Sub(inbox, key) => {
                inbox.push(&bytes);
                let sub = self.subs.get_mut(key).unwrap();
                while let Some(response) = SubscribeResponse::next(inbox, version).unwrap() {
                    if matches!(response, SubscribeResponse::End { .. }) {
                        sub.said_end = Some(self.now);
                    }
                    sub.responses.push(response);
                }
            }
            Role::Track(inbox, key) => {
                inbox.push(&bytes);
                let answer = self.track_answers.get_mut(key).unwrap();
                if let Some(info) = inbox.next::<TrackInfo>(version).unwrap() {
                    assert_eq!(answer.info.replace(info), None);
                }
            }
            Role::Raw(key) => self.raw.get_mut(key).unwrap().0.extend_from_slice(&bytes),
            Role::Request(inbox, kind) => {
                inbox.push(&bytes);
                if kind.is_none() {
                    *kind = inbox
                        .next_varint()
                        .map(|id| BidiType::from_id(version, id).expect("a known request"));
                }
                let what = match kind {
                    Some(BidiType::Announce) => inbox.next(version).unwrap().map(Ask::Announce),
                    Some(BidiType::Track) => inbox.next(version).unwrap().map(Ask::Track),
                    Some(BidiType::Subscribe) => inbox.next(version).unwrap().map(Ask::Subscribe),
                    Some(BidiType::Fetch) => inbox.next(version).unwrap().map(Ask::Fetch),
                    Some(BidiType::Goaway) => inbox.next(version).unwrap().map(Ask::Goaway),
                    None => None,
                    Some(other) => panic!("unexpected {other:?}"),
                };
                if let Some(what) = what {
                    let rest = std::mem::take(inbox);
                    self.asked.push(Asked { stream, what: what.clone(), updates: Vec::new(), end: None });
                    if self.answers {
                        self.answer(stream, what);
                    }
                    return Role::Asked(rest, self.asked.len() - 1);
                }
            }
            Role::Asked(inbox, at) => {
                inbox.push(&bytes);
                while let Some(update) = inbox.next::<SubscribeUpdate>(version).unwrap() {
                    self.asked[*at].updates.push(update.prefs);
                }
            }
        }
        role
    }

    fn answer(&mut self, stream: Stream, what: Ask) {
        match what {
            Ask::Announce(request) => {
                let mut announcing = Announcing::new(stream, request.prefix);
                let below =
                    |broadcast: &relay_model::Path| Some(path(broadcast.strip_prefix(&announcing.prefix)?));
                let live: Vec<_> = self
                    .broadcasts
                    .iter()
                    .filter_map(|(broadcast, hops)| Some((below(broadcast)?, self.chain(hops))))
                    .collect();
                if self.version.has_announce_ok() {
                    let ok = AnnounceOk { hop: self.hop, count: live.len() as u64 };
                    self.write(stream, encoded(self.version, &ok));
                }
                if self.version.has_announce_init() {
                    let suffixes = live.iter().map(|(suffix, _)| suffix.clone()).collect();
                    self.write(stream, encoded(self.version, &AnnounceInit { suffixes }));
                    for (suffix, hops) in live {
                        announcing.active(self.version, suffix, hops, self.cost);
                    }
                    self.announcing.push(announcing);
                    return;
                }
                for (suffix, hops) in live {
                    for said in announcing.active(self.version, suffix, hops, self.cost) {
                        self.say(stream, &said);
                    }
                }
                self.announcing.push(announcing);
            }
            Ask::Track(request) => match self.tracks.get(&(request.broadcast, request.track)) {
                Some(info) => {
                    let bytes = encoded(self.version, info);
                    self.write(stream, bytes);
                    self.finish(stream);
                }
                None => self.reset(stream, StreamCode::NOT_FOUND),
            },
            Ask::Subscribe(request) => {
                let priority = request.prefs.priority;
                if !self.tracks.contains_key(&(request.broadcast, request.track)) {
                    self.reset(stream, StreamCode::NOT_FOUND);
                } else if self.version.has_subscribe_ok() {
                    let ok = SubscribeOk { priority, ..SubscribeOk::default() };
                    self.respond(stream, SubscribeResponse::Ok(ok));
                }
            }
            Ask::Fetch(_) | Ask::Goaway(_) => {}
        }
    }
}

fn hear_group(group: &mut GroupIn, reader: &mut GroupReader, mut bytes: Bytes) {
    while let Some(event) = reader.next(&mut bytes).expect("a well-formed group") {
        match event {
            GroupEvent::Header(header) => {
                group.sequence = Some(header.sequence);
                group.subscribe = header.subscribe;
                group.first_frame = header.first_frame;
            }
            GroupEvent::Frame(head) => {
                group.frames.push((head.tick.unwrap_or(UNTIMED), Vec::new()));
                group.size = head.size;
            }
            GroupEvent::Payload(piece) => group.frames.last_mut().unwrap().1.extend_from_slice(&piece),
        }
    }
}
