//! All streams of a connection: stream limits, flow control, and pending events.

mod receive;
mod send;
#[cfg(test)]
mod tests;

pub(super) use send::Pieces;

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
};

use relay_model::{
    StreamCode, limits as model,
    transport::{Dir, Stream, TransportEvent},
};

use super::{
    frame, limits,
    params::Parameters,
    recv::RecvHalf,
    send::SendHalf,
    stream_limits::{Ours, Theirs, dir_of, index},
    violation::Violation,
};
use crate::qmux::QmuxFraming;

/// Map keyed by stream ids, which the peer chooses: the hasher is seeded.
type Map<T> = HashMap<u64, T, foldhash::fast::RandomState>;

/// Pending RESET_STREAM or STOP_SENDING, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PendingReset {
    Reset { id: u64, code: StreamCode, size: u64 },
    Stop { id: u64, code: StreamCode },
}

/// Stream state of one connection.
#[derive(Debug)]
pub(super) struct QmuxStreams {
    framing: QmuxFraming,
    is_client: bool,
    pub(super) events: VecDeque<TransportEvent>,
    sending: Map<SendHalf>,
    receiving: Map<RecvHalf>,
    ours: [Ours; 2],
    theirs: [Theirs; 2],
    answers: VecDeque<PendingReset>,

    /// Initial send credit on bidirectional streams of the peer, on local bidirectional, and on local
    /// unidirectional streams.
    windows: [u64; 3],
    /// Stream bytes accepted in total, and the peer's limit on them (MAX_DATA).
    written: u64,
    write_limit: u64,
    /// Unsent bytes.
    media: u64,
    control: u64,
    exempt: bool,
    /// Whether a write was short or refused since the last `Room`.
    is_starved: bool,
    /// Whether data was sent or credit received since then.
    is_freed: bool,
    /// Streams with credit of their own whose write was refused, oldest first, by exemption from the media
    /// valve; and whether some may have become writable.
    waiting_control: BTreeMap<u64, u64>,
    waiting_media: BTreeMap<u64, u64>,
    is_retry: bool,
    /// Streams with output, by priority, turn and id.
    ready: BTreeSet<(Reverse<i32>, u64, u64)>,
    turns: u64,

    /// Stream bytes received in total, those of them read or discarded, and the limit announced.
    received: u64,
    released: u64,
    announced: u64,
    /// Receive window of one stream, in bytes.
    window: u64,
    /// Streams with a queued credit announcement.
    due: VecDeque<u64>,
}

impl QmuxStreams {
    /// `most`: limit up to which the peer's stream credit grows, per direction.
    pub(super) fn new(framing: QmuxFraming, is_client: bool, most: Option<u64>) -> Self {
        let [bi, uni] =
            [model::BIDI_STREAMS_MAX, model::UNI_STREAMS_MAX].map(|most_by| most.unwrap_or(most_by));
        let is_legacy = framing == QmuxFraming::Legacy;
        let (theirs, window, announced) = if is_legacy {
            ([Theirs::untold(bi), Theirs::untold(uni)], u64::MAX, u64::MAX)
        } else {
            let theirs = [Theirs::new(model::BIDI_STREAMS, bi), Theirs::new(model::UNI_STREAMS, uni)];
            (theirs, model::STREAM_WINDOW, model::CONNECTION_WINDOW)
        };
        let (open, credit) = if is_legacy { (limits::LEGACY_STREAMS, u64::MAX) } else { (0, 0) };
        Self {
            framing,
            is_client,
            events: VecDeque::new(),
            sending: Map::default(),
            receiving: Map::default(),
            ours: [Ours::new(open), Ours::new(open)],
            theirs,
            answers: VecDeque::new(),
            windows: [credit; 3],
            written: 0,
            write_limit: credit,
            media: 0,
            control: 0,
            exempt: false,
            is_starved: false,
            is_freed: false,
            waiting_control: BTreeMap::new(),
            waiting_media: BTreeMap::new(),
            is_retry: false,
            ready: BTreeSet::new(),
            turns: 0,
            received: 0,
            released: 0,
            announced,
            window,
            due: VecDeque::new(),
        }
    }

    /// Applies the peer's transport parameters, before any stream is opened.
    pub(super) fn set_peer(&mut self, peer: &Parameters) {
        self.windows = [peer.stream_data_bi_local, peer.stream_data_bi_remote, peer.stream_data_uni];
        self.write_limit = peer.data;
        self.ours = [Ours::new(peer.streams_bi), Ours::new(peer.streams_uni)];
    }

