//! The authority a request is addressed to, and the host names a listener answers for (RFC 9110 section 7.2,
//! RFC 9112 section 3.2).

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use hyper::{Method, Request, Version, header::HOST};

/// Longest host name, bytes: what DNS allows.
const NAME_BYTES: usize = 255;

/// Host and port, as `Host` headers, request targets and origins hold them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Authority {
    pub(crate) host: Host,
    pub(crate) port: Option<u16>,
}

/// Host of an authority.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Host {
    /// An IP address; IPv4-mapped IPv6 becomes IPv4.
    Address(IpAddr),
    /// A registered name: lower case, without a trailing dot.
    Name(String),
}

/// Request without a usable authority; the answer is 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum AuthorityError {
    /// HTTP/1.1 requires one.
    #[error("a request needs a Host header")]
    Missing,
    /// Several headers: recipients on the way could choose different ones.
    #[error("a request has one Host header, not several")]
    Several,
    /// The header, or the target in absolute form, names no host.
    #[error("the host of the request is malformed")]
    Malformed,
}

impl Authority {
    /// Authority of a request: that of a target in absolute form, else the `Host` header. `None`: HTTP/1.0
    /// without one.
    ///
    /// # Errors
    /// A case that RFC 9112 section 3.2 answers with 400; a malformed `Host` counts even if the target is in absolute
    /// form.
    pub(crate) fn of_request<B>(request: &Request<B>) -> Result<Option<Self>, AuthorityError> {
        let mut hosts = request.headers().get_all(HOST).iter();
        let named = match (hosts.next(), hosts.next()) {
            (None, _) if request.version() >= Version::HTTP_11 => return Err(AuthorityError::Missing),
            (None, _) => None,
            (Some(_), Some(_)) => return Err(AuthorityError::Several),
            (Some(host), None) => Some(Self::parse(host.as_bytes()).ok_or(AuthorityError::Malformed)?),
        };
        let uri = request.uri();
        // The target of CONNECT is an authority itself.
        let Some(absolute) = uri.authority().filter(|_| request.method() != Method::CONNECT) else {
            return Ok(named);
        };
        let is_http = uri.scheme_str().is_some_and(|scheme| matches!(scheme, "http" | "https"));
        Self::parse(absolute.as_str().as_bytes())
            .filter(|_| is_http)
            .map(Some)
            .ok_or(AuthorityError::Malformed)
    }

    /// `uri-host [ ":" port ]`; no user information, and no empty host.
    pub(crate) fn parse(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (host, rest) = match text.strip_prefix('[') {
            Some(literal) => {
                let (address, rest) = literal.split_once(']')?;
                (Host::Address(IpAddr::from(address.parse::<Ipv6Addr>().ok()?).to_canonical()), rest)
            }
            None => {
                let (name, rest) = text.split_at(text.find(':').unwrap_or(text.len()));
                (Host::registered(name)?, rest)
            }
        };
        let port = match rest.strip_prefix(':') {
            None if rest.is_empty() => None,
            Some("") => None,
            Some(port) if port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port.parse().ok()?),
            _ => return None,
        };
        Some(Self { host, port })
    }
}

impl Host {
    /// An IPv4 address, or `reg-name` (RFC 3986 section 3.2.2).
    fn registered(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let mut bytes = name.bytes();
        while let Some(byte) = bytes.next() {
            let is_valid = match byte {
                b'%' => bytes.by_ref().take(2).filter(u8::is_ascii_hexdigit).count() == 2,
                byte => byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(&byte),
            };
            if !is_valid {
                return None;
            }
        }
        (1..=NAME_BYTES).contains(&name.len()).then(|| Self::Name(name.to_ascii_lowercase()))
    }

    /// Host name; `None` for an address.
    pub(crate) fn into_name(self) -> Option<String> {
        match self {
            Self::Name(name) => Some(name),
            Self::Address(_) => None,
        }
    }

