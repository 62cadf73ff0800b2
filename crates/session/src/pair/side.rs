//! One end: its streams, credit and events. The session calls it from above, the link delivers the peer's
//! frames.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet, VecDeque},
};

use bytes::Bytes;
use relay_model::{
    SessionCode, StreamCode, limits,
    transport::{DatagramError, Dir, ReadError, Stream, TransportClosed, TransportEvent, WriteError},
};

use super::{
    PairOptions,
    link::PairFrame,
    rng::Rng,
    streams::{PairRead, PairRecvHalf, PairSendHalf},
};

#[derive(Debug)]
pub(super) struct PairSide {
    pub(super) options: PairOptions,
    /// Side, 0 or 1: the lowest bit of the keys of its streams.
    index: u64,
    events: VecDeque<TransportEvent>,
    closed: bool,
    out: PairOutput,
    sending: BTreeMap<u64, PairSendHalf>,
    receiving: BTreeMap<u64, PairRecvHalf>,
    /// Stream counts and limits of each side, by direction.
    mine: [Count; 2],
    theirs: [Count; 2],
    /// Total stream bytes written, and the peer's limit on them.
    written: u64,
    write_limit: u64,
    outstanding: u64,
    exempt: bool,
    /// Whether a write was short or refused since the last `Room`.
    wants_room: bool,
    /// Total stream bytes read or discarded, and the limit announced.
    released: u64,
    announced: u64,
    /// Streams whose credit may have to be announced.
    stale: BTreeSet<u64>,
    hold: bool,
    /// Limits that the other side has granted.
    peer: PeerOffer,
    received: PairDatagrams,
}

/// Credit for one stream and size of a datagram, bytes.
#[derive(Clone, Copy, Debug)]
struct PeerOffer {
    stream_window: u64,
    max_datagram: usize,
}

/// Pending output, in this order.
#[derive(Debug, Default)]
struct PairOutput {
    control: VecDeque<PairFrame>,
    datagrams: PairDatagrams,
    /// Streams with output: priority, turn, key.
    ready: BTreeSet<(Reverse<i32>, u64, u64)>,
    turns: u64,
}

#[derive(Debug, Default)]
struct PairDatagrams {
    queue: VecDeque<Bytes>,
    bytes: usize,
}

impl PairDatagrams {
    /// Queues a datagram; the oldest are dropped to make room.
    fn push(&mut self, datagram: Bytes, cap: usize) {
        self.bytes += datagram.len();
        self.queue.push_back(datagram);
        while self.bytes > cap && self.pop().is_some() {}
    }

    fn pop(&mut self) -> Option<Bytes> {
        let datagram = self.queue.pop_front()?;
        self.bytes -= datagram.len();
        Some(datagram)
    }
}

/// Streams of one direction opened by one side.
#[derive(Clone, Copy, Debug)]
struct Count {
    opened: u64,
    limit: u64,
    /// Limit announced to the peer, on the granting side.
    announced: u64,
    /// Whether an open was refused.
    wanted: bool,
}

impl Count {
    fn new(limit: u64) -> Self {
        Self { opened: 0, limit, announced: limit, wanted: false }
    }
}

fn key(number: u64, dir: Dir, side: u64) -> u64 {
    (number << 2) | ((slot(dir) as u64) << 1) | side
}

fn slot(dir: Dir) -> usize {
    usize::from(dir == Dir::Uni)
}

fn dir_of(stream: u64) -> Dir {
    if stream & 2 == 0 { Dir::Bi } else { Dir::Uni }
}

impl PairSide {
    pub(super) fn new(index: u64, options: PairOptions, peer: &PairOptions) -> Self {
        Self {
            index,
            events: VecDeque::from([TransportEvent::Ready]),
            closed: false,
            out: PairOutput::default(),
            sending: BTreeMap::new(),
            receiving: BTreeMap::new(),
            mine: [Count::new(peer.bidi_streams), Count::new(peer.uni_streams)],
            theirs: [Count::new(options.bidi_streams), Count::new(options.uni_streams)],
            written: 0,
            write_limit: peer.connection_window,
            outstanding: 0,
            exempt: false,
            wants_room: false,
            released: 0,
            announced: options.connection_window,
            stale: BTreeSet::new(),
            hold: false,
            peer: PeerOffer { stream_window: peer.stream_window, max_datagram: peer.max_datagram },
            received: PairDatagrams::default(),
            options,
        }
    }

