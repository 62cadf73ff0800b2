//! A scripted peer: sends raw moq-lite messages of its version on its end of a pair, and records everything it
//! receives.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use relay_model::{
    Cost, Hop, Hops, Path, Prefs, SessionCode, StreamCode, TrackInfo, TrackName,
    transport::{Dir, Stream, Transport, TransportClosed, WriteError},
};
use relay_session::pair::{Pair, PairEnd};
use relay_wire::{
    MessageBuf,
    lite::{
        Announce, AnnounceRequest, BidiType, Datagram, Fetch, FrameHead, Group, GroupReader, Message, Setup,
        Subscribe, SubscribeResponse, SubscribeUpdate, TrackRequest, UniType, Version,
        legacy::{self, ClientSetup},
        put_frame_head, put_group_header,
    },
    varint,
};

use crate::peer_reader::Role;
pub(crate) use crate::record::{Ask, Asked, Ended, Frames, GroupIn, SubIn, TrackIn, WatchIn};

#[derive(Default)]
pub(crate) struct Pending {
    bytes: VecDeque<Bytes>,
    finish: bool,
}

/// An announce request of the relay, and the announces sent on it.
pub(crate) struct Announcing {
    pub(crate) stream: Stream,
    pub(crate) prefix: Path,
    live: BTreeMap<Path, u64>,
    next_id: u64,
}

impl Announcing {
    pub(crate) fn new(stream: Stream, prefix: Path) -> Self {
        Self { stream, prefix, live: BTreeMap::new(), next_id: 0 }
    }

    /// Announces that `version` uses for a new or changed route.
    pub(crate) fn active(&mut self, version: Version, suffix: Path, hops: Hops, cost: Cost) -> Vec<Announce> {
        let live = self.live.get(&suffix).copied();
        if version.has_announce_ids()
            && let Some(id) = live
        {
            return vec![Announce::Restart { id, hops, cost }];
        }
        let mut said = Vec::new();
        if live.is_some() && !version.replaces_announces() {
            said.push(Announce::Ended { suffix: suffix.clone() });
        }
        self.live.insert(suffix.clone(), self.next_id);
        self.next_id += 1;
        said.push(Announce::Active { suffix, hops, cost });
        said
    }

    fn ended(&mut self, version: Version, suffix: Path) -> Option<Announce> {
        let id = self.live.remove(&suffix)?;
        Some(if version.has_announce_ids() { Announce::EndedId { id } } else { Announce::Ended { suffix } })
    }
}

pub(crate) struct Peer {
    pub(crate) pair: Pair,
    pub(crate) version: Version,
    pub(crate) now: Instant,
    /// Published tracks; a broadcast is announced when it has an entry in `broadcasts`.
    pub(crate) tracks: BTreeMap<(Path, TrackName), TrackInfo>,
    pub(crate) broadcasts: BTreeMap<Path, Hops>,
    pub(crate) hop: Hop,
    /// Cost of its announces.
    pub(crate) cost: Cost,
    /// Whether group streams, or any streams, are read.
    pub(crate) reads_groups: bool,
    pub(crate) reads: bool,
    /// Whether TRACK and announce requests of the relay are answered automatically.
    pub(crate) answers: bool,

    pub(crate) ready: bool,
    pub(crate) setups: Vec<Setup>,
    pub(crate) closed: Option<TransportClosed>,
    pub(crate) groups: Vec<GroupIn>,
    pub(crate) watches: BTreeMap<Stream, WatchIn>,
    pub(crate) subs: BTreeMap<Stream, SubIn>,
    pub(crate) track_answers: BTreeMap<Stream, TrackIn>,
    pub(crate) raw: BTreeMap<Stream, (Vec<u8>, Option<Ended>)>,
    pub(crate) asked: Vec<Asked>,
    pub(crate) datagrams: Vec<Datagram>,
    pub(crate) stopped: BTreeMap<Stream, StreamCode>,
    pub(crate) fetches: BTreeMap<Stream, GroupIn>,
    pub(crate) roles: BTreeMap<Stream, Role>,
    pub(crate) pending: BTreeMap<Stream, Pending>,
    /// Group streams that wait for stream credit.
    unopened: VecDeque<Vec<u8>>,
    pub(crate) announcing: Vec<Announcing>,
    /// First stream of the session, in versions that negotiate on it.
    pub(crate) hello: Option<Stream>,
    next_subscribe: u64,
}

