//! Sending: one `sendmmsg` for packets of many connections, each with its own destination, source
//! address, ECN mark and segment size.

#![allow(unsafe_code)]

use std::{
    io,
    mem::{self, MaybeUninit},
    net::{IpAddr, SocketAddr},
    os::fd::AsRawFd,
    ptr,
};

use super::{SEND_BATCH, UdpPacket, canonical, mapped};

/// Room for the control messages of one packet: ECN, segment size, source address.
const CONTROL_BYTES: usize = 128;
/// Bytes of a control message's header, padded.
const CONTROL_HEADER: usize = align(mem::size_of::<libc::cmsghdr>());

/// Control messages start and continue at the alignment of their header.
#[repr(C, align(8))]
struct ControlBuffer {
    bytes: [u8; CONTROL_BYTES],
    used: usize,
}

/// Destination in the kernel's format.
union Name {
    v4: libc::sockaddr_in,
    v6: libc::sockaddr_in6,
}

/// Data that the header of one packet points to.
struct PacketHeader {
    name: Name,
    name_len: libc::socklen_t,
    control: ControlBuffer,
    data: libc::iovec,
}

/// Sends packets from the front, at most [`SEND_BATCH`]; returns how many the kernel took (at least one), or
/// its error for the first.
pub(super) fn sendmmsg(socket: &impl AsRawFd, is_v6: bool, packets: &[UdpPacket]) -> io::Result<usize> {
    let mut messages = [const { MaybeUninit::<PacketHeader>::uninit() }; SEND_BATCH];
    let mut headers = [const { MaybeUninit::<libc::mmsghdr>::uninit() }; SEND_BATCH];
    let mut count: usize = 0;
    for ((packet, message), header) in packets.iter().zip(&mut messages).zip(&mut headers) {
        let message = message.write(PacketHeader::new(packet, is_v6));
        header.write(message.header());
        count += 1;
    }
    if count == 0 {
        return Ok(0);
    }
    loop {
        // SAFETY: the first `count` headers are initialised. Each points to the name, control
        // bytes and iovec of its `PacketHeader` in `messages`, and that to the bytes of its packet; all
        // of them live, unmoved, until this function returns. The kernel writes only `msg_len`.
        let sent = unsafe {
            libc::sendmmsg(socket.as_raw_fd(), headers.as_mut_ptr().cast(), count as libc::c_uint, 0)
        };
        if let Ok(sent) = usize::try_from(sent) {
            return Ok(sent);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

impl PacketHeader {
    fn new(packet: &UdpPacket, is_v6: bool) -> Self {
        let (name, name_len) = Name::new(packet.destination, is_v6);
        Self {
            name,
            name_len,
            control: ControlBuffer::new(packet),
            data: libc::iovec {
                // The kernel only reads it; the type is shared with receiving.
                iov_base: packet.bytes.as_ptr().cast_mut().cast(),
                iov_len: packet.bytes.len(),
            },
        }
    }

    /// A header that points into `self`.
    fn header(&mut self) -> libc::mmsghdr {
        // SAFETY: all-zero is a valid header: null pointers with zero lengths. (It has private
        // padding on some C libraries, so it cannot be written out.)
        let mut header: libc::mmsghdr = unsafe { mem::zeroed() };
        header.msg_hdr.msg_name = (&raw mut self.name).cast();
        header.msg_hdr.msg_namelen = self.name_len;
        header.msg_hdr.msg_iov = &raw mut self.data;
        header.msg_hdr.msg_iovlen = 1;
        if self.control.used > 0 {
            header.msg_hdr.msg_control = self.control.bytes.as_mut_ptr().cast();
            header.msg_hdr.msg_controllen = self.control.used as _;
        } else {
            header.msg_hdr.msg_control = ptr::null_mut();
        }
        header
    }
}

impl Name {
    fn new(destination: SocketAddr, is_v6: bool) -> (Self, libc::socklen_t) {
        if let (SocketAddr::V4(v4), false) = (canonical(destination), is_v6) {
            let v4 = libc::sockaddr_in {
                sin_family: libc::AF_INET as libc::sa_family_t,
                sin_port: v4.port().to_be(),
                sin_addr: libc::in_addr { s_addr: u32::from_ne_bytes(v4.ip().octets()) },
                sin_zero: [0; 8],
            };
            return (Self { v4 }, mem::size_of::<libc::sockaddr_in>() as libc::socklen_t);
        }
        let addr = mapped(destination);
        let v6 = libc::sockaddr_in6 {
            sin6_family: libc::AF_INET6 as libc::sa_family_t,
            sin6_port: addr.port().to_be(),
            sin6_flowinfo: addr.flowinfo(),
            sin6_addr: libc::in6_addr { s6_addr: addr.ip().octets() },
            sin6_scope_id: addr.scope_id(),
        };
        (Self { v6 }, mem::size_of::<libc::sockaddr_in6>() as libc::socklen_t)
    }
}

impl ControlBuffer {
    fn new(packet: &UdpPacket) -> Self {
        let mut control = Self { bytes: [0; CONTROL_BYTES], used: 0 };
        // A v4 peer of a v6 socket is served by the v4 half of the kernel, which reads v4 messages.
        let is_v4 = canonical(packet.destination).is_ipv4();
        if let Some(ecn) = packet.ecn {
            let mark = (ecn as libc::c_int).to_ne_bytes();
            if is_v4 {
                control.put(libc::IPPROTO_IP, libc::IP_TOS, &mark);
            } else {
                control.put(libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &mark);
            }
        }
        if let Some(size) = packet.segment.filter(|&size| usize::from(size) < packet.bytes.len()) {
            control.put(libc::SOL_UDP, libc::UDP_SEGMENT, &size.to_ne_bytes());
        }
        match packet.src_ip.map(|ip| ip.to_canonical()) {
            Some(IpAddr::V4(ip)) if is_v4 => {
                // in_pktinfo: interface (any), source address, an address only receivers see.
                let mut info = [0; 12];
                info[4..8].copy_from_slice(&ip.octets());
                control.put(libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some(IpAddr::V6(ip)) if !is_v4 => {
                // in6_pktinfo: source address, interface (any).
                let mut info = [0; 20];
                info[..16].copy_from_slice(&ip.octets());
                control.put(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            _ => {}
        }
        control
    }

    /// Appends one control message: length with header, level, type, data, padding.
    fn put(&mut self, level: libc::c_int, kind: libc::c_int, data: &[u8]) {
        let (start, body) = (self.used, self.used + CONTROL_HEADER);
        let end = start + CONTROL_HEADER + align(data.len());
        if end > CONTROL_BYTES {
            debug_assert!(false, "control messages outgrew their buffer");
            return;
        }
        let mut header = start;
        for field in
            [&(CONTROL_HEADER + data.len()).to_ne_bytes()[..], &level.to_ne_bytes(), &kind.to_ne_bytes()]
        {
            self.bytes[header..header + field.len()].copy_from_slice(field);
            header += field.len();
        }
        self.bytes[body..body + data.len()].copy_from_slice(data);
        self.used = end;
    }
}

/// Rounds up to the alignment of control messages, that of a `size_t`.
const fn align(len: usize) -> usize {
    len.next_multiple_of(mem::size_of::<usize>())
}
