//! A scripted peer: raw moq-lite-05 messages on its end of a pair, everything it hears recorded.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use relay_model::{Hop, Hops, Path, Prefs, SessionCode, StreamCode, TrackInfo, TrackName};
use relay_session::{
    pair::{End, Pair},
    transport::{Closed, Dir, Event, ReadError, Stream, Transport, WriteError},
};
use relay_wire::{
    Inbox,
    lite::{
        Announce, AnnounceOk, AnnounceRequest, BidiType, Datagram, FrameHead, Group, GroupEvent, GroupReader,
        Message, Setup, Status, Subscribe, SubscribeResponse, SubscribeUpdate, TrackRequest, UniType,
        Version, put_frame_head, put_group_header,
    },
    varint,
};

use crate::record::hear_watch;
pub(crate) use crate::record::{Ask, Asked, Ended, Frames, GroupIn, SubIn, TrackIn, WatchIn};

pub(crate) const V: Version = Version::V05;

/// What a stream the peer reads is for.
enum Role {
    Header(Inbox),
    Request(Inbox, Option<BidiType>),
    Setup(Inbox),
    Group(usize, GroupReader),
    Watch(Inbox, Stream),
    Sub(Inbox, Stream),
    Track(Inbox, Stream),
    Asked(Inbox, usize),
    /// Bytes are kept, nothing more.
    Raw(Stream),
}

#[derive(Default)]
struct Pending {
    bytes: VecDeque<Bytes>,
    finish: bool,
}

pub(crate) struct Peer {
    pub(crate) pair: Pair,
    pub(crate) now: Instant,
    /// What it publishes: a broadcast is announced when it has an entry.
    pub(crate) tracks: BTreeMap<(Path, TrackName), TrackInfo>,
    pub(crate) broadcasts: BTreeMap<Path, Hops>,
    pub(crate) hop: Hop,
    /// Whether group streams, or any streams, are read.
    pub(crate) reads_groups: bool,
    pub(crate) reads: bool,
    /// Whether TRACK and announce requests of the relay are answered by themselves.
    pub(crate) answers: bool,

    pub(crate) ready: bool,
    pub(crate) setups: Vec<Setup>,
    pub(crate) closed: Option<Closed>,
    pub(crate) groups: Vec<GroupIn>,
    pub(crate) watches: BTreeMap<Stream, WatchIn>,
    pub(crate) subs: BTreeMap<Stream, SubIn>,
    pub(crate) track_answers: BTreeMap<Stream, TrackIn>,
    pub(crate) raw: BTreeMap<Stream, (Vec<u8>, Option<Ended>)>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) datagrams: Vec<Datagram>,
    pub(crate) stopped: BTreeMap<Stream, StreamCode>,
    roles: BTreeMap<Stream, Role>,
    pending: BTreeMap<Stream, Pending>,
    /// Group streams that wait for stream credit.
    unopened: VecDeque<Vec<u8>>,
    announce_streams: Vec<(Stream, Path)>,
    next_subscribe: u64,
}

pub(crate) fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

pub(crate) fn track(raw: &str) -> TrackName {
    TrackName::parse(raw).unwrap()
}

pub(crate) fn encoded(message: &impl Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(V, &mut out);
    out
}

/// A stream's type and first message.
pub(crate) fn request(kind: u64, message: &impl Message) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(kind, &mut out);
    message.encode(V, &mut out);
    out
}

/// A group stream up to its last frame.
pub(crate) fn group_bytes(subscribe: u64, sequence: u64, frames: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    put_group_header(V, &Group { subscribe, sequence }, &mut out);
    let mut previous = 0;
    for (tick, payload) in frames {
        put_frame_head(V, previous, FrameHead { tick: *tick, size: payload.len() as u64 }, &mut out);
        out.extend_from_slice(payload);
        previous = *tick;
    }
    out
}

impl Peer {
    pub(crate) fn new(pair: Pair, now: Instant) -> Self {
        Self {
            pair,
            now,
            tracks: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
            hop: Hop(77),
            reads_groups: true,
            reads: true,
            answers: true,
            ready: false,
            setups: Vec::new(),
            closed: None,
            groups: Vec::new(),
            watches: BTreeMap::new(),
            subs: BTreeMap::new(),
            track_answers: BTreeMap::new(),
            raw: BTreeMap::new(),
            asked: Vec::new(),
            datagrams: Vec::new(),
            stopped: BTreeMap::new(),
            roles: BTreeMap::new(),
            pending: BTreeMap::new(),
            unopened: VecDeque::new(),
            announce_streams: Vec::new(),
            next_subscribe: 0,
        }
    }

