//! Decoding does not depend on how a stream is cut into pieces.

use super::*;

/// Cuts `bytes` at `cuts`.
fn pieces(bytes: &[u8], mut cuts: Vec<prop::sample::Index>) -> Vec<Bytes> {
    let mut at: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| Bytes::copy_from_slice(&bytes[pair[0]..pair[1]])).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..12)
}

/// Collects all events, with the pieces of a payload joined.
fn read(reader: &mut GroupReader, pieces: Vec<Bytes>) -> Result<Vec<GroupEvent>, DecodeError> {
    let mut events: Vec<GroupEvent> = Vec::new();
    for mut piece in pieces {
        while let Some(event) = reader.next(&mut piece)? {
            match (events.last_mut(), event) {
                (Some(GroupEvent::Payload(all)), GroupEvent::Payload(more)) => {
                    *all = [all.as_ref(), &more].concat().into();
                }
                (_, event) => events.push(event),
            }
        }
        assert!(piece.is_empty());
    }
    Ok(events)
}

/// Generates frames, with timestamps if the version has them.
fn any_frames(version: Version) -> impl Strategy<Value = Vec<(Option<i64>, Vec<u8>)>> {
    let tick = match version {
        V01 | V02 | V03 | V04 => Just(None).boxed(),
        V05 | V06 => prop_oneof![0..1_000_i64, 0..=TICK_MAX].prop_map(Some).boxed(),
    };
    prop::collection::vec((tick, prop::collection::vec(any::<u8>(), 0..100)), 0..6)
}

/// Encodes a group stream; returns its bytes, its events, and the offsets at which a FIN is clean.
fn group_stream(
    version: Version,
    group: Group,
    frames: &[(Option<i64>, Vec<u8>)],
) -> (Vec<u8>, Vec<GroupEvent>, Vec<usize>) {
    let (mut out, mut events, mut previous) = (Vec::new(), vec![GroupEvent::Header(group)], 0);
    put_group_header(version, &group, &mut out);
    let mut boundaries = vec![out.len()];
    for (tick, payload) in frames {
        let head = FrameHead { tick: *tick, size: payload.len() as u64 };
        put_frame_head(version, previous, head, &mut out);
        out.extend_from_slice(payload);
        boundaries.push(out.len());
        previous = tick.unwrap_or(previous);
        events.push(GroupEvent::Frame(head));
        if !payload.is_empty() {
            events.push(GroupEvent::Payload(payload.clone().into()));
        }
    }
    (out, events, boundaries)
}

proptest! {
    #[test]
    fn a_group_reads_the_same_in_any_pieces(
        groups in each(|version| (any_group(version), any_frames(version))), cuts in cuts(),
    ) {
        for (version, (group, frames)) in groups {
            let (bytes, events, _) = group_stream(version, group, &frames);
            prop_assert_eq!(bytes[0], 0);
            let mut reader = GroupReader::new(version);
            prop_assert_eq!(read(&mut reader, pieces(&bytes[1..], cuts.clone())), Ok(events));
            prop_assert!(reader.at_boundary());
        }
    }

    #[test]
    fn a_group_cut_short_is_not_at_a_boundary(
        groups in each(|version| (any_group(version), any_frames(version))), cut: prop::sample::Index,
    ) {
        for (version, (group, frames)) in groups {
            let (bytes, _, boundaries) = group_stream(version, group, &frames);
            let cut = cut.index(bytes.len()) + 1;
            let mut reader = GroupReader::new(version);
            read(&mut reader, vec![Bytes::copy_from_slice(&bytes[1..cut])]).unwrap();
            prop_assert_eq!(reader.at_boundary(), boundaries.contains(&cut));
        }
    }

    #[test]
    fn control_messages_read_the_same_in_any_pieces(
        sent in each(|version| prop::collection::vec(any_response(version), 1..5)),
        setup in any_setup(), cuts in cuts(),
    ) {
        for (version, sent) in sent {
            let mut bytes = Vec::new();
            varint::put(BidiType::Subscribe.id(), &mut bytes);
            setup.encode(version, &mut bytes);
            sent.iter().for_each(|response| response.encode(version, &mut bytes));

            let mut inbox = MessageBuf::new();
            let (mut kind, mut first, mut rest) = (None, None, Vec::new());
            for piece in pieces(&bytes, cuts.clone()) {
                inbox.push(&piece);
                kind = kind.or_else(|| inbox.next_varint());
                if kind.is_some() && first.is_none() {
                    first = inbox.next::<Setup>(version).unwrap();
                }
                while first.is_some()
                    && let Some(response) = SubscribeResponse::next(&mut inbox, version).unwrap()
                {
                    rest.push(response);
                }
            }
            prop_assert!(inbox.is_empty());
            prop_assert_eq!((kind, first, rest), (Some(2), Some(setup.clone()), sent));
        }
    }

    #[test]
    fn announces_read_the_same_in_any_pieces(
        sent in each(|version| prop::collection::vec(any_announce(version), 1..5)), cuts in cuts(),
    ) {
        for (version, sent) in sent {
            let mut bytes = Vec::new();
            for announce in &sent {
                announce.encode(version, &mut bytes);
                if version == V06 {
                    // An unknown type.
                    bytes.extend([0x40, 0x63, 2, 0xff, 0xff]);
                }
            }
            let (mut inbox, mut rest) = (MessageBuf::new(), Vec::new());
            for piece in pieces(&bytes, cuts.clone()) {
                inbox.push(&piece);
                while let Some(announce) = Announce::next(&mut inbox, version).unwrap() {
                    rest.push(announce);
                }
            }
            prop_assert!(inbox.is_empty());
            prop_assert_eq!(rest, sent);
        }
    }
}

