//! Facts of the machine that settings depend on.

use std::{
    net::{Ipv6Addr, UdpSocket},
    num::NonZeroUsize,
    thread,
};

use relay_config::Config;
use relay_model::limits;

use crate::diagnostics::is_without_ipv6;

/// Number of workers: as configured, or one per core, at most as many as connection ids can address.
pub fn workers(config: &Config) -> usize {
    config.workers.map_or_else(cores, |workers| usize::from(workers.get())).min(limits::WORKERS)
}

/// Number of cores that this process may use.
pub fn cores() -> usize {
    thread::available_parallelism().map_or(1, NonZeroUsize::get)
}

/// Whether the kernel supports IPv6 sockets, which it does even with `disable_ipv6`.
pub fn has_ipv6_sockets() -> bool {
    UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).map_or_else(|error| !is_without_ipv6(&error), |_| true)
}
