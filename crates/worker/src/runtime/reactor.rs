//! Thread of a worker: waits for its socket, its timers and its mailbox, and takes a turn.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use mio::{Events, Interest, Poll, Registry, Token, Waker};

use super::liveness::Beats;
use crate::{
    engine::{NextTurn, Worker},
    socket::WorkerSocket,
};

const SOCKET: Token = Token(0);
const WAKER: Token = Token(1);
/// Token of the stream socket of the peer at index 0; the others follow.
const STREAMS: usize = 2;
/// Readiness events taken per turn; the rest follows in the next turn.
const EVENTS: usize = 256;
/// Limit on rebuilds of a worker, past which it is considered broken.
const MAX_REBUILDS: u32 = 100;

/// Poll of a worker.
pub(crate) struct Reactor {
    poll: Poll,
    /// Handle for the worker to register stream sockets at the poll.
    registry: Option<Registry>,
    waker: Arc<Waker>,
    /// Limit on stream sockets; each takes a file descriptor.
    max_streams: usize,
}

impl Reactor {
    /// Creates all descriptors of the thread; the worker adds at most `max_streams` stream sockets.
    pub(crate) fn new(max_streams: usize) -> io::Result<Self> {
        let poll = Poll::new()?;
        let registry = poll.registry().try_clone()?;
        let waker = Arc::new(Waker::new(poll.registry(), WAKER)?);
        Ok(Self { poll, registry: Some(registry), waker, max_streams })
    }

    /// Callback that wakes the worker from any thread.
    pub(crate) fn wake_fn(&self) -> Box<dyn Fn() + Send + Sync> {
        let waker = self.waker.clone();
        Box::new(move || {
            if let Err(error) = waker.wake() {
                tracing::error!(%error, "cannot wake a worker");
            }
        })
    }

    /// Takes turns until the worker is done. Returns the socket, as the sockets of a group must be closed
    /// together. Errors: the poll failed, or the worker panicked too often. Counts each turn in `beats`.
    pub(crate) fn run(
        mut self,
        mut worker: Worker,
        mut socket: WorkerSocket,
        beats: &Beats,
    ) -> (WorkerSocket, io::Result<()>) {
        let result = self.turn_until_done(&mut worker, &mut socket, beats);
        worker.finish();
        (socket, result)
    }

    fn turn_until_done(
        &mut self,
        worker: &mut Worker,
        socket: &mut WorkerSocket,
        beats: &Beats,
    ) -> io::Result<()> {
        self.poll.registry().register(socket.source(), SOCKET, Interest::READABLE)?;
        if let Some(registry) = self.registry.take() {
            worker.watch_streams(registry, STREAMS, self.max_streams);
        }
        let mut was_full = false;
        let mut events = Events::with_capacity(EVENTS);
        let mut rebuilds = 0;
        let mut next = NextTurn::Now;
        loop {
            self.wait(worker, &mut events, next)?;
            let now = Instant::now();
            next = match catch_unwind(AssertUnwindSafe(|| worker.turn(now, socket))) {
                Ok(next) => next,
                Err(_) => {
                    rebuilds += 1;
                    if rebuilds > MAX_REBUILDS {
                        return Err(io::Error::other("panicked too often"));
                    }
                    worker.rebuild(now);
                    NextTurn::Now
                }
            };
            beats.beat();
            if worker.is_done(now) {
                return Ok(());
            }
            // Requested only while the socket is full: every packet that leaves a socket makes it writable.
            if std::mem::replace(&mut was_full, worker.is_full()) != was_full {
                let full = Interest::READABLE | Interest::WRITABLE;
                let interest = if was_full { full } else { Interest::READABLE };
                self.poll.registry().reregister(socket.source(), SOCKET, interest)?;
            }
        }
    }

    /// Waits for events. Readiness is edge-triggered: the worker remembers it until it is used up.
    fn wait(&mut self, worker: &mut Worker, events: &mut Events, next: NextTurn) -> io::Result<()> {
        let timeout = match next {
            NextTurn::Now => Some(Duration::ZERO),
            NextTurn::At(at) => Some(at.saturating_duration_since(Instant::now())),
            NextTurn::Idle => None,
        };
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() != io::ErrorKind::Interrupted => return Err(error),
            _ => {}
        }
        if next != NextTurn::Now {
            worker.woken();
        }
        for event in &*events {
            if event.token() == SOCKET {
                if event.is_readable() || event.is_error() {
                    worker.readable();
                }
                if event.is_writable() {
                    worker.writable();
                }
            } else if let Some(index) = event.token().0.checked_sub(STREAMS) {
                let is_broken = event.is_error();
                let readable = event.is_readable() || event.is_read_closed() || is_broken;
                worker.stream_ready(index, readable, event.is_writable() || is_broken);
            }
        }
        Ok(())
    }
}
