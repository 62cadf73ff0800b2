//! Index of the logs by track.

use std::collections::{BTreeMap, HashMap};

use foldhash::fast::RandomState;
use relay_model::{LogId, Path, TrackName};
use smallvec::SmallVec;

use crate::publisher::{PublisherId, TrackKey};

/// Logs that have an upstream or wait for one, by path, publisher and track.
#[derive(Debug, Default)]
pub(crate) struct TrackIndex(HashMap<Path, PathLogs, RandomState>);

/// Logs of the tracks of one path.
type PathLogs = BTreeMap<(PublisherId, TrackName), TrackLogs>;

/// Logs of one track, oldest first; more than one only if a reader may not be served through the route of the
/// first.
pub(crate) type TrackLogs = SmallVec<[LogId; 1]>;

impl TrackIndex {
    /// Adds a log to its track.
    pub(crate) fn add(&mut self, key: &TrackKey, log: LogId) {
        let tracks = self.0.entry(key.path.clone()).or_default();
        tracks.entry((key.publisher, key.track.clone())).or_default().push(log);
    }

    /// Removes a log from its track, if it is there.
    pub(crate) fn remove(&mut self, key: &TrackKey, log: LogId) {
        let Some(tracks) = self.0.get_mut(&key.path) else { return };
        let track = (key.publisher, key.track.clone());
        if let Some(logs) = tracks.get_mut(&track) {
            logs.retain(|other| *other != log);
            if logs.is_empty() {
                tracks.remove(&track);
            }
        }
        if tracks.is_empty() {
            self.0.remove(&key.path);
        }
    }

    /// Logs of one track.
    pub(crate) fn of_track(&self, key: &TrackKey) -> &[LogId] {
        let logs = self.0.get(&key.path).and_then(|logs| logs.get(&(key.publisher, key.track.clone())));
        logs.map_or(&[], |logs| logs.as_slice())
    }

    /// Logs of all tracks of `path`, in the order of publishers and tracks.
    pub(crate) fn of_path(&self, path: &Path) -> impl Iterator<Item = (&TrackName, &TrackLogs)> {
        self.0.get(path).into_iter().flatten().map(|((_, track), logs)| (track, logs))
    }

    /// Paths with a log.
    pub(crate) fn paths(&self) -> impl ExactSizeIterator<Item = &Path> {
        self.0.keys()
    }

    /// All logs, in no order, and the path that each is listed under.
    pub(crate) fn logs(&self) -> impl Iterator<Item = (&Path, LogId)> {
        self.0.iter().flat_map(|(path, tracks)| tracks.values().flatten().map(move |log| (path, *log)))
    }

    /// Asserts that nothing empty is kept.
    pub(crate) fn check(&self) {
        let is_filled =
            |tracks: &PathLogs| !tracks.is_empty() && tracks.values().all(|logs| !logs.is_empty());
        assert!(self.0.values().all(is_filled), "track without a log was kept");
    }
}

#[cfg(test)]
mod tests {
    use relay_model::Hop;

    use super::*;

    fn key(path: &str, publisher: u64) -> TrackKey {
        TrackKey {
            path: Path::parse(path).unwrap(),
            publisher: PublisherId::Named(Hop(publisher)),
            track: TrackName::parse("video").unwrap(),
        }
    }

    #[test]
    fn logs_are_found_by_publisher_and_removed_one_by_one() {
        let mut index = TrackIndex::default();
        index.add(&key("a", 1), LogId(1));
        index.add(&key("a", 1), LogId(2));
        index.add(&key("a", 2), LogId(3));
        assert_eq!(index.of_track(&key("a", 1)), [LogId(1), LogId(2)]);
        assert_eq!(index.of_path(&key("a", 0).path).map(|(_, logs)| logs.len()).sum::<usize>(), 3);
        index.remove(&key("a", 1), LogId(1));
        index.remove(&key("b", 1), LogId(1));
        assert_eq!(index.of_track(&key("a", 1)), [LogId(2)]);
        index.check();
        index.remove(&key("a", 1), LogId(2));
        index.remove(&key("a", 2), LogId(3));
        assert_eq!((index.paths().len(), index.logs().count()), (0, 0));
    }
}
