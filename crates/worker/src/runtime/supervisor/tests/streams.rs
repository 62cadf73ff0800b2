//! Sessions over stream sockets, in the same relay as those over QUIC.

use std::time::SystemTime;

use relay_model::transport::TransportClosed as Ending;
use relay_transport::qmux::QmuxCarrier;

use super::{
    peer::{Ends, Peer, announce, tcp, tls, unix, verdict},
    *,
};
use crate::{AdmissionRequest, Denial, GateAnswer, GateReply, RejectReason};

/// One connection of each kind.
fn kinds() -> Vec<Ends> {
    vec![tcp(QmuxCarrier::Bytes), tcp(QmuxCarrier::WebSocket), tls(), unix()]
}

async fn published(relay: &Relay, path: &str) -> (Client, Track) {
    let publisher = connect(relay).await;
    let track = publish(&publisher, path);
    until("it is announced", || relay.counts().store.board_paths == 1).await;
    (publisher, track)
}

/// Publishes a group and waits until `peer` has received it.
async fn receives(track: &Track, peer: &mut Peer, sequence: u64) {
    let payload = format!("over to socket {sequence}.");
    let group = track.group(sequence);
    group.frame(0, payload.clone().into());
    group.finish();
    until("the group", || {
        peer.pump();
        peer.has(&payload)
    })
    .await;
}

#[test]
fn a_group_reaches_readers_over_each_kind_of_stream_socket() {
    run(async {
        let relay = Relay::start(options(2)).unwrap();
        let (_publisher, track) = published(&relay, "live/cam").await;
        let mut peers: Vec<Peer> = kinds().into_iter().map(|ends| Peer::enter(&relay, ends)).collect();
        peers.iter_mut().for_each(|peer| peer.subscribe("live/cam"));
        until("readers", || {
            peers.iter_mut().for_each(Peer::pump);
            relay.counts().core.readers == 4
        })
        .await;
        for sequence in 0..20 {
            for (at, peer) in (0..).zip(&mut peers) {
                receives(&track, peer, sequence * 4 + at).await;
            }
        }
        until("counters", || relay.counts().total().sessions_opened == 5).await;
        let total = relay.counts().total();
        assert_eq!(
            (total.connections, total.connections_websocket, total.connections_tcp, total.connections_unix),
            (5, 1, 2, 1)
        );
        assert!(total.stream_bytes_in > 0 && total.stream_bytes_out > 80 * 20);
        assert!(total.bytes_in > total.stream_bytes_in && total.bytes_out > total.stream_bytes_out);
        assert_eq!(relay.counts().panics(), 0);
        let workers = relay.counts().workers;
        assert!(workers.iter().all(|worker| worker.stream_bytes_in > 0), "one worker has them all");
        drop((peers, track, _publisher));
        until("nothing is left", || is_empty(&relay)).await;
    });
}

#[test]
fn a_publisher_over_a_stream_socket_reaches_a_reader_over_quic() {
    run(async {
        for ends in kinds() {
            let relay = Relay::start(options(2)).unwrap();
            let mut peer = Peer::enter(&relay, ends);
            until("it is announced", || {
                peer.pump();
                relay.counts().store.board_paths == 1
            })
            .await;
            let viewer = connect(&relay).await;
            let mut reader = tokio::select! {
                reader = subscribe(&viewer, "live/socket") => reader,
                () = async { loop { peer.pump(); tokio::time::sleep(Duration::from_millis(1)).await } } => unreachable!(),
            };
            until("somebody wants it", || {
                peer.pump();
                peer.wanted.is_some()
            })
            .await;
            peer.group(3, "from a socket");
            let frame = tokio::select! {
                frame = async { reader.next_group().await.unwrap().frame().await } => frame,
                () = async { loop { peer.pump(); tokio::time::sleep(Duration::from_millis(1)).await } } => unreachable!(),
            };
            assert_eq!(frame.unwrap().expect("a frame").payload, "from a socket");
        }
    });
}

