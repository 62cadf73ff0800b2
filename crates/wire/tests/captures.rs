//! Captured sessions decode to what their peers meant, and encode to the same bytes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    path::PathBuf,
};

use bytes::Bytes;
use relay_model::{Hop, Prefs, TrackInfo};
use relay_wire::{
    Inbox,
    lite::{
        Announce, AnnounceOk, AnnounceRequest, BidiType, Datagram, Fetch, FrameHead, Goaway, GroupEvent,
        GroupReader, Message, Probe, Role, Setup, Status, Subscribe, SubscribeResponse, SubscribeUpdate,
        TrackRequest, UniType, Version, put_frame_head,
    },
    varint,
};
use serde::Deserialize;

const V: Version = Version::V05;

/// What all captures hold together, so that nothing passes by being skipped.
const COUNTS: &[(&str, usize)] = &[
    ("ANNOUNCE", 104),
    ("ANNOUNCE_OK", 88),
    ("ANNOUNCE_REQUEST", 89),
    ("DATAGRAM", 6),
    ("FETCH", 3),
    ("FIN", 344),
    ("FRAME", 142),
    ("GOAWAY", 2),
    ("GROUP", 94),
    ("PROBE", 195),
    ("RESET_STREAM", 50),
    ("SETUP", 89),
    ("STOP_SENDING", 271),
    ("SUBSCRIBE", 34),
    ("SUBSCRIBE_END", 15),
    ("SUBSCRIBE_START", 32),
    ("SUBSCRIBE_UPDATE", 8),
    ("TRACK", 64),
    ("TRACK_INFO", 53),
    ("stream", 422),
];

#[derive(Deserialize)]
struct Capture {
    version: String,
    events: Vec<Event>,
    decoded: Vec<String>,
}

#[derive(Deserialize)]
struct Event {
    dir: String,
    session: String,
    stream: Option<u64>,
    data: Option<String>,
    #[serde(default)]
    fin: bool,
    reset: Option<u64>,
    stop: Option<u64>,
    datagram: Option<String>,
}

#[test]
fn captured_sessions_decode_to_what_their_peers_meant() {
    let mut counts = BTreeMap::new();
    let mut files = 0;
    for (name, capture) in captures() {
        assert_eq!(Version::from_alpn(&capture.version), Some(V), "{name}");
        let mut replay = Replay::default();
        for (index, event) in capture.events.iter().enumerate() {
            replay.event(index, event);
        }
        let meant: Vec<String> =
            capture.decoded.iter().filter(|line| is_message(line)).map(|line| in_order(line)).collect();
        assert_eq!(replay.lines, meant, "{name}");
        for (key, stream) in &replay.streams {
            stream.check(&format!("{name} {key:?}"));
        }
        for line in &replay.lines {
            *counts.entry(kind(line).to_owned()).or_insert(0) += 1;
        }
        files += 1;
    }
    assert_eq!(files, 21);
    assert_eq!(counts, COUNTS.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect());
}

fn captures() -> impl Iterator<Item = (String, Capture)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/captures");
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|end| end == "json"));
    files.sort();
    files.into_iter().map(|file| {
        let name = file.file_name().unwrap().to_string_lossy().into_owned();
        let capture = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
        (name, capture)
    })
}

/// `[n] session dir sN: KIND fields`, or a datagram; the rest is about the connection.
fn words(line: &str) -> Vec<&str> {
    line.splitn(5, ' ').collect()
}

fn is_message(line: &str) -> bool {
    words(line).get(3).is_some_and(|word| *word == "DATAGRAM" || word.ends_with(':'))
}

fn kind(line: &str) -> &str {
    let words = words(line);
    if words[3] == "DATAGRAM" { words[3] } else { words[4].split(' ').next().unwrap() }
}

/// Parameters come in random order: sort those of a SETUP line.
fn in_order(line: &str) -> String {
    let Some((head, list)) = line.split_once(": SETUP [") else { return line.to_owned() };
    let mut parameters: Vec<&str> = list.trim_end_matches(']').split(", ").collect();
    parameters.sort_unstable();
    format!("{head}: SETUP [{}]", parameters.join(", "))
}

