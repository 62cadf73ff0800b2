//! UDP socket of a worker: received datagrams, queued packets, and its readiness.

use std::{
    io,
    time::{Duration, Instant},
};

use bytes::BytesMut;
use relay_meter::Worker as Meter;

use crate::{
    outbox::{Flushed, PacketQueue},
    socket::{Io, UdpReceived},
};

/// Delay before a full socket is tried again without a writable event: if the kernel lacks memory,
/// none comes.
pub(super) const RETRY_FULL: Duration = Duration::from_millis(5);

/// Datagrams received from the worker's UDP socket and packets queued for it.
#[derive(Debug)]
pub(super) struct UdpPort {
    /// Whether the socket may have datagrams.
    is_readable: bool,
    /// Batch of received datagrams, and the number of those already taken.
    received: Vec<UdpReceived>,
    taken: usize,
    /// Packets to send.
    pub(super) packets: PacketQueue,
    /// Time since when the socket is full.
    full_since: Option<Instant>,
    /// Peers whose segmented packets failed.
    unsegmented: Vec<u32>,
}

impl UdpPort {
    /// Creates a port whose socket may have datagrams.
    pub(super) fn new() -> Self {
        Self {
            is_readable: true,
            received: Vec::new(),
            taken: 0,
            packets: PacketQueue::default(),
            full_since: None,
            unsegmented: Vec::new(),
        }
    }

    /// Marks the socket as readable.
    pub(super) fn set_readable(&mut self) {
        self.is_readable = true;
    }

    /// Marks the socket as writable.
    pub(super) fn set_writable(&mut self) {
        self.full_since = None;
    }

    /// Whether the socket is full.
    #[inline]
    pub(super) fn is_full(&self) -> bool {
        self.full_since.is_some()
    }

    /// Whether datagrams may be left, received or in the socket.
    #[inline]
    pub(super) fn has_input(&self) -> bool {
        self.is_readable || self.taken < self.received.len()
    }

    /// Takes the next received datagram, or segmented run of datagrams, with a receive call if none is left.
    pub(super) fn next(&mut self, io: &mut impl Io, meter: &mut Meter) -> Option<UdpReceived> {
        if self.taken >= self.received.len() && !(self.is_readable && self.receive(io, meter)) {
            return None;
        }
        let UdpReceived { remote, local_ip, ecn, stride, data } = self.received.get_mut(self.taken)?;
        let (remote, local_ip, ecn, stride) = (*remote, *local_ip, *ecn, *stride);
        let data = std::mem::replace(data, BytesMut::new());
        self.taken += 1;
        Some(UdpReceived { remote, local_ip, ecn, stride, data })
    }

    /// Makes one receive call. False: nothing was received.
    fn receive(&mut self, io: &mut impl Io, meter: &mut Meter) -> bool {
        self.received.clear();
        self.taken = 0;
        meter.recv_calls += 1;
        match io.recv(&mut self.received) {
            Ok(more) => self.is_readable = more,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
            // A past error, such as a port unreachable: the next turn continues.
            Err(_) => meter.recv_errors += 1,
        }
        meter.recv_batch.record(self.received.len() as u64);
        !self.received.is_empty()
    }

    /// Sends the queued packets as far as the socket has room.
    pub(super) fn send(&mut self, now: Instant, io: &mut impl Io, meter: &mut Meter) {
        if self.packets.flush(io, meter, &mut self.unsegmented) == Flushed::Full {
            self.full_since = Some(now);
        }
    }

    /// Retries a full socket after a delay.
    pub(super) fn retry(&mut self, now: Instant, io: &mut impl Io, meter: &mut Meter) {
        if self.retry_at().is_none_or(|at| now >= at) && !self.packets.is_empty() {
            self.full_since = None;
            self.send(now, io, meter);
        }
    }

    /// Time at which a full socket is tried again.
    pub(super) fn retry_at(&self) -> Option<Instant> {
        self.full_since.map(|since| since + RETRY_FULL)
    }