pub(crate) fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

pub(crate) fn track(raw: &str) -> TrackName {
    TrackName::parse(raw).unwrap()
}

pub(crate) fn encoded(version: Version, message: &impl Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(version, &mut out);
    out
}

/// A stream's type and first message.
pub(crate) fn request(version: Version, kind: u64, message: &impl Message) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(kind, &mut out);
    message.encode(version, &mut out);
    out
}

/// Frames as encoded on a stream.
pub(crate) fn frame_bytes(version: Version, frames: &[(i64, Vec<u8>)]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut previous = 0;
    for (tick, payload) in frames {
        let head = FrameHead { tick: Some(*tick), size: payload.len() as u64 };
        put_frame_head(version, previous, head, &mut out);
        out.extend_from_slice(payload);
        previous = *tick;
    }
    out
}

impl Peer {
    pub(crate) fn new(version: Version, pair: Pair, now: Instant) -> Self {
        Self {
            pair,
            version,
            now,
            tracks: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
            hop: Hop(77),
            cost: Cost::default(),
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
            fetches: BTreeMap::new(),
            roles: BTreeMap::new(),
            pending: BTreeMap::new(),
            unopened: VecDeque::new(),
            announcing: Vec::new(),
            hello: None,
            next_subscribe: 0,
        }
    }

    pub(crate) fn t(&mut self) -> &mut PairEnd {
        &mut self.pair.b
    }

    // Writing.

    /// Opens a stream that starts with `bytes`.
    fn open(&mut self, dir: Dir, bytes: Vec<u8>) -> Stream {
        let stream = self.t().open(dir, 0).expect("stream credit");
        self.write(stream, bytes);
        stream
    }

    /// Opens a bidirectional stream with these first bytes; the response goes to `raw`.
    pub(crate) fn open_bi(&mut self, bytes: Vec<u8>) -> Stream {
        let stream = self.open(Dir::Bi, bytes);
        self.raw.insert(stream, Default::default());
        self.roles.insert(stream, Role::Raw(stream));
        stream
    }

    /// Opens a unidirectional stream with these first bytes.
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

    /// Whether all written bytes were accepted by the transport.
    pub(crate) fn is_flushed(&self) -> bool {
        self.pending.is_empty() && self.unopened.is_empty()
    }

