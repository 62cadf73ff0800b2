//! Current state of a relay: `GET /status`, once or as a stream.
//!
//! Nothing is gathered without watchers. A watcher takes a *place*; while there is one, one task samples the relay once
//! a second and builds one body for each requested path, which its watchers share. Places are bounded, and one whose
//! events are not taken is released.

pub(crate) mod gather;
mod rates;
pub(crate) mod schema;
mod stream;
mod watch;

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use bytes::Bytes;
use parking_lot::Mutex;
use relay_model::{Path, PathError};
use relay_worker::{Inspector, ListingQuery, Relay, SessionQuery};
use serde::Deserialize;

use gather::{LISTED, TRACKS};
use rates::{Rates, Totals};
use watch::{WatchLimits, Watching};

/// Prefix of an event.
const EVENT: &str = "event: status\ndata: ";
const EVENT_END: &str = "\n\n";
/// Time limit of a snapshot: two queries, and a sample that is in progress.
const SNAPSHOT: Duration = Duration::from_secs(5);

/// Memory figures from the system, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Memory {
    /// Resident memory of this process.
    pub resident: u64,
    /// Memory limit, if there is one.
    pub limit: Option<u64>,
}

/// A counter or gauge of the binary, for `/metrics`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Figure {
    /// Name without the relay's prefix; that of a counter ends with `_total`.
    pub name: &'static str,
    /// Help text, a sentence for operators.
    pub help: &'static str,
    /// Current value.
    pub value: u64,
}

impl Figure {
    pub(crate) fn kind(&self) -> &'static str {
        if self.name.ends_with("_total") { "counter" } else { "gauge" }
    }
}

/// Facts about a relay that only the binary knows. The functions are called off the workers' threads, at most once a
/// second while there are watchers, and must be quick.
#[derive(Clone)]
pub struct RelayFacts {
    /// Version of the program.
    pub version: String,
    /// Display name of this relay.
    pub name: String,
    /// SHA-256 of the certificate in hexadecimal, where browsers pin it.
    pub fingerprint: Arc<dyn Fn() -> Option<String> + Send + Sync>,
    /// Current memory figures.
    pub memory: Arc<dyn Fn() -> Memory + Send + Sync>,
    /// Counters and gauges of the binary itself.
    pub figures: Arc<dyn Fn() -> Vec<Figure> + Send + Sync>,
    /// Starts a drain, as SIGTERM does. Called at most once, and must not block.
    pub drain: Arc<dyn Fn() + Send + Sync>,
}

impl fmt::Debug for RelayFacts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { version, name, .. } = self;
        f.debug_struct("About").field("version", version).field("name", name).finish_non_exhaustive()
    }
}

/// Status service of a relay; a handle. Used on a tokio runtime with time.
#[derive(Clone)]
pub struct Status(Arc<StatusInner>);

struct StatusInner {
    relay: Arc<Relay>,
    inspector: Inspector,
    about: RelayFacts,
    /// Whether a drain was requested here.
    drained: AtomicBool,
    watching: Watching,
    rates: Mutex<Rates>,
}

impl Status {
    /// Creates the service for `relay`.
    pub fn new(relay: Arc<Relay>, about: RelayFacts) -> Self {
        Self::with_pace(relay, about, WatchLimits::default())
    }

    fn with_pace(relay: Arc<Relay>, about: RelayFacts, pace: WatchLimits) -> Self {
        let inspector = relay.inspect();
        let (watching, rates) = (Watching::new(pace), Mutex::default());
        Self(Arc::new(StatusInner {
            relay,
            inspector,
            about,
            drained: AtomicBool::new(false),
            watching,
            rates,
        }))
    }

    /// Number of watchers.
    pub fn watchers(&self) -> usize {
        self.0.watching.places()
    }

    pub(crate) fn relay(&self) -> &Relay {
        &self.0.relay
    }

    pub(crate) fn inspector(&self) -> &Inspector {
        &self.0.inspector
    }

