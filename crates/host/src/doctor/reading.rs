//! Readings of the machine and the configuration, before they are judged.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use relay_certificate::Fingerprint;
use relay_config::listeners::ListenerAddress;
use time::{Date, OffsetDateTime};

use crate::diagnostics::{Diagnostic, holder::Holder};

/// Limit of open files.
#[derive(Clone, Debug)]
pub struct Files {
    /// Hard limit; `None` is no limit.
    pub hard: Option<u64>,
    /// Number that these workers need.
    pub needed: u64,
    /// Number of workers.
    pub workers: usize,
}

/// Clock of the machine.
#[derive(Clone, Debug)]
pub struct ClockReading {
    /// Current time.
    pub now: OffsetDateTime,
    /// Time synchronization service, if one is found.
    pub time_service: Option<String>,
}

/// A configured certificate, or client authorities.
#[derive(Clone, Debug)]
pub enum Certificate {
    /// None configured: one is generated at start.
    Generated,
    /// Client authorities: their number.
    Authorities(usize),
    /// It cannot be used.
    Refused(Diagnostic),
    /// It can be used.
    Loaded(UsableCertificate),
}

/// A usable certificate.
#[derive(Clone, Debug)]
pub struct UsableCertificate {
    /// DNS names and IP addresses.
    pub names: Vec<String>,
    /// Its last day.
    pub until: Date,
    /// Certificates in its file.
    pub chain: usize,
    /// Warnings about it.
    pub warnings: Vec<Diagnostic>,
}

/// IPv6 of the machine.
#[derive(Clone, Debug)]
pub enum Ipv6 {
    /// Not available; holds the error of the system.
    Missing(String),
    /// Available, without a route to other networks.
    Local,
    /// Available, with a route to other networks.
    Global,
}

/// Sources of the keys that verify tokens.
#[derive(Clone, Debug)]
pub enum TokenKeys {
    /// None configured: tokens are not accepted.
    None,
    /// Usable keys, named by this configuration key.
    Usable(&'static str),
    /// Unusable keys, named by this configuration key, and the cause.
    Unusable(&'static str, String),
}

/// A listener other than UDP.
#[derive(Clone, Debug)]
pub struct ListenerReading {
    /// Its name.
    pub(crate) name: &'static str,
    /// Configuration key of the listener.
    pub(crate) key: &'static str,
    /// Its address.
    pub(crate) place: ListenerAddress,
    /// Current state of its address.
    pub(crate) vacancy: AddressState,
    /// Whether a relay starts without it.
    pub(crate) is_optional: bool,
}

/// State of a listener's address.
#[derive(Clone, Debug)]
pub enum AddressState {
    /// Free.
    Free,
    /// Held by the relay that also holds the UDP port.
    OfRelay(Holder),
    /// Held by another process.
    Taken(Holder),
    /// Cannot be bound.
    Refused(Diagnostic),
}

/// UDP port of the relay.
#[derive(Clone, Debug)]
pub struct Port {
    /// Configured address.
    pub bind: SocketAddr,
    /// Current state.
    pub standing: PortState,
}

/// State of a UDP port.
#[derive(Clone, Debug)]
pub enum PortState {
    /// Cannot be bound.
    Refused(Diagnostic),
    /// Free.
    Free {
        /// Address of this machine used for the test datagram.
        via: IpAddr,
        /// Whether the datagram arrived.
        arrived: bool,
    },
    /// Held by a process.
    Taken {
        /// The process.
        holder: Holder,
        /// Result of a handshake at each address of this machine.
        answers: Vec<HandshakeResult>,
    },
}

/// Failure of a handshake; names the cause.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{0}")]
pub struct HandshakeError(pub String);

/// Result of a QUIC handshake.
#[derive(Clone, Debug)]
pub struct HandshakeResult {
    /// Address it was made with.
    pub at: SocketAddr,
    /// Duration, or the error.
    pub took: Result<Duration, HandshakeError>,
    /// Certificate of the server, if received.
    pub shown: Option<Fingerprint>,
}

/// Configured certificate, and the one that a running relay uses.
#[derive(Clone, Debug)]
pub struct RunningCertificate {
    /// File of the configured certificate.
    pub file: String,
    /// Certificate in the file and its last day, or why it cannot be used.
    pub named: Result<(Fingerprint, Date), Diagnostic>,
    /// Certificate that the relay uses.
    pub shown: Fingerprint,
}
