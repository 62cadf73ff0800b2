//! Whether the threads of a relay still turn.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Counts the turns of one thread; another one looks.
#[derive(Clone, Debug, Default)]
pub(crate) struct Beats(Arc<AtomicU64>);

impl Beats {
    /// A turn was taken. Nobody orders anything by it.
    pub(crate) fn beat(&self) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }

    fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Looks for signs of life of all threads of a relay.
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
    /// Nobody to look after yet.
    pub(crate) fn new() -> Self {
        Self { threads: Vec::new() }
    }

    /// Looks after one more; what it is to count.
    pub(crate) fn follow(&mut self, name: &str) -> Beats {
        let beats = Beats::default();
        self.threads.push(Thread { name: name.to_owned(), beats: beats.clone(), seen: 0 });
        beats
    }

    /// Who has taken no turn since the last look.
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
    fn only_a_thread_that_turned_since_the_last_look_lives() {
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
