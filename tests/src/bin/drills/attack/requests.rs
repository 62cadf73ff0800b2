//! Attacks on the relay's time with control messages: requests made and cancelled, updated, or repeated, over QUIC
//! and over TCP at once.

use std::time::{Duration, Instant};

use anyhow::Result;
use relay_client::{Hop, Prefs, StreamCode};
use relay_tests::peer::{encoded, path, subscribe};
use relay_wire::lite::{AnnounceRequest, BidiType, Fetch, SubscribeUpdate, TrackRequest};

use super::{Hostile, Target, swallow, swallow_all};

/// Length of each flood.
const TIME: Duration = Duration::from_secs(15);
/// Live track of the healthy publisher.
const BROADCAST: &str = "healthy/live";
/// Time after which a request stream that does not open counts as refused.
const PATIENCE: Duration = Duration::from_secs(2);

/// Requests of one flood.
#[derive(Clone, Copy, Debug)]
enum Request {
    /// FETCH, each of another group.
    Fetch,
    /// ANNOUNCE_REQUEST, each for another prefix.
    Watch,
    /// TRACK of the live track.
    Track,
}

impl Request {
    async fn send(self, session: &Hostile, number: u64) -> Result<()> {
        let live = subscribe(0, BROADCAST, "v");
        let (mut send, recv) = match self {
            Self::Fetch => {
                let fetch = Fetch {
                    broadcast: live.broadcast,
                    track: live.track,
                    priority: 0,
                    group: number,
                    start_frame: 0,
                    end_frame: None,
                };
                session.ask(BidiType::Fetch, &fetch).await?
            }
            Self::Watch => {
                let prefix = path(&format!("prefix/{number}"));
                let request = AnnounceRequest { prefix, exclude_hop: Hop::ANONYMOUS };
                session.ask(BidiType::Announce, &request).await?
            }
            Self::Track => {
                let track = TrackRequest { broadcast: live.broadcast, track: live.track };
                session.ask(BidiType::Track, &track).await?
            }
        };
        send.reset(StreamCode::CANCEL);
        drop(recv);
        Ok(())
    }
}

/// FETCH requests, made and cancelled.
pub(super) async fn fetch_churn(target: &Target) -> Result<String> {
    churn(target, Request::Fetch, "FETCH requests").await
}

/// ANNOUNCE_REQUESTs for ever other prefixes, made and cancelled.
pub(super) async fn watch_churn(target: &Target) -> Result<String> {
    churn(target, Request::Watch, "ANNOUNCE_REQUESTs of distinct prefixes").await
}

/// TRACK requests, made and cancelled.
pub(super) async fn track_churn(target: &Target) -> Result<String> {
    churn(target, Request::Track, "TRACK requests").await
}

async fn churn(target: &Target, request: Request, name: &str) -> Result<String> {
    let began = Instant::now();
    let ((over_quic, quic_sessions), (over_tcp, tcp_sessions)) =
        tokio::try_join!(flood(target, request, true), flood(target, request, false))?;
    Ok(format!(
        "{name} made and cancelled in {:.0} s: {over_quic} over QUIC in {quic_sessions} sessions, {over_tcp} over TCP \
         in {tcp_sessions}",
        began.elapsed().as_secs_f64()
    ))
}

/// Sends requests over one session after the other. Returns the number of requests and of sessions.
async fn flood(target: &Target, request: Request, over_quic: bool) -> Result<(u64, u32)> {
    let (began, mut made, mut sessions) = (Instant::now(), 0, 0);
    while began.elapsed() < TIME {
        let session = Hostile::over(target, over_quic).await?;
        sessions += 1;
        while began.elapsed() < TIME && !session.is_closed() {
            match tokio::time::timeout(PATIENCE, request.send(&session, made)).await {
                Ok(Ok(())) => made += 1,
                _ => break,
            }
        }
    }
    Ok((made, sessions))
}

/// One subscription per transport, whose priority changes 20,000 times a second.
pub(super) async fn update_churn(target: &Target) -> Result<String> {
    let ((over_quic, quic_sessions), (over_tcp, tcp_sessions)) =
        tokio::try_join!(updates(target, true), updates(target, false))?;
    Ok(format!(
        "SUBSCRIBE_UPDATEs in {:.0} s: {over_quic} over QUIC in {quic_sessions} sessions, {over_tcp} over TCP in \
         {tcp_sessions}",
        TIME.as_secs_f64()
    ))
}

/// Sends updates over one session after the other. Returns the number of updates and of sessions.
async fn updates(target: &Target, over_quic: bool) -> Result<(u64, u32)> {
    let (began, mut sent, mut sessions) = (Instant::now(), 0, 0);
    while began.elapsed() < TIME {
        let session = Hostile::over(target, over_quic).await?;
        sessions += 1;
        let (mut send, recv) = session.ask(BidiType::Subscribe, &subscribe(0, BROADCAST, "v")).await?;
        swallow(recv);
        let Hostile { client, raw, kept: _kept } = session;
        swallow_all(raw);
        while began.elapsed() < TIME && client.is_closed().is_none() {
            let mut bytes = Vec::new();
            for step in 0..64 {
                let prefs = Prefs { priority: ((sent + step) % 256) as u8, ..Prefs::default() };
                bytes.extend(encoded(&SubscribeUpdate { prefs }));
            }
            match tokio::time::timeout(PATIENCE, send.write(&bytes)).await {
                Ok(Ok(())) => sent += 64,
                _ => break,
            }
            let due = Duration::from_secs_f64(sent as f64 / 20_000.0);
            tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
        }
    }
    Ok((sent, sessions))
}

/// Sessions that join the live track and leave again, 50 a second.
pub(super) async fn joins(target: &Target) -> Result<String> {
    const SECONDS: u64 = 45;
    let mut joined = 0u64;
    let mut ticks = tokio::time::interval(Duration::from_millis(20));
    let began = Instant::now();
    while began.elapsed() < Duration::from_secs(SECONDS) {
        ticks.tick().await;
        joined += 1;
        let target = target.clone();
        tokio::spawn(async move {
            let session = Hostile::over(&target, joined.is_multiple_of(2)).await?;
            let (_send, recv) = session.ask(BidiType::Subscribe, &subscribe(0, BROADCAST, "v")).await?;
            swallow(recv);
            tokio::time::sleep(Duration::from_secs(1)).await;
            anyhow::Ok(())
        });
    }
    Ok(format!("{joined} sessions that joined and left after 1 s, in {SECONDS} s"))
}
