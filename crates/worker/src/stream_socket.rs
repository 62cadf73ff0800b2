//! One stream socket of a worker: reads, writes and TLS, independent of the protocol above.

use relay_model::transport::PathStats;
use std::{
    io::{self, IoSlice, Read, Write},
    net::Shutdown,
    time::Duration,
};

use bytes::{Buf, Bytes};
use mio::{Interest, Registry, Token, event::Source};
use relay_transport::qmux::ConnTraffic;
use rustls::ServerConnection;
use socket2::SockRef;

use crate::{
    accept::{AcceptedSocket, AdmittedSocket},
    socket::tcp_path,
};

/// `TCP_NOTSENT_LOWAT` in bytes. Kept small so that the egress scheduler decides late which group to send.
const NOT_SENT_BYTES: u32 = 64 * 1024;
/// `SO_SNDBUF` of a Unix socket in bytes, its only buffer, kept small for the same reason.
const UNIX_BUFFER_BYTES: usize = 64 * 1024;
/// Memory of a TLS connection with its buffers, bytes: one record in each direction.
const TLS_BYTES: u64 = 48 * 1024;
/// Limit on chunks per write call.
const SLICES: usize = 64;

/// A socket with its TLS state and readiness.
pub(crate) struct StreamSocket {
    socket: Plain,
    tls: Option<Box<ServerConnection>>,
    /// Chunks handed over for sending, before TLS; those before index `sent` are sent.
    pub(crate) unsent: Vec<Bytes>,
    sent: usize,
    /// Whether the socket may have data to read.
    pub(crate) is_readable: bool,
    /// Whether the socket may have room.
    pub(crate) is_writable: bool,
    /// Whether the peer has closed its side or the socket failed.
    pub(crate) has_ended: bool,
    /// Whether a write has failed.
    pub(crate) is_broken: bool,
    /// Whether our side is shut down.
    is_shut: bool,
    has_said_bye: bool,
    traffic: ConnTraffic,
}

/// The socket itself, without TLS.
enum Plain {
    Tcp(mio::net::TcpStream),
    Unix(mio::net::UnixStream),
}

impl StreamSocket {
    /// Takes over the socket of `link`, non-blocking; also returns the bytes already read from it.
    pub(crate) fn new(link: AdmittedSocket) -> io::Result<(Self, Vec<u8>)> {
        let AdmittedSocket { socket, tls, received } = link;
        let socket = match socket {
            AcceptedSocket::Tcp(tcp) => {
                tcp.set_nonblocking(true)?;
                tcp.set_nodelay(true)?;
                SockRef::from(&tcp).set_tcp_notsent_lowat(NOT_SENT_BYTES)?;
                Plain::Tcp(mio::net::TcpStream::from_std(tcp))
            }
            AcceptedSocket::Unix(unix) => {
                unix.set_nonblocking(true)?;
                SockRef::from(&unix).set_send_buffer_size(UNIX_BUFFER_BYTES)?;
                Plain::Unix(mio::net::UnixStream::from_std(unix))
            }
        };
        let line = Self {
            socket,
            tls,
            unsent: Vec::new(),
            sent: 0,
            is_readable: true,
            is_writable: true,
            has_ended: false,
            is_broken: false,
            is_shut: false,
            has_said_bye: false,
            traffic: ConnTraffic { bytes_in: received.len() as u64, bytes_out: 0 },
        };
        Ok((line, received))
    }

