//! How a stream is cut into pieces changes nothing.

use super::*;

/// Pieces of `bytes`, cut at `cuts`.
fn pieces(bytes: &[u8], mut cuts: Vec<prop::sample::Index>) -> Vec<Bytes> {
    let mut at: Vec<usize> = cuts.drain(..).map(|cut| cut.index(bytes.len() + 1)).collect();
    at.extend([0, bytes.len()]);
    at.sort_unstable();
    at.windows(2).map(|pair| Bytes::copy_from_slice(&bytes[pair[0]..pair[1]])).collect()
}

fn cuts() -> impl Strategy<Value = Vec<prop::sample::Index>> {
    prop::collection::vec(any::<prop::sample::Index>(), 0..12)
}

/// All events, with the pieces of a payload joined.
fn read(reader: &mut GroupReader, pieces: Vec<Bytes>) -> Result<Vec<GroupEvent>, Error> {
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

fn any_frames() -> impl Strategy<Value = Vec<(i64, Vec<u8>)>> {
    let tick = prop_oneof![0..1_000_i64, 0..=TICK_MAX];
    prop::collection::vec((tick, prop::collection::vec(any::<u8>(), 0..100)), 0..6)
}

fn group_stream(group: Group, frames: &[(i64, Vec<u8>)]) -> (Vec<u8>, Vec<GroupEvent>) {
    let (mut out, mut events, mut previous) = (Vec::new(), vec![GroupEvent::Header(group)], 0);
    put_group_header(V, &group, &mut out);
    for (tick, payload) in frames {
        let head = FrameHead { tick: *tick, size: payload.len() as u64 };
        put_frame_head(V, previous, head, &mut out);
        out.extend_from_slice(payload);
        previous = *tick;
        events.push(GroupEvent::Frame(head));
        if !payload.is_empty() {
            events.push(GroupEvent::Payload(payload.clone().into()));
        }
    }
    (out, events)
}

proptest! {
    #[test]
    fn a_group_reads_the_same_in_any_pieces(
        subscribe in int(), sequence in int(), frames in any_frames(), cuts in cuts(),
    ) {
        let (bytes, events) = group_stream(Group { subscribe, sequence }, &frames);
        prop_assert_eq!(bytes[0], 0);
        let mut reader = GroupReader::new(V);
        prop_assert_eq!(read(&mut reader, pieces(&bytes[1..], cuts)), Ok(events));
        prop_assert!(reader.at_boundary());
    }

    #[test]
    fn a_group_cut_short_is_not_at_a_boundary(
        frames in any_frames().prop_filter("no frames", |frames| !frames.is_empty()), cut: prop::sample::Index,
    ) {
        let (bytes, _) = group_stream(Group { subscribe: 1, sequence: 2 }, &frames);
        let (mut whole, _) = group_stream(Group { subscribe: 1, sequence: 2 }, &[]);
        let mut boundaries = vec![whole.len()];
        let mut previous = 0;
        for (tick, payload) in &frames {
            put_frame_head(V, previous, FrameHead { tick: *tick, size: payload.len() as u64 }, &mut whole);
            whole.extend_from_slice(payload);
            previous = *tick;
            boundaries.push(whole.len());
        }
        let cut = cut.index(bytes.len()) + 1;
        let mut reader = GroupReader::new(V);
        read(&mut reader, vec![Bytes::copy_from_slice(&bytes[1..cut])]).unwrap();
        prop_assert_eq!(reader.at_boundary(), boundaries.contains(&cut));
    }

    #[test]
    fn control_messages_read_the_same_in_any_pieces(
        responses in prop::collection::vec(any_response(), 1..5), setup in any_setup(), cuts in cuts(),
    ) {
        let mut bytes = Vec::new();
        varint::put(BidiType::Subscribe.id(), &mut bytes);
        setup.encode(V, &mut bytes);
        responses.iter().for_each(|response| response.encode(V, &mut bytes));

        let mut inbox = Inbox::new();
        let (mut kind, mut first, mut rest) = (None, None, Vec::new());
        for piece in pieces(&bytes, cuts) {
            inbox.push(&piece);
            kind = kind.or_else(|| inbox.next_varint());
            if kind.is_some() && first.is_none() {
                first = inbox.next::<Setup>(V).unwrap();
            }
            while first.is_some() && let Some(response) = SubscribeResponse::next(&mut inbox, V).unwrap() {
                rest.push(response);
            }
        }
        prop_assert!(inbox.is_empty());
        prop_assert_eq!((kind, first, rest), (Some(2), Some(setup), responses));
    }
}

#[test]
fn payloads_are_slices_of_the_input() {
    let mut input = Bytes::from_static(&[2, 1, 2, 0, 3, b'a', b'b', b'c']);
    let range = input.as_ptr_range();
    let mut reader = GroupReader::new(V);
    let payload = std::iter::from_fn(|| reader.next(&mut input).unwrap())
        .find_map(|event| if let GroupEvent::Payload(payload) = event { Some(payload) } else { None });
    assert!(payload.is_some_and(|payload| range.contains(&payload.as_ptr()) && payload.len() == 3));
}

#[test]
fn a_group_header_must_fill_its_size() {
    let first = |bytes: &'static [u8]| GroupReader::new(V).next(&mut Bytes::from_static(bytes));
    assert_eq!(first(&[2, 1, 2]), Ok(Some(GroupEvent::Header(Group { subscribe: 1, sequence: 2 }))));
    assert_eq!(first(&[1, 1, 2]), Err(Error::Short));
    assert_eq!(first(&[0, 1, 2]), Err(Error::Short));
    assert_eq!(first(&[3, 1, 2]), Err(Error::Leftover));
    assert_eq!(first(&[3, 0x40, 1, 2]), Ok(Some(GroupEvent::Header(Group { subscribe: 1, sequence: 2 }))));
}

#[test]
fn after_an_error_there_is_nothing_else() {
    let mut reader = GroupReader::frames(V);
    assert_eq!(reader.next(&mut Bytes::from_static(&[1])), Err(Error::Timestamp));
    assert_eq!(reader.next(&mut Bytes::from_static(&[0, 0])), Err(Error::Timestamp));
    assert!(!reader.at_boundary());
}