    /// Removes one peer whose segmented packets failed since the last call.
    #[inline]
    pub(super) fn pop_unsegmented(&mut self) -> Option<u32> {
        self.unsegmented.pop()
    }

    /// Drops all datagrams and packets; the socket stays.
    pub(super) fn clear(&mut self) {
        self.packets.clear();
        self.received.clear();
        self.taken = 0;
        self.is_readable = true;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, SocketAddr};

    use relay_transport::quic::Transmit;

    use super::*;
    use crate::socket::UdpPacket;

    const ADDRESS: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 443);

    /// Socket with datagrams to receive, and room for packets.
    struct FakeSocket {
        datagrams: usize,
        room: usize,
        clock: Instant,
    }

    impl Io for FakeSocket {
        fn recv(&mut self, out: &mut Vec<UdpReceived>) -> io::Result<bool> {
            let count = self.datagrams.min(2);
            if count == 0 {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            self.datagrams -= count;
            out.extend((0..count).map(|_| UdpReceived {
                remote: ADDRESS,
                local_ip: None,
                ecn: None,
                stride: 1,
                data: BytesMut::from(&b"x"[..]),
            }));
            Ok(self.datagrams > 0)
        }

        fn send(&mut self, packets: &[UdpPacket]) -> io::Result<usize> {
            let count = self.room.min(packets.len());
            self.room -= count;
            if count == 0 { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(count) }
        }

        fn max_segments(&self) -> usize {
            1
        }

        fn now(&self) -> Instant {
            self.clock
        }
    }

    fn socket(datagrams: usize, room: usize) -> FakeSocket {
        FakeSocket { datagrams, room, clock: Instant::now() }
    }

    fn push(port: &mut UdpPort) {
        let transmit = Transmit { destination: ADDRESS, src_ip: None, ecn: None, segment_size: None, len: 1 };
        port.packets.push(&transmit, vec![0], None);
    }

    #[test]
    fn datagrams_are_taken_until_the_socket_is_empty() {
        let (mut port, mut io, mut meter) = (UdpPort::new(), socket(5, 0), Meter::default());
        let taken = std::iter::from_fn(|| port.next(&mut io, &mut meter)).count();
        assert_eq!((taken, meter.recv_calls), (5, 3));
        assert!(!port.has_input());
        io.datagrams = 1;
        assert!(port.next(&mut io, &mut meter).is_none(), "not readable");
        port.set_readable();
        assert!(port.has_input());
        assert_eq!(port.next(&mut io, &mut meter).map(|received| received.data.len()), Some(1));
    }

    #[test]
    fn full_socket_is_retried_when_writable_or_after_a_delay() {
        let (mut port, mut io, mut meter) = (UdpPort::new(), socket(0, 0), Meter::default());
        let now = io.clock;
        push(&mut port);
        port.send(now, &mut io, &mut meter);
        assert!(port.is_full() && port.retry_at() == Some(now + RETRY_FULL));
        io.room = 1;
        port.retry(now + RETRY_FULL / 2, &mut io, &mut meter);
        assert!(port.is_full() && !port.packets.is_empty());
        port.retry(now + RETRY_FULL, &mut io, &mut meter);
        assert!(!port.is_full() && port.packets.is_empty());
        push(&mut port);
        port.send(now, &mut io, &mut meter);
        port.set_writable();
        assert!(!port.is_full() && port.retry_at().is_none());
    }

    #[test]
    fn cleared_port_has_nothing_left_but_its_socket() {
        let (mut port, mut io, mut meter) = (UdpPort::new(), socket(3, 0), Meter::default());
        port.next(&mut io, &mut meter);
        push(&mut port);
        port.clear();
        assert!(port.packets.is_empty());
        assert_eq!(std::iter::from_fn(|| port.next(&mut io, &mut meter)).count(), 1, "only unread ones");
    }
}