    pub(super) fn poll(&mut self) -> Option<TransportEvent> {
        if let Some(event) = self.events.pop_front() {
            return Some(event);
        }
        let writable = self.sending.iter().find_map(|(&stream, half)| {
            let exempt = half.blocked?;
            (self.room(half, exempt) > 0).then_some(stream)
        })?;
        self.sending.get_mut(&writable)?.blocked = None;
        Some(TransportEvent::Writable(Stream(writable)))
    }

    pub(super) fn push(&mut self, event: TransportEvent) {
        if !self.closed {
            self.events.push_back(event);
        }
    }

    pub(super) fn open(&mut self, dir: Dir, priority: i32) -> Option<Stream> {
        let count = &mut self.mine[slot(dir)];
        if self.closed || count.opened >= count.limit {
            count.wanted = !self.closed;
            return None;
        }
        let stream = key(count.opened, dir, self.index);
        count.opened += 1;
        self.sending.insert(stream, PairSendHalf::new(priority, self.peer.stream_window));
        if dir == Dir::Bi {
            let mut half = PairRecvHalf::new(self.options.stream_window);
            half.armed = true;
            self.receiving.insert(stream, half);
        }
        Some(Stream(stream))
    }

    pub(super) fn read(&mut self, Stream(stream): Stream, max: usize) -> Result<Option<Bytes>, ReadError> {
        let half = self.receiving.get_mut(&stream).filter(|half| !half.stopped).ok_or(ReadError::Gone)?;
        let found = half.read(max);
        half.armed = matches!(found, PairRead::Nothing);
        self.released += half.release();
        self.stale.insert(stream);
        match found {
            PairRead::Nothing => Err(ReadError::Blocked),
            PairRead::Bytes(bytes) => Ok(Some(bytes)),
            PairRead::End => {
                self.drop_receiving(stream);
                Ok(None)
            }
            PairRead::Reset(code) => {
                self.drop_receiving(stream);
                Err(ReadError::Reset(code))
            }
        }
    }

    pub(super) fn write(
        &mut self,
        Stream(stream): Stream,
        chunks: &mut [Bytes],
        rng: &mut Rng,
    ) -> Result<usize, WriteError> {
        let half = self.sending.get(&stream).filter(|half| !half.is_finished()).ok_or(WriteError::Gone)?;
        if let Some(code) = half.stopped {
            return Err(WriteError::Stopped(code));
        }
        let wanted: usize = chunks.iter().map(Bytes::len).sum();
        let mut fit = self.room(half, self.exempt).min(wanted as u64);
        if fit > 1 && rng.chance(self.options.partial) {
            fit = 1 + rng.below(fit);
        }
        let Some(half) = self.sending.get_mut(&stream) else { return Err(WriteError::Gone) };
        self.wants_room |= fit < wanted as u64;
        if fit == 0 && wanted > 0 {
            half.blocked = Some(self.exempt);
            return Err(WriteError::Blocked);
        }
        half.blocked = None;
        half.take(chunks, fit as usize);
        self.written += fit;
        self.outstanding += fit;
        self.schedule(stream);
        Ok(fit as usize)
    }

    pub(super) fn finish(&mut self, Stream(stream): Stream) {
        if let Some(half) = self.sending.get_mut(&stream) {
            half.finish();
            half.blocked = None;
            self.schedule(stream);
        }
    }

    pub(super) fn reset(&mut self, Stream(stream): Stream, code: StreamCode) {
        if let Some(half) = self.sending.get(&stream) {
            self.out.control.push_back(PairFrame::Reset { stream, code, size: half.written });
            self.drop_sending(stream);
        }
    }

    pub(super) fn stop(&mut self, Stream(stream): Stream, code: StreamCode) {
        let Some(half) = self.receiving.get_mut(&stream).filter(|half| !half.stopped) else { return };
        half.stop();
        self.released += half.release();
        if half.size_known() {
            self.drop_receiving(stream);
        } else {
            self.out.control.push_back(PairFrame::Stop { stream, code });
        }
    }

    pub(super) fn set_priority(&mut self, Stream(stream): Stream, priority: i32) {
        if let Some(half) = self.sending.get_mut(&stream) {
            self.out.ready.remove(&(Reverse(half.priority), half.turn, stream));
            half.priority = priority;
            self.schedule(stream);
        }
    }