    pub(crate) fn t(&mut self) -> &mut End {
        &mut self.pair.b
    }

    // Writing.

    /// Opens a stream that starts with `bytes`; what comes back is read as `role` says.
    fn open(&mut self, dir: Dir, bytes: Vec<u8>) -> Stream {
        let stream = self.t().open(dir, 0).expect("stream credit");
        self.write(stream, bytes);
        stream
    }

    /// A bidirectional stream with these first bytes; the answer goes to `raw`.
    pub(crate) fn open_bi(&mut self, bytes: Vec<u8>) -> Stream {
        let stream = self.open(Dir::Bi, bytes);
        self.raw.insert(stream, Default::default());
        self.roles.insert(stream, Role::Raw(stream));
        stream
    }

    /// A unidirectional stream with these first bytes.
    pub(crate) fn open_uni(&mut self, bytes: Vec<u8>) -> Stream {
        self.open(Dir::Uni, bytes)
    }

    pub(crate) fn write(&mut self, stream: Stream, bytes: Vec<u8>) {
        self.pending.entry(stream).or_default().bytes.push_back(bytes.into());
        self.flush(stream);
    }

    pub(crate) fn finish(&mut self, stream: Stream) {
        self.pending.entry(stream).or_default().finish = true;
        self.flush(stream);
    }

    pub(crate) fn reset(&mut self, stream: Stream, code: StreamCode) {
        self.pending.remove(&stream);
        self.t().reset(stream, code);
    }

    pub(crate) fn close(&mut self, code: SessionCode, reason: &str) {
        let now = self.now;
        self.t().close(now, code, reason);
    }

    /// Bytes that were written and not taken by the carrier.
    pub(crate) fn is_flushed(&self) -> bool {
        self.pending.is_empty() && self.unopened.is_empty()
    }

    fn flush(&mut self, stream: Stream) {
        let Some(pending) = self.pending.get_mut(&stream) else { return };
        while let Some(front) = pending.bytes.front_mut() {
            if front.is_empty() {
                pending.bytes.pop_front();
                continue;
            }
            match self.pair.b.write(stream, std::slice::from_mut(front)) {
                Ok(_) => {}
                Err(WriteError::Blocked) => return,
                Err(WriteError::Stopped(_) | WriteError::Gone) => pending.bytes.clear(),
            }
        }
        if pending.finish {
            self.pair.b.finish(stream);
        }
        self.pending.remove(&stream);
    }

    // Both roles.

    pub(crate) fn setup(&mut self) -> Stream {
        self.setup_with(Setup { path: Some("/".to_owned()), hop: Some(self.hop), ..Setup::default() })
    }

    pub(crate) fn setup_with(&mut self, setup: Setup) -> Stream {
        let stream = self.open_uni(request(UniType::Setup.id(), &setup));
        self.finish(stream);
        stream
    }

    // Subscriber.

    pub(crate) fn subscribe(&mut self, broadcast: &str, name: &str, prefs: Prefs) -> Stream {
        let id = self.next_subscribe;
        self.next_subscribe += 1;
        let message = Subscribe { id, broadcast: path(broadcast), track: track(name), prefs };
        let stream = self.open(Dir::Bi, request(BidiType::Subscribe.id(), &message));
        self.subs.insert(stream, SubIn { id, ..SubIn::default() });
        self.roles.insert(stream, Role::Sub(Inbox::new(), stream));
        stream
    }

    /// The next subscription takes the id of the last.
    pub(crate) fn reuse_subscribe_id(&mut self) {
        self.next_subscribe -= 1;
    }

    pub(crate) fn update(&mut self, stream: Stream, prefs: Prefs) {
        self.write(stream, encoded(&SubscribeUpdate { prefs }));
    }

    pub(crate) fn watch(&mut self, prefix: &str) -> Stream {
        let message = AnnounceRequest { prefix: path(prefix), exclude_hop: Hop::ANONYMOUS };
        let stream = self.open(Dir::Bi, request(BidiType::Announce.id(), &message));
        self.watches.insert(stream, WatchIn::default());
        self.roles.insert(stream, Role::Watch(Inbox::new(), stream));
        stream
    }

    pub(crate) fn ask_track(&mut self, broadcast: &str, name: &str) -> Stream {
        let message = TrackRequest { broadcast: path(broadcast), track: track(name) };
        let stream = self.open(Dir::Bi, request(BidiType::Track.id(), &message));
        self.track_answers.insert(stream, TrackIn::default());
        self.roles.insert(stream, Role::Track(Inbox::new(), stream));
        stream
    }