    pub(crate) fn flush(&mut self, stream: Stream) {
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

    /// A stream's type and first message, in the peer's version.
    pub(crate) fn request(&self, kind: u64, message: &impl Message) -> Vec<u8> {
        request(self.version, kind, message)
    }

    /// A group stream up to its last frame.
    pub(crate) fn group_bytes(&self, subscribe: u64, sequence: u64, frames: &[(i64, Vec<u8>)]) -> Vec<u8> {
        self.group_bytes_from(subscribe, sequence, 0, frames)
    }

    /// A group stream whose `frames` begin with number `first`.
    pub(crate) fn group_bytes_from(
        &self,
        subscribe: u64,
        sequence: u64,
        first_frame: u64,
        frames: &[(i64, Vec<u8>)],
    ) -> Vec<u8> {
        let mut out = Vec::new();
        put_group_header(self.version, &Group { subscribe, sequence, first_frame }, &mut out);
        out.extend_from_slice(&frame_bytes(self.version, frames));
        out
    }

    pub(crate) fn setup(&mut self) -> Stream {
        self.setup_with(Setup { path: Some("/".to_owned()), hop: Some(self.hop), ..Setup::default() })
    }

    pub(crate) fn setup_with(&mut self, setup: Setup) -> Stream {
        let bytes = self.request(UniType::Setup.id(), &setup);
        let stream = self.open_uni(bytes);
        self.finish(stream);
        stream
    }

    /// Offers its own version only.
    pub(crate) fn hello(&mut self) {
        let versions = legacy::code(self.version).into_iter().collect();
        let mut bytes = Vec::new();
        ClientSetup { versions, parameters: Vec::new() }.encode(&mut bytes);
        self.hello = Some(self.open_bi(bytes));
    }

    // Subscriber.

    pub(crate) fn subscribe(&mut self, broadcast: &str, name: &str, prefs: Prefs) -> Stream {
        let id = self.next_subscribe;
        self.next_subscribe += 1;
        let message = Subscribe { id, broadcast: path(broadcast), track: track(name), prefs };
        let bytes = self.request(BidiType::Subscribe.id(), &message);
        let stream = self.open(Dir::Bi, bytes);
        self.subs.insert(stream, SubIn { id, ..SubIn::default() });
        self.roles.insert(stream, Role::Sub(MessageBuf::new(), stream));
        stream
    }

    /// Makes the next subscription reuse the id of the last.
    pub(crate) fn reuse_subscribe_id(&mut self) {
        self.next_subscribe -= 1;
    }

    pub(crate) fn update(&mut self, stream: Stream, prefs: Prefs) {
        self.write(stream, encoded(self.version, &SubscribeUpdate { prefs }));
    }

    pub(crate) fn watch(&mut self, prefix: &str) -> Stream {
        self.watch_without(prefix, Hop::ANONYMOUS)
    }

    /// Watches announces, except routes through `exclude_hop`.
    pub(crate) fn watch_without(&mut self, prefix: &str, exclude_hop: Hop) -> Stream {
        let message = AnnounceRequest { prefix: path(prefix), exclude_hop };
        let bytes = self.request(BidiType::Announce.id(), &message);
        let stream = self.open(Dir::Bi, bytes);
        self.watches.insert(stream, WatchIn::default());
        self.roles.insert(stream, Role::Watch(MessageBuf::new(), stream));
        stream
    }

    pub(crate) fn ask_track(&mut self, broadcast: &str, name: &str) -> Stream {
        let message = TrackRequest { broadcast: path(broadcast), track: track(name) };
        let bytes = self.request(BidiType::Track.id(), &message);
        let stream = self.open(Dir::Bi, bytes);
        self.track_answers.insert(stream, TrackIn::default());
        self.roles.insert(stream, Role::Track(MessageBuf::new(), stream));
        stream
    }

    pub(crate) fn fetch(&mut self, broadcast: &str, name: &str, group: u64) -> Stream {
        self.fetch_frames(broadcast, name, group, 0, None)
    }

    pub(crate) fn fetch_frames(
        &mut self,
        broadcast: &str,
        name: &str,
        group: u64,
        start_frame: u64,
        end_frame: Option<u64>,
    ) -> Stream {
        let (broadcast, track) = (path(broadcast), track(name));
        let message = Fetch { broadcast, track, priority: 5, group, start_frame, end_frame };
        let bytes = self.request(BidiType::Fetch.id(), &message);
        let stream = self.open(Dir::Bi, bytes);
        self.fetches.insert(stream, GroupIn::default());
        self.roles.insert(stream, Role::Fetch(stream, GroupReader::frames(self.version)));
        stream
    }

    /// Cancels a request.
    pub(crate) fn give_up(&mut self, stream: Stream, by_stop: bool) {
        if by_stop {
            self.t().stop(stream, StreamCode::CANCEL);
            self.finish(stream);
        } else {
            self.t().stop(stream, StreamCode::CANCEL);
            self.reset(stream, StreamCode::CANCEL);
        }
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

    /// Whether a group has arrived completely.
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

    /// Announces a new route for a broadcast, new or known.
    pub(crate) fn announce(&mut self, broadcast: Path, hops: Hops) {
        self.broadcasts.insert(broadcast.clone(), hops.clone());
        let (version, cost) = (self.version, self.cost);
        let hops = self.chain(&hops);
        for mut announcing in std::mem::take(&mut self.announcing) {
            if let Some(rest) = broadcast.strip_prefix(&announcing.prefix) {
                for said in announcing.active(version, path(rest), hops.clone(), cost) {
                    self.say(announcing.stream, &said);
                }
            }
            self.announcing.push(announcing);
        }
    }

    /// A hop chain as encoded in an announce: with the peer appended in versions without another field for it.
    pub(crate) fn chain(&self, hops: &Hops) -> Hops {
        if self.version.has_announce_ok() {
            return hops.clone();
        }
        hops.iter().copied().chain([self.hop]).collect()
    }

    pub(crate) fn withdraw(&mut self, broadcast: &str) {
        let broadcast = path(broadcast);
        self.broadcasts.remove(&broadcast);
        let version = self.version;
        for mut announcing in std::mem::take(&mut self.announcing) {
            if let Some(rest) = broadcast.strip_prefix(&announcing.prefix)
                && let Some(said) = announcing.ended(version, path(rest))
            {
                self.say(announcing.stream, &said);
            }
            self.announcing.push(announcing);
        }
    }

    /// Sends one message on an announce stream, regardless of previous ones.
    pub(crate) fn say(&mut self, stream: Stream, announce: &Announce) {
        let mut out = Vec::new();
        announce.encode(self.version, &mut out);
        self.write(stream, out);
    }

    /// The relay's latest subscription to a track.
    pub(crate) fn serving(&self, name: &str) -> Option<(Stream, Subscribe)> {
        self.asked.iter().rev().find_map(|asked| match &asked.what {
            Ask::Subscribe(subscribe) if subscribe.track == track(name) && asked.end.is_none() => {
                Some((asked.stream, subscribe.clone()))
            }
            _ => None,
        })
    }

    /// The relay's open fetches of a track.
    pub(crate) fn fetching(&self, name: &str) -> Vec<(Stream, Fetch)> {
        self.fetched(name)
            .filter(|(_, _, end)| end.is_none())
            .map(|(stream, fetch, _)| (stream, fetch))
            .collect()
    }

    /// All fetches of a track by the relay, and how it ended its side.
    pub(crate) fn fetched(&self, name: &str) -> impl Iterator<Item = (Stream, Fetch, Option<Ended>)> {
        let name = track(name);
        self.asked.iter().filter_map(move |asked| match &asked.what {
            Ask::Fetch(fetch) if fetch.track == name => Some((asked.stream, fetch.clone(), asked.end)),
            _ => None,
        })
    }

    /// Sends the whole response to a FETCH.
    pub(crate) fn answer_fetch(&mut self, stream: Stream, frames: &Frames) {
        let bytes = frame_bytes(self.version, frames);
        self.write(stream, bytes);
        self.finish(stream);
    }

    /// Sends a whole group, as soon as a stream can be opened.
    pub(crate) fn send_group(&mut self, subscribe: u64, sequence: u64, frames: &Frames) {
        let bytes = self.group_bytes(subscribe, sequence, frames);
        self.unopened.push_back(bytes);
        self.open_groups();
    }

    /// Sends raw bytes of a group stream, finished or left open.
    pub(crate) fn send_raw_group(&mut self, bytes: Vec<u8>, finish: bool) {
        if let Some(stream) = self.t().open(Dir::Uni, 0) {
            self.write(stream, bytes);
            if finish {
                self.finish(stream);
            }
        }
    }

    pub(crate) fn open_groups(&mut self) {
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
        response.encode(self.version, &mut out);
        self.write(stream, out);
    }
}