    pub(super) fn send_datagram(&mut self, datagram: Bytes) -> Result<(), DatagramError> {
        match self.peer.max_datagram {
            0 => Err(DatagramError::Unsupported),
            max if datagram.len() > max => Err(DatagramError::TooLarge),
            _ if self.closed => Ok(()),
            _ => {
                self.out.datagrams.push(datagram, limits::DATAGRAM_QUEUE);
                Ok(())
            }
        }
    }

    pub(super) fn recv_datagram(&mut self) -> Option<Bytes> {
        self.received.pop()
    }

    pub(super) fn max_datagram(&self) -> usize {
        self.peer.max_datagram
    }

    pub(super) fn exempt(&mut self, on: bool) {
        self.exempt = on;
    }

    pub(super) fn close(&mut self, code: SessionCode, reason: &str) {
        if !self.closed {
            self.end(TransportClosed::ByUs);
            self.out.control.push_back(PairFrame::Close { code, reason: reason.to_owned() });
        }
    }

    /// Closes the end: drops all state but the event.
    pub(super) fn end(&mut self, why: TransportClosed) {
        self.push(TransportEvent::Closed(why));
        self.closed = true;
        self.out = PairOutput::default();
        self.sending.clear();
        self.receiving.clear();
        self.stale.clear();
        self.outstanding = 0;
    }

    pub(super) fn allow(&mut self, dir: Dir, more: u64) {
        self.theirs[slot(dir)].limit += more;
    }

    pub(super) fn hold_credit(&mut self, on: bool) {
        self.hold = on;
    }

    pub(super) fn outstanding(&self) -> u64 {
        self.outstanding
    }

    pub(super) fn live(&self) -> (usize, usize) {
        (self.sending.len(), self.receiving.len())
    }

    /// Queues the credit owed to the peer.
    pub(super) fn grant(&mut self) {
        if self.hold || self.closed {
            return;
        }
        let limit = self.released.saturating_add(self.options.connection_window);
        if limit > self.announced {
            self.announced = limit;
            self.out.control.push_back(PairFrame::Credit { limit });
        }
        for stream in std::mem::take(&mut self.stale) {
            let Some(half) = self.receiving.get_mut(&stream) else { continue };
            if let Some(limit) =
                half.limit(self.options.stream_window).filter(|&limit| limit > half.announced)
            {
                half.announced = limit;
                self.out.control.push_back(PairFrame::StreamCredit { stream, limit });
            }
        }
        for dir in [Dir::Bi, Dir::Uni] {
            let count = &mut self.theirs[slot(dir)];
            if count.limit > count.announced {
                count.announced = count.limit;
                self.out.control.push_back(PairFrame::Streams { dir, limit: count.limit });
            }
        }
    }

    pub(super) fn has_output(&self) -> bool {
        !self.out.control.is_empty() || self.out.datagrams.bytes > 0 || !self.out.ready.is_empty()
    }

    /// Returns the next packet.
    pub(super) fn transmit(&mut self) -> Option<PairFrame> {
        if let Some(frame) = self.out.control.pop_front() {
            return Some(frame);
        }
        if let Some(datagram) = self.out.datagrams.pop() {
            return Some(PairFrame::Datagram(datagram));
        }
        let (.., stream) = self.out.ready.pop_first()?;
        let half = self.sending.get_mut(&stream)?;
        let (offset, payload, last) = half.packet(self.options.mtu.max(1));
        self.schedule(stream);
        Some(PairFrame::Data { stream, offset, payload, last })
    }

    pub(super) fn handle(&mut self, frame: PairFrame, rng: &mut Rng) {
        if self.closed {
            return;
        }
        match frame {
            PairFrame::Data { stream, offset, payload, last } => {
                self.on_data(stream, offset, payload, last, rng)
            }
            PairFrame::Reset { stream, code, size } => self.on_reset(stream, code, size, rng),
            PairFrame::Stop { stream, code } => self.on_stop(stream, code),
            PairFrame::StreamCredit { stream, limit } => {
                self.meet(stream);
                if let Some(half) = self.sending.get_mut(&stream) {
                    half.limit = half.limit.max(limit);
                }
            }
            PairFrame::Credit { limit } => self.write_limit = self.write_limit.max(limit),
            PairFrame::Streams { dir, limit } => {
                let count = &mut self.mine[slot(dir)];
                count.limit = count.limit.max(limit);
                if std::mem::take(&mut count.wanted) {
                    self.push(TransportEvent::Openable(dir));
                }
            }
            PairFrame::Datagram(datagram) => {
                if self.received.queue.is_empty() {
                    self.push(TransportEvent::Datagram);
                }
                self.received.push(datagram, limits::DATAGRAM_BUFFER);
            }
            PairFrame::Close { code, reason } => self.end(TransportClosed::ByPeer(code, reason)),
            PairFrame::Ack { data } => self.on_ack(data),
        }
    }

