//! Streams that wait for credit.

use super::*;

const COUNT: u64 = 1_000;

/// Sending side with one refused control write on each stream.
fn refused(data: u64, stream_data: u64) -> (SendStreams, Vec<u64>) {
    let mut streams = SendStreams::new(0);
    streams.set_peer(&Parameters { data, stream_data_uni: stream_data, ..Parameters::default() });
    let opened: Vec<u64> = (0..COUNT).map(|number| number << 2 | 0b11).collect();
    for id in &opened {
        streams.insert_own(*id, Dir::Uni, 0);
        assert_eq!(put(&mut streams, *id), Err(WriteError::Blocked));
    }
    assert!(!streams.has_event());
    (streams, opened)
}

fn put(streams: &mut SendStreams, id: u64) -> Result<usize, WriteError> {
    streams.exempt(true);
    let written = streams.write(id, &mut [Bytes::from_static(b"ab")]);
    streams.exempt(false);
    written
}

#[test]
fn stream_credit_unparks_that_stream_only() {
    let (mut streams, opened) = refused(1 << 20, 0);
    assert!(streams.parked().0 == 0, "none waits for the connection");
    for stream in opened.iter().rev() {
        streams.on_max_stream_data(*stream, 1);
        assert_eq!(streams.parked().0, 1);
        assert_eq!(streams.next_writable(), Some(*stream));
        assert_eq!(put(&mut streams, *stream), Ok(1));
        assert_eq!(put(&mut streams, *stream), Err(WriteError::Blocked));
        assert_eq!(streams.next_writable(), None);
    }
}

#[test]
fn connection_credit_unparks_in_order_while_it_lasts() {
    let (mut streams, opened) = refused(0, 100);
    for (stream, credit) in opened.iter().zip(1..) {
        streams.on_max_data(credit);
        assert_eq!(streams.next_writable(), Some(*stream));
        assert_eq!(put(&mut streams, *stream), Ok(1));
        assert_eq!(streams.next_writable(), None);
    }
}

#[test]
fn ended_streams_leave_the_queue() {
    let (mut streams, opened) = refused(0, 100);
    let [first, second, third, ..] = opened[..] else { panic!() };
    streams.reset(first);
    streams.on_stop(second, StreamCode::CANCEL);
    streams.finish(third);
    assert_eq!(streams.parked(), (COUNT as usize - 3, 0));
    // A second refused write with another exemption moves the stream to the other queue.
    assert_eq!(streams.write(opened[3], &mut [Bytes::from_static(b"a")]), Err(WriteError::Blocked));
    assert_eq!(streams.parked(), (COUNT as usize - 4, 1));
}
