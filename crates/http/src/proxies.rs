//! Reverse proxies that are trusted to name the clients they connect for.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use hyper::HeaderMap;

use crate::client::Network;

/// Header in which a trusted proxy names its client. A proxy passes on headers it does not know, so each has exactly
/// one, and the others, which clients can write, are ignored.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProxyHeader {
    /// `X-Forwarded-For`.
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
    /// The PROXY protocol, before the first request of a connection.
    Proxy,
}

impl ProxyHeader {
    /// All variants.
    pub const ALL: [Self; 3] = [Self::XForwardedFor, Self::Forwarded, Self::Proxy];

    /// Name in a configuration.
    pub fn name(self) -> &'static str {
        match self {
            Self::XForwardedFor => "x-forwarded-for",
            Self::Forwarded => "forwarded",
            Self::Proxy => "proxy",
        }
    }
}

/// A network of trusted proxies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TrustedProxy {
    /// Addresses of the proxies.
    pub network: Network,
    /// Header in which they name their clients. `None`: not configured; it is `X-Forwarded-For`, or a PROXY header
    /// where a connection begins with one.
    pub header: Option<ProxyHeader>,
}

impl fmt::Display for TrustedProxy {
    /// Formats it as a configuration does.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.header {
            None => write!(f, "\"{}\"", self.network),
            Some(header) => write!(f, "{{ net = \"{}\", header = \"{}\" }}", self.network, header.name()),
        }
    }
}

/// All trusted proxies: reverse proxies and balancers in front of the relay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Proxies(Vec<TrustedProxy>);

impl Proxies {
    /// Creates the set; of several networks that contain an address, the smallest counts.
    pub fn new(networks: Vec<TrustedProxy>) -> Self {
        Self(networks)
    }

    /// Whether `address` is a trusted proxy.
    pub fn trusts(&self, address: IpAddr) -> bool {
        self.find(address).is_some()
    }

    /// Whether a connection of `address` may begin with a PROXY header.
    pub(crate) fn takes_proxy_header(&self, address: IpAddr) -> bool {
        self.find(address).is_some_and(|proxy| matches!(proxy.header, None | Some(ProxyHeader::Proxy)))
    }

    /// Client of a request on a connection from `peer`: the last address that is no trusted proxy's, through any number
    /// of trusted proxies. Where the header names none, it is the proxy itself.
    pub(crate) fn client(&self, peer: SocketAddr, headers: &HeaderMap) -> SocketAddr {
        let nodes = match self.find(peer.ip()).map(|proxy| proxy.header) {
            Some(None | Some(ProxyHeader::XForwardedFor)) => x_forwarded_for(headers),
            Some(Some(ProxyHeader::Forwarded)) => forwarded(headers),
            Some(Some(ProxyHeader::Proxy)) | None => return peer,
        };
        let mut client = peer;
        for node in nodes {
            let Some(before) = node.filter(|_| self.trusts(client.ip())) else { break };
            client = before;
        }
        client
    }

    fn find(&self, address: IpAddr) -> Option<&TrustedProxy> {
        let holding = self.0.iter().filter(|proxy| proxy.network.contains(address));
        holding.max_by_key(|proxy| proxy.network.bits)
    }
}

type Nodes<'a> = Box<dyn Iterator<Item = Option<SocketAddr>> + 'a>;

/// Nodes of `X-Forwarded-For`, nearest first; `None` for one that is no address.
///
/// Each proxy appends to what it received, so the header is read from its end, as bytes: a malformed part that a client
/// wrote in front does not hide its proxy's part.
fn x_forwarded_for(headers: &HeaderMap) -> Nodes<'_> {
    let lines = headers.get_all("x-forwarded-for").into_iter().rev();
    let nodes = lines.flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    Box::new(nodes.map(|node| address(node.trim_ascii())))
}

/// Nodes of `Forwarded`, in the same order.
fn forwarded(headers: &HeaderMap) -> Nodes<'_> {
    let lines = headers.get_all("forwarded").into_iter().rev();
    let elements = lines.flat_map(|line| PartsFromEnd { rest: Some(line.as_bytes()), separator: b',' });
    Box::new(elements.map(|element| address(for_of(element)?)))
}

/// Node of the only `for=` in an element of `Forwarded`.
fn for_of(element: &[u8]) -> Option<&[u8]> {
    let mut nodes = PartsFromEnd { rest: Some(element), separator: b';' }.filter_map(|pair| {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (pair.get(..equals)?, pair.get(equals + 1..)?);
        name.trim_ascii().eq_ignore_ascii_case(b"for").then(|| value.trim_ascii())
    });
    let node = nodes.next()?;
    if nodes.next().is_some() {
        return None;
    }
    let quoted = node.strip_prefix(b"\"").and_then(|node| node.strip_suffix(b"\""));
    Some(quoted.unwrap_or(node))
}

/// Parts of a header between separators outside of quoted strings (RFC 9110 section 5.6.4), the last first.
struct PartsFromEnd<'a> {
    rest: Option<&'a [u8]>,
    separator: u8,
}

impl<'a> Iterator for PartsFromEnd<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<&'a [u8]> {
        let rest = self.rest.take()?;
        let mut is_quoted = false;
        for (at, byte) in rest.iter().enumerate().rev() {
            let before = rest.get(..at).unwrap_or_default();
            if *byte == b'"' {
                let escapes = before.iter().rev().take_while(|byte| **byte == b'\\').count();
                is_quoted ^= escapes % 2 == 0;
            } else if *byte == self.separator && !is_quoted {
                self.rest = Some(before);
                return rest.get(at + 1..);
            }
        }
        Some(rest)
    }
}

