//! What a development relay says when it is ready: everything one needs to reach it.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use crate::certificate::Fingerprint;

/// The text for standard output.
pub struct Banner {
    /// Where the relay listens.
    pub address: SocketAddr,
    /// Where it serves HTTP, if it does.
    pub http: Option<SocketAddr>,
    /// Of the certificate it shows.
    pub fingerprint: Fingerprint,
}

/// What this machine reaches a relay by that listens at `address`.
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
        let who = if at == self.address && at.ip().is_loopback() {
            "everybody on this machine"
        } else {
            "everybody who can reach it"
        };
        writeln!(f, "moq-relay {}: a development relay, open to {who}", env!("CARGO_PKG_VERSION"))?;
        writeln!(f)?;
        writeln!(f, "  WebTransport   https://{at}/")?;
        if let Some(http) = self.http {
            writeln!(f, "  HTTP, ws://    http://{}/", reachable(http))?;
        }
        writeln!(f, "  raw QUIC       moqt://{at}/")?;
        writeln!(f, "  certificate    {fingerprint} (SHA-256)")?;
        writeln!(f)?;
        writeln!(f, "In a browser's console:")?;
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
    use crate::certificate::Identity;

    fn banner(address: &str) -> String {
        let fingerprint =
            Identity::generate(&["localhost".to_owned()], SystemTime::now()).unwrap().fingerprint();
        let address = address.parse().unwrap();
        Banner { address, http: Some(address), fingerprint }.to_string()
    }

    #[test]
    fn a_loopback_relay_tells_where_it_is_and_how_to_trust_it() {
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
    fn a_wildcard_address_is_shown_as_one_that_can_be_dialled() {
        let text = banner("[::]:9000");
        assert!(text.contains("https://[::1]:9000/"), "{text}");
        assert!(text.contains("open to everybody who can reach it"), "{text}");
    }
}
