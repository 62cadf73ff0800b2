use std::fmt::Debug;

use bytes::Bytes;
use proptest::prelude::*;
use relay_model::{Cost, Hop, Hops, Path, Prefs, Start, TrackInfo, TrackName, limits};

use super::*;
use crate::{MessageBuf, varint};

mod carried;
mod dialect;
mod limit;
mod setups;
mod stream;

const V01: Version = Version::V01;
const V02: Version = Version::V02;
const V03: Version = Version::V03;
const V04: Version = Version::V04;
const V05: Version = Version::V05;
const V06: Version = Version::V06;

fn all() -> impl Iterator<Item = Version> {
    Version::every()
}

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

fn track(raw: &str) -> TrackName {
    TrackName::parse(raw).unwrap()
}

fn encoded(version: Version, message: &impl Message) -> Vec<u8> {
    let mut out = vec![0xee];
    message.encode(version, &mut out);
    assert_eq!(out.remove(0), 0xee, "encode appends");
    out
}

/// Encodes `message` without its size prefix.
fn body(version: Version, message: &impl Message) -> Vec<u8> {
    let out = encoded(version, message);
    let mut input = out.as_slice();
    assert_eq!(varint::get(&mut input).unwrap(), input.len() as u64);
    input.to_vec()
}

/// Checks that `message` decodes to itself, and not at all with one byte missing or one left over.
fn comes_back<M: Message + PartialEq + Debug>(version: Version, message: &M) {
    let bytes = body(version, message);
    assert_eq!(M::decode(version, &bytes).as_ref(), Ok(message), "{version:?}");
    let cut = bytes.len().saturating_sub(1);
    assert!(bytes.is_empty() || M::decode(version, &bytes[..cut]).is_err(), "a byte is missing");
    assert_eq!(M::decode(version, &[bytes.as_slice(), &[0]].concat()), Err(DecodeError::Leftover));
}

/// Decodes all messages in `bytes`, which must be consumed to the last byte.
fn taken<M: Debug>(
    version: Version,
    bytes: &[u8],
    next: fn(&mut MessageBuf, Version) -> Result<Option<M>, DecodeError>,
) -> Result<Vec<M>, DecodeError> {
    let (mut inbox, mut all) = (MessageBuf::new(), Vec::new());
    inbox.push(bytes);
    while let Some(message) = next(&mut inbox, version)? {
        all.push(message);
    }
    assert!(inbox.is_empty(), "{all:?}, and bytes left over");
    Ok(all)
}

fn announces(version: Version, bytes: &[u8]) -> Result<Vec<Announce>, DecodeError> {
    taken(version, bytes, Announce::next)
}

fn responses(version: Version, bytes: &[u8]) -> Result<Vec<SubscribeResponse>, DecodeError> {
    taken(version, bytes, SubscribeResponse::next)
}

/// Generates a value for each version, within what that version can encode.
fn each<S: Strategy>(of: impl Fn(Version) -> S) -> impl Strategy<Value = Vec<(Version, S::Value)>> {
    all().map(|version| (Just(version), of(version))).collect::<Vec<_>>()
}

fn int() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 0..=varint::MAX, Just(varint::MAX)]
}

/// Generates an integer at most one below the maximum of [`int`].
fn low_int() -> impl Strategy<Value = u64> {
    prop_oneof![0..100_u64, 0..varint::MAX, Just(varint::MAX - 1)]
}

fn opt() -> impl Strategy<Value = Option<u64>> {
    prop::option::of(low_int())
}

fn any_path() -> impl Strategy<Value = Path> {
    "[a-z./é]{0,40}".prop_map(|raw| path(&raw))
}

fn any_track() -> impl Strategy<Value = TrackName> {
    "\\PC{0,40}".prop_map(|raw| track(&raw))
}

fn any_ids() -> impl Strategy<Value = Hops> {
    (prop::collection::hash_set(1..=varint::MAX, 0..=limits::HOPS), 0..3_usize).prop_map(|(ids, zeros)| {
        ids.into_iter().skip(zeros).chain(std::iter::repeat_n(0, zeros)).take(limits::HOPS).map(Hop).collect()
    })
}

