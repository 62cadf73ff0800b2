//! Random input and protocol violations.

use relay_model::{
    StreamCode,
    transport::{Dir, TransportClosed},
};
use relay_wire::varint;

use super::*;
use crate::qmux::{limits, websocket};

/// Creates a server over records that has received its peer's transport parameters.
fn met() -> (QmuxConnection, Instant) {
    let now = Instant::now();
    let mut server = QmuxConnection::new(QmuxConfig::new(QmuxFraming::Qmux01, QmuxCarrier::Bytes), now);
    let mut client = QmuxConnection::new(
        QmuxConfig { is_client: true, ..QmuxConfig::new(QmuxFraming::Qmux01, QmuxCarrier::Bytes) },
        now,
    );
    server.receive(now, &output(&mut client, now));
    assert_eq!(server.poll(), Some(TransportEvent::Ready));
    (server, now)
}

fn record(frames: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint::put(frames.len() as u64, &mut out);
    out.extend_from_slice(frames);
    out
}

/// Returns the reason with which the connection was lost.
fn lost(end: &mut QmuxConnection) -> Option<String> {
    events(end).into_iter().find_map(|event| match event {
        TransportEvent::Closed(TransportClosed::Lost(why)) => Some(why),
        _ => None,
    })
}

/// Encodes a WebSocket frame with the first byte `first`.
fn message(first: u8, mask: bool, body: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    websocket::put_head(websocket::Sent::Message, body.len(), mask.then_some([0; 4]), &mut out);
    out[0] = first;
    out.extend_from_slice(body);
    out
}

#[test]
fn no_input_makes_it_panic() {
    for (framing, over) in KINDS {
        for seed in 0..2_000 {
            let mut ends = Ends::new(framing, over, seed);
            if seed % 2 == 0 {
                ends.settle();
            }
            for _ in 0..ends.rng.below(6) {
                let size = ends.rng.below(60);
                let starts = [0x04, 0x05, 0x08, 0x0e, 0x0f, 0x11, 0x12, 0x1c, 0x1d, 0x30, 0x31, 0xff];
                let mut body = vec![starts[ends.rng.below(12) as usize]];
                body.extend((0..size).map(|_| ends.rng.below(if seed % 3 == 0 { 256 } else { 20 }) as u8));
                let unit =
                    if over == QmuxCarrier::WebSocket { message(0x82, true, &body) } else { record(&body) };
                let raw = if seed % 5 == 0 { body } else { unit };
                ends.server.receive(ends.now, &raw);
                for event in events(&mut ends.server) {
                    if let TransportEvent::Opened(stream, _) = event {
                        let _ = take(&mut ends.server, stream);
                        let _ = put(&mut ends.server, stream, b"x");
                    }
                }
                output(&mut ends.server, ends.now);
            }
        }
    }
}

#[test]
fn websocket_violation_closes_with_its_close_code() {
    let cases: [(Vec<u8>, u16); 9] = [
        (message(0x82, false, b"x"), 1002),
        (message(0xc2, true, b"x"), 1002),
        (message(0x83, true, b"x"), 1002),
        (message(0x80, true, b"x"), 1002),
        (message(0x09, true, b"x"), 1002),
        (message(0x89, true, &[0; 126]), 1002),
        ([message(0x02, true, b""), message(0x82, true, b"")].concat(), 1002),
        (message(0x81, true, b"x"), 1003),
        (message(0x82, true, &vec![0; limits::RECORD_BYTES as usize + 1]), 1009),
    ];
    for (bytes, code) in cases {
        let now = Instant::now();
        let mut server =
            QmuxConnection::new(QmuxConfig::new(QmuxFraming::Qmux01, QmuxCarrier::WebSocket), now);
        server.receive(now, &bytes);
        let out = output(&mut server, now);
        let close = [&[0x88, 2], &code.to_be_bytes()[..]].concat();
        assert!(out.ends_with(&close), "{code}: {out:x?}");
        assert!(lost(&mut server).is_some());
    }
}

#[test]
fn a_ping_of_the_websocket_is_answered() {
    let mut ends = Ends::ready(QmuxFraming::Qmux00, QmuxCarrier::WebSocket);
    ends.server.receive(ends.now, &message(0x89, true, &[7; 125]));
    assert_eq!(output(&mut ends.server, ends.now), [&[0x8a, 125], &[7; 125][..]].concat());
}

#[test]
fn a_record_has_a_bound() {
    let (mut server, now) = met();
    server.receive(now, &record(&vec![0; limits::RECORD_BYTES as usize]));
    assert_eq!(lost(&mut server), None);
    server.receive(now, &record(&vec![0; limits::RECORD_BYTES as usize + 1]));
    assert_eq!(lost(&mut server).unwrap(), "record too large");
}

#[test]
fn stream_violation_ends_the_session() {
    let cases: [(&[u8], &str); 9] = [
        // Data on a send-only stream, and on an unopened one.
        (&[0x0e, 3, 0, 1, 0], "data on a send-only stream"),
        (&[0x0e, 1, 0, 1, 0], "frame for an unopened stream"),
        (&[0x05, 2, 0], "credit or stop for a receive-only stream"),
        (&[0x0e, 2, 5, 1, 0], "stream data out of order"),
        (&[0x0f, 2, 0, 0, 0x0e, 2, 0, 1, 0], "stream data after the final size"),
        (&[0x0e, 0x40, 16 * 4 + 2, 0, 0], "stream limit exceeded"),
        (&[0x0e, 2, 0, 5, 0], "frame truncated by the end of its record"),
        (&[0x3f], "unknown frame type"),
        (&[0x04, 2, 0, 0xc0, 0, 0, 0, 0, 0x20, 0, 1], "final size above the stream flow control limit"),
    ];
    for (frames, why) in cases {
        let (mut server, now) = met();
        server.receive(now, &record(frames));
        assert_eq!(lost(&mut server).as_deref(), Some(why));
    }
    // The last allowed stream.
    let (mut server, now) = met();
    server.receive(now, &record(&[0x0e, 0x40, 15 * 4 + 2, 0, 0]));
    assert_eq!(events(&mut server), [TransportEvent::Opened(Stream(62), Dir::Uni)]);
}

#[test]
fn first_frame_must_be_transport_parameters() {
    let now = Instant::now();
    let mut server = QmuxConnection::new(QmuxConfig::new(QmuxFraming::Qmux01, QmuxCarrier::Bytes), now);
    server.receive(now, &record(&[0x0e, 2, 0, 1, 0]));
    assert_eq!(lost(&mut server).unwrap(), "first frame is not transport parameters");
}

#[test]
fn older_peers_say_neither_offsets_nor_final_sizes() {
    let (mut server, now) = met();
    server.receive(now, &record(&[0x0a, 2, 1, b'a', 0x0a, 2, 1, b'b', 0x0b, 2, 0]));
    assert_eq!(take(&mut server, Stream(2)), (b"ab".to_vec(), Ok(())));
    server.receive(now, &record(&[0x0a, 6, 1, b'a', 0x04, 6, 1, 0]));
    assert_eq!(take(&mut server, Stream(6)), (vec![], Err(ReadError::Reset(StreamCode::CANCEL))));
    assert_eq!(lost(&mut server), None);
}

#[test]
fn ping_responses_are_bounded() {
    let (mut server, now) = met();
    for _ in 0..limits::ANSWERS * 2 {
        let mut ping = Vec::new();
        crate::qmux::frame::put_ping(1, &mut ping);
        server.receive(now, &record(&ping));
    }
    // Only the last few pings are answered.
    output(&mut server, now);
    assert!(server.traffic().bytes_out < 1_000);
}
