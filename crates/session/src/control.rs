//! Control messages to the peer: exempt from the valve, sent first, queued within a bound while the peer gives
//! no credit.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Instant,
};

use bytes::Bytes;
use foldhash::fast::RandomState;
use relay_model::{
    StreamCode, limits,
    transport::{Stream, Transport, WriteError},
};

use crate::work::{self, Work};

/// Control messages queued for the peer.
#[derive(Debug, Default)]
pub(crate) struct ControlQueue {
    /// Messages that wait for credit or room, by stream.
    blocked: HashMap<Stream, Backlog, RandomState>,
    /// The same streams by [`Backlog::turn`].
    order: BTreeMap<u64, Stream>,
    turns: u64,
    /// Streams that may still be retried without progress since the transport last had room.
    retries: usize,
    bytes: usize,
    /// Time since the queue has made no progress.
    stalled: Option<Instant>,
    /// Memory of messages not yet acknowledged: those queued here, and those held by the transport.
    held: Arc<AtomicU64>,
}

/// Messages queued for one stream, in order; never empty.
#[derive(Debug)]
struct Backlog {
    /// Position of the stream among those to retry.
    turn: u64,
    messages: VecDeque<Bytes>,
    /// Whether the stream is finished after them.
    finish: bool,
}

/// Bytes charged for a stream with queued messages, besides those.
const BACKLOG: u64 = 128;
/// Streams retried without progress when the transport has room: each blocked stream is also reported on its own.
const RETRIES: usize = 16;
/// Bytes charged for a message besides its payload: its allocations, and its entry in a queue or send buffer.
const MESSAGE: u64 = 128;

/// The bytes of a message, counted until their last handle is dropped.
struct CountedMessage {
    bytes: Vec<u8>,
    held: Arc<AtomicU64>,
}

impl CountedMessage {
    fn counted(bytes: Vec<u8>, held: &Arc<AtomicU64>) -> Bytes {
        held.fetch_add(bytes.capacity() as u64 + MESSAGE, Ordering::Relaxed);
        Bytes::from_owner(Self { bytes, held: held.clone() })
    }
}

impl AsRef<[u8]> for CountedMessage {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for CountedMessage {
    fn drop(&mut self) {
        self.held.fetch_sub(self.bytes.capacity() as u64 + MESSAGE, Ordering::Relaxed);
    }
}

/// Way of control messages to the peer.
pub(crate) struct Outbound<'a, T: Transport> {
    pub(crate) t: &'a mut T,
    pub(crate) control: &'a mut ControlQueue,
    pub(crate) now: Instant,
}

impl<T: Transport> Outbound<'_, T> {
    /// Sends a message on `stream`, after those queued for it.
    pub(crate) fn send(&mut self, stream: Stream, message: Vec<u8>) {
        self.control.send(self.t, self.now, stream, message);
    }
}

/// Progress of writing to a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Written {
    All,
    /// The transport takes no more for now and will report the stream writable.
    Blocked,
    /// The stream takes nothing any more.
    Gone,
}

impl ControlQueue {
    /// Sends a message on `stream`, after those queued for it.
    pub(crate) fn send<T: Transport>(&mut self, t: &mut T, now: Instant, stream: Stream, message: Vec<u8>) {
        let mut message = CountedMessage::counted(message, &self.held);
        if let Some(backlog) = self.blocked.get_mut(&stream) {
            if !backlog.finish {
                self.bytes += message.len();
                backlog.messages.push_back(message);
            }
            return;
        }
        t.exempt(true);
        let written = write(t, stream, &mut message);
        t.exempt(false);
        if written == Written::Blocked {
            self.block(now, stream, message);
        }
    }

    /// Finishes `stream` after the messages queued for it.
    pub(crate) fn finish<T: Transport>(&mut self, t: &mut T, stream: Stream) {
        match self.blocked.get_mut(&stream) {
            Some(backlog) => backlog.finish = true,
            None => t.finish(stream),
        }
    }

    /// Resets `stream` and drops the messages queued for it.
    pub(crate) fn reset<T: Transport>(&mut self, t: &mut T, stream: Stream, code: StreamCode) {
        if let Some(backlog) = self.blocked.get(&stream) {
            self.bytes -= backlog.messages.iter().map(Bytes::len).sum::<usize>();
            self.unblock(stream);
        }
        t.reset(stream, code);
    }

