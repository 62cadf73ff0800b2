//! Checks of values against each other.

use std::{net::IpAddr, path::PathBuf};

use relay_http::Network;
use url::{Host, Url};

use super::{
    Auth, Config, Problem, Size, Source,
    resolve::{Layers, Sourced},
};

/// Smallest `limits.memory`, bytes: a hundred sessions.
const LEAST_STATE: u64 = 4 << 20;

/// Configuration keys of certificates and of their private keys.
#[derive(Clone, Copy)]
pub(super) struct PairKeys {
    pub(super) cert: &'static str,
    pub(super) key: &'static str,
}

/// Checks that each certificate has a key, and that certificates are loaded or generated, not both.
pub(super) fn certificates(
    layers: &mut Layers<'_>,
    certs: Option<&Sourced<Vec<PathBuf>>>,
    keys: Option<&Sourced<Vec<PathBuf>>>,
    generate: Option<&Sourced<Vec<String>>>,
) {
    pairs(layers, certs, keys, PairKeys { cert: "tls.cert", key: "tls.key" });
    let Some(generate) = generate else { return };
    if let Some(certs) = certs.or(keys) {
        let what = format!(
            "`{}` beside `{}`: a certificate is loaded or generated, not both",
            generate.spelled, certs.spelled
        );
        layers.refuse(&generate.source, None, Problem::Together(what));
    }
}

/// Checks that each certificate has its key.
pub(super) fn pairs(
    layers: &mut Layers<'_>,
    certs: Option<&Sourced<Vec<PathBuf>>>,
    keys: Option<&Sourced<Vec<PathBuf>>>,
    names: PairKeys,
) {
    let half =
        |there: &Sourced<Vec<PathBuf>>, missing| Problem::HalfTls { present: there.spelled.clone(), missing };
    match (certs, keys) {
        (Some(certs), None) => layers.refuse(&certs.source, None, half(certs, names.key)),
        (None, Some(keys)) => layers.refuse(&keys.source, None, half(keys, names.cert)),
        (Some(certs), Some(keys)) if certs.value.len() != keys.value.len() => {
            let what = format!(
                "`{}` names {} and `{}` {}; give each certificate its key, in the same order",
                certs.spelled,
                counted(certs.value.len(), "file"),
                keys.spelled,
                keys.value.len(),
            );
            layers.refuse(&keys.source, None, Problem::Together(what));
        }
        _ => {}
    }
}

/// Checks that the client certificate toward auth servers has a key.
pub(super) fn pair(layers: &mut Layers<'_>, cert: Option<&Sourced<PathBuf>>, key: Option<&Sourced<PathBuf>>) {
    let (there, missing) = match (cert, key) {
        (Some(cert), None) => (cert, "auth.tls.key"),
        (None, Some(key)) => (key, "auth.tls.cert"),
        _ => return,
    };
    layers.refuse(&there.source, None, Problem::HalfTls { present: there.spelled.clone(), missing });
}

/// Checks that plain HTTP is used only to this machine and the networks of `auth.plain`, as anybody on the network
/// path could forge decisions. Host names are resolved and compared at each connection.
pub(super) fn plain<T>(layers: &mut Layers<'_>, said: &Sourced<T>, url: &Url, networks: &[Network]) {
    let is_allowed = |address: IpAddr| may_be_plain(address, networks);
    let is_fine = match url.host() {
        _ if url.scheme() != "http" => true,
        Some(Host::Domain(name)) => name == "localhost" || !networks.is_empty(),
        Some(Host::Ipv4(address)) => is_allowed(address.into()),
        Some(Host::Ipv6(address)) => is_allowed(address.into()),
        None => false,
    };
    if is_fine {
        return;
    }
    let what = format!(
        "\"{}\" is plain HTTP: anybody on the network path could decide who is admitted; use https://, or name the \
         network of that server in `auth.plain` (on this machine http:// is fine)",
        super::redacted(url)
    );
    let problem = match said.source {
        Source::File { .. } => Problem::Value { key: said.spelled.clone(), what },
        _ => Problem::Outside(what),
    };
    layers.refuse(&said.source, None, problem);
}

/// Whether plain HTTP to `address` is allowed: this machine, and the networks of `auth.plain`.
pub fn may_be_plain(address: IpAddr, plain: &[Network]) -> bool {
    address.to_canonical().is_loopback() || plain.iter().any(|network| network.contains(address))
}

/// Checks that `aud` and `iss` are configured only if the relay verifies tokens itself.
pub(super) fn expected(layers: &mut Layers<'_>, auth: &Auth) {
    let given = ["auth.audience", "auth.issuer"].into_iter().find_map(|key| Some((key, layers.given(key)?)));
    if let Some((key, source)) = given.filter(|_| !auth.credentials.takes_tokens()) {
        let what = format!(
            "`{key}` is for tokens that the relay verifies, and `{}` has it verify none; set `auth.jwks`, `auth.key` or \
             `auth.key_dir`, or leave it out",
            auth.credentials.key()
        );
        layers.refuse(&source, None, Problem::Together(what));
    }
}

