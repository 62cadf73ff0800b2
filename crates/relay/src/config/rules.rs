//! Values that make no sense together.

use std::path::PathBuf;

use super::{
    Config, Problem, Size, Source,
    resolve::{Layers, Sourced},
};

/// Certificates have a key each, and are read or made.
pub(super) fn certificates(
    layers: &mut Layers<'_>,
    certs: Option<&Sourced<Vec<PathBuf>>>,
    keys: Option<&Sourced<Vec<PathBuf>>>,
    generate: Option<&Sourced<Vec<String>>>,
) {
    pairs(layers, certs, keys, ("tls.cert", "tls.key"));
    let Some(generate) = generate else { return };
    if let Some(certs) = certs.or(keys) {
        let what = format!(
            "`{}` beside `{}`: a certificate is read or made, not both",
            generate.spelled, certs.spelled
        );
        layers.refuse(&generate.source, None, Problem::Together(what));
    }
}

/// Each certificate has its key. `names`: what the two are called.
pub(super) fn pairs(
    layers: &mut Layers<'_>,
    certs: Option<&Sourced<Vec<PathBuf>>>,
    keys: Option<&Sourced<Vec<PathBuf>>>,
    names: (&'static str, &'static str),
) {
    let half =
        |there: &Sourced<Vec<PathBuf>>, missing| Problem::HalfTls { present: there.spelled.clone(), missing };
    match (certs, keys) {
        (Some(certs), None) => layers.refuse(&certs.source, None, half(certs, names.1)),
        (None, Some(keys)) => layers.refuse(&keys.source, None, half(keys, names.0)),
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

/// What is shown where the relay asks has a key.
pub(super) fn pair(layers: &mut Layers<'_>, cert: Option<&Sourced<PathBuf>>, key: Option<&Sourced<PathBuf>>) {
    let (there, missing) = match (cert, key) {
        (Some(cert), None) => (cert, "auth.tls.key"),
        (None, Some(key)) => (key, "auth.tls.cert"),
        _ => return,
    };
    layers.refuse(&there.source, None, Problem::HalfTls { present: there.spelled.clone(), missing });
}

/// The rest.
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
        layers.warn(&source, "`quic.max_mtu` changes nothing while `quic.mtu_discovery` is false".to_owned());
    }
    if let (Size::Percent(capacity), Size::Percent(headroom)) = (config.cache.capacity, config.cache.headroom)
        && u16::from(capacity) + u16::from(headroom) > 100
    {
        let what = format!(
            "`cache.capacity` ({capacity}%) and `cache.headroom` ({headroom}%) are more than the memory there is"
        );
        refuse(layers, &["cache.capacity", "cache.headroom"], what);
    }
    stream_only(layers);
    same_address(layers, config);
}

/// Two listeners of TCP have two addresses; HTTP and HTTPS may share one.
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

/// A relay that was told of other entrances only must not open one of its own accord.
fn stream_only(layers: &mut Layers<'_>) {
    let other = layers.given("server.tcp.bind").or_else(|| layers.given("server.unix.bind"));
    if let Some(other) =
        other.filter(|_| layers.file.is_some() && layers.source("server.bind") == Source::Default)
    {
        let what = "this names another entrance, and QUIC is always served; set `server.bind` to where QUIC may \
                    listen";
        layers.refuse(&other, None, Problem::Together(what.to_owned()));
    }
}

/// Refuses at the first of `keys` that was given.
fn refuse(layers: &mut Layers<'_>, keys: &[&str], what: String) {
    let source = keys.iter().map(|key| layers.source(key)).find(|source| *source != Source::Default);
    layers.refuse(&source.unwrap_or(Source::Default), None, Problem::Together(what));
}

fn counted(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
