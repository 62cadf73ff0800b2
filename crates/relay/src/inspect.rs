//! What is told over HTTP of this process.

use std::{sync::Arc, time::SystemTime};

use relay_admin::status::{About, Figure, Memory};

use crate::{
    limits::memory::{Gauge, Reading},
    log,
};

/// What [`relay_admin::status::Status`] is to know. `name`: what people call this relay; `fingerprint`: of the
/// certificate shown now, in hex, where browsers need it; `memory`: of this machine; `figures`:
/// for `/metrics`; `drain`: [`crate::signals::Stop::asker`].
pub fn about(
    name: &str,
    fingerprint: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    memory: Arc<Gauge>,
    figures: Arc<dyn Fn() -> Vec<Figure> + Send + Sync>,
    drain: Arc<dyn Fn() + Send + Sync>,
) -> About {
    About {
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

/// Counters and gauges of this process. `ends`: when the certificates end, by listener.
pub fn figures(ends: &[Box<dyn Fn() -> SystemTime + Send + Sync>]) -> Vec<Figure> {
    let end = ends.iter().map(|end| end()).min();
    let seconds = end.and_then(|end| end.duration_since(SystemTime::UNIX_EPOCH).ok());
    vec![
        Figure {
            name: "log_lines_dropped_total",
            help: "Log lines dropped because standard error did not take them.",
            value: log::dropped(),
        },
        Figure {
            name: "certificate_not_after_seconds",
            help: "Unix time at which the first of the certificates in use expires.",
            value: seconds.unwrap_or_default().as_secs(),
        },
        Figure {
            name: "certificate_expired",
            help: "1 while a certificate in use is expired: clients refuse it.",
            value: end.is_some_and(|end| end < SystemTime::now()).into(),
        },
    ]
}
