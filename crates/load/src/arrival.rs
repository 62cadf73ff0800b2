//! UDP socket that records the kernel's receive time of each datagram.
//!
//! Hundreds of simulated viewers share one core here, where real ones have a machine each. The kernel stamps the
//! arrival of every datagram as it is sent over loopback, before this process reads it.

use std::{
    fmt,
    io::{self, IoSliceMut},
    net::{SocketAddr, SocketAddrV4, SocketAddrV6},
    os::fd::AsRawFd,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll, ready},
    time::{Duration, Instant, SystemTime},
};

use nix::sys::socket::{
    ControlMessageOwned, MsgFlags, SockaddrStorage, recvmsg, setsockopt, sockopt::ReceiveTimestampns,
};
use relay_client::quinn::{
    AsyncUdpSocket, UdpPoller,
    udp::{EcnCodepoint, RecvMeta, Transmit, UdpSocketState},
};
use tokio::{io::Interest, net::UdpSocket};

/// Size of control messages, bytes: timestamp, segment size, address and ECN bits.
const CONTROL_BYTES: usize = 256;

/// Clock of the process, and of the kernel's stamps, in ns since the run began.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// Wall clock at the origin; the kernel stamps by it. Both clocks are slewed alike.
    wall: SystemTime,
}

impl Clock {
    pub(crate) fn new() -> Self {
        Self { origin: Instant::now(), wall: SystemTime::now() }
    }

    pub(crate) fn now_ns(self) -> u64 {
        self.ns_at(Instant::now())
    }

    pub(crate) fn ns_at(self, at: Instant) -> u64 {
        at.saturating_duration_since(self.origin).as_nanos() as u64
    }

    fn ns_at_wall(self, stamp: Duration) -> u64 {
        let wall = SystemTime::UNIX_EPOCH + stamp;
        wall.duration_since(self.wall).unwrap_or_default().as_nanos() as u64
    }
}

/// Arrival time of the last datagram that was read; shared by a socket and its viewer.
#[derive(Clone, Debug, Default)]
pub(crate) struct LastArrival(Arc<AtomicU64>);

impl LastArrival {
    /// Time in ns on the clock given to [`wrap`]; 0 = nothing was read.
    pub(crate) fn ns(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Wraps `socket` so that arrival times are stored in `last`.
pub(crate) fn wrap(
    socket: std::net::UdpSocket,
    clock: Clock,
    last: LastArrival,
) -> io::Result<Arc<dyn AsyncUdpSocket>> {
    let state = UdpSocketState::new((&socket).into())?;
    setsockopt(&socket, ReceiveTimestampns, &true)?;
    Ok(Arc::new(Stamped { io: UdpSocket::from_std(socket)?, state, clock, last }))
}

struct Stamped {
    io: UdpSocket,
    state: UdpSocketState,
    clock: Clock,
    last: LastArrival,
}

impl Stamped {
    fn receive(&self, buf: &mut IoSliceMut<'_>) -> io::Result<RecvMeta> {
        let mut control = [0; CONTROL_BYTES];
        let mut bufs = [IoSliceMut::new(buf)];
        let message = recvmsg::<SockaddrStorage>(
            self.io.as_raw_fd(),
            &mut bufs,
            Some(&mut control),
            MsgFlags::MSG_DONTWAIT,
        )?;
        let mut meta = RecvMeta { len: message.bytes, stride: message.bytes, ..RecvMeta::default() };
        for control in message.cmsgs()? {
            match control {
                ControlMessageOwned::ScmTimestampns(at) => {
                    let at = self.clock.ns_at_wall(Duration::from(at));
                    self.last.0.fetch_max(at, Relaxed);
                }
                ControlMessageOwned::UdpGroSegments(size) => {
                    meta.stride = usize::try_from(size).unwrap_or(0).max(1);
                }
                ControlMessageOwned::Ipv4Tos(tos) => meta.ecn = EcnCodepoint::from_bits(tos),
                _ => {}
            }
        }
        meta.addr = message.address.as_ref().and_then(address).ok_or(io::ErrorKind::InvalidData)?;
        Ok(meta)
    }
}

fn address(from: &SockaddrStorage) -> Option<SocketAddr> {
    let v4 = from.as_sockaddr_in().map(|a| SocketAddrV4::from(*a).into());
    v4.or_else(|| from.as_sockaddr_in6().map(|a| SocketAddrV6::from(*a).into()))
}

impl AsyncUdpSocket for Stamped {
    fn create_io_poller(self: Arc<Self>) -> Pin<Box<dyn UdpPoller>> {
        Box::pin(Writable(self))
    }

    fn try_send(&self, transmit: &Transmit<'_>) -> io::Result<()> {
        self.io.try_io(Interest::WRITABLE, || self.state.send((&self.io).into(), transmit))
    }

    fn poll_recv(
        &self,
        cx: &mut Context<'_>,
        bufs: &mut [IoSliceMut<'_>],
        meta: &mut [RecvMeta],
    ) -> Poll<io::Result<usize>> {
        let (Some(buf), Some(meta)) = (bufs.first_mut(), meta.first_mut()) else { return Poll::Ready(Ok(0)) };
        loop {
            ready!(self.io.poll_recv_ready(cx))?;
            match self.io.try_io(Interest::READABLE, || self.receive(buf)) {
                Ok(received) => {
                    *meta = received;
                    return Poll::Ready(Ok(1));
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Poll::Ready(Err(error)),
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.io.local_addr()
    }

    fn max_transmit_segments(&self) -> usize {
        self.state.max_gso_segments()
    }

    fn max_receive_segments(&self) -> usize {
        self.state.gro_segments()
    }

    fn may_fragment(&self) -> bool {
        self.state.may_fragment()
    }
}

impl fmt::Debug for Stamped {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stamped").field(&self.io).finish()
    }
}

/// Poller for the connection's own task, the only one that sends.
#[derive(Debug)]
struct Writable(Arc<Stamped>);

impl UdpPoller for Writable {
    fn poll_writable(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.0.io.poll_send_ready(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Sends a datagram, reads it 30 ms later, and returns the recorded delay of its arrival, ms.
    async fn arrival_ms(clock: Clock) -> u64 {
        let receiver = std::net::UdpSocket::bind("127.0.0.1:0").unwrap();
        receiver.set_nonblocking(true).unwrap();
        let to = receiver.local_addr().unwrap();
        let last = LastArrival::default();
        let socket = wrap(receiver, clock, last.clone()).unwrap();
        let sent = clock.now_ns();
        std::net::UdpSocket::bind("127.0.0.1:0").unwrap().send_to(b"hello", to).unwrap();
        std::thread::sleep(Duration::from_millis(30));
        let mut buf = [0; 100];
        let mut meta = [RecvMeta::default()];
        let count =
            std::future::poll_fn(|cx| socket.poll_recv(cx, &mut [IoSliceMut::new(&mut buf)], &mut meta));
        assert_eq!(count.await.unwrap(), 1);
        assert_eq!(&buf[..meta[0].len], b"hello");
        last.ns().saturating_sub(sent) / 1_000_000
    }

    #[tokio::test]
    async fn arrival_is_when_it_was_sent_not_when_it_was_read() {
        let clock = Clock::new();
        // The kernel starts to stamp a moment after the first socket enables it.
        for _ in 0..100 {
            if arrival_ms(clock).await < 15 {
                return;
            }
        }
        panic!("nothing arrived before it was read");
    }
}
