//! Announces and routes in each version.

use relay_model::{
    Ask, Cost, Hop, SessionCode, StreamCode, limits,
    transport::{Stream, TransportClosed},
};
use relay_wire::{
    lite::{Announce, AnnounceOk, Setup, Version},
    varint,
};

use crate::{
    harness::{MS, Relay, guest, host},
    peer::{encoded, path},
    show::versions,
};

/// Two publishers of one version, of whom the first has announced `live/cam`, and a watcher of it.
fn watched(version: Version) -> (Relay, [usize; 2], usize, Stream) {
    let mut relay = Relay::of(version, 1);
    let publishers = [relay.publisher("live/cam", &[]), relay.subscriber()];
    let watcher = relay.subscriber();
    let watch = relay[watcher].watch("live");
    relay.run(MS * 50);
    (relay, publishers, watcher, watch)
}

fn heard(relay: &Relay, watcher: usize, watch: Stream) -> &[Announce] {
    &relay[watcher].watches[&watch].heard
}

fn closed_with(relay: &Relay, at: usize) -> Option<SessionCode> {
    match &relay[at].closed {
        Some(TransportClosed::ByPeer(code, _)) => Some(*code),
        _ => None,
    }
}

/// The announce stream that the relay opened to a peer, unanswered.
fn receiver(relay: &mut Relay, setup: Setup) -> (usize, Stream) {
    let at = relay.link(host(), guest());
    relay[at].answers = false;
    if relay[at].version.has_setup() {
        relay[at].setup_with(setup);
    }
    relay.until("announce request", |relay| !relay[at].asked.is_empty());
    let stream = relay[at].asked[0].stream;
    if relay[at].version.has_announce_ok() {
        let ok = encoded(relay[at].version, &AnnounceOk { hop: relay[at].hop, count: 0 });
        relay[at].write(stream, ok);
    }
    (at, stream)
}

fn active(suffix: &str, hops: &[u64]) -> Announce {
    let hops = hops.iter().copied().map(Hop).collect();
    Announce::Active { suffix: path(suffix), hops, cost: Cost { warm: 2, cold: 3 } }
}

fn announced(relay: &Relay, at: usize) -> Vec<(Vec<Hop>, Cost)> {
    let asks = relay.asks.iter().filter(|(from, _)| *from == at);
    asks.filter_map(|(_, ask)| match ask {
        Ask::Announce { hops, cost, .. } => Some((hops.to_vec(), *cost)),
        _ => None,
    })
    .collect()
}

#[test]
fn detour_is_announced_to_relays_only() {
    versions(|version| {
        let (mut relay, [publisher, _], watcher, watch) = watched(version);
        let me = relay[publisher].hop.0;
        // Another route to the same publisher.
        relay[publisher].publish("live/cam", &[], &[me + 500]);
        relay.run(MS * 50);
        let before = heard(&relay, watcher, watch).len();
        relay[publisher].publish("live/cam", &[], &[me + 500, 7]);
        relay.run(MS * 50);
        assert_eq!(heard(&relay, watcher, watch)[before..], []);
        // A chain of two marks a relay, which gets the withheld route.
        relay[watcher].publish("other", &[], &[8_000, 8_001]);
        relay.run(MS * 50);
        let said = &heard(&relay, watcher, watch)[before..];
        let hops = [me + 500, 7, me].map(Hop);
        match version {
            Version::V06 => {
                let cost = Cost { warm: 1, cold: 1 };
                assert_eq!(said, [Announce::Restart { id: 0, hops: hops.into(), cost }]);
            }
            Version::V05 => {
                let cost = Cost::UNKNOWN;
                assert_eq!(said, [Announce::Active { suffix: path("cam"), hops: hops.into(), cost }]);
            }
            // Without a replacement message: an end and an announce in one write.
            Version::V04 | Version::V03 | Version::V02 | Version::V01 => {
                assert!(matches!(said, [Announce::Ended { .. }, Announce::Active { .. }]), "{said:?}");
            }
        }
        relay.disperse();
    });
}

