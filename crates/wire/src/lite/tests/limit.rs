//! Every limit holds, and one past it is refused.

use super::*;

fn with_size(value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    crate::body::put_bytes(value, &mut out);
    out
}

#[test]
fn path_bytes() {
    let at = with_size(&[b'x'; limits::PATH_BYTES]);
    assert!(AnnounceRequest::decode(V, &[&at, &[0][..]].concat()).is_ok());
    let past = with_size(&[b'x'; limits::PATH_BYTES + 1]);
    let refused = AnnounceRequest::decode(V, &[&past, &[0][..]].concat());
    assert_eq!(refused, Err(Error::Path(relay_model::PathError::TooLong)));
}

#[test]
fn path_segments() {
    let at = "x/".repeat(limits::PATH_SEGMENTS);
    assert!(TrackRequest::decode(V, &[with_size(at.as_bytes()), vec![0]].concat()).is_ok());
    let past = with_size(format!("{at}x").as_bytes());
    let refused = TrackRequest::decode(V, &[past, vec![0]].concat());
    assert_eq!(refused, Err(Error::Path(relay_model::PathError::TooManySegments)));
}

#[test]
fn track_name_bytes() {
    let at = with_size(&[b'x'; limits::TRACK_NAME_BYTES]);
    assert!(TrackRequest::decode(V, &[&[0][..], &at].concat()).is_ok());
    let past = with_size(&[b'x'; limits::TRACK_NAME_BYTES + 1]);
    assert_eq!(TrackRequest::decode(V, &[&[0][..], &past].concat()), Err(Error::TrackNameTooLong));
}

#[test]
fn goaway_uri_bytes() {
    let at = with_size(&[b'x'; GOAWAY_URI_BYTES]);
    assert!(Goaway::decode(V, &at).is_ok());
    let past = with_size(&[b'x'; GOAWAY_URI_BYTES + 1]);
    assert_eq!(Goaway::decode(V, &past), Err(Error::UriTooLong));
}

#[test]
fn hops() {
    let announce = |count: usize| {
        let mut body = vec![1, 0];
        varint::put(count as u64, &mut body);
        (1..=count as u64).for_each(|hop| varint::put(hop, &mut body));
        Announce::decode(V, &body)
    };
    assert_eq!(announce(limits::HOPS).map(|announce| announce.hops.len()), Ok(limits::HOPS));
    assert_eq!(announce(limits::HOPS + 1), Err(Error::TooManyHops));
}

#[test]
fn parameters() {
    let setup = |count: usize| {
        let mut body = Vec::new();
        varint::put(count as u64, &mut body);
        for id in 0..count as u64 {
            varint::put(1_000 + id, &mut body);
            body.push(0);
        }
        Setup::decode(V, &body)
    };
    assert_eq!(setup(limits::PARAMETERS), Ok(Setup::default()));
    assert_eq!(setup(limits::PARAMETERS + 1), Err(Error::TooManyParameters));
}

#[test]
fn datagram_payload() {
    let datagram = |len: usize| Datagram::decode(V, [vec![0, 0, 0], vec![7; len]].concat().into());
    assert!(datagram(limits::DATAGRAM_PAYLOAD).is_ok());
    assert_eq!(datagram(limits::DATAGRAM_PAYLOAD + 1), Err(Error::DatagramTooLarge));
}

#[test]
fn datagram_tick() {
    let datagram = |tick: u64| {
        let mut body = vec![0, 0];
        varint::put(tick, &mut body);
        Datagram::decode(V, body.into())
    };
    assert!(datagram(TICK_MAX.unsigned_abs()).is_ok());
    assert_eq!(datagram(TICK_MAX.unsigned_abs() + 1), Err(Error::Timestamp));
}

#[test]
fn frame_bytes() {
    let frame = |size: u64| {
        let mut out = vec![0];
        varint::put(size, &mut out);
        GroupReader::frames(V).next(&mut out.into())
    };
    let head = FrameHead { tick: 0, size: limits::FRAME_BYTES };
    assert_eq!(frame(limits::FRAME_BYTES), Ok(Some(GroupEvent::Frame(head))));
    assert_eq!(frame(limits::FRAME_BYTES + 1), Err(Error::FrameTooLarge));
}

#[test]
fn frame_tick() {
    // Zigzag: an even number is twice the step forward, an odd one a step back.
    let steps = |deltas: &[u64]| {
        let mut out = Vec::new();
        for delta in deltas {
            varint::put(*delta, &mut out);
            out.push(0);
        }
        let (mut reader, mut input, mut last) = (GroupReader::frames(V), Bytes::from(out), 0);
        while let Some(event) = reader.next(&mut input)? {
            if let GroupEvent::Frame(head) = event {
                last = head.tick;
            }
        }
        Ok(last)
    };
    let far = TICK_MAX.unsigned_abs();
    assert_eq!(steps(&[2 * far]), Ok(TICK_MAX));
    assert_eq!(steps(&[2 * far, 2 * far - 1]), Ok(0));
    assert_eq!(steps(&[2 * far, 2]), Err(Error::Timestamp));
    assert_eq!(steps(&[1]), Err(Error::Timestamp));
    assert_eq!(steps(&[10, 11]), Err(Error::Timestamp));
}

#[test]
fn the_widest_group_number_can_be_asked_for() {
    let prefs = Prefs { start: Some(varint::MAX), ..Prefs::default() };
    let back = SubscribeUpdate::decode(V, &body(&SubscribeUpdate { prefs })).unwrap();
    assert_eq!(back.prefs.start, Some(varint::MAX - 1));
}
