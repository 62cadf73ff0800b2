//! Promise: the wake-ups and locks of a frame grow with the number of workers, not of subscribers.

#![allow(missing_docs, clippy::print_stdout)]

use relay_model::{LogId, WorkerId};
use relay_tests::{
    media::{Source, Viewer},
    relay::TestRelay,
    run, wait_until, within,
};

const WORKERS: usize = 2;
const SUBSCRIBERS: usize = 40;
const GROUPS: u64 = 10;
const FRAMES: u64 = 12;

/// Wake-ups of workers by logs, and locks of all logs.
fn spent(relay: &TestRelay) -> (u64, u64) {
    let store = relay.store();
    let wakes = (0..WORKERS).map(|worker| store.ready_list(WorkerId(worker as u16)).wakes()).sum();
    let locks = (0..1_000).filter_map(|log| store.log(LogId(log))).map(|log| log.lock_count()).sum();
    (wakes, locks)
}

#[test]
fn wakes_and_locks_a_frame_do_not_grow_with_subscribers() {
    run(60, async {
        let relay = TestRelay::start(WORKERS);
        let publisher = relay.connect().await;
        let mut source = Source::announce(&publisher, "cam", 400);
        relay.announced("cam").await;
        let clients = relay.clients(SUBSCRIBERS).await;
        wait_until("sessions on all workers", 5, || relay.busy_workers() == WORKERS).await;
        let mut viewers = Vec::new();
        for client in &clients {
            viewers.push(Viewer::join(client, "cam").await);
        }
        within("the subscription", 10, source.track.wait_subscribed()).await;
        relay.wait_readers(SUBSCRIBERS).await;
        let first = source.group(1);
        for viewer in &viewers {
            viewer.wait_group(first).await;
        }

        let (pulls, (wakes, locks)) = (relay.meter().pulls, spent(&relay));
        for _ in 0..GROUPS {
            let group = source.next;
            let mut open = source.open();
            for frame in 1..FRAMES {
                open.frame();
                // One at a time: frames within one turn would share the cost.
                for viewer in &viewers {
                    viewer.wait("a frame", |seen| seen.frames.get(&group) == Some(&frame)).await;
                }
            }
            open.finish();
            for viewer in &viewers {
                viewer.wait_group(group).await;
            }
        }
        let after = spent(&relay);
        let (wakes, locks) = (after.0 - wakes, after.1 - locks);
        wait_until("counters", 5, || relay.meter().pulls > pulls).await;
        // The end of a group may arrive in a packet after its last frame: it is an event like a frame.
        let news = GROUPS * (FRAMES + 1);
        println!("{news} events: {wakes} wakes, {locks} locks");
        assert!(wakes <= news * WORKERS as u64, "{wakes} wakes for {news} events");
        assert!(locks <= news * (1 + WORKERS as u64), "{locks} locks for {news} events");
        assert!(wakes > 0 && locks >= GROUPS * FRAMES, "{wakes} wakes and {locks} locks: not counted");
        source.end();
        for viewer in viewers {
            viewer.finish().await.assert_lossless(first..source.next, "a subscriber");
        }
    });
}
