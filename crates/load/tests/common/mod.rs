//! Minimal relay that fans out moq-lite over raw QUIC, with injected faults. It has no cache, routes or limits: only
//! enough to test the generator.

use std::{
    collections::{HashMap, hash_map::Entry},
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use relay_client::lite::{
    Announce, AnnounceOk, AnnounceRequest, BidiType, Group, GroupEvent, GroupReader, Message, Subscribe,
    Version, put_group_header,
};
use relay_client::quinn::{
    self, Connection, RecvStream, SendStream, VarInt, crypto::rustls::QuicServerConfig,
};
use relay_client::{Cost, Hop, Path, Prefs, TrackName};
use relay_wire::{MessageBuf, varint};
use tokio::sync::broadcast;

/// Fault that is injected once, in the `after`-th group of the first viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    None,
    /// One byte of a chunk is flipped.
    Corrupt {
        after: u64,
    },
    /// The group is not forwarded.
    Skip {
        after: u64,
    },
    /// The group is forwarded twice.
    Double {
        after: u64,
    },
    /// The viewer's connection is closed.
    Drop {
        after: u64,
    },
}

/// Part of a publisher's group: sequence and bytes; `None` is its end.
type Item = (u64, Option<Bytes>);

struct Shared {
    version: Version,
    fault: Fault,
    /// Groups of each announced path, and its publisher.
    paths: Mutex<HashMap<Path, (Connection, broadcast::Sender<Item>)>>,
    viewers: Mutex<u64>,
}

/// Starts a relay on the current runtime.
pub(crate) fn start(version: Version, fault: Fault) -> SocketAddr {
    let made = rcgen::generate_simple_self_signed(vec!["localhost".into()]).unwrap();
    let key = rustls::pki_types::PrivatePkcs8KeyDer::from(made.signing_key.serialize_der());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut tls = rustls::ServerConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![made.cert.der().clone()], key.into())
        .unwrap();
    tls.alpn_protocols = vec![version.alpn().into()];
    let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).unwrap()));
    let endpoint = quinn::Endpoint::server(config, "127.0.0.1:0".parse().unwrap()).unwrap();
    let addr = endpoint.local_addr().unwrap();
    let shared = Arc::new(Shared { version, fault, paths: Mutex::default(), viewers: Mutex::default() });
    tokio::spawn(async move {
        while let Some(incoming) = endpoint.accept().await {
            let shared = shared.clone();
            tokio::spawn(async move {
                if let Ok(connection) = incoming.await {
                    tokio::spawn(learn(connection.clone(), shared.clone()));
                    tokio::spawn(receive(connection.clone(), shared.clone()));
                    while let Ok((send, recv)) = connection.accept_bi().await {
                        tokio::spawn(answer(connection.clone(), send, recv, shared.clone()));
                    }
                }
            });
        }
    });
    addr
}

async fn message<M>(
    recv: &mut RecvStream,
    inbox: &mut MessageBuf,
    take: impl Fn(&mut MessageBuf) -> Result<Option<M>, relay_wire::DecodeError>,
) -> Option<M> {
    loop {
        if let Some(message) = take(inbox).unwrap() {
            return Some(message);
        }
        inbox.push(&recv.read_chunk(usize::MAX, true).await.ok()??.bytes);
    }
}

/// Requests the peer's announcements, and subscribes to all of them.
async fn learn(connection: Connection, shared: Arc<Shared>) -> Option<()> {
    let version = shared.version;
    let (mut send, mut recv) = connection.open_bi().await.ok()?;
    let mut out = vec![BidiType::Announce.id() as u8];
    AnnounceRequest { prefix: Path::root(), exclude_hop: Hop(0) }.encode(version, &mut out);
    send.write_all(&out).await.ok()?;
    let mut inbox = MessageBuf::new();
    if version.has_announce_ok() {
        message(&mut recv, &mut inbox, |inbox| inbox.next::<AnnounceOk>(version)).await?;
    }
    while let Some(announce) = message(&mut recv, &mut inbox, |inbox| Announce::next(inbox, version)).await {
        let Announce::Active { suffix, .. } = announce else { continue };
        let groups = broadcast::channel(10_000).0;
        shared.paths.lock().unwrap().insert(suffix.clone(), (connection.clone(), groups));
        let (mut ask, _answer) = connection.open_bi().await.ok()?;
        let mut out = vec![BidiType::Subscribe.id() as u8];
        let track = TrackName::parse("load").unwrap();
        Subscribe { id: 0, broadcast: suffix, track, prefs: Prefs::default() }.encode(version, &mut out);
        ask.write_all(&out).await.ok()?;
        tokio::spawn(async move { ask.stopped().await });
        tokio::spawn(async move {
            let mut answer = _answer;
            while let Ok(Some(_)) = answer.read_chunk(usize::MAX, true).await {}
        });
    }
    Some(())
}