#[test]
fn payloads_are_slices_of_the_input() {
    // Group header and one frame, in three versions.
    let streams: [(Version, &'static [u8]); 3] = [
        (V03, &[2, 1, 2, 3, b'a', b'b', b'c']),
        (V05, &[2, 1, 2, 0, 3, b'a', b'b', b'c']),
        (V06, &[3, 1, 2, 0, 0, 3, b'a', b'b', b'c']),
    ];
    for (version, bytes) in streams {
        let mut input = Bytes::from_static(bytes);
        let range = input.as_ptr_range();
        let mut reader = GroupReader::new(version);
        let payload = std::iter::from_fn(|| reader.next(&mut input).unwrap())
            .find_map(|event| if let GroupEvent::Payload(payload) = event { Some(payload) } else { None });
        assert!(payload.is_some_and(|payload| range.contains(&payload.as_ptr()) && payload.len() == 3));
    }
}

#[test]
fn a_group_header_must_fill_its_size() {
    let first =
        |version, bytes: &'static [u8]| GroupReader::new(version).next(&mut Bytes::from_static(bytes));
    let header = |first_frame| Ok(Some(GroupEvent::Header(Group { subscribe: 1, sequence: 2, first_frame })));
    for version in [V03, V04, V05] {
        assert_eq!(first(version, &[2, 1, 2]), header(0));
        assert_eq!(first(version, &[1, 1, 2]), Err(DecodeError::Short));
        assert_eq!(first(version, &[0, 1, 2]), Err(DecodeError::Short));
        assert_eq!(first(version, &[3, 1, 2]), Err(DecodeError::Leftover));
        assert_eq!(first(version, &[3, 0x40, 1, 2]), header(0));
    }
    assert_eq!(first(V06, &[3, 1, 2, 9]), header(9));
    assert_eq!(first(V06, &[2, 1, 2, 9]), Err(DecodeError::Short));
    assert_eq!(first(V06, &[1, 1, 2, 9]), Err(DecodeError::Short));
    assert_eq!(first(V06, &[0, 1, 2, 9]), Err(DecodeError::Short));
    assert_eq!(first(V06, &[4, 1, 2, 9]), Err(DecodeError::Leftover));
    assert_eq!(first(V06, &[4, 1, 2, 0x40, 9]), header(9));
}

#[test]
fn after_an_error_there_is_nothing_else() {
    let mut large = Vec::new();
    varint::put(limits::FRAME_BYTES + 1, &mut large);
    let large = Bytes::from(large);
    for (version, bytes, error) in [
        (V03, large.clone(), DecodeError::FrameTooLarge),
        (V04, large, DecodeError::FrameTooLarge),
        (V05, Bytes::from_static(&[1]), DecodeError::Timestamp),
        (V06, Bytes::from_static(&[1]), DecodeError::Timestamp),
    ] {
        let mut reader = GroupReader::frames(version);
        assert_eq!(reader.next(&mut bytes.clone()), Err(error));
        assert_eq!(reader.next(&mut Bytes::from_static(&[0, 0])), Err(error));
        assert!(!reader.at_boundary());
    }
}

#[test]
fn a_frame_without_a_tick_repeats_the_one_before() {
    for version in [V05, V06] {
        let mut out = Vec::new();
        put_frame_head(version, 7, FrameHead { tick: None, size: 1 }, &mut out);
        assert_eq!(out, [0, 1]);
    }
}
