//! Scripted client: publishes, watches, subscribes, and records what it receives. It shares only the codec
//! with the relay.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Instant,
};

use bytes::Bytes;
use relay_model::{
    Cost, Hop, Hops, Path, Prefs, SessionCode, StreamCode, TrackInfo, TrackName,
    transport::{Dir, ReadError, Stream, Transport, TransportClosed, TransportEvent},
};
use relay_session::pair::PairEnd;
use relay_wire::{
    MessageBuf,
    lite::{
        Announce, AnnounceOk, AnnounceRequest, BidiType, Fetch, FrameHead, Group, GroupEvent, GroupReader,
        Message, Setup, Subscribe, SubscribeOk, SubscribeResponse, SubscribeUpdate, TrackRequest, UniType,
        Version, put_frame_head, put_group_header,
    },
    varint,
};

mod publish;
mod read;

use crate::content::{Name, SharedContent};
use publish::SimServed;

/// Name of the one track of every broadcast.
pub const TRACK: &str = "t";

/// A client.
pub struct Peer {
    /// Protocol version.
    pub version: Version,
    /// Hop id in its chains; anonymous clients send none.
    pub hop: Hop,
    /// Reason for the end of its link, once it has ended.
    pub closed: Option<TransportClosed>,
    /// Published broadcasts, and their costs.
    pub broadcasts: BTreeMap<Path, (SharedContent, Cost)>,
    /// Announced broadcasts, if it watches.
    pub live: BTreeMap<Path, AnnouncedRoute>,
    /// Each change of `live`, in order.
    pub updates: Vec<(Instant, Path, Update)>,
    /// All subscriptions, ended ones included.
    pub subs: Vec<Sub>,
    /// Protocol violations and wrong content received.
    pub broken: Vec<String>,
    roles: BTreeMap<Stream, StreamPurpose>,
    pending: BTreeMap<Stream, Pending>,
    announcing: Vec<AnnounceAnswer>,
    serving: BTreeMap<Stream, SimServed>,
    next_subscribe: u64,
    started: bool,
    leaving: bool,
}

/// An announced broadcast.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AnnouncedRoute {
    /// Chain as received.
    pub hops: Hops,
    id: u64,
}

/// Kind of an announce update.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Update {
    /// The broadcast was announced.
    Announced,
    /// The route changed.
    Rerouted,
    /// The broadcast was withdrawn.
    Withdrawn,
}

/// A subscription.
#[derive(Debug)]
pub struct Sub {
    /// Path of the broadcast.
    pub path: Path,
    /// Time of the request.
    pub since: Instant,
    stream: Stream,
    id: u64,
    /// Received groups by sequence.
    pub groups: BTreeMap<u64, GroupIn>,
    /// Incarnation of all its groups.
    pub incarnation: Option<u64>,
    /// Time of the last frame.
    pub last: Option<Instant>,
    /// End of the subscription; `Some(None)` is a clean one.
    pub end: Option<Option<StreamCode>>,
    bound: Option<u64>,
}

/// A received group.
#[derive(Clone, Debug, Default)]
pub struct GroupIn {
    /// Number of frames, from the first on.
    pub frames: u64,
    /// End of the stream; `Some(None)` is a complete group.
    pub end: Option<Option<StreamCode>>,
}

#[derive(Default)]
struct Pending {
    bytes: VecDeque<Bytes>,
    finish: bool,
}

struct AnnounceAnswer {
    stream: Stream,
    prefix: Path,
    advertised: BTreeMap<Path, (u64, Cost)>,
    next: u64,
}

/// Purpose of a stream that the client reads.
enum StreamPurpose {
    Header(MessageBuf),
    Request(MessageBuf, Option<BidiType>),
    /// Ignored.
    Deaf,
    Group {
        reader: Box<GroupReader>,
        to: Option<(usize, u64)>,
        payload: Vec<u8>,
    },
    Watch {
        inbox: MessageBuf,
        greeted: bool,
        next: u64,
        ids: BTreeMap<u64, Path>,
    },
    Sub(MessageBuf, usize),
    Serve(MessageBuf),
}

impl Peer {
    /// Creates a client that has sent nothing yet.
    pub fn new(version: Version, hop: Hop) -> Self {
        Self {
            version,
            hop,
            closed: None,
            broadcasts: BTreeMap::new(),
            live: BTreeMap::new(),
            updates: Vec::new(),
            subs: Vec::new(),
            broken: Vec::new(),
            roles: BTreeMap::new(),
            pending: BTreeMap::new(),
            announcing: Vec::new(),
            serving: BTreeMap::new(),
            next_subscribe: 0,
            started: false,
            leaving: false,
        }
    }

