//! Receiving: many datagrams per call, runs of one peer coalesced by the kernel.

use std::{
    io::{self, IoSliceMut},
    os::fd::AsFd,
};

use bytes::BytesMut;
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};
use relay_transport::quic::Ecn;

use super::UdpReceived;

/// Room for one message: the longest run of datagrams the kernel coalesces.
const MESSAGE_BYTES: usize = 64 * 1024;

/// Reused buffers for receive calls.
pub(super) struct Receiver {
    buffer: Box<[u8]>,
    metas: [RecvMeta; BATCH_SIZE],
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").finish_non_exhaustive()
    }
}

impl Receiver {
    pub(super) fn new() -> Self {
        Self {
            buffer: vec![0; MESSAGE_BYTES * BATCH_SIZE].into_boxed_slice(),
            metas: [RecvMeta::default(); BATCH_SIZE],
        }
    }

    /// Makes one receive call. Received data is copied, each message to a buffer of its size, as a stream may
    /// hold it for a while.
    pub(super) fn recv(
        &mut self,
        state: &UdpSocketState,
        socket: &impl AsFd,
        out: &mut Vec<UdpReceived>,
    ) -> io::Result<bool> {
        let mut chunks = self.buffer.chunks_exact_mut(MESSAGE_BYTES);
        let mut slices: [IoSliceMut<'_>; BATCH_SIZE] =
            std::array::from_fn(|_| IoSliceMut::new(chunks.next().unwrap_or_default()));
        let count = state.recv(socket.into(), &mut slices, &mut self.metas)?;
        for (meta, slice) in self.metas.iter().zip(&slices).take(count) {
            let Some(bytes) = slice.get(..meta.len).filter(|bytes| !bytes.is_empty()) else { continue };
            out.push(UdpReceived {
                remote: meta.addr,
                local_ip: meta.dst_ip.map(|ip| ip.to_canonical()),
                ecn: meta.ecn.and_then(|ecn| Ecn::from_bits(ecn as u8)),
                stride: meta.stride.max(1),
                data: BytesMut::from(bytes),
            });
        }
        // A short batch means that the queue was empty; later datagrams cause a poll event.
        Ok(count == BATCH_SIZE)
    }
}