fn any_hops(version: Version) -> BoxedStrategy<Hops> {
    match version {
        V01 | V02 => Just(Hops::from([])).boxed(),
        V03 => (0..=limits::HOPS).prop_map(|count| vec![Hop::ANONYMOUS; count].into()).boxed(),
        _ => any_ids().boxed(),
    }
}

fn any_cost(version: Version) -> BoxedStrategy<Cost> {
    match version {
        V06 => (int(), int()).prop_map(|(warm, cold)| Cost { warm, cold }).boxed(),
        _ => Just(Cost::UNKNOWN).boxed(),
    }
}

fn any_announce(version: Version) -> BoxedStrategy<Announce> {
    let active = (any_path(), any_hops(version), any_cost(version))
        .prop_map(|(suffix, hops, cost)| Announce::Active { suffix, hops, cost });
    match version {
        V06 => {
            prop_oneof![
                active,
                (int(), any_hops(version), any_cost(version))
                    .prop_map(|(id, hops, cost)| Announce::Restart { id, hops, cost }),
                int().prop_map(|id| Announce::EndedId { id }),
            ]
            .boxed()
        }
        _ => prop_oneof![active, any_path().prop_map(|suffix| Announce::Ended { suffix })].boxed(),
    }
}

fn any_prefs(version: Version) -> BoxedStrategy<Prefs> {
    if version == V06 {
        let groups = (int().prop_map(|floor| Start::Fresh { floor }), opt());
        return (any::<u8>(), int(), groups, int(), opt())
            .prop_map(|(priority, max_age_ms, (start, end), start_frame, end_frame)| {
                let end_frame = end_frame.filter(|_| end.is_some());
                Prefs { priority, ordered: false, max_age_ms, start, start_frame, end, end_frame }
            })
            .boxed();
    }
    if version <= V02 {
        let prefs = |priority| Prefs { priority, max_age_ms: 5_000, ..Prefs::default() };
        return any::<u8>().prop_map(prefs).boxed();
    }
    let start = prop_oneof![Just(Start::Latest), low_int().prop_map(Start::Group)];
    (any::<u8>(), any::<bool>(), int(), start, opt())
        .prop_map(|(priority, ordered, max_age_ms, start, end)| Prefs {
            priority,
            ordered,
            max_age_ms,
            start,
            end,
            start_frame: 0,
            end_frame: None,
        })
        .boxed()
}

/// Generates the frame range of a [`Fetch`].
fn any_range(version: Version) -> BoxedStrategy<(u64, Option<u64>)> {
    match version {
        V06 => (low_int(), opt()).prop_map(|(start, end)| (start, end.map(|end| end.max(start)))).boxed(),
        _ => Just((0, None)).boxed(),
    }
}

fn any_group(version: Version) -> BoxedStrategy<Group> {
    let first = if version == V06 { int().boxed() } else { Just(0).boxed() };
    (int(), int(), first)
        .prop_map(|(subscribe, sequence, first_frame)| Group { subscribe, sequence, first_frame })
        .boxed()
}

fn any_setup() -> impl Strategy<Value = Setup> {
    let role = prop_oneof![Just(None), Just(Some(Role::Publisher)), Just(Some(Role::Subscriber))];
    let hop = prop::option::of((1..=varint::MAX).prop_map(Hop));
    (0..=2_u64, prop::option::of("\\PC{1,80}"), role, prop::option::of(int()), hop)
        .prop_map(|(probe, path, role, cost, hop)| Setup { probe, path, role, cost, hop })
}

fn any_response(version: Version) -> BoxedStrategy<SubscribeResponse> {
    let drop = (int(), int(), int()).prop_map(|(a, b, code)| SubscribeResponse::Drop {
        start: a.min(b),
        end: a.max(b),
        code,
    });
    if version >= V05 {
        let start = int().prop_map(|group| SubscribeResponse::Start { group });
        let end = int().prop_map(|group| SubscribeResponse::End { group });
        return prop_oneof![start, end, drop].boxed();
    }
    match version {
        V01 => {
            let ok = |priority| SubscribeResponse::Ok(SubscribeOk { priority, ..SubscribeOk::default() });
            return any::<u8>().prop_map(ok).boxed();
        }
        V02 => return Just(SubscribeResponse::Ok(SubscribeOk::default())).boxed(),
        _ => {}
    }
    let ok = (any::<u8>(), any::<bool>(), int(), opt(), opt()).prop_map(
        |(priority, ordered, max_age_ms, start, end)| {
            SubscribeResponse::Ok(SubscribeOk { priority, ordered, max_age_ms, start, end })
        },
    );
    prop_oneof![ok, drop].boxed()
}