    /// Counters and gauges of the binary.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        (self.0.about.figures)()
    }

    /// Whether the relay is draining or about to end.
    pub(crate) fn is_draining(&self) -> bool {
        self.0.drained.load(Ordering::Relaxed) || !self.0.relay.is_ready()
    }

    /// Has the binary drain the relay; repeated calls do nothing.
    pub(crate) fn drain(&self) {
        if !self.is_draining() && !self.0.drained.swap(true, Ordering::Relaxed) {
            tracing::info!("drain requested over HTTP");
            (self.0.about.drain)();
        }
    }

    /// Description of the relay.
    pub(crate) fn about(&self) -> schema::RelayJson {
        let StatusInner { relay, inspector, about, .. } = &*self.0;
        schema::RelayJson {
            version: about.version.clone(),
            name: about.name.clone(),
            uptime_s: inspector.started().elapsed().as_secs(),
            workers: inspector.workers(),
            draining: self.is_draining(),
            address: relay.local_addr().to_string(),
            fingerprint: (about.fingerprint)(),
        }
    }

    /// Samples the state of the relay, without its broadcasts.
    async fn sample(&self) -> Sample {
        let wanted = SessionQuery { prefix: Path::root(), after: None, limit: LISTED };
        let sessions = gather::sessions(&self.0.inspector, wanted).await;
        let (relay, silent) = (self.about(), sessions.silent().collect::<Vec<_>>());
        let counts = self.0.inspector.counts();
        let memory = (self.0.about.memory)();
        let mut rates = self.0.rates.lock();
        rates.turn(Instant::now(), totals(&sessions));
        // For a worker that did not answer, its last published totals.
        let moved = sessions.workers.iter().zip(&counts.workers);
        let moved = moved.map(|(answer, shown)| answer.map_or_else(|| shown.into(), |(_, moved)| moved));
        let (in_bps, out_bps) = rates.traffic();
        let mut traffic =
            schema::Traffic { bytes_in: 0, bytes_out: 0, frames_in: 0, frames_out: 0, in_bps, out_bps };
        for relay_worker::WorkerTraffic { bytes_in, bytes_out, frames_in, frames_out } in moved {
            traffic.bytes_in += bytes_in;
            traffic.bytes_out += bytes_out;
            traffic.frames_in += frames_in;
            traffic.frames_out += frames_out;
        }
        let session = |seen: &relay_worker::SessionSeen| {
            let (received, sent) = rates.session(seen.id);
            schema::SessionJson {
                in_bps: Some(received),
                out_bps: Some(sent),
                ..schema::SessionJson::new(seen)
            }
        };
        let load = schema::Load::new(rates.cores(), memory, &counts);
        let sessions_total = sessions.total;
        let sessions: Vec<schema::SessionJson> = sessions.list.iter().map(session).collect();
        let head = Head { relay, load, traffic, sessions, sessions_total };
        Sample { head: json(&head), silent }
    }

    /// Event for the watchers of `path`, with the part that all watchers share.
    async fn event(&self, sample: &Sample, path: Option<&Path>) -> Bytes {
        let prefix = path.cloned().unwrap_or_else(Path::root);
        let look = ListingQuery { prefix, after: None, broadcasts: LISTED, tracks: TRACKS };
        let found = gather::broadcasts(&self.0.inspector, look).await;
        let mut silent = sample.silent.clone();
        if found.is_none() {
            silent.push("control".to_owned());
        }
        let found = found.unwrap_or_default();
        let mut rates = self.0.rates.lock();
        let mut broadcasts = Vec::with_capacity(found.list.len());
        for seen in &found.list {
            let measured: Vec<u64> = seen.tracks.iter().map(|track| rates.logs(&track.logs)).collect();
            let mut broadcast = schema::BroadcastJson::new(seen, |_| None);
            for (track, rate) in broadcast.tracks.iter_mut().zip(measured) {
                track.in_bps = Some(rate);
            }
            broadcasts.push(broadcast);
        }
        drop(rates);
        let tail = json(&Tail { broadcasts, broadcasts_total: found.total, silent });
        // Both are objects, and neither is empty.
        let (head, tail) = (sample.head.trim_end_matches('}'), tail.trim_start_matches('{'));
        Bytes::from(format!("{EVENT}{head},{tail}{EVENT_END}"))
    }
}

