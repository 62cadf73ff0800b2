//! Verdicts on readings. Nothing here reads the machine, so a table of readings tests all of it.

use std::{fmt, net::IpAddr, path::Path, time::Duration};

use relay_config::listeners::ListenerAddress;
use relay_worker::{Buffers, probe::Offload};
use time::{OffsetDateTime, macros::datetime};

use super::reading::{
    AddressState, Certificate, ClockReading, Files, HandshakeResult, Ipv6, ListenerReading, Port, PortState,
    RunningCertificate, TokenKeys, UsableCertificate,
};
use crate::{
    diagnostics::{self, Diagnostic, RAISE_FILES, bytes, without_ipv6},
    limits::memory,
};

/// Earliest plausible time; a clock before it is wrong.
const EARLIEST: OffsetDateTime = datetime!(2026-01-01 00:00 UTC);
/// Below this many open files a busy relay may run short once connections take one each (TCP).
const COMFORTABLE_FILES: u64 = 4_096;
/// With less memory the cache is too small to be of use.
const COMFORTABLE_MEMORY: u64 = 256 << 20;
/// With less memory a relay starts and serves a handful.
const LEAST_MEMORY: u64 = 48 << 20;
/// File of the system settings for large socket buffers.
pub const SYSCTL_FILE: &str = "packaging/99-moq-relay.conf";

/// Judgement of a reading.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CheckVerdict {
    /// Good; describes the reading.
    Ok(String),
    /// Works, but not as well as it could.
    Warn(Diagnostic),
    /// A relay will not start, or not be reached.
    Fail(Diagnostic),
}

impl CheckVerdict {
    /// Cause and remedy of a warning or failure.
    pub fn diagnostic(&self) -> Option<&Diagnostic> {
        match self {
            Self::Ok(_) => None,
            Self::Warn(trouble) | Self::Fail(trouble) => Some(trouble),
        }
    }

    fn warn(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::Warn(Diagnostic::new(what, todo))
    }

    fn fail(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self::Fail(Diagnostic::new(what, todo))
    }
}

/// Verdict on a machine where no UDP socket can be made.
pub fn no_socket(error: &dyn fmt::Display) -> CheckVerdict {
    CheckVerdict::fail(
        format!("cannot make a UDP socket: {error}"),
        "check the sandbox (seccomp, network namespace)",
    )
}

/// Judges the kernel buffers of a UDP socket.
pub fn buffers(reading: Buffers) -> CheckVerdict {
    let Buffers { wanted, recv, send } = reading;
    let shown = |count: usize| bytes(count as u64);
    if recv >= wanted && send >= wanted {
        return CheckVerdict::Ok(format!("{} to receive and to send", shown(wanted)));
    }
    CheckVerdict::warn(
        format!(
            "the kernel gives a socket {} to receive and {} to send of {} asked for: bursts of packets may be dropped",
            shown(recv),
            shown(send),
            shown(wanted)
        ),
        format!(
            "`sysctl -w net.core.rmem_max={wanted} net.core.wmem_max={wanted}`, and {SYSCTL_FILE} in \
             /etc/sysctl.d to keep it"
        ),
    )
}

/// Judges the segmentation offloads of a UDP socket.
pub fn offload(reading: &Offload) -> CheckVerdict {
    match reading {
        Offload { send: 2.., receive: 2.. } => CheckVerdict::Ok("GSO to send, GRO to receive".to_owned()),
        Offload { send, .. } => CheckVerdict::warn(
            format!(
                "the kernel has no {}: each packet costs a system call",
                if *send < 2 { "GSO" } else { "GRO" }
            ),
            "Linux 5.0 or newer has both; a sandbox may hide them",
        ),
    }
}

/// Judges the steering of datagrams to workers.
pub fn steering<E: fmt::Display>(reading: &Result<(), E>) -> CheckVerdict {
    match reading {
        Ok(()) => CheckVerdict::Ok("datagrams are steered to their worker".to_owned()),
        Err(error) => CheckVerdict::fail(
            format!("datagrams are not steered to workers: {error}"),
            "Linux 4.6 or newer is needed, and a sandbox has to allow SO_ATTACH_REUSEPORT_CBPF",
        ),
    }
}

/// Judges the limit of open files.
pub fn files(Files { hard, needed, workers }: &Files) -> CheckVerdict {
    match hard {
        Some(hard) if hard < needed => CheckVerdict::Fail(Diagnostic::new(
            format!("at most {hard} files may be open, and {workers} workers need {needed}"),
            RAISE_FILES,
        )),
        Some(hard) if *hard < COMFORTABLE_FILES => CheckVerdict::warn(
            format!(
                "at most {hard} files may be open: enough for any number of QUIC connections, which take \
                 none, but few for anything else"
            ),
            RAISE_FILES,
        ),
        Some(hard) => CheckVerdict::Ok(format!("{hard} may be open, {workers} workers need {needed}")),
        None => CheckVerdict::Ok(format!("any number may be open, {workers} workers need {needed}")),
    }
}

