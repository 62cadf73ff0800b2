//! Published copies of the workers' counters.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::Worker;

/// Last published counters of every worker. Reading never touches a worker.
#[derive(Debug)]
pub struct CounterBoard {
    slots: Box<[Mutex<Worker>]>,
}

impl CounterBoard {
    /// A board for `workers` workers.
    pub fn new(workers: usize) -> Self {
        Self { slots: (0..workers).map(|_| Mutex::default()).collect() }
    }

    /// Replaces the published counters of `worker`. An unknown worker is ignored.
    pub fn publish(&self, worker: usize, counters: &Worker) {
        if let Some(slot) = self.slots.get(worker) {
            lock(slot).clone_from(counters);
        }
    }

    /// Last published counters of each worker, in index order.
    pub fn workers(&self) -> Vec<Worker> {
        self.slots.iter().map(|slot| lock(slot).clone()).collect()
    }

    /// The sum over all workers.
    pub fn total(&self) -> Worker {
        let mut total = Worker::default();
        for slot in &self.slots {
            total.add(&lock(slot));
        }
        total
    }
}

/// Locks a slot, ignoring poison: counters are plain data, so a panic leaves nothing inconsistent.
fn lock(slot: &Mutex<Worker>) -> MutexGuard<'_, Worker> {
    slot.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readers_see_the_last_published_copy() {
        let board = CounterBoard::new(2);
        let mut mine = Worker { wakes: 1, ..Worker::default() };
        board.publish(0, &mine);
        mine.wakes = 5;
        assert_eq!(board.total().wakes, 1);
        board.publish(0, &mine);
        board.publish(1, &Worker { wakes: 2, ..Worker::default() });
        board.publish(2, &mine);
        assert_eq!(board.total().wakes, 7);
        assert_eq!(board.workers().iter().map(|w| w.wakes).collect::<Vec<_>>(), [5, 2]);
    }
}
