//! Socket options that no library has.

#![allow(unsafe_code)]

use std::{io, mem, os::fd::AsRawFd};

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