#[test]
fn end_and_announce_in_one_write_replace_the_route() {
    for version in [Version::V03, Version::V04] {
        let mut relay = Relay::of(version, 1);
        let (at, stream) = receiver(&mut relay, Setup::default());
        let mut say = |announces: &[Announce]| {
            let mut out = Vec::new();
            announces.iter().for_each(|announce| announce.encode(version, &mut out));
            let before = relay.asks.len();
            relay[at].write(stream, out);
            relay.run(MS * 50);
            let asked = relay.asks[before..].iter().filter(|(from, _)| *from == at);
            asked
                .filter_map(|(_, ask)| match ask {
                    Ask::Announce { path, .. } => Some(format!("+{path}")),
                    Ask::Unannounce { path } => Some(format!("-{path}")),
                    _ => None,
                })
                .collect::<Vec<_>>()
        };
        let ended = |suffix| Announce::Ended { suffix: path(suffix) };
        assert_eq!(say(&[active("a", &[7])]), ["+a"]);
        assert_eq!(say(&[ended("a"), active("a", &[8])]), ["+a"]);
        assert_eq!(say(&[ended("a"), active("b", &[7])]), ["-a", "+b"]);
        assert_eq!(say(&[active("a", &[7]), ended("a"), ended("b")]), ["+a", "-a", "-b"]);
        assert_eq!(say(&[active("a", &[7])]), ["+a"]);
        assert_eq!(say(&[ended("a")]), ["-a"], "the end is not deferred");
    }
}

#[test]
fn fading_route_is_withdrawn_from_relays_first() {
    versions(|version| {
        let (mut relay, _, reader, watch) = watched(version);
        let passes_on = relay.subscriber();
        relay[passes_on].publish("other/cam", &[], &[3]);
        let other = relay[passes_on].watch("live");
        relay.run(MS * 50);
        assert_eq!(relay[passes_on].watches[&other].live.len(), 1);
        relay.fade("live/cam");
        relay.run(MS * 50);
        assert_eq!(relay[passes_on].watches[&other].live.len(), 0);
        assert_eq!(relay[reader].watches[&watch].live.len(), 1);
        assert_eq!(heard(&relay, reader, watch).len(), 1);
        relay.disperse();
    });
}

#[test]
fn change_of_publisher_is_announced() {
    versions(|version| {
        let (mut relay, [first, second], watcher, watch) = watched(version);
        relay[second].publish("live/cam", &[], &[]);
        relay.run(MS * 50);
        let kinds: Vec<_> = heard(&relay, watcher, watch)
            .iter()
            .map(|announce| match announce {
                Announce::Active { .. } => "active",
                Announce::Ended { .. } => "ended",
                Announce::Restart { .. } => "restart",
                Announce::EndedId { .. } => "end",
            })
            .collect();
        let expected: &[_] = match version {
            Version::V06 => &["active", "restart"],
            Version::V05 => &["active", "active"],
            Version::V04 | Version::V03 | Version::V02 | Version::V01 => &["active", "ended", "active"],
        };
        assert_eq!(kinds, expected);
        // The second is withdrawn, which leaves the first. Then that is withdrawn too.
        relay[second].withdraw("live/cam");
        relay.run(MS * 50);
        assert_eq!(relay[watcher].watches[&watch].live.len(), 1);
        if version.has_hop_ids() {
            let hops = &relay[watcher].watches[&watch].live[&path("cam")];
            assert_eq!(hops[0], relay[first].hop);
        }
        relay[first].withdraw("live/cam");
        relay.run(MS * 50);
        assert_eq!(relay[watcher].watches[&watch].live.len(), 0);
        relay.disperse();
    });
}

