//! What ends a relay: SIGTERM and SIGINT (the first asks, the second does not), or a failure of its own. SIGHUP
//! does not: it asks for files to be read again. SIGUSR1 and SIGUSR2, which other relays reload their certificates
//! on, and SIGXFSZ, which comes with a log file that has reached its largest size, change nothing.

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

/// Status of a process that a signal ended, less the signal: what shells report.
const KILLED: i32 = 128;
/// A signal, a request and a failure may come together; the first one taken decides.
const REASONS: usize = 3;

/// Why to end.
#[derive(Debug)]
pub enum Reason<E> {
    /// Somebody asked, with this signal or in this way.
    Signal(&'static str),
    /// The relay ended by itself.
    Ended(Result<(), E>),
}

/// Collects reasons to end.
pub struct Stop<E> {
    sender: mpsc::SyncSender<Reason<E>>,
    reasons: mpsc::Receiver<Reason<E>>,
    hangups: Arc<AtomicBool>,
    /// Signals that change nothing, each until the log has mentioned it.
    ignored: [Ignored; 2],
}

/// A signal that changes nothing.
struct Ignored {
    name: &'static str,
    came: Arc<AtomicBool>,
    is_mentioned: AtomicBool,
}

impl Ignored {
    fn listen(signal: i32, name: &'static str) -> io::Result<Self> {
        let came = Arc::new(AtomicBool::new(false));
        flag::register(signal, came.clone())?;
        Ok(Self { name, came, is_mentioned: AtomicBool::new(false) })
    }

    /// Logs the first one.
    fn mention(&self) {
        if self.came.swap(false, Ordering::Relaxed) && !self.is_mentioned.swap(true, Ordering::Relaxed) {
            let name = self.name;
            warn!("{name} is ignored; certificates are reloaded when their files change, or on SIGHUP");
        }
    }
}

impl<E: Send + 'static> Stop<E> {
    /// Starts listening for signals. From the second one on the process exits at once, with the
    /// status a shell expects of a killed process.
    pub fn listen() -> io::Result<Self> {
        let asked = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag down and raises it.
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

    /// Raised by each SIGHUP; whoever reads files again takes it down.
    pub fn hangups(&self) -> Arc<AtomicBool> {
        self.hangups.clone()
    }

    /// Takes what `wait` returns for a reason, too. It runs on a thread of its own, called `name`.
    pub fn on(&self, name: &str, wait: impl FnOnce() -> Reason<E> + Send + 'static) -> io::Result<()> {
        let sender = self.sender.clone();
        thread::Builder::new().name(name.to_owned()).spawn(move || {
            // Nobody takes it any more when another reason came first.
            let _ = sender.send(wait());
        })?;
        Ok(())
    }

    /// Asks for the end as a first signal does, from anywhere and without waiting. `what` is what the log calls
    /// it.
    pub fn asker(&self, what: &'static str) -> Arc<dyn Fn() + Send + Sync> {
        let sender = self.sender.clone();
        // Where there is no room there are reasons enough.
        Arc::new(move || drop(sender.try_send(Reason::Signal(what))))
    }

    /// Waits at most `pause` for a reason.
    pub fn wait(&self, pause: Duration) -> Option<Reason<E>> {
        self.ignored.iter().for_each(Ignored::mention);
        self.reasons.recv_timeout(pause).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_asks_is_heard_as_a_signal_is_and_never_waits() {
        let stop: Stop<&str> = Stop::listen().unwrap();
        let ask = stop.asker("POST /drain");
        (0..10).for_each(|_| ask());
        let reason = stop.wait(Duration::from_secs(20));
        assert!(matches!(reason, Some(Reason::Signal("POST /drain"))), "{reason:?}");
    }

    #[test]
    fn a_relay_that_ends_by_itself_is_a_reason() {
        let stop: Stop<&str> = Stop::listen().unwrap();
        assert!(stop.wait(Duration::ZERO).is_none());
        stop.on("fate", || Reason::Ended(Err("broken"))).unwrap();
        let reason = stop.wait(Duration::from_secs(20));
        assert!(matches!(reason, Some(Reason::Ended(Err("broken")))), "{reason:?}");
    }
}
