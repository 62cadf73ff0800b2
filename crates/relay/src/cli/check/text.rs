//! The report as text.

use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
};

use relay_config::{
    Credentials, KeyDir,
    listeners::{Listener, ListenerAddress},
    redacted,
};

use super::{certificate::CertificateCheck, report::CheckReport};
use crate::serve::scope_text;

impl fmt::Display for CheckReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name =
            self.file.as_ref().map_or_else(|| "without a file".to_owned(), |file| file.display().to_string());
        let verdict = if self.starts() { "a relay would start" } else { "a relay would not start" };
        writeln!(f, "{name}: {verdict}")?;
        section(f, "refused", self.refusals())?;
        let warnings = &self.resolution.warnings;
        section(f, "warnings", warnings.iter().map(|warning| format!("{}{}", warning.place, warning.text)))?;
        if let Some(token) = &self.token {
            write!(f, "\n{}", token.text())?;
        }
        if self.is_understood() {
            self.explanation(f)?;
            self.settings(f)?;
        }
        Ok(())
    }
}

fn section(f: &mut fmt::Formatter<'_>, title: &str, lines: impl IntoIterator<Item = String>) -> fmt::Result {
    let mut lines = lines.into_iter().peekable();
    if lines.peek().is_some() {
        writeln!(f, "\n{title}")?;
    }
    lines.try_for_each(|line| writeln!(f, "  {line}"))
}

impl CheckReport {
    fn explanation(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let config = &self.resolution.config;
        let versions: Vec<&str> = config.quic.versions.iter().map(|version| version.alpn()).collect();
        writeln!(f, "\nlistens")?;
        let also = if config.from_file { "" } else { ", and ::1 with it" };
        let also = if config.bind.ip() == Ipv4Addr::LOCALHOST { also } else { "" };
        writeln!(f, "  UDP          {}, {}{also}", config.bind, reach(config.bind.ip()))?;
        writeln!(f, "  transports   WebTransport, raw QUIC")?;
        writeln!(f, "  versions     {}", versions.join(", "))?;
        for Listener { name, place, serves, .. } in &self.listeners {
            match place {
                ListenerAddress::Tcp(address) => {
                    writeln!(f, "  {name:<12} {address}, {}: {serves}", reach(address.ip()))?;
                }
                ListenerAddress::Unix(path) => writeln!(f, "  {name:<12} {}: {serves}", path.display())?,
            }
        }
        writeln!(f, "\npermissions")?;
        writeln!(f, "  publish      everybody: {}", scope_text(&config.publish))?;
        writeln!(f, "  subscribe    everybody: {}", scope_text(&config.subscribe))?;
        self.credentials(f)?;
        self.certificates(f)?;
        writeln!(f, "\nholds")?;
        writeln!(f, "  memory       {} may be used on this machine", size(self.memory))?;
        writeln!(f, "  cache        up to {} now", size(self.limits.capacity))?;
        writeln!(f, "  ceiling      {}: above it no new data is accepted", size(self.limits.ceiling))?;
        writeln!(f, "\nruns")?;
        writeln!(f, "  workers      {}", self.workers)?;
        writeln!(f, "  drain        {:?} for clients to move when it is stopped", config.drain_timeout)
    }

    fn credentials(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let auth = &self.resolution.config.auth;
        let decides = matches!(auth.credentials, Credentials::Server(_));
        if self.authorities.is_some() && !decides {
            writeln!(f, "  certificates everything below the path, by an authority of `tls.root`")?;
        }
        let refresh = auth.refresh;
        match &auth.credentials {
            Credentials::None => {
                writeln!(f, "  tokens       not accepted: a session with a token is rejected")
            }
            Credentials::Files(files) => {
                let files: Vec<String> = files.iter().map(|file| file.display().to_string()).collect();
                writeln!(f, "  tokens       as granted, verified with {}", files.join(", "))
            }
            Credentials::Dir(KeyDir::Local(folder)) => {
                writeln!(f, "  tokens       as granted, verified with the keys in {}", folder.display())
            }
            Credentials::Dir(KeyDir::Remote(url)) | Credentials::Jwks(url) => {
                writeln!(
                    f,
                    "  tokens       as granted, verified with keys of {}, refreshed every {refresh:?}",
                    redacted(url)
                )
            }
            Credentials::Server(url) => {
                writeln!(
                    f,
                    "  sessions     {} decides on each; none is admitted while it fails",
                    redacted(url)
                )
            }
            Credentials::Api(url) => {
                writeln!(
                    f,
                    "  sessions     {} decides, path by path; none is admitted while it fails",
                    redacted(url)
                )
            }
        }
    }

    fn certificates(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let several = self.certificates.len() > 1;
        let title = if several { "s, the first for clients without a matching server name" } else { "" };
        writeln!(f, "\ncertificate{title}")?;
        self.certificates.iter().try_for_each(|one| certificate(f, one))?;
        match &self.authorities {
            None => writeln!(f, "  clients      are not asked for a certificate"),
            Some(Err(why)) => writeln!(f, "  clients      cannot be verified: {why}"),
            Some(Ok(count)) => writeln!(
                f,
                "  clients      may present a certificate of {count} {}",
                if *count == 1 { "authority" } else { "authorities" }
            ),
        }?;
        if !self.web_certificates.is_empty() {
            writeln!(f, "\ncertificates of HTTPS")?;
        }
        self.web_certificates.iter().try_for_each(|one| certificate(f, one))
    }

    fn settings(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "\nsettings: key, source and value")?;
        for setting in &self.resolution.settings {
            writeln!(f, "  {:<24} {:<20} {}", setting.key, setting.source.to_string(), setting.value)?;
        }
        Ok(())
    }
}

fn certificate(f: &mut fmt::Formatter<'_>, certificate: &CertificateCheck) -> fmt::Result {
    match certificate {
        CertificateCheck::Made(names) => {
            writeln!(f, "  made at start, self-signed, for {}", names.join(", "))
        }
        CertificateCheck::None(why) => writeln!(f, "  none: {why}"),
        CertificateCheck::Read { file, names, until, days, fingerprint, .. } => {
            writeln!(f, "  file         {file}, and its key matches")?;
            writeln!(f, "  names        {}", names.join(", "))?;
            writeln!(f, "  valid        until {until}, {days} days")?;
            writeln!(f, "  SHA-256      {fingerprint}")
        }
    }
}

/// Interfaces that the address covers.
fn reach(ip: IpAddr) -> &'static str {
    match ip {
        ip if ip.is_loopback() => "this machine only",
        ip if ip.is_unspecified() && ip.is_ipv6() => "all interfaces, IPv6 and IPv4",
        ip if ip.is_unspecified() => "all interfaces, IPv4 only",
        _ => "one interface",
    }
}

fn size(bytes: u64) -> String {
    const MIB: u64 = 1 << 20;
    if bytes >= 10_240 * MIB {
        format!("{} GiB", bytes / (1_024 * MIB))
    } else {
        format!("{} MiB", bytes / MIB)
    }
}
