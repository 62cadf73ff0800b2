use std::fmt::Debug;

use bytes::Bytes;
use proptest::prelude::*;
use relay_model::{Hop, Hops, Path, Prefs, TrackInfo, TrackName, limits};

use super::*;
use crate::{Inbox, varint};

mod limit;
mod stream;

const V: Version = Version::V05;

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

fn track(raw: &str) -> TrackName {
    TrackName::parse(raw).unwrap()
}

fn encoded(message: &impl Message) -> Vec<u8> {
    let mut out = vec![0xee];
    message.encode(V, &mut out);
    assert_eq!(out.remove(0), 0xee, "what was there before stays");
    out
}

/// The body of `message`, without its size.
fn body(message: &impl Message) -> Vec<u8> {
    let out = encoded(message);
    let mut input = out.as_slice();
    assert_eq!(varint::get(&mut input).unwrap(), input.len() as u64);
    input.to_vec()
}

/// Decodes to itself whole, and not at all when a byte is missing or left over.
fn comes_back<M: Message + PartialEq + Debug>(message: &M) {
    let bytes = body(message);
    assert_eq!(M::decode(V, &bytes).as_ref(), Ok(message));
    let cut = bytes.len().saturating_sub(1);
    assert!(bytes.is_empty() || M::decode(V, &bytes[..cut]).is_err(), "a byte is missing");
    assert_eq!(M::decode(V, &[bytes.as_slice(), &[0]].concat()), Err(Error::Leftover));
}

fn int() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 0..=varint::MAX, Just(varint::MAX)]
}

fn opt() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(prop_oneof![0..100_u64, 0..varint::MAX, Just(varint::MAX - 1)])
}

fn any_path() -> impl Strategy<Value = Path> {
    "[a-z./é]{0,40}".prop_map(|raw| path(&raw))
}

fn any_track() -> impl Strategy<Value = TrackName> {
    "\\PC{0,40}".prop_map(|raw| track(&raw))
}

fn any_hops() -> impl Strategy<Value = Hops> {
    (prop::collection::hash_set(1..=varint::MAX, 0..=limits::HOPS), 0..3_usize).prop_map(|(ids, zeros)| {
        ids.into_iter().skip(zeros).chain(std::iter::repeat_n(0, zeros)).take(limits::HOPS).map(Hop).collect()
    })
}

fn any_prefs() -> impl Strategy<Value = Prefs> {
    (any::<u8>(), any::<bool>(), int(), opt(), opt()).prop_map(
        |(priority, ordered, max_age_ms, start, end)| Prefs { priority, ordered, max_age_ms, start, end },
    )
}

fn any_setup() -> impl Strategy<Value = Setup> {
    let role = prop_oneof![Just(None), Just(Some(Role::Publisher)), Just(Some(Role::Subscriber))];
    let hop = prop::option::of((1..=varint::MAX).prop_map(Hop));
    (0..=2_u64, prop::option::of("\\PC{1,80}"), role, prop::option::of(int()), hop)
        .prop_map(|(probe, path, role, cost, hop)| Setup { probe, path, role, cost, hop })
}

fn any_response() -> impl Strategy<Value = SubscribeResponse> {
    prop_oneof![
        int().prop_map(|group| SubscribeResponse::Start { group }),
        int().prop_map(|group| SubscribeResponse::End { group }),
        (int(), int(), int()).prop_map(|(a, b, code)| SubscribeResponse::Drop {
            start: a.min(b),
            end: a.max(b),
            code
        }),
    ]
}

proptest! {
    #[test]
    fn setup_comes_back(setup in any_setup()) {
        comes_back(&setup);
    }

    #[test]
    fn announces_come_back(prefix in any_path(), hop in int(), count in int(), hops in any_hops(), active: bool) {
        comes_back(&AnnounceRequest { prefix: prefix.clone(), exclude_hop: Hop(hop) });
        comes_back(&AnnounceOk { hop: Hop(hop), count });
        let status = if active { Status::Active } else { Status::Ended };
        comes_back(&Announce { status, suffix: prefix, hops });
    }

    #[test]
    fn subscriptions_come_back(id in int(), broadcast in any_path(), track in any_track(), prefs in any_prefs()) {
        comes_back(&Subscribe { id, broadcast, track, prefs });
        comes_back(&SubscribeUpdate { prefs });
    }

    #[test]
    fn responses_come_back(responses in prop::collection::vec(any_response(), 0..8)) {
        let mut out = Vec::new();
        responses.iter().for_each(|response| response.encode(V, &mut out));
        let mut inbox = Inbox::new();
        inbox.push(&out);
        for response in responses {
            prop_assert_eq!(SubscribeResponse::next(&mut inbox, V), Ok(Some(response)));
        }
        prop_assert!(inbox.is_empty());
    }

    #[test]
    fn requests_come_back(broadcast in any_path(), track in any_track(), priority: u8, group in int()) {
        comes_back(&TrackRequest { broadcast: broadcast.clone(), track: track.clone() });
        comes_back(&Fetch { broadcast, track, priority, group });
    }

    #[test]
    fn small_messages_come_back(a in int(), b in int(), uri in "\\PC{0,80}") {
        comes_back(&Probe { bitrate: a, rtt_ms: b });
        comes_back(&Goaway { uri });
        comes_back(&Group { subscribe: a, sequence: b });
    }

    #[test]
    fn track_info_comes_back(priority: u8, ordered: bool, max_age_ms in int(), timescale in 1..=varint::MAX) {
        comes_back(&TrackInfo { priority, ordered, max_age_ms, timescale });
    }

    #[test]
    fn datagrams_come_back(subscribe in int(), sequence in int(), tick in 0..=TICK_MAX, payload: Vec<u8>) {
        let datagram = Datagram { subscribe, sequence, tick: tick.unsigned_abs(), payload: payload.into() };
        let mut out = Vec::new();
        datagram.encode(V, &mut out);
        prop_assert_eq!(Datagram::decode(V, out.into()), Ok(datagram));
    }
}