impl fmt::Debug for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Status").field("about", &self.0.about).finish_non_exhaustive()
    }
}

/// State of the relay at one time, for all watchers.
struct Sample {
    /// [`Head`] as JSON.
    head: String,
    /// Threads that did not answer.
    silent: Vec<String>,
}

/// Part of an event that all watchers share.
#[derive(serde::Serialize)]
struct Head {
    relay: schema::RelayJson,
    load: schema::Load,
    traffic: schema::Traffic,
    sessions: Vec<schema::SessionJson>,
    sessions_total: usize,
}

/// Part of an event that depends on the requested path.
#[derive(serde::Serialize)]
struct Tail {
    broadcasts: Vec<schema::BroadcastJson>,
    broadcasts_total: usize,
    /// Threads that did not answer; their data is missing.
    silent: Vec<String>,
}

fn totals(sessions: &gather::Sessions) -> Totals {
    Totals {
        workers: sessions.workers.clone(),
        cpu: cpu(),
        sessions: sessions.list.iter().map(|seen| (seen.id, (seen.bytes_in, seen.bytes_out))).collect(),
        logs: HashMap::new(),
    }
}

/// CPU time of this process.
fn cpu() -> Duration {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    let (seconds, nanos) = (u64::try_from(time.tv_sec), u32::try_from(time.tv_nsec));
    Duration::new(seconds.unwrap_or(0), nanos.unwrap_or(0))
}

/// Serializes plain data, which cannot fail.
pub(crate) fn json(value: &impl serde::Serialize) -> String {
    serde_json::to_string(value).unwrap_or_else(|_| "{}".to_owned())
}

/// JSON answer, which is not cached.
pub(crate) fn answer(status: StatusCode, json: impl Into<Body>) -> Response {
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, json.into()).into_response()
}

/// Text answer of one line.
pub(crate) fn text_line(status: StatusCode, text: impl fmt::Display) -> Response {
    let headers = [(header::CONTENT_TYPE, "text/plain; charset=utf-8"), (header::CACHE_CONTROL, "no-store")];
    (status, headers, format!("{text}\n")).into_response()
}

/// Parses the path of a query; `None` for the root.
pub(crate) fn path(raw: Option<&str>) -> Result<Option<Path>, PathError> {
    Ok(raw.map(Path::parse).transpose()?.filter(|path| !path.is_root()))
}

/// `GET /status`.
pub fn router(status: Status) -> Router {
    Router::new().route("/status", get(status_of)).with_state(status)
}

#[derive(Deserialize)]
struct StatusQuery {
    path: Option<String>,
}

async fn status_of(
    State(status): State<Status>,
    Query(StatusQuery { path: raw }): Query<StatusQuery>,
    headers: HeaderMap,
) -> Response {
    let path = match path(raw.as_deref()) {
        Ok(path) => path,
        Err(error) => return text_line(StatusCode::BAD_REQUEST, format_args!("path: {error}")),
    };
    let Some(mut place) = watch::add_watcher(&status, path) else {
        let mut response =
            text_line(StatusCode::SERVICE_UNAVAILABLE, "too many status watchers; try again later");
        response.headers_mut().insert(header::RETRY_AFTER, header::HeaderValue::from_static("5"));
        return response;
    };
    if wants_events(&headers) {
        return stream::response(place);
    }
    match tokio::time::timeout(SNAPSHOT, place.next()).await {
        Ok(Some(event)) => {
            let end = event.len().saturating_sub(EVENT_END.len());
            let body = if event.len() > EVENT.len() { event.slice(EVENT.len().min(end)..end) } else { event };
            answer(StatusCode::OK, body)
        }
        _ => text_line(StatusCode::GATEWAY_TIMEOUT, "the relay did not answer in time"),
    }
}

/// Whether the client asks for a stream of events.
fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    accepted.flat_map(|value| value.split(',')).any(|part| {
        part.split(';').next().is_some_and(|kind| kind.trim().eq_ignore_ascii_case("text/event-stream"))
    })
}

#[cfg(test)]
mod tests;
