//! Socket options that no library provides.

#![allow(unsafe_code)]

use std::{io, mem, os::fd::AsRawFd, time::Duration};

/// Attaches a classic BPF program to the reuseport group of `socket`.
pub(super) fn attach_reuseport_program(
    socket: &impl AsRawFd,
    program: &mut [libc::sock_filter],
) -> io::Result<()> {
    let len = u16::try_from(program.len()).map_err(|_| io::ErrorKind::InvalidInput)?;
    let program = libc::sock_fprog { len, filter: program.as_mut_ptr() };
    // SAFETY: the option takes a `sock_fprog`, whose filter points to `len` instructions that
    // outlive the call. The kernel copies both.
    unsafe { set(socket, libc::SO_ATTACH_REUSEPORT_CBPF, &program) }
}

/// Turns off receive timestamps. quinn-udp turns them on, we do not read them, and its buffer for
/// control messages has no room for them beside all others: the ECN mark of a coalesced train
/// would be cut off.
pub(super) fn disable_timestamps(socket: &impl AsRawFd) -> io::Result<()> {
    // SAFETY: the option takes an int.
    unsafe { set::<libc::c_int>(socket, libc::SO_TIMESTAMPNS, &0) }
}

/// Field offsets in the kernel's `struct tcp_info`, which only grows at its end.
const SND_MSS: usize = 16;
const RTT_US: usize = 68;
const SND_CWND: usize = 80;
const TCP_INFO_BYTES: usize = 104;

/// Path statistics of a TCP connection, from the kernel.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TcpPath {
    /// Smoothed round trip time.
    pub(crate) rtt: Duration,
    /// Congestion window, bytes.
    pub(crate) window: u64,
}

/// Reads the path statistics. `None`: not a TCP socket, or not supported by the kernel.
pub(crate) fn tcp_path(socket: &impl AsRawFd) -> Option<TcpPath> {
    let mut info = [0u8; TCP_INFO_BYTES];
    let mut len = TCP_INFO_BYTES as libc::socklen_t;
    // SAFETY: the kernel writes at most `len` bytes to `info`, and to `len` how many.
    let done = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if done != 0 || (len as usize) < TCP_INFO_BYTES {
        return None;
    }
    let field = |at: usize| info.get(at..at + 4)?.try_into().ok().map(u32::from_ne_bytes);
    let (mss, rtt, cwnd) = (field(SND_MSS)?, field(RTT_US)?, field(SND_CWND)?);
    (rtt > 0)
        .then(|| TcpPath { rtt: Duration::from_micros(rtt.into()), window: u64::from(mss) * u64::from(cwnd) })
}

/// Sets an option of the socket level.
///
/// # Safety
///
/// `value` must be what `option` takes, pointers in it valid for the call.
unsafe fn set<T>(socket: &impl AsRawFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is passed by pointer with its size; what it holds is the caller's promise.
    let done = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            (&raw const *value).cast(),
            mem::size_of::<T>() as libc::socklen_t,
        )
    };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