#[test]
fn relay_is_appended_to_chains_where_needed() {
    versions(|version| {
        let (relay, [publisher, _], watcher, watch) = watched(version);
        let me = relay[publisher].hop;
        let told = relay[watcher].watches[&watch].live[&path("cam")].to_vec();
        let expected = match version {
            // Publisher, its stamp, and this relay.
            Version::V01 | Version::V02 => vec![],
            Version::V03 => vec![Hop::ANONYMOUS; 3],
            Version::V04 => vec![me, Hop(1_000)],
            Version::V05 | Version::V06 => vec![me],
        };
        assert_eq!(told, expected);
        let ok = relay[watcher].watches[&watch].ok;
        assert_eq!(ok, version.has_announce_ok().then_some(AnnounceOk { hop: Hop(1_000), count: 1 }));
    });
}

#[test]
fn announce_ids_are_sequential_and_never_reused() {
    let (mut relay, [publisher, _], watcher, watch) = watched(Version::V06);
    for name in ["a", "b"] {
        relay[publisher].publish(&format!("live/{name}"), &[], &[]);
        relay.run(MS * 30);
    }
    relay[publisher].withdraw("live/cam");
    relay.run(MS * 30);
    relay[publisher].publish("live/cam", &[], &[]);
    relay.run(MS * 30);
    relay[publisher].withdraw("live/b");
    relay[publisher].withdraw("live/cam");
    relay.run(MS * 30);
    // Ids count up from 0 in the order of the announces, as checked by `hear_watch`.
    let ended: Vec<_> = heard(&relay, watcher, watch)
        .iter()
        .filter_map(|announce| match announce {
            Announce::EndedId { id } => Some(*id),
            _ => None,
        })
        .collect();
    assert_eq!(ended, [0, 2, 3]);
    assert_eq!(relay[watcher].watches[&watch].live.keys().collect::<Vec<_>>(), [&path("a")]);
    relay.disperse();
}

#[test]
fn route_cost_is_the_announced_cost_plus_the_link() {
    for (said, link) in [(None, 1), (Some(0), 0), (Some(7), 7), (Some(Cost::MAX), Cost::MAX)] {
        let mut relay = Relay::of(Version::V06, 1);
        let setup = Setup { cost: said, path: Some("/".to_owned()), ..Setup::default() };
        let (publisher, stream) = receiver(&mut relay, setup);
        relay[publisher].say(stream, &active("live/cam", &[]));
        let watcher = relay.subscriber();
        let watch = relay[watcher].watch("");
        relay.run(MS * 50);
        let add = |price: u64| price.saturating_add(link).min(Cost::MAX);
        let expected = Cost { warm: add(2), cold: add(3) };
        assert_eq!(relay[watcher].watches[&watch].costs[&path("live/cam")], expected);
        // A changed cost alone is sent as a restart.
        let restart = Announce::Restart { id: 0, hops: [].into(), cost: Cost { warm: 0, cold: 3 } };
        relay[publisher].say(stream, &restart);
        relay.run(MS * 50);
        let expected = Cost { warm: add(0), cold: add(3) };
        assert_eq!(relay[watcher].watches[&watch].costs[&path("live/cam")], expected);
        // An unchanged route is not sent again.
        relay[publisher].say(stream, &restart);
        relay.run(MS * 50);
        let news = if link == Cost::MAX { 1 } else { 2 };
        assert_eq!(heard(&relay, watcher, watch).len(), news);
        relay.disperse();
    }
}

#[test]
fn a_route_of_earlier_versions_has_no_price() {
    for version in [Version::V05, Version::V04, Version::V03] {
        let mut relay = Relay::of(version, 1);
        let setup = Setup { cost: Some(7), path: Some("/".to_owned()), ..Setup::default() };
        let (publisher, stream) = receiver(&mut relay, setup);
        relay[publisher].say(stream, &active("live/cam", &[5]));
        relay.run(MS * 50);
        assert_eq!(announced(&relay, publisher)[0].1, Cost::UNKNOWN);
        relay.version = Version::V06;
        let watcher = relay.subscriber();
        let watch = relay[watcher].watch("");
        relay.run(MS * 50);
        assert_eq!(relay[watcher].watches[&watch].costs[&path("live/cam")], Cost::UNKNOWN);
        relay.disperse();
    }
}

