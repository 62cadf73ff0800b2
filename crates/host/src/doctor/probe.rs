//! Reading the machine.

use std::{
    net::{Ipv6Addr, SocketAddr, UdpSocket},
    path::Path,
    time::SystemTime,
};

use relay_certificate::Identity;
use relay_config::{CertFiles, Config, Credentials, Tls};
use time::OffsetDateTime;

use super::reading::{
    Certificate, ClockReading, Files, Ipv6, Port, PortState, RunningCertificate, TokenKeys, UsableCertificate,
};
use crate::limits::rlimit;

/// Files of running time synchronization services.
const TIME_SERVICES: [(&str, &str); 4] = [
    ("run/systemd/timesync/synchronized", "systemd-timesyncd"),
    ("run/chrony/chronyd.pid", "chronyd"),
    ("run/ntpd.pid", "ntpd"),
    ("run/openntpd.pid", "openntpd"),
];

/// Limit of open files, and the number that `workers` need.
pub(super) fn files(workers: usize) -> Files {
    Files { hard: rlimit::hard(), needed: rlimit::needed(workers), workers }
}

/// Clock and time synchronization service of the machine whose files are below `root`.
pub(super) fn clock(root: &Path) -> ClockReading {
    let keeper = TIME_SERVICES.into_iter().find(|(file, _)| root.join(file).exists());
    ClockReading { now: OffsetDateTime::now_utc(), time_service: keeper.map(|(_, name)| name.to_owned()) }
}

/// Certificates and client authorities that `config` names.
pub(super) fn certificates(config: &Config) -> Vec<Certificate> {
    let mut all: Vec<Certificate> = match &config.tls {
        Tls::Generated(_) => vec![Certificate::Generated],
        Tls::Files(pairs) => pairs.iter().map(certificate).collect(),
    };
    if !config.client_roots.is_empty() {
        let found = relay_certificate::authorities(&config.client_roots);
        all.push(
            found.map_or_else(|error| Certificate::Refused(error.diagnostic()), Certificate::Authorities),
        );
    }
    let web = &config.web;
    all.extend(web.certificates.iter().map(certificate));
    if !web.roots.is_empty() {
        let found = relay_certificate::authorities(&web.roots);
        all.push(
            found.map_or_else(|error| Certificate::Refused(error.diagnostic()), Certificate::Authorities),
        );
    }
    all
}

/// Token credentials, checked as far as possible without network requests.
pub(super) fn keys(config: &Config) -> TokenKeys {
    let key = config.auth.credentials.key();
    match relay_access::startup_error(&config.auth) {
        Some(why) => TokenKeys::Unusable(key, why),
        None if config.auth.credentials == Credentials::None => TokenKeys::None,
        None => TokenKeys::Usable(key),
    }
}

/// First certificate of `config`, with the one that the running relay used in a handshake without a server name.
pub(super) fn running(config: &Config, port: &Port) -> Option<RunningCertificate> {
    let Tls::Files(pairs) = &config.tls else { return None };
    let (Some(CertFiles { cert, key }), PortState::Taken { answers, .. }) = (pairs.first(), &port.standing)
    else {
        return None;
    };
    let shown = answers.iter().find_map(|answer| answer.shown)?;
    let named = Identity::load(cert, key)
        .map(|identity| (identity.fingerprint(), relay_certificate::date(identity.not_after())))
        .map_err(|error| error.diagnostic());
    Some(RunningCertificate { file: cert.display().to_string(), named, shown })
}

fn certificate(CertFiles { cert, key }: &CertFiles) -> Certificate {
    let now = SystemTime::now();
    match Identity::load(cert, key) {
        Err(error) => Certificate::Refused(error.diagnostic()),
        Ok(identity) => Certificate::Loaded(UsableCertificate {
            names: identity.names(),
            until: relay_certificate::date(identity.not_after()),
            chain: identity.chain_len(),
            warnings: relay_certificate::warnings(&identity, cert, key, now),
        }),
    }
}

/// IPv6: whether a socket can be bound, and whether there is a route.
pub(super) fn ipv6() -> Ipv6 {
    // A documentation address (RFC 3849), which takes the default route. Nothing is sent.
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