#[test]
fn stalled_reader_delays_no_other_reader() {
    run(async {
        let relay = Relay::start(options(1)).unwrap();
        let (_publisher, track) = published(&relay, "live/cam").await;
        let mut slow: Vec<Peer> = [tcp(QmuxCarrier::Bytes), tls(), unix()]
            .into_iter()
            .map(|ends| Peer::enter(&relay, ends))
            .collect();
        slow.iter_mut().for_each(|peer| peer.subscribe("live/cam"));
        let viewer = connect(&relay).await;
        let mut readers = [subscribe(&viewer, "live/cam").await];
        until("readers", || relay.counts().core.readers == 4).await;
        let large = "x".repeat(400 * 1024);
        for sequence in 0..60 {
            let group = track.group(sequence);
            group.frame(0, large.clone().into());
            group.finish();
            let mut received = readers[0].next_group().await.unwrap();
            assert_eq!(received.sequence(), sequence);
            assert_eq!(received.frame().await.unwrap().expect("a frame").payload, large);
        }
        until("their sockets are full", || relay.counts().total().streams_full >= 3).await;
        // Missed groups are not kept for them; new ones are delivered.
        for (at, peer) in (100..).zip(&mut slow) {
            receives(&track, peer, at).await;
        }
    });
}

#[test]
fn ended_session_receives_code_and_reason() {
    run(async {
        let relay = Relay::start(options(1)).unwrap();
        for ends in kinds() {
            let mut peer = Peer::enter(&relay, ends);
            until("it is in", || {
                peer.pump();
                relay.counts().total().sessions_opened > relay.counts().total().sessions_closed
            })
            .await;
            relay.sessions().end(peer.session, SessionCode::UNAUTHORIZED, "kicked");
            until("it hears", || {
                peer.pump();
                peer.closed.is_some()
            })
            .await;
            let told = Ending::ByPeer(SessionCode::UNAUTHORIZED, "kicked".to_owned());
            assert_eq!(peer.closed.take(), Some(told));
            until("it is gone", || {
                peer.pump();
                is_empty(&relay)
            })
            .await;
        }
        assert_eq!(relay.counts().total().sessions_revoked, 4);
    });
}

#[test]
fn drain_rejects_new_sessions_and_closes_remaining_ones() {
    run(async {
        let relay = Arc::new(Relay::start(options(1)).unwrap());
        let mut peers: Vec<Peer> = kinds().into_iter().map(|ends| Peer::enter(&relay, ends)).collect();
        until("they are in", || {
            peers.iter_mut().for_each(Peer::pump);
            relay.counts().total().sessions_opened == 4
        })
        .await;
        let draining = relay.clone();
        let drained = tokio::task::spawn_blocking(move || {
            draining.drain(Duration::from_secs(2), SessionCode::GOAWAY_TIMEOUT, "goaway timeout");
        });
        until("it drains", || relay.counts().total().goaways_out == 4).await;
        assert_eq!(verdict(&relay, tcp(QmuxCarrier::WebSocket).pending).unwrap_err(), RejectReason::Leaving);
        until("all are told", || {
            peers.iter_mut().for_each(Peer::pump);
            peers.iter().all(|peer| peer.closed.is_some())
        })
        .await;
        let told = Ending::ByPeer(SessionCode::GOAWAY_TIMEOUT, "goaway timeout".to_owned());
        assert!(peers.iter().all(|peer| peer.closed.as_ref() == Some(&told)));
        drained.await.unwrap();
        let late = announce(&relay, tcp(QmuxCarrier::WebSocket).pending);
        assert!(late.recv_timeout(Duration::from_secs(10)).is_err(), "nobody is there to say anything");
    });
}

#[test]
fn panic_over_a_stream_socket_keeps_the_others() {
    let armed = Arc::new(AtomicBool::new(false));
    for stage in [TurnStage::Feed, TurnStage::Input, TurnStage::Flush] {
        armed.store(false, Ordering::Relaxed);
        let mut options = options(1);
        options.fault = Some(Arc::new({
            let armed = armed.clone();
            let bystanders = Mutex::new(HashSet::new());
            move |at, session| {
                if !armed.load(Ordering::Relaxed) {
                    bystanders.lock().insert(session);
                } else if at == stage && !bystanders.lock().contains(&session) {
                    panic!("injected");
                }
            }
        }));
        run(async {
            let relay = Relay::start(options).unwrap();
            let (_publisher, track) = published(&relay, "live/cam").await;
            let mut healthy = Peer::enter(&relay, tcp(QmuxCarrier::Bytes));
            healthy.subscribe("live/cam");
            receives(&track, &mut healthy, 0).await;
            armed.store(true, Ordering::Relaxed);
            let mut victim = Peer::begin(&relay, tcp(QmuxCarrier::WebSocket));
            until("the panic", || {
                victim.pump();
                relay.counts().panics() == 1
            })
            .await;
            receives(&track, &mut healthy, 1).await;
            assert_eq!(relay.counts().panics(), 1);
        });
    }
}

