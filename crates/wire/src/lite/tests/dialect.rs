//! Differences between the versions.

use super::*;

#[test]
fn versions_are_found_by_their_names() {
    for version in Version::ALL {
        assert_eq!(Version::from_alpn(version.alpn()), Some(*version));
        assert_eq!(version.alpn(), version.name());
    }
    // Both share one name, which therefore selects neither.
    for version in Version::LEGACY {
        assert_eq!((version.alpn(), Version::from_alpn(version.alpn())), ("moql", None));
    }
    assert_eq!(Version::from_alpn("moq-lite-05"), Some(V05));
    // An unreleased protocol whose bytes differ from moq-lite-06.
    assert_eq!(Version::from_alpn("moq-lite-06-wip"), None);
    assert_eq!(Version::from_alpn("moq-lite-02"), None);
    assert_eq!(Version::from_alpn(""), None);
    assert!(all().is_sorted_by(|newer, older| newer > older));
}

#[test]
fn stream_types_are_those_of_their_version() {
    let bidi = |version| (0..100).filter(move |id| BidiType::from_id(version, *id).is_some());
    assert_eq!(bidi(V01).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bidi(V02).collect::<Vec<_>>(), [1, 2]);
    assert_eq!(bidi(V03).collect::<Vec<_>>(), [1, 2, 4]);
    assert_eq!(bidi(V04).collect::<Vec<_>>(), [1, 2, 4, 5]);
    assert_eq!(bidi(V05).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    assert_eq!(bidi(V06).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6]);
    let uni = |version| (0..100).filter(move |id| UniType::from_id(version, *id).is_some());
    for version in [V01, V02, V03, V04] {
        assert_eq!(uni(version).collect::<Vec<_>>(), [0]);
    }
    for version in [V05, V06] {
        assert_eq!(uni(version).collect::<Vec<_>>(), [0, 1]);
    }
    for (version, id) in all().flat_map(|version| (0..100).map(move |id| (version, id))) {
        assert!(BidiType::from_id(version, id).is_none_or(|kind| kind.id() == id));
        assert!(UniType::from_id(version, id).is_none_or(|kind| kind.id() == id));
    }
}

#[test]
fn announces_of_a_type_not_known_are_passed_over() {
    // Two unknown types, the second empty, then the end of id 5, then one more unknown type.
    let bytes = [9, 2, 0xff, 0xff, 0x40, 0x63, 0, 1, 1, 5, 3, 1, 0];
    assert_eq!(announces(V06, &bytes), Ok(vec![Announce::EndedId { id: 5 }]));
}

#[test]
fn a_response_of_a_type_not_known_is_refused_by_its_type_alone() {
    for version in [V03, V04] {
        assert_eq!(responses(version, &[2]), Err(DecodeError::UnknownResponse));
    }
    for version in [V05, V06] {
        assert_eq!(responses(version, &[3]), Err(DecodeError::UnknownResponse));
    }
}

#[test]
fn announces_have_the_bytes_of_their_version() {
    let bytes = |version, announce: &Announce| {
        let mut out = Vec::new();
        announce.encode(version, &mut out);
        out
    };
    let cost = Cost { warm: 1, cold: 2 };
    let active = Announce::Active { suffix: path("a"), hops: [Hop(5), Hop(6)].into(), cost };
    for version in [V01, V02] {
        assert_eq!(bytes(version, &active), [3, 1, 1, b'a']);
        assert_eq!(bytes(version, &Announce::Ended { suffix: path("a") }), [3, 0, 1, b'a']);
    }
    assert_eq!(bytes(V03, &active), [4, 1, 1, b'a', 2]);
    assert_eq!(bytes(V04, &active), [6, 1, 1, b'a', 2, 5, 6]);
    assert_eq!(bytes(V05, &active), [6, 1, 1, b'a', 2, 5, 6]);
    assert_eq!(bytes(V06, &active), [0, 7, 1, b'a', 2, 5, 6, 1, 2]);
    let ended = Announce::Ended { suffix: path("a") };
    for version in [V03, V04, V05] {
        assert_eq!(bytes(version, &ended), [4, 0, 1, b'a', 0]);
    }
    let restart = Announce::Restart { id: 3, hops: [Hop(5)].into(), cost };
    assert_eq!(bytes(V06, &restart), [2, 5, 3, 1, 5, 1, 2]);
    assert_eq!(bytes(V06, &Announce::EndedId { id: 3 }), [1, 1, 3]);
}

#[test]
fn a_chain_told_by_its_length_has_no_names() {
    let hops = [Hop::ANONYMOUS; 3].into();
    let active = Announce::Active { suffix: path("a"), hops, cost: Cost::UNKNOWN };
    assert_eq!(announces(V03, &[4, 1, 1, b'a', 3]), Ok(vec![active]));
}

#[test]
fn prices_stop_growing_where_the_wire_does() {
    let cost = Cost { warm: u64::MAX, cold: u64::MAX };
    let mut out = Vec::new();
    Announce::Restart { id: 0, hops: [].into(), cost }.encode(V06, &mut out);
    let cost = Cost { warm: Cost::MAX, cold: Cost::MAX };
    assert_eq!(announces(V06, &out), Ok(vec![Announce::Restart { id: 0, hops: [].into(), cost }]));
}