#[test]
fn an_announce_of_06_that_contradicts_the_stream_closes_with_3() {
    let restart = |id| Announce::Restart { id, hops: [].into(), cost: Cost::default() };
    let wrong: [&[Announce]; 7] = [
        &[restart(0)],
        &[Announce::EndedId { id: 0 }],
        &[active("live/cam", &[]), restart(1)],
        &[active("live/cam", &[]), active("live/cam", &[9])],
        &[active("live/cam", &[]), Announce::EndedId { id: 0 }, Announce::EndedId { id: 0 }],
        &[active("live/cam", &[]), Announce::EndedId { id: 0 }, restart(0)],
        &[
            active("live/cam", &[]),
            Announce::EndedId { id: 0 },
            active("live/cam", &[]),
            Announce::EndedId { id: 0 },
        ],
    ];
    for said in wrong {
        let mut relay = Relay::of(Version::V06, 1);
        let (publisher, stream) =
            receiver(&mut relay, Setup { path: Some("/".to_owned()), ..Setup::default() });
        let (last, before) = said.split_last().unwrap();
        for announce in before {
            relay[publisher].say(stream, announce);
        }
        relay.run(MS * 50);
        assert!(relay.is_alive(publisher), "{before:?}");
        relay[publisher].say(stream, last);
        relay.run(MS * 50);
        assert_eq!(closed_with(&relay, publisher), Some(SessionCode::PROTOCOL_VIOLATION), "{said:?}");
        relay.disperse();
    }
}

#[test]
fn unknown_announce_type_is_skipped_and_uses_no_id() {
    let mut relay = Relay::of(Version::V06, 1);
    let (publisher, stream) = receiver(&mut relay, Setup { path: Some("/".to_owned()), ..Setup::default() });
    for kind in [3, 9, 16_000, varint::MAX] {
        let mut unknown = Vec::new();
        varint::put(kind, &mut unknown);
        unknown.extend_from_slice(&[3, 1, 2, 3]);
        relay[publisher].write(stream, unknown);
    }
    relay[publisher].say(stream, &active("live/cam", &[]));
    let end = Announce::EndedId { id: 0 };
    let watcher = relay.subscriber();
    let watch = relay[watcher].watch("");
    relay.run(MS * 50);
    assert_eq!(relay[watcher].watches[&watch].live.len(), 1);
    relay[publisher].say(stream, &end);
    relay.run(MS * 50);
    assert_eq!(relay[watcher].watches[&watch].live.len(), 0);
    assert!(relay.is_alive(publisher));
    relay.disperse();
}

#[test]
fn an_end_of_an_unknown_path_is_ignored() {
    for version in [Version::V05, Version::V04, Version::V03] {
        let mut relay = Relay::of(version, 1);
        let (publisher, stream) =
            receiver(&mut relay, Setup { path: Some("/".to_owned()), ..Setup::default() });
        relay[publisher].say(stream, &Announce::Ended { suffix: path("nothing") });
        relay[publisher].say(stream, &active("live/cam", &[5]));
        relay.run(MS * 50);
        assert!(relay.is_alive(publisher));
        assert_eq!(announced(&relay, publisher).len(), 1);
        relay.disperse();
    }
}

#[test]
fn a_count_of_hops_becomes_a_chain_without_names_behind_a_stamp() {
    let mut relay = Relay::of(Version::V03, 1);
    let (publisher, stream) = receiver(&mut relay, Setup::default());
    relay[publisher].say(stream, &active("live/cam", &[1, 2, 3]));
    relay.run(MS * 50);
    let stamp = Hop(9_000 + publisher as u64);
    let chain = vec![stamp, Hop::ANONYMOUS, Hop::ANONYMOUS, Hop::ANONYMOUS];
    assert_eq!(announced(&relay, publisher)[0].0, chain);
    let watcher = relay.subscriber();
    let watch = relay[watcher].watch("");
    relay.run(MS * 50);
    // Two more than received: the stamp, and this relay.
    assert_eq!(relay[watcher].watches[&watch].live[&path("live/cam")].len(), 5);
    relay.disperse();
}

