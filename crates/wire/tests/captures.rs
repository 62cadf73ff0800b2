//! Captured sessions of deployed peers decode to the recorded messages, and encode to the same bytes.

use std::{
    collections::{BTreeMap, HashMap},
    fmt::Write as _,
    path::PathBuf,
};

use bytes::Bytes;
use relay_model::{Hop, Hops, Prefs, TrackInfo};
use relay_wire::{
    MessageBuf,
    lite::{
        Announce, AnnounceInit, AnnounceOk, AnnounceRequest, BidiType, Datagram, Fetch, FrameHead, Goaway,
        GroupEvent, GroupReader, Message, Probe, Role, Setup, Subscribe, SubscribeOk, SubscribeResponse,
        SubscribeUpdate, TrackRequest, UniType, Version,
        legacy::{self, ClientSetup, ServerSetup, Value},
        put_frame_head,
    },
    varint,
};
use serde::Deserialize;

/// Number of captures per version, in the order of the columns of [`COUNTS`].
const FILES: [(Version, usize); 6] = [
    (Version::V01, 13),
    (Version::V02, 23),
    (Version::V03, 16),
    (Version::V04, 17),
    (Version::V05, 21),
    (Version::V06, 18),
];

/// Number of messages by kind in all captures of a version, so that no message is skipped unnoticed.
const COUNTS: &[(&str, [usize; 6])] = &[
    ("ANNOUNCE", [39, 67, 58, 77, 104, 0]),
    ("ANNOUNCE_INIT", [56, 94, 0, 0, 0, 0]),
    ("ANNOUNCE_OK", [0, 0, 0, 0, 88, 74]),
    ("ANNOUNCE_REQUEST", [56, 94, 70, 74, 89, 75]),
    ("CLIENT_SETUP", [28, 47, 0, 0, 0, 0]),
    ("DATAGRAM", [0, 0, 0, 0, 6, 6]),
    ("END", [0, 0, 0, 0, 0, 12]),
    ("FETCH", [0, 0, 0, 0, 3, 3]),
    ("FIN", [57, 147, 107, 105, 344, 228]),
    ("FRAME", [58, 153, 101, 97, 142, 81]),
    ("GOAWAY", [0, 0, 0, 2, 2, 2]),
    ("GROUP", [38, 107, 72, 67, 94, 49]),
    ("PROBE", [0, 0, 54, 179, 195, 146]),
    ("RESET_STREAM", [26, 31, 32, 28, 50, 27]),
    ("RESTART", [0, 0, 0, 0, 0, 9]),
    ("SERVER_SETUP", [28, 47, 0, 0, 0, 0]),
    ("SETUP", [0, 0, 0, 0, 89, 75]),
    ("START", [0, 0, 0, 0, 0, 42]),
    ("STOP_SENDING", [32, 52, 44, 43, 271, 187]),
    ("SUBSCRIBE", [20, 42, 32, 32, 34, 22]),
    ("SUBSCRIBE_END", [0, 0, 0, 0, 15, 7]),
    ("SUBSCRIBE_OK", [17, 37, 27, 27, 0, 0]),
    ("SUBSCRIBE_START", [0, 0, 0, 0, 32, 20]),
    ("SUBSCRIBE_UPDATE", [0, 0, 6, 6, 8, 4]),
    ("TRACK", [0, 0, 0, 0, 64, 40]),
    ("TRACK_INFO", [0, 0, 0, 0, 53, 35]),
    ("stream", [114, 243, 243, 248, 422, 306]),
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
    let mut counts: BTreeMap<String, [usize; 6]> = BTreeMap::new();
    let mut files = [0; 6];
    for (name, capture) in captures() {
        let version = Version::every().find(|version| version.name() == capture.version).unwrap();
        let column = FILES.iter().position(|(of, _)| *of == version).unwrap();
        let mut replay = Replay::new(version);
        for (index, event) in capture.events.iter().enumerate() {
            replay.event(index, event);
        }
        let meant: Vec<String> =
            capture.decoded.iter().filter(|line| is_message(line)).map(|line| in_order(line)).collect();
        let lines: Vec<String> = replay.lines.iter().map(|line| in_order(line)).collect();
        assert_eq!(lines, meant, "{name}");
        for (key, stream) in &replay.streams {
            stream.check(&format!("{name} {key:?}"));
        }
        for line in &replay.lines {
            counts.entry(kind(line).to_owned()).or_default()[column] += 1;
        }
        files[column] += 1;
    }
    assert_eq!(files, FILES.map(|(_, count)| count));
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

/// Splits a line of the form `[n] session dir sN: KIND fields`, or of a datagram. Other lines are about the
/// connection.
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

/// Sorts the parameters of a SETUP line, which peers send in random order.
fn in_order(line: &str) -> String {
    let Some((head, list)) = line.split_once(": SETUP [").or_else(|| line.split_once(" params=[")) else {
        return line.to_owned();
    };
    let list = list.replace(['"', '\''], "");
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

/// All streams of one capture, and the decoded lines.
struct Replay {
    version: Version,
    streams: HashMap<Key, Stream>,
    lines: Vec<String>,
}

impl Replay {
    fn new(version: Version) -> Self {
        Self { version, streams: HashMap::new(), lines: Vec::new() }
    }

    fn event(&mut self, index: usize, event: &Event) {
        let mut lines = Vec::new();
        let prefix = format!("[{index}] {} {}", event.session, event.dir);
        if let Some(body) = &event.datagram {
            self.lines.push(format!("{prefix} {}", datagram(self.version, unhex(body))));
            return;
        }
        let Some(stream) = event.stream else { return };
        let key = Key { session: event.session.clone(), stream, dir: event.dir.clone() };
        if let Some(data) = &event.data {
            let role = self.role(&key);
            let stream = self.streams.entry(key).or_insert_with(|| Stream::new(self.version, role));
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

    /// Returns the initial state of one direction of a stream; that of a response depends on the request.
    fn role(&self, key: &Key) -> State {
        if key.is_opener() {
            return if key.is_uni() { State::UniType } else { State::BidiType };
        }
        match self.streams.get(&key.reverse()).map(|asked| &asked.state) {
            Some(State::Said) => State::ServerSetup,
            Some(State::Request(kind)) | Some(State::Asked(kind)) => match kind {
                BidiType::Fetch => {
                    State::Frames(Box::new(Frames::new(self.version, GroupReader::frames(self.version))))
                }
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
    ClientSetup,
    ServerSetup,
    /// CLIENT_SETUP or SERVER_SETUP was read.
    Said,
    /// The first message of a request is due.
    Request(BidiType),
    /// The first message of a request was read.
    Asked(BidiType),
    /// Response, with the number of messages read.
    Answer(BidiType, usize),
    Frames(Box<Frames>),
}

/// One direction of one stream.
struct Stream {
    version: Version,
    state: State,
    inbox: MessageBuf,
    received: Vec<u8>,
    encoded: Vec<u8>,
}

impl Stream {
    fn new(version: Version, state: State) -> Self {
        Self { version, state, inbox: MessageBuf::new(), received: Vec::new(), encoded: Vec::new() }
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
                // The remaining bytes belong to the group.
                let rest = self.received[self.encoded.len()..].to_vec();
                self.inbox = MessageBuf::new();
                return frames.push(rest.into(), &mut self.encoded, lines);
            }
        }
    }

    /// Decodes the next message, if it is complete.
    fn step(&mut self) -> Option<String> {
        match self.state {
            State::UniType => {
                let id = self.kind()?;
                let version = self.version;
                let (state, name) = match UniType::from_id(version, id).unwrap() {
                    UniType::Group => {
                        (State::Frames(Box::new(Frames::new(version, GroupReader::new(version)))), "group")
                    }
                    UniType::Setup => (State::Setup, "setup"),
                };
                self.state = state;
                Some(format!("stream type {id} ({name})"))
            }
            State::BidiType => {
                let id = self.kind()?;
                if id == legacy::CLIENT_SETUP {
                    self.state = State::ClientSetup;
                    return self.step();
                }
                let kind = BidiType::from_id(self.version, id).unwrap();
                self.state = State::Request(kind);
                Some(format!("stream type {id} ({})", format!("{kind:?}").to_lowercase()))
            }
            State::Setup => self.message(setup),
            State::ClientSetup => {
                let setup = ClientSetup::next(&mut self.inbox).unwrap()?;
                self.encoded.clear();
                setup.encode(&mut self.encoded);
                assert_eq!(setup.choose(), Some(Version::V02), "the client prefers it");
                self.state = State::Said;
                Some(client_setup(&setup))
            }
            State::ServerSetup => {
                let setup = ServerSetup::next(&mut self.inbox).unwrap()?;
                assert_eq!(setup.version, self.version);
                setup.encode(&mut self.encoded);
                self.state = State::Said;
                Some(format!("SERVER_SETUP version={:#x} params=[]", legacy::code(setup.version).unwrap()))
            }
            State::Said => None,
            State::Request(kind) => {
                let line = self.request(kind)?;
                self.state = State::Asked(kind);
                Some(line)
            }
            State::Asked(kind) => {
                assert!(kind == BidiType::Subscribe || self.inbox.is_empty(), "{kind:?} goes on");
                let version = self.version;
                self.message(|update: &SubscribeUpdate| {
                    format!("SUBSCRIBE_UPDATE {}", prefs(version, &update.prefs))
                })
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
        let message = self.inbox.next::<M>(self.version).unwrap()?;
        message.encode(self.version, &mut self.encoded);
        Some(line(&message))
    }

    fn request(&mut self, kind: BidiType) -> Option<String> {
        let version = self.version;
        match kind {
            BidiType::Announce => self.message(|m: &AnnounceRequest| {
                let exclude = match version {
                    Version::V04 | Version::V05 => format!(" exclude_hop={}", m.exclude_hop.0),
                    _ => String::new(),
                };
                format!("ANNOUNCE_REQUEST prefix='{}'{exclude}", m.prefix)
            }),
            BidiType::Subscribe => self.message(|m: &Subscribe| {
                let prefs = prefs(version, &m.prefs);
                format!("SUBSCRIBE id={} broadcast='{}' track='{}' {prefs}", m.id, m.broadcast, m.track)
            }),
            BidiType::Fetch => self.message(|m: &Fetch| fetch(version, m)),
            BidiType::Probe => None,
            BidiType::Goaway => self.message(|m: &Goaway| format!("GOAWAY uri='{}'", m.uri)),
            BidiType::Track => self
                .message(|m: &TrackRequest| format!("TRACK broadcast='{}' track='{}'", m.broadcast, m.track)),
        }
    }

    fn answer(&mut self, kind: BidiType, count: usize) -> Option<String> {
        let version = self.version;
        match (kind, count) {
            (BidiType::Announce, 0) if version >= Version::V05 => {
                self.message(|m: &AnnounceOk| format!("ANNOUNCE_OK hop={} count={}", m.hop.0, m.count))
            }
            (BidiType::Announce, 0) if version <= Version::V02 => self.message(|m: &AnnounceInit| {
                let suffixes: Vec<String> = m.suffixes.iter().map(|suffix| format!("'{suffix}'")).collect();
                format!("ANNOUNCE_INIT [{}]", suffixes.join(", "))
            }),
            (BidiType::Announce, _) => {
                let message = Announce::next(&mut self.inbox, version).unwrap()?;
                message.encode(version, &mut self.encoded);
                Some(announce(version, &message))
            }
            (BidiType::Subscribe, _) => {
                let message = SubscribeResponse::next(&mut self.inbox, version).unwrap()?;
                message.encode(version, &mut self.encoded);
                Some(response(version, &message))
            }
            (BidiType::Probe, _) => self.message(|m: &Probe| match version {
                Version::V03 => format!("PROBE bitrate={}", m.bitrate),
                _ => format!("PROBE bitrate={} rtt={}", m.bitrate, m.rtt_ms),
            }),
            (BidiType::Track, 0) => self.message(|m: &TrackInfo| track_info(version, m)),
            (kind, count) => {
                assert!(self.inbox.is_empty(), "{kind:?} has no answer {count}");
                None
            }
        }
    }

    /// Checks that no byte is left over, and that the decoded messages encode to the received bytes.
    fn check(&self, what: &str) {
        assert!(self.inbox.is_empty(), "{what}");
        match &self.state {
            State::Frames(frames) => assert!(frames.reader.at_boundary(), "{what}"),
            State::UniType | State::BidiType => panic!("{what}: no type"),
            // The parameters of a SETUP may be in another order.
            State::Setup => return assert_eq!(self.encoded.len(), self.received.len(), "{what}"),
            _ => {}
        }
        assert_eq!(self.encoded, self.received, "{what}");
    }
}

/// Decoder of a group stream, or of the response to a FETCH.
#[derive(Debug)]
struct Frames {
    version: Version,
    reader: GroupReader,
    previous: i64,
    /// Frame with an incomplete payload, and its timestamp delta as written in the line.
    frame: Option<(FrameHead, String)>,
    payload: Vec<u8>,
}

impl Frames {
    fn new(version: Version, reader: GroupReader) -> Self {
        Self { version, reader, previous: 0, frame: None, payload: Vec::new() }
    }

    fn push(&mut self, mut input: Bytes, encoded: &mut Vec<u8>, lines: &mut Vec<String>) {
        while let Some(event) = self.reader.next(&mut input).unwrap() {
            match event {
                GroupEvent::Header(group) => {
                    group.encode(self.version, encoded);
                    let mut line =
                        format!("GROUP subscribe_id={} sequence={}", group.subscribe, group.sequence);
                    if self.version >= Version::V06 {
                        write!(line, " first_frame={}", group.first_frame).unwrap();
                    }
                    lines.push(line);
                }
                GroupEvent::Frame(head) => {
                    put_frame_head(self.version, self.previous, head, encoded);
                    assert_eq!(head.tick.is_some(), self.version >= Version::V05);
                    let delta = head.tick.map_or(String::new(), |tick| {
                        format!(" ts_delta={}", tick - std::mem::replace(&mut self.previous, tick))
                    });
                    self.frame = Some((head, delta));
                }
                GroupEvent::Payload(piece) => {
                    encoded.extend_from_slice(&piece);
                    self.payload.extend_from_slice(&piece);
                }
            }
            if let Some((head, delta)) =
                self.frame.take_if(|(head, _)| head.size == self.payload.len() as u64)
            {
                let payload = std::mem::take(&mut self.payload);
                let size = head.size;
                lines.push(format!("FRAME{delta} size={size} payload=b'{}'", payload.escape_ascii()));
            }
        }
        assert!(input.is_empty());
    }
}

fn datagram(version: Version, body: Vec<u8>) -> String {
    let datagram = Datagram::decode(version, body.clone().into()).unwrap();
    let mut encoded = Vec::new();
    datagram.encode(version, &mut encoded);
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

fn client_setup(setup: &ClientSetup) -> String {
    let versions: Vec<String> = setup.versions.iter().map(|code| format!("'{code:#x}'")).collect();
    let parameters: Vec<String> = setup
        .parameters
        .iter()
        .map(|(id, value)| match value {
            Value::Number(number) => format!("'{id:#x}={number}'"),
            Value::Bytes(bytes) => format!("\"{id:#x}=b'{}'\"", bytes.escape_ascii()),
        })
        .collect();
    format!("CLIENT_SETUP versions=[{}] params=[{}]", versions.join(", "), parameters.join(", "))
}

fn announce(version: Version, announce: &Announce) -> String {
    let chain = |hops: &Hops| match version {
        Version::V01 | Version::V02 => String::new(),
        Version::V03 => format!(" hop_count={}", hops.len()),
        _ => format!(" hops={:?}", hops.iter().map(|hop| hop.0).collect::<Vec<u64>>()),
    };
    match announce {
        Announce::Active { suffix, hops, cost } if version >= Version::V06 => {
            format!("START suffix='{suffix}'{} warm={} cold={}", chain(hops), cost.warm, cost.cold)
        }
        Announce::Active { suffix, hops, .. } => {
            format!("ANNOUNCE status=1 (active) suffix='{suffix}'{}", chain(hops))
        }
        Announce::Ended { suffix } => {
            format!("ANNOUNCE status=0 (ended) suffix='{suffix}'{}", chain(&Hops::from([])))
        }
        Announce::Restart { id, hops, cost } => {
            format!("RESTART id={id}{} warm={} cold={}", chain(hops), cost.warm, cost.cold)
        }
        Announce::EndedId { id } => format!("END id={id}"),
    }
}

fn response(version: Version, response: &SubscribeResponse) -> String {
    match response {
        SubscribeResponse::Ok(_) if version == Version::V02 => "SUBSCRIBE_OK (empty)".to_owned(),
        SubscribeResponse::Ok(ok) if version == Version::V01 => {
            format!("SUBSCRIBE_OK priority={}", ok.priority)
        }
        SubscribeResponse::Ok(SubscribeOk { priority, ordered, max_age_ms, start, end }) => format!(
            "SUBSCRIBE_OK priority={priority} ordered={} max_latency={max_age_ms} start_group={} end_group={}",
            u8::from(*ordered),
            or_none(*start),
            or_none(*end)
        ),
        SubscribeResponse::Start { group } => format!("SUBSCRIBE_START group={group}"),
        SubscribeResponse::End { group } => format!("SUBSCRIBE_END group={group} (exclusive)"),
        SubscribeResponse::Drop { start, end, code } => {
            format!("SUBSCRIBE_DROP start={start} end={end} error={code}")
        }
    }
}

fn track_info(version: Version, info: &TrackInfo) -> String {
    let TrackInfo { priority, ordered, max_age_ms, timescale } = info;
    let ordered = match version {
        Version::V06 => String::new(),
        _ => format!(" ordered={}", u8::from(*ordered)),
    };
    format!("TRACK_INFO priority={priority}{ordered} max_age={max_age_ms} timescale={timescale}")
}

fn fetch(version: Version, fetch: &Fetch) -> String {
    let Fetch { broadcast, track, priority, group, start_frame, end_frame } = fetch;
    let range = match version {
        Version::V06 => format!(" start_frame={start_frame} end_frame={}", or_none(*end_frame)),
        _ => String::new(),
    };
    format!("FETCH broadcast='{broadcast}' track='{track}' priority={priority} group={group}{range}")
}

fn prefs(version: Version, prefs: &Prefs) -> String {
    let Prefs { priority, ordered, max_age_ms, start, start_frame, end, end_frame } = *prefs;
    let (start, end) = (or_none(start.floor()), or_none(end));
    match version {
        Version::V01 | Version::V02 => format!("priority={priority}"),
        Version::V06 => format!(
            "priority={priority} max_age={max_age_ms} start_group={start} end_group={end} \
             start_frame={start_frame} end_frame={}",
            or_none(end_frame)
        ),
        _ => format!(
            "priority={priority} ordered={} max_latency={max_age_ms} start_group={start} end_group={end}",
            u8::from(ordered)
        ),
    }
}

fn or_none(value: Option<u64>) -> String {
    value.map_or("None".to_owned(), |value| value.to_string())
}