/// Checks the other rules.
pub(super) fn together(layers: &mut Layers<'_>, config: &Config) {
    let quic = &config.quic;
    if let Some(interval) = quic.keep_alive.filter(|interval| *interval >= quic.idle) {
        let what = format!(
            "`quic.keep_alive` ({interval:?}) must be less than `quic.idle_timeout` ({:?}): a connection would be \
             given up before it is pinged",
            quic.idle
        );
        refuse(layers, &["quic.keep_alive", "quic.idle_timeout"], what);
    }
    if quic.initial_mtu > quic.max_mtu {
        let what = format!(
            "`quic.initial_mtu` ({}) is more than `quic.max_mtu` ({})",
            quic.initial_mtu, quic.max_mtu
        );
        refuse(layers, &["quic.initial_mtu", "quic.max_mtu"], what);
    }
    let source = layers.source("quic.max_mtu");
    if !quic.mtu_discovery && source != Source::Default {
        layers.warn(&source, "`quic.max_mtu` has no effect while `quic.mtu_discovery` is false".to_owned());
    }
    if let (Size::Percent(capacity), Size::Percent(headroom)) = (config.cache.capacity, config.cache.headroom)
        && u16::from(capacity) + u16::from(headroom) > 100
    {
        let what = format!(
            "`cache.capacity` ({capacity}%) and `cache.headroom` ({headroom}%) are more than the memory there is"
        );
        refuse(layers, &["cache.capacity", "cache.headroom"], what);
    }
    session_memory(layers, config);
    let source = layers.source("web.proxy_header");
    if config.web.proxies.is_empty() && source != Source::Default {
        layers.warn(&source, "`web.proxy_header` has no effect without `web.proxy`".to_owned());
    }
    stream_only(layers);
    same_address(layers, config);
}

/// Checks the bounds of `limits.memory`, if it is set.
fn session_memory(layers: &mut Layers<'_>, config: &Config) {
    const KEY: &str = "limits.memory";
    if layers.source(KEY) == Source::Default {
        return;
    }
    let is_too_small = match config.state {
        Size::Bytes(bytes) => bytes < LEAST_STATE,
        Size::Percent(percent) => percent == 0,
    };
    if is_too_small {
        let what = format!(
            "`{KEY}` ({}) leaves no room for sessions, which take 16 to 40 KiB each; write {LEAST_STATE} bytes or more, \
             or a percentage such as \"20%\"",
            config.state
        );
        return refuse(layers, &[KEY], what);
    }
    if let (Size::Percent(capacity), Size::Percent(headroom), Size::Percent(state)) =
        (config.cache.capacity, config.cache.headroom, config.state)
        && u16::from(capacity) + u16::from(headroom) + u16::from(state) > 100
    {
        let what = format!(
            "`cache.capacity` ({capacity}%), `cache.headroom` ({headroom}%) and `{KEY}` ({state}%) are more than the \
             memory there is"
        );
        refuse(layers, &[KEY, "cache.capacity", "cache.headroom"], what);
    }
}

/// Checks that TCP listeners have distinct addresses; HTTP and HTTPS may share one.
fn same_address(layers: &mut Layers<'_>, config: &Config) {
    let web = &config.web;
    let all = [
        ("web.http.listen", web.http),
        ("web.https.listen", web.https),
        ("internal.listen", web.internal),
        ("server.tcp.bind", web.tcp),
    ];
    let shares = |one, other| (one, other) == ("web.http.listen", "web.https.listen");
    for (index, (one, at)) in all.iter().enumerate() {
        for (other, _) in all.iter().skip(index + 1).filter(|(other, too)| too == at && !shares(*one, *other))
        {
            if let Some(address) = at.filter(|address| address.port() != 0) {
                let what = format!("`{one}` and `{other}` are both {address}; give one of them another port");
                refuse(layers, &[other, one], what);
            }
        }
    }
}

/// Refuses a file that names only other listeners, as QUIC would be opened at its default address.
fn stream_only(layers: &mut Layers<'_>) {
    let other = layers.given("server.tcp.bind").or_else(|| layers.given("server.unix.bind"));
    if let Some(other) =
        other.filter(|_| layers.file.is_some() && layers.source("server.bind") == Source::Default)
    {
        let what = "this names another listener, and QUIC is always served; set `server.bind` to where QUIC may \
                    listen";
        layers.refuse(&other, None, Problem::Together(what.to_owned()));
    }
}

/// Reports a problem at the first of `keys` that was given.
fn refuse(layers: &mut Layers<'_>, keys: &[&str], what: String) {
    let source = keys.iter().map(|key| layers.source(key)).find(|source| *source != Source::Default);
    layers.refuse(&source.unwrap_or(Source::Default), None, Problem::Together(what));
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