#[test]
fn track_info_has_its_known_bytes() {
    let mut info = TrackInfo { priority: 127, ordered: false, max_age_ms: 5_000, timescale: 1_000 };
    assert_eq!(info, TrackInfo::default());
    assert_eq!(encoded(&info), [0x06, 0x7f, 0x00, 0x53, 0x88, 0x43, 0xe8]);
    info.timescale = 1_000_000;
    assert_eq!(encoded(&info), [0x08, 0x7f, 0x00, 0x53, 0x88, 0x80, 0x0f, 0x42, 0x40]);
}

#[test]
fn types_and_names_come_back() {
    for id in 0..100 {
        assert!(BidiType::from_id(id).is_none_or(|kind| kind.id() == id));
        assert!(UniType::from_id(id).is_none_or(|kind| kind.id() == id));
    }
    assert_eq!((0..100).filter_map(BidiType::from_id).count(), 6);
    assert_eq!((0..100).filter_map(UniType::from_id).count(), 2);
    assert_eq!(Version::from_alpn("moq-lite-05"), Some(V));
    assert_eq!(Version::from_alpn("moq-lite-06"), None);
}

#[test]
fn setup_passes_over_what_it_does_not_know() {
    // Five parameters: probe 7, role 9, hop 0, an empty path, an unknown one.
    let bytes = [5, 1, 1, 7, 3, 1, 9, 5, 1, 0, 2, 0, 0x2a, 2, 1, 2];
    assert_eq!(Setup::decode(V, &bytes), Ok(Setup { probe: 2, ..Setup::default() }));
    assert_eq!(Setup::decode(V, &[0]), Ok(Setup::default()));
}

#[test]
fn setup_refuses_duplicates_and_values_that_do_not_fill_their_length() {
    assert_eq!(Setup::decode(V, &[2, 4, 1, 1, 4, 1, 1]), Err(Error::DuplicateParameter));
    assert_eq!(Setup::decode(V, &[2, 0x2a, 0, 0x2a, 0]), Err(Error::DuplicateParameter));
    assert_eq!(Setup::decode(V, &[1, 4, 2, 1, 1]), Err(Error::MalformedParameter));
    assert_eq!(Setup::decode(V, &[1, 4, 1, 0x40]), Err(Error::MalformedParameter));
    assert_eq!(Setup::decode(V, &[1, 4, 0]), Err(Error::MalformedParameter));
    assert_eq!(Setup::decode(V, &[1, 2, 1, 0xff]), Err(Error::Utf8));
}

#[test]
fn an_older_word_for_active_reads_as_active() {
    let announce = Announce { status: Status::Active, suffix: path("a"), hops: [].into() };
    assert_eq!(Announce::decode(V, &[2, 1, b'a', 0]), Ok(announce));
    assert_eq!(Announce::decode(V, &[3, 1, b'a', 0]), Err(Error::Value("announce status")));
}

#[test]
fn only_the_anonymous_hop_may_come_twice() {
    assert!(Announce::decode(V, &[1, 0, 3, 0, 0, 5]).is_ok());
    assert_eq!(Announce::decode(V, &[1, 0, 3, 5, 0, 5]), Err(Error::RepeatedHop));
}

#[test]
fn a_track_without_a_timescale_is_refused() {
    assert_eq!(TrackInfo::decode(V, &[127, 0, 0, 0]), Err(Error::Value("timescale")));
}

#[test]
fn a_dropped_range_cannot_run_backwards() {
    let mut inbox = Inbox::new();
    inbox.push(&[2, 3, 5, 4, 0]);
    assert_eq!(SubscribeResponse::next(&mut inbox, V), Err(Error::Value("dropped range")));
}

#[test]
fn an_unknown_response_is_refused_by_its_type_alone() {
    let mut inbox = Inbox::new();
    inbox.push(&[3]);
    assert_eq!(SubscribeResponse::next(&mut inbox, V), Err(Error::UnknownResponse));
}

#[test]
fn errors_name_a_code_for_the_peer() {
    use relay_model::{SessionCode, StreamCode};
    assert_eq!(Error::DuplicateParameter.session_code(), SessionCode::PROTOCOL_VIOLATION);
    assert_eq!(Error::DuplicateParameter.to_string(), "duplicate");
    assert_eq!(Error::MalformedParameter.session_code(), SessionCode::KEY_VALUE_FORMATTING);
    assert_eq!(Error::FrameTooLarge.stream_code(), StreamCode::FRAME_TOO_LARGE);
    assert_eq!(Error::Timestamp.stream_code(), StreamCode::TIMESTAMP_MISMATCH);
}
