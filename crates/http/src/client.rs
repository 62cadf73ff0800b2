//! Peer of a connection: addresses, TLS identity, and the client that a trusted proxy names.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
};

use relay_worker::ConnInfo;

/// Facts about a connection that its requests share.
#[derive(Clone, Debug)]
pub struct ClientInfo {
    /// The connection, without a request. Its remote address is the peer's, or the one in a trusted proxy's header.
    pub conn: ConnInfo,
    /// Whether the remote address is a trusted proxy, whose headers name the client.
    pub is_proxy: bool,
    /// Whether the connection uses TLS.
    pub is_tls: bool,
}

impl ClientInfo {
    /// Describes a request for `target` of this client to the gate.
    pub(crate) fn http_request(&self, target: String) -> ConnInfo {
        ConnInfo {
            version: Some("http/1.1"),
            server_name: self.conn.server_name.clone(),
            certificate: self.conn.certificate.clone(),
            target: Some(target),
            ..ConnInfo::new("http", self.conn.remote, self.conn.local)
        }
    }
}

/// IP network: an address and its prefix length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    pub(crate) bits: u8,
}

/// Text that is not an IP network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no network")]
pub struct NoNetwork;

impl Network {
    /// Whether `address` is in the network. IPv4-mapped IPv6 counts as IPv4.
    pub fn contains(&self, address: IpAddr) -> bool {
        let same = |a: u128, b: u128, width: u32| {
            let free = width.saturating_sub(u32::from(self.bits));
            free >= u128::BITS || (a ^ b) >> free == 0
        };
        match (self.address, address.to_canonical()) {
            (IpAddr::V4(a), IpAddr::V4(b)) => same(a.to_bits().into(), b.to_bits().into(), 32),
            (IpAddr::V6(a), IpAddr::V6(b)) => same(a.to_bits(), b.to_bits(), 128),
            _ => false,
        }
    }
}

impl FromStr for Network {
    type Err = NoNetwork;

    /// Parses an address, with or without a prefix length.
    fn from_str(text: &str) -> Result<Self, NoNetwork> {
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits.parse::<u8>().map_err(|_| NoNetwork)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NoNetwork)?;
        let width = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.unwrap_or(width);
        if bits > width { Err(NoNetwork) } else { Ok(Self { address, bits }) }
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// Unit in which connections are counted: an IPv4 address, or the /64 of an IPv6 address.
pub(crate) fn origin_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// Address of a peer that has none: a Unix socket.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_network_holds_what_its_bits_say() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.1"),
            ("192.168.1.1", "192.168.1.1", "192.168.1.2"),
            ("0.0.0.0/0", "203.0.113.9", "::1"),
            ("fd00::/8", "fd12::1", "fe80::1"),
            ("::/0", "2001:db8::1", "10.0.0.1"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::ffff:11.1.2.3"),
        ] {
            let network: Network = network.parse().unwrap();
            assert!(network.contains(inside.parse().unwrap()), "{inside} is in {network}");
            assert!(!network.contains(outside.parse().unwrap()), "{outside} is not in {network}");
        }
        for bad in ["", "10.0.0.0/33", "::/129", "10.0.0/8", "x", "10.0.0.0/", "10.0.0.0/-1"] {
            assert_eq!(bad.parse::<Network>(), Err(NoNetwork), "{bad}");
        }
    }

    #[test]
    fn a_site_of_ipv6_counts_as_one_address() {
        let of = |text: &str| origin_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:10.1.2.3"), of("10.1.2.3"));
    }
}
