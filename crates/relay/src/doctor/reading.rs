//! What was read, before anybody judges it.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use time::{Date, OffsetDateTime};

use crate::{
    certificate::Fingerprint,
    listeners::Place,
    trouble::{Trouble, holder::Holder},
};

/// Open files.
#[derive(Clone, Debug)]
pub struct Files {
    /// Hard limit; `None` is no limit.
    pub hard: Option<u64>,
    /// What these workers need.
    pub needed: u64,
    /// How many workers there will be.
    pub workers: usize,
}

/// The time.
#[derive(Clone, Debug)]
pub struct Clock {
    /// What the clock says.
    pub now: OffsetDateTime,
    /// Who keeps it right, where that can be seen.
    pub keeper: Option<String>,
}

/// The certificate the configuration names.
#[derive(Clone, Debug)]
pub enum Certificate {
    /// None: one is made at start.
    Generated,
    /// It vouches for clients: so many authorities.
    Authorities(usize),
    /// It cannot be shown.
    Refused(Trouble),
    /// It can.
    Loaded(Shown),
}

/// A certificate that can be shown.
#[derive(Clone, Debug)]
pub struct Shown {
    /// Names and addresses it is for.
    pub names: Vec<String>,
    /// Its last day.
    pub until: Date,
    /// Certificates in its file.
    pub chain: usize,
    /// What is doubtful about it.
    pub doubts: Vec<Trouble>,
}

/// IPv6 of the machine.
#[derive(Clone, Debug)]
pub enum Ipv6 {
    /// There is none, and what the system says.
    Missing(String),
    /// There is, but no route out.
    Local,
    /// There is an address that others can reach.
    Global,
}

/// Sources of the keys that verify tokens.
#[derive(Clone, Debug)]
pub enum Keys {
    /// Nothing: there are no tokens.
    None,
    /// What this key of the configuration names, which can be used.
    Usable(&'static str),
    /// The same, which cannot; and why.
    Unusable(&'static str, String),
}

/// A listener beside UDP.
#[derive(Clone, Debug)]
pub struct Entrance {
    /// Its name.
    pub(crate) name: &'static str,
    /// The key that asks for it.
    pub(crate) key: &'static str,
    /// Its address.
    pub(crate) place: Place,
    /// What is there now.
    pub(crate) vacancy: Vacancy,
    /// Whether a relay starts without it.
    pub(crate) is_optional: bool,
}

/// What is at an address.
#[derive(Clone, Debug)]
pub enum Vacancy {
    /// Nobody listens there.
    Free,
    /// The relay that has the UDP port.
    OfRelay(Holder),
    /// Somebody else.
    Taken(Holder),
    /// Nobody may listen there.
    Refused(Trouble),
}

/// The relay's own port.
#[derive(Clone, Debug)]
pub struct Port {
    /// Where the relay listens.
    pub bind: SocketAddr,
    /// What is there now.
    pub standing: Standing,
}

/// What is at a port.
#[derive(Clone, Debug)]
pub enum Standing {
    /// Nobody may listen there.
    Refused(Trouble),
    /// Nobody listens there now.
    Free {
        /// The address of this machine it was tried through.
        via: IpAddr,
        /// Whether what was sent came.
        arrived: bool,
    },
    /// Somebody does.
    Taken {
        /// Who.
        holder: Holder,
        /// What was answered at each address of this machine that was tried.
        answers: Vec<Answer>,
    },
}

/// What was answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Where it was asked.
    pub at: SocketAddr,
    /// How long a QUIC handshake took, or what went wrong.
    pub took: Result<Duration, String>,
    /// The certificate that was shown.
    pub shown: Option<Fingerprint>,
}

/// The certificate that the configuration names, and the one that a running relay shows.
#[derive(Clone, Debug)]
pub struct Running {
    /// Its file.
    pub file: String,
    /// What is in it, and its last day; or why nothing can be shown of it.
    pub named: Result<(Fingerprint, Date), Trouble>,
    /// What is shown.
    pub shown: Fingerprint,
}
