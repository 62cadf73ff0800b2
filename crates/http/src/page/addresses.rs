//! URLs under which the page reaches sessions of its relay.
//!
//! The page may be on a listener of its own, at another port and under another name than QUIC. Only the relay
//! knows its QUIC port and the names in its certificate, so it computes the URLs from these and from the host
//! under which the page was requested.

use std::net::{IpAddr, SocketAddr};

use axum::http::{HeaderMap, header, uri::Authority};

/// Longest host that is repeated in a URL, bytes (RFC 1035, 2.3.4).
const HOST_BYTES: usize = 255;
/// Port of `https` and `wss` (RFC 9110, 4.2.2).
const HTTPS_PORT: u16 = 443;
/// Port of `http` and `ws` (RFC 9110, 4.2.1).
const HTTP_PORT: u16 = 80;

/// Listener addresses that accept sessions of browsers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct BrowserListeners {
    /// QUIC, for WebTransport.
    pub(crate) quic: SocketAddr,
    /// Plain HTTP, for WebSocket.
    pub(crate) http: Option<SocketAddr>,
    /// HTTPS, for WebSocket.
    pub(crate) https: Option<SocketAddr>,
    /// Whether WebSockets are accepted there.
    pub(crate) websocket: bool,
}

/// Inputs that decide the host of a URL.
#[derive(Clone, Copy, Debug)]
pub(super) struct HostSources<'a> {
    /// Public URL from the configuration, with a slash at its end.
    pub(super) url: Option<&'a str>,
    /// Names and addresses in the certificates.
    pub(super) names: &'a [String],
    /// Whether browsers pin the certificate, so that its names do not matter.
    pub(super) is_pinned: bool,
    /// Host of the request for the page.
    pub(super) host: Option<&'a str>,
}

/// URLs of sessions, with a slash at their end.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Urls {
    /// WebTransport and raw QUIC (`https://`); `None`: no host is known.
    pub(super) session: Option<String>,
    /// WebSocket (`ws://`, `wss://`, or `/` for the address of the page); `None`: there is none.
    pub(super) websocket: Option<String>,
}

