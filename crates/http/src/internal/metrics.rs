//! Counters in Prometheus' text format.

use std::{collections::HashMap, fmt::Write};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use relay_meter::Worker;
use relay_worker::Footprint;

use crate::status::Status;

/// Answers with the counters and gauges of all workers, core and the store. No thread is queried.
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
        ("broadcasts", "Announced paths.", counts.store.board_paths as u64),
        ("subscriptions", "Active subscriptions.", counts.core.readers as u64),
        ("tracks", "Track logs; one track may have several.", counts.core.logs as u64),
        ("cache_bytes", "Size of the cache, bytes.", counts.store.bytes),
        ("cache_limit_bytes", "Target size of the cache, bytes.", counts.store.capacity),
        (
            "state_bytes",
            "Memory of client sessions and HTTP connections, without the cache, bytes.",
            counts.state.clients,
        ),
        (
            "state_limit_bytes",
            "Limit of the memory of client sessions, bytes; above three quarters the largest sessions are closed.",
            counts.state.clients_limit,
        ),
        ("state_peers_bytes", "Memory of sessions with other relays, bytes.", counts.state.peers),
        (
            "state_peers_limit_bytes",
            "Memory limit of sessions with other relays, bytes.",
            counts.state.peers_limit,
        ),
        (
            "state_ghosts_bytes",
            "Memory of stale routes and of tracks without readers, bytes.",
            counts.state.stale_bytes,
        ),
        ("draining", "1 once a drain has begun, else 0.", status.is_draining().into()),
    ];
    for (name, help, value) in held {
        put(&mut text, name, "gauge", help, value);
    }
    let tally = counts.tally;
    let refused = [
        (
            "tracks_missing_total",
            "Subscriptions refused without asking the publisher, which had no such track a moment before.",
            tally.missing,
        ),
        (
            "subscriptions_braked_total",
            "Subscriptions delayed because their session mostly requests missing tracks.",
            tally.braked,
        ),
        (
            "subscriptions_brake_refused_total",
            "Subscriptions refused because too many of their session were delayed already.",
            tally.brake_refused,
        ),
    ];
    for (name, help, value) in refused {
        put(&mut text, name, "counter", help, value);
    }
    let classes = Footprint::NAMES.into_iter().zip(counts.state.classes);
    for (class, bytes) in classes {
        let help = format!("Memory of sessions in the class {class}, bytes.");
        put(&mut text, &format!("state_{class}_bytes"), "gauge", &help, bytes);
    }
    for figure in status.figures() {
        put(&mut text, figure.name, figure.kind(), figure.help, figure.value);
    }
    let evicted = "Bytes evicted from the cache.";
    put(&mut text, "cache_evicted_bytes_total", "counter", evicted, counts.store.evicted_bytes);
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (StatusCode::OK, headers, text).into_response()
}

fn put(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let name = format_args!("moq_relay_{name}");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}