    fn on_data(&mut self, stream: u64, offset: u64, payload: Bytes, last: bool, rng: &mut Rng) {
        let fresh = self.meet(stream);
        let Some(half) = self.receiving.get_mut(&stream) else { return };
        let news = half.on_data(offset, payload, last);
        if half.stopped {
            self.released += half.release();
            if half.size_known() {
                self.drop_receiving(stream);
            }
        } else if news && !fresh {
            self.tell_readable(stream, rng);
        }
    }

    fn on_reset(&mut self, stream: u64, code: StreamCode, size: u64, rng: &mut Rng) {
        let fresh = self.meet(stream);
        let Some(half) = self.receiving.get_mut(&stream) else { return };
        half.on_reset(code, size);
        self.released += half.release();
        if half.stopped {
            self.drop_receiving(stream);
        } else if !fresh {
            self.tell_readable(stream, rng);
        }
    }

    fn on_stop(&mut self, stream: u64, code: StreamCode) {
        self.meet(stream);
        if let Some(half) = self.sending.get_mut(&stream) {
            half.stopped = Some(code);
            half.blocked = None;
            self.push(TransportEvent::Stopped(Stream(stream), code));
        }
    }

    fn on_ack(&mut self, data: Option<(u64, u64, bool)>) {
        if let Some((stream, bytes, last)) = data
            && let Some(half) = self.sending.get_mut(&stream)
        {
            self.outstanding -= bytes;
            if half.on_ack(bytes, last) {
                self.drop_sending(stream);
            }
        }
        if std::mem::take(&mut self.wants_room) {
            self.push(TransportEvent::Room);
        }
    }

    /// Opens the peer's streams up to `stream`: using one opens all before it. Returns whether `stream` is new.
    fn meet(&mut self, stream: u64) -> bool {
        let dir = dir_of(stream);
        let mut fresh = false;
        while stream & 1 != self.index && self.theirs[slot(dir)].opened <= stream >> 2 {
            let count = &mut self.theirs[slot(dir)];
            let opened = key(count.opened, dir, 1 - self.index);
            count.opened += 1;
            self.receiving.insert(opened, PairRecvHalf::new(self.options.stream_window));
            if dir == Dir::Bi {
                self.sending.insert(opened, PairSendHalf::new(0, self.peer.stream_window));
            }
            self.push(TransportEvent::Opened(Stream(opened), dir));
            fresh = true;
        }
        fresh
    }

    fn tell_readable(&mut self, stream: u64, rng: &mut Rng) {
        let Some(half) = self.receiving.get_mut(&stream) else { return };
        if std::mem::take(&mut half.armed) || rng.chance(0.5) {
            self.push(TransportEvent::Readable(Stream(stream)));
        }
    }

    /// Number of bytes a write may add.
    fn room(&self, half: &PairSendHalf, exempt: bool) -> u64 {
        let valve = if exempt { u64::MAX } else { self.options.send_window.saturating_sub(self.outstanding) };
        let credit = (half.limit - half.written).min(self.write_limit - self.written);
        valve.min(credit)
    }

    /// Queues `stream` after those of its priority, if it has output and is not queued.
    fn schedule(&mut self, stream: u64) {
        let Some(half) = self.sending.get_mut(&stream) else { return };
        let queued = self.out.ready.contains(&(Reverse(half.priority), half.turn, stream));
        if half.has_output() && !queued {
            self.out.turns += 1;
            half.turn = self.out.turns;
            self.out.ready.insert((Reverse(half.priority), half.turn, stream));
        }
    }

    fn drop_sending(&mut self, stream: u64) {
        if let Some(half) = self.sending.remove(&stream) {
            self.out.ready.remove(&(Reverse(half.priority), half.turn, stream));
            self.outstanding -= half.written - half.acked;
            self.retire(stream);
        }
    }

    fn drop_receiving(&mut self, stream: u64) {
        self.receiving.remove(&stream);
        self.retire(stream);
    }

    /// Returns stream credit for a peer's stream whose halves are both gone.
    fn retire(&mut self, stream: u64) {
        let gone = !self.sending.contains_key(&stream) && !self.receiving.contains_key(&stream);
        if gone && stream & 1 != self.index {
            self.theirs[slot(dir_of(stream))].limit += 1;
        }
    }
}