#[test]
fn chain_is_forwarded_up_to_the_hop_limit() {
    versions(|version| {
        // As seen by core: including the sender, and the stamp for senders of a count.
        for length in [limits::HOPS - 1, limits::HOPS, limits::HOPS + 1] {
            let mut relay = Relay::of(version, 1);
            let (publisher, stream) =
                receiver(&mut relay, Setup { path: Some("/".to_owned()), ..Setup::default() });
            let added = usize::from(version != Version::V04);
            if length - added > limits::HOPS {
                continue;
            }
            let hops: Vec<_> = (1..=(length - added) as u64).collect();
            relay[publisher].say(stream, &active("live/cam", &hops));
            let watchers: Vec<_> = Version::ALL
                .iter()
                .map(|version| {
                    relay.version = *version;
                    let watcher = relay.subscriber();
                    (watcher, relay[watcher].watch(""))
                })
                .collect();
            relay.run(MS * 50);
            assert_eq!(announced(&relay, publisher)[0].0.len(), length);
            for (watcher, watch) in watchers {
                // Before moq-lite-05 this relay is part of the chain.
                let most = limits::HOPS - usize::from(!relay[watcher].version.has_announce_ok());
                assert_eq!(relay[watcher].watches[&watch].live.len(), usize::from(length <= most));
            }
            relay.disperse();
        }
    });
}

#[test]
fn track_of_another_publisher_is_not_requested() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        // Core does not know of the change when the track is requested.
        relay.core_sleeps = true;
        if version == Version::V03 {
            // A count carries no ids: only a withdrawal can be sent.
            relay[publisher].withdraw("live/cam");
        } else {
            relay[publisher].publish("live/cam", &[], &[500]);
        }
        relay.run(MS * 30);
        let kept = relay.forget_mail();
        relay.core_sleeps = false;
        let sub = relay[reader].subscribe("live/cam", "video", Default::default());
        relay.run(MS * 50);
        assert_eq!(relay[reader].sub(sub).end.and_then(|end| end.code()), Some(StreamCode::UNROUTABLE));
        assert!(relay[publisher].serving("video").is_none());
        assert!(kept > 0);
        relay.disperse();
    });
}

#[test]
fn track_requested_before_a_publisher_change_is_reset() {
    for version in [Version::V06, Version::V05, Version::V04] {
        for young in [true, false] {
            let mut relay = Relay::of(version, 1);
            let publisher = relay.publisher("live/cam", &["video"]);
            let reader = relay.subscriber();
            let sub = relay[reader].subscribe("live/cam", "video", Default::default());
            relay.upstream(publisher, "video");
            relay.run(MS * if young { 1_900 } else { 2_100 });
            relay[publisher].publish("live/cam", &[], &[500]);
            relay.run(MS * 50);
            assert_eq!(relay[reader].sub(sub).end.is_some_and(|end| !end.is_fin()), young);
            assert_eq!(relay[publisher].serving("video").is_none(), young);
            relay.disperse();
        }
    }
}

