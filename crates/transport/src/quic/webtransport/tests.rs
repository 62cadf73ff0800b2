//! Replay of the corpora `webtransport` (heads of streams, requests, settings) and `capsule`.

use web_transport_proto::{ConnectRequest, ConnectResponse};

use crate::corpus;

use super::{
    capsule::{self, CapsuleReader},
    head::{self, H3StreamKind, StreamHead},
    *,
};

/// Reads a stream head as the relay does, and returns the kind and the number of bytes taken.
fn read_head(stream_type: u64, data: &[u8]) -> (Option<H3StreamKind>, usize) {
    let (mut head, mut rest) = (StreamHead::default(), data);
    while head.missing(stream_type) > 0 && !rest.is_empty() {
        let (piece, after) = rest.split_at(head.missing(stream_type).min(rest.len()));
        head.push(piece);
        rest = after;
    }
    assert_eq!(head.kind(stream_type).is_some(), head.missing(stream_type) == 0);
    assert!(data.starts_with(head.bytes()));
    (head.kind(stream_type), head.bytes().len())
}

#[test]
fn corpus_of_webtransport_breaks_no_decoder() {
    corpus::replay("webtransport", |data| {
        for stream_type in [head::BIDI, head::UNI] {
            let (kind, taken) = read_head(stream_type, data);
            assert!(taken <= data.len());
            if let Some(H3StreamKind::Session(id)) = kind {
                let again = head::prefix(stream_type, id);
                assert_eq!(read_head(stream_type, &again), (kind, again.len()));
            }
        }
        if let Ok(request) = request::parse(data) {
            assert_eq!(request::parse(data), Ok(request));
        }
        let _ = ConnectRequest::decode(&mut &data[..]);
        let _ = ConnectResponse::decode(&mut &data[..]);
        let _ = Settings::decode(&mut &data[..]);
    });
}

#[test]
fn corpus_of_capsules_breaks_no_decoder() {
    corpus::replay("capsule", |data| {
        let whole = CapsuleReader::default().push(data);
        let mut reader = CapsuleReader::default();
        let bytewise = data.chunks(1).find_map(|byte| reader.push(byte));
        assert_eq!(whole, bytewise);
        if let Some(close) = whole {
            // Each invalid byte is replaced by a character of three bytes.
            assert!(close.reason.len() <= 3 * 1_024);
            if close.reason.len() <= 1_024 {
                let again = capsule::close(close.code, &close.reason);
                assert_eq!(CapsuleReader::default().push(&again), Some(close));
            }
        }
    });
}