/// Returns the preferences that the peer decodes after `prefs` was sent.
fn heard(version: Version, prefs: Prefs) -> Prefs {
    SubscribeUpdate::decode(version, &body(version, &SubscribeUpdate { prefs })).unwrap().prefs
}

#[test]
fn a_start_that_a_version_cannot_say_becomes_the_nearest_one() {
    let start = |version, start| heard(version, Prefs { start, ..Prefs::default() }).start;
    for version in [V03, V04, V05] {
        assert_eq!(start(version, Start::Latest), Start::Latest);
        assert_eq!(start(version, Start::Group(0)), Start::Group(0));
        assert_eq!(start(version, Start::Fresh { floor: 9 }), Start::Group(9));
        assert_eq!(start(version, Start::Fresh { floor: 0 }), Start::Latest);
    }
    assert_eq!(start(V06, Start::Latest), Start::Fresh { floor: 0 });
    assert_eq!(start(V06, Start::Group(9)), Start::Fresh { floor: 9 });
    assert_eq!(start(V06, Start::Fresh { floor: 9 }), Start::Fresh { floor: 9 });
}

#[test]
fn a_frame_bound_goes_with_its_group_bound() {
    let all = Prefs { start_frame: 4, end_frame: Some(7), ..Prefs::default() };
    let bounded = Prefs { start: Start::Group(2), end: Some(3), ..all };
    // Without a start group the peer would read frame 4 as one of group 0.
    let unbounded = heard(V06, all);
    assert_eq!((unbounded.start_frame, unbounded.end_frame), (0, None));
    let heard_bounded = heard(V06, bounded);
    assert_eq!((heard_bounded.start_frame, heard_bounded.end_frame), (4, Some(7)));
    for version in [V03, V04, V05] {
        let heard = heard(version, bounded);
        assert_eq!((heard.start_frame, heard.end_frame), (0, None));
    }
    // priority, age, floor, end group, start frame, end frame
    let absent = SubscribeUpdate::decode(V06, &[0, 0, 0, 0, 0, 8]);
    assert_eq!(absent, Err(DecodeError::Value("end frame: no end group")));
    assert!(SubscribeUpdate::decode(V06, &[0, 0, 0, 4, 0, 8]).is_ok());
}

#[test]
fn a_fetched_range_cannot_run_backwards() {
    // root, empty track name, priority, group, start frame, end frame + 1
    assert!(Fetch::decode(V06, &[0, 0, 0, 1, 5, 6]).is_ok());
    assert_eq!(Fetch::decode(V06, &[0, 0, 0, 1, 5, 5]), Err(DecodeError::Value("frame range")));
    assert!(Fetch::decode(V06, &[0, 0, 0, 1, 5, 0]).is_ok(), "to its end");
}

#[test]
fn what_a_version_has_no_field_for_stays_behind() {
    let request = AnnounceRequest { prefix: path("a"), exclude_hop: Hop(5) };
    assert_eq!(encoded(V03, &request), [2, 1, b'a']);
    assert_eq!(encoded(V04, &request), [3, 1, b'a', 5]);
    assert_eq!(encoded(V05, &request), [3, 1, b'a', 5]);
    assert_eq!(encoded(V06, &request), [2, 1, b'a']);

    let probe = Probe { bitrate: 7, rtt_ms: 9 };
    assert_eq!(encoded(V03, &probe), [1, 7]);
    for version in [V04, V05, V06] {
        assert_eq!(encoded(version, &probe), [2, 7, 9]);
    }

    let group = Group { subscribe: 1, sequence: 2, first_frame: 3 };
    for version in [V03, V04, V05] {
        assert_eq!(encoded(version, &group), [2, 1, 2]);
    }
    assert_eq!(encoded(V06, &group), [3, 1, 2, 3]);

    for version in all() {
        let mut out = Vec::new();
        put_frame_head(version, 3, FrameHead { tick: Some(4), size: 9 }, &mut out);
        assert_eq!(out, if version >= V05 { vec![2, 9] } else { vec![9] });
    }

    let prefs = Prefs { priority: 1, ordered: true, ..Prefs::default() };
    assert!(!heard(V06, prefs).ordered && heard(V05, prefs).ordered);
}

#[test]
fn responses_have_the_numbers_of_their_version() {
    let bytes = |version, response: SubscribeResponse| {
        let mut out = Vec::new();
        response.encode(version, &mut out);
        out
    };
    let drop = SubscribeResponse::Drop { start: 3, end: 4, code: 5 };
    let ok = SubscribeOk { priority: 9, ..SubscribeOk::default() };
    assert_eq!(bytes(V01, SubscribeResponse::Ok(ok)), [1, 9]);
    assert_eq!(bytes(V02, SubscribeResponse::Ok(ok)), [0]);
    for version in [V03, V04] {
        assert_eq!(bytes(version, SubscribeResponse::Ok(ok)), [0, 5, 9, 0, 0, 0, 0]);
        assert_eq!(bytes(version, drop), [1, 3, 3, 4, 5]);
    }
    for version in [V05, V06] {
        assert_eq!(bytes(version, SubscribeResponse::Start { group: 8 }), [0, 1, 8]);
        assert_eq!(bytes(version, SubscribeResponse::End { group: 8 }), [1, 1, 8]);
        assert_eq!(bytes(version, drop), [2, 3, 3, 4, 5]);
    }
}
