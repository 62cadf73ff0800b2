//! Packet steering: the kernel delivers a datagram to the worker that has its connection.
//!
//! The first byte of a connection id of the relay, modulo the number of workers, is the worker.
//! A client's first packets carry an id of its own choice, the same one until it gets one of the relay's.

use std::{io, os::fd::AsRawFd};

use super::option;

/// Distribution of datagrams to workers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Steering {
    /// By connection id: connections stay on their worker when the peer's address changes.
    #[default]
    ConnectionId,
    /// By the kernel's hash of the addresses. For tests.
    Off,
}

/// Offset of the first connection id byte in a short header packet: flags.
const SHORT_ID: u32 = 1;
/// Offset of the first connection id byte in a long header packet: flags, version, id length.
const LONG_ID: u32 = 6;
/// Flag of a long header packet.
const LONG_HEADER: u32 = 0x80;

/// The program: `A = long header ? payload[6] : payload[1]; return A % workers`.
///
/// Reuseport programs see the UDP payload at offset 0. A load past the end of the packet makes
/// the program return 0: too short for QUIC anyway, and worker 0 will drop it.
fn program(workers: u32) -> [libc::sock_filter; 7] {
    let op = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter { code: code as u16, jt, jf, k };
    let (load_byte, jump_if_set) =
        (libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K);
    [
        op(load_byte, 0, 0, 0),
        op(jump_if_set, 0, 2, LONG_HEADER),
        op(load_byte, 0, 0, LONG_ID),
        op(libc::BPF_JMP | libc::BPF_JA, 0, 0, 1),
        op(load_byte, 0, 0, SHORT_ID),
        op(libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K, 0, 0, workers),
        // BPF_A, which the bindings lack: return the accumulator.
        op(libc::BPF_RET | 0x10, 0, 0, 0),
    ]
}

/// Attaches the steering program to the reuseport group of `socket`, which will have `workers`
/// members. Members are numbered in the order they were bound.
pub(super) fn attach(socket: &impl AsRawFd, workers: u32) -> io::Result<()> {
    option::attach_reuseport_program(socket, &mut program(workers.max(1)))
}