    /// Whether the host matches `name`; a leading `*.` in `name` stands for exactly one label.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        let Self::Name(own) = self else { return false };
        match name.strip_prefix("*.") {
            Some(suffix) => {
                own.split_once('.').is_some_and(|(label, rest)| !label.is_empty() && rest == suffix)
            }
            None => own == name,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Self::Address(address) => address.fmt(f),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// Host names that requests may be addressed to.
///
/// Defends against DNS rebinding: a page whose owner points its own name at this machine is same-origin with the relay
/// in its visitor's browser, so no rule about origins refuses it, but its requests carry that name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hosts(Option<Vec<String>>);

impl Hosts {
    /// Accepts every name.
    pub fn any() -> Self {
        Self(None)
    }

    /// Accepts IP addresses, `localhost` and `names`; a leading `*.` stands for exactly one label.
    pub fn only(names: &[String]) -> Self {
        let name = |name: &String| name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
        Self(Some(names.iter().map(name).collect()))
    }

    /// Whether a request for `authority` is answered. `None`, a request without a host, comes from no browser.
    pub(crate) fn allow(&self, authority: Option<&Authority>) -> bool {
        let (Some(_), Some(Authority { host, .. })) = (&self.0, authority) else { return true };
        matches!(host, Host::Address(_)) || host.is_named("localhost") || self.lists(host)
    }

    /// Whether `host` is one of the configured names.
    pub(crate) fn lists(&self, host: &Host) -> bool {
        self.0.iter().flatten().any(|name| host.is_named(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Option<(String, Option<u16>)> {
        Authority::parse(text.as_bytes()).map(|it| (it.host.to_string(), it.port))
    }

    fn of(version: Version, target: &str, hosts: &[&str]) -> Result<Option<String>, AuthorityError> {
        let mut request = Request::builder().version(version).uri(target);
        for host in hosts {
            request = request.header(HOST, *host);
        }
        let found = Authority::of_request(&request.body(()).unwrap())?;
        Ok(found.map(|it| it.host.to_string()))
    }

    #[test]
    fn authority_is_host_and_port() {
        for (text, host, port) in [
            ("relay.example.com", "relay.example.com", None),
            ("Relay.Example.COM.:4443", "relay.example.com", Some(4443)),
            ("127.0.0.1:80", "127.0.0.1", Some(80)),
            ("[::1]:80", "[::1]", Some(80)),
            ("[::ffff:10.0.0.1]", "10.0.0.1", None),
            ("under_score", "under_score", None),
            ("a%41", "a%41", None),
            ("x:", "x", None),
        ] {
            assert_eq!(parsed(text), Some((host.to_owned(), port)), "{text}");
        }
        let long = "a".repeat(NAME_BYTES + 1);
        for bad in [
            "",
            ":80",
            ".",
            "a b",
            "a/b",
            "user@host",
            "a:b",
            "a:1:2",
            "a:65536",
            "a:-1",
            "[::1",
            "::1",
            "[::1]x",
            "[x]",
            "a%4",
            "é",
            "a\u{7f}",
            &long,
        ] {
            assert_eq!(parsed(bad), None, "{bad}");
        }
    }

    #[test]
    fn request_needs_exactly_one_valid_host() {
        let one = Version::HTTP_11;
        assert_eq!(of(one, "/", &["a"]), Ok(Some("a".to_owned())));
        assert_eq!(of(one, "/", &[]), Err(AuthorityError::Missing));
        assert_eq!(of(one, "/", &["a", "a"]), Err(AuthorityError::Several));
        assert_eq!(of(one, "/", &[""]), Err(AuthorityError::Malformed));
        assert_eq!(of(one, "/", &["a b"]), Err(AuthorityError::Malformed));
        assert_eq!(of(Version::HTTP_10, "/", &[]), Ok(None));
        assert_eq!(of(Version::HTTP_10, "/", &["a", "b"]), Err(AuthorityError::Several));
    }

    #[test]
    fn absolute_form_wins_over_the_host_header() {
        let one = Version::HTTP_11;
        assert_eq!(of(one, "http://b:80/x", &["a"]), Ok(Some("b".to_owned())));
        assert_eq!(of(one, "http://b/x", &[]), Err(AuthorityError::Missing));
        assert_eq!(of(one, "http://b/x", &["a", "b"]), Err(AuthorityError::Several));
        assert_eq!(of(one, "http://user@b/x", &["b"]), Err(AuthorityError::Malformed));
        assert_eq!(of(one, "ftp://b/x", &["b"]), Err(AuthorityError::Malformed));
        assert_eq!(of(Version::HTTP_10, "http://b/x", &[]), Ok(Some("b".to_owned())));
    }

    #[test]
    fn listed_hosts_are_answered_besides_addresses() {
        let hosts = Hosts::only(&["Relay.test".to_owned(), "*.dev.test".to_owned()]);
        let allows = |text: &str| hosts.allow(Authority::parse(text.as_bytes()).as_ref());
        for good in [
            "127.0.0.1:4443",
            "[::1]",
            "192.0.2.1",
            "LOCALHOST:1",
            "localhost.",
            "relay.test:80",
            "a.dev.test",
        ] {
            assert!(allows(good), "{good}");
        }
        for bad in [
            "evil.example",
            "localhost.evil.example",
            "evil.localhost",
            "127.0.0.1.evil.example",
            "127.1",
            "2130706433",
            "relay.test.evil.example",
            "dev.test",
            "a.b.dev.test",
        ] {
            assert!(!allows(bad), "{bad}");
        }
        assert!(hosts.allow(None));
        assert!(Hosts::any().allow(Authority::parse(b"evil.example").as_ref()));
    }
}
