//! Origins of web pages (RFC 6454): which of them may open sessions and read answers.

use std::{fmt, net::IpAddr, str::FromStr};

use hyper::{
    HeaderMap,
    header::{
        ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, HeaderName, HeaderValue, ORIGIN, VARY,
    },
};

use crate::authority::{Authority, Host, Hosts};

/// Relation of a request to the page that made it (Fetch Metadata).
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const SEC_FETCH_MODE: HeaderName = HeaderName::from_static("sec-fetch-mode");

/// Scheme, host and port of a page; a host that begins with `*.` stands for exactly one label in front.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OriginPattern {
    is_https: bool,
    host: Host,
    port: u16,
}

/// Text that is not an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not an origin")]
pub struct NoOrigin;

/// Pages that may open sessions and read answers. Clients other than browsers send no origin and are not
/// checked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Origins(Rule);

#[derive(Clone, Debug, Default, PartialEq, Eq)]
enum Rule {
    #[default]
    Any,
    Listed(Vec<OriginPattern>),
    /// Loopback, the local address of the connection, these host names, and these origins.
    Local {
        hosts: Hosts,
        listed: Vec<OriginPattern>,
    },
}

/// Access of the requesting page to an answer, by the configured rules.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PageAccess {
    /// Every page may read the answer.
    Open,
    /// The request comes from no page of another origin.
    NoPage,
    /// This origin may read the answer.
    Allowed(HeaderValue),
    /// The page may not read the answer.
    Refused,
}

impl OriginPattern {
    /// Parses `scheme "://" host [ ":" port ]`, case-insensitively and with an optional slash at the end.
    fn parse(text: &str) -> Option<Self> {
        let (scheme, rest) = text.split_once("://")?;
        let is_https = scheme.eq_ignore_ascii_case("https");
        if !is_https && !scheme.eq_ignore_ascii_case("http") {
            return None;
        }
        let Authority { host, port } = Authority::parse(rest.strip_suffix('/').unwrap_or(rest).as_bytes())?;
        Some(Self { is_https, host, port: port.unwrap_or(usual_port(is_https)) })
    }

    fn matches(&self, origin: &Self) -> bool {
        let is_host = match &self.host {
            Host::Name(name) => origin.host.is_named(name),
            address @ Host::Address(_) => origin.host == *address,
        };
        is_host && self.is_https == origin.is_https && self.port == origin.port
    }
}

fn usual_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

impl FromStr for OriginPattern {
    type Err = NoOrigin;

    /// Parses a pattern of the configuration: labels of letters, digits, `-` and `_`, the first of which may be `*` if
    /// others follow.
    fn from_str(text: &str) -> Result<Self, NoOrigin> {
        let pattern = Self::parse(text).ok_or(NoOrigin)?;
        let of_label = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        let is_label = |label: &str| !label.is_empty() && label.bytes().all(of_label);
        let is_valid = match &pattern.host {
            Host::Name(name) => name.strip_prefix("*.").unwrap_or(name).split('.').all(is_label),
            Host::Address(_) => true,
        };
        if is_valid { Ok(pattern) } else { Err(NoOrigin) }
    }
}

impl fmt::Display for OriginPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { is_https, host, port } = self;
        write!(f, "{}://{host}", if *is_https { "https" } else { "http" })?;
        if *port == usual_port(*is_https) { Ok(()) } else { write!(f, ":{port}") }
    }
}

impl Origins {
    /// Allows pages of these origins, or of all origins if there are none.
    pub fn listed(patterns: Vec<OriginPattern>) -> Self {
        Self(if patterns.is_empty() { Rule::Any } else { Rule::Listed(patterns) })
    }

    /// Allows pages of loopback, of the address a request comes to, of `hosts`, and of the origins in `listed`: for a
    /// relay in development, which pages of any other site reach through their visitor's browser.
    pub fn local(hosts: &[String], listed: Vec<OriginPattern>) -> Self {
        Self(Rule::Local { hosts: Hosts::only(hosts), listed })
    }

