//! In-memory link between the relay and its clients.

use std::{
    cmp::{Ordering, Reverse},
    collections::{BinaryHeap, VecDeque},
    hint, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::{Duration, Instant},
};

use bytes::BytesMut;
use relay_transport::quic::Ecn;
use relay_worker::socket::{Io, UdpPacket, UdpReceived};

/// Address of the relay.
pub(crate) const RELAY: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1)), 443);
/// Least latency in one direction.
const LATENCY: Duration = Duration::from_millis(5);
/// Additional latency of each further client.
const SKEW: Duration = Duration::from_micros(53);
/// Interval at which the relay reads its socket: datagrams that arrive in between form one batch.
const GLANCE_US: u128 = 250;
/// Datagrams per send, as with Linux segmentation offload.
const SEGMENTS: usize = 64;

/// One-way latency of a client.
pub(crate) fn latency(client: u32) -> Duration {
    LATENCY + SKEW * client
}

/// Address of client number `index`.
pub(crate) fn address(index: u32) -> SocketAddr {
    let [_, _, high, low] = (index + 1).to_be_bytes();
    SocketAddr::new(IpAddr::V4(Ipv4Addr::new(10, 1, high, low)), 5_000)
}

/// A train of datagrams with one sender.
#[derive(Debug)]
pub(crate) struct Train {
    /// Sender of a received train, destination of a sent one.
    pub(crate) peer: SocketAddr,
    pub(crate) ecn: Option<Ecn>,
    /// Bytes of each datagram except the last.
    pub(crate) stride: usize,
    pub(crate) bytes: Vec<u8>,
}

impl Train {
    /// Splits the train into datagrams.
    pub(crate) fn datagrams(&self) -> impl Iterator<Item = BytesMut> {
        self.bytes.chunks(self.stride.max(1)).map(BytesMut::from)
    }
}

/// Socket of the relay.
#[derive(Debug)]
pub(crate) struct BenchLink {
    start: Instant,
    now: Instant,
    on_the_way: BinaryHeap<Reverse<TrainArrival>>,
    count: u64,
    inbox: Vec<UdpReceived>,
    outbox: VecDeque<Train>,
    /// Whether instructions of the relay are being counted.
    pub(crate) counting: bool,
}

#[derive(Debug)]
struct TrainArrival {
    at: Instant,
    /// Keeps the order of simultaneous arrivals.
    number: u64,
    train: Train,
}

impl BenchLink {
    pub(crate) fn new(start: Instant) -> Self {
        Self {
            start,
            now: start,
            on_the_way: BinaryHeap::new(),
            count: 0,
            inbox: Vec::new(),
            outbox: VecDeque::new(),
            counting: false,
        }
    }

    /// Sends to the relay; the train arrives at the first read of its socket from `at` on.
    pub(crate) fn send_in(&mut self, at: Instant, train: Train) {
        self.count += 1;
        let glances = at.saturating_duration_since(self.start).as_micros().div_ceil(GLANCE_US);
        let at = self.start + Duration::from_micros((glances * GLANCE_US) as u64);
        self.on_the_way.push(Reverse(TrainArrival { at, number: self.count, train }));
    }

    /// Time of the next arrival.
    pub(crate) fn next(&self) -> Option<Instant> {
        self.on_the_way.peek().map(|Reverse(arrival)| arrival.at)
    }

    /// Advances the clock; true if datagrams have arrived.
    pub(crate) fn arrive(&mut self, now: Instant) -> bool {
        self.now = now;
        while self.on_the_way.peek().is_some_and(|Reverse(arrival)| arrival.at <= now)
            && let Some(Reverse(TrainArrival { train, .. })) = self.on_the_way.pop()
        {
            self.inbox.push(UdpReceived {
                remote: train.peer,
                local_ip: Some(RELAY.ip()),
                ecn: train.ecn,
                stride: train.stride,
                data: BytesMut::from(&train.bytes[..]),
            });
        }
        !self.inbox.is_empty()
    }

    /// Takes the trains sent by the relay, in order.
    pub(crate) fn take_sent(&mut self) -> impl Iterator<Item = Train> + '_ {
        self.outbox.drain(..)
    }

    /// Receive call of the kernel.
    fn give(&mut self, out: &mut Vec<UdpReceived>) -> io::Result<bool> {
        out.append(&mut self.inbox);
        if out.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(false) }
    }

    /// Send call of the kernel.
    fn take(&mut self, packets: &[UdpPacket]) -> usize {
        self.outbox.extend(packets.iter().map(|packet| Train {
            peer: packet.destination,
            ecn: packet.ecn,
            stride: packet.segment.map_or(packet.bytes.len(), usize::from),
            bytes: packet.bytes.clone(),
        }));
        packets.len()
    }
}

impl Io for BenchLink {
    fn recv(&mut self, out: &mut Vec<UdpReceived>) -> io::Result<bool> {
        if self.counting { outside_relay_side_recv(self, out) } else { self.give(out) }
    }

    fn send(&mut self, packets: &[UdpPacket]) -> io::Result<usize> {
        Ok(if self.counting { outside_relay_side_send(self, packets) } else { self.take(packets) })
    }

    fn max_segments(&self) -> usize {
        SEGMENTS
    }

    /// Constant within a turn, so that no turn is cut short.
    fn now(&self) -> Instant {
        self.now
    }
}

/// Not counted: callgrind stops at this name what it started at `relay_side` in [`crate::relay`].
#[inline(never)]
fn outside_relay_side_recv(link: &mut BenchLink, out: &mut Vec<UdpReceived>) -> io::Result<bool> {
    hint::black_box(link.give(out))
}

/// Not counted, for the same reason.
#[inline(never)]
fn outside_relay_side_send(link: &mut BenchLink, packets: &[UdpPacket]) -> usize {
    hint::black_box(link.take(packets))
}

impl Ord for TrainArrival {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}

impl PartialOrd for TrainArrival {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for TrainArrival {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for TrainArrival {}
