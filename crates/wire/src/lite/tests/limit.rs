//! Every limit: the largest accepted value, and one above it, which is rejected.

use super::*;

fn with_size(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::body::put_bytes(value, &mut out);
    out
}

#[test]
fn path_bytes() {
    for version in all() {
        // Exclude-hop field of the versions that have one.
        let after: &[u8] = if matches!(version, V04 | V05) { &[0] } else { &[] };
        let request = |len: usize| {
            AnnounceRequest::decode(version, &[&with_size(&vec![b'x'; len]), after].concat()).map(|_| ())
        };
        assert_eq!(request(limits::PATH_BYTES), Ok(()));
        assert_eq!(request(limits::PATH_BYTES + 1), Err(DecodeError::Path(relay_model::PathError::TooLong)));
    }
}

#[test]
fn path_segments() {
    for version in all() {
        let request = |path: &str| {
            TrackRequest::decode(version, &[with_size(path.as_bytes()), vec![0]].concat()).map(|_| ())
        };
        let at = "x/".repeat(limits::PATH_SEGMENTS);
        assert_eq!(request(&at), Ok(()));
        assert_eq!(
            request(&format!("{at}x")),
            Err(DecodeError::Path(relay_model::PathError::TooManySegments))
        );
    }
}

#[test]
fn track_name_bytes() {
    for version in all() {
        let request = |len: usize| {
            TrackRequest::decode(version, &[&[0][..], &with_size(&vec![b'x'; len])].concat()).map(|_| ())
        };
        assert_eq!(request(limits::TRACK_NAME_BYTES), Ok(()));
        assert_eq!(request(limits::TRACK_NAME_BYTES + 1), Err(DecodeError::TrackNameTooLong));
    }
}

#[test]
fn goaway_uri_bytes() {
    for version in all() {
        let goaway = |len: usize| Goaway::decode(version, &with_size(&vec![b'x'; len])).map(|_| ());
        assert_eq!(goaway(limits::GOAWAY_URI_BYTES), Ok(()));
        assert_eq!(goaway(limits::GOAWAY_URI_BYTES + 1), Err(DecodeError::UriTooLong));
    }
}

/// Encodes an announce of the root path with `count` hops.
fn announce_over(version: Version, count: usize) -> Vec<u8> {
    let mut body = if version == V06 { vec![0] } else { vec![1, 0] };
    varint::put(count as u64, &mut body);
    if version >= V04 {
        (1..=count as u64).for_each(|hop| varint::put(hop, &mut body));
    }
    if version == V06 {
        body.extend([0, 0]);
    }
    let before: &[u8] = if version == V06 { &[0] } else { &[] };
    [before, &with_size(&body)].concat()
}

#[test]
fn hops() {
    for version in all().filter(|version| version.has_hops()) {
        let hops = |count: usize| {
            announces(version, &announce_over(version, count)).map(|announces| match &announces[..] {
                [Announce::Active { hops, .. }] => hops.len(),
                other => panic!("{other:?}"),
            })
        };
        assert_eq!(hops(limits::HOPS), Ok(limits::HOPS));
        assert_eq!(hops(limits::HOPS + 1), Err(DecodeError::TooManyHops));
    }
    // A declared count that would need much memory.
    let mut count = Vec::new();
    varint::put(varint::MAX, &mut count);
    assert_eq!(announces(V03, &with_size(&[&[1, 0], &count[..]].concat())), Err(DecodeError::TooManyHops));
}

#[test]
fn hops_of_a_restart() {
    let restart = |count: usize| {
        let mut body = vec![7];
        varint::put(count as u64, &mut body);
        (1..=count as u64).for_each(|hop| varint::put(hop, &mut body));
        body.extend([0, 0]);
        announces(V06, &[&[2], &with_size(&body)[..]].concat()).map(|announces| announces.len())
    };
    assert_eq!(restart(limits::HOPS), Ok(1));
    assert_eq!(restart(limits::HOPS + 1), Err(DecodeError::TooManyHops));
}

#[test]
fn announce_bytes() {
    // Also for a skipped type, which is buffered until it is complete.
    for (version, before) in [(V03, &[][..]), (V04, &[]), (V05, &[]), (V06, &[0]), (V06, &[9])] {
        let mut inbox = MessageBuf::new();
        let size = |size: usize| {
            let mut out = before.to_vec();
            varint::put(size as u64, &mut out);
            out
        };
        inbox.push(&size(limits::CONTROL_MESSAGE_BYTES));
        assert_eq!(Announce::next(&mut inbox, version), Ok(None));
        let mut inbox = MessageBuf::new();
        inbox.push(&size(limits::CONTROL_MESSAGE_BYTES + 1));
        assert_eq!(Announce::next(&mut inbox, version), Err(DecodeError::MessageTooLarge));
    }
}

