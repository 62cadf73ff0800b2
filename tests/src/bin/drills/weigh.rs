//! Compares the memory that the relay charges for what a peer makes it hold with the growth of its resident memory.

use std::{
    io::{Read, Write},
    net::TcpStream,
    time::Duration,
};

use anyhow::{Context, Result};
use relay_client::{Client, ClientConfig, Hop};
use relay_tests::peer::{path, subscribe};
use relay_wire::lite::{AnnounceRequest, BidiType};

use crate::{
    attack::{Hostile, Target},
    host::{Host, Limits},
};

/// Time for the relay to charge what it holds.
const SETTLE: Duration = Duration::from_secs(2);
/// Part of the measured growth that must be charged at least. The charge of a session is exact only for what the
/// session knows; the allocator keeps some memory of its own.
const CHARGED: f64 = 0.9;
/// Columns of the table.
pub(crate) const HEAD: &str = "| held for a peer | count | resident memory each (B) | charged each (B) |";

/// Something that peers make the relay hold.
#[derive(Clone, Copy, Debug)]
enum Item {
    QuicSession,
    TcpSession,
    Announce,
    Watch,
    Subscription,
    Request,
    HttpIdle,
    HttpHead,
}

const ITEMS: [(Item, &str, usize); 8] = [
    (Item::QuicSession, "session over QUIC", 400),
    (Item::TcpSession, "session over TCP", 1_000),
    (Item::Announce, "announce of a path of 21 B", 10_000),
    (Item::Watch, "announce request without matches", 3_200),
    (Item::Subscription, "subscription of a track that others read", 2_000),
    (Item::Request, "subscription of a track of its own, unanswered", 800),
    (Item::HttpIdle, "idle HTTP connection", 600),
    (Item::HttpHead, "HTTP connection with an unfinished head of 15.9 KB", 600),
];

/// Weighs all items. `false`: the charge of one is too low.
pub(crate) fn run(relay: &str) -> Result<bool> {
    println!("figure: {HEAD}");
    let mut failed = 0;
    for (item, name, count) in ITEMS {
        let host = Host::start(relay, &Limits { memory: 1 << 30, files: None })?;
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let (measured, charged) = runtime.block_on(weigh(&host, item, count)).context(name)?;
        let each = |bytes: f64| bytes / count as f64;
        println!("figure: | {name} | {count} | {:.0} | {:.0} |", each(measured), each(charged));
        if charged < measured * CHARGED {
            println!("FAIL {name}: less is charged than is held");
            failed += 1;
        }
    }
    println!("weigh: {} passed, {failed} failed", ITEMS.len() - failed);
    Ok(failed == 0)
}

/// Growth of resident memory and of the charged memory by `count` items, bytes.
async fn weigh(host: &Host, item: Item, count: usize) -> Result<(f64, f64)> {
    let target = host.target();
    let publisher = Client::connect(&format!("https://{}/", target.quic), ClientConfig::default()).await?;
    let broadcast = publisher.broadcast("held/live")?;
    let track = broadcast.track("v", relay_client::TrackInfo::default())?;
    track.group(0).frame(0, bytes::Bytes::from_static(b"x"));
    broadcast.announce();
    let mut silent = Hostile::over_tcp(target).await?;
    silent.announce(&["held/silent".to_owned()], &[]).await?;
    let Hostile { client: _client, mut raw, kept: _kept } = silent;
    tokio::spawn(async move {
        let mut requests = Vec::new();
        while let Some(request) = raw.accept_bidi().await {
            requests.push(request);
        }
    });
    // A few items first, so that tables and arenas have been allocated.
    let mut kept = vec![hold(target, item, count / 20).await?];
    tokio::time::sleep(SETTLE).await;
    let before = (host.resident()?, state(host)?);
    kept.push(hold(target, item, count).await?);
    tokio::time::sleep(SETTLE).await;
    let after = (host.resident()?, state(host)?);
    drop(kept);
    Ok((after.0 - before.0, after.1 - before.1))
}

/// What keeps the items held.
type Held = (Vec<Hostile>, Vec<TcpStream>);

async fn hold(target: &Target, item: Item, count: usize) -> Result<Held> {
    match item {
        Item::HttpIdle => sockets(target, count, b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
            .map(|sockets| (Vec::new(), sockets)),
        Item::HttpHead => {
            let mut head = b"GET /health HTTP/1.1\r\nhost: localhost\r\nx: ".to_vec();
            head.resize(15_900, b'a');
            sockets(target, count, &head).map(|sockets| (Vec::new(), sockets))
        }
        _ => sessions(target, item, count).await.map(|sessions| (sessions, Vec::new())),
    }
}

/// HTTP connections that sent `request`, and read an answer if it is whole.
fn sockets(target: &Target, count: usize, request: &[u8]) -> Result<Vec<TcpStream>> {
    let is_whole = request.ends_with(b"\r\n\r\n");
    let open = |_| {
        let mut stream = TcpStream::connect(target.quic)?;
        stream.write_all(request)?;
        if is_whole {
            anyhow::ensure!(stream.read(&mut [0; 1_024])? > 0, "no answer");
        }
        Ok(stream)
    };
    (0..count).map(open).collect()
}

async fn sessions(target: &Target, item: Item, count: usize) -> Result<Vec<Hostile>> {
    let each = match item {
        Item::QuicSession | Item::TcpSession => 1,
        Item::Announce => 1_000,
        Item::Watch => 64,
        Item::Subscription | Item::Request => 100,
        Item::HttpIdle | Item::HttpHead => return Ok(Vec::new()),
    };
    let mut sessions = Vec::new();
    let mut held = 0;
    while held < count {
        let mut session = match item {
            Item::QuicSession => Hostile::over_quic(target, ClientConfig::default()).await?,
            _ => Hostile::over_tcp(target).await?,
        };
        let number = sessions.len();
        let part = each.min(count - held);
        if let Item::Announce = item {
            let paths: Vec<String> =
                (0..part).map(|at| format!("held/{count:05}/{number:04}/{at:05}")).collect();
            session.announce(&paths, &[Hop(7)]).await?;
        }
        for at in 0..part {
            let (send, recv) = match item {
                Item::QuicSession | Item::TcpSession | Item::Announce | Item::HttpIdle | Item::HttpHead => {
                    break;
                }
                Item::Watch => {
                    let prefix = path(&format!("none/{at}"));
                    let request = AnnounceRequest { prefix, exclude_hop: Hop::ANONYMOUS };
                    session.ask(BidiType::Announce, &request).await?
                }
                Item::Subscription => {
                    session.ask(BidiType::Subscribe, &subscribe(at as u64, "held/live", "v")).await?
                }
                Item::Request => {
                    let name = format!("{count}-{number}-{at}");
                    session.ask(BidiType::Subscribe, &subscribe(at as u64, "held/silent", &name)).await?
                }
            };
            session.keep(send, recv);
        }
        held += part;
        sessions.push(session);
    }
    Ok(sessions)
}

/// Memory that the relay charges to sessions, bytes.
fn state(host: &Host) -> Result<f64> {
    host.metrics()?.get("moq_relay_state_bytes").copied().context("moq_relay_state_bytes in /metrics")
}
