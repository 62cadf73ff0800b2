//! URL of a relay, with its path and query kept as written.

use std::net::SocketAddr;

use crate::{error::Error, race};

/// Session protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scheme {
    /// `https`: WebTransport over HTTP/3.
    WebTransport,
    /// `moqt`: MoQ on raw QUIC.
    Raw,
    /// `ws` and `wss`: a WebSocket, over TCP or TLS.
    WebSocket {
        /// Whether it is inside TLS.
        tls: bool,
    },
    /// `tcp`: a TCP connection.
    Tcp,
    /// `unix`: a Unix socket, whose file is the host.
    Unix,
}

impl Scheme {
    /// Whether the connection request carries the path; else SETUP does.
    pub(crate) fn has_url(self) -> bool {
        matches!(self, Self::WebTransport | Self::WebSocket { .. })
    }
}

/// A parsed URL.
#[derive(Clone, Debug)]
pub(crate) struct DialTarget {
    pub(crate) scheme: Scheme,
    pub(crate) host: String,
    pub(crate) port: u16,
    /// Path and query exactly as given, with the leading slash; URL libraries fold dot segments.
    pub(crate) path: String,
    pub(crate) url: String,
}

const DEFAULT_PORT: u16 = 443;
const PLAIN_PORT: u16 = 80;

impl DialTarget {
    pub(crate) fn parse(url: &str) -> Result<Self, Error> {
        let bad = || Error::Url(url.to_owned());
        let (scheme, rest) = url.split_once("://").ok_or_else(bad)?;
        let scheme = match scheme {
            "https" => Scheme::WebTransport,
            "moqt" | "moql" => Scheme::Raw,
            "ws" => Scheme::WebSocket { tls: false },
            "wss" => Scheme::WebSocket { tls: true },
            "tcp" => Scheme::Tcp,
            "unix" => return Self::unix(url, rest).ok_or_else(bad),
            _ => return Err(bad()),
        };
        let split = rest.find(['/', '?']).unwrap_or(rest.len());
        let (authority, path) = rest.split_at(split);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let default = if scheme == (Scheme::WebSocket { tls: false }) { PLAIN_PORT } else { DEFAULT_PORT };
        let (host, port) = split_authority(authority, default).ok_or_else(bad)?;
        Ok(Self { scheme, host, port, path, url: url.to_owned() })
    }

    /// URL of a WebSocket request, without the fragment, which is not sent to servers.
    pub(crate) fn upgrade_url(&self) -> String {
        let scheme = if self.scheme == (Scheme::WebSocket { tls: true }) { "wss" } else { "ws" };
        let host = if self.host.contains(':') { format!("[{}]", self.host) } else { self.host.clone() };
        let path = self.path.split('#').next().unwrap_or_default();
        format!("{scheme}://{host}:{}{path}", self.port)
    }

    /// Parses `unix:///run/relay.sock`, optionally followed by a colon and the path of the session.
    fn unix(url: &str, rest: &str) -> Option<Self> {
        let split = rest.find([':', '?']).unwrap_or(rest.len());
        let (file, path) = rest.split_at(split);
        let path = path.strip_prefix(':').unwrap_or(path);
        let path = if path.starts_with('/') { path.to_owned() } else { format!("/{path}") };
        let host = file.starts_with('/').then(|| file.to_owned())?;
        Some(Self { scheme: Scheme::Unix, host, port: 0, path, url: url.to_owned() })
    }

    /// Resolves the host to addresses in the order of the attempts; at least one.
    pub(crate) async fn resolve(&self) -> Result<Vec<SocketAddr>, Error> {
        let failed = |why: String| Error::Resolve { host: self.host.clone(), why };
        let found = addresses(&self.host, self.port).await.map_err(|error| failed(error.to_string()))?;
        if found.is_empty() { Err(failed("it has no address".into())) } else { Ok(found) }
    }
}

/// Resolves `host` to addresses in the order in which a client tries them (RFC 8305).
///
/// # Errors
/// The name cannot be resolved.
pub async fn addresses(host: &str, port: u16) -> std::io::Result<Vec<SocketAddr>> {
    Ok(race::order(tokio::net::lookup_host((host, port)).await?))
}

/// Parses `host`, `host:port`, `[v6]` and `[v6]:port`.
fn split_authority(authority: &str, default: u16) -> Option<(String, u16)> {
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
        None => default,
    };
    Some((host.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_is_kept_as_written() {
        let target = DialTarget::parse("moqt://127.0.0.1:4443/a/../b%2e?jwt=x.y.z").unwrap();
        assert_eq!(target.scheme, Scheme::Raw);
        assert_eq!((target.host.as_str(), target.port), ("127.0.0.1", 4443));
        assert_eq!(target.path, "/a/../b%2e?jwt=x.y.z");
        assert_eq!(DialTarget::parse("https://relay").unwrap().path, "/");
        assert_eq!(DialTarget::parse("https://relay?jwt=1").unwrap().path, "/?jwt=1");
    }

    #[test]
    fn sockets_have_addresses_of_their_own() {
        let parse = |url: &str| DialTarget::parse(url).unwrap();
        let plain = parse("ws://relay/a/../b?jwt=1");
        assert_eq!((plain.port, plain.path.as_str(), plain.scheme.has_url()), (80, "/a/../b?jwt=1", true));
        assert_eq!(parse("wss://relay").port, 443);
        let tcp = parse("tcp://[::1]:9/live");
        assert_eq!((tcp.host.as_str(), tcp.port, tcp.path.as_str()), ("::1", 9, "/live"));
        for (url, path) in [("", "/"), (":/live?jwt=1", "/live?jwt=1"), ("?jwt=1", "/?jwt=1")] {
            let url = format!("unix:///run/relay.sock{url}");
            let unix = parse(&url);
            assert_eq!((unix.host.as_str(), unix.path.as_str()), ("/run/relay.sock", path));
            assert!(!unix.scheme.has_url());
        }
        assert!(DialTarget::parse("unix://relay.sock").is_err());
    }

    #[test]
    fn v6_addresses_are_bracketed() {
        let target = DialTarget::parse("https://[::1]:9/x").unwrap();
        assert_eq!((target.host.as_str(), target.port), ("::1", 9));
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        for bad in ["", "relay:4443", "http://relay", "https://", "https://relay:port", "moqt://[::1"] {
            assert!(DialTarget::parse(bad).is_err(), "{bad}");
        }
    }
}