/// Judges the memory, of which the cache may use `cache` bytes.
pub fn memory(reading: &memory::Reading, cache: u64) -> CheckVerdict {
    let memory::Reading { limit, free, .. } = *reading;
    let todo = "give the relay more (MemoryMax= in a systemd unit, --memory for a container), or a smaller \
                `cache.capacity`";
    let (all, free, cache) = (bytes(limit), bytes(free), bytes(cache));
    match limit {
        0..LEAST_MEMORY => {
            CheckVerdict::fail(format!("{all} of memory is not enough to serve anybody"), todo)
        }
        LEAST_MEMORY..COMFORTABLE_MEMORY => {
            CheckVerdict::warn(format!("{all} of memory: the cache gets {cache} of it"), todo)
        }
        _ => CheckVerdict::Ok(format!("{all}, {free} of it free; the cache gets {cache}")),
    }
}

/// Judges the clock.
pub fn clock(ClockReading { now, time_service: keeper }: &ClockReading) -> CheckVerdict {
    let now = now.replace_nanosecond(0).unwrap_or(*now);
    let (date, time) = (now.date(), now.time());
    if now < EARLIEST {
        return CheckVerdict::fail(
            format!("the clock is at {date}: certificates cannot be verified"),
            "set it and keep it right (`timedatectl set-ntp true`)",
        );
    }
    let keeper = keeper.as_deref().unwrap_or("no known service");
    let (hour, minute, second) = time.as_hms();
    CheckVerdict::Ok(format!("{date} {hour:02}:{minute:02}:{second:02} UTC, kept by {keeper}"))
}

/// Judges the number of workers against the cores.
pub fn cores(cores: usize, workers: usize) -> CheckVerdict {
    if workers > cores {
        return CheckVerdict::warn(
            format!("{workers} workers share {cores} cores"),
            "leave --workers out: one per core is best",
        );
    }
    CheckVerdict::Ok(format!("{cores}, {workers} of them with a worker"))
}

/// Judges a certificate, with one verdict per warning.
pub fn certificate(reading: &Certificate) -> Vec<CheckVerdict> {
    match reading {
        Certificate::Generated => {
            vec![CheckVerdict::Ok(
                "made at start, for development: clients must pin its fingerprint".to_owned(),
            )]
        }
        Certificate::Authorities(count) => {
            let authorities =
                if *count == 1 { "1 authority".to_owned() } else { format!("{count} authorities") };
            vec![CheckVerdict::Ok(format!("{authorities} for client certificates, which are optional"))]
        }
        Certificate::Refused(trouble) => vec![CheckVerdict::Fail(trouble.clone())],
        Certificate::Loaded(UsableCertificate { names, until, chain, warnings: doubts })
            if doubts.is_empty() =>
        {
            let names = if names.is_empty() { "no name at all".to_owned() } else { names.join(", ") };
            vec![CheckVerdict::Ok(format!("for {names}, until {until}, chain of {chain}"))]
        }
        Certificate::Loaded(UsableCertificate { warnings: doubts, .. }) => {
            doubts.iter().cloned().map(CheckVerdict::Warn).collect()
        }
    }
}

/// Judges whether a running relay uses its configured certificate.
pub fn in_use(RunningCertificate { file, named, shown }: &RunningCertificate) -> CheckVerdict {
    match named {
        Ok((named, until)) if named == shown => {
            CheckVerdict::Ok(format!("the one in {file} is in use, until {until}"))
        }
        Ok(_) => CheckVerdict::warn(
            format!("the relay uses another one than {file} holds ({shown})"),
            "a change is applied within two seconds; otherwise check that the relay reads that file (its log \
             names it)",
        ),
        Err(Diagnostic { problem: what, remedy: todo }) => {
            CheckVerdict::warn(format!("{what}: the relay uses a previous one ({shown})"), todo.clone())
        }
    }
}

/// Judges IPv6 for a relay that listens at `bind`.
pub fn ipv6(reading: &Ipv6, bind: std::net::SocketAddr) -> CheckVerdict {
    match (bind.ip(), reading) {
        (IpAddr::V4(_), _) => CheckVerdict::Ok("not needed: the relay listens on IPv4 only".to_owned()),
        (ip, Ipv6::Missing(why)) if ip.is_unspecified() => CheckVerdict::warn(
            format!("this machine has no IPv6 ({why}): a relay at {bind} serves IPv4 alone"),
            without_ipv6(bind),
        ),
        (_, Ipv6::Missing(why)) => CheckVerdict::fail(
            format!("this machine has no IPv6 ({why}), and {bind} needs it"),
            without_ipv6(bind),
        ),
        (_, Ipv6::Local) => CheckVerdict::Ok("on this machine only: it has no address of its own".to_owned()),
        (_, Ipv6::Global) => CheckVerdict::Ok("with an address of its own".to_owned()),
    }
}