    /// Registers for edge-triggered readiness in both directions, until the socket is dropped.
    pub(crate) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        let both = Interest::READABLE | Interest::WRITABLE;
        match &mut self.socket {
            Plain::Tcp(tcp) => tcp.register(registry, token, both),
            Plain::Unix(unix) => unix.register(registry, token, both),
        }
    }

    /// Memory of TLS, bytes. Queued chunks are charged by their owner.
    pub(crate) fn footprint(&self) -> u64 {
        if self.tls.is_some() { TLS_BYTES } else { 0 }
    }

    /// Bytes carried by the socket, TLS included.
    pub(crate) fn traffic(&self) -> ConnTraffic {
        self.traffic
    }

    /// Path statistics of the kernel.
    pub(crate) fn path(&self) -> PathStats {
        let Plain::Tcp(tcp) = &self.socket else { return PathStats::default() };
        let Some(path) = tcp_path(tcp) else { return PathStats::default() };
        let window = path.window.saturating_mul(8).saturating_mul(Duration::from_secs(1).as_micros() as u64);
        let bitrate = window / u64::try_from(path.rtt.as_micros()).unwrap_or(u64::MAX).max(1);
        PathStats { rtt: Some(path.rtt), bitrate: Some(bitrate) }
    }

    /// Reads decrypted bytes; 0: the peer ended its side. `WouldBlock`: nothing now.
    pub(crate) fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.try_read(buffer);
        match &read {
            Ok(0) => self.has_ended = true,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_readable = false,
            Err(_) => self.has_ended = true,
        }
        read
    }

    fn try_read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let Self { socket, tls, traffic, .. } = self;
        let mut socket = CountingSocket { socket, count: &mut traffic.bytes_in };
        let Some(tls) = tls else { return socket.read(buffer) };
        loop {
            match tls.reader().read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                // Closed without close_notify: the protocol above has its own close.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(0),
                read => return read,
            }
            // After the end of the stream the reader returns 0.
            tls.read_tls(&mut socket)?;
            tls.process_new_packets().map_err(io::Error::other)?;
        }
    }

    /// Sends the unsent chunks as far as the socket has room. Returns true if all were sent.
    pub(crate) fn flush(&mut self) -> bool {
        if self.is_broken || !self.is_writable {
            return false;
        }
        match self.try_flush() {
            Ok(()) => {
                self.unsent.clear();
                self.sent = 0;
                return true;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.is_writable = false,
            Err(_) => self.is_broken = true,
        }
        false
    }

    fn try_flush(&mut self) -> io::Result<()> {
        let Self { socket, tls, unsent, sent, traffic, .. } = self;
        let mut socket = CountingSocket { socket, count: &mut traffic.bytes_out };
        loop {
            // Encrypted records go first, so that as little as possible is encrypted in advance.
            while let Some(tls) = tls.as_mut().filter(|tls| tls.wants_write()) {
                tls.write_tls(&mut socket)?;
            }
            advance(unsent, sent, 0);
            let mut slices = [IoSlice::new(&[]); SLICES];
            let rest = unsent.get(*sent..).unwrap_or_default();
            let mut count = 0;
            for (slice, chunk) in slices.iter_mut().zip(rest) {
                *slice = IoSlice::new(chunk);
                count += 1;
            }
            let Some(slices) = slices.get(..count).filter(|slices| !slices.is_empty()) else { return Ok(()) };
            let written = match tls {
                Some(tls) => tls.writer().write_vectored(slices)?,
                None => socket.write_vectored(slices)?,
            };
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            advance(unsent, sent, written);
        }
    }

    /// Sends close_notify and shuts down our side, once all is sent.
    pub(crate) fn shut(&mut self) {
        if self.is_shut || self.is_broken {
            return;
        }
        if let Some(tls) = self.tls.as_mut().filter(|_| !self.has_said_bye) {
            tls.send_close_notify();
        }
        self.has_said_bye = true;
        if self.flush() {
            self.is_shut = true;
            // The socket may already be closed.
            let _ = match &self.socket {
                Plain::Tcp(tcp) => tcp.shutdown(Shutdown::Write),
                Plain::Unix(unix) => unix.shutdown(Shutdown::Write),
            };
        }
    }
}

/// Marks the first `count` bytes as sent.
fn advance(unsent: &mut [Bytes], sent: &mut usize, mut count: usize) {
    while let Some(chunk) = unsent.get_mut(*sent) {
        if count < chunk.len() {
            chunk.advance(count);
            return;
        }
        count -= chunk.len();
        *chunk = Bytes::new();
        *sent += 1;
    }
}

/// Socket wrapper that counts bytes.
struct CountingSocket<'a> {
    socket: &'a mut Plain,
    count: &'a mut u64,
}

impl CountingSocket<'_> {
    /// Repeats the call if it was interrupted by a signal.
    fn call(&mut self, mut call: impl FnMut(&mut Plain) -> io::Result<usize>) -> io::Result<usize> {
        loop {
            match call(self.socket) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                done => {
                    *self.count += *done.as_ref().unwrap_or(&0) as u64;
                    return done;
                }
            }
        }
    }
}

impl Read for CountingSocket<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.call(|socket| match socket {
            Plain::Tcp(tcp) => tcp.read(buffer),
            Plain::Unix(unix) => unix.read(buffer),
        })
    }
}

impl Write for CountingSocket<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_vectored(&[IoSlice::new(bytes)])
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        self.call(|socket| match socket {
            Plain::Tcp(tcp) => tcp.write_vectored(slices),
            Plain::Unix(unix) => unix.write_vectored(slices),
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
