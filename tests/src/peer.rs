//! Scripted peer: sends any bytes on any stream.

use bytes::Bytes;
use relay_client::{
    Client, ClientConfig, Closed, Error, Hop, Path, Prefs, Raw, RecvStream, SendStream, SessionCode,
    StreamCode, TrackInfo,
};
use relay_model::Cost;
use relay_wire::{
    MessageBuf,
    lite::{
        Announce, AnnounceOk, AnnounceRequest, BidiType, Group, Message, Setup, Subscribe, TrackRequest,
        UniType, Version, put_group_header,
    },
    varint,
};

use crate::{media::code_of, relay::TestRelay, within};

/// Protocol version of the peer.
pub const VERSION: Version = Version::V05;

/// A session whose streams are written by the test.
#[derive(Debug)]
pub struct Peer {
    /// The connection.
    pub client: Client,
    /// Access to its streams.
    pub raw: Raw,
}

/// A subscription of the relay to a [`Peer`].
#[derive(Debug)]
pub struct Upstream {
    /// The request.
    pub subscribe: Subscribe,
    /// Stream of the answers.
    pub send: SendStream,
    /// Stream of the updates.
    pub recv: RecvStream,
    /// Streams that must stay open.
    pub kept: Vec<(SendStream, RecvStream)>,
}

impl Peer {
    /// Connects without sending SETUP.
    pub async fn silent(relay: &TestRelay, url: &str) -> Self {
        let client = relay.connect_to(url, ClientConfig { manual: true, ..ClientConfig::default() }).await;
        let raw = client.raw();
        Self { client, raw }
    }

    /// Connects and sends a valid SETUP.
    pub async fn greet(relay: &TestRelay, url: &str) -> Self {
        let peer = Self::silent(relay, url).await;
        let path = url.starts_with("moqt").then(|| "/".to_owned());
        let setup = Setup { path, hop: Some(ClientConfig::default().hop), ..Setup::default() };
        peer.uni(&[&number(UniType::Setup.id())[..], &encoded(&setup)].concat(), true).await;
        peer
    }

    /// Opens a unidirectional stream with these bytes, finished or not.
    pub async fn uni(&self, bytes: &[u8], finish: bool) -> SendStream {
        let mut stream = within("a stream", 10, self.raw.open_uni()).await.expect("a stream");
        // The peer may have closed the stream already, which is for the test to detect.
        let _ = within("a write", 10, stream.write(bytes)).await;
        if finish {
            stream.finish();
        }
        stream
    }

    /// Opens a bidirectional stream with these bytes.
    pub async fn bidi(&self, bytes: &[u8]) -> (SendStream, RecvStream) {
        let (mut send, recv) = within("a stream", 10, self.raw.open_bidi()).await.expect("a stream");
        let _ = within("a write", 10, send.write(bytes)).await;
        (send, recv)
    }

    /// Opens a request stream.
    pub async fn ask(&self, kind: BidiType, message: &impl Message) -> (SendStream, RecvStream) {
        self.bidi(&[&number(kind.id())[..], &encoded(message)].concat()).await
    }

    /// Announces `path` on request, answers TRACK, and waits for a subscription.
    pub async fn publish(&mut self, path: &str) -> Upstream {
        let mut kept = Vec::new();
        loop {
            let (mut send, mut recv) =
                within("a request", 15, self.raw.accept_bidi()).await.expect("a live session");
            let kind = recv.varint().await.expect("a type").and_then(|id| BidiType::from_id(VERSION, id));
            match kind.expect("a known type") {
                BidiType::Announce => {
                    let _: AnnounceRequest = message(&mut recv).await;
                    send.write(&announcing(path, &[])).await.expect("a write");
                    kept.push((send, recv));
                }
                BidiType::Track => {
                    let _: TrackRequest = message(&mut recv).await;
                    send.write(&encoded(&TrackInfo::default())).await.expect("a write");
                    send.finish();
                }
                BidiType::Subscribe => {
                    let subscribe = message(&mut recv).await;
                    return Upstream { subscribe, send, recv, kept };
                }
                other => panic!("the relay asked {other:?}"),
            }
        }
    }

    /// Waits for the relay's close; returns its code and reason.
    pub async fn closed(&self) -> (SessionCode, String) {
        match within("the close", 10, self.client.closed()).await {
            Closed::Peer { code, reason } => (code.session().expect("a code of ours"), reason),
            other => panic!("{other:?}"),
        }
    }

    /// Asserts that the session is alive: a request is answered.
    pub async fn assert_alive(&self) {
        let request = AnnounceRequest { prefix: path("nothing/here"), exclude_hop: Hop::ANONYMOUS };
        let (_send, mut recv) = self.ask(BidiType::Announce, &request).await;
        let answer: AnnounceOk = message(&mut recv).await;
        assert_eq!(answer.count, 0);
    }
}

impl Upstream {
    /// Header of a group stream for this subscription, stream type first.
    pub fn group_header(&self, sequence: u64) -> Vec<u8> {
        let mut out = Vec::new();
        put_group_header(
            VERSION,
            &Group { subscribe: self.subscribe.id, sequence, first_frame: 0 },
            &mut out,
        );
        out
    }
}

/// A valid SUBSCRIBE.
pub fn subscribe(id: u64, broadcast: &str, track: &str) -> Subscribe {
    let track = relay_model::TrackName::parse(track).expect("a name");
    Subscribe { id, broadcast: path(broadcast), track, prefs: Prefs::default() }
}

/// A valid path.
pub fn path(raw: &str) -> Path {
    Path::parse(raw).expect("a path")
}

/// Answer to an announce request by a publisher of one broadcast.
pub fn announcing(suffix: &str, hops: &[Hop]) -> Vec<u8> {
    let mut out = encoded(&AnnounceOk { hop: ClientConfig::default().hop, count: 1 });
    let announce = Announce::Active { suffix: path(suffix), hops: hops.into(), cost: Cost::UNKNOWN };
    announce.encode(VERSION, &mut out);
    out
}

/// Encodes a message with its size.
pub fn encoded(message: &impl Message) -> Vec<u8> {
    let mut out = Vec::new();
    message.encode(VERSION, &mut out);
    out
}

/// Encodes a varint.
pub fn number(value: u64) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(value, &mut out);
    out
}

/// Encodes bytes with their length.
pub fn sized(bytes: &[u8]) -> Vec<u8> {
    [&number(bytes.len() as u64)[..], bytes].concat()
}

/// Reads the next message of a stream.
pub async fn message<M: Message>(recv: &mut RecvStream) -> M {
    let mut inbox = MessageBuf::new();
    loop {
        if let Some(message) = inbox.next(VERSION).expect("a message") {
            return message;
        }
        let bytes: Bytes = within("a message", 10, recv.read()).await.expect("bytes").expect("more bytes");
        inbox.push(&bytes);
    }
}

/// Reads a stream to its end: `Ok` with its bytes, or the code of its reset.
pub async fn end_of(recv: &mut RecvStream) -> Result<Vec<u8>, StreamCode> {
    match within("the end of a stream", 10, recv.read_all(1 << 20)).await {
        Ok(bytes) => Ok(bytes),
        Err(Error::Closed(closed)) => panic!("the session ended: {closed}"),
        Err(error) => Err(code_of(&error).expect("a code of ours")),
    }
}

/// Waits until the peer stops a stream that we send on; returns the code.
pub async fn stopped(send: &mut SendStream) -> Option<StreamCode> {
    match within("the stop", 10, send.stopped()).await {
        Ok(code) => code.map(|code| code.stream().expect("a code of ours")),
        Err(error) => panic!("the session ended: {error}"),
    }
}
