//! Control messages to the peer: exempt from the valve, sent first, queued within a bound while the peer gives
//! no credit.

use std::{
    collections::{HashSet, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use relay_model::{StreamCode, limits};

use crate::transport::{Stream, Transport, WriteError};

/// Control messages queued for the peer.
#[derive(Debug, Default)]
pub(crate) struct Control {
    queue: VecDeque<Pending>,
    /// Streams with a queued message.
    blocked: HashSet<Stream, foldhash::fast::RandomState>,
    bytes: usize,
    /// Time since the queue has made no progress.
    stalled: Option<Instant>,
    /// Memory of messages not yet acknowledged: those queued here, and those held by the transport.
    held: Arc<AtomicU64>,
}

/// Bytes charged for a message besides its payload: its allocations, and its entry in a queue or send buffer.
const MESSAGE: u64 = 128;

/// The bytes of a message, counted until their last handle is dropped.
struct Message {
    bytes: Vec<u8>,
    held: Arc<AtomicU64>,
}

impl Message {
    fn counted(bytes: Vec<u8>, held: &Arc<AtomicU64>) -> Bytes {
        held.fetch_add(bytes.capacity() as u64 + MESSAGE, Ordering::Relaxed);
        Bytes::from_owner(Self { bytes, held: held.clone() })
    }
}

impl AsRef<[u8]> for Message {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Message {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.capacity() as u64 + MESSAGE, Ordering::Relaxed);
    }
}

#[derive(Debug)]
struct Pending {
    stream: Stream,
    bytes: Bytes,
    finish: bool,
}

impl Control {
    /// Sends a message on `stream`, after those queued for it.
    pub(crate) fn send<T: Transport>(&mut self, t: &mut T, now: Instant, stream: Stream, message: Vec<u8>) {
        self.push(t, now, Pending { stream, bytes: Message::counted(message, &self.held), finish: false });
    }

    /// Finishes `stream` after the messages queued for it.
    pub(crate) fn finish<T: Transport>(&mut self, t: &mut T, now: Instant, stream: Stream) {
        self.push(t, now, Pending { stream, bytes: Bytes::new(), finish: true });
    }

    /// Resets `stream` and drops the messages queued for it.
    pub(crate) fn reset<T: Transport>(&mut self, t: &mut T, stream: Stream, code: StreamCode) {
        if self.blocked.remove(&stream) {
            self.queue.retain(|pending| pending.stream != stream);
            self.bytes = self.queue.iter().map(|pending| pending.bytes.len()).sum();
        }
        t.reset(stream, code);
    }

    /// Retries queued messages; call when the transport has room again.
    pub(crate) fn flush<T: Transport>(&mut self, t: &mut T, now: Instant) {
        if self.queue.is_empty() {
            return;
        }
        t.exempt(true);
        self.blocked.clear();
        for mut pending in std::mem::take(&mut self.queue) {
            let before = pending.bytes.len();
            let done = !self.blocked.contains(&pending.stream) && write(t, &mut pending);
            self.bytes -= before - pending.bytes.len();
            if before != pending.bytes.len() {
                self.stalled = Some(now);
            }
            if !done {
                self.blocked.insert(pending.stream);
                self.queue.push_back(pending);
            }
        }
        t.exempt(false);
        if self.queue.is_empty() {
            self.stalled = None;
        }
    }

    /// Whether the queue is too large or has stalled too long: the session must close.
    pub(crate) fn is_stuck(&self, now: Instant) -> bool {
        self.bytes > limits::CONTROL_QUEUE || self.deadline().is_some_and(|deadline| now >= deadline)
    }

    /// Time at which a stalled queue becomes stuck.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.stalled.map(|since| since + limits::CONTROL_STALL)
    }

    /// Memory held for messages not yet acknowledged, bytes.
    pub(crate) fn footprint(&self) -> u64 {
        self.held.load(Ordering::Relaxed)
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// Whether optional messages may be queued; senders that can wait should wait otherwise.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < limits::CONTROL_QUEUE / 2
    }

    fn push<T: Transport>(&mut self, t: &mut T, now: Instant, mut pending: Pending) {
        if !self.blocked.contains(&pending.stream) {
            t.exempt(true);
            let done = write(t, &mut pending);
            t.exempt(false);
            if done {
                return;
            }
        }
        self.bytes += pending.bytes.len();
        self.stalled.get_or_insert(now);
        self.blocked.insert(pending.stream);
        self.queue.push_back(pending);
    }
}

/// Writes what fits; true when nothing is left to do.
fn write<T: Transport>(t: &mut T, pending: &mut Pending) -> bool {
    while !pending.bytes.is_empty() {
        match t.write(pending.stream, std::slice::from_mut(&mut pending.bytes)) {
            Ok(0) | Err(WriteError::Blocked) => return false,
            Ok(_) => {}
            Err(WriteError::Stopped(code)) => {
                t.reset(pending.stream, code);
                pending.bytes = Bytes::new();
                return true;
            }
            Err(WriteError::Gone) => {
                pending.bytes = Bytes::new();
                return true;
            }
        }
    }
    if pending.finish {
        t.finish(pending.stream);
    }
    true
}
