//! Settings of the TCP and Unix listeners: HTTP, WebSocket, sessions over byte streams (qmux).

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use relay_http::{Allowed, Hosts, OriginPattern, Origins, ProxyHeader, TrustedProxy};

use super::{
    CertFiles, Config,
    resolve::Layers,
    rules::{self, PairKeys},
    value,
};

/// Listeners other than QUIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Address of plain HTTP.
    pub http: Option<SocketAddr>,
    /// Address of HTTPS. It may equal `http`; the first byte of a connection then tells the two apart.
    pub https: Option<SocketAddr>,
    /// Certificates of HTTPS; if empty, those of QUIC.
    pub certificates: Vec<CertFiles>,
    /// Files of client authorities of HTTPS; if empty, clients are not asked for a certificate.
    pub roots: Vec<PathBuf>,
    /// Whether WebSocket sessions are accepted.
    pub websocket: bool,
    /// Whether the public listeners serve the page; the private listener always does.
    pub page: bool,
    /// Public `https://` URL of the relay, with a slash at its end.
    pub url: Option<String>,
    /// Origins of the pages that may open sessions and read answers; if empty, see [`Config::origins`].
    pub origins: Vec<OriginPattern>,
    /// Host names that requests may be addressed to; if empty, see [`Config::hosts`].
    pub hosts: Vec<String>,
    /// Networks of trusted reverse proxies.
    pub proxies: Vec<TrustedProxy>,
    /// Header that names the client, for proxies whose entry has none.
    pub proxy_header: Option<ProxyHeader>,
    /// Address of the private listener for operators.
    pub internal: Option<SocketAddr>,
    /// Address of sessions over TCP.
    pub tcp: Option<SocketAddr>,
    /// Whether `tcp` uses TLS.
    pub tcp_tls: bool,
    /// Path of the Unix socket for sessions.
    pub unix: Option<PathBuf>,
    /// Peer credentials that `unix` accepts.
    pub unix_allow: Allowed,
}

impl Default for Web {
    fn default() -> Self {
        Self {
            http: None,
            https: None,
            certificates: Vec::new(),
            roots: Vec::new(),
            websocket: true,
            page: false,
            url: None,
            origins: Vec::new(),
            hosts: Vec::new(),
            proxies: Vec::new(),
            proxy_header: None,
            internal: None,
            tcp: None,
            tcp_tls: false,
            unix: None,
            unix_allow: Allowed::default(),
        }
    }
}

impl Config {
    /// Whether HTTP is served only because this is a development relay.
    pub fn is_web_implied(&self) -> bool {
        !self.from_file && self.web.http == Some(self.bind) && self.web.https == Some(self.bind)
    }

    /// Origins of the pages that may open sessions and read answers. A development relay is open to all clients, and
    /// any web site could reach it through a visitor's browser, so only local pages and listed origins are allowed.
    pub fn origins(&self) -> Origins {
        let listed = self.web.origins.clone();
        if self.from_file { Origins::listed(listed) } else { Origins::local(&self.web.hosts, listed) }
    }

    /// Host names that public requests may be addressed to.
    pub fn hosts(&self) -> Hosts {
        if self.web.hosts.is_empty() && self.from_file { Hosts::any() } else { self.internal_hosts() }
    }

    /// Host names that requests to the private listener may be addressed to.
    pub fn internal_hosts(&self) -> Hosts {
        Hosts::only(&self.web.hosts)
    }

    /// Trusted proxies, each with its header.
    pub fn proxies(&self) -> Vec<TrustedProxy> {
        let web = &self.web;
        let with_header =
            |proxy: &TrustedProxy| TrustedProxy { header: proxy.header.or(web.proxy_header), ..*proxy };
        web.proxies.iter().map(with_header).collect()
    }
}

/// Replaces `[::]` by `0.0.0.0`. Returns whether it did.
fn without_ipv6(address: &mut SocketAddr) -> bool {
    let is_all = address.is_ipv6() && address.ip().is_unspecified();
    if is_all {
        address.set_ip(Ipv4Addr::UNSPECIFIED.into());
    }
    is_all
}

impl Config {
    /// Adapts the listeners to a machine without IPv6: `[::]` becomes `0.0.0.0`. Other IPv6 addresses stay, and fail
    /// to bind later.
    pub fn for_machine(mut self, has_ipv6: bool) -> Self {
        let web = &mut self.web;
        let others = [&mut web.http, &mut web.https, &mut web.internal, &mut web.tcp];
        let all = others.into_iter().flatten().chain([&mut self.bind]);
        let changed = all.filter(|_| !has_ipv6).map(without_ipv6).filter(|changed| *changed).count();
        if changed > 0 {
            tracing::warn!("this machine has no IPv6: listening on 0.0.0.0 instead of [::]");
        }
        self
    }
}

impl Layers<'_> {
    /// Resolves the settings of the TCP and Unix listeners.
    pub(super) fn web(&mut self, config: &mut Config) {
        let some_address = |value: &_| value::address(value).map(Some);
        let web = &mut config.web;
        web.page = !config.from_file;
        self.set("web.http.listen", some_address, &mut web.http);
        self.set("web.https.listen", some_address, &mut web.https);
        let certs = self.get("web.https.cert", value::files);
        let keys = self.get("web.https.key", value::files);
        let names = PairKeys { cert: "web.https.cert", key: "web.https.key" };
        rules::pairs(self, certs.as_ref(), keys.as_ref(), names);
        if let (Some(certs), Some(keys)) = (certs, keys) {
            let pairs = certs.value.into_iter().zip(keys.value).map(|(cert, key)| CertFiles { cert, key });
            web.certificates = pairs.collect();
        }
        self.set("web.https.root", value::files, &mut web.roots);
        self.set("web.ws", value::switch, &mut web.websocket);
        self.set("web.page", value::switch, &mut web.page);
        self.set("web.url", |value| value::public_url(value).map(Some), &mut web.url);
        self.set("web.origins", value::origins, &mut web.origins);
        self.set("web.hosts", value::names, &mut web.hosts);
        self.set("web.proxy", value::proxies, &mut web.proxies);
        self.set("web.proxy_header", |value| value::proxy_header(value).map(Some), &mut web.proxy_header);
        self.set("internal.listen", some_address, &mut web.internal);
        self.set("server.tcp.bind", some_address, &mut web.tcp);
        self.set("listen.tcp.tls", value::switch, &mut web.tcp_tls);
        self.set("server.unix.bind", |value| value::file(value).map(Some), &mut web.unix);
        let Allowed { uids, gids, pids } = &mut web.unix_allow;
        self.set("server.unix.allow.uid", value::ids, uids);
        self.set("server.unix.allow.gid", value::ids, gids);
        self.set("server.unix.allow.pid", value::ids, pids);
        if !config.from_file && web.http.is_none() && web.https.is_none() {
            (web.http, web.https) = (Some(config.bind), Some(config.bind));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_ipv6_wildcards_become_ipv4() {
        let mut config = Config::development();
        (config.bind, config.web.http) = ("[::]:4443".parse().unwrap(), "[::]:80".parse().ok());
        config.web.internal = "[::1]:9".parse().ok();
        assert_eq!(config.clone().for_machine(true), config);
        let changed = config.for_machine(false);
        let shown = [Some(changed.bind), changed.web.http, changed.web.internal, changed.web.https];
        let expected = ["0.0.0.0:4443", "0.0.0.0:80", "[::1]:9", "127.0.0.1:4443"];
        assert_eq!(shown, expected.map(|address| address.parse().ok()));
    }
}