/// Judges the keys that verify tokens.
pub fn keys(reading: &TokenKeys) -> CheckVerdict {
    match reading {
        TokenKeys::None => CheckVerdict::Ok("tokens are not accepted".to_owned()),
        TokenKeys::Usable(key) => CheckVerdict::Ok(format!("`{key}` can be used")),
        TokenKeys::Unusable(key, why) => {
            CheckVerdict::fail(format!("`{key}`: {why}"), "correct it; `moq-relay check` names its line")
        }
    }
}

/// Judges a listener other than UDP.
pub fn listener(
    ListenerReading { name, key, place, vacancy, is_optional }: &ListenerReading,
) -> CheckVerdict {
    match vacancy {
        AddressState::Free => CheckVerdict::Ok(format!("{name}: {place} is free")),
        AddressState::OfRelay(_) => CheckVerdict::Ok(format!("{name}: the relay listens at {place}")),
        AddressState::Refused(trouble) => CheckVerdict::Fail(trouble.clone()),
        AddressState::Taken(holder) => {
            let Diagnostic { problem: what, remedy: todo } = match place {
                ListenerAddress::Tcp(address) => diagnostics::tcp_in_use(name, *address, holder),
                ListenerAddress::Unix(path) => Diagnostic::new(
                    format!("{holder} listens at {}, where {name} is to be served", path.display()),
                    "stop it, or choose another path",
                ),
            };
            let todo = format!("{todo} (`{key}`)");
            if *is_optional {
                return CheckVerdict::warn(format!("{what}: a relay starts without it"), todo);
            }
            CheckVerdict::fail(what, todo)
        }
    }
}

/// Judges the UDP port of the relay.
pub fn port(Port { bind, standing }: &Port) -> CheckVerdict {
    let number = bind.port();
    match standing {
        PortState::Refused(trouble) => CheckVerdict::Fail(trouble.clone()),
        PortState::Free { via, arrived: true } if via.is_loopback() => {
            CheckVerdict::Ok(format!("udp {bind} is free, and a datagram to {via} arrives"))
        }
        PortState::Free { via, arrived: true } => CheckVerdict::Ok(format!(
            "udp {bind} is free, and a datagram to {via} arrives; firewalls in front have to let udp {number} in"
        )),
        PortState::Free { via, arrived: false } => CheckVerdict::fail(
            format!("udp {bind} is free, but a datagram to {via} does not arrive"),
            format!(
                "let udp {number} in on this machine's own firewall (`nft list ruleset`, `ufw allow {number}/udp`)"
            ),
        ),
        PortState::Taken { holder, answers } => taken(*bind, holder, answers),
    }
}

fn taken(
    bind: std::net::SocketAddr,
    holder: &diagnostics::holder::Holder,
    answers: &[HandshakeResult],
) -> CheckVerdict {
    let unanswered = answers.iter().find_map(|answer| Some((answer.at, answer.took.as_ref().err()?)));
    let slowest = answers.iter().filter_map(|answer| answer.took.as_ref().ok()).max();
    let at = answers.iter().map(|answer| answer.at.to_string()).collect::<Vec<_>>().join(" and ");
    match (unanswered, slowest) {
        (None, Some(took)) => CheckVerdict::Ok(format!("{holder} answers QUIC at {at} ({})", millis(*took))),
        (None, None) => CheckVerdict::Fail(diagnostics::in_use(bind, holder)),
        (Some(_), None) => {
            let Diagnostic { problem: what, remedy: todo } = diagnostics::in_use(bind, holder);
            CheckVerdict::fail(format!("{what}, which does not answer as a relay"), todo)
        }
        (Some((at, why)), Some(_)) => CheckVerdict::fail(
            format!("{holder} answers QUIC, but not at {at}: {why}"),
            format!("let udp {} in on this machine's own firewall", bind.port()),
        ),
    }
}

/// Judges whether a relay answers; a free port is a failure, too.
pub fn running(reading: &Port) -> CheckVerdict {
    match &reading.standing {
        PortState::Free { .. } => {
            CheckVerdict::fail(format!("no process listens at udp {}", reading.bind), "start the relay")
        }
        PortState::Refused(_) | PortState::Taken { .. } => port(reading),
    }
}

/// Judges the configuration: its file, if any, or why it is refused.
pub fn configuration(file: Option<&Path>, refusal: Option<&str>) -> CheckVerdict {
    match (file, refusal) {
        (_, Some(refusal)) => {
            CheckVerdict::fail(refusal, "correct the file; the checks below are for a relay without one")
        }
        (Some(file), None) => CheckVerdict::Ok(file.display().to_string()),
        (None, None) => CheckVerdict::Ok("none: a development relay".to_owned()),
    }
}

fn millis(took: Duration) -> String {
    format!("{:.1} ms", took.as_secs_f64() * 1_000.0)
}
