//! The address of a relay, with its path and query kept as written.

use std::net::SocketAddr;

use crate::error::Error;

/// Which session protocol carries moq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `https`: WebTransport over HTTP/3.
    WebTransport,
    /// `moqt`: moq straight on QUIC.
    Raw,
}

/// A parsed address.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) scheme: Scheme,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query exactly as given, with the leading slash; URL libraries fold dot segments.
    pub(crate) path: String,
    pub(crate) url: String,
}

const DEFAULT_PORT: u16 = 443;

impl Target {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let bad = || Error::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let scheme = match scheme {
            "https" => Scheme::WebTransport,
            "moqt" | "moql" => Scheme::Raw,
            _ => return Err(bad()),
        };
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let (host, port) = split_authority(authority).ok_or_else(bad)?;
        Ok(Self { scheme, host, port, path, url: url.to_owned() })
    }

    /// The first address the name resolves to.
    pub(crate) async fn resolve(&self) -> Result<SocketAddr, Error> {
        let failed = |why: String| Error::Resolve { host: self.host.clone(), why };
        let found = tokio::net::lookup_host((self.host.as_str(), self.port)).await;
        found.map_err(|e| failed(e.to_string()))?.next().ok_or_else(|| failed("it has no address".into()))
    }
}

/// `host`, `host:port`, `[v6]` and `[v6]:port`.
fn split_authority(authority: &str) -> Option<(String, u16)> {
    let (host, port) = match authority.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            (host, port.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return None;
    }
    let port = match port {
        Some(port) => port.parse().ok()?,
        None => DEFAULT_PORT,
    };
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_kept_as_written() {
        let target = Target::parse("moqt://127.0.0.1:4443/a/../b%2e?jwt=x.y.z").unwrap();
        assert_eq!(target.scheme, Scheme::Raw);
        assert_eq!((target.host.as_str(), target.port), ("127.0.0.1", 4443));
        assert_eq!(target.path, "/a/../b%2e?jwt=x.y.z");
        assert_eq!(Target::parse("https://relay").unwrap().path, "/");
        assert_eq!(Target::parse("https://relay?jwt=1").unwrap().path, "/?jwt=1");
    }

    #[test]
    fn v6_addresses_are_bracketed() {
        let target = Target::parse("https://[::1]:9/x").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 9));
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for bad in ["", "relay:4443", "http://relay", "https://", "https://relay:port", "moqt://[::1"] {
            assert!(Target::parse(bad).is_err(), "{bad}");
        }
    }
}
