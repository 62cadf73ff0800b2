//! One published group: the frames written so far, for every stream that carries it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use relay_model::StreamCode;
use relay_wire::lite::{FrameHead, Version, put_frame_head};
use tokio::{sync::Notify, time::Instant};

/// Largest payload that shares a chunk with its frame's header, bytes.
const JOINED_BYTES: usize = 1_200;

/// End of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    Reset(StreamCode),
}

/// Application data, independent of the version: sessions of several versions may carry it, from any frame.
#[derive(Clone, Debug)]
enum Item {
    /// A whole frame.
    Frame { tick: i64, payload: Bytes },
    /// A frame whose payload follows in pieces.
    Begin { tick: i64, size: u64 },
    /// Payload bytes of the frame begun; raw bytes if none was begun.
    Piece(Bytes),
}

/// A group as the application wrote it, shared by all streams.
#[derive(Debug)]
pub(crate) struct GroupLog {
    pub(crate) sequence: u64,
    state: Mutex<GroupLogState>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct GroupLogState {
    items: Vec<Item>,
    end: Option<End>,
    /// Time when a later group began; `None` for the latest.
    superseded: Option<Instant>,
}

impl GroupLog {
    pub(crate) fn new(sequence: u64) -> Self {
        Self { sequence, state: Mutex::default(), changed: Notify::new() }
    }

    /// Appends a frame header; the payload follows by [`GroupLog::payload`].
    pub(crate) fn begin(&self, tick: i64, size: u64) {
        self.push(Item::Begin { tick, size });
    }

    pub(crate) fn payload(&self, piece: Bytes) {
        self.push(Item::Piece(piece));
    }

    pub(crate) fn frame(&self, tick: i64, payload: Bytes) {
        self.push(Item::Frame { tick, payload });
    }

    /// Ends the group; the first end counts.
    pub(crate) fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.changed.notify_waiters();
    }

    /// Records that a later group began; the first time counts.
    pub(crate) fn supersede(&self, now: Instant) {
        self.state().superseded.get_or_insert(now);
    }

    /// Time when a later group began; `None` for the latest.
    pub(crate) fn superseded(&self) -> Option<Instant> {
        self.state().superseded
    }

    /// Waits until there are more than `position` items, or an end.
    async fn wait(&self, position: usize) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state();
                if state.items.len() > position || state.end.is_some() {
                    return;
                }
            }
            changed.await;
        }
    }

    /// Waits until the group is reset, if ever.
    pub(crate) async fn reset(&self) -> StreamCode {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            if let Some(End::Reset(code)) = self.state().end {
                return code;
            }
            changed.await;
        }
    }

    fn push(&self, item: Item) {
        self.state().items.push(item);
        self.changed.notify_waiters();
    }

    fn read(&self, position: usize) -> (Vec<Item>, Option<End>) {
        let state = self.state();
        (state.items.get(position..).unwrap_or_default().to_vec(), state.end)
    }

    fn state(&self) -> MutexGuard<'_, GroupLogState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Range of frames in a group.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct FrameSpan {
    /// Index of the first frame.
    pub(crate) first: u64,
    /// Index of the last frame; `None` = to the group's end.
    pub(crate) last: Option<u64>,
}

/// Encodes the frames of a group for one version, from a position in its log.
#[derive(Debug)]
pub(crate) struct Encoder {
    version: Version,
    span: FrameSpan,
    /// Items read.
    position: usize,
    /// Frames begun, inside or outside of the span.
    begun: u64,
    /// Missing payload bytes of the last frame.
    lacks: u64,
    previous_tick: i64,
}

impl Encoder {
    pub(crate) fn new(version: Version, span: FrameSpan) -> Self {
        Self { version, span, position: 0, begun: 0, lacks: 0, previous_tick: 0 }
    }

    /// Waits for more of `log` and appends it to `out`. `Some` when the stream ends after that.
    pub(crate) async fn next(&mut self, log: &GroupLog, out: &mut Vec<Bytes>) -> Option<End> {
        loop {
            let (items, end) = log.read(self.position);
            self.position = self.position.saturating_add(items.len());
            for item in items {
                if self.is_done() {
                    return Some(End::Finished);
                }
                self.item(item, out);
            }
            if self.is_done() {
                return Some(End::Finished);
            }
            if end.is_some() || !out.is_empty() {
                return end;
            }
            log.wait(self.position).await;
        }
    }

    /// Whether the last requested frame is complete.
    fn is_done(&self) -> bool {
        self.lacks == 0 && self.span.last.is_some_and(|last| self.begun > last)
    }

    fn item(&mut self, item: Item, out: &mut Vec<Bytes>) {
        let size = match &item {
            Item::Frame { payload, .. } => Some(payload.len() as u64),
            Item::Begin { size, .. } => Some(*size),
            Item::Piece(_) => None,
        };
        if size.is_some() {
            self.begun = self.begun.saturating_add(1);
        }
        let wanted = self.begun > self.span.first || (self.begun == 0 && self.span.first == 0);
        match item {
            Item::Frame { tick, payload } if wanted => self.frame(tick, payload, out),
            Item::Begin { tick, size } => {
                self.lacks = size;
                if wanted {
                    out.push(self.head(tick, size, 0).into());
                }
            }
            Item::Piece(piece) => {
                self.lacks = self.lacks.saturating_sub(piece.len() as u64);
                if wanted {
                    out.push(piece);
                }
            }
            Item::Frame { .. } => {}
        }
    }

    fn frame(&mut self, tick: i64, payload: Bytes, out: &mut Vec<Bytes>) {
        let size = payload.len() as u64;
        if payload.len() > JOINED_BYTES {
            out.push(self.head(tick, size, 0).into());
            return out.push(payload);
        }
        let mut chunk = self.head(tick, size, payload.len());
        chunk.extend_from_slice(&payload);
        out.push(chunk.into());
    }

    /// Encodes a frame header, with capacity for `more` bytes.
    fn head(&mut self, tick: i64, size: u64, more: usize) -> Vec<u8> {
        let mut head = Vec::with_capacity(16_usize.saturating_add(more));
        put_frame_head(self.version, self.previous_tick, FrameHead { tick: Some(tick), size }, &mut head);
        self.previous_tick = tick;
        head
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Encodes `span` of a group with three frames, the second written in pieces.
    async fn encoded(span: FrameSpan) -> (Vec<u8>, Option<End>) {
        let log = GroupLog::new(0);
        log.frame(10, "a".into());
        log.begin(20, 2);
        log.payload("b".into());
        log.payload("c".into());
        log.frame(30, "d".into());
        let (mut encoder, mut out) = (Encoder::new(Version::V06, span), Vec::new());
        let end = encoder.next(&log, &mut out).await;
        (out.into_iter().flatten().collect(), end)
    }

    #[tokio::test]
    async fn span_starts_at_a_frame_with_an_absolute_timestamp() {
        assert_eq!(
            encoded(FrameSpan::default()).await,
            (vec![20, 1, b'a', 20, 2, b'b', b'c', 20, 1, b'd'], None)
        );
        let span = FrameSpan { first: 1, last: Some(1) };
        assert_eq!(encoded(span).await, (vec![40, 2, b'b', b'c'], Some(End::Finished)));
        let span = FrameSpan { first: 2, last: None };
        assert_eq!(encoded(span).await, (vec![60, 1, b'd'], None));
    }
}
