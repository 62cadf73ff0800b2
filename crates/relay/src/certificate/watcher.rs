//! The thread that looks at the files. A file system that hangs must not hold up anything else.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, Instant, SystemTime},
};

use super::Store;

/// How often the files are read. A change is in use after two looks at the latest.
const PERIOD: Duration = Duration::from_millis(500);
/// A look that takes longer than that hangs.
const HANGS: Duration = Duration::from_secs(30);

/// Keeps a store up with its files for as long as it lives.
pub struct Watcher {
    /// Dropped with the watcher: the thread ends then.
    _alive: mpsc::SyncSender<()>,
    found: Arc<Mutex<Found>>,
}

/// What the last look found.
struct Found {
    /// When it was done.
    at: Instant,
    trouble: Option<String>,
}

impl Watcher {
    /// Starts looking. `asked`: set to have the files taken up at once, as they are.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(mut store: Store, asked: Arc<AtomicBool>) -> io::Result<Self> {
        let (alive, ended) = mpsc::sync_channel::<()>(0);
        let found = Arc::new(Mutex::new(Found { at: Instant::now(), trouble: None }));
        let told = found.clone();
        thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let hurry = asked.swap(false, Ordering::Relaxed);
                for news in store.look(SystemTime::now(), hurry) {
                    news.log();
                }
                let trouble = store.trouble().map(str::to_owned);
                *told.lock().unwrap_or_else(PoisonError::into_inner) = Found { at: Instant::now(), trouble };
            }
        })?;
        Ok(Self { _alive: alive, found })
    }

    /// What is wrong with the files now, if anything.
    pub fn trouble(&self) -> Option<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).trouble_at(Instant::now())
    }
}

impl Found {
    fn trouble_at(&self, now: Instant) -> Option<String> {
        let hangs = now.saturating_duration_since(self.at) > HANGS;
        let hung = || "the certificates cannot be read again: the file system does not answer".to_owned();
        if hangs { Some(hung()) } else { self.trouble.clone() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_look_that_hangs_is_noticed() {
        let at = Instant::now();
        let found = Found { at, trouble: None };
        assert_eq!(found.trouble_at(at + HANGS), None);
        assert!(found.trouble_at(at + HANGS * 2).is_some_and(|trouble| trouble.contains("does not answer")));
    }
}
