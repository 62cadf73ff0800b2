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

use super::CertificateStore;

/// Polling interval. A change is in use after two polls at the latest.
const PERIOD: Duration = Duration::from_millis(500);
/// Duration after which a poll counts as hung.
const STALLED_AFTER: Duration = Duration::from_secs(30);

/// Reloads a store when its files change, until dropped.
pub struct Watcher {
    /// Dropping the sender ends the thread.
    _alive: mpsc::SyncSender<()>,
    found: Arc<Mutex<PollResult>>,
}

/// Result of the last poll.
struct PollResult {
    /// Time of that poll.
    at: Instant,
    trouble: Option<String>,
}

impl Watcher {
    /// Starts polling. `asked`: set to reload the files at once.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub fn start(mut store: CertificateStore, asked: Arc<AtomicBool>) -> io::Result<Self> {
        let (alive, ended) = mpsc::sync_channel::<()>(0);
        let found = Arc::new(Mutex::new(PollResult { at: Instant::now(), trouble: None }));
        let told = found.clone();
        thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let hurry = asked.swap(false, Ordering::Relaxed);
                for news in store.poll(SystemTime::now(), hurry) {
                    news.log();
                }
                let trouble = store.failure().map(str::to_owned);
                *told.lock().unwrap_or_else(PoisonError::into_inner) =
                    PollResult { at: Instant::now(), trouble };
            }
        })?;
        Ok(Self { _alive: alive, found })
    }

    /// Current failure to reload the files, if any.
    pub fn failure(&self) -> Option<String> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).failure_at(Instant::now())
    }
}

impl PollResult {
    fn failure_at(&self, now: Instant) -> Option<String> {
        let hangs = now.saturating_duration_since(self.at) > STALLED_AFTER;
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
        let found = PollResult { at, trouble: None };
        assert_eq!(found.failure_at(at + STALLED_AFTER), None);
        assert!(
            found
                .failure_at(at + STALLED_AFTER * 2)
                .is_some_and(|trouble| trouble.contains("does not answer"))
        );
    }
}
