//! Listeners of a configuration, for reports made before it runs.

use std::{fmt, net::SocketAddr, path::PathBuf};

use crate::Config;

/// A listener other than UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    /// Its name in reports.
    pub name: &'static str,
    /// Configuration key of the listener.
    pub key: &'static str,
    /// Its address.
    pub place: ListenerAddress,
    /// Description of its services.
    pub serves: &'static str,
}

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerAddress {
    /// TCP address.
    Tcp(SocketAddr),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// All listeners of `config` other than UDP.
pub fn all(config: &Config) -> Vec<Listener> {
    let web = &config.web;
    let mut all = Vec::new();
    let mut tcp = |name, key, address: Option<SocketAddr>, serves| {
        all.extend(address.map(|address| Listener {
            name,
            key,
            place: ListenerAddress::Tcp(address),
            serves,
        }));
    };
    let is_one = web.http == web.https;
    let serves = match (is_one, web.websocket) {
        (true, true) => "HTTP and HTTPS, WebSocket (ws:// and wss://)",
        (true, false) => "HTTP and HTTPS",
        (false, true) => "HTTP, WebSocket (ws://)",
        (false, false) => "HTTP",
    };
    tcp("HTTP", "web.http.listen", web.http, serves);
    let serves = if web.websocket { "HTTPS, WebSocket (wss://)" } else { "HTTPS" };
    tcp("HTTPS", "web.https.listen", web.https.filter(|_| !is_one), serves);
    tcp(
        "internal",
        "internal.listen",
        web.internal,
        "for operators: /metrics, /status, /sessions (docs/inspect.md)",
    );
    let serves = if web.tcp_tls { "sessions over TLS" } else { "sessions, without TLS" };
    tcp("TCP", "server.tcp.bind", web.tcp, serves);
    let unix = web.unix.clone().map(ListenerAddress::Unix);
    all.extend(unix.map(|place| Listener {
        name: "Unix",
        key: "server.unix.bind",
        place,
        serves: "sessions",
    }));
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listener_of_a_configuration_is_listed() {
        let mut config = Config::development();
        let names = |config: &Config| all(config).iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(&config), ["HTTP"], "one port for HTTP and HTTPS");
        let at = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        (config.web.https, config.web.internal, config.web.tcp) = (at(1), at(2), at(3));
        config.web.unix = Some("/run/x.sock".into());
        assert_eq!(names(&config), ["HTTP", "HTTPS", "internal", "TCP", "Unix"]);
    }
}