/// Host of the request in `Host`, without its port; `None` for one that cannot be part of a URL.
pub(super) fn host(headers: &HeaderMap) -> Option<&str> {
    let host = headers.get(header::HOST)?.to_str().ok()?;
    // An authority may have user information, which is not part of the host.
    host.parse::<Authority>().ok().filter(|_| !host.contains('@'))?;
    let bare = match host.rsplit_once(':') {
        Some((bare, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => bare,
        _ => host,
    };
    let is_name = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_');
    let is_host = literal(bare).is_some() || (!bare.is_empty() && bare.bytes().all(is_name));
    (is_host && bare.len() <= HOST_BYTES).then_some(bare)
}

/// URLs for the page; `is_private`: it is on the private listener, which takes no WebSockets.
pub(super) fn urls(entrances: &BrowserListeners, known: &HostSources<'_>, is_private: bool) -> Urls {
    let session = known.url.map(str::to_owned).or_else(|| {
        let host = reachable(known, entrances.quic.ip())?;
        Some(url("https", &host, entrances.quic.port(), HTTPS_PORT))
    });
    let websocket = match (entrances.websocket, is_private) {
        (false, _) => None,
        // A proxy may be in front of the listener: only the browser knows scheme and port.
        (true, false) => Some("/".to_owned()),
        (true, true) => websocket(entrances, known, session.as_deref()),
    };
    Urls { session, websocket }
}

/// URL of the public WebSocket: over TLS where browsers accept the certificate.
fn websocket(entrances: &BrowserListeners, known: &HostSources<'_>, session: Option<&str>) -> Option<String> {
    let secure = entrances.https.map(|address| ("wss", address, HTTPS_PORT));
    let plain = entrances.http.map(|address| ("ws", address, HTTP_PORT));
    let (scheme, address, usual) = if known.is_pinned { plain.or(secure) } else { secure.or(plain) }?;
    let host = match known.url {
        Some(_) => host_of(session?)?.to_owned(),
        None => reachable(known, address.ip())?,
    };
    Some(url(scheme, &host, address.port(), usual))
}

/// Host under which a client of the page reaches a listener at `bound`, and that the certificate is for.
fn reachable(known: &HostSources<'_>, bound: IpAddr) -> Option<String> {
    let asked = known.host;
    if !known.is_pinned && !known.names.is_empty() {
        let covers = |host: &&str| known.names.iter().any(|name| is_covered(host, name));
        let named = || known.names.iter().find(|name| !name.starts_with('*')).map(|name| bracketed(name));
        if let Some(host) = asked.filter(covers).map(str::to_owned).or_else(named) {
            return Some(host);
        }
    }
    let is_elsewhere = asked.is_none_or(is_loopback) && !bound.is_unspecified();
    if is_elsewhere { Some(bracketed(&bound.to_string())) } else { asked.map(str::to_owned) }
}

/// Whether a certificate for `name` is valid for `host` (RFC 9525, 6.3).
fn is_covered(host: &str, name: &str) -> bool {
    if let Some(address) = literal(host) {
        return name.parse() == Ok(address);
    }
    match name.strip_prefix("*.") {
        Some(parent) => host.split_once('.').is_some_and(|(_, rest)| rest.eq_ignore_ascii_case(parent)),
        None => host.eq_ignore_ascii_case(name),
    }
}

/// Parses the host of a URL as an IP address.
fn literal(host: &str) -> Option<IpAddr> {
    match host.strip_prefix('[') {
        Some(rest) => rest.strip_suffix(']')?.parse().ok().map(IpAddr::V6),
        None => host.parse().ok().map(IpAddr::V4),
    }
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost") || literal(host).is_some_and(|address| address.is_loopback())
}

/// Formats the host of a URL: IPv6 addresses in brackets (RFC 3986, 3.2.2), anything else as it is.
fn bracketed(host: &str) -> String {
    if host.contains(':') { format!("[{host}]") } else { host.to_owned() }
}

fn url(scheme: &str, host: &str, port: u16, usual: u16) -> String {
    if port == usual { format!("{scheme}://{host}/") } else { format!("{scheme}://{host}:{port}/") }
}

/// Host of a URL that this module or the configuration wrote.
fn host_of(url: &str) -> Option<&str> {
    let authority = url.split_once("://")?.1.trim_end_matches('/');
    match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(host),
        _ => Some(authority),
    }
}

/// Source expression of a Content Security Policy for a URL; `None` for a relative one. IPv6 addresses have no
/// such expression (CSP 3, 2.3.1), so any host at that port stands for one.
pub(super) fn source(url: &str) -> Option<String> {
    let (scheme, authority) = url.trim_end_matches('/').split_once("://")?;
    match authority.rsplit_once(']') {
        Some((_, port)) => Some(format!("{scheme}://*{port}")),
        None => Some(format!("{scheme}://{authority}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGE_HOSTS: [&str; 3] = ["127.0.0.1", "relay.example.com", "[2001:db8::1]"];

    fn entrances(quic: &str) -> BrowserListeners {
        let at = |address: &str| address.parse().unwrap();
        BrowserListeners {
            quic: at(quic),
            http: Some(at("[::]:8080")),
            https: Some(at("[::]:8443")),
            websocket: true,
        }
    }

    fn known<'a>(host: Option<&'a str>, names: &'a [String]) -> HostSources<'a> {
        HostSources { url: None, names, is_pinned: names.is_empty(), host }
    }

    fn session(quic: &str, host: Option<&str>, names: &[&str]) -> Option<String> {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        urls(&entrances(quic), &known(host, &names), true).session
    }

    #[test]
    fn session_url_has_the_host_of_the_page_and_the_port_of_quic() {
        for host in PAGE_HOSTS {
            let expected = Some(format!("https://{host}:4443/"));
            assert_eq!(session("[::]:4443", Some(host), &[]), expected);
        }
        assert_eq!(session("[::]:443", Some("a.example"), &[]).unwrap(), "https://a.example/");
        assert_eq!(session("[::]:4443", None, &[]), None);
    }

    #[test]
    fn page_on_loopback_reaches_quic_at_its_own_address() {
        for host in ["localhost", "127.0.0.1", "[::1]"] {
            assert_eq!(session("192.0.2.7:4443", Some(host), &[]).unwrap(), "https://192.0.2.7:4443/");
            assert_eq!(
                session("[2001:db8::7]:4443", Some(host), &[]).unwrap(),
                "https://[2001:db8::7]:4443/"
            );
        }
        let elsewhere = session("127.0.0.1:4443", Some("relay.example.com"), &[]);
        assert_eq!(elsewhere.unwrap(), "https://relay.example.com:4443/");
    }

    #[test]
    fn session_url_has_a_name_that_the_certificate_covers() {
        let names = ["*.example.com", "relay.example.com", "192.0.2.7"];
        let of = |host| session("[::]:4443", Some(host), &names).unwrap();
        assert_eq!(of("eu.example.com"), "https://eu.example.com:4443/");
        assert_eq!(of("EU.Example.com"), "https://EU.Example.com:4443/");
        assert_eq!(of("192.0.2.7"), "https://192.0.2.7:4443/");
        for other in ["127.0.0.1", "localhost", "a.b.example.com", "example.com", "192.0.2.8", "[::1]"] {
            assert_eq!(of(other), "https://relay.example.com:4443/", "{other}");
        }
        let none = session("[::]:4443", Some("127.0.0.1"), &["*.example.com"]);
        assert_eq!(none.unwrap(), "https://127.0.0.1:4443/", "no name to use instead");
    }

    #[test]
    fn configured_url_replaces_what_is_derived() {
        let names = ["other.example.com".to_owned()];
        let known =
            HostSources { url: Some("https://relay.example.com/"), ..known(Some("127.0.0.1"), &names) };
        let Urls { session, websocket } = urls(&entrances("[::]:4443"), &known, true);
        assert_eq!(session.unwrap(), "https://relay.example.com/");
        assert_eq!(websocket.unwrap(), "wss://relay.example.com:8443/");
    }

    #[test]
    fn websocket_of_the_private_page_is_on_a_public_listener() {
        let names = ["relay.example.com".to_owned()];
        let all = entrances("[::]:4443");
        let of = |entrances: &BrowserListeners, names: &[String], is_private| {
            urls(entrances, &known(Some("127.0.0.1"), names), is_private).websocket
        };
        assert_eq!(of(&all, &[], true).unwrap(), "ws://127.0.0.1:8080/", "no browser trusts the certificate");
        assert_eq!(of(&all, &names, true).unwrap(), "wss://relay.example.com:8443/");
        assert_eq!(of(&BrowserListeners { http: None, https: None, ..all }, &[], true), None);
        assert_eq!(of(&all, &[], false).unwrap(), "/");
        assert_eq!(of(&BrowserListeners { websocket: false, ..all }, &[], false), None);
    }

    #[test]
    fn host_that_cannot_be_part_of_a_url_is_ignored() {
        let of = |text: &str| {
            let headers = HeaderMap::from_iter([(header::HOST, text.parse().unwrap())]);
            host(&headers).map(str::to_owned)
        };
        assert_eq!(of("relay.example.com:8080").unwrap(), "relay.example.com");
        assert_eq!(of("127.0.0.1").unwrap(), "127.0.0.1");
        assert_eq!(of("[::1]:80").unwrap(), "[::1]");
        for bad in ["", "a;b", "a b", "a'b", "a@b", "[::1", "[x]", ":80", &"a".repeat(HOST_BYTES + 1)] {
            assert_eq!(of(bad), None, "{bad}");
        }
        assert_eq!(host(&HeaderMap::new()), None);
    }

    #[test]
    fn policy_source_of_a_url() {
        assert_eq!(source("https://relay.example.com:4443/").unwrap(), "https://relay.example.com:4443");
        assert_eq!(source("ws://127.0.0.1/").unwrap(), "ws://127.0.0.1");
        assert_eq!(source("https://[::1]:4443/").unwrap(), "https://*:4443");
        assert_eq!(source("wss://[::1]/").unwrap(), "wss://*");
        assert_eq!(source("/"), None);
    }
}
