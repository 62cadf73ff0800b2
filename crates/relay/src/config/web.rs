//! What is served over TCP and Unix sockets: HTTP, WebSocket, sessions over byte streams.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};

use relay_admin::{Allowed, Hosts, OriginPattern, Origins, ProxyHeader, TrustedProxy};

use super::{Config, Pair, resolve::Layers, rules, value};

/// Entrances beside QUIC.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Web {
    /// Where plain HTTP is served.
    pub http: Option<SocketAddr>,
    /// Where HTTPS is; at the address of `http`: both, told apart by their first byte.
    pub https: Option<SocketAddr>,
    /// What HTTPS shows; none: the certificates of QUIC.
    pub certificates: Vec<Pair>,
    /// Files of the authorities that vouch for clients of HTTPS; none: they are not asked.
    pub roots: Vec<PathBuf>,
    /// Whether WebSockets are taken.
    pub websocket: bool,
    /// Whether the public listeners serve the page; the private listener always does.
    pub page: bool,
    /// Public `https://` URL of the relay, with a slash at its end.
    pub url: Option<String>,
    /// Origins of the pages that may open sessions and read answers; none: see [`Config::origins`].
    pub origins: Vec<OriginPattern>,
    /// Host names that requests may be addressed to; none: see [`Config::hosts`].
    pub hosts: Vec<String>,
    /// Networks of trusted reverse proxies.
    pub proxies: Vec<TrustedProxy>,
    /// Where those name their clients whose entry does not say so.
    pub proxy_header: Option<ProxyHeader>,
    /// Where operators find what is theirs.
    pub internal: Option<SocketAddr>,
    /// Where sessions over TCP come.
    pub tcp: Option<SocketAddr>,
    /// Whether they come over TLS.
    pub tcp_tls: bool,
    /// Where sessions over a Unix socket come.
    pub unix: Option<PathBuf>,
    /// Whose.
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
    /// Whether HTTP is served because this is a development relay, and for no other reason.
    pub fn is_web_implied(&self) -> bool {
        !self.from_file && self.web.http == Some(self.bind) && self.web.https == Some(self.bind)
    }

    /// Pages that may open sessions and read answers. A relay in development is open to everybody who reaches it, and
    /// any site reaches it through the browser of whoever visits it: so only pages of this machine may, and those that
    /// are listed.
    pub fn origins(&self) -> Origins {
        let listed = self.web.origins.clone();
        if self.from_file { Origins::listed(listed) } else { Origins::local(&self.web.hosts, listed) }
    }

    /// Host names that public requests may be addressed to.
    pub fn hosts(&self) -> Hosts {
        if self.web.hosts.is_empty() && self.from_file { Hosts::any() } else { self.internal_hosts() }
    }

    /// The same for the private listener.
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

/// IPv4 of all interfaces, at the port of an address that stands for all of both versions.
fn without_ipv6(address: &mut SocketAddr) -> bool {
    let is_all = address.is_ipv6() && address.ip().is_unspecified();
    if is_all {
        address.set_ip(Ipv4Addr::UNSPECIFIED.into());
    }
    is_all
}

impl Config {
    /// The same on a machine without IPv6: what listens on all addresses listens on those of IPv4. An address of
    /// IPv6 stays, and is refused later.
    pub(crate) fn for_machine(mut self, has_ipv6: bool) -> Self {
        let web = &mut self.web;
        let others = [&mut web.http, &mut web.https, &mut web.internal, &mut web.tcp];
        let all = others.into_iter().flatten().chain([&mut self.bind]);
        let changed = all.filter(|_| !has_ipv6).map(without_ipv6).filter(|changed| *changed).count();
        if changed > 0 {
            tracing::warn!("this machine has no IPv6: what is to listen on [::] listens on 0.0.0.0");
        }
        self
    }
}

impl Layers<'_> {
    /// Takes in what is said of it.
    pub(super) fn web(&mut self, config: &mut Config) {
        let some_address = |value: &_| value::address(value).map(Some);
        let web = &mut config.web;
        web.page = !config.from_file;
        self.set("web.http.listen", some_address, &mut web.http);
        self.set("web.https.listen", some_address, &mut web.https);
        let certs = self.get("web.https.cert", value::files);
        let keys = self.get("web.https.key", value::files);
        rules::pairs(self, certs.as_ref(), keys.as_ref(), ("web.https.cert", "web.https.key"));
        if let (Some(certs), Some(keys)) = (certs, keys) {
            let pairs = certs.value.into_iter().zip(keys.value).map(|(cert, key)| Pair { cert, key });
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
    fn without_ipv6_all_addresses_are_those_of_ipv4() {
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
