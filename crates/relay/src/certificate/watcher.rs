//! The thread that looks at the files. A file system that hangs must not hold up anything else.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{self, RecvTimeoutError},
    },
    thread,
    time::{Duration, SystemTime},
};

use super::Store;

/// How often the files are read. A change is in use after two looks at the latest.
const PERIOD: Duration = Duration::from_millis(500);

/// Keeps a store up with its files for as long as it lives.
pub struct Watcher {
    /// Dropped with the watcher: the thread ends then.
    _alive: mpsc::SyncSender<()>,
    trouble: Arc<Mutex<Option<String>>>,
}

impl Watcher {
    /// Starts looking. `asked`: set to have the files taken up at once, as they are.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(mut store: Store, asked: Arc<AtomicBool>) -> io::Result<Self> {
        let (alive, ended) = mpsc::sync_channel::<()>(0);
        let trouble = Arc::<Mutex<Option<String>>>::default();
        let found = trouble.clone();
        thread::Builder::new().name("certificates".to_owned()).spawn(move || {
            while ended.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
                let hurry = asked.swap(false, Ordering::Relaxed);
                for news in store.look(SystemTime::now(), hurry) {
                    news.log();
                }
                let trouble = store.trouble().map(str::to_owned);
                *found.lock().unwrap_or_else(PoisonError::into_inner) = trouble;
            }
        })?;
        Ok(Self { _alive: alive, trouble })
    }

    /// What cannot be used now, if anything.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