proptest! {
    #[test]
    fn setup_comes_back(setup in any_setup()) {
        for version in [V05, V06] {
            comes_back(version, &setup);
        }
    }

    #[test]
    fn announce_requests_come_back(prefix in any_path(), hop in int(), count in int()) {
        for version in all() {
            let exclude_hop = if matches!(version, V04 | V05) { Hop(hop) } else { Hop::ANONYMOUS };
            comes_back(version, &AnnounceRequest { prefix: prefix.clone(), exclude_hop });
        }
        for version in [V05, V06] {
            comes_back(version, &AnnounceOk { hop: Hop(hop), count });
        }
    }

    #[test]
    fn announces_come_back(sent in each(|version| prop::collection::vec(any_announce(version), 0..8))) {
        for (version, sent) in sent {
            let mut out = Vec::new();
            sent.iter().for_each(|announce| announce.encode(version, &mut out));
            prop_assert_eq!(announces(version, &out), Ok(sent));
        }
    }

    #[test]
    fn subscriptions_come_back(
        id in int(), broadcast in any_path(), track in any_track(), prefs in each(any_prefs),
    ) {
        for (version, prefs) in prefs {
            comes_back(version, &Subscribe { id, broadcast: broadcast.clone(), track: track.clone(), prefs });
            comes_back(version, &SubscribeUpdate { prefs });
        }
    }

    #[test]
    fn responses_come_back(sent in each(|version| prop::collection::vec(any_response(version), 0..8))) {
        for (version, sent) in sent {
            let mut out = Vec::new();
            sent.iter().for_each(|response| response.encode(version, &mut out));
            prop_assert_eq!(responses(version, &out), Ok(sent));
        }
    }

    #[test]
    fn requests_come_back(
        broadcast in any_path(), track in any_track(), priority: u8, group in int(), range in each(any_range),
    ) {
        for (version, (start_frame, end_frame)) in range {
            let (broadcast, track) = (broadcast.clone(), track.clone());
            comes_back(version, &TrackRequest { broadcast: broadcast.clone(), track: track.clone() });
            comes_back(version, &Fetch { broadcast, track, priority, group, start_frame, end_frame });
        }
    }

    #[test]
    fn small_messages_come_back(
        bitrate in int(), rtt_ms in int(), uri in "\\PC{0,80}", group in each(any_group),
    ) {
        for (version, group) in group {
            let rtt_ms = if version <= V03 { 0 } else { rtt_ms };
            comes_back(version, &Probe { bitrate, rtt_ms });
            comes_back(version, &Goaway { uri: uri.clone() });
            comes_back(version, &group);
        }
    }

    #[test]
    fn track_info_comes_back(
        priority: u8, hint: bool, max_age_ms in int(), timescale in 1..=varint::MAX,
    ) {
        for version in [V05, V06] {
            let ordered = hint && version == V05;
            comes_back(version, &TrackInfo { priority, ordered, max_age_ms, timescale });
        }
    }

    #[test]
    fn datagrams_come_back(subscribe in int(), sequence in int(), tick in 0..=TICK_MAX, payload: Vec<u8>) {
        for version in [V05, V06] {
            let (tick, payload) = (tick.unsigned_abs(), payload.clone().into());
            let datagram = Datagram { subscribe, sequence, tick, payload };
            let mut out = Vec::new();
            datagram.encode(version, &mut out);
            prop_assert_eq!(Datagram::decode(version, out.into()), Ok(datagram));
        }
    }
}

#[test]
fn track_info_has_its_known_bytes() {
    let mut info = TrackInfo { priority: 127, ordered: false, max_age_ms: 5_000, timescale: 1_000 };
    assert_eq!(info, TrackInfo::default());
    assert_eq!(encoded(V05, &info), [0x06, 0x7f, 0x00, 0x53, 0x88, 0x43, 0xe8]);
    info.timescale = 1_000_000;
    assert_eq!(encoded(V05, &info), [0x08, 0x7f, 0x00, 0x53, 0x88, 0x80, 0x0f, 0x42, 0x40]);
    assert_eq!(encoded(V06, &info), [0x07, 0x7f, 0x53, 0x88, 0x80, 0x0f, 0x42, 0x40]);
}

