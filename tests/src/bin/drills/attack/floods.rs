//! Attacks on the relay's CPU time: one session that makes as many requests as it may.

use std::time::{Duration, Instant};

use anyhow::Result;
use relay_client::{ClientConfig, StreamCode};
use relay_tests::peer::{VERSION, encoded, subscribe};
use relay_wire::lite::{Announce, AnnounceOk, BidiType, FrameHead, Group, put_frame_head, put_group_header};

use super::{Hostile, Target, active, memory::answer_upstream, swallow, swallow_all};

/// Duration of each flood.
const TIME: Duration = Duration::from_secs(15);
const MIB: f64 = 1_048_576.0;

/// Publishes frames of one byte at 8 MiB/s over QUIC, to one viewer over TCP.
pub(super) async fn tiny_frames(target: &Target) -> Result<String> {
    let mut frames = Vec::new();
    for _ in 0..16_384 {
        put_frame_head(VERSION, 0, FrameHead { tick: Some(0), size: 1 }, &mut frames);
        frames.push(7);
    }
    let rate = publish(target, "tiny", true, &frames, Some(8.0 * MIB)).await?;
    Ok(format!("frames of 1 B at {rate:.1} MiB/s for {} s", TIME.as_secs()))
}

/// Publishes frames of 64 KiB over TCP, as fast as the relay takes them, to one viewer over QUIC.
pub(super) async fn fast_publisher(target: &Target) -> Result<String> {
    const SIZE: usize = 64 * 1024;
    let mut frame = Vec::new();
    put_frame_head(VERSION, 0, FrameHead { tick: Some(0), size: SIZE as u64 }, &mut frame);
    frame.resize(frame.len() + SIZE, 7);
    let rate = publish(target, "fast", false, &frame, None).await?;
    Ok(format!("frames of 64 KiB at {rate:.0} MiB/s over TCP for {} s, one viewer over QUIC", TIME.as_secs()))
}

/// Publishes `path` over QUIC or TCP in groups of 16 times `frames`, to a viewer over the other, with at most `limit`
/// bytes a second. Returns the rate in MiB/s.
async fn publish(
    target: &Target,
    path: &str,
    over_quic: bool,
    frames: &[u8],
    limit: Option<f64>,
) -> Result<f64> {
    let mut publisher = Hostile::over(target, over_quic).await?;
    publisher.announce(&[path.to_owned()], &[]).await?;
    let viewer = Hostile::over(target, !over_quic).await?;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let (_send, recv) = viewer.ask(BidiType::Subscribe, &subscribe(0, path, "v")).await?;
    swallow(recv);
    let id = answer_upstream(&mut publisher).await?;
    let Hostile { client: _viewer, raw, kept: _kept } = viewer;
    swallow_all(raw);
    let (began, mut sequence, mut bytes) = (Instant::now(), 0, 0);
    while began.elapsed() < TIME && !publisher.is_closed() {
        let mut header = Vec::new();
        put_group_header(VERSION, &Group { subscribe: id, sequence, first_frame: 0 }, &mut header);
        let mut stream = publisher.raw.open_uni().await?;
        stream.write(&header).await?;
        for _ in 0..16 {
            if stream.write(frames).await.is_err() {
                break;
            }
            bytes += frames.len();
            if let Some(limit) = limit {
                let due = Duration::from_secs_f64(bytes as f64 / limit);
                tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
            }
        }
        stream.finish();
        sequence += 1;
    }
    Ok(bytes as f64 / MIB / began.elapsed().as_secs_f64())
}

/// Subscribes to a live track and cancels at once.
pub(super) async fn subscribe_churn(target: &Target) -> Result<String> {
    let (began, mut made, mut sessions, mut ended) = (Instant::now(), 0u64, 0, 0);
    while began.elapsed() < TIME {
        let session = Hostile::over_quic(target, ClientConfig::default()).await?;
        sessions += 1;
        while began.elapsed() < TIME && !session.is_closed() {
            let Ok(Ok((mut send, recv))) = tokio::time::timeout(
                Duration::from_secs(2),
                session.ask(BidiType::Subscribe, &subscribe(made, "healthy/live", "v")),
            )
            .await
            else {
                break;
            };
            send.reset(StreamCode::CANCEL);
            drop(recv);
            made += 1;
        }
        ended += u32::from(session.is_closed());
    }
    Ok(format!(
        "{made} subscriptions made and cancelled in {:.0} s by {sessions} sessions, {ended} of them ended",
        began.elapsed().as_secs_f64()
    ))
}

/// Subscribes to tracks that do not exist, of the healthy broadcast and of one without publisher.
pub(super) async fn missing_names(target: &Target) -> Result<String> {
    let (began, mut asked, mut sessions) = (Instant::now(), 0u64, 0);
    while began.elapsed() < TIME {
        let session = Hostile::over_quic(target, ClientConfig::default()).await?;
        sessions += 1;
        while began.elapsed() < TIME && !session.is_closed() {
            let (broadcast, track) = if asked % 2 == 0 {
                ("healthy/live", format!("no{asked}"))
            } else {
                ("nobody", format!("no{asked}"))
            };
            let Ok(Ok((send, recv))) = tokio::time::timeout(
                Duration::from_secs(2),
                session.ask(BidiType::Subscribe, &subscribe(asked, broadcast, &track)),
            )
            .await
            else {
                break;
            };
            tokio::spawn(async move {
                let (_send, mut recv) = (send, recv);
                let _ = recv.read_all(100).await;
            });
            asked += 1;
        }
    }
    Ok(format!(
        "{asked} subscriptions to missing tracks in {:.0} s by {sessions} sessions",
        began.elapsed().as_secs_f64()
    ))
}

/// Announces and withdraws one path as fast as the relay reads, with 20 watching sessions.
pub(super) async fn announce_churn(target: &Target) -> Result<String> {
    let mut watchers = Vec::new();
    for _ in 0..20 {
        let mut watcher = Hostile::over_tcp(target).await?;
        watcher.watch().await?;
        for (send, recv) in watcher.kept.drain(..).collect::<Vec<_>>() {
            recv.into_iter().for_each(swallow);
            std::mem::forget(send);
        }
        watchers.push(watcher);
    }
    let publisher = &mut Hostile::over_tcp(target).await?;
    let Some((mut send, _recv)) = publisher.raw.accept_bidi().await else {
        anyhow::bail!("no announce request")
    };
    send.write(&encoded(&AnnounceOk { hop: relay_client::Hop(7), count: 0 })).await?;
    let mut pair = active("flap", &[])?;
    Announce::Ended { suffix: relay_tests::peer::path("flap") }.encode(VERSION, &mut pair);
    let (began, mut pairs) = (Instant::now(), 0u64);
    while began.elapsed() < TIME && !publisher.is_closed() {
        if send.write(&pair.repeat(10)).await.is_err() {
            break;
        }
        pairs += 10;
        // 10,000 a second.
        let due = Duration::from_secs_f64(pairs as f64 / 5_000.0);
        tokio::time::sleep(due.saturating_sub(began.elapsed())).await;
    }
    let alive = watchers.iter().filter(|watcher| !watcher.is_closed()).count();
    Ok(format!(
        "one path announced and withdrawn {pairs} times in {:.0} s, 20 watching sessions of which {alive} live on",
        began.elapsed().as_secs_f64()
    ))
}
