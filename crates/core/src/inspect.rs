//! Read-only listing of served broadcasts, for people.

use std::{collections::BTreeMap, time::Instant};

use relay_model::{LogId, Path, SessionId, TrackName, Want};

use crate::{core::Core, log::CoreLog, route::BroadcastState};

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

impl Core {
    /// Lists what is served. Takes time in proportion to the known paths and the readers of what is listed.
    pub fn look(&self, look: &ListingQuery) -> Listing {
        let served = self.broadcasts.iter().filter(|(_, broadcast)| broadcast.is_served());
        let mut found: Vec<(&Path, &BroadcastState)> =
            served.filter(|(path, _)| path.has_prefix(&look.prefix)).collect();
        let total = found.len();
        if let Some(after) = &look.after {
            found.retain(|(path, _)| *path > after);
        }
        if found.len() > look.broadcasts {
            found.select_nth_unstable_by(look.broadcasts, |a, b| a.0.cmp(b.0));
            found.truncate(look.broadcasts);
        }
        found.sort_unstable_by(|a, b| a.0.cmp(b.0));
        let mut room = look.tracks;
        let broadcasts =
            found.into_iter().map(|(path, broadcast)| self.look_at(path, broadcast, &mut room)).collect();
        Listing { broadcasts, total }
    }

    /// Describes one broadcast, listing tracks while there is `room`.
    fn look_at(&self, path: &Path, broadcast: &BroadcastState, room: &mut usize) -> BroadcastSeen {
        let mut by_name: BTreeMap<&TrackName, Vec<LogId>> = BTreeMap::new();
        for (name, logs) in broadcast.tracks() {
            by_name.entry(name).or_default().extend(logs.iter().copied());
        }
        let mut everybody = Vec::new();
        let mut tracks = Vec::new();
        for (name, logs) in by_name {
            let viewers = viewers(logs.iter().filter_map(|log| self.logs.get(log)));
            if *room > 0 {
                *room -= 1;
                tracks.push(TrackSeen { name: name.clone(), viewers: viewers.len(), logs });
            }
            everybody.extend(viewers);
        }
        BroadcastSeen {
            path: path.clone(),
            since: broadcast.since(),
            publisher: broadcast.usable().next().map(|best| best.route.session),
            viewers: distinct(everybody).len(),
            tracks,
        }
    }
}

/// Sessions with a live subscription to any of these logs.
fn viewers<'a>(logs: impl Iterator<Item = &'a CoreLog>) -> Vec<SessionId> {
    let readers = logs.flat_map(CoreLog::readers).filter(|(_, reading)| reading.want == Want::Live);
    distinct(readers.map(|((session, _), _)| *session).collect())
}

fn distinct(mut sessions: Vec<SessionId>) -> Vec<SessionId> {
    // Concatenated sorted runs: the stable sort merges them.
    sessions.sort();
    sessions.dedup();
    sessions
}
