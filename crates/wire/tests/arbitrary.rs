//! Arbitrary bytes never panic, and never decode to a message that cannot be encoded again.

use proptest::prelude::*;
use relay_model::{Cost, Hop, Path, Prefs, Start, TrackInfo, TrackName};
use relay_wire::{
    fuzzing::FAMILIES,
    lite::{
        Announce, AnnounceInit, Datagram, Fetch, FrameHead, Goaway, Group, Message, Setup, Subscribe,
        SubscribeOk, SubscribeResponse, Version,
        legacy::{self, ClientSetup, ServerSetup, Value},
        put_frame_head, put_group_header,
    },
};

fn check_all(bytes: &[u8]) {
    for (_, check) in FAMILIES {
        check(bytes);
    }
}

/// Valid messages, to be damaged.
fn samples() -> Vec<Vec<u8>> {
    Version::every().flat_map(samples_of).collect()
}

fn samples_of(version: Version) -> Vec<Vec<u8>> {
    let (broadcast, track) = (Path::parse("live/room/cam").unwrap(), TrackName::parse("video").unwrap());
    let setup =
        Setup { probe: 1, path: Some("/a?b=c".into()), role: None, cost: Some(3), hop: Some(Hop(1 << 50)) };
    let prefs = Prefs {
        start: Start::Group(7),
        end: Some(70),
        start_frame: 3,
        end_frame: Some(5),
        ..Prefs::default()
    };
    let mut all: Vec<Vec<u8>> = Vec::new();
    let mut add = |write: &dyn Fn(&mut Vec<u8>)| {
        let mut out = Vec::new();
        write(&mut out);
        // Once with the first byte (type or size), once without.
        all.push(out.clone());
        if out.len() > 1 {
            all.push(out.split_off(1));
        }
    };
    add(&|out| setup.encode(version, out));
    add(&|out| announces(version, &broadcast).iter().for_each(|announce| announce.encode(version, out)));
    add(&|out| {
        Subscribe { id: 9, broadcast: broadcast.clone(), track: track.clone(), prefs }.encode(version, out)
    });
    add(&|out| {
        Fetch {
            broadcast: broadcast.clone(),
            track: track.clone(),
            priority: 1,
            group: 70_000,
            start_frame: 2,
            end_frame: Some(90),
        }
        .encode(version, out)
    });
    add(&|out| TrackInfo::default().encode(version, out));
    add(&|out| Goaway { uri: "https://relay.example/".into() }.encode(version, out));
    add(&|out| {
        let old = version <= Version::V04;
        let first = if old {
            SubscribeResponse::Ok(SubscribeOk { start: Some(3), ..SubscribeOk::default() })
        } else {
            SubscribeResponse::Start { group: 3 }
        };
        first.encode(version, out);
        if version.has_drops() {
            SubscribeResponse::Drop { start: 3, end: 100, code: 0x34 }.encode(version, out);
        }
        if !old {
            SubscribeResponse::End { group: 101 }.encode(version, out);
        }
    });
    add(&|out| {
        put_group_header(version, &Group { subscribe: 1, sequence: 300, first_frame: 2 }, out);
        let mut previous = 0;
        for (tick, size) in [(33_000, 5), (66_000, 0), (50_000, 80)] {
            put_frame_head(version, previous, FrameHead { tick: Some(tick), size }, out);
            out.extend((0..size).map(|_| 0xc5));
            previous = tick;
        }
    });
    add(&|out| {
        Datagram { subscribe: 0, sequence: 77, tick: 1_000, payload: vec![1, 2, 3].into() }
            .encode(version, out)
    });
    add(&|out| {
        AnnounceInit { suffixes: vec![broadcast.clone(), Path::root()] }.encode(version, out);
    });
    if let Some(code) = legacy::code(version) {
        let (number, bytes) = (Value::Number(1 << 30), Value::Bytes(b"somebody".to_vec()));
        let setup =
            ClientSetup { versions: vec![code, 0xff00_000e], parameters: vec![(2, number), (7, bytes)] };
        add(&|out| setup.encode(out));
        add(&|out| ServerSetup { version }.encode(out));
    }
    add(&|out| out.extend_from_slice(b"//live///room/cam/"));
    all
}

fn announces(version: Version, suffix: &Path) -> Vec<Announce> {
    let (suffix, cost) = (suffix.clone(), Cost { warm: 3, cold: 70_000 });
    if !version.has_hops() {
        let active = Announce::Active { suffix: suffix.clone(), hops: [].into(), cost };
        return vec![active, Announce::Ended { suffix }];
    }
    let hops: relay_model::Hops = [Hop(5), Hop(0), Hop(700), Hop(1 << 40)].into();
    let active = Announce::Active { suffix: suffix.clone(), hops: std::sync::Arc::clone(&hops), cost };
    match version {
        Version::V06 => vec![active, Announce::Restart { id: 0, hops, cost }, Announce::EndedId { id: 0 }],
        _ => vec![active, Announce::Ended { suffix }],
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn noise_does_no_harm(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        check_all(&bytes);
    }

    #[test]
    fn small_numbers_do_no_harm(bytes in prop::collection::vec(0..8_u8, 0..60)) {
        check_all(&bytes);
    }

    #[test]
    fn damaged_messages_do_no_harm(
        sample in prop::sample::select(samples()),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..4),
        cut in any::<prop::sample::Index>(),
        keep: bool,
    ) {
        let mut bytes = sample;
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if !keep {
            bytes.truncate(cut.index(bytes.len()));
        }
        check_all(&bytes);
    }
}