#[test]
fn place_without_a_socket_is_released() {
    run(async {
        let relay = Relay::start(options(1)).unwrap();
        for ends in [tcp(QmuxCarrier::WebSocket), tcp(QmuxCarrier::Bytes)] {
            let place = verdict(&relay, ends.pending).unwrap();
            until("it is held", || relay.counts().total().connections_now == 1).await;
            drop(place);
            until("it is given up", || is_empty(&relay)).await;
        }
        let total = relay.counts().total();
        assert_eq!((total.sessions_opened, total.refused_setup_timeout), (0, 0));
        let kept = verdict(&relay, tcp(QmuxCarrier::WebSocket).pending).unwrap();
        until("it has had its time", || relay.counts().total().refused_setup_timeout == 1).await;
        until("it is given up", || is_empty(&relay)).await;
        drop(kept);
    });
}

#[test]
fn silent_or_half_closed_socket_leaves_nothing_behind() {
    run(async {
        let relay = Relay::start(options(1)).unwrap();
        for ends in kinds() {
            // The other end is dropped at once.
            let place = verdict(&relay, ends.pending.clone()).unwrap();
            place.take(ends.into_link());
            until("it is gone", || is_empty(&relay)).await;
        }
        let mut peer = Peer::enter(&relay, tcp(QmuxCarrier::Bytes));
        until("it is in", || {
            peer.pump();
            relay.counts().total().sessions_opened == 1
        })
        .await;
        drop(peer);
        until("it is gone", || is_empty(&relay)).await;
        assert_eq!(relay.counts().panics(), 0);
    });
}

/// Gate that denies everybody.
struct Nobody;

impl Gate for Nobody {
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
        assert_eq!((request.conn.transport, request.conn.target()), ("websocket", "/"));
        GateAnswer::Now(Err(Denial::Unavailable))
    }
}

#[test]
fn denial_is_returned_before_the_socket_is_handed_over() {
    run(async {
        let relay = Relay::start(RelayOptions { gate: Arc::new(Nobody), ..options(1) }).unwrap();
        let turned = verdict(&relay, tcp(QmuxCarrier::WebSocket).pending).unwrap_err();
        assert_eq!(turned, RejectReason::Denied(Denial::Unavailable));
        until("it is counted", || relay.counts().total().refused_unavailable == 1).await;
        until("nothing is left", || is_empty(&relay)).await;
    });
}

/// Gate that is answered by the test.
#[derive(Default)]
struct Doorman(Mutex<Option<GateReply>>);

impl Gate for Doorman {
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
        *self.0.lock() = Some(request.reply());
        GateAnswer::Later
    }
}

#[test]
fn session_ended_before_its_socket_closes_the_socket() {
    run(async {
        let doorman = Arc::new(Doorman::default());
        let relay = Relay::start(RelayOptions { gate: doorman.clone(), ..options(1) }).unwrap();
        let mut ends = tcp(QmuxCarrier::WebSocket);
        let heard = announce(&relay, ends.pending.clone());
        until("the gate is asked", || doorman.0.lock().is_some()).await;
        assert!(heard.try_recv().is_err(), "nothing is known yet");
        let permit = Policy::public(Scope::everything(), Scope::everything()).admit("/", SystemTime::now());
        let reply = doorman.0.lock().take().expect("it was asked");
        reply.give(Ok(permit.unwrap()));
        let place = heard.recv_timeout(Duration::from_secs(10)).expect("a verdict").expect("a place");
        relay.sessions().end(place.session(), SessionCode::UNAUTHORIZED, "kicked");
        place.take(ends.take_link());
        until("its socket is closed", || ends.is_closed()).await;
        until("nothing is left", || is_empty(&relay)).await;
        until("it is counted", || relay.counts().total().sessions_revoked == 1).await;
        assert_eq!(relay.counts().total().sessions_opened, 0);
    });
}

#[test]
fn a_session_ends_with_its_permit() {
    run(async {
        for ends in kinds() {
            let everything = Policy::public(Scope::everything(), Scope::everything());
            let gate = Arc::new(everything.until(SystemTime::now() + Duration::from_millis(800)));
            let relay = Relay::start(RelayOptions { gate, ..options(1) }).unwrap();
            let mut peer = Peer::enter(&relay, ends);
            until("it hears", || {
                peer.pump();
                peer.closed.is_some()
            })
            .await;
            let told = Ending::ByPeer(SessionCode::UNAUTHORIZED, "expired".to_owned());
            assert_eq!(peer.closed.take(), Some(told));
            assert_eq!(relay.counts().panics(), 0);
        }
    });
}
