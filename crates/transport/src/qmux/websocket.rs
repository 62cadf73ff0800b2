//! WebSocket frames after the upgrade (RFC 6455 §5).
//!
//! Frame heads are parsed and written by `tungstenite`. Its message reader is not used: it reassembles each
//! message before any of it can be processed, and reads from its own socket.

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::{limits, violation::Violation};

/// Longest frame head in bytes: two, eight of length, four of mask (RFC 6455 §5.2).
const HEAD_BYTES: usize = 14;
/// Longest payload of a ping, pong or close in bytes (RFC 6455 §5.5).
const CONTROL_BYTES: u64 = 125;

/// Close codes (RFC 6455 §7.4.1).
mod close {
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const UNSUPPORTED: u16 = 1003;
    pub(super) const TOO_LARGE: u16 = 1009;
}

/// Item read from the WebSocket.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WebSocketItem<'a> {
    /// Part of a message, not unmasked.
    Data(Masked<'a>),
    Ping(Vec<u8>),
    Pong,
    /// Close frame with its code.
    Close(Option<u16>),
}

/// Part of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Masked<'a> {
    pub(super) bytes: &'a [u8],
    /// Masking key, and the offset of `bytes` in the frame.
    pub(super) mask: Option<([u8; 4], usize)>,
    /// Whether the message ends here.
    pub(super) is_end: bool,
}

/// Incremental frame reader.
#[derive(Debug)]
pub(super) struct WebSocketReader {
    is_client: bool,
    /// Largest accepted message in bytes.
    largest: u64,
    /// Bytes of an incomplete head.
    head: Vec<u8>,
    frame: Option<OpenFrame>,
    /// Bytes so far of an incomplete message.
    message: Option<u64>,
}

/// Frame whose head was read.
#[derive(Debug)]
struct OpenFrame {
    kind: WebSocketKind,
    left: u64,
    mask: Option<[u8; 4]>,
    /// Payload bytes read so far.
    at: usize,
}

#[derive(Debug)]
enum WebSocketKind {
    Data { is_final: bool },
    Control(Control, Vec<u8>),
}

impl WebSocketReader {
    pub(super) fn new(is_client: bool, largest: u64) -> Self {
        Self { is_client, largest, head: Vec::new(), frame: None, message: None }
    }

    /// Takes the next item off the front of `input`; `None` when more input is needed.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<WebSocketItem<'a>>, Violation> {
        loop {
            if self.frame.is_none() && !self.open(input)? {
                return Ok(None);
            }
            let Some(frame) = &mut self.frame else { return Ok(None) };
            let size = usize::try_from(frame.left).unwrap_or(usize::MAX).min(input.len());
            if size == 0 && frame.left > 0 {
                return Ok(None);
            }
            let (bytes, rest) = input.split_at(size);
            *input = rest;
            let mask = frame.mask.map(|key| (key, frame.at));
            frame.left -= size as u64;
            frame.at = frame.at.wrapping_add(size);
            let is_whole = frame.left == 0;
            if let WebSocketKind::Control(_, body) = &mut frame.kind {
                let start = body.len();
                body.extend_from_slice(bytes);
                if let (Some((key, at)), Some(body)) = (mask, body.get_mut(start..)) {
                    unmask(body, key, at);
                }
                if is_whole {
                    return Ok(self.frame.take().and_then(control));
                }
                continue;
            }
            let is_end = is_whole && matches!(frame.kind, WebSocketKind::Data { is_final: true });
            if is_whole {
                self.frame = None;
            }
            if is_end {
                self.message = None;
            }
            if is_end || !bytes.is_empty() {
                return Ok(Some(WebSocketItem::Data(Masked { bytes, mask, is_end })));
            }
        }
    }

    /// Reads a frame head; `false` while it is incomplete.
    fn open(&mut self, input: &mut &[u8]) -> Result<bool, Violation> {
        let old = self.head.len();
        let (more, _) = input.split_at((HEAD_BYTES - old.min(HEAD_BYTES)).min(input.len()));
        self.head.extend_from_slice(more);
        let mut cursor = Cursor::new(&self.head);
        let parsed = FrameHeader::parse(&mut cursor)
            .map_err(|_| Violation::websocket(close::PROTOCOL, "websocket frame with an unknown opcode"))?;
        let used = usize::try_from(cursor.position()).unwrap_or(old);
        let taken = if parsed.is_some() { used.saturating_sub(old) } else { more.len() };
        *input = input.split_at(taken.min(input.len())).1;
        let Some((header, size)) = parsed else { return Ok(false) };
        self.head.clear();
        let kind = self.check(&header, size)?;
        self.frame = Some(OpenFrame { kind, left: size, mask: header.mask, at: 0 });
        Ok(true)
    }

    fn check(&mut self, header: &FrameHeader, size: u64) -> Result<WebSocketKind, Violation> {
        let wrong = |what| Err(Violation::websocket(close::PROTOCOL, what));
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return wrong("websocket frame with reserved bits");
        }
        if header.mask.is_some() == self.is_client {
            return wrong(if self.is_client {
                "masked websocket frame from a server"
            } else {
                "unmasked websocket frame from a client"
            });
        }
        let data = match header.opcode {
            OpCode::Data(data) => data,
            OpCode::Control(_) if !header.is_final => return wrong("fragmented websocket control frame"),
            OpCode::Control(_) if size > CONTROL_BYTES => return wrong("websocket control frame too large"),
            OpCode::Control(control) => return Ok(WebSocketKind::Control(control, Vec::new())),
        };
        let before = match (data, self.message) {
            (Data::Continue, Some(before)) => before,
            (Data::Binary, None) => 0,
            (Data::Text, _) => {
                return Err(Violation::websocket(close::UNSUPPORTED, "websocket text message"));
            }
            (Data::Continue, None) => return wrong("websocket continuation without a message"),
            _ => return wrong("websocket message inside a fragmented message"),
        };
        let total = before.saturating_add(size);
        if total > self.largest {
            return Err(Violation::websocket(close::TOO_LARGE, "websocket message too large"));
        }
        self.message = Some(total);
        Ok(WebSocketKind::Data { is_final: header.is_final })
    }
}