#[test]
fn a_chain_one_past_the_limit_ends_the_session() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let (publisher, stream) =
            receiver(&mut relay, Setup { path: Some("/".to_owned()), ..Setup::default() });
        let mut body = Vec::new();
        match version {
            Version::V06 => {
                varint::put(0, &mut body);
            }
            _ => varint::put(1, &mut body),
        }
        let mut rest = vec![];
        if !version.has_announce_ids() {
            rest.append(&mut body);
        }
        rest.extend_from_slice(b"\x01x");
        varint::put(limits::HOPS as u64 + 1, &mut rest);
        if version.has_hop_ids() {
            rest.extend(1..=limits::HOPS as u8 + 1);
        }
        if version.has_announce_ids() {
            rest.extend_from_slice(&[0, 0]);
        }
        varint::put(rest.len() as u64, &mut body);
        body.append(&mut rest);
        relay[publisher].write(stream, body);
        relay.run(MS * 50);
        assert_eq!(closed_with(&relay, publisher), Some(SessionCode::PROTOCOL_VIOLATION));
        relay.disperse();
    });
}

#[test]
fn routes_through_the_excluded_hop_are_withheld() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        relay.version = Version::V05;
        let publisher = relay.publisher("live/through", &[]);
        relay[publisher].publish("live/through", &[], &[50, 60]);
        relay[publisher].publish("live/beside", &[], &[50, 61]);
        relay.version = version;
        let watcher = relay.link(host(), guest());
        relay[watcher].hop = Hop(60);
        relay.let_in(watcher);
        let hop = if version.has_exclude_hop() { Hop(60) } else { Hop::ANONYMOUS };
        let watch = relay[watcher].watch_without("live", hop);
        relay.run(MS * 50);
        let seen = &relay[watcher].watches[&watch];
        let told: Vec<_> = seen.live.keys().map(ToString::to_string).collect();
        if version == Version::V03 {
            assert_eq!(told, ["beside", "through"], "the version has no exclude hop");
        } else {
            assert_eq!(told, ["beside"]);
            assert!(seen.ok.is_none_or(|ok| ok.count == 1));
            assert_eq!(relay.seats[watcher].exclude, Hop(60), "core does not route it there either");
        }
        relay.disperse();
    });
}

#[test]
fn announces_wait_for_the_peers_setup() {
    let mut relay = Relay::of(Version::V06, 1);
    let publisher = relay.publisher("live/through", &[]);
    relay[publisher].publish("live/through", &[], &[60]);
    relay[publisher].publish("live/beside", &[], &[]);
    relay.has_url = true;
    let watcher = relay.link(host(), guest());
    let watch = relay[watcher].watch("live");
    relay.run(MS * 500);
    assert_eq!(relay[watcher].setups.len(), 1, "it is admitted by its URL");
    assert_eq!(relay[watcher].watches[&watch].ok, None);
    assert!(relay[watcher].asked.is_empty(), "the cost of its announces is unknown");
    relay[watcher].setup_with(Setup { hop: Some(Hop(60)), ..Setup::default() });
    relay.run(MS * 50);
    let seen = &relay[watcher].watches[&watch];
    assert_eq!(seen.ok.map(|ok| ok.count), Some(1));
    assert_eq!(seen.live.keys().collect::<Vec<_>>(), [&path("beside")]);
    assert_eq!(relay[watcher].asked.len(), 1);
    relay.disperse();
}

#[test]
fn other_versions_with_a_url_wait_for_no_setup() {
    for version in [Version::V05, Version::V04, Version::V03] {
        let mut relay = Relay::of(version, 1);
        relay.publisher("live/cam", &[]);
        relay.has_url = true;
        let watcher = relay.link(host(), guest());
        let watch = relay[watcher].watch("live");
        relay.run(MS * 50);
        assert_eq!(relay[watcher].watches[&watch].live.len(), 1);
        assert_eq!(relay[watcher].asked.len(), 1);
        assert!(relay.seats[watcher].authorizes.is_empty());
        relay.disperse();
    }
}

#[test]
fn session_without_setup_and_url_authorises_at_once() {
    for version in [Version::V04, Version::V03] {
        let mut relay = Relay::of(version, 1);
        let at = relay.subscriber();
        assert_eq!(relay.seats[at].authorizes, [""]);
        assert!(relay[at].setups.is_empty(), "there is none");
        relay.disperse();
    }
}
