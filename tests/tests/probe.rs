//! Promise: PROBE reports the true bit rate and round trip of a path.

#![allow(missing_docs)]

use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use relay_client::{Client, ClientConfig, Prefs, TrackInfo, lite};
use relay_tests::{
    netns::{Namespace, echo, round_trip},
    process::{self, Process},
    relay::TestRelay,
    run_alone, within,
};

/// Rate of the link, bits per second.
const RATE: u64 = 5_000_000;
/// Largest queue of the kernel on the link.
const QUEUE: Duration = Duration::from_millis(100);
/// Time for which the link is kept full; the second half is measured.
const FULL: Duration = Duration::from_secs(10);
/// Port of the echo in the relay's process.
const ECHO: u16 = 7_007;

#[test]
#[ignore = "the relay of the other test, in a process of its own"]
fn the_relay() {
    echo(ECHO);
    process::serve(&TestRelay::start(1));
}

#[test]
#[expect(clippy::print_stdout, reason = "what was measured")]
fn a_full_link_is_measured_within_its_tolerance() {
    let Some(namespace) = Namespace::shaped(&format!("{RATE}bit"), QUEUE) else { return };
    let relay = Process::start_by(namespace.command(), "the_relay");
    let port = relay.urls[0].trim_end_matches('/').rsplit(':').next().expect("a port").to_owned();
    let url = format!("moqt://{}:{port}/", namespace.address);
    let echo = SocketAddr::from((namespace.address, ECHO));
    run_alone(60, async move {
        let publisher = Client::connect(&url, ClientConfig::default()).await.expect("a publisher");
        let broadcast = publisher.broadcast("full").expect("a broadcast");
        let track = broadcast.track("video", TrackInfo::default()).expect("a track");
        broadcast.announce();
        let viewer = Client::connect(&url, ClientConfig::default()).await.expect("a viewer");
        let mut watch = viewer.announced("").await.expect("a watch");
        within("the broadcast", 10, watch.wait("full", true)).await.expect("an announce");
        let mut subscription =
            viewer.subscribe("full", "video", Prefs::default()).await.expect("a subscription");
        within("the subscription", 10, track.wait_subscribed()).await;
        tokio::spawn(async move {
            while let Ok(mut group) = subscription.next_group().await {
                tokio::spawn(async move { while let Ok(Some(_)) = group.frame().await {} });
            }
        });

        let said = Arc::new(Mutex::new(None::<lite::Probe>));
        let mut probes = viewer.probe().await.expect("a probe stream");
        tokio::spawn({
            let said = said.clone();
            async move {
                while let Ok(Some(probe)) = probes.next().await {
                    *said.lock().expect("no panic") = Some(probe);
                }
            }
        });
        // Sends more than the link can carry during the measurement.
        let done = Arc::new(AtomicBool::new(false));
        let writing = tokio::spawn({
            let done = done.clone();
            async move {
                for sequence in 0.. {
                    let group = track.group(sequence);
                    for _ in 0..15 {
                        group.frame(0, vec![7; 30_000].into());
                        tokio::time::sleep(Duration::from_millis(33)).await;
                    }
                    group.finish();
                    if done.load(Ordering::Relaxed) {
                        break;
                    }
                }
            }
        });

        let began = Instant::now();
        let (mut bitrates, mut probed, mut echoed) = (Vec::new(), Vec::new(), Vec::new());
        while began.elapsed() < FULL {
            let trip = tokio::task::spawn_blocking(move || round_trip(echo)).await.expect("an echo");
            let probe = *said.lock().expect("no panic");
            if let (Some(trip), Some(probe)) = (trip, probe)
                && began.elapsed() > FULL / 2
            {
                bitrates.push(probe.bitrate);
                probed.push(probe.rtt_ms);
                echoed.push(trip.as_millis() as u64);
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        done.store(true, Ordering::Relaxed);
        writing.await.expect("a writer");
        let (bitrate, probed, echoed) = (median(bitrates), median(probed), median(echoed));
        println!("{bitrate} bit/s of {RATE}; round trip {probed} ms, echo {echoed} ms");
        assert!(bitrate.abs_diff(RATE) <= RATE * 3 / 10, "{bitrate} bit/s were probed of {RATE}");
        assert!(probed.abs_diff(echoed) <= echoed / 5, "{probed} ms were probed, the echo took {echoed} ms");
    });
    drop(relay);
}

fn median(mut of: Vec<u64>) -> u64 {
    assert!(of.len() > 10, "only {} samples", of.len());
    of.sort_unstable();
    of[of.len() / 2]
}
