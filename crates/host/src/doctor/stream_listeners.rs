//! Checks whether the listeners other than UDP can be bound, by binding them.

use std::{io, net::TcpListener, os::unix::net::UnixStream};

use relay_config::{
    Config,
    listeners::{self, ListenerAddress},
};

use super::reading::{AddressState, ListenerReading, Port, PortState};
use crate::diagnostics::{self, holder, holder::Holder};

/// Listeners of `config` other than UDP. `port`: state of its UDP port; a relay that runs there also holds the
/// other listeners.
pub(super) fn all(config: &Config, port: &Port) -> Vec<ListenerReading> {
    let relay = match &port.standing {
        PortState::Taken { holder, answers } if answers.iter().any(|answer| answer.took.is_ok()) => {
            Some(holder)
        }
        _ => None,
    };
    let is_optional = config.is_web_implied();
    let look = |listener: &listeners::Listener| {
        let vacancy = match &listener.place {
            ListenerAddress::Tcp(address) => tcp(listener.name, *address),
            ListenerAddress::Unix(path) => unix(path),
        };
        let vacancy = match vacancy {
            AddressState::Taken(holder) if relay == Some(&holder) => AddressState::OfRelay(holder),
            // The process that listens at a Unix path is not known.
            AddressState::Taken(Holder::Unknown) if relay.is_some() => AddressState::OfRelay(Holder::Unknown),
            vacancy => vacancy,
        };
        let listener = listener.clone();
        ListenerReading {
            name: listener.name,
            key: listener.key,
            place: listener.place,
            vacancy,
            is_optional,
        }
    };
    listeners::all(config).iter().map(look).collect()
}

fn tcp(name: &str, address: std::net::SocketAddr) -> AddressState {
    match TcpListener::bind(address) {
        Ok(_) => AddressState::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
            AddressState::Taken(holder::of_tcp(address))
        }
        Err(error) => AddressState::Refused(diagnostics::tcp(name, address, &error)),
    }
}

fn unix(path: &std::path::Path) -> AddressState {
    match diagnostics::unix_diagnostic(path) {
        Some(trouble) => AddressState::Refused(trouble),
        None if UnixStream::connect(path).is_ok() => AddressState::Taken(Holder::Unknown),
        None => AddressState::Free,
    }
}
