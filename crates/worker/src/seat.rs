//! A seat beside the workers, for who reads over HTTP.
//!
//! Such readers are sessions like any other: the gate lets them in, core knows them, the store rings for
//! them, and what is taken back ends them. But no connection of ours carries them, so whoever takes the
//! seat does what a worker does for its own: tells core that they came and went, carries out what it
//! orders, and reads the logs.

use std::{
    fmt,
    net::SocketAddr,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::SystemTime,
};

use crossbeam_channel::{Sender, TrySendError};
use parking_lot::Mutex;
use relay_core::Event;
use relay_model::{SessionId, WorkerId};
use relay_store::Store;
use relay_transport::quic::PeerCertificate;

use crate::{
    gate::{Answer, Denial, Ended, Gate, Request, WallClock},
    ledger::Ledger,
    mailbox::{Letter, Mailbox},
};

type Wake = Arc<dyn Fn() + Send + Sync>;

/// The relay's side of the seat.
pub(crate) struct Desk {
    id: WorkerId,
    pub(crate) mailbox: Arc<Mailbox>,
    line: Arc<Line>,
    is_taken: AtomicBool,
}

/// What leads from the seat to core, until the relay ends.
#[derive(Default)]
struct Line {
    events: Mutex<Option<Sender<Vec<Event>>>>,
    wake: Mutex<Option<Wake>>,
}

impl Desk {
    /// The desk after the last of `workers`.
    pub(crate) fn new(workers: usize) -> Self {
        let line = Arc::<Line>::default();
        let rung = line.clone();
        let ring = move || {
            let wake = rung.wake.lock().clone();
            if let Some(wake) = wake {
                wake();
            }
        };
        let mailbox = Arc::new(Mailbox::vacant(Box::new(ring)));
        Self { id: WorkerId(workers as u16), mailbox, line, is_taken: AtomicBool::new(false) }
    }

    /// Core hears what is said here from now on.
    pub(crate) fn open(&self, events: Sender<Vec<Event>>) {
        *self.line.events.lock() = Some(events);
    }

    /// Core is about to end; whoever sits here is told by `letter`.
    pub(crate) fn close(&self, letter: Letter) {
        *self.line.events.lock() = None;
        self.mailbox.post(&mut vec![letter]);
    }

    /// The seat, for the first who asks.
    pub(crate) fn take(
        &self,
        store: &Arc<Store>,
        ledger: &Arc<Ledger>,
        gate: &Arc<dyn Gate>,
        wall: &WallClock,
    ) -> Option<Seat> {
        if self.is_taken.swap(true, Ordering::Relaxed) {
            return None;
        }
        self.mailbox.occupy();
        Some(Seat {
            id: self.id,
            mailbox: self.mailbox.clone(),
            store: store.clone(),
            ledger: ledger.clone(),
            gate: gate.clone(),
            wall: wall.clone(),
            line: self.line.clone(),
            next: AtomicU64::new(0),
        })
    }
}

/// Who asks to come in here. Holds what may be a secret.
#[derive(Clone)]
pub struct Asker {
    /// Path and query, raw as the peer sent them.
    pub target: String,
    /// What carries it, as the gate and logs call it.
    pub transport: &'static str,
    /// The protocol version, as ALPN names it.
    pub version: &'static str,
    /// The peer's address.
    pub remote: SocketAddr,
    /// Our address that it came to.
    pub local: SocketAddr,
    /// The host it asked for.
    pub server_name: Option<String>,
    /// The certificate it showed, verified.
    pub certificate: Option<PeerCertificate>,
}

/// What became of what was told to core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// It has it.
    Taken,
    /// It is behind: nothing was taken, say it again a little later.
    Behind,
    /// It has ended.
    Gone,
}

/// A place in the relay that has no socket: the worker after the last.
pub struct Seat {
    id: WorkerId,
    mailbox: Arc<Mailbox>,
    store: Arc<Store>,
    ledger: Arc<Ledger>,
    gate: Arc<dyn Gate>,
    wall: WallClock,
    line: Arc<Line>,
    next: AtomicU64,
}

impl Seat {
    /// As whom the store and core know it.
    pub fn worker(&self) -> WorkerId {
        self.id
    }

    /// The logs and the announce board.
    pub fn store(&self) -> &Arc<Store> {
        &self.store
    }

    /// Memory of sessions: those here are charged too.
    pub fn ledger(&self) -> &Arc<Ledger> {
        &self.ledger
    }

    /// The time of day, by which permits end.
    pub fn wall(&self) -> SystemTime {
        (self.wall)()
    }

    /// Runs `wake` when there are letters, or news in the store: [`Seat::letters`] and the store's bell are to
    /// be taken then. It runs on other threads and must not wait.
    pub fn on_news(&self, wake: impl Fn() + Send + Sync + 'static) {
        let wake: Wake = Arc::new(wake);
        *self.line.wake.lock() = Some(wake.clone());
        self.store.bell(self.id).set_ringer(Box::new(move || wake()));
        self.mailbox.ring();
    }

    /// Moves what others want of the sessions here to the end of `out`.
    pub fn letters(&self, out: &mut Vec<Letter>) {
        self.mailbox.take(out);
    }

    /// The id of another session, never given twice.
    pub fn session(&self) -> SessionId {
        SessionId::new(self.id, self.next.fetch_add(1, Ordering::Relaxed))
    }

    /// May this session come in? A late answer comes as a letter. Whoever asks reports its end by
    /// [`Seat::ended`], once, let in or not.
    pub fn ask(&self, session: SessionId, asker: Asker) -> Answer {
        let Asker { target, transport, version, remote, local, server_name, certificate } = asker;
        let request = Request {
            session,
            target,
            transport,
            version,
            remote,
            local,
            server_name,
            role: None,
            origin: None,
            certificate,
            now: self.wall(),
            mailbox: self.mailbox.clone(),
        };
        catch_unwind(AssertUnwindSafe(|| self.gate.admit(&request)))
            .unwrap_or(Answer::Now(Err(Denial::Unavailable)))
    }

    /// A session that the gate was asked about is over.
    pub fn ended(&self, ended: &Ended<'_>) {
        if catch_unwind(AssertUnwindSafe(|| self.gate.ended(ended))).is_err() {
            tracing::error!(session = %ended.session, "a panic while the end of a session was reported");
        }
    }

    /// Tells core what happened, in order; empties `events` if it was taken.
    pub fn tell(&self, events: &mut Vec<Event>) -> Told {
        if events.is_empty() {
            return Told::Taken;
        }
        let line = self.line.events.lock();
        let Some(core) = &*line else { return Told::Gone };
        match core.try_send(std::mem::take(events)) {
            Ok(()) => Told::Taken,
            Err(TrySendError::Full(back)) => {
                *events = back;
                Told::Behind
            }
            Err(TrySendError::Disconnected(_)) => Told::Gone,
        }
    }
}

impl fmt::Debug for Seat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Seat").field("worker", &self.id).finish_non_exhaustive()
    }
}
