//! Ended sessions and streams leave no state behind.

use relay_model::SessionCode;
use relay_session::pair::Rng;

use crate::{
    harness::{MS, Relay},
    show::{frames, patient, rough, seeds, version_of},
};

/// A random action of a peer.
fn stir(relay: &mut Relay, at: usize, rng: &mut Rng, n: u64) {
    let name = format!("live/{}", rng.below(3));
    let tracks = ["video", "audio", "absent"];
    let pick = tracks[rng.below(3) as usize];
    match rng.below(10) {
        0 | 1 => relay[at].publish(&name, &tracks[..2], &[at as u64 + 1]),
        2 if relay[at].broadcasts.contains_key(&crate::peer::path(&name)) => relay[at].withdraw(&name),
        3 => {
            relay[at].watch("live");
        }
        4 | 5 => {
            relay[at].subscribe(&name, pick, patient());
        }
        6 if relay[at].version.has_tracks() => {
            relay[at].ask_track(&name, pick);
            relay[at].fetch(&name, pick, n / 2);
        }
        7 => {
            let open = relay[at].subs.iter().find(|(_, sub)| sub.end.is_none()).map(|(stream, _)| *stream);
            if let Some(stream) = open {
                relay[at].finish(stream);
            }
        }
        _ => {
            if let Some((_, subscribe)) = relay[at].serving(pick) {
                let body = frames(rng, 20_000);
                let whole = relay[at].group_bytes(subscribe.id, n, &body);
                let cut = if rng.chance(0.5) { whole.len() } else { rng.below(whole.len() as u64) as usize };
                relay[at].send_raw_group(whole[..cut].to_vec(), cut == whole.len());
            }
        }
    }
}

#[test]
fn sessions_that_end_at_any_moment_leave_nothing_behind() {
    seeds(80, |seed, rng| {
        let mut relay = Relay::of(version_of(seed), seed);
        let mut present = Vec::new();
        for n in 0..120 {
            if present.len() < 4 && rng.chance(0.2) {
                let (mut ours, mut theirs) = (rough(rng), rough(rng));
                ours.bidi_streams = 500;
                theirs.bidi_streams = 500;
                ours.uni_streams += 1;
                relay.version = version_of(rng.below(4));
                present.push(relay.connect(ours, theirs));
            }
            if present.is_empty() {
                continue;
            }
            let at = present[rng.below(present.len() as u64) as usize];
            stir(&mut relay, at, rng, n);
            relay.run(MS * rng.below(60) as u32);
            if rng.chance(0.05) {
                present.retain(|other| *other != at);
                match rng.below(4) {
                    0 => relay[at].close(SessionCode::NONE, ""),
                    1 => relay[at].pair.cut("lost"),
                    2 => relay.drop_session(at),
                    _ => {
                        let kill = relay_model::Order::Kill { code: SessionCode::NONE, reason: "" };
                        relay.with(at, |session, t, cx| session.order(t, cx, kill));
                    }
                }
            }
        }
        relay.disperse();
    });
}

#[test]
fn streams_that_are_over_are_forgotten_on_both_sides() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let reader = relay.subscriber();
    relay.run(MS * 100);
    let before = [publisher, reader].map(|at| relay[at].pair.a.live_streams());
    for n in 0..20 {
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        relay[reader].ask_track("live/cam", "video");
        relay[reader].ask_track("live/cam", "absent");
        let watch = relay[reader].watch("");
        let subscribe = relay.upstream(publisher, "video");
        relay[publisher].send_group(subscribe, n, &vec![(0, vec![1; 5_000])]);
        relay.run(MS * 50);
        relay[reader].finish(sub);
        relay[reader].finish(watch);
        relay.run(MS * 100);
    }
    relay.run(MS * 6_000);
    assert_eq!([publisher, reader].map(|at| relay[at].pair.a.live_streams()), before);
    relay.disperse();
}
