//! Assembly of output chunks: heads and small payloads are copied together, large payloads stay as they are.

use bytes::{BufMut, Bytes, BytesMut};
use relay_wire::varint;

use super::{
    QmuxCarrier, QmuxFraming, limits,
    websocket::{self, Masks, Sent},
};

/// Initial capacity in bytes of the joined buffer.
const ROOM: usize = 1_024;

/// Writer of carrier units as chunks.
pub(super) struct UnitWriter<'a> {
    framing: QmuxFraming,
    over: QmuxCarrier,
    /// Masks of a WebSocket client.
    masks: Option<&'a mut Masks>,
    out: &'a mut Vec<Bytes>,
    joined: BytesMut,
    total: usize,
    scratch: Vec<u8>,
}

impl<'a> UnitWriter<'a> {
    pub(super) fn new(
        framing: QmuxFraming,
        over: QmuxCarrier,
        masks: Option<&'a mut Masks>,
        out: &'a mut Vec<Bytes>,
    ) -> Self {
        Self { framing, over, masks, out, joined: BytesMut::new(), total: 0, scratch: Vec::new() }
    }

    /// Bytes written so far.
    pub(super) fn total(&self) -> usize {
        self.total
    }

    /// Writes one message, one record, or bare frames: `head`, then `payload` of `size` bytes.
    pub(super) fn unit<I: IntoIterator<Item = Bytes>>(&mut self, head: &[u8], size: usize, payload: I) {
        match (self.over, self.framing) {
            (QmuxCarrier::WebSocket, _) => return self.websocket(Sent::Message, head, size, payload),
            (QmuxCarrier::Bytes, QmuxFraming::Qmux01) => {
                self.scratch.clear();
                varint::put((head.len() + size) as u64, &mut self.scratch);
                self.join_scratch();
            }
            (QmuxCarrier::Bytes, QmuxFraming::Qmux00 | QmuxFraming::Legacy) => {}
        }
        self.join(head);
        for piece in payload {
            self.push(piece);
        }
    }

    /// Writes one WebSocket frame.
    pub(super) fn websocket<I: IntoIterator<Item = Bytes>>(
        &mut self,
        sent: Sent,
        head: &[u8],
        size: usize,
        payload: I,
    ) {
        let mask = self.masks.as_deref_mut().map(Masks::next);
        self.scratch.clear();
        websocket::put_head(sent, head.len() + size, mask, &mut self.scratch);
        self.join_scratch();
        let Some(key) = mask else {
            self.join(head);
            return payload.into_iter().for_each(|piece| self.push(piece));
        };
        // Masking changes the bytes, so that the payload has to be copied.
        let start = self.joined.len();
        self.join(head);
        for piece in payload {
            self.join(&piece);
        }
        if let Some(body) = self.joined.get_mut(start..) {
            websocket::unmask(body, key, 0);
        }
    }

    /// Flushes the joined buffer; returns the number of bytes written in total.
    pub(super) fn finish(mut self) -> usize {
        self.flush();
        self.total
    }

    fn push(&mut self, piece: Bytes) {
        if piece.len() <= limits::JOIN_BYTES {
            return self.join(&piece);
        }
        self.flush();
        self.total += piece.len();
        self.out.push(piece);
    }

    fn join(&mut self, bytes: &[u8]) {
        if self.joined.capacity() - self.joined.len() < bytes.len() {
            self.joined.reserve(bytes.len().max(ROOM));
        }
        self.joined.put_slice(bytes);
        self.total += bytes.len();
    }

    fn join_scratch(&mut self) {
        let scratch = std::mem::take(&mut self.scratch);
        self.join(&scratch);
        self.scratch = scratch;
    }

    fn flush(&mut self) {
        if !self.joined.is_empty() {
            self.out.push(self.joined.split().freeze());
        }
    }
}
