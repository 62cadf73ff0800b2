use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex},
    runtime::Builder,
    time::timeout,
};

use super::*;

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(3_600);
const NEVER: Timeouts = Timeouts { header: LONG, idle: LONG, stall: LONG };

fn run(test: impl Future<Output = ()>) {
    Builder::new_current_thread().enable_time().build().unwrap().block_on(test);
}

/// Connection with a pipe of `room` bytes, and its peer.
fn connection(limits: Timeouts, room: usize) -> (TimeoutStream<DuplexStream>, DuplexStream) {
    let (own, peer) = duplex(room);
    (TimeoutStream::new(own, Arc::default(), None, limits), peer)
}

/// Bytes that the peer receives until the connection ends.
async fn received(stream: TimeoutStream<DuplexStream>, mut peer: DuplexStream) -> Vec<u8> {
    drop(stream);
    let mut all = Vec::new();
    peer.read_to_end(&mut all).await.unwrap();
    all
}

#[test]
fn unfinished_request_is_answered_with_408() {
    run(async {
        let (mut stream, mut peer) = connection(Timeouts { header: SHORT, ..NEVER }, 1_024);
        peer.write_all(b"GET /").await.unwrap();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        assert_eq!((all.as_slice(), received(stream, peer).await.as_slice()), (&b"GET /"[..], LATE));
    });
}

#[test]
fn late_answer_is_written_in_pieces() {
    run(async {
        let (mut stream, mut peer) = connection(Timeouts { header: SHORT, ..NEVER }, 10);
        peer.write_all(b"GET /").await.unwrap();
        let (mut all, mut answer) = (Vec::new(), vec![0; LATE.len()]);
        let (read, answered) = tokio::join!(stream.read_to_end(&mut all), peer.read_exact(&mut answer));
        assert_eq!((read.unwrap(), answered.unwrap(), answer.as_slice()), (5, LATE.len(), LATE));
    });
}

#[test]
fn idle_connection_ends_without_an_answer() {
    run(async {
        let (mut stream, peer) = connection(Timeouts { idle: SHORT, ..NEVER }, 1_024);
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
        assert!(received(stream, peer).await.is_empty());
    });
}

#[test]
fn nothing_is_late_while_a_request_is_answered() {
    run(async {
        let limits = Timeouts { header: SHORT, idle: SHORT, ..NEVER };
        let (mut stream, mut peer) = connection(limits, 1_024);
        peer.write_all(b"GET /").await.unwrap();
        let mut buffer = [0; 8];
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 5);
        let guard = stream.counts.begin();
        assert!(timeout(SHORT * 3, stream.read(&mut buffer)).await.is_err());
        drop(guard);
        assert_eq!(stream.read(&mut buffer).await.unwrap(), 0, "a new wait begins");
        assert!(received(stream, peer).await.is_empty());
    });
}

#[test]
fn late_answer_is_not_mixed_into_a_response() {
    run(async {
        let (mut stream, mut peer) = connection(Timeouts { header: SHORT, ..NEVER }, 1_024);
        peer.write_all(b"GET /").await.unwrap();
        stream.write_all(b"HTTP").await.unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
        assert_eq!(received(stream, peer).await, b"HTTP");
    });
}

#[test]
fn peer_that_takes_no_data_fails_the_write() {
    run(async {
        let (mut stream, mut peer) = connection(Timeouts { stall: SHORT, ..NEVER }, 8);
        let error = stream.write_all(&[0; 16]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::TimedOut);
        let mut buffer = [0; 8];
        peer.read_exact(&mut buffer).await.unwrap();
        stream.write_all(&[0; 8]).await.expect("the peer reads again");
    });
}
