//! One published group: what was written so far, for every stream that carries it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use relay_model::StreamCode;
use relay_wire::lite::{FrameHead, Version, put_frame_head};
use tokio::sync::Notify;

/// Payloads up to this share a chunk with their frame's header.
const JOINED_BYTES: usize = 1_200;

/// How a group ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Finished,
    Reset(StreamCode),
}

/// Encoded bytes after the group header, the same for every subscription.
#[derive(Debug)]
pub(crate) struct GroupLog {
    pub(crate) sequence: u64,
    version: Version,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    chunks: Vec<Bytes>,
    previous_tick: i64,
    end: Option<End>,
}

impl GroupLog {
    pub(crate) fn new(sequence: u64, version: Version) -> Self {
        Self { sequence, version, state: Mutex::default(), changed: Notify::new() }
    }

    /// A frame's header; its payload follows by [`GroupLog::payload`].
    pub(crate) fn begin(&self, tick: i64, size: u64) {
        let mut state = self.state();
        let mut head = Vec::with_capacity(16);
        put_frame_head(self.version, state.previous_tick, FrameHead { tick, size }, &mut head);
        state.previous_tick = tick;
        state.chunks.push(head.into());
        drop(state);
        self.changed.notify_waiters();
    }

    pub(crate) fn payload(&self, piece: Bytes) {
        self.state().chunks.push(piece);
        self.changed.notify_waiters();
    }

    pub(crate) fn frame(&self, tick: i64, payload: Bytes) {
        if payload.len() > JOINED_BYTES {
            self.begin(tick, payload.len() as u64);
            return self.payload(payload);
        }
        let mut state = self.state();
        let mut chunk = Vec::with_capacity(16 + payload.len());
        let head = FrameHead { tick, size: payload.len() as u64 };
        put_frame_head(self.version, state.previous_tick, head, &mut chunk);
        chunk.extend_from_slice(&payload);
        state.previous_tick = tick;
        state.chunks.push(chunk.into());
        drop(state);
        self.changed.notify_waiters();
    }

    /// The first end counts.
    pub(crate) fn end(&self, end: End) {
        self.state().end.get_or_insert(end);
        self.changed.notify_waiters();
    }

    /// Chunks from the `position`-th on, and the end if it is known.
    pub(crate) fn read(&self, position: usize) -> (Vec<Bytes>, Option<End>) {
        let state = self.state();
        (state.chunks.get(position..).unwrap_or_default().to_vec(), state.end)
    }

    /// Waits until there is something after `position`, or an end.
    pub(crate) async fn wait(&self, position: usize) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            {
                let state = self.state();
                if state.chunks.len() > position || state.end.is_some() {
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

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
