//! Start-up text of a development relay: addresses, certificate hash and a browser snippet.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use relay_certificate::Fingerprint;

/// The text for standard output.
pub struct Banner {
    /// Address of the QUIC listener.
    pub address: SocketAddr,
    /// Address of the HTTP listener, if any.
    pub http: Option<SocketAddr>,
    /// SHA-256 of the certificate in use.
    pub fingerprint: Fingerprint,
}

/// Address at which this machine reaches a relay that listens at `address`: a wildcard becomes loopback.
pub(crate) fn reachable(address: SocketAddr) -> SocketAddr {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, address.port())
}

impl fmt::Display for Banner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = reachable(self.address);
        let fingerprint = self.fingerprint;
        let is_exposed = !self.address.ip().is_loopback();
        let who = if is_exposed { "everybody who can reach it" } else { "everybody on this machine" };
        writeln!(f, "moq-relay {}: a development relay, open to {who}", env!("CARGO_PKG_VERSION"))?;
        if is_exposed {
            writeln!(f)?;
            writeln!(
                f,
                "  Anybody who reaches {} over the network, without a credential, can:",
                self.address
            )?;
            writeln!(f, "  - list, watch and publish every broadcast")?;
            if self.http.is_some() {
                writeln!(f, "  - read /status: the addresses of all clients, and what they watch")?;
            }
            writeln!(
                f,
                "  A configuration file restricts it; --bind 127.0.0.1:{} keeps it on this machine.",
                at.port()
            )?;
        }
        writeln!(f)?;
        writeln!(f, "  WebTransport   https://{at}/")?;
        if let Some(http) = self.http {
            writeln!(f, "  HTTP, ws://    http://{}/", reachable(http))?;
        }
        writeln!(f, "  raw QUIC       moqt://{at}/")?;
        writeln!(f, "  certificate    {fingerprint} (SHA-256)")?;
        writeln!(f)?;
        match self.http {
            // Pages of other sites and blank pages are rejected.
            Some(http) => writeln!(f, "In a browser's console, on a page of http://{}/:", reachable(http))?,
            None => writeln!(f, "In a browser's console, on a page of this machine:")?,
        }
        writeln!(f)?;
        writeln!(f, "  new WebTransport(\"https://{at}/\", {{ serverCertificateHashes: [{{")?;
        writeln!(f, "    algorithm: \"sha-256\", value: Uint8Array.from(")?;
        writeln!(f, "      \"{fingerprint}\"")?;
        writeln!(f, "        .match(/../g), byte => parseInt(byte, 16)) }}] }})")
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use relay_certificate::Identity;

    fn banner(address: &str) -> String {
        let fingerprint =
            Identity::generate(&["localhost".to_owned()], SystemTime::now()).unwrap().fingerprint();
        let address = address.parse().unwrap();
        Banner { address, http: Some(address), fingerprint }.to_string()
    }

    #[test]
    fn loopback_banner_shows_addresses_and_fingerprint() {
        let text = banner("127.0.0.1:4443");
        assert!(text.contains("open to everybody on this machine"), "{text}");
        assert!(text.contains(" http://127.0.0.1:4443/"), "{text}");
        assert!(text.contains("https://127.0.0.1:4443/") && text.contains("moqt://127.0.0.1:4443/"));
        assert!(text.lines().any(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            words.first() == Some(&"certificate") && words.get(1).is_some_and(|hex| hex.len() == 64)
        }));
    }

    #[test]
    fn wildcard_address_is_shown_as_loopback() {
        let text = banner("[::]:9000");
        assert!(text.contains("https://[::1]:9000/"), "{text}");
        assert!(text.contains("open to everybody who can reach it"), "{text}");
    }

    #[test]
    fn exposed_relay_names_what_it_exposes() {
        for address in ["0.0.0.0:9000", "192.0.2.1:9000", "[::]:9000"] {
            let text = banner(address);
            assert!(text.contains(&format!("Anybody who reaches {address} over the network")), "{text}");
            assert!(text.contains("publish every broadcast") && text.contains("/status"), "{text}");
        }
        for address in ["127.0.0.1:9000", "[::1]:9000"] {
            assert!(!banner(address).contains("over the network"), "{address}");
        }
    }
}