    /// Handles received data, and serves the relay's requests.
    pub fn turn(&mut self, t: &mut PairEnd, now: Instant) {
        if self.closed.is_some() {
            return;
        }
        if !self.started {
            self.started = self.begin(t);
        }
        while let Some(event) = t.poll() {
            match event {
                TransportEvent::Opened(stream, Dir::Uni) => {
                    self.roles.insert(stream, StreamPurpose::Header(MessageBuf::new()));
                }
                TransportEvent::Opened(stream, Dir::Bi) => {
                    self.roles.insert(stream, StreamPurpose::Request(MessageBuf::new(), None));
                }
                TransportEvent::Stopped(stream, code) => {
                    self.pending.remove(&stream);
                    t.reset(stream, code);
                    self.serving.remove(&stream);
                }
                TransportEvent::Closed(why) => {
                    self.closed = Some(why);
                    self.live.clear();
                    return;
                }
                _ => {}
            }
        }
        for stream in self.roles.keys().copied().collect::<Vec<_>>() {
            self.read(t, stream, now);
        }
        for stream in self.pending.keys().copied().collect::<Vec<_>>() {
            self.flush(t, stream);
        }
        self.serve(t);
    }

    /// Closes the session.
    pub fn close(&mut self, t: &mut PairEnd, now: Instant) {
        self.leaving = true;
        t.close(now, SessionCode::NONE, "bye");
    }

    /// Number of the relay's current subscriptions, by broadcast.
    pub fn served(&self) -> BTreeMap<Path, usize> {
        let mut count = BTreeMap::new();
        for serving in self.serving.values() {
            *count.entry(serving.path.clone()).or_default() += 1;
        }
        count
    }

    /// Watches all broadcasts.
    pub fn watch(&mut self, t: &mut PairEnd) {
        let request = AnnounceRequest { prefix: Path::root(), exclude_hop: Hop::ANONYMOUS };
        let stream = self.ask(t, BidiType::Announce, &request);
        let role =
            StreamPurpose::Watch { inbox: MessageBuf::new(), greeted: false, next: 0, ids: BTreeMap::new() };
        self.roles.insert(stream, role);
    }

    /// Subscribes to the track of a broadcast.
    pub fn subscribe(&mut self, t: &mut PairEnd, path: Path, prefs: Prefs, now: Instant) {
        let id = self.next_subscribe;
        self.next_subscribe += 1;
        let request = Subscribe { id, broadcast: path.clone(), track: track(), prefs };
        let stream = self.ask(t, BidiType::Subscribe, &request);
        self.roles.insert(stream, StreamPurpose::Sub(MessageBuf::new(), self.subs.len()));
        self.subs.push(Sub {
            path,
            since: now,
            stream,
            id,
            groups: BTreeMap::new(),
            incarnation: None,
            last: None,
            end: None,
            bound: None,
        });
    }

    /// Cancels a subscription.
    pub fn unsubscribe(&mut self, t: &mut PairEnd, at: usize) {
        let sub = &mut self.subs[at];
        if sub.end.is_none() {
            sub.end = Some(Some(StreamCode::CANCEL));
            let stream = sub.stream;
            t.stop(stream, StreamCode::INTERNAL);
            self.finish(t, stream);
            self.roles.insert(stream, StreamPurpose::Deaf);
        }
    }

    /// Sends SETUP, once a stream can be opened.
    fn begin(&mut self, t: &mut PairEnd) -> bool {
        if self.version.has_setup() {
            let hop = Some(self.hop).filter(|hop| *hop != Hop::ANONYMOUS);
            let mut out = Vec::new();
            varint::put(UniType::Setup.id(), &mut out);
            Setup { hop, ..Setup::default() }.encode(self.version, &mut out);
            let Some(stream) = t.open(Dir::Uni, 0) else { return false };
            self.write(t, stream, out);
            self.finish(t, stream);
        }
        true
    }

    fn ask(&mut self, t: &mut PairEnd, kind: BidiType, message: &impl Message) -> Stream {
        let mut out = Vec::new();
        varint::put(kind.id(), &mut out);
        message.encode(self.version, &mut out);
        let stream = t.open(Dir::Bi, 0).expect("stream credit");
        self.write(t, stream, out);
        stream
    }

    fn write(&mut self, t: &mut PairEnd, stream: Stream, bytes: Vec<u8>) {
        self.pending.entry(stream).or_default().bytes.push_back(bytes.into());
        self.flush(t, stream);
    }

    fn finish(&mut self, t: &mut PairEnd, stream: Stream) {
        self.pending.entry(stream).or_default().finish = true;
        self.flush(t, stream);
    }

    fn flush(&mut self, t: &mut PairEnd, stream: Stream) {
        let Some(pending) = self.pending.get_mut(&stream) else { return };
        while let Some(front) = pending.bytes.front_mut() {
            if front.is_empty() {
                pending.bytes.pop_front();
                continue;
            }
            match t.write(stream, std::slice::from_mut(front)) {
                Ok(_) => {}
                Err(relay_model::transport::WriteError::Blocked) => return,
                Err(_) => pending.bytes.clear(),
            }
        }
        if pending.finish {
            t.finish(stream);
        }
        self.pending.remove(&stream);
    }

    fn record_violation(&mut self, what: String) {
        if !self.leaving {
            self.broken.push(what);
        }
    }
}

fn track() -> TrackName {
    TrackName::parse(TRACK).expect("a short name")
}
