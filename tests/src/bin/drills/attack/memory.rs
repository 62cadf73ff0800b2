//! Attacks on the relay's memory.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use relay_client::{ClientConfig, Hop, Prefs, TrackInfo};
use relay_model::limits;
use relay_tests::peer::{VERSION, encoded, path};
use relay_wire::lite::{BidiType, FrameHead, Group, Subscribe, put_frame_head, put_group_header};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{Hostile, Target, swallow};

/// Time limit of each attack.
const TIME: Duration = Duration::from_secs(30);
/// Sessions that each attack tries to open.
const SESSIONS: usize = 250;

/// Sessions that each announce 1,000 paths of 1,000 bytes over 30 hops.
pub(super) async fn announces(target: &Target) -> Result<String> {
    let hops: Vec<Hop> = (0..30).map(|hop| Hop((1 << 40) + hop)).collect();
    let (began, mut sessions, mut refused) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < TIME && sessions.len() + refused < SESSIONS {
        let number = sessions.len() + refused;
        let tail = vec!["x".repeat(60); 15].join("/");
        let paths: Vec<String> =
            (0..limits::ANNOUNCES).map(|name| format!("f/{number:03}/{name:04}/{tail}")).collect();
        let attempt = async {
            let mut session = Hostile::over_tcp(target).await?;
            session.announce(&paths, &hops).await?;
            anyhow::Ok(session)
        };
        match tokio::time::timeout(Duration::from_secs(5), attempt).await {
            Ok(Ok(session)) => sessions.push(session),
            _ => refused += 1,
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(format!(
        "{} sessions with 1,000 announces of 1,000 B, 30 hops, in {:.0} s; {}",
        sessions.len() + refused,
        began.elapsed().as_secs_f64(),
        ended(&sessions, refused)
    ))
}

/// 20,000 live paths, then sessions with 64 watches of all of them.
pub(super) async fn watches(target: &Target) -> Result<String> {
    let mut publishers = Vec::new();
    for publisher in 0..20 {
        let paths: Vec<String> =
            (0..limits::ANNOUNCES).map(|name| format!("room/{publisher:02}/{name:04}")).collect();
        let mut session = Hostile::over_tcp(target).await?;
        session.announce(&paths, &[]).await?;
        publishers.push(session);
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (began, mut sessions, mut refused) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < TIME && sessions.len() + refused < 20 {
        let attempt = async {
            let mut session = Hostile::over_tcp(target).await?;
            for _ in 0..limits::ANNOUNCE_REQUESTS {
                session.watch().await?;
            }
            session.kept.drain(..).filter_map(|(send, recv)| Some((send, recv?))).for_each(|(send, recv)| {
                // Reads what is announced and keeps its own side open.
                swallow(recv);
                std::mem::forget(send);
            });
            anyhow::Ok(session)
        };
        match tokio::time::timeout(Duration::from_secs(5), attempt).await {
            Ok(Ok(session)) => sessions.push(session),
            _ => refused += 1,
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(format!(
        "{} sessions with 64 watches over 20,000 paths in {:.0} s; {}",
        sessions.len() + refused,
        began.elapsed().as_secs_f64(),
        ended(&sessions, refused)
    ))
}

/// Subscribes to the healthy track without granting stream credit or flow control credit.
pub(super) async fn unread(target: &Target) -> Result<String> {
    let (began, mut sessions, mut refused) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < TIME && sessions.len() + refused < SESSIONS {
        let mut config = ClientConfig::default();
        match sessions.len() % 2 {
            0 => config.tuning.uni_streams = 0,
            _ => config.tuning.connection_window = 64 * 1024,
        }
        let attempt = async {
            let session = Hostile::over_quic(target, config).await?;
            let subscribe = Subscribe {
                id: 0,
                broadcast: path("healthy/live"),
                track: relay_model::TrackName::parse("v").context("a name")?,
                prefs: Prefs { max_age_ms: 60_000, ..Prefs::default() },
            };
            let stream = session.ask(BidiType::Subscribe, &subscribe).await?;
            anyhow::Ok((session, stream))
        };
        match tokio::time::timeout(Duration::from_secs(5), attempt).await {
            Ok(Ok(session)) => sessions.push(session),
            _ => refused += 1,
        }
    }
    tokio::time::sleep(Duration::from_secs(15)).await;
    let alive = sessions.iter().filter(|(session, _)| !session.is_closed()).count();
    Ok(format!(
        "{} viewers that grant no stream or take no bytes; {alive} live on, {refused} not let in",
        sessions.len()
    ))
}

/// Publishes on streams that declare the largest frame and stop after one byte.
pub(super) async fn half_frames(target: &Target) -> Result<String> {
    let mut publisher = Hostile::over_quic(target, ClientConfig::default()).await?;
    publisher.announce(&["half".to_owned()], &[]).await?;
    let viewer = Hostile::over_tcp(target).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let subscribe = relay_tests::peer::subscribe(0, "half", "v");
    let _subscription = viewer.ask(BidiType::Subscribe, &subscribe).await?;
    let id = answer_upstream(&mut publisher).await?;
    let (began, mut opened) = (Instant::now(), 0);
    while began.elapsed() < TIME && opened < 1_000 {
        let mut bytes = Vec::new();
        put_group_header(VERSION, &Group { subscribe: id, sequence: opened, first_frame: 0 }, &mut bytes);
        put_frame_head(VERSION, 0, FrameHead { tick: Some(0), size: limits::FRAME_BYTES }, &mut bytes);
        bytes.push(0);
        if tokio::time::timeout(Duration::from_secs(3), publisher.uni(bytes, false)).await.is_err() {
            break;
        }
        opened += 1;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    Ok(format!("{opened} streams that declare a frame of 16 MiB and send 1 B"))
}

/// Answers TRACK and SUBSCRIBE of the relay, and returns the id of the subscription.
pub(super) async fn answer_upstream(publisher: &mut Hostile) -> Result<u64> {
    loop {
        let (mut send, mut recv) = publisher.raw.accept_bidi().await.context("a request of the relay")?;
        let kind = recv.varint().await?.and_then(|id| BidiType::from_id(VERSION, id));
        match kind {
            Some(BidiType::Track) => {
                send.write(&encoded(&TrackInfo::default())).await?;
                send.finish();
            }
            Some(BidiType::Subscribe) => {
                let subscribe: Subscribe = relay_tests::peer::message(&mut recv).await;
                publisher.kept.push((send, Some(recv)));
                return Ok(subscribe.id);
            }
            _ => {}
        }
    }
}

/// Opens as many event streams as one address can get, over 20,000 paths.
pub(super) async fn event_streams(target: &Target) -> Result<String> {
    let mut publishers = Vec::new();
    for publisher in 0..20 {
        let paths: Vec<String> =
            (0..limits::ANNOUNCES).map(|name| format!("room/{publisher:02}/{name:04}")).collect();
        let mut session = Hostile::over_tcp(target).await?;
        session.announce(&paths, &[]).await?;
        publishers.push(session);
    }
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..600 {
        let Ok(mut stream) = TcpStream::connect(target.quic).await else {
            refused += 1;
            continue;
        };
        let request =
            format!("GET /announced HTTP/1.1\r\nhost: {}\r\naccept: text/event-stream\r\n\r\n", target.quic);
        stream.write_all(request.as_bytes()).await?;
        let mut answer = [0; 12];
        match tokio::time::timeout(Duration::from_secs(3), stream.read_exact(&mut answer)).await {
            Ok(Ok(_)) if answer.ends_with(b"200") => open.push(stream),
            _ => refused += 1,
        }
    }
    for mut stream in open {
        tokio::spawn(async move {
            let mut buffer = vec![0; 16 * 1024];
            while stream.read(&mut buffer).await.is_ok_and(|count| count > 0) {}
        });
    }
    tokio::time::sleep(Duration::from_secs(10)).await;
    Ok(format!("600 event streams over 20,000 paths from one address; {refused} not served"))
}

/// Opens as many idle sessions as the relay admits.
pub(super) async fn many_sessions(target: &Target) -> Result<String> {
    let (began, mut sessions, mut refused) = (Instant::now(), Vec::new(), 0);
    while began.elapsed() < TIME && sessions.len() + refused < 3_000 {
        match tokio::time::timeout(Duration::from_secs(5), Hostile::over_tcp(target)).await {
            Ok(Ok(session)) => sessions.push(session),
            _ => refused += 1,
        }
        if refused > 100 {
            break;
        }
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    Ok(format!(
        "{} sessions over TCP that only sent SETUP; {}",
        sessions.len() + refused,
        ended(&sessions, refused)
    ))
}

fn ended(sessions: &[Hostile], refused: usize) -> String {
    let ended = sessions.iter().filter(|session| session.is_closed()).count();
    let mut reasons: Vec<String> =
        sessions.iter().filter_map(|session| Some(format!("{:?}", session.client.is_closed()?))).collect();
    reasons.sort();
    reasons.dedup();
    let reasons: String = reasons.first().cloned().unwrap_or_default().replace('|', "/");
    format!("{ended} ended {reasons}, {refused} not let in")
}