async fn answer(
    connection: Connection,
    mut send: SendStream,
    mut recv: RecvStream,
    shared: Arc<Shared>,
) -> Option<()> {
    let version = shared.version;
    let mut inbox = MessageBuf::new();
    let kind = loop {
        if let Some(kind) = inbox.next_varint() {
            break BidiType::from_id(version, kind)?;
        }
        inbox.push(&recv.read_chunk(usize::MAX, true).await.ok()??.bytes);
    };
    match kind {
        BidiType::Announce => {
            let request: AnnounceRequest =
                message(&mut recv, &mut inbox, |inbox| inbox.next(version)).await?;
            let mut out = Vec::new();
            if version.has_announce_ok() {
                AnnounceOk { hop: Hop(9), count: 0 }.encode(version, &mut out);
            }
            send.write_all(&out).await.ok()?;
            while !shared.paths.lock().unwrap().contains_key(&request.prefix) {
                if request.prefix.is_root() {
                    return Some(());
                }
                tokio::time::sleep(std::time::Duration::from_millis(5)).await;
            }
            let mut out = Vec::new();
            let (suffix, cost) = (Path::root(), Cost::default());
            Announce::Active { suffix, hops: [].into(), cost }.encode(version, &mut out);
            send.write_all(&out).await.ok()?;
        }
        BidiType::Subscribe => {
            let request: Subscribe = message(&mut recv, &mut inbox, |inbox| inbox.next(version)).await?;
            let groups = shared.paths.lock().unwrap().get(&request.broadcast)?.1.subscribe();
            let first = {
                let mut viewers = shared.viewers.lock().unwrap();
                *viewers += 1;
                *viewers == 1
            };
            let fault = if first { shared.fault } else { Fault::None };
            forward(connection, (version, request.id), groups, fault).await;
        }
        _ => {}
    }
    // Kept open: dropping a stream would finish it.
    let _ = connection_over(&mut send).await;
    Some(())
}

async fn connection_over(send: &mut SendStream) -> Option<VarInt> {
    send.stopped().await.ok()?
}

async fn forward(
    connection: Connection,
    (version, subscribe): (Version, u64),
    mut groups: broadcast::Receiver<Item>,
    fault: Fault,
) {
    let mut open: HashMap<u64, Vec<SendStream>> = HashMap::new();
    let mut started = 0;
    while let Ok((sequence, bytes)) = groups.recv().await {
        let Some(bytes) = bytes else {
            open.remove(&sequence);
            continue;
        };
        let mut bytes = bytes.to_vec();
        let streams = match open.entry(sequence) {
            Entry::Occupied(entry) => entry.into_mut(),
            Entry::Vacant(entry) => {
                started += 1;
                if fault == (Fault::Drop { after: started }) {
                    connection.close(VarInt::from_u32(1), b"fault");
                    return;
                }
                if fault == (Fault::Corrupt { after: started }) {
                    *bytes.last_mut().unwrap() ^= 1;
                }
                let copies = match fault {
                    Fault::Skip { after } if after == started => 0,
                    Fault::Double { after } if after == started => 2,
                    _ => 1,
                };
                let group = Group { subscribe, sequence, first_frame: 0 };
                entry.insert(open_group(&connection, version, group, copies).await)
            }
        };
        for stream in streams {
            let _ = stream.write_all(&bytes).await;
        }
    }
}

async fn open_group(
    connection: &Connection,
    version: Version,
    group: Group,
    copies: usize,
) -> Vec<SendStream> {
    let mut streams = Vec::new();
    for _ in 0..copies {
        let Ok(mut stream) = connection.open_uni().await else { break };
        let mut head = Vec::new();
        put_group_header(version, &group, &mut head);
        let _ = stream.write_all(&head).await;
        streams.push(stream);
    }
    streams
}

/// Parses the publisher's groups far enough to know their sequence.
async fn receive(connection: Connection, shared: Arc<Shared>) {
    while let Ok(mut stream) = connection.accept_uni().await {
        let (connection, shared) = (connection.clone(), shared.clone());
        tokio::spawn(async move {
            let mut input = stream.read_chunk(usize::MAX, true).await.ok()??.bytes;
            let mut peek: &[u8] = &input;
            if varint::get(&mut peek).ok()? != 0 {
                return None;
            }
            let used = input.len() - peek.len();
            let mut input = input.split_off(used);
            let mut reader = GroupReader::new(shared.version);
            let sequence = loop {
                match reader.next(&mut input).unwrap() {
                    Some(GroupEvent::Header(group)) => break group.sequence,
                    _ => input = stream.read_chunk(usize::MAX, true).await.ok()??.bytes,
                }
            };
            let groups = {
                let paths = shared.paths.lock().unwrap();
                let found = paths.values().find(|(c, _)| c.stable_id() == connection.stable_id());
                found.map(|(_, groups)| groups.clone())?
            };
            if !input.is_empty() {
                let _ = groups.send((sequence, Some(input)));
            }
            while let Ok(Some(chunk)) = stream.read_chunk(usize::MAX, true).await {
                let _ = groups.send((sequence, Some(chunk.bytes)));
            }
            let _ = groups.send((sequence, None));
            Some(())
        });
    }
}