    /// Returns the next event.
    pub(super) fn poll(&mut self) -> Option<TransportEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        if self.is_retry {
            if let Some(event) = self.unpark() {
                return Some(event);
            }
            self.is_retry = false;
        }
        if self.has_room() {
            (self.is_starved, self.is_freed) = (false, false);
            return Some(TransportEvent::Room);
        }
        None
    }

    /// Returns whether [`Self::poll`] may return an event.
    pub(super) fn has_event(&self) -> bool {
        !self.events.is_empty() || self.has_waiting() || self.has_room()
    }

    fn has_waiting(&self) -> bool {
        self.is_retry && !(self.waiting_control.is_empty() && self.waiting_media.is_empty())
    }

    /// Returns whether more input may be read: the queue of resets and stops is bounded, and without credit so
    /// is the unread data.
    pub(super) fn wants_input(&self) -> bool {
        let is_full =
            self.framing == QmuxFraming::Legacy && self.received - self.released >= limits::LEGACY_UNREAD;
        self.answers.len() < limits::ANSWERS && !is_full
    }

    /// Bytes received and neither read nor discarded.
    pub(super) fn unread(&self) -> u64 {
        self.received.saturating_sub(self.released)
    }

    /// Drops all sending state and output.
    pub(super) fn silence(&mut self) {
        self.answers.clear();
        self.sending.clear();
        self.ready.clear();
        self.waiting_control.clear();
        self.waiting_media.clear();
        self.due.clear();
        (self.media, self.control) = (0, 0);
        (self.is_starved, self.is_retry) = (false, false);
    }

    /// Drops all sending and receiving state.
    pub(super) fn forget(&mut self) {
        self.silence();
        self.receiving.clear();
    }

    /// Number of sending and of receiving halves.
    #[cfg(test)]
    pub(super) fn live(&self) -> (usize, usize) {
        (self.sending.len(), self.receiving.len())
    }

    fn is_ours(&self, id: u64) -> bool {
        (id & 1 == 0) == self.is_client
    }

    /// Resolves the stream of a frame: a stream of the peer may be new, a local one must have been opened.
    fn meet(&mut self, id: u64) -> Result<(), Violation> {
        let (dir, number) = (dir_of(id), id >> 2);
        let slot = index(dir);
        if self.is_ours(id) {
            let opened = self.ours.get(slot).map_or(0, |ours| ours.opened);
            return if number < opened {
                Ok(())
            } else {
                Err(Violation::state("frame for an unopened stream"))
            };
        }
        let Some(theirs) = self.theirs.get_mut(slot) else { return Ok(()) };
        if theirs.meet(number)? {
            self.receiving.insert(id, RecvHalf::new(self.window));
            if dir == Dir::Bi {
                let [local, ..] = self.windows;
                self.sending.insert(id, SendHalf::new(0, local));
            }
            self.events.push_back(TransportEvent::Opened(Stream(id), dir));
        }
        Ok(())
    }

    /// Frees the stream's slot once both halves are gone.
    fn retire(&mut self, id: u64) {
        if self.sending.contains_key(&id) || self.receiving.contains_key(&id) {
            return;
        }
        let slot = index(dir_of(id));
        if !self.is_ours(id) {
            if let Some(theirs) = self.theirs.get_mut(slot) {
                theirs.retire();
            }
        } else if self.framing == QmuxFraming::Legacy
            && let Some(ours) = self.ours.get_mut(slot)
            && ours.retire()
        {
            self.events.push_back(TransportEvent::Openable(dir_of(id)));
        }
    }

    /// Returns whether [`Self::put_answer`] has a frame.
    pub(super) fn has_answer(&self) -> bool {
        !self.answers.is_empty()
            || !self.due.is_empty()
            || self.credit().is_some()
            || self.theirs.iter().any(Theirs::is_due)
    }

    /// Appends one credit, reset or stop frame; `false` if there is none.
    pub(super) fn put_answer(&mut self, out: &mut Vec<u8>) -> bool {
        if let Some(credit) = self.credit() {
            self.announced = credit;
            frame::put_max_data(credit, out);
            return true;
        }
        for dir in [Dir::Bi, Dir::Uni] {
            if let Some(max) = self.theirs.get_mut(index(dir)).and_then(Theirs::credit) {
                frame::put_max_streams(dir, max, out);
                return true;
            }
        }
        while let Some(id) = self.due.pop_front() {
            let window = self.window;
            let Some(half) = self.receiving.get_mut(&id) else { continue };
            half.is_due = false;
            if let Some(credit) = half.credit(window) {
                half.announced = credit;
                frame::put_max_stream_data(id, credit, out);
                return true;
            }
        }
        match self.answers.pop_front() {
            Some(PendingReset::Reset { id, code, size }) => {
                frame::put_reset(self.framing, id, code.0.into(), size, out);
                true
            }
            Some(PendingReset::Stop { id, code }) => {
                frame::put_stop(id, code.0.into(), out);
                true
            }
            None => false,
        }
    }

    /// Returns the connection's new credit if its growth is worth a frame.
    fn credit(&self) -> Option<u64> {
        let credit = self.released.saturating_add(model::CONNECTION_WINDOW);
        let grown = credit.saturating_sub(self.announced);
        (grown >= model::CONNECTION_WINDOW / limits::CREDIT_SHARE).then_some(credit)
    }
}
