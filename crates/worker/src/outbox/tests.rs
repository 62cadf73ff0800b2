use std::{collections::VecDeque, time::Instant};

use super::*;
use crate::socket::UdpReceived;

/// Socket with scripted results: number of packets taken by the next calls, or their errors.
#[derive(Default)]
struct Script {
    answers: VecDeque<Result<usize, i32>>,
    /// Length and segment size of every packet taken, in order.
    taken: Vec<(usize, Option<u16>)>,
    calls: usize,
}

impl Io for Script {
    fn recv(&mut self, _: &mut Vec<UdpReceived>) -> io::Result<bool> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn send(&mut self, packets: &[UdpPacket]) -> io::Result<usize> {
        self.calls += 1;
        let answer = self.answers.pop_front().unwrap_or(Ok(packets.len()));
        let count = answer.map_err(io::Error::from_raw_os_error)?;
        self.taken.extend(packets[..count].iter().map(|packet| (packet.bytes.len(), packet.segment)));
        Ok(count)
    }

    fn max_segments(&self) -> usize {
        64
    }

    fn now(&self) -> Instant {
        Instant::now()
    }
}

fn transmit(len: usize, segment_size: Option<usize>) -> Transmit {
    Transmit { destination: ([127, 0, 0, 1], 1).into(), ecn: None, len, segment_size, src_ip: None }
}

fn queue(outbox: &mut PacketQueue, owner: u32, len: usize, segment: Option<usize>) {
    let mut bytes = outbox.buffer();
    bytes.resize(len, 0);
    outbox.push(&transmit(len, segment), bytes, Some(owner));
}

fn lengths(script: &Script) -> Vec<usize> {
    script.taken.iter().map(|(len, _)| *len).collect()
}

#[test]
fn a_full_socket_loses_nothing_and_repeats_nothing() {
    let (mut outbox, mut meter, mut off) = (PacketQueue::default(), Meter::default(), Vec::new());
    let mut io = Script { answers: [Ok(2), Err(libc::EAGAIN)].into(), ..Script::default() };
    for len in 1..=5 {
        queue(&mut outbox, 0, len, None);
    }
    assert_eq!(outbox.flush(&mut io, &mut meter, &mut off), Flushed::Full);
    assert_eq!(lengths(&io), [1, 2]);
    assert!(!outbox.is_empty());
    io.answers = [Err(libc::ENOBUFS)].into();
    assert_eq!(outbox.flush(&mut io, &mut meter, &mut off), Flushed::Full);
    assert_eq!(outbox.flush(&mut io, &mut meter, &mut off), Flushed::All);
    assert_eq!(lengths(&io), [1, 2, 3, 4, 5]);
    assert!(outbox.is_empty() && off.is_empty());
    assert_eq!((meter.socket_full, meter.datagrams_out, meter.bytes_out), (2, 5, 15));
}

#[test]
fn a_failed_train_is_sent_again_datagram_by_datagram() {
    for errno in [libc::EIO, libc::EINVAL] {
        let (mut outbox, mut meter, mut off) = (PacketQueue::default(), Meter::default(), Vec::new());
        queue(&mut outbox, 1, 100, None);
        queue(&mut outbox, 2, 2_500, Some(1_000));
        queue(&mut outbox, 3, 2_000, Some(1_000));
        // The second packet fails; then the socket is full between its datagrams.
        let mut io =
            Script { answers: [Ok(1), Err(errno), Ok(1), Err(libc::EAGAIN)].into(), ..Script::default() };
        assert_eq!(outbox.flush(&mut io, &mut meter, &mut off), Flushed::Full);
        assert_eq!(outbox.flush(&mut io, &mut meter, &mut off), Flushed::All);
        assert_eq!(
            io.taken,
            [(100, None), (1_000, None), (1_000, None), (500, None), (2_000, Some(1_000))],
            "only the connection that failed goes without"
        );
        assert_eq!((off, meter.gso_failures, meter.send_errors), (vec![2], 1, 0));
    }
}

#[test]
fn a_single_datagram_that_fails_is_lost_and_the_rest_goes_on() {
    let (mut outbox, mut meter, mut off) = (PacketQueue::default(), Meter::default(), Vec::new());
    for len in 1..=4 {
        queue(&mut outbox, 0, len, None);
    }
    let answers = [Err(libc::EINVAL), Err(libc::EMSGSIZE), Err(libc::EPERM)].into();
    let mut io = Script { answers, ..Script::default() };
    assert_eq!(outbox.flush(&mut io, &mut meter, &mut off), Flushed::All);
    assert_eq!(lengths(&io), [4]);
    assert_eq!((meter.send_errors, meter.send_too_large, meter.gso_failures), (2, 1, 0));
    assert!(off.is_empty());
}

#[test]
fn packets_of_many_connections_share_calls_and_buffers() {
    let (mut outbox, mut meter, mut off) = (PacketQueue::default(), Meter::default(), Vec::new());
    let mut io = Script::default();
    for round in 1..=3 {
        for owner in 0..SEND_BATCH as u32 {
            assert!(!outbox.is_ripe());
            queue(&mut outbox, owner, 1_200, None);
        }
        assert!(outbox.is_ripe());
        assert_eq!(outbox.flush(&mut io, &mut meter, &mut off), Flushed::All);
        assert_eq!(io.calls, round);
    }
    assert_eq!(outbox.spare.len(), SEND_BATCH);
    assert!(outbox.spare.iter().all(|buffer| buffer.is_empty() && buffer.capacity() >= 1_200));
}
