//! Counters in Prometheus' text format.

use std::{collections::HashMap, fmt::Write};

use axum::{
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use relay_meter::Worker;
use relay_worker::{Footprint, RelayCounts};

use crate::status::{Figure, Status};

/// Answers with the counters and gauges of all workers, core and the store. No thread is queried.
pub(super) async fn metrics(State(status): State<Status>) -> Response {
    let counts = status.relay().counts();
    let mut text = String::new();
    put_workers(&mut text, &counts);
    for figure in gauges(&counts, status.is_draining()).into_iter().chain(refusals(&counts)) {
        put_figure(&mut text, &figure);
    }
    put_state_classes(&mut text, &counts);
    for figure in status.figures() {
        put_figure(&mut text, &figure);
    }
    let help = "Bytes evicted from the cache.";
    let evicted = Figure { name: "cache_evicted_bytes_total", help, value: counts.store.evicted_bytes };
    put_figure(&mut text, &evicted);
    let headers = [(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")];
    (StatusCode::OK, headers, text).into_response()
}

/// Sums over the workers.
fn put_workers(text: &mut String, counts: &RelayCounts) {
    let total = counts.total();
    let help: HashMap<_, _> = Worker::help().collect();
    let help = |name| help.get(name).map_or("", |text| text.trim());
    for (name, value) in total.counters() {
        put(text, &format!("{name}_total"), "counter", help(name), value);
    }
    for (name, value) in total.gauges() {
        put(text, name, "gauge", help(name), value);
    }
}

/// Sizes and limits of what the relay holds.
fn gauges(counts: &RelayCounts, is_draining: bool) -> [Figure; 11] {
    let RelayCounts { store, core, state, .. } = counts;
    let gauge = |name, value, help| Figure { name, help, value };
    [
        gauge("broadcasts", store.board_paths as u64, "Announced paths."),
        gauge("subscriptions", core.readers as u64, "Active subscriptions."),
        gauge("tracks", core.logs as u64, "Track logs; one track may have several."),
        gauge("cache_bytes", store.bytes, "Size of the cache, bytes."),
        gauge("cache_limit_bytes", store.capacity, "Target size of the cache, bytes."),
        gauge(
            "state_bytes",
            state.clients,
            "Memory of client sessions and HTTP connections, without the cache, bytes.",
        ),
        gauge(
            "state_limit_bytes",
            state.clients_limit,
            "Limit of the memory of client sessions, bytes; above three quarters the largest sessions are closed.",
        ),
        gauge("state_peers_bytes", state.peers, "Memory of sessions with other relays, bytes."),
        gauge(
            "state_peers_limit_bytes",
            state.peers_limit,
            "Memory limit of sessions with other relays, bytes.",
        ),
        gauge(
            "state_ghosts_bytes",
            state.stale_bytes,
            "Memory of stale routes and of tracks without readers, bytes.",
        ),
        gauge("draining", is_draining.into(), "1 once a drain has begun, else 0."),
    ]
}

/// Subscriptions that core delayed or refused.
fn refusals(counts: &RelayCounts) -> [Figure; 3] {
    let tally = &counts.tally;
    let counter = |name, value, help| Figure { name, help, value };
    [
        counter(
            "tracks_missing_total",
            tally.missing,
            "Subscriptions refused without asking the publisher, which had no such track a moment before.",
        ),
        counter(
            "subscriptions_braked_total",
            tally.braked,
            "Subscriptions delayed because their session mostly requests missing tracks.",
        ),
        counter(
            "subscriptions_brake_refused_total",
            tally.brake_refused,
            "Subscriptions refused because too many of their session were delayed already.",
        ),
    ]
}

/// Memory of sessions, by class of what holds it.
fn put_state_classes(text: &mut String, counts: &RelayCounts) {
    for (class, bytes) in Footprint::NAMES.into_iter().zip(counts.state.classes) {
        let help = format!("Memory of sessions in the class {class}, bytes.");
        put(text, &format!("state_{class}_bytes"), "gauge", &help, bytes);
    }
}

fn put_figure(text: &mut String, figure: &Figure) {
    put(text, figure.name, figure.kind(), figure.help, figure.value);
}

fn put(text: &mut String, name: &str, kind: &str, help: &str, value: u64) {
    let name = format_args!("moq_relay_{name}");
    // Writing to a string cannot fail.
    let _ = writeln!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}");
}
