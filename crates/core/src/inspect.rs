//! Read-only listing of served broadcasts, for people.

use std::{collections::BTreeMap, time::Instant};

use relay_model::{LogId, Path, SessionId, TrackName, Want};

use crate::{log::CoreLog, log_table::LogTable, path_routes::PathRoutes, route_table::RouteTable};

/// Selection of broadcasts to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListingQuery {
    /// This path and all paths below it.
    pub prefix: Path,
    /// Only paths after this one, in path order.
    pub after: Option<Path>,
    /// Limit on broadcasts: the first ones in path order.
    pub broadcasts: usize,
    /// Limit on tracks, over all broadcasts.
    pub tracks: usize,
}

/// Broadcasts that are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In path order, up to the limit.
    pub broadcasts: Vec<BroadcastSeen>,
    /// Number of matching broadcasts, regardless of the limit and the starting point.
    pub total: usize,
}

/// A broadcast with a usable route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BroadcastSeen {
    /// Absolute path.
    pub path: Path,
    /// Start of the current uninterrupted time with a route.
    pub since: Option<Instant>,
    /// Session of the best route.
    pub publisher: Option<SessionId>,
    /// Sessions that subscribe to any of its tracks.
    pub viewers: usize,
    /// In name order, up to the limit.
    pub tracks: Vec<TrackSeen>,
}

/// A track with a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackSeen {
    /// Its name.
    pub name: TrackName,
    /// Sessions that subscribe to it.
    pub viewers: usize,
    /// Logs that carry the track; more than one only if it is received over several routes.
    pub logs: Vec<LogId>,
}

/// Lists what is served, see [`crate::Core::look`].
pub(crate) fn list(query: &ListingQuery, routes: &RouteTable, logs: &LogTable) -> Listing {
    let served = routes.paths().filter(|(path, routes)| routes.is_served() && path.has_prefix(&query.prefix));
    let mut found: Vec<(&Path, &PathRoutes)> = served.collect();
    let total = found.len();
    if let Some(after) = &query.after {
        found.retain(|(path, _)| *path > after);
    }
    if found.len() > query.broadcasts {
        found.select_nth_unstable_by(query.broadcasts, |a, b| a.0.cmp(b.0));
        found.truncate(query.broadcasts);
    }
    found.sort_unstable_by(|a, b| a.0.cmp(b.0));
    let mut room = query.tracks;
    let broadcasts =
        found.into_iter().map(|(path, routes)| describe(path, routes, logs, &mut room)).collect();
    Listing { broadcasts, total }
}

/// Describes one broadcast, listing tracks while there is `room`.
fn describe(path: &Path, routes: &PathRoutes, logs: &LogTable, room: &mut usize) -> BroadcastSeen {
    let mut by_name: BTreeMap<&TrackName, Vec<LogId>> = BTreeMap::new();
    for (name, logs) in logs.tracks().of_path(path) {
        by_name.entry(name).or_default().extend(logs.iter().copied());
    }
    let mut all_viewers = Vec::new();
    let mut tracks = Vec::new();
    for (name, ids) in by_name {
        let viewers = viewers(ids.iter().filter_map(|log| logs.get(*log)));
        if *room > 0 {
            *room -= 1;
            tracks.push(TrackSeen { name: name.clone(), viewers: viewers.len(), logs: ids });
        }
        all_viewers.extend(viewers);
    }
    BroadcastSeen {
        path: path.clone(),
        since: routes.since(),
        publisher: routes.live().next().map(|best| best.route.session),
        viewers: distinct(all_viewers).len(),
        tracks,
    }
}

/// Sessions with a live subscription to any of these logs.
fn viewers<'a>(logs: impl Iterator<Item = &'a CoreLog>) -> Vec<SessionId> {
    let readers = logs.flat_map(CoreLog::readers).filter(|(_, state)| state.demand.want == Want::Live);
    distinct(readers.map(|(reader, _)| reader.session).collect())
}

fn distinct(mut sessions: Vec<SessionId>) -> Vec<SessionId> {
    // Concatenated sorted runs: the stable sort merges them.
    sessions.sort();
    sessions.dedup();
    sessions
}
