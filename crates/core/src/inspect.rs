//! What is served right now, for people to look at. Nothing here changes anything.

use std::{collections::BTreeMap, time::Instant};

use relay_model::{LogId, Path, SessionId, TrackName, Want};

use crate::{core::Core, log::Log, route::Broadcast};

/// Which broadcasts to list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Look {
    /// This path and what lies below it.
    pub prefix: Path,
    /// Only what comes after this path in the order of paths.
    pub after: Option<Path>,
    /// At most so many broadcasts, the first ones in the order of paths.
    pub broadcasts: usize,
    /// At most so many tracks, over all of them.
    pub tracks: usize,
}

/// Broadcasts that are served.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In the order of paths, as far as the limit went.
    pub broadcasts: Vec<BroadcastSeen>,
    /// How many there are, whatever the limit and where the listing begins.
    pub total: usize,
}

/// A broadcast that somebody publishes now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BroadcastSeen {
    /// Absolute path.
    pub path: Path,
    /// Since when it has had a route without a break.
    pub since: Option<Instant>,
    /// The session of its best route.
    pub publisher: Option<SessionId>,
    /// Sessions that subscribe to any of its tracks.
    pub viewers: usize,
    /// In the order of names, as far as the limit went.
    pub tracks: Vec<TrackSeen>,
}

/// A track that somebody asked for lately.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackSeen {
    /// Its name.
    pub name: TrackName,
    /// Sessions that subscribe to it.
    pub viewers: usize,
    /// The logs that carry it: one, unless there are several ways to it.
    pub logs: Vec<LogId>,
}

impl Core {
    /// Lists what is served. Takes time in proportion to the paths known and the readers of what is listed.
    pub fn look(&self, look: &Look) -> Listing {
        let served = self.broadcasts.iter().filter(|(_, broadcast)| broadcast.is_served());
        let mut found: Vec<(&Path, &Broadcast)> =
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

    /// Tracks are listed while there is `room`.
    fn look_at(&self, path: &Path, broadcast: &Broadcast, room: &mut usize) -> BroadcastSeen {
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

/// The sessions that get groups of these logs as they come.
fn viewers<'a>(logs: impl Iterator<Item = &'a Log>) -> Vec<SessionId> {
    let readers = logs.flat_map(Log::readers).filter(|(_, reading)| reading.want == Want::Live);
    distinct(readers.map(|((session, _), _)| *session).collect())
}

fn distinct(mut sessions: Vec<SessionId>) -> Vec<SessionId> {
    // Runs that are in order already: the stable sort merges them.
    sessions.sort();
    sessions.dedup();
    sessions
}
