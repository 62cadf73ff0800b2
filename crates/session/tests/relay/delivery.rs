//! Delivery of groups to readers, byte for byte.

use std::time::Duration;

use relay_model::{Prefs, Start, limits};
use relay_session::pair::Rng;
use relay_wire::lite::SubscribeResponse;

use crate::{
    harness::{MS, Relay, guest, host},
    show::{Show, accepted, bytes, frames, patient, rough, seeds, version_of, versions},
};

const TRACKS: [&str; 2] = ["video", "audio"];

/// Order in which groups are sent: neighbours are sometimes swapped.
fn order(rng: &mut Rng, count: u64) -> Vec<u64> {
    let mut order: Vec<_> = (0..count).collect();
    for at in 1..order.len() {
        // The first stays first, as readers begin with it.
        if at > 1 && rng.chance(0.3) {
            order.swap(at - 1, at);
        }
    }
    order
}

#[test]
fn every_group_arrives_whole_and_once_whatever_the_links() {
    seeds(48, |seed, rng| {
        // Every publisher version is combined with every reader version.
        let mut relay = Relay::of(version_of(seed), seed);
        let (ours, theirs) = (rough(rng), rough(rng));
        let publisher = relay.publisher_on(ours, theirs, "live/cam", &TRACKS);
        let readers: Vec<_> = (0..3)
            .map(|n| {
                relay.version = version_of(seed / 4 + n);
                let (ours, theirs) = (rough(rng), rough(rng));
                relay.connect(ours, theirs)
            })
            .collect();
        let subs: Vec<Vec<_>> = readers
            .iter()
            .map(|reader| {
                TRACKS.iter().map(|name| relay[*reader].subscribe("live/cam", name, patient())).collect()
            })
            .collect();
        relay.run(MS * 1_000);
        let mut shows = TRACKS.map(|name| Show::new(&mut relay, publisher, name));
        for sequence in order(rng, 12) {
            for show in &mut shows {
                let body = frames(rng, 6_000);
                show.air(&mut relay, sequence, body);
                relay.run(MS * rng.below(30) as u32);
            }
            if sequence == 0 {
                // The first group must arrive before any other can overtake it.
                relay.until("the first group", |relay| {
                    let has = |reader: &usize, sub| relay[*reader].has(sub, 0);
                    readers.iter().zip(&subs).all(|(reader, subs)| subs.iter().all(|sub| has(reader, *sub)))
                });
            }
        }
        relay.until("sending", |relay| relay[publisher].is_flushed());
        for (show, name) in shows.iter().zip(TRACKS) {
            show.end(&mut relay, name);
        }
        relay.until_within(Duration::from_secs(120), "end of all", |relay| {
            let ended = |at: usize| relay[readers[at]].subs.values().all(|sub| sub.end.is_some());
            (0..readers.len()).all(ended)
        });
        relay.run(MS * 3_000);
        for (reader, subs) in readers.iter().zip(&subs) {
            for (show, sub) in shows.iter().zip(subs) {
                show.check_all(&relay, *reader, *sub, 0);
                let answer = relay[*reader].sub(*sub);
                assert!(answer.end.unwrap().is_fin(), "seed {seed}: {answer:?}");
                let said = [SubscribeResponse::Start { group: 0 }, SubscribeResponse::End { group: 12 }];
                let old = relay[*reader].version.has_subscribe_ok();
                let expected: &[_] = if old { &[accepted()] } else { &said };
                assert_eq!(answer.responses, expected, "seed {seed}");
            }
        }
        relay.disperse();
    });
}

#[test]
fn a_late_joiner_gets_the_latest_group_from_its_first_frame() {
    seeds(8, |seed, rng| {
        let mut relay = Relay::of(version_of(seed), seed);
        let publisher = relay.publisher("live/cam", &["video"]);
        let first = relay.subscriber();
        let early = relay[first].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 3, MS * 20, |n| vec![(n as i64, vec![n as u8; 3_000])]);

        // A small frame, then 5 MB of which half has arrived.
        let body = vec![(7, bytes(rng, 10)), (8, bytes(rng, 5_000_000)), (9, vec![]), (10, bytes(rng, 100))];
        let whole = relay[publisher].group_bytes(show.subscribe, 3, &body);
        let half = 2_500_000 + rng.below(1_000) as usize;
        let stream = relay[publisher].open_uni(whole[..half].to_vec());
        show.groups.insert(3, body);
        relay.run(MS * (20 + rng.below(200) as u32));

        let loss = rng.below(3) as f64 / 100.0;
        let links =
            [0; 2].map(|_| relay.connect(relay_session::pair::PairOptions { loss, ..host() }, guest()));
        let mut subs = vec![(first, early)];
        for reader in links {
            subs.push((reader, relay[reader].subscribe("live/cam", "video", Prefs::default())));
            // One joins while more of the group arrives.
            let more = rng.below(1_000_000) as usize;
            let next = half + 400_000 * (subs.len() - 2);
            relay[publisher].write(stream, whole[next..next + 400_000].to_vec());
            relay.run(MS * (more % 7) as u32);
        }
        let sent = half + 800_000 - 50;
        relay.until("half a group", |relay| {
            subs.iter().all(|(reader, sub)| {
                let groups = relay[*reader].group(*sub, 3);
                groups.first().is_some_and(|group| {
                    group.frames.iter().map(|(_, frame)| frame.len()).sum::<usize>() >= sent
                })
            })
        });
        for (reader, sub) in &subs[1..] {
            assert_eq!(relay[*reader].groups_of(*sub).count(), 1, "older groups were not requested");
        }
        relay[publisher].write(stream, whole[half + 800_000..].to_vec());
        relay[publisher].finish(stream);
        relay.until("the rest", |relay| subs.iter().all(|(reader, sub)| relay[*reader].has(*sub, 3)));
        show.check_all(&relay, first, early, 0);
        for (reader, sub) in &subs[1..] {
            show.check_all(&relay, *reader, *sub, 3);
            let old = relay.version.has_subscribe_ok();
            let said = if old { accepted() } else { SubscribeResponse::Start { group: 3 } };
            assert_eq!(relay[*reader].sub(*sub).responses, [said]);
        }
        relay.disperse();
    });
}