    /// Continues a stream that the transport reported writable.
    #[inline]
    pub(crate) fn writable<T: Transport>(
        &mut self,
        t: &mut T,
        now: Instant,
        stream: Stream,
        work: &mut Work,
    ) {
        if !self.blocked.is_empty() {
            self.retry(t, now, stream, work);
        }
    }

    /// Records that the transport as a whole has room again; [`Self::flush`] uses it.
    pub(crate) fn room(&mut self) {
        self.retries = RETRIES;
    }

    /// Retries streams in turn after [`Self::room`], until as many as are allowed made no progress or `work` is
    /// spent, but at least one. Returns true if `work` ended it: it must be called again without an event.
    pub(crate) fn flush<T: Transport>(&mut self, t: &mut T, now: Instant, work: &mut Work) -> bool {
        while self.retries > 0
            && let Some(stream) = self.order.first_key_value().map(|(_, stream)| *stream)
        {
            if !self.retry(t, now, stream, work) {
                self.retries -= 1;
            }
            if work.is_spent() {
                return self.retries > 0 && !self.blocked.is_empty();
            }
        }
        self.retries = 0;
        false
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
        self.held.load(Ordering::Relaxed) + self.blocked.len() as u64 * BACKLOG
    }

    /// Whether nothing is queued.
    pub(crate) fn is_empty(&self) -> bool {
        self.blocked.is_empty()
    }

    /// Whether optional messages may be queued; senders that can wait should wait otherwise.
    pub(crate) fn has_room(&self) -> bool {
        self.bytes < limits::CONTROL_QUEUE / 2
    }

    /// Queues the rest of a message as the first of its stream.
    fn block(&mut self, now: Instant, stream: Stream, message: Bytes) {
        self.bytes += message.len();
        self.stalled.get_or_insert(now);
        self.turns += 1;
        let mut messages = VecDeque::with_capacity(1);
        messages.push_back(message);
        self.blocked.insert(stream, Backlog { turn: self.turns, messages, finish: false });
        self.order.insert(self.turns, stream);
    }

    /// Removes a stream, with what is queued for it, from the queue.
    fn unblock(&mut self, stream: Stream) {
        if let Some(backlog) = self.blocked.remove(&stream) {
            self.order.remove(&backlog.turn);
        }
        if self.blocked.is_empty() {
            // Frees the table, which may be large.
            (self.blocked, self.stalled) = (HashMap::default(), None);
        }
    }

    /// Writes what fits of the messages of one stream, and puts it behind the others if some are left. Returns
    /// whether it made progress.
    fn retry<T: Transport>(&mut self, t: &mut T, now: Instant, stream: Stream, work: &mut Work) -> bool {
        let Self { blocked, order, turns, bytes, .. } = self;
        let Some(backlog) = blocked.get_mut(&stream) else { return false };
        let before = *bytes;
        t.exempt(true);
        let mut written = Written::All;
        while written == Written::All
            && let Some(message) = backlog.messages.front_mut()
        {
            work.take(work::WRITE);
            let size = message.len();
            written = write(t, stream, message);
            match written {
                Written::All => {
                    *bytes -= size;
                    backlog.messages.pop_front();
                }
                Written::Blocked => *bytes -= size - message.len(),
                Written::Gone => *bytes -= backlog.messages.iter().map(Bytes::len).sum::<usize>(),
            }
        }
        t.exempt(false);
        let has_progress = *bytes < before;
        if written == Written::Blocked {
            order.remove(&backlog.turn);
            *turns += 1;
            backlog.turn = *turns;
            order.insert(*turns, stream);
        } else if written == Written::All && backlog.finish {
            t.finish(stream);
        }
        if has_progress {
            self.stalled = Some(now);
        }
        if written != Written::Blocked {
            self.unblock(stream);
        }
        has_progress
    }
}

/// Writes what fits of a message.
fn write<T: Transport>(t: &mut T, stream: Stream, message: &mut Bytes) -> Written {
    while !message.is_empty() {
        match t.write(stream, std::slice::from_mut(message)) {
            Ok(0) | Err(WriteError::Blocked) => return Written::Blocked,
            Ok(_) => {}
            Err(WriteError::Stopped(code)) => {
                t.reset(stream, code);
                return Written::Gone;
            }
            Err(WriteError::Gone) => return Written::Gone,
        }
    }
    Written::All
}

#[cfg(test)]
mod tests;
