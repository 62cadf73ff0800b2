//! Liveness of the threads of a relay.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Turn counter of one thread, read by another.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beats(Arc<AtomicU64>);

impl Beats {
    /// Counts a turn. Relaxed, as it orders nothing else.
    pub(crate) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Liveness monitor of all threads of a relay.
#[derive(Debug)]
pub(crate) struct Pulse {
    threads: Vec<Thread>,
}

#[derive(Debug)]
struct Thread {
    name: String,
    beats: Beats,
    seen: u64,
}

impl Pulse {
    /// Creates a monitor without threads.
    pub(crate) fn new() -> Self {
        Self { threads: Vec::new() }
    }

    /// Adds a thread; returns the counter it must increment each turn.
    pub(crate) fn follow(&mut self, name: &str) -> Beats {
        let beats = Beats::default();
        self.threads.push(Thread { name: name.to_owned(), beats: beats.clone(), seen: 0 });
        beats
    }

    /// Names of the threads without a turn since the last call.
    pub(crate) fn look(&mut self) -> Vec<String> {
        let mut silent = Vec::new();
        for thread in &mut self.threads {
            let count = thread.beats.count();
            if std::mem::replace(&mut thread.seen, count) == count {
                silent.push(thread.name.clone());
            }
        }
        silent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_without_a_turn_since_the_last_look_is_reported() {
        let mut pulse = Pulse::new();
        let (a, b) = (pulse.follow("a"), pulse.follow("b"));
        assert_eq!(pulse.look(), ["a", "b"]);
        a.beat();
        b.beat();
        assert!(pulse.look().is_empty());
        b.beat();
        assert_eq!(pulse.look(), ["a"]);
    }
}
