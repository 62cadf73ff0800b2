//! Who is at the other end: what a connection knows of its peer, and whom it speaks for.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    str::FromStr,
    time::Duration,
};

use hyper::HeaderMap;
use relay_transport::quic::PeerCertificate;

/// A connection, as its requests see it.
#[derive(Clone, Debug)]
pub struct Client {
    /// The peer's address, as the header of a trusted proxy tells it if there is one.
    pub remote: SocketAddr,
    /// Whether it is a trusted proxy that speaks, whose headers are believed.
    pub is_proxy: bool,
    /// Our address that it came to.
    pub local: SocketAddr,
    /// Whether it came over TLS.
    pub is_tls: bool,
    /// The host it asked for in the handshake of TLS.
    pub server_name: Option<String>,
    /// The certificate it showed, verified.
    pub certificate: Option<PeerCertificate>,
    /// Round trip time as the kernel measured it during the handshake.
    pub rtt: Option<Duration>,
}

/// A network: an address and how many of its bits count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Network {
    address: IpAddr,
    bits: u8,
}

/// What is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no network")]
pub struct NoNetwork;

/// Whom we believe what it says of others: reverse proxies and balancers in front of the relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<Network>);

impl Network {
    /// Whether `address` lies in it. IPv4 inside of IPv6 counts as IPv4.
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

    /// An address, or an address and a number of bits.
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

impl Proxies {
    /// These networks.
    pub fn new(networks: Vec<Network>) -> Self {
        Self(networks)
    }

    /// Whether `address` is believed.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(address))
    }

    /// Whether nobody is.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Who asks, of a request that came over a connection from `peer`: through how many trusted proxies ever,
    /// the last address that is none of theirs. What an untrusted peer says of itself does not count.
    pub fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let mut client = peer;
        for said in forwarded(headers) {
            if !self.trusts(client.ip()) {
                break;
            }
            let Some(before) = said else { break };
            client = before;
        }
        client
    }
}

/// Who the request came through, nearest first; `None` for one that says no address. `Forwarded` goes before
/// `X-Forwarded-For`.
fn forwarded(headers: &HeaderMap) -> Vec<Option<SocketAddr>> {
    let listed = |name: &str| -> Vec<String> {
        let texts = headers.get_all(name).iter().filter_map(|value| value.to_str().ok());
        texts.flat_map(|text| text.split(',')).map(|one| one.trim().to_owned()).collect()
    };
    let standard: Vec<_> = listed("forwarded").iter().map(|element| address(for_of(element)?)).collect();
    let all = if standard.is_empty() {
        listed("x-forwarded-for").iter().map(|one| address(one)).collect()
    } else {
        standard
    };
    all.into_iter().rev().collect()
}

/// The node of `for=` in one element of `Forwarded`.
fn for_of(element: &str) -> Option<&str> {
    element.split(';').find_map(|pair| {
        let (name, value) = pair.trim().split_once('=')?;
        name.eq_ignore_ascii_case("for").then(|| value.trim().trim_matches('"'))
    })
}

/// An address with or without a port, IPv6 in brackets or not.
fn address(text: &str) -> Option<SocketAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    text.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0)))
}

/// What counts as one address where connections are counted: IPv4 as it is, of IPv6 the /64.
pub(crate) fn origin_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

/// What has no address: a Unix socket.
pub(crate) const NOWHERE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0);

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    fn proxies() -> Proxies {
        Proxies::new(["10.0.0.0/8", "::1"].map(|text| text.parse().unwrap()).to_vec())
    }

    fn seen(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_str(value).unwrap());
        }
        proxies().client(peer.parse().unwrap(), &map).ip().to_string()
    }

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
    fn only_trusted_proxies_say_who_asks() {
        assert_eq!(seen("203.0.113.1:5", &[("x-forwarded-for", "1.2.3.4")]), "203.0.113.1");
        assert_eq!(seen("203.0.113.1:5", &[("forwarded", "for=1.2.3.4")]), "203.0.113.1");
        assert_eq!(seen("10.0.0.1:5", &[("x-forwarded-for", "1.2.3.4")]), "1.2.3.4");
        assert_eq!(seen("10.0.0.1:5", &[]), "10.0.0.1");
    }

    #[test]
    fn what_a_client_writes_before_the_proxies_part_is_not_believed() {
        assert_eq!(seen("10.0.0.1:5", &[("x-forwarded-for", "6.6.6.6, 1.2.3.4, 10.0.0.2")]), "1.2.3.4");
        assert_eq!(
            seen("10.0.0.1:5", &[("x-forwarded-for", "6.6.6.6"), ("x-forwarded-for", "1.2.3.4")]),
            "1.2.3.4"
        );
        assert_eq!(seen("10.0.0.1:5", &[("x-forwarded-for", "6.6.6.6, nonsense")]), "10.0.0.1");
    }

    #[test]
    fn the_standard_header_goes_first_and_takes_ports_and_brackets() {
        let both = [("forwarded", "for=\"[2001:db8::7]:99\";proto=https"), ("x-forwarded-for", "1.2.3.4")];
        assert_eq!(seen("10.0.0.1:5", &both), "2001:db8::7");
        assert_eq!(seen("[::1]:5", &[("forwarded", "by=x;For=192.0.2.43:47011")]), "192.0.2.43");
        assert_eq!(seen("[::1]:5", &[("forwarded", "for=unknown")]), "::1");
    }

    #[test]
    fn a_site_of_ipv6_counts_as_one_address() {
        let of = |text: &str| origin_of(text.parse().unwrap());
        assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
        assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
        assert_eq!(of("::ffff:10.1.2.3"), of("10.1.2.3"));
    }
}
