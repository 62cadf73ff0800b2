//! Counters in Prometheus' text format.

use std::{collections::HashMap, fmt::Write};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use relay_meter::Worker;

use crate::status::Status;

/// Every counter and gauge of the workers together, and what core and the store hold. Asks nobody.
pub(super) async fn metrics(State(status): State<Status>) -> Response {
    let counts = status.relay().counts();
    let total = counts.total();
    let help: HashMap<_, _> = Worker::help().collect();
    let help = |name| help.get(name).map_or("", |text| text.trim());
    let mut text = String::new();
    for (name, value) in total.counters() {
        put(&mut text, &format!("{name}_total"), "counter", help(name), value);
    }
    for (name, value) in total.gauges() {
        put(&mut text, name, "gauge", help(name), value);
    }
    let held = [
        ("broadcasts", "Paths that are announced.", counts.store.board_paths as u64),
        ("subscriptions", "Subscriptions that are served.", counts.core.readers as u64),
        ("tracks", "Logs of tracks.", counts.core.logs as u64),
        ("cache_bytes", "What the cache holds, bytes.", counts.store.bytes),
        ("cache_limit_bytes", "What the cache aims at, bytes.", counts.store.capacity),
        ("draining", "1 from the beginning of a drain on.", status.is_draining().into()),
    ];
    for (name, help, value) in held {
        put(&mut text, name, "gauge", help, value);
    }
    for figure in status.figures() {
        put(&mut text, figure.name, figure.kind(), figure.help, figure.value);
    }
    let evicted = "What the cache let go of, bytes.";
    put(&mut text, "cache_evicted_bytes_total", "counter", evicted, counts.store.evicted_bytes);
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (StatusCode::OK, headers, text).into_response()
}

fn put(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let name = format_args!("moq_relay_{name}");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}
