//! Reading the machine.

use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::SystemTime,
};

use time::OffsetDateTime;

use super::reading::{Certificate, Clock, Files, Ipv6, Keys, Port, Running, Shown, Standing};
use crate::{
    access,
    certificate::{self, Identity},
    config::{Config, Credentials, Pair, Tls},
    limits::rlimit,
};

/// What programs that keep the clock leave behind while they do.
const KEEPERS: [(&str, &str); 4] = [
    ("run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("run/chrony/chronyd.pid", "chronyd"),
    ("run/ntpd.pid", "ntpd"),
    ("run/openntpd.pid", "openntpd"),
];

/// Open files, for `workers`.
pub(super) fn files(workers: usize) -> Files {
    Files { hard: rlimit::hard(), needed: rlimit::needed(workers), workers }
}

/// The clock, and who keeps it on the machine whose files are below `root`.
pub(super) fn clock(root: &Path) -> Clock {
    let keeper = KEEPERS.into_iter().find(|(file, _)| root.join(file).exists());
    Clock { now: OffsetDateTime::now_utc(), keeper: keeper.map(|(_, name)| name.to_owned()) }
}

/// The certificates that `config` names, and those that vouch for clients.
pub(super) fn certificates(config: &Config) -> Vec<Certificate> {
    let mut all: Vec<Certificate> = match &config.tls {
        Tls::Generated(_) => vec![Certificate::Generated],
        Tls::Files(pairs) => pairs.iter().map(certificate).collect(),
    };
    if !config.client_roots.is_empty() {
        let found = certificate::authorities(&config.client_roots);
        all.push(found.map_or_else(|error| Certificate::Refused(error.trouble()), Certificate::Authorities));
    }
    let web = &config.web;
    all.extend(web.certificates.iter().map(certificate));
    if !web.roots.is_empty() {
        let found = certificate::authorities(&web.roots);
        all.push(found.map_or_else(|error| Certificate::Refused(error.trouble()), Certificate::Authorities));
    }
    all
}

/// What tokens are checked with, as far as that can be seen without asking a server.
pub(super) fn keys(config: &Config) -> Keys {
    let key = config.auth.credentials.key();
    match access::trouble(&config.auth) {
        Some(why) => Keys::Unusable(key, why),
        None if config.auth.credentials == Credentials::None => Keys::None,
        None => Keys::Usable(key),
    }
}

/// The certificate that `config` names first, beside the one that was shown to who asked for no name.
pub(super) fn running(config: &Config, port: &Port) -> Option<Running> {
    let Tls::Files(pairs) = &config.tls else { return None };
    let (Some(Pair { cert, key }), Standing::Taken { answers, .. }) = (pairs.first(), &port.standing) else {
        return None;
    };
    let shown = answers.iter().find_map(|answer| answer.shown)?;
    let named = Identity::load(cert, key)
        .map(|identity| (identity.fingerprint(), certificate::date(identity.not_after())))
        .map_err(|error| error.trouble());
    Some(Running { file: cert.display().to_string(), named, shown })
}

fn certificate(Pair { cert, key }: &Pair) -> Certificate {
    let now = SystemTime::now();
    match Identity::load(cert, key) {
        Err(error) => Certificate::Refused(error.trouble()),
        Ok(identity) => Certificate::Loaded(Shown {
            names: identity.names(),
            until: certificate::date(identity.not_after()),
            chain: identity.chain_len(),
            doubts: certificate::warnings(&identity, cert, key, now),
        }),
    }
}

/// IPv6: whether a socket can be had, and whether there is a way out.
pub(super) fn ipv6() -> Ipv6 {
    // For documentation only, so it goes wherever everything else goes. Nothing is sent.
    const ELSEWHERE: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1);
    if let Err(error) = UdpSocket::bind((Ipv6Addr::LOCALHOST, 0)) {
        return Ipv6::Missing(error.to_string());
    }
    match own_address(SocketAddr::from((ELSEWHERE, 9))) {
        Some(_) => Ipv6::Global,
        None => Ipv6::Local,
    }
}

/// The address this machine would send from to reach `elsewhere`.
pub(super) fn own_address(elsewhere: SocketAddr) -> Option<SocketAddr> {
    let any: std::net::IpAddr = if elsewhere.is_ipv4() {
        std::net::Ipv4Addr::UNSPECIFIED.into()
    } else {
        Ipv6Addr::UNSPECIFIED.into()
    };
    let socket = UdpSocket::bind((any, 0)).ok()?;
    socket.connect(elsewhere).ok()?;
    socket.local_addr().ok().filter(|addr| !addr.ip().is_unspecified())
}
