//! Counters in Prometheus' text format.

use std::fmt::Write;

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};

use crate::status::Status;

/// Every counter and gauge of the workers together, and what core and the store hold. Asks nobody.
pub(super) async fn metrics(State(status): State<Status>) -> Response {
    let counts = status.relay().counts();
    let total = counts.total();
    let mut text = String::new();
    for (name, value) in total.counters() {
        put(&mut text, &format!("{name}_total"), "counter", value);
    }
    for (name, value) in total.gauges() {
        put(&mut text, name, "gauge", value);
    }
    let held = [
        ("broadcasts", counts.store.board_paths as u64),
        ("subscriptions", counts.core.readers as u64),
        ("tracks", counts.core.logs as u64),
        ("cache_bytes", counts.store.bytes),
        ("cache_limit_bytes", counts.store.capacity),
        ("draining", status.is_draining().into()),
    ];
    for (name, value) in held {
        put(&mut text, name, "gauge", value);
    }
    put(&mut text, "cache_evicted_bytes_total", "counter", counts.store.evicted_bytes);
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (StatusCode::OK, headers, text).into_response()
}

fn put(text: &mut String, name: &str, kind: &str, value: u64) {
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# TYPE moq_relay_{name} {kind}\nmoq_relay_{name} {value}");
}
