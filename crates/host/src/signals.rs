//! Signals and other reasons for a relay to end: SIGTERM and SIGINT (the first starts a drain, the second exits at
//! once), or a failure of the relay. SIGHUP reloads files. SIGUSR1 and SIGUSR2, on which other relays reload
//! certificates, and SIGXFSZ, which is raised when a log file reaches its size limit, are ignored.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};

use signal_hook::{
    consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2, SIGXFSZ},
    flag,
    iterator::Signals,
};
use tracing::warn;

/// Exit status of a process killed by a signal, without the signal number, by shell convention.
const KILLED: i32 = 128;
/// Capacity of the channel: a signal, a request and a failure may coincide; the first one received decides.
const REASONS: usize = 3;

/// Reason to end.
#[derive(Debug)]
pub enum Reason<E> {
    /// Requested, by this signal or in this way.
    Signal(&'static str),
    /// The relay ended by itself.
    Ended(Result<(), E>),
}

/// Collector of reasons to end.
pub struct StopReasons<E> {
    sender: mpsc::SyncSender<Reason<E>>,
    reasons: mpsc::Receiver<Reason<E>>,
    hangups: Arc<AtomicBool>,
    /// Ignored signals that are logged once.
    ignored: [Ignored; 2],
}

/// A signal that is ignored and logged once.
struct Ignored {
    name: &'static str,
    came: Arc<AtomicBool>,
    is_logged: AtomicBool,
}

impl Ignored {
    fn listen(signal: i32, name: &'static str) -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        flag::register(signal, came.clone())?;
        Ok(Self { name, came, is_logged: AtomicBool::new(false) })
    }

    /// Logs the first occurrence.
    fn log_once(&self) {
        if self.came.swap(false, Ordering::Relaxed) && !self.is_logged.swap(true, Ordering::Relaxed) {
            let name = self.name;
            warn!("{name} is ignored; certificates are reloaded when their files change, or on SIGHUP");
        }
    }
}

impl<E: Send + 'static> StopReasons<E> {
    /// Starts handling signals. A second SIGTERM or SIGINT exits the process at once, with the status of a killed
    /// process.
    pub fn listen() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // The order matters: the first signal finds the flag unset and then sets it.
            flag::register_conditional_shutdown(signal, KILLED + signal, asked.clone())?;
            flag::register(signal, asked.clone())?;
        }
        let hangups = Arc::new(AtomicBool::new(false));
        flag::register(SIGHUP, hangups.clone())?;
        let ignored = [Ignored::listen(SIGUSR1, "SIGUSR1")?, Ignored::listen(SIGUSR2, "SIGUSR2")?];
        flag::register(SIGXFSZ, Arc::default())?;
        let mut signals = Signals::new([SIGTERM, SIGINT])?;
        let (sender, reasons) = mpsc::sync_channel(REASONS);
        let stop = Self { sender, reasons, hangups, ignored };
        stop.on("signals", move || {
            let signal = signals.forever().next();
            Reason::Signal(if signal == Some(SIGINT) { "SIGINT" } else { "SIGTERM" })
        })?;
        Ok(stop)
    }

    /// Flag set by each SIGHUP; the reader of the files clears it.
    pub fn hangups(&self) -> Arc<AtomicBool> {
        self.hangups.clone()
    }

    /// Runs `wait` on a thread called `name`; its result is a reason to end.
    pub fn on(&self, name: &str, wait: impl FnOnce() -> Reason<E> + Send + 'static) -> io::Result<()> {
        let sender = self.sender.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Fails if another reason came first and the receiver is gone.
            let _ = sender.send(wait());
        })?;
        Ok(())
    }

    /// Returns a function that requests the end as a first signal does, without blocking. `what` names the request in
    /// the log.
    pub fn asker(&self, what: &'static str) -> Arc<dyn Fn() + Send + Sync> {
        let sender = self.sender.clone();
        // A full channel already holds a reason.
        Arc::new(move || drop(sender.try_send(Reason::Signal(what))))
    }

    /// Waits at most `pause` for a reason.
    pub fn wait(&self, pause: Duration) -> Option<Reason<E>> {
        self.ignored.iter().for_each(Ignored::log_once);
        self.reasons.recv_timeout(pause).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn request_counts_as_a_signal_and_never_blocks() {
        let stop: StopReasons<&str> = StopReasons::listen().unwrap();
        let ask = stop.asker("POST /drain");
        (0..10).for_each(|_| ask());
        let reason = stop.wait(Duration::from_secs(20));
        assert!(matches!(reason, Some(Reason::Signal("POST /drain"))), "{reason:?}");
    }

    #[test]
    fn a_relay_that_ends_by_itself_is_a_reason() {
        let stop: StopReasons<&str> = StopReasons::listen().unwrap();
        assert!(stop.wait(Duration::ZERO).is_none());
        stop.on("fate", || Reason::Ended(Err("broken"))).unwrap();
        let reason = stop.wait(Duration::from_secs(20));
        assert!(matches!(reason, Some(Reason::Ended(Err("broken")))), "{reason:?}");
    }
}
