//! Packets queued for the socket, and handling of failed sends.

use std::io;

use relay_meter::Worker as Meter;
use relay_transport::quic::Transmit;

use crate::socket::{Io, SEND_BATCH, UdpPacket};

/// Number of queued bytes that justify a send call.
const BATCH_BYTES: usize = 512 * 1024;

/// Outcome of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flushed {
    /// Nothing is queued.
    All,
    /// The socket is full, the rest is queued: poll no connection until it is sent.
    Full,
}

/// Slot of the connection that sent a packet, if any.
pub type Owner = Option<u32>;

/// Packets of many connections, sent together.
#[derive(Debug, Default)]
pub struct PacketQueue {
    /// In sending order; those before index `sent` are sent.
    packets: Vec<UdpPacket>,
    owners: Vec<Owner>,
    sent: usize,
    bytes: usize,
    spare: Vec<Vec<u8>>,
}

impl PacketQueue {
    /// Returns an empty buffer for packets, reusing allocations.
    pub fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Returns an unused buffer.
    pub fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SEND_BATCH {
            buffer.clear();
            self.spare.push(buffer);
        }
    }

    /// Queues the packets that a connection (or, without owner, an endpoint) wrote to `bytes`.
    pub fn push(&mut self, transmit: &Transmit, bytes: Vec<u8>, owner: Owner) {
        debug_assert_eq!(transmit.len, bytes.len());
        self.bytes += bytes.len();
        self.packets.push(UdpPacket {
            destination: transmit.destination,
            src_ip: transmit.src_ip,
            ecn: transmit.ecn,
            segment: transmit.segment_size.and_then(|size| u16::try_from(size).ok()),
            bytes,
        });
        self.owners.push(owner);
    }

    /// Whether enough is queued for a send call.
    pub fn is_ripe(&self) -> bool {
        self.packets.len() - self.sent >= SEND_BATCH || self.bytes >= BATCH_BYTES
    }

    /// Whether nothing is queued.
    pub fn is_empty(&self) -> bool {
        self.sent == self.packets.len()
    }

    /// Sends the queued packets as far as the socket has room. Owners whose segmented packets failed are
    /// added to `unsegmented`: they must send single datagrams from now on.
    pub fn flush(&mut self, io: &mut impl Io, meter: &mut Meter, unsegmented: &mut Vec<u32>) -> Flushed {
        while let Some(rest) = self.packets.get(self.sent..).filter(|rest| !rest.is_empty()) {
            let batch = rest.get(..SEND_BATCH).unwrap_or(rest);
            meter.send_calls += 1;
            match io.send(batch) {
                Ok(taken) => self.took(taken, meter),
                Err(error) => match SendFailure::of(&error) {
                    SendFailure::Full => {
                        meter.socket_full += 1;
                        return Flushed::Full;
                    }
                    SendFailure::Segmentation if self.first_is_train() => {
                        self.split_first(meter, unsegmented)
                    }
                    SendFailure::TooLarge => {
                        meter.send_too_large += 1;
                        self.sent += 1;
                    }
                    SendFailure::Segmentation | SendFailure::Lost => {
                        meter.send_errors += 1;
                        tracing::debug!(%error, "datagram not sent");
                        self.sent += 1;
                    }
                },
            }
        }
        self.reuse();
        Flushed::All
    }

    /// Drops all queued packets.
    pub fn clear(&mut self) {
        self.reuse();
    }

    fn took(&mut self, taken: usize, meter: &mut Meter) {
        let end = (self.sent + taken.max(1)).min(self.packets.len());
        let mut datagrams = 0;
        for packet in self.packets.get(self.sent..end).unwrap_or_default() {
            datagrams += packet.datagrams() as u64;
            meter.bytes_out += packet.bytes.len() as u64;
        }
        meter.datagrams_out += datagrams;
        meter.send_batch.record(datagrams);
        self.sent = end;
    }

    fn first_is_train(&self) -> bool {
        self.packets.get(self.sent).is_some_and(|packet| packet.datagrams() > 1)
    }

    /// Replaces the first packet by its datagrams.
    fn split_first(&mut self, meter: &mut Meter, unsegmented: &mut Vec<u32>) {
        let at = self.sent;
        let (Some(train), Some(&owner)) = (self.packets.get(at).cloned(), self.owners.get(at)) else {
            return;
        };
        meter.gso_failures += 1;
        unsegmented.extend(owner);
        let size = train.segment.map_or(train.bytes.len(), usize::from).max(1);
        let singles: Vec<UdpPacket> = train
            .bytes
            .chunks(size)
            .map(|bytes| UdpPacket { segment: None, bytes: bytes.to_vec(), ..train.clone() })
            .collect();
        self.owners.splice(at..=at, singles.iter().map(|_| owner));
        self.packets.splice(at..=at, singles);
    }

    fn reuse(&mut self) {
        self.sent = 0;
        self.bytes = 0;
        self.owners.clear();
        let mut packets = std::mem::take(&mut self.packets);
        for packet in packets.drain(..) {
            self.recycle(packet.bytes);
        }
        self.packets = packets;
    }
}

/// Kind of a failed send.
enum SendFailure {
    /// The socket is full: retry when there is room.
    Full,
    /// The device or the path does not support segmentation.
    Segmentation,
    /// Larger than the MTU of the path, as expected of an MTU probe.
    TooLarge,
    /// Lost, like any datagram may be.
    Lost,
}

impl SendFailure {
    fn of(error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::ENOMEM) => Self::Full,
            Some(libc::EIO | libc::EINVAL) => Self::Segmentation,
            Some(libc::EMSGSIZE) => Self::TooLarge,
            _ if error.kind() == io::ErrorKind::WouldBlock => Self::Full,
            _ => Self::Lost,
        }
    }
}

#[cfg(test)]
mod tests;
