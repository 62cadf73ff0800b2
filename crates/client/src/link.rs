//! UDP socket with controllable silence, rate and loss.

use std::{
    future::Future,
    io::{self, IoSliceMut},
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
};

use quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{RecvMeta, Transmit},
};
use tokio::time::{Duration, Instant, Sleep};

/// Control over one client's link; a cheap handle.
#[derive(Clone, Debug, Default)]
pub struct Link(Arc<LinkState>);

#[derive(Debug, Default)]
struct LinkState {
    blackhole: AtomicBool,
    /// Bytes per second; 0 = unlimited.
    receive_rate: AtomicU64,
    /// Lost batches out of 1,000 received; 0 = none.
    loss_per_mille: AtomicU64,
    random: AtomicU64,
}

impl Link {
    /// Drops all packets in both directions while `muted`: to the peer this client has vanished.
    pub fn set_blackhole(&self, muted: bool) {
        self.0.blackhole.store(muted, Relaxed);
    }

    /// Limits the receive rate from now on; what exceeds the kernel's buffer is lost.
    pub fn set_receive_rate(&self, bytes_per_second: Option<u64>) {
        self.0.receive_rate.store(bytes_per_second.unwrap_or(0), Relaxed);
    }

    /// Drops this share of received batches (a batch is one datagram, or several of one read), by a fixed pseudo-random
    /// sequence.
    pub fn set_loss(&self, per_mille: u64) {
        self.0.loss_per_mille.store(per_mille, Relaxed);
    }

    pub(crate) fn wrap(&self, inner: Arc<dyn AsyncUdpSocket>) -> Arc<dyn AsyncUdpSocket> {
        Arc::new(ControlledSocket { inner, link: self.clone(), resume: Mutex::new(None) })
    }

    fn loses(&self) -> bool {
        let share = self.0.loss_per_mille.load(Relaxed);
        if share == 0 {
            return false;
        }
        // A Weyl sequence through a 64-bit mix: even, cheap and repeatable.
        let mut x = self.0.random.fetch_add(0x9e37_79b9_7f4a_7c15, Relaxed);
        x = (x ^ (x >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
        (x >> 33) % 1_000 < share
    }
}

#[derive(Debug)]
struct ControlledSocket {
    inner: Arc<dyn AsyncUdpSocket>,
    link: Link,
    /// Set while the receive rate requires a pause.
    resume: Mutex<Option<Pin<Box<Sleep>>>>,
}

impl ControlledSocket {
    fn poll_rate(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut resume = self.resume.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sleep) = resume.as_mut() {
            ready!(sleep.as_mut().poll(cx));
            *resume = None;
        }
        Poll::Ready(())
    }

    fn charge(&self, bytes: usize) {
        let rate = self.link.0.receive_rate.load(Relaxed);
        if rate > 0 {
            let wait = Duration::from_secs_f64(bytes as f64 / rate as f64);
            let sleep = tokio::time::sleep_until(Instant::now() + wait);
            *self.resume.lock().unwrap_or_else(PoisonError::into_inner) = Some(Box::pin(sleep));
        }
    }
}

impl AsyncUdpSocket for ControlledSocket {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        self.inner.clone().create_io_poller()
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        if self.link.0.blackhole.load(Relaxed) { Ok(()) } else { self.inner.try_send(transmit) }
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_rate(cx));
            let slow = self.link.0.receive_rate.load(Relaxed) > 0;
            let most = if slow { 1 } else { bufs.len().min(meta.len()) };
            let (bufs, _) = bufs.split_at_mut(most);
            let (meta, _) = meta.split_at_mut(most);
            let count = ready!(self.inner.poll_recv(cx, bufs, meta))?;
            self.charge(meta.iter().take(count).map(|m| m.len).sum());
            if !self.link.0.blackhole.load(Relaxed) && !self.link.loses() {
                return Poll::Ready(Ok(count));
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.inner.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.inner.max_transmit_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.inner.max_receive_segments()
    }

    fn may_fragment(&self) -> bool {
        self.inner.may_fragment()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loss_comes_close_to_its_share() {
        let link = Link::default();
        assert!((0..1_000).all(|_| !link.loses()));
        link.set_loss(100);
        let lost = (0..10_000).filter(|_| link.loses()).count();
        assert!((800..1_200).contains(&lost), "{lost}");
    }
}