    /// Whether a page of `origin`, the value of the header, may open a session at our address `local`. `None`: no page
    /// sent the request.
    pub fn allow(&self, origin: Option<&[u8]>, local: IpAddr) -> bool {
        let Some(origin) = origin.filter(|_| self.0 != Rule::Any) else { return true };
        let origin = std::str::from_utf8(origin).ok().and_then(OriginPattern::parse);
        let Some(origin) = origin else { return false };
        let is_listed = |patterns: &[OriginPattern]| patterns.iter().any(|pattern| pattern.matches(&origin));
        match &self.0 {
            Rule::Any => true,
            Rule::Listed(patterns) => is_listed(patterns),
            Rule::Local { listed, .. } if is_listed(listed) => true,
            Rule::Local { hosts, .. } => match origin.host {
                // A page of 0.0.0.0 is served by this machine as well.
                Host::Address(address) if address.is_loopback() || address.is_unspecified() => true,
                Host::Address(address) => address == local.to_canonical(),
                ref name => name.is_named("localhost") || hosts.lists(name),
            },
        }
    }

    /// The same for an HTTP request.
    pub(crate) fn access(&self, headers: &HeaderMap, local: IpAddr) -> PageAccess {
        if self.0 == Rule::Any {
            return PageAccess::Open;
        }
        let mut origins = headers.get_all(ORIGIN).iter();
        match (origins.next(), origins.next()) {
            (Some(origin), None) if self.allow(Some(origin.as_bytes()), local) => {
                PageAccess::Allowed(origin.clone())
            }
            (Some(_), _) => PageAccess::Refused,
            (None, _) if self.is_embedded(headers) => PageAccess::Refused,
            (None, _) => PageAccess::NoPage,
        }
    }

    /// Whether a page of another site embeds the answer, as an image does: the browser then sends no origin.
    fn is_embedded(&self, headers: &HeaderMap) -> bool {
        let is = |name: &HeaderName, value: &str| headers.get(name).is_some_and(|it| it == value);
        matches!(self.0, Rule::Local { .. })
            && is(&SEC_FETCH_SITE, "cross-site")
            && !is(&SEC_FETCH_MODE, "navigate")
    }
}