#[test]
fn setup_passes_over_what_it_does_not_know() {
    for version in [V05, V06] {
        // Five parameters: probe 7, role 9, hop 0, an empty path, an unknown one.
        let bytes = [5, 1, 1, 7, 3, 1, 9, 5, 1, 0, 2, 0, 0x2a, 2, 1, 2];
        assert_eq!(Setup::decode(version, &bytes), Ok(Setup { probe: 2, ..Setup::default() }));
        assert_eq!(Setup::decode(version, &[0]), Ok(Setup::default()));
    }
}

#[test]
fn setup_rejects_duplicates_and_values_of_wrong_length() {
    for version in [V05, V06] {
        assert_eq!(Setup::decode(version, &[2, 4, 1, 1, 4, 1, 1]), Err(DecodeError::DuplicateParameter));
        assert_eq!(Setup::decode(version, &[2, 0x2a, 0, 0x2a, 0]), Err(DecodeError::DuplicateParameter));
        assert_eq!(Setup::decode(version, &[1, 4, 2, 1, 1]), Err(DecodeError::MalformedParameter));
        assert_eq!(Setup::decode(version, &[1, 4, 1, 0x40]), Err(DecodeError::MalformedParameter));
        assert_eq!(Setup::decode(version, &[1, 4, 0]), Err(DecodeError::MalformedParameter));
        assert_eq!(Setup::decode(version, &[1, 2, 1, 0xff]), Err(DecodeError::Utf8));
    }
}

#[test]
fn obsolete_announce_status_reads_as_active() {
    let announce = Announce::Active { suffix: path("a"), hops: [].into(), cost: Cost::UNKNOWN };
    for version in [V03, V04, V05] {
        assert_eq!(announces(version, &[4, 2, 1, b'a', 0]), Ok(vec![announce.clone()]));
        assert_eq!(announces(version, &[4, 3, 1, b'a', 0]), Err(DecodeError::Value("announce status")));
    }
}

#[test]
fn only_the_anonymous_hop_may_come_twice() {
    for version in [V04, V05] {
        assert!(announces(version, &[6, 1, 0, 3, 0, 0, 5]).is_ok());
        assert_eq!(announces(version, &[6, 1, 0, 3, 5, 0, 5]), Err(DecodeError::RepeatedHop));
    }
    assert!(announces(V06, &[0, 7, 0, 3, 0, 0, 5, 0, 0]).is_ok());
    assert_eq!(announces(V06, &[0, 7, 0, 3, 5, 0, 5, 0, 0]), Err(DecodeError::RepeatedHop));
    assert_eq!(announces(V06, &[2, 7, 0, 3, 5, 0, 5, 0, 0]), Err(DecodeError::RepeatedHop));
}

#[test]
fn a_track_without_a_timescale_is_refused() {
    assert_eq!(TrackInfo::decode(V05, &[127, 0, 0, 0]), Err(DecodeError::Value("timescale")));
    assert_eq!(TrackInfo::decode(V06, &[127, 0, 0]), Err(DecodeError::Value("timescale")));
}

#[test]
fn a_dropped_range_cannot_run_backwards() {
    for (version, drop) in [(V03, 1), (V04, 1), (V05, 2), (V06, 2)] {
        assert!(responses(version, &[drop, 3, 5, 5, 0]).is_ok());
        assert_eq!(responses(version, &[drop, 3, 5, 4, 0]), Err(DecodeError::Value("dropped range")));
    }
}

#[test]
fn errors_name_a_code_for_the_peer() {
    use relay_model::{SessionCode, StreamCode};
    assert_eq!(DecodeError::DuplicateParameter.session_code(), SessionCode::PROTOCOL_VIOLATION);
    assert_eq!(DecodeError::DuplicateParameter.to_string(), "duplicate");
    assert_eq!(DecodeError::MalformedParameter.session_code(), SessionCode::KEY_VALUE_FORMATTING);
    assert_eq!(DecodeError::FrameTooLarge.stream_code(), StreamCode::FRAME_TOO_LARGE);
    assert_eq!(DecodeError::Timestamp.stream_code(), StreamCode::TIMESTAMP_MISMATCH);
}