#[test]
fn parameters() {
    for version in [V05, V06] {
        let setup = |count: usize| {
            let mut body = Vec::new();
            varint::put(count as u64, &mut body);
            for id in 0..count as u64 {
                varint::put(1_000 + id, &mut body);
                body.push(0);
            }
            Setup::decode(version, &body)
        };
        assert_eq!(setup(limits::PARAMETERS), Ok(Setup::default()));
        assert_eq!(setup(limits::PARAMETERS + 1), Err(DecodeError::TooManyParameters));
    }
}

#[test]
fn datagram_payload() {
    for version in [V05, V06] {
        let datagram = |len: usize| Datagram::decode(version, [vec![0, 0, 0], vec![7; len]].concat().into());
        assert!(datagram(limits::DATAGRAM_PAYLOAD).is_ok());
        assert_eq!(datagram(limits::DATAGRAM_PAYLOAD + 1), Err(DecodeError::DatagramTooLarge));
    }
}

#[test]
fn datagram_tick() {
    for version in [V05, V06] {
        let datagram = |tick: u64| {
            let mut body = vec![0, 0];
            varint::put(tick, &mut body);
            Datagram::decode(version, body.into())
        };
        assert!(datagram(TICK_MAX.unsigned_abs()).is_ok());
        assert_eq!(datagram(TICK_MAX.unsigned_abs() + 1), Err(DecodeError::Timestamp));
    }
}

#[test]
fn frame_bytes() {
    for version in all() {
        let frame = |size: u64| {
            let mut out = if version >= V05 { vec![0] } else { Vec::new() };
            varint::put(size, &mut out);
            GroupReader::frames(version).next(&mut out.into())
        };
        let head = FrameHead { tick: (version >= V05).then_some(0), size: limits::FRAME_BYTES };
        assert_eq!(frame(limits::FRAME_BYTES), Ok(Some(GroupEvent::Frame(head))));
        assert_eq!(frame(limits::FRAME_BYTES + 1), Err(DecodeError::FrameTooLarge));
    }
}

#[test]
fn frame_tick() {
    // Zigzag: an even number is twice the step forward, an odd one a step back.
    let steps = |version: Version, deltas: &[u64]| {
        let mut out = Vec::new();
        for delta in deltas {
            varint::put(*delta, &mut out);
            out.push(0);
        }
        let (mut reader, mut input, mut last) = (GroupReader::frames(version), Bytes::from(out), None);
        while let Some(event) = reader.next(&mut input)? {
            if let GroupEvent::Frame(head) = event {
                last = head.tick;
            }
        }
        Ok(last)
    };
    let far = TICK_MAX.unsigned_abs();
    for version in [V05, V06] {
        assert_eq!(steps(version, &[2 * far]), Ok(Some(TICK_MAX)));
        assert_eq!(steps(version, &[2 * far, 2 * far - 1]), Ok(Some(0)));
        assert_eq!(steps(version, &[2 * far, 2]), Err(DecodeError::Timestamp));
        assert_eq!(steps(version, &[1]), Err(DecodeError::Timestamp));
        assert_eq!(steps(version, &[10, 11]), Err(DecodeError::Timestamp));
    }
}

#[test]
fn the_widest_group_number_can_be_asked_for() {
    let asked = |version: Version, start: Start| {
        let prefs = Prefs { start, end: Some(varint::MAX), ..Prefs::default() };
        SubscribeUpdate::decode(version, &body(version, &SubscribeUpdate { prefs })).unwrap().prefs
    };
    for version in [V03, V04, V05] {
        let prefs = asked(version, Start::Group(varint::MAX));
        assert_eq!((prefs.start, prefs.end), (Start::Group(varint::MAX - 1), Some(varint::MAX - 1)));
    }
    // On moq-lite-06 the start is not encoded as value plus one.
    let prefs = asked(V06, Start::Fresh { floor: varint::MAX });
    assert_eq!((prefs.start, prefs.end), (Start::Fresh { floor: varint::MAX }, Some(varint::MAX - 1)));
}
