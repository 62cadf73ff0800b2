//! Facts about a connection and its request, for the gate, logs and auth servers.

use std::{fmt, net::SocketAddr, time::Duration};

use relay_model::Role;
use relay_transport::quic::PeerCertificate;

/// Facts about a connection. Its `Debug` shows only what cannot hold secrets: the target may hold a token.
#[derive(Clone)]
pub struct ConnInfo {
    /// Transport: `webtransport`, `quic`, `websocket`, `tcp`, `unix` or `http`.
    pub transport: &'static str,
    /// Protocol version, as ALPN or the subprotocol names it; `None` if it is negotiated later.
    pub version: Option<&'static str>,
    /// Address of the peer, as reported by a trusted proxy if there is one; unspecified for a Unix socket.
    pub remote: SocketAddr,
    /// Local address of the connection.
    pub local: SocketAddr,
    /// Requested host (SNI).
    pub server_name: Option<String>,
    /// Client certificate, if one was requested and its chain is valid.
    pub certificate: Option<PeerCertificate>,
    /// Origin of the web page, if a browser sent one. `None` over HTTP, where the HTTP server has checked it.
    pub origin: Option<String>,
    /// Only role the peer declared; `None` for both, or not declared yet (WebTransport).
    pub role: Option<Role>,
    /// Raw path and query as sent by the peer; `None` if the protocol carries none, or SETUP carries it later.
    /// May hold a token.
    pub target: Option<String>,
    /// Round trip time measured by the kernel during the handshake.
    pub rtt: Option<Duration>,
}

impl ConnInfo {
    /// Creates the facts about a connection of which only the addresses are known.
    pub fn new(transport: &'static str, remote: SocketAddr, local: SocketAddr) -> Self {
        Self {
            transport,
            version: None,
            remote,
            local,
            server_name: None,
            certificate: None,
            origin: None,
            role: None,
            target: None,
            rtt: None,
        }
    }

    /// Raw path and query; empty if there is none.
    pub fn target(&self) -> &str {
        self.target.as_deref().unwrap_or_default()
    }
}

impl fmt::Debug for ConnInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConnInfo")
            .field("transport", &self.transport)
            .field("version", &self.version)
            .field("remote", &self.remote)
            .field("local", &self.local)
            .field("role", &self.role)
            .field("rtt", &self.rtt)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn debug_omits_the_target_and_its_token() {
        let at = SocketAddr::new(Ipv4Addr::LOCALHOST.into(), 443);
        let mut info = ConnInfo::new("websocket", at, at);
        info.target = Some("/room?jwt=secret".to_owned());
        info.origin = Some("https://secret.example".to_owned());
        assert_eq!(info.target(), "/room?jwt=secret");
        for text in [format!("{info:?}"), format!("{info:#?}")] {
            assert!(
                text.contains("websocket") && !text.contains("secret") && !text.contains("room"),
                "{text}"
            );
        }
    }
}