#[test]
fn a_partial_frame_is_passed_on_before_its_end() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let show = Show::new(&mut relay, publisher, "video");
        let whole = relay[publisher].group_bytes(show.subscribe, 0, &[(1, vec![5; 10_000])]);
        let stream = relay[publisher].open_uni(whole[..60].to_vec());
        relay.run(MS * 30);
        let got =
            |relay: &Relay| relay[reader].group(sub, 0).first().map_or(0, |group| group.frames[0].1.len());
        assert!(got(&relay) >= 50, "{}", got(&relay));
        relay[publisher].write(stream, whole[60..9_000].to_vec());
        relay.run(MS * 30);
        assert!(got(&relay) >= 8_980, "{}", got(&relay));
        relay.disperse();
    });
}

#[test]
fn a_reader_gets_no_group_outside_its_range() {
    seeds(12, |seed, rng| {
        let mut relay = Relay::of(version_of(seed), seed);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.connect(host(), guest());
        let all = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 6, MS * 10, |n| vec![(0, vec![n as u8; 100])]);
        let (start, end) = (3 + rng.below(2), 8 + rng.below(2));
        let prefs = Prefs { start: Start::Group(start), end: Some(end), ..patient() };
        let some = relay[reader].subscribe("live/cam", "video", prefs);
        relay.run(MS * 30);
        show.run(&mut relay, 6, MS * 10, |n| vec![(0, vec![n as u8; 100])]);
        relay.run(MS * 50);
        show.check_all(&relay, reader, all, 0);
        show.check_bytes(&relay, reader, some);
        let mut got: Vec<_> = relay[reader].groups_of(some).filter_map(|group| group.sequence).collect();
        got.sort_unstable();
        assert_eq!(got, (start..=end).collect::<Vec<_>>());
        let old = relay.version.has_subscribe_ok();
        let said = if old { accepted() } else { SubscribeResponse::Start { group: start } };
        assert_eq!(relay[reader].sub(some).responses, [said]);
        assert_eq!(relay[reader].sub(some).end, None, "the end of the range ends nothing");
        relay.disperse();
    });
}

#[test]
fn too_early_start_is_reported_as_the_first_group_sent() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let [first, second] = [relay.subscriber(), relay.subscriber()];
    relay[first].subscribe("live/cam", "video", patient());
    let mut show = Show::new(&mut relay, publisher, "video");
    let surplus = 8;
    let count = limits::READER_GROUPS as u64 + surplus;
    show.run(&mut relay, count, MS * 5, |n| vec![(0, vec![n as u8; 100])]);
    let sub = relay[second].subscribe("live/cam", "video", Prefs { start: Start::Group(0), ..patient() });
    relay.run(MS * 100);
    show.end(&mut relay, "video");
    relay.run(MS * 100);
    let said = [SubscribeResponse::Start { group: surplus }, SubscribeResponse::End { group: count }];
    assert_eq!(relay[second].sub(sub).responses, said);
    show.check_all(&relay, second, sub, surplus);
    relay.disperse();
}

#[test]
fn one_upstream_subscription_serves_all_with_the_widest_prefs() {
    let mut relay = Relay::new(1);
    let publisher = relay.publisher("live/cam", &["video"]);
    let reader = relay.subscriber();
    relay[reader].subscribe("live/cam", "video", Prefs { priority: 3, max_age_ms: 10, ..Prefs::default() });
    relay.upstream(publisher, "video");
    let second = relay[reader].subscribe("live/cam", "video", Prefs { priority: 9, ..Prefs::default() });
    relay.run(MS * 50);
    relay[reader].update(second, Prefs { priority: 2, max_age_ms: 99, ..Prefs::default() });
    relay.run(MS * 50);
    let asked =
        relay[publisher].asked.iter().filter(|asked| matches!(asked.what, crate::peer::Ask::Subscribe(_)));
    let asked: Vec<_> = asked.collect();
    assert_eq!(asked.len(), 1);
    let updates: Vec<_> = asked[0].updates.iter().map(|prefs| (prefs.priority, prefs.max_age_ms)).collect();
    assert_eq!(updates, [(9, 10), (3, 99)]);
    relay.disperse();
}

#[test]
fn many_groups_fan_out_to_many_readers() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let readers: Vec<_> = (0..12)
            .map(|n| {
                relay.version = version_of(n);
                relay.subscriber()
            })
            .collect();
        let subs: Vec<_> =
            readers.iter().map(|reader| relay[*reader].subscribe("live/cam", "video", patient())).collect();
        relay.run(MS * 50);
        let mut show = Show::new(&mut relay, publisher, "video");
        let count = 3 * limits::READER_GROUPS as u64;
        show.run(&mut relay, count, MS * 5, |n| {
            vec![(n as i64, vec![n as u8; 500]), (n as i64 + 1, vec![1; 2_000])]
        });
        relay.run(MS * 100);
        for (reader, sub) in readers.iter().zip(subs) {
            show.check_all(&relay, *reader, sub, 0);
        }
        relay.disperse();
    });
}
