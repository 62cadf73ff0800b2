//! Attacks: each does only what any session may do, bounded in count and time.

mod floods;
mod memory;
mod requests;
mod sockets;

use std::{net::SocketAddr, pin::Pin, time::Duration};

use anyhow::{Context, Result};
use bytes::Bytes;
use relay_client::{Client, ClientConfig, Hop, Path, Raw, RecvStream, SendStream};
use relay_model::Cost;
use relay_tests::peer::{VERSION, encoded, number};
use relay_wire::lite::{Announce, AnnounceOk, AnnounceRequest, BidiType, Message, Setup, UniType};
use serde::{Deserialize, Serialize};

const MIB: u64 = 1 << 20;

/// Addresses of the relay under attack.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Target {
    /// QUIC and HTTP.
    pub(crate) quic: SocketAddr,
    /// moq-lite over TCP.
    pub(crate) tcp: SocketAddr,
    /// The private listener.
    pub(crate) internal: SocketAddr,
}

type Running<'a> = Pin<Box<dyn Future<Output = Result<String>> + 'a>>;

/// One attack.
#[derive(Debug)]
pub(crate) struct Attack {
    pub(crate) name: &'static str,
    /// Memory limit of the relay, bytes.
    pub(crate) memory: u64,
    /// Limit of the relay's open files.
    pub(crate) files: Option<u64>,
    /// Time limit of the attack.
    pub(crate) time: Duration,
    run: for<'a> fn(&'a Target) -> Running<'a>,
}

impl Attack {
    const fn new(name: &'static str, run: for<'a> fn(&'a Target) -> Running<'a>) -> Self {
        Self { name, memory: 256 * MIB, files: None, time: Duration::from_secs(60), run }
    }

    /// Runs the attack and returns its summary.
    pub(crate) async fn run(&self, target: &Target) -> Result<String> {
        (self.run)(target).await
    }
}

/// All attacks.
pub(crate) const ALL: &[Attack] = &[
    Attack::new("announces", |target| Box::pin(memory::announces(target))),
    Attack::new("watches", |target| Box::pin(memory::watches(target))),
    Attack::new("unread", |target| Box::pin(memory::unread(target))),
    Attack::new("half-frames", |target| Box::pin(memory::half_frames(target))),
    Attack::new("event-streams", |target| Box::pin(memory::event_streams(target))),
    Attack::new("many-sessions", |target| Box::pin(memory::many_sessions(target))),
    Attack::new("tiny-frames", |target| Box::pin(floods::tiny_frames(target))),
    Attack::new("subscribe-churn", |target| Box::pin(floods::subscribe_churn(target))),
    Attack::new("missing-names", |target| Box::pin(floods::missing_names(target))),
    Attack::new("announce-churn", |target| Box::pin(floods::announce_churn(target))),
    Attack::new("fast-publisher", |target| Box::pin(floods::fast_publisher(target))),
    Attack::new("fetch-churn", |target| Box::pin(requests::fetch_churn(target))),
    Attack::new("track-churn", |target| Box::pin(requests::track_churn(target))),
    Attack::new("watch-churn", |target| Box::pin(requests::watch_churn(target))),
    Attack::new("update-churn", |target| Box::pin(requests::update_churn(target))),
    Attack::new("joins", |target| Box::pin(requests::joins(target))),
    Attack::new("bad-initials", |target| Box::pin(sockets::bad_initials(target))),
    Attack::new("initials", |target| Box::pin(sockets::initials(target))),
    Attack::new("idle-sockets", |target| Box::pin(sockets::idle(target))),
    Attack {
        files: Some(1_024),
        ..Attack::new("descriptors", |target| Box::pin(sockets::descriptors(target)))
    },
];

pub(crate) fn find(name: &str) -> Result<&'static Attack> {
    ALL.iter()
        .find(|attack| attack.name == name)
        .with_context(|| format!("no drill {name}; drills are: {}", names()))
}

pub(crate) fn names() -> String {
    ALL.iter().map(|attack| attack.name).collect::<Vec<_>>().join(", ")
}

