//! JSON types of the status.

use relay_model::SessionId;
use relay_worker::SessionSeen;
use serde::{Serialize, Serializer};

use super::{
    Memory,
    gather::{BroadcastStats, TrackStats},
};

/// The relay itself.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct RelayJson {
    pub(crate) version: String,
    pub(crate) name: String,
    pub(crate) uptime_s: u64,
    pub(crate) workers: usize,
    pub(crate) draining: bool,
    /// Listen address of QUIC.
    pub(crate) address: String,
    /// SHA-256 of the certificate in hexadecimal, where browsers pin it.
    pub(crate) fingerprint: Option<String>,
}

/// Resource use of the relay.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Load {
    pub(crate) cpu_cores: f64,
    pub(crate) memory_bytes: u64,
    pub(crate) memory_limit_bytes: Option<u64>,
    pub(crate) cache_bytes: u64,
    pub(crate) cache_limit_bytes: u64,
    /// Memory of sessions, without the cache.
    pub(crate) state_bytes: u64,
    pub(crate) state_limit_bytes: u64,
}

impl Load {
    pub(crate) fn new(cpu_cores: f64, memory: Memory, counts: &relay_worker::RelayCounts) -> Self {
        let (store, state) = (&counts.store, &counts.state);
        Self {
            // Rounded to a hundredth of a core.
            cpu_cores: (cpu_cores * 100.0).round() / 100.0,
            memory_bytes: memory.resident,
            memory_limit_bytes: memory.limit,
            cache_bytes: store.bytes,
            cache_limit_bytes: store.capacity,
            state_bytes: state.clients + state.peers,
            state_limit_bytes: state.clients_limit + state.peers_limit,
        }
    }
}

/// Totals of all workers, and bits per second since the previous sample.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Traffic {
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    pub(crate) frames_in: u64,
    pub(crate) frames_out: u64,
    pub(crate) in_bps: u64,
    pub(crate) out_bps: u64,
}

/// One session.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct SessionJson {
    #[serde(serialize_with = "as_text")]
    pub(crate) id: SessionId,
    pub(crate) remote: String,
    pub(crate) transport: &'static str,
    pub(crate) version: &'static str,
    pub(crate) path: String,
    pub(crate) age_s: u64,
    pub(crate) rtt_ms: Option<f64>,
    pub(crate) bytes_in: u64,
    pub(crate) bytes_out: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_bps: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) out_bps: Option<u64>,
    pub(crate) publishes: usize,
    pub(crate) subscriptions: usize,
    pub(crate) surplus: usize,
    pub(crate) unrouted: u64,
    pub(crate) state_bytes: u64,
}

impl SessionJson {
    /// Creates an entry without rates.
    pub(crate) fn new(seen: &SessionSeen) -> Self {
        Self {
            id: seen.id,
            remote: seen.remote.to_string(),
            transport: seen.transport,
            version: seen.version,
            path: seen.root.as_str().to_owned(),
            age_s: seen.age.as_secs(),
            rtt_ms: seen.rtt.map(|rtt| (rtt.as_secs_f64() * 1e5).round() / 100.0),
            bytes_in: seen.bytes_in,
            bytes_out: seen.bytes_out,
            in_bps: None,
            out_bps: None,
            publishes: seen.publishes,
            subscriptions: seen.subscriptions,
            surplus: seen.surplus,
            unrouted: seen.unrouted,
            state_bytes: seen.memory,
        }
    }
}

/// One broadcast.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct BroadcastJson {
    pub(crate) path: String,
    pub(crate) age_s: Option<u64>,
    #[serde(serialize_with = "as_maybe_text")]
    pub(crate) publisher: Option<SessionId>,
    pub(crate) viewers: usize,
    pub(crate) tracks: Vec<TrackJson>,
}

/// One track.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct TrackJson {
    pub(crate) name: String,
    pub(crate) viewers: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) in_bps: Option<u64>,
    pub(crate) groups: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
    pub(crate) latest_group: Option<u64>,
    pub(crate) cached_groups: u64,
    pub(crate) cached_bytes: u64,
}

impl BroadcastJson {
    /// Creates an entry; `rate` returns the bits per second of a track, if they are to be shown.
    pub(crate) fn new(seen: &BroadcastStats, rate: impl Fn(&TrackStats) -> Option<u64>) -> Self {
        let track = |track: &TrackStats| TrackJson {
            name: track.name.clone(),
            viewers: track.viewers,
            in_bps: rate(track),
            groups: track.figures.groups,
            frames: track.figures.frames,
            bytes: track.figures.bytes,
            latest_group: track.figures.latest,
            cached_groups: track.figures.cached_groups,
            cached_bytes: track.figures.cached_bytes,
        };
        Self {
            path: seen.path.as_str().to_owned(),
            age_s: seen.age.map(|age| age.as_secs()),
            publisher: seen.publisher,
            viewers: seen.viewers,
            tracks: seen.tracks.iter().map(track).collect(),
        }
    }
}

/// Serializes an id as text: ids exceed the exact integers of JavaScript.
fn as_text<S: Serializer>(id: &SessionId, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

fn as_maybe_text<S: Serializer>(id: &Option<SessionId>, serializer: S) -> Result<S::Ok, S::Error> {
    match id {
        Some(id) => serializer.collect_str(id),
        None => serializer.serialize_none(),
    }
}
