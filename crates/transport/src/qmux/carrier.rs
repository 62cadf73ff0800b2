//! Splitting of the carrier's bytes into its units: WebSocket messages, records, or bare frames.

use std::borrow::Cow;

use relay_wire::varint;

use super::{
    QmuxCarrier, QmuxFraming, limits,
    violation::Violation,
    websocket::{self, WebSocketItem},
};

/// Item read from the carrier.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum CarrierItem<'a> {
    /// Part of a unit, and whether it is the last part.
    Part(Cow<'a, [u8]>, bool),
    /// WebSocket ping with its payload.
    Ping(Vec<u8>),
    /// WebSocket pong.
    Pong,
    /// WebSocket close frame with its status code.
    Close(Option<u16>),
}

/// Reader that splits received bytes into units.
#[derive(Debug)]
pub(super) enum CarrierReader {
    WebSocket(websocket::WebSocketReader),
    /// Size-prefixed records (draft-ietf-quic-qmux-01 §3.2): bytes of an incomplete size, and the bytes left of
    /// the current record.
    Records {
        head: Vec<u8>,
        left: Option<u64>,
    },
    /// Frames without units around them.
    Frames,
}

impl CarrierReader {
    pub(super) fn new(framing: QmuxFraming, over: QmuxCarrier, is_client: bool) -> Self {
        match (over, framing) {
            (QmuxCarrier::WebSocket, framing) => {
                Self::WebSocket(websocket::WebSocketReader::new(is_client, websocket::largest(framing)))
            }
            (QmuxCarrier::Bytes, QmuxFraming::Qmux01) => Self::Records { head: Vec::new(), left: None },
            (QmuxCarrier::Bytes, QmuxFraming::Qmux00 | QmuxFraming::Legacy) => Self::Frames,
        }
    }

    /// Takes the next item off the front of `input`; `None` when more input is needed.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<CarrierItem<'a>>, Violation> {
        match self {
            Self::WebSocket(reader) => Ok(reader.next(input)?.map(|piece| match piece {
                WebSocketItem::Data(data) => CarrierItem::Part(plain(data.bytes, data.mask), data.is_end),
                WebSocketItem::Ping(body) => CarrierItem::Ping(body),
                WebSocketItem::Pong => CarrierItem::Pong,
                WebSocketItem::Close(code) => CarrierItem::Close(code),
            })),
            Self::Records { head, left } => record(head, left, input),
            Self::Frames if input.is_empty() => Ok(None),
            Self::Frames => Ok(Some(CarrierItem::Part(Cow::Borrowed(std::mem::take(input)), false))),
        }
    }
}

fn plain(bytes: &[u8], mask: Option<([u8; 4], usize)>) -> Cow<'_, [u8]> {
    let Some((key, at)) = mask else { return Cow::Borrowed(bytes) };
    let mut plain = bytes.to_vec();
    websocket::unmask(&mut plain, key, at);
    Cow::Owned(plain)
}

fn record<'a>(
    head: &mut Vec<u8>,
    left: &mut Option<u64>,
    input: &mut &'a [u8],
) -> Result<Option<CarrierItem<'a>>, Violation> {
    let size = loop {
        if let Some(left) = *left {
            break left;
        }
        let Some((first, rest)) = input.split_first() else { return Ok(None) };
        head.push(*first);
        *input = rest;
        if let Ok(size) = varint::get(&mut head.as_slice()) {
            head.clear();
            if size > limits::RECORD_BYTES {
                return Err(Violation::protocol("record too large"));
            }
            *left = Some(size);
        }
    };
    let taken = usize::try_from(size).unwrap_or(usize::MAX).min(input.len());
    if taken == 0 && size > 0 {
        return Ok(None);
    }
    let (part, rest) = input.split_at(taken);
    *input = rest;
    let rest = size - taken as u64;
    *left = (rest > 0).then_some(rest);
    Ok(Some(CarrierItem::Part(Cow::Borrowed(part), rest == 0)))
}
