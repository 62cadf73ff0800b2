//! Decoders allocate in proportion to the bytes received, never to a declared length. A single test, alone
//! in its process, because it measures the global allocator.

use bytes::Bytes;
use peak_alloc::PeakAlloc;
use relay_model::{TrackInfo, limits};
use relay_wire::{
    MessageBuf,
    lite::{
        Announce, AnnounceInit, AnnounceRequest, Datagram, Fetch, Goaway, GroupReader, Message, Setup,
        Subscribe, SubscribeResponse, Version, legacy::ClientSetup,
    },
    varint,
};

#[global_allocator]
static ALLOCATOR: PeakAlloc = PeakAlloc;

/// Heap bytes allowed per received byte: a one-byte hop id takes eight bytes, temporarily twice, and buffers
/// grow by doubling.
const FACTOR: usize = 24;
/// Heap bytes allowed regardless of the input; covers the hop chain of moq-lite-03, which has a length but
/// no ids, at most [`limits::HOPS`].
const SLACK: usize = 1_024;

/// Returns the peak heap growth in bytes while `work` ran.
fn peak(work: impl FnOnce()) -> usize {
    let before = ALLOCATOR.current_usage();
    ALLOCATOR.reset_peak_usage();
    work();
    ALLOCATOR.peak_usage().saturating_sub(before)
}

fn check(what: &str, input: &[u8], work: fn(Version, &[u8])) {
    for version in Version::every() {
        let held = peak(|| work(version, input));
        let allowed = FACTOR * input.len() + SLACK;
        let len = input.len();
        assert!(
            held <= allowed,
            "{what}, {version:?}: {len} bytes of input took {held} bytes of heap, over {allowed}"
        );
    }
}

/// Decodes `input` as the body of each message type that contains lengths.
fn bodies(version: Version, input: &[u8]) {
    let _ = Setup::decode(version, input);
    let _ = AnnounceRequest::decode(version, input);
    let _ = AnnounceInit::decode(version, input);
    let _ = Subscribe::decode(version, input);
    let _ = Fetch::decode(version, input);
    let _ = TrackInfo::decode(version, input);
    let _ = Goaway::decode(version, input);
}

fn stream(version: Version, input: &[u8]) {
    let (mut control, mut responses, mut announces) =
        (MessageBuf::new(), MessageBuf::new(), MessageBuf::new());
    let mut setups = MessageBuf::new();
    for piece in input.chunks(7) {
        control.push(piece);
        responses.push(piece);
        announces.push(piece);
        setups.push(piece);
        while let Ok(Some(_)) = ClientSetup::next(&mut setups) {}
        while let Ok(Some(body)) = control.next_message() {
            bodies(version, &body);
        }
        while let Ok(Some(_)) = SubscribeResponse::next(&mut responses, version) {}
        while let Ok(Some(_)) = Announce::next(&mut announces, version) {}
    }
}

fn group(version: Version, input: &[u8]) {
    for mut reader in [GroupReader::new(version), GroupReader::frames(version)] {
        let mut input = Bytes::copy_from_slice(input);
        while let Ok(Some(_)) = reader.next(&mut input) {}
    }
}

fn datagram(version: Version, input: &[u8]) {
    let _ = Datagram::decode(version, Bytes::copy_from_slice(input));
}

/// Concatenates `before`, the varint `declared`, and `after`.
fn declaring(before: &[u8], declared: u64, after: &[u8]) -> Vec<u8> {
    let mut out = before.to_vec();
    varint::put(declared, &mut out);
    out.extend_from_slice(after);
    out
}

/// Inputs whose declared lengths far exceed their size.
fn promises() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    let large = [limits::CONTROL_MESSAGE_BYTES as u64, limits::FRAME_BYTES, 1 << 40, varint::MAX];
    for declared in large.into_iter().chain([limits::HOPS as u64, limits::PARAMETERS as u64, 60_000]) {
        for before in [&[][..], &[0], &[1], &[1, 0], &[1, 2], &[2, 7, 9, 0], &[0, 0, 0, 0]] {
            for after in [&[][..], &[0], &[1, 1, 1, 1]] {
                all.push(declaring(before, declared, after));
            }
        }
    }
    all
}

/// Generates reproducible noise, small numbers more often than large ones.
fn noise(mut state: u64) -> Vec<u8> {
    let mut byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let [.., high, low] = (state >> 40).to_be_bytes();
        if high < 128 { low % 9 } else { low }
    };
    let len = usize::from(byte()) * 3;
    (0..len).map(|_| byte()).collect()
}

#[test]
fn memory_follows_what_was_received() {
    let watched = peak(|| drop(Vec::<u8>::with_capacity(1 << 20)));
    assert!(watched >= 1 << 20, "the allocator is watched");

    let mut inputs = promises();
    inputs.extend((0..20_000).map(noise));
    // A complete message of the maximum size.
    inputs.push(declaring(
        &[],
        limits::CONTROL_MESSAGE_BYTES as u64,
        &vec![1; limits::CONTROL_MESSAGE_BYTES],
    ));
    for input in &inputs {
        check("body", input, bodies);
        check("stream", input, stream);
        check("group", input, group);
        check("datagram", input, datagram);
    }
}
