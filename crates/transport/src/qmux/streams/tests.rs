//! Streams that wait for credit.

use bytes::Bytes;
use relay_model::transport::WriteError;

use super::*;

const COUNT: u64 = 1_000;

/// Streams with one refused control write each.
fn refused(data: u64, stream_data: u64) -> (QmuxStreams, Vec<Stream>) {
    let mut streams = QmuxStreams::new(QmuxFraming::Qmux01, false, None);
    let peer = Parameters { data, stream_data_uni: stream_data, streams_uni: COUNT, ..Parameters::default() };
    streams.set_peer(&peer);
    let opened: Vec<Stream> = (0..COUNT).filter_map(|_| streams.open(Dir::Uni, 0)).collect();
    opened.iter().for_each(|stream| assert_eq!(put(&mut streams, *stream), Err(WriteError::Blocked)));
    assert!(!streams.has_event());
    (streams, opened)
}

fn put(streams: &mut QmuxStreams, stream: Stream) -> Result<usize, WriteError> {
    streams.exempt(true);
    let written = streams.write(stream, &mut [Bytes::from_static(b"ab")]);
    streams.exempt(false);
    written
}

fn next_writable(streams: &mut QmuxStreams) -> Option<Stream> {
    loop {
        match streams.poll()? {
            TransportEvent::Writable(stream) => return Some(stream),
            TransportEvent::Room => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn stream_credit_unparks_that_stream_only() {
    let (mut streams, opened) = refused(1 << 20, 0);
    assert!(streams.waiting_control.is_empty(), "none waits for the connection");
    for stream in opened.iter().rev() {
        streams.on_max_stream_data(stream.0, 1).unwrap();
        assert_eq!(streams.waiting_control.len(), 1);
        assert_eq!(next_writable(&mut streams), Some(*stream));
        assert_eq!(put(&mut streams, *stream), Ok(1));
        assert_eq!(put(&mut streams, *stream), Err(WriteError::Blocked));
        assert_eq!(next_writable(&mut streams), None);
    }
}

#[test]
fn connection_credit_unparks_in_order_while_it_lasts() {
    let (mut streams, opened) = refused(0, 100);
    for (stream, credit) in opened.iter().zip(1..) {
        streams.on_max_data(credit);
        assert_eq!(next_writable(&mut streams), Some(*stream));
        assert_eq!(put(&mut streams, *stream), Ok(1));
        assert_eq!(next_writable(&mut streams), None);
    }
}

#[test]
fn ended_streams_leave_the_queue() {
    let (mut streams, opened) = refused(0, 100);
    let [first, second, third, ..] = opened[..] else { panic!() };
    streams.reset(first, StreamCode::CANCEL);
    streams.on_stop(second.0, 0).unwrap();
    streams.finish(third);
    assert_eq!(streams.waiting_control.len() as u64, COUNT - 3);
    // A second refused write with another exemption moves the stream to the other queue.
    assert_eq!(streams.write(opened[3], &mut [Bytes::from_static(b"a")]), Err(WriteError::Blocked));
    assert_eq!((streams.waiting_control.len() as u64, streams.waiting_media.len()), (COUNT - 4, 1));
}