    pub(crate) fn sub(&self, stream: Stream) -> &SubIn {
        &self.subs[&stream]
    }

    /// Streams of one group of a subscription, in order of arrival.
    pub(crate) fn group(&self, sub: Stream, sequence: u64) -> Vec<&GroupIn> {
        self.groups_of(sub).filter(|group| group.sequence == Some(sequence)).collect()
    }

    /// All group streams of a subscription.
    pub(crate) fn groups_of(&self, sub: Stream) -> impl Iterator<Item = &GroupIn> {
        let id = self.subs[&sub].id;
        self.groups.iter().filter(move |group| group.sequence.is_some() && group.subscribe == id)
    }

    /// Whether a group has come to its end.
    pub(crate) fn has(&self, sub: Stream, sequence: u64) -> bool {
        self.group(sub, sequence).iter().any(|group| group.is_complete())
    }

    // Publisher.

    /// Announces a broadcast with these tracks, now and on each announce request.
    pub(crate) fn publish(&mut self, broadcast: &str, names: &[&str], hops: &[u64]) {
        let broadcast = path(broadcast);
        for name in names {
            self.tracks.insert((broadcast.clone(), track(name)), TrackInfo::default());
        }
        self.announce(broadcast, hops.iter().copied().map(Hop).collect());
    }

    /// A new route for a broadcast, known or not.
    pub(crate) fn announce(&mut self, broadcast: Path, hops: Hops) {
        self.broadcasts.insert(broadcast.clone(), hops.clone());
        self.tell(&broadcast, Status::Active, hops);
    }

    pub(crate) fn withdraw(&mut self, broadcast: &str) {
        let broadcast = path(broadcast);
        self.broadcasts.remove(&broadcast);
        self.tell(&broadcast, Status::Ended, [].into());
    }

    fn tell(&mut self, broadcast: &Path, status: Status, hops: Hops) {
        for (stream, prefix) in self.announce_streams.clone() {
            if let Some(rest) = broadcast.strip_prefix(&prefix) {
                let suffix = path(rest);
                self.write(stream, encoded(&Announce { status, suffix, hops: hops.clone() }));
            }
        }
    }

    /// The relay's subscription to a track, its latest.
    pub(crate) fn serving(&self, name: &str) -> Option<(Stream, Subscribe)> {
        self.asked.iter().rev().find_map(|asked| match &asked.what {
            Ask::Subscribe(subscribe) if subscribe.track == track(name) && asked.end.is_none() => {
                Some((asked.stream, subscribe.clone()))
            }
            _ => None,
        })
    }

    /// Streams a whole group, as soon as there is a stream for it.
    pub(crate) fn send_group(&mut self, subscribe: u64, sequence: u64, frames: &Frames) {
        self.unopened.push_back(group_bytes(subscribe, sequence, frames));
        self.open_groups();
    }

    /// A group stream as given, finished or left open.
    pub(crate) fn send_raw_group(&mut self, bytes: Vec<u8>, finish: bool) {
        if let Some(stream) = self.t().open(Dir::Uni, 0) {
            self.write(stream, bytes);
            if finish {
                self.finish(stream);
            }
        }
    }

    fn open_groups(&mut self) {
        while !self.unopened.is_empty()
            && let Some(stream) = self.t().open(Dir::Uni, 0)
        {
            let bytes = self.unopened.pop_front().unwrap_or_default();
            self.write(stream, bytes);
            self.finish(stream);
        }
    }

    pub(crate) fn respond(&mut self, stream: Stream, response: SubscribeResponse) {
        let mut out = Vec::new();
        response.encode(V, &mut out);
        self.write(stream, out);
    }

    // What comes.

    /// One turn: events, all that can be read and written.
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

    fn event(&mut self, event: Event) {
        match event {
            Event::Ready => self.ready = true,
            Event::Opened(stream, Dir::Uni) => {
                self.roles.insert(stream, Role::Header(Inbox::new()));
            }
            Event::Opened(stream, Dir::Bi) => {
                self.roles.insert(stream, Role::Request(Inbox::new(), None));
            }
            Event::Stopped(stream, code) => {
                self.stopped.insert(stream, code);
                self.reset(stream, code);
            }
            Event::Datagram => {
                while let Some(bytes) = self.t().recv_datagram() {
                    self.datagrams.push(Datagram::decode(V, bytes).unwrap());
                }
            }
            Event::Closed(why) => {
                assert_eq!(self.closed, None);
                self.closed = Some(why);
            }
            Event::Readable(_) | Event::Writable(_) | Event::Openable(_) | Event::Room | Event::Moved(_) => {}
        }
    }

