//! Checks whether the listeners other than UDP can be bound, by binding them.

use std::{io, net::TcpListener, os::unix::net::UnixStream};

use super::reading::{Entrance, Port, Standing, Vacancy};
use crate::{
    config::Config,
    listeners::{self, Place},
    trouble::{self, holder, holder::Holder},
};

/// Listeners of `config` other than UDP. `port`: state of its UDP port; a relay that runs there also holds the
/// other listeners.
pub(super) fn all(config: &Config, port: &Port) -> Vec<Entrance> {
    let relay = match &port.standing {
        Standing::Taken { holder, answers } if answers.iter().any(|answer| answer.took.is_ok()) => {
            Some(holder)
        }
        _ => None,
    };
    let is_optional = config.is_web_implied();
    let look = |listener: &listeners::Listener| {
        let vacancy = match &listener.place {
            Place::Tcp(address) => tcp(listener.name, *address),
            Place::Unix(path) => unix(path),
        };
        let vacancy = match vacancy {
            Vacancy::Taken(holder) if relay == Some(&holder) => Vacancy::OfRelay(holder),
            // The process that listens at a Unix path is not known.
            Vacancy::Taken(Holder::Unknown) if relay.is_some() => Vacancy::OfRelay(Holder::Unknown),
            vacancy => vacancy,
        };
        let listener = listener.clone();
        Entrance { name: listener.name, key: listener.key, place: listener.place, vacancy, is_optional }
    };
    listeners::all(config).iter().map(look).collect()
}

fn tcp(name: &str, address: std::net::SocketAddr) -> Vacancy {
    match TcpListener::bind(address) {
        Ok(_) => Vacancy::Free,
        Err(error) if error.kind() == io::ErrorKind::AddrInUse => Vacancy::Taken(holder::of_tcp(address)),
        Err(error) => Vacancy::Refused(trouble::tcp(name, address, &error)),
    }
}

fn unix(path: &std::path::Path) -> Vacancy {
    match listeners::unix_trouble(path) {
        Some(trouble) => Vacancy::Refused(trouble),
        None if UnixStream::connect(path).is_ok() => Vacancy::Taken(Holder::Unknown),
        None => Vacancy::Free,
    }
}