fn control<'a>(frame: OpenFrame) -> Option<WebSocketItem<'a>> {
    let WebSocketKind::Control(control, body) = frame.kind else { return None };
    Some(match control {
        Control::Ping => WebSocketItem::Ping(body),
        Control::Close => {
            let code = body.first_chunk().map(|code| u16::from_be_bytes(*code));
            WebSocketItem::Close(code)
        }
        _ => WebSocketItem::Pong,
    })
}

/// Masks or unmasks bytes at offset `at` of the payload (RFC 6455 §5.3).
pub(super) fn unmask(bytes: &mut [u8], key: [u8; 4], at: usize) {
    let mut turned = key;
    turned.rotate_left(at % key.len());
    let (words, rest) = bytes.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(turned)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(turned) {
        *byte ^= key;
    }
}

/// Kinds of sent frames, none of them fragmented.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Message,
    Ping,
    Pong,
    Close,
}

/// Appends a frame head for `size` bytes of payload.
pub(super) fn put_head(sent: Sent, size: usize, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let opcode = match sent {
        Sent::Message => OpCode::Data(Data::Binary),
        Sent::Ping => OpCode::Control(Control::Ping),
        Sent::Pong => OpCode::Control(Control::Pong),
        Sent::Close => OpCode::Control(Control::Close),
    };
    let header = FrameHeader { is_final: true, opcode, mask, ..FrameHeader::default() };
    // Writing to a `Vec` cannot fail.
    let _ = header.format(size as u64, out);
}

/// Generator of a client's masking keys, distinct but not cryptographic: masking protects intermediaries
/// from bytes chosen by a web page (RFC 6455 §10.3), which this client does not run.
#[derive(Clone, Debug)]
pub(super) struct Masks(u64);

impl Masks {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    pub(super) fn next(&mut self) -> [u8; 4] {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let [a, b, c, d, ..] = (mixed ^ (mixed >> 27)).to_be_bytes();
        [a, b, c, d]
    }
}

/// Returns the largest accepted message of a framing, in bytes.
pub(super) fn largest(framing: super::QmuxFraming) -> u64 {
    match framing {
        super::QmuxFraming::Qmux01 => limits::RECORD_BYTES,
        super::QmuxFraming::Qmux00 | super::QmuxFraming::Legacy => limits::MESSAGE_BYTES,
    }
}