    fn read(&mut self, stream: Stream) {
        let Some(mut role) = self.roles.remove(&stream) else { return };
        loop {
            if matches!(role, Role::Group(..)) && !self.reads_groups {
                break;
            }
            // A byte at a time up to a group's type, so that its bytes stay in order.
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
        match &mut role {
            Role::Header(inbox) => {
                inbox.push(&bytes);
                match inbox.next_varint().map(|kind| UniType::from_id(kind).expect("a known stream type")) {
                    None => {}
                    Some(UniType::Setup) => return Role::Setup(Inbox::new()),
                    Some(UniType::Group) => {
                        self.groups.push(GroupIn::default());
                        return Role::Group(self.groups.len() - 1, GroupReader::new(V));
                    }
                }
            }
            Role::Setup(inbox) => {
                inbox.push(&bytes);
                self.setups.extend(inbox.next::<Setup>(V).unwrap());
            }
            Role::Group(at, reader) => self.hear_group(*at, reader, bytes),
            Role::Watch(inbox, key) => {
                inbox.push(&bytes);
                hear_watch(inbox, self.watches.get_mut(key).unwrap());
            }
            Role::Sub(inbox, key) => {
                inbox.push(&bytes);
                let sub = self.subs.get_mut(key).unwrap();
                while let Some(response) = SubscribeResponse::next(inbox, V).unwrap() {
                    if matches!(response, SubscribeResponse::End { .. }) {
                        sub.said_end = Some(self.now);
                    }
                    sub.responses.push(response);
                }
            }
            Role::Track(inbox, key) => {
                inbox.push(&bytes);
                let answer = self.track_answers.get_mut(key).unwrap();
                if let Some(info) = inbox.next::<TrackInfo>(V).unwrap() {
                    assert_eq!(answer.info.replace(info), None);
                }
            }
            Role::Raw(key) => self.raw.get_mut(key).unwrap().0.extend_from_slice(&bytes),
            Role::Request(inbox, kind) => {
                inbox.push(&bytes);
                if kind.is_none() {
                    *kind = inbox.next_varint().map(|id| BidiType::from_id(id).expect("a known request"));
                }
                let what = match kind {
                    Some(BidiType::Announce) => inbox.next(V).unwrap().map(Ask::Announce),
                    Some(BidiType::Track) => inbox.next(V).unwrap().map(Ask::Track),
                    Some(BidiType::Subscribe) => inbox.next(V).unwrap().map(Ask::Subscribe),
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
                while let Some(update) = inbox.next::<SubscribeUpdate>(V).unwrap() {
                    self.asked[*at].updates.push(update.prefs);
                }
            }
        }
        role
    }

    fn hear_group(&mut self, at: usize, reader: &mut GroupReader, mut bytes: Bytes) {
        let group = &mut self.groups[at];
        while let Some(event) = reader.next(&mut bytes).expect("a well-formed group") {
            match event {
                GroupEvent::Header(header) => {
                    group.sequence = Some(header.sequence);
                    group.subscribe = header.subscribe;
                }
                GroupEvent::Frame(head) => {
                    group.frames.push((head.tick, Vec::new()));
                    group.size = head.size;
                }
                GroupEvent::Payload(piece) => group.frames.last_mut().unwrap().1.extend_from_slice(&piece),
            }
        }
    }

    fn answer(&mut self, stream: Stream, what: Ask) {
        match what {
            Ask::Announce(request) => {
                let prefix = request.prefix;
                let live: Vec<_> = self
                    .broadcasts
                    .iter()
                    .filter_map(|(broadcast, hops)| {
                        Some((path(broadcast.strip_prefix(&prefix)?), hops.clone()))
                    })
                    .collect();
                self.write(stream, encoded(&AnnounceOk { hop: self.hop, count: live.len() as u64 }));
                for (suffix, hops) in live {
                    self.write(stream, encoded(&Announce { status: Status::Active, suffix, hops }));
                }
                self.announce_streams.push((stream, prefix));
            }
            Ask::Track(request) => match self.tracks.get(&(request.broadcast, request.track)) {
                Some(info) => {
                    let bytes = encoded(info);
                    self.write(stream, bytes);
                    self.finish(stream);
                }
                None => self.reset(stream, StreamCode::NOT_FOUND),
            },
            Ask::Subscribe(request) => {
                if !self.tracks.contains_key(&(request.broadcast, request.track)) {
                    self.reset(stream, StreamCode::NOT_FOUND);
                }
            }
        }
    }
}