fn unhex(text: &str) -> Vec<u8> {
    assert!(text.len().is_multiple_of(2));
    (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap()).collect()
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Key {
    session: String,
    stream: u64,
    dir: String,
}

impl Key {
    fn is_opener(&self) -> bool {
        (self.dir == "r2c") == (self.stream & 1 == 1)
    }

    fn is_uni(&self) -> bool {
        self.stream & 2 == 2
    }

    fn reverse(&self) -> Self {
        let dir = if self.dir == "r2c" { "c2r" } else { "r2c" };
        Self { dir: dir.to_owned(), ..self.clone() }
    }
}

/// Every stream of one capture, and what came out of them.
#[derive(Default)]
struct Replay {
    streams: HashMap<Key, Stream>,
    lines: Vec<String>,
}

impl Replay {
    fn event(&mut self, index: usize, event: &Event) {
        let mut lines = Vec::new();
        let prefix = format!("[{index}] {} {}", event.session, event.dir);
        if let Some(body) = &event.datagram {
            self.lines.push(format!("{prefix} {}", datagram(unhex(body))));
            return;
        }
        let Some(stream) = event.stream else { return };
        let key = Key { session: event.session.clone(), stream, dir: event.dir.clone() };
        if let Some(data) = &event.data {
            let role = self.role(&key);
            let stream = self.streams.entry(key).or_insert_with(|| Stream::new(role));
            stream.push(&unhex(data), &mut lines);
            if event.fin {
                stream.check("at its FIN");
                lines.push("FIN".to_owned());
            }
        }
        lines.extend(event.reset.map(|code| format!("RESET_STREAM code={code}")));
        lines.extend(event.stop.map(|code| format!("STOP_SENDING code={code}")));
        self.lines.extend(lines.into_iter().map(|line| format!("{prefix} s{stream}: {line}")));
    }

    /// What a direction carries: an answer depends on what was asked.
    fn role(&self, key: &Key) -> State {
        if key.is_opener() {
            return if key.is_uni() { State::UniType } else { State::BidiType };
        }
        match self.streams.get(&key.reverse()).map(|asked| &asked.state) {
            Some(State::Request(kind)) | Some(State::Asked(kind)) => match kind {
                BidiType::Fetch => State::Frames(Box::new(Frames::new(GroupReader::frames(V)))),
                kind => State::Answer(*kind, 0),
            },
            other => panic!("{key:?} answers {other:?}"),
        }
    }
}

#[derive(Debug)]
enum State {
    UniType,
    BidiType,
    Setup,
    /// The first message of a request is due.
    Request(BidiType),
    /// It was read.
    Asked(BidiType),
    /// With the number of messages read.
    Answer(BidiType, usize),
    Frames(Box<Frames>),
}

/// One direction of one stream.
struct Stream {
    state: State,
    inbox: Inbox,
    received: Vec<u8>,
    encoded: Vec<u8>,
}

impl Stream {
    fn new(state: State) -> Self {
        Self { state, inbox: Inbox::new(), received: Vec::new(), encoded: Vec::new() }
    }

    fn push(&mut self, bytes: &[u8], lines: &mut Vec<String>) {
        self.received.extend_from_slice(bytes);
        if let State::Frames(frames) = &mut self.state {
            return frames.push(Bytes::copy_from_slice(bytes), &mut self.encoded, lines);
        }
        self.inbox.push(bytes);
        while let Some(line) = self.step() {
            lines.push(line);
            if let State::Frames(frames) = &mut self.state {
                // All that is left belongs to the group.
                let rest = self.received[self.encoded.len()..].to_vec();
                self.inbox = Inbox::new();
                return frames.push(rest.into(), &mut self.encoded, lines);
            }
        }
    }

    /// The next message, if it is whole.
    fn step(&mut self) -> Option<String> {
        match self.state {
            State::UniType => {
                let id = self.kind()?;
                let (state, name) = match UniType::from_id(id).unwrap() {
                    UniType::Group => (State::Frames(Box::new(Frames::new(GroupReader::new(V)))), "group"),
                    UniType::Setup => (State::Setup, "setup"),
                };
                self.state = state;
                Some(format!("stream type {id} ({name})"))
            }
            State::BidiType => {
                let id = self.kind()?;
                let kind = BidiType::from_id(id).unwrap();
                self.state = State::Request(kind);
                Some(format!("stream type {id} ({})", format!("{kind:?}").to_lowercase()))
            }
            State::Setup => self.message(setup),
            State::Request(kind) => {
                let line = self.request(kind)?;
                self.state = State::Asked(kind);
                Some(line)
            }
            State::Asked(kind) => {
                assert!(kind == BidiType::Subscribe || self.inbox.is_empty(), "{kind:?} goes on");
                self.message(|update: &SubscribeUpdate| format!("SUBSCRIBE_UPDATE {}", prefs(&update.prefs)))
            }
            State::Answer(kind, count) => {
                let line = self.answer(kind, count)?;
                self.state = State::Answer(kind, count + 1);
                Some(line)
            }
            State::Frames(_) => None,
        }
    }

    fn kind(&mut self) -> Option<u64> {
        let id = self.inbox.next_varint()?;
        varint::put(id, &mut self.encoded);
        Some(id)
    }

    fn message<M: Message>(&mut self, line: impl FnOnce(&M) -> String) -> Option<String> {
        let message = self.inbox.next::<M>(V).unwrap()?;
        message.encode(V, &mut self.encoded);
        Some(line(&message))
    }

    fn request(&mut self, kind: BidiType) -> Option<String> {
        match kind {
            BidiType::Announce => self.message(|m: &AnnounceRequest| {
                format!("ANNOUNCE_REQUEST prefix='{}' exclude_hop={}", m.prefix, m.exclude_hop.0)
            }),
            BidiType::Subscribe => self.message(|m: &Subscribe| {
                let prefs = prefs(&m.prefs);
                format!("SUBSCRIBE id={} broadcast='{}' track='{}' {prefs}", m.id, m.broadcast, m.track)
            }),
            BidiType::Fetch => self.message(|m: &Fetch| {
                let Fetch { broadcast, track, priority, group } = m;
                format!("FETCH broadcast='{broadcast}' track='{track}' priority={priority} group={group}")
            }),
            BidiType::Probe => None,
            BidiType::Goaway => self.message(|m: &Goaway| format!("GOAWAY uri='{}'", m.uri)),
            BidiType::Track => self
                .message(|m: &TrackRequest| format!("TRACK broadcast='{}' track='{}'", m.broadcast, m.track)),
        }
    }

    fn answer(&mut self, kind: BidiType, count: usize) -> Option<String> {
        match (kind, count) {
            (BidiType::Announce, 0) => {
                self.message(|m: &AnnounceOk| format!("ANNOUNCE_OK hop={} count={}", m.hop.0, m.count))
            }
            (BidiType::Announce, _) => self.message(announce),
            (BidiType::Subscribe, _) => {
                let response = SubscribeResponse::next(&mut self.inbox, V).unwrap()?;
                response.encode(V, &mut self.encoded);
                Some(match response {
                    SubscribeResponse::Start { group } => format!("SUBSCRIBE_START group={group}"),
                    SubscribeResponse::End { group } => format!("SUBSCRIBE_END group={group} (exclusive)"),
                    SubscribeResponse::Drop { start, end, code } => {
                        format!("SUBSCRIBE_DROP start={start} end={end} error={code}")
                    }
                })
            }
            (BidiType::Probe, _) => {
                self.message(|m: &Probe| format!("PROBE bitrate={} rtt={}", m.bitrate, m.rtt_ms))
            }
            (BidiType::Track, 0) => self.message(track_info),
            (kind, count) => {
                assert!(self.inbox.is_empty(), "{kind:?} has no answer {count}");
                None
            }
        }
    }

    /// No byte is left over, and what was understood encodes to what was received.
    fn check(&self, what: &str) {
        assert!(self.inbox.is_empty(), "{what}");
        match &self.state {
            State::Frames(frames) => assert!(frames.reader.at_boundary(), "{what}"),
            State::UniType | State::BidiType => panic!("{what}: no type"),
            // A SETUP may order its parameters otherwise.
            State::Setup => return assert_eq!(self.encoded.len(), self.received.len(), "{what}"),
            _ => {}
        }
        assert_eq!(self.encoded, self.received, "{what}");
    }
}

/// A group stream, or the answer to a fetch.
#[derive(Debug)]
struct Frames {
    reader: GroupReader,
    tick: i64,
    head: Option<FrameHead>,
    delta: i64,
    payload: Vec<u8>,
}

impl Frames {
    fn new(reader: GroupReader) -> Self {
        Self { reader, tick: 0, head: None, delta: 0, payload: Vec::new() }
    }

    fn push(&mut self, mut input: Bytes, encoded: &mut Vec<u8>, lines: &mut Vec<String>) {
        while let Some(event) = self.reader.next(&mut input).unwrap() {
            match event {
                GroupEvent::Header(group) => {
                    group.encode(V, encoded);
                    lines.push(format!("GROUP subscribe_id={} sequence={}", group.subscribe, group.sequence));
                }
                GroupEvent::Frame(head) => {
                    put_frame_head(V, self.tick, head, encoded);
                    self.delta = head.tick - self.tick;
                    self.tick = head.tick;
                    self.head = Some(head);
                }
                GroupEvent::Payload(piece) => {
                    encoded.extend_from_slice(&piece);
                    self.payload.extend_from_slice(&piece);
                }
            }
            if let Some(head) = self.head.take_if(|head| head.size == self.payload.len() as u64) {
                let payload = std::mem::take(&mut self.payload);
                let (delta, size) = (self.delta, head.size);
                lines.push(format!(
                    "FRAME ts_delta={delta} size={size} payload=b'{}'",
                    payload.escape_ascii()
                ));
            }
        }
        assert!(input.is_empty());
    }
}

fn datagram(body: Vec<u8>) -> String {
    let datagram = Datagram::decode(V, body.clone().into()).unwrap();
    let mut encoded = Vec::new();
    datagram.encode(V, &mut encoded);
    assert_eq!(encoded, body);
    let Datagram { subscribe, sequence, tick, payload } = datagram;
    let payload = payload.escape_ascii();
    format!("DATAGRAM subscribe_id={subscribe} sequence={sequence} timestamp={tick} payload=b'{payload}'")
}

fn setup(setup: &Setup) -> String {
    let role = setup.role.map(|role| match role {
        Role::Publisher => 1,
        Role::Subscriber => 2,
    });
    let mut parameters: Vec<String> = [
        setup.cost.map(|cost| format!("'cost={cost}'")),
        setup.hop.map(|Hop(hop)| format!("'hop={hop}'")),
        setup.path.as_ref().map(|path| format!("'path={path}'")),
        (setup.probe != 0).then(|| format!("'probe={}'", setup.probe)),
        role.map(|role| format!("'role={role}'")),
    ]
    .into_iter()
    .flatten()
    .collect();
    parameters.sort();
    format!("SETUP [{}]", parameters.join(", "))
}

fn announce(announce: &Announce) -> String {
    let status = match announce.status {
        Status::Ended => "0 (ended)",
        Status::Active => "1 (active)",
    };
    let hops: Vec<u64> = announce.hops.iter().map(|hop| hop.0).collect();
    format!("ANNOUNCE status={status} suffix='{}' hops={hops:?}", announce.suffix)
}

fn track_info(info: &TrackInfo) -> String {
    let TrackInfo { priority, ordered, max_age_ms, timescale } = info;
    let ordered = u8::from(*ordered);
    format!("TRACK_INFO priority={priority} ordered={ordered} max_age={max_age_ms} timescale={timescale}")
}

fn prefs(prefs: &Prefs) -> String {
    let mut out = format!(
        "priority={} ordered={} max_latency={}",
        prefs.priority,
        u8::from(prefs.ordered),
        prefs.max_age_ms
    );
    for (name, group) in [("start_group", prefs.start), ("end_group", prefs.end)] {
        let group = group.map_or("None".to_owned(), |group| group.to_string());
        write!(out, " {name}={group}").unwrap();
    }
    out
}