impl PageAccess {
    /// Sets the CORS headers.
    pub(crate) fn put(self, headers: &mut HeaderMap) {
        let origin = match self {
            Self::Open => HeaderValue::from_static("*"),
            Self::NoPage | Self::Refused => {
                headers.append(VARY, HeaderValue::from_static("origin"));
                return;
            }
            Self::Allowed(origin) => {
                headers.append(VARY, HeaderValue::from_static("origin"));
                origin
            }
        };
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: &str = "192.0.2.1";

    fn listed(patterns: &[&str]) -> Origins {
        Origins::listed(patterns.iter().map(|text| text.parse().unwrap()).collect())
    }

    fn allows(origins: &Origins, origin: &str) -> bool {
        origins.allow(Some(origin.as_bytes()), LOCAL.parse().unwrap())
    }

    fn access(origins: &Origins, pairs: &[(&'static str, &'static str)]) -> PageAccess {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        origins.access(&headers, LOCAL.parse().unwrap())
    }

    #[test]
    fn origin_pattern_is_normalised() {
        for (text, shown) in [
            ("https://app.example.com", "https://app.example.com"),
            ("HTTPS://App.Example.com/", "https://app.example.com"),
            ("https://app.example.com:443", "https://app.example.com"),
            ("http://app.example.com:80/", "http://app.example.com"),
            ("http://app.example.com:443", "http://app.example.com:443"),
            ("http://localhost:5173", "http://localhost:5173"),
            ("http://[0:0::1]:5173", "http://[::1]:5173"),
            ("https://*.example.com", "https://*.example.com"),
        ] {
            assert_eq!(text.parse::<OriginPattern>().unwrap().to_string(), shown, "{text}");
        }
        for bad in [
            "",
            "*",
            "null",
            "app.example.com",
            "*.example.com",
            "https://",
            "https://*",
            "https://*.",
            "https://a.*.com",
            "https://*a.example.com",
            "https://*.*.com",
            "https://x/y",
            "https://x//",
            "https://u@x",
            "file:///x",
            "https://x?y",
            "https://x:y",
            "ws://x",
            "https://bücher.example",
            " https://x",
        ] {
            assert_eq!(bad.parse::<OriginPattern>(), Err(NoOrigin), "{bad}");
        }
    }

    #[test]
    fn listed_origins_exclude_other_pages() {
        let origins =
            listed(&["https://app.example.com", "https://*.dev.example.com", "http://10.0.0.1:8080"]);
        for good in [
            "https://app.example.com",
            "https://APP.example.com",
            "https://app.example.com:443",
            "https://a.dev.example.com",
            "http://10.0.0.1:8080",
        ] {
            assert!(allows(&origins, good), "{good}");
        }
        for bad in [
            "http://app.example.com",
            "https://app.example.com:8443",
            "https://app.example.com.evil.test",
            "https://evil.test/https://app.example.com",
            "https://dev.example.com",
            "https://a.b.dev.example.com",
            "https://.dev.example.com",
            "https://evildev.example.com",
            "http://10.0.0.1",
            "http://127.0.0.1",
            "null",
            "",
            "\u{e9}",
        ] {
            assert!(!allows(&origins, bad), "{bad}");
        }
        assert!(origins.allow(None, LOCAL.parse().unwrap()));
        assert!(allows(&Origins::default(), "https://anybody.example"));
        assert!(allows(&listed(&[]), "null"));
    }

    #[test]
    fn local_origins_are_loopback_and_own_address() {
        let app = "https://app.example.com";
        let origins = Origins::local(&["relay.test".to_owned()], vec![app.parse().unwrap()]);
        for good in [
            "http://localhost:5173",
            "https://127.0.0.1:4443",
            "http://127.9.9.9",
            "http://[::1]:80",
            "http://0.0.0.0:8000",
            "http://192.0.2.1:4443",
            "http://relay.test:4443",
            app,
        ] {
            assert!(allows(&origins, good), "{good}");
        }
        for bad in [
            "https://evil.example",
            "http://app.example.com",
            "http://192.0.2.2:4443",
            "http://localhost.evil.example",
            "http://127.0.0.1.evil.example",
            "http://evil.localhost",
            "http://relay.test.evil.example",
            "null",
            "",
            "file://",
        ] {
            assert!(!allows(&origins, bad), "{bad}");
        }
    }

    #[test]
    fn cors_names_the_origin_that_may_read() {
        let origin = ("origin", "https://app.example.com");
        assert_eq!(access(&Origins::default(), &[origin]), PageAccess::Open);
        let origins = listed(&[origin.1]);
        assert_eq!(access(&origins, &[origin]), PageAccess::Allowed(HeaderValue::from_static(origin.1)));
        assert_eq!(access(&origins, &[origin, origin]), PageAccess::Refused);
        assert_eq!(access(&origins, &[("origin", "https://evil.test")]), PageAccess::Refused);
        assert_eq!(access(&origins, &[("origin", "")]), PageAccess::Refused);
        assert_eq!(access(&origins, &[]), PageAccess::NoPage);
        for (verdict, allowed, varies) in [
            (PageAccess::Open, Some("*"), None),
            (PageAccess::NoPage, None, Some("origin")),
            (PageAccess::Refused, None, Some("origin")),
            (PageAccess::Allowed(HeaderValue::from_static(origin.1)), Some(origin.1), Some("origin")),
        ] {
            let mut headers = HeaderMap::new();
            verdict.put(&mut headers);
            let value = |name: HeaderName| headers.get(name).map(|value| value.to_str().unwrap());
            assert_eq!((value(ACCESS_CONTROL_ALLOW_ORIGIN), value(VARY)), (allowed, varies));
        }
    }

    #[test]
    fn local_origins_exclude_what_other_sites_embed() {
        let origins = Origins::local(&[], Vec::new());
        let cross = ("sec-fetch-site", "cross-site");
        assert_eq!(access(&origins, &[cross, ("sec-fetch-mode", "no-cors")]), PageAccess::Refused);
        assert_eq!(access(&origins, &[cross, ("sec-fetch-mode", "navigate")]), PageAccess::NoPage);
        assert_eq!(access(&origins, &[("sec-fetch-site", "same-origin")]), PageAccess::NoPage);
        assert_eq!(access(&listed(&["https://x"]), &[cross]), PageAccess::NoPage);
    }
}