/// A session with hand-made messages.
pub(crate) struct Hostile {
    pub(crate) client: Client,
    pub(crate) raw: Raw,
    /// Streams that stay open.
    pub(crate) kept: Vec<(SendStream, Option<RecvStream>)>,
}

impl Hostile {
    /// Connects over TCP, which costs the attacker least, and sends SETUP.
    pub(crate) async fn over_tcp(target: &Target) -> Result<Self> {
        Self::connect(&format!("tcp://{}/", target.tcp), ClientConfig::default()).await
    }

    /// Connects over QUIC and sends SETUP.
    pub(crate) async fn over_quic(target: &Target, config: ClientConfig) -> Result<Self> {
        Self::connect(&format!("moqt://{}/", target.quic), config).await
    }

    /// Connects over QUIC or else over TCP, and sends SETUP.
    async fn over(target: &Target, is_quic: bool) -> Result<Self> {
        if is_quic {
            Self::over_quic(target, ClientConfig::default()).await
        } else {
            Self::over_tcp(target).await
        }
    }

    async fn connect(url: &str, config: ClientConfig) -> Result<Self> {
        let client = Client::connect(url, ClientConfig { manual: true, ..config }).await?;
        let raw = client.raw();
        let mut session = Self { client, raw, kept: Vec::new() };
        let setup = Setup { path: Some("/".to_owned()), hop: Some(Hop(7)), ..Setup::default() };
        session.uni([number(UniType::Setup.id()), encoded(&setup)].concat(), true).await?;
        Ok(session)
    }

    /// Opens a unidirectional stream with these bytes.
    async fn uni(&mut self, bytes: Vec<u8>, finish: bool) -> Result<()> {
        let mut stream = self.raw.open_uni().await?;
        stream.write(&bytes).await?;
        if finish {
            stream.finish();
        }
        self.kept.push((stream, None));
        Ok(())
    }

    /// Opens a request stream.
    pub(crate) async fn ask(
        &self,
        kind: BidiType,
        message: &impl Message,
    ) -> Result<(SendStream, RecvStream)> {
        let (mut send, recv) = self.raw.open_bidi().await?;
        send.write(&[number(kind.id()), encoded(message)].concat()).await?;
        Ok((send, recv))
    }

    /// Requests the announcements below the root, and keeps the stream.
    async fn watch(&mut self) -> Result<()> {
        let request = AnnounceRequest { prefix: Path::root(), exclude_hop: Hop::ANONYMOUS };
        let (send, recv) = self.ask(BidiType::Announce, &request).await?;
        self.kept.push((send, Some(recv)));
        Ok(())
    }

    /// Answers the relay's announce request with these paths.
    pub(crate) async fn announce(&mut self, paths: &[String], hops: &[Hop]) -> Result<()> {
        let (mut send, recv) = self.raw.accept_bidi().await.context("the relay's announce request")?;
        let mut bytes = encoded(&AnnounceOk { hop: Hop(7), count: paths.len() as u64 });
        for path in paths {
            bytes.extend(active(path, hops)?);
        }
        send.write(&bytes).await?;
        self.kept.push((send, Some(recv)));
        Ok(())
    }

    /// Keeps a request stream open.
    pub(crate) fn keep(&mut self, send: SendStream, recv: RecvStream) {
        self.kept.push((send, Some(recv)));
    }

    fn is_closed(&self) -> bool {
        self.client.is_closed().is_some()
    }
}

fn active(path: &str, hops: &[Hop]) -> Result<Vec<u8>> {
    let suffix = Path::parse(path).ok().context("a path")?;
    let mut bytes = Vec::new();
    Announce::Active { suffix, hops: hops.iter().copied().collect(), cost: Cost::UNKNOWN }
        .encode(VERSION, &mut bytes);
    Ok(bytes)
}

/// Reads a stream to its end and discards the data, so that the relay can keep writing.
fn swallow(mut recv: RecvStream) {
    tokio::spawn(async move {
        while let Ok(Some(bytes)) = recv.read().await {
            drop::<Bytes>(bytes);
        }
    });
}

/// Reads and discards all unidirectional streams of a session.
fn swallow_all(mut raw: Raw) {
    tokio::spawn(async move {
        while let Some(stream) = raw.accept_uni().await {
            swallow(stream);
        }
    });
}
