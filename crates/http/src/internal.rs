//! Private listener: queries of operators and their tools, and the few actions they have. Never on a public port: every
//! client that reaches it is trusted with all of it.
//!
//! | route | answer |
//! | --- | --- |
//! | `GET /health` | 200 if every thread of the relay answers; 503 names those that do not |
//! | `GET /ready` | 200 while new sessions are taken; 503 from the beginning of a drain on |
//! | `GET /status` | as on the public port |
//! | `GET /sessions`, `/broadcasts` | JSON, in pages |
//! | `GET /nodes` | the relays of the cluster: this one |
//! | `GET /metrics` | counters in Prometheus' text format |
//! | `POST /sessions/{id}/kick` | ends a session |
//! | `POST /drain` | starts leaving, as SIGTERM does |
//!
//! A page of another site must not act here through its visitor's browser: see [`guard`].

mod actions;
mod guard;
mod list;
mod metrics;

use axum::{
    Router,
    extract::{DefaultBodyLimit, State},
    http::{HeaderValue, StatusCode, header},
    middleware::from_fn,
    response::Response,
    routing::{get, post},
};
use relay_model::Path;
use relay_worker::{ListingQuery, SessionQuery};
use serde::Serialize;
use tower_http::set_header::SetResponseHeaderLayer;

use crate::status::{self, Status, answer, gather, json, schema};

/// Largest request body, bytes: a reason and a code.
const BODY_BYTES: usize = 4 * 1_024;

/// All routes of the private listener.
pub fn router(status: Status) -> Router {
    let own = Router::new()
        .route("/health", get(health))
        .route("/ready", get(ready))
        .route("/sessions", get(list::sessions))
        .route("/sessions/{id}/kick", post(actions::kick))
        .route("/broadcasts", get(list::broadcasts))
        .route("/nodes", get(nodes))
        .route("/metrics", get(metrics::metrics))
        .route("/drain", post(actions::drain))
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(SetResponseHeaderLayer::overriding(
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ))
        .layer(from_fn(guard::same_site))
        .with_state(status.clone());
    own.merge(status::router(status))
}

#[derive(Serialize)]
struct Health {
    status: &'static str,
    /// Threads that did not answer.
    silent: Vec<String>,
}

/// Sends an empty query to every worker and core.
async fn health(State(status): State<Status>) -> Response {
    let inspector = status.inspector();
    let wanted = SessionQuery { prefix: Path::root(), after: None, limit: 0 };
    let look = ListingQuery { prefix: Path::root(), after: None, broadcasts: 0, tracks: 0 };
    let (sessions, core) =
        tokio::join!(gather::sessions(inspector, wanted), gather::broadcasts(inspector, look));
    let mut silent: Vec<String> = sessions.silent().collect();
    if core.is_none() {
        silent.push("control".to_owned());
    }
    let (code, word) = match silent.is_empty() {
        true => (StatusCode::OK, "ok"),
        false => (StatusCode::SERVICE_UNAVAILABLE, "stuck"),
    };
    answer(code, json(&Health { status: word, silent }))
}

async fn ready(State(status): State<Status>) -> Response {
    match status.is_draining() {
        false => answer(StatusCode::OK, r#"{"ready":true}"#),
        true => answer(StatusCode::SERVICE_UNAVAILABLE, r#"{"ready":false}"#),
    }
}

#[derive(Serialize)]
struct Nodes {
    nodes: Vec<Node>,
}

#[derive(Serialize)]
struct Node {
    /// Whether this relay is the one that answers.
    #[serde(rename = "self")]
    is_self: bool,
    #[serde(flatten)]
    relay: schema::RelayJson,
}

/// Lists this relay alone: there is no cluster yet.
async fn nodes(State(status): State<Status>) -> Response {
    answer(StatusCode::OK, json(&Nodes { nodes: vec![Node { is_self: true, relay: status.about() }] }))
}