/// Parses an address with or without a port, IPv6 in brackets or not.
fn address(text: &[u8]) -> Option<SocketAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let found = text.parse().ok().or_else(|| bare.parse::<IpAddr>().ok().map(|ip| SocketAddr::new(ip, 0)))?;
    Some(SocketAddr::new(found.ip().to_canonical(), found.port()))
}

#[cfg(test)]
mod tests {
    use hyper::header::{HeaderName, HeaderValue};

    use super::*;

    const FORWARDED_FOR: &str = "x-forwarded-for";

    fn trusted(network: &str, header: Option<ProxyHeader>) -> TrustedProxy {
        TrustedProxy { network: network.parse().unwrap(), header }
    }

    fn proxies() -> Proxies {
        Proxies::new(vec![
            trusted("10.0.0.0/8", None),
            trusted("10.1.0.0/16", Some(ProxyHeader::Forwarded)),
            trusted("10.2.0.0/16", Some(ProxyHeader::Proxy)),
            trusted("::1", Some(ProxyHeader::XForwardedFor)),
        ])
    }

    fn seen(peer: &str, headers: &[(&'static str, &str)]) -> String {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_static(name), HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        proxies().client(peer.parse().unwrap(), &map).ip().to_string()
    }

    #[test]
    fn only_trusted_proxies_name_their_client() {
        assert_eq!(seen("203.0.113.1:5", &[(FORWARDED_FOR, "1.2.3.4")]), "203.0.113.1");
        assert_eq!(seen("203.0.113.1:5", &[("forwarded", "for=1.2.3.4")]), "203.0.113.1");
        assert_eq!(seen("10.0.0.1:5", &[(FORWARDED_FOR, "1.2.3.4")]), "1.2.3.4");
        assert_eq!(seen("10.0.0.1:5", &[(FORWARDED_FOR, "[2001:db8::7]:99")]), "2001:db8::7");
        assert_eq!(seen("10.0.0.1:5", &[(FORWARDED_FOR, "::ffff:203.0.113.5")]), "203.0.113.5");
        assert_eq!(seen("10.0.0.1:5", &[]), "10.0.0.1");
    }

    #[test]
    fn only_the_header_of_the_proxy_counts() {
        let both = [("forwarded", "for=6.6.6.6"), (FORWARDED_FOR, "1.2.3.4")];
        assert_eq!(seen("10.0.0.1:5", &both), "1.2.3.4");
        assert_eq!(seen("[::1]:5", &both), "1.2.3.4");
        assert_eq!(seen("10.1.0.1:5", &both), "6.6.6.6", "the smaller network");
        assert_eq!(seen("10.2.0.1:5", &both), "10.2.0.1");
        assert_eq!(seen("10.0.0.1:5", &[("forwarded", "for=6.6.6.6")]), "10.0.0.1");
    }

    #[test]
    fn proxy_header_is_taken_where_it_may_be() {
        let takes = |address: &str| proxies().takes_proxy_header(address.parse().unwrap());
        assert!(takes("10.0.0.1") && takes("10.2.0.1"));
        assert!(!takes("10.1.0.1") && !takes("::1") && !takes("203.0.113.1"));
    }

    #[test]
    fn client_cannot_hide_what_its_proxy_wrote() {
        for value in [
            "6.6.6.6, 1.2.3.4, 10.0.0.2",
            "nonsense, 1.2.3.4",
            "\u{e9}\u{ff}, 1.2.3.4",
            "\"6.6.6.6, 1.2.3.4",
            ",,, 1.2.3.4",
        ] {
            assert_eq!(seen("10.0.0.1:5", &[(FORWARDED_FOR, value)]), "1.2.3.4", "{value}");
        }
        let lines = [(FORWARDED_FOR, "6.6.6.6"), (FORWARDED_FOR, "1.2.3.4")];
        assert_eq!(seen("10.0.0.1:5", &lines), "1.2.3.4");
        assert_eq!(seen("10.0.0.1:5", &[(FORWARDED_FOR, "6.6.6.6, nonsense")]), "10.0.0.1");
        for value in [
            "for=6.6.6.6, for=1.2.3.4",
            "for=\", for=1.2.3.4",
            "for=\"\\\", for=1.2.3.4",
            "for=6.6.6.6;x=\", for=1.2.3.4",
            "\u{e9}, for=1.2.3.4",
            "for=1.2.3.4;host=\"a,for=6.6.6.6\"",
            "for=1.2.3.4;host=\"a;for=6.6.6.6\"",
            "for=1.2.3.4;host=\"a\\\",for=6.6.6.6\"",
        ] {
            assert_eq!(seen("10.1.0.1:5", &[("forwarded", value)]), "1.2.3.4", "{value}");
        }
        assert_eq!(seen("10.1.0.1:5", &[("forwarded", "for=1.2.3.4;for=6.6.6.6")]), "10.1.0.1");
    }

    #[test]
    fn forwarded_takes_ports_brackets_and_names() {
        let seen = |value| seen("10.1.0.1:5", &[("forwarded", value)]);
        assert_eq!(seen("for=\"[2001:db8::7]:99\";proto=https"), "2001:db8::7");
        assert_eq!(seen("by=x ; For = 192.0.2.43:47011"), "192.0.2.43");
        assert_eq!(seen("for=unknown"), "10.1.0.1");
        assert_eq!(seen("for=\"_hidden\""), "10.1.0.1");
        assert_eq!(seen(""), "10.1.0.1");
    }
}
