//! Datagrams, each a group of one small frame.

use bytes::{Buf, Bytes};
use relay_model::limits;

use super::{TICK_MAX, Version};
use crate::{DecodeError, body::BodyReader, varint};

/// Complete group in one datagram (draft-lcurley-moq-lite-05, Datagrams).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Datagram {
    /// Subscribe id. A datagram with an unknown id is dropped.
    pub subscribe: u64,
    /// Group sequence.
    pub sequence: u64,
    /// Timestamp in ticks of the track's timescale, at most [`TICK_MAX`].
    pub tick: u64,
    /// Frame payload, at most [`limits::DATAGRAM_PAYLOAD`] bytes.
    pub payload: Bytes,
}

impl Datagram {
    /// Decodes a datagram body. The payload is a slice of `body`.
    pub fn decode(_: Version, mut body: Bytes) -> Result<Self, DecodeError> {
        let mut input = BodyReader::new(&body);
        let (subscribe, sequence, tick) = (input.varint()?, input.varint()?, input.varint()?);
        let rest = input.rest();
        if rest > limits::DATAGRAM_PAYLOAD {
            return Err(DecodeError::DatagramTooLarge);
        }
        if tick > TICK_MAX.unsigned_abs() {
            return Err(DecodeError::Timestamp);
        }
        body.advance(body.len().saturating_sub(rest));
        Ok(Self { subscribe, sequence, tick, payload: body })
    }

    /// Appends the fields before the payload.
    pub fn put_head(&self, _: Version, out: &mut Vec<u8>) {
        varint::put(self.subscribe, out);
        varint::put(self.sequence, out);
        varint::put(self.tick, out);
    }

    /// Appends the whole body.
    pub fn encode(&self, version: Version, out: &mut Vec<u8>) {
        debug_assert!(self.payload.len() <= limits::DATAGRAM_PAYLOAD);
        self.put_head(version, out);
        out.extend_from_slice(&self.payload);
    }
}
