//! Thread that polls the certificate files, so that a hanging file system blocks nothing else.

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

/// Polling interval. A change is in use after two polls at the latest.
const PERIOD: Duration = Duration::from_millis(500);
/// Duration after which a poll counts as hung.
const HANGS: Duration = Duration::from_secs(30);

/// Reloads a store when its files change, until dropped.
pub struct Watcher {
    /// Dropping the sender ends the thread.
    _alive: mpsc::SyncSender<()>,
    found: Arc<Mutex<Found>>,
}

/// Result of the last poll.
struct Found {
    /// Time of that poll.
    at: Instant,
    trouble: Option<String>,
}

impl Watcher {
    /// Starts polling. `asked`: set to reload the files at once.
    ///
    /// # Errors
    /// The thread cannot be started.
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

    /// Current failure to reload the files, if any.
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
    fn hung_poll_is_reported() {
        let at = Instant::now();
        let found = Found { at, trouble: None };
        assert_eq!(found.trouble_at(at + HANGS), None);
        assert!(found.trouble_at(at + HANGS * 2).is_some_and(|trouble| trouble.contains("does not answer")));
    }
}
