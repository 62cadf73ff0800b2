//! Facts about this process for the HTTP status and metrics.

use std::{sync::Arc, time::SystemTime};

use relay_host::limits::memory::{Gauge, Reading};
use relay_http::status::{Figure, Memory, RelayFacts};

use crate::log;

/// Builds the facts for [`relay_http::status::Status`]. `name`: name of this relay; `fingerprint`: hex fingerprint
/// of the current certificate, where browsers need it; `memory`: memory of this machine; `figures`: figures for
/// `/metrics`; `drain`: [`relay_host::signals::StopReasons::asker`].
pub fn about(
    name: &str,
    fingerprint: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    memory: Arc<Gauge>,
    figures: Arc<dyn Fn() -> Vec<Figure> + Send + Sync>,
    drain: Arc<dyn Fn() + Send + Sync>,
) -> RelayFacts {
    RelayFacts {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        name: name.to_owned(),
        fingerprint,
        memory: Arc::new(move || {
            let Reading { limit, resident, .. } = memory.read();
            Memory { resident, limit: memory.is_known().then_some(limit) }
        }),
        figures,
        drain,
    }
}

/// Function that gives the earliest `notAfter` of some certificates at the time of each call.
pub type ValidityEnd = Box<dyn Fn() -> SystemTime + Send + Sync>;

/// Counters and gauges of this process. `ends`: earliest certificate expiry of each listener.
pub fn figures(ends: &[ValidityEnd]) -> Vec<Figure> {
    let end = ends.iter().map(|end| end()).min();
    let seconds = end.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
    vec![
        Figure {
            name: "log_lines_dropped_total",
            help: "Log lines dropped because standard error was blocked or failed.",
            value: log::dropped(),
        },
        Figure {
            name: "certificate_not_after_seconds",
            help: "Unix time at which the first of the certificates in use expires.",
            value: seconds.unwrap_or_default().as_secs(),
        },
        Figure {
            name: "certificate_expired",
            help: "1 while a certificate in use is expired and clients reject it, else 0.",
            value: end.is_some_and(|end| end < SystemTime::now()).into(),
        },
    ]
}
