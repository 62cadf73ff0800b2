//! WebSocket frames (RFC 6455), after the upgrade.
//!
//! Heads are read and written by `tungstenite`. Its reader of messages is not used: it gathers each whole
//! before anything is seen of it, and it reads from a socket of its own.

use std::io::Cursor;

use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::{limits, violation::Violation};

/// Longest head: two bytes, eight of size, four of mask.
const HEAD_BYTES: usize = 14;
/// Longest payload of a ping, pong or close.
const CONTROL_BYTES: u64 = 125;

/// Close codes (RFC 6455 section 7.4.1).
mod close {
    pub(super) const PROTOCOL: u16 = 1002;
    pub(super) const UNSUPPORTED: u16 = 1003;
    pub(super) const TOO_LARGE: u16 = 1009;
}

/// What was read.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    /// Part of a message, still masked.
    Data(Masked<'a>),
    Ping(Vec<u8>),
    Pong,
    /// The peer closes.
    Close(Option<u16>),
}

/// Part of a message.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Masked<'a> {
    pub(super) bytes: &'a [u8],
    /// And where in the mask the bytes begin.
    pub(super) mask: Option<([u8; 4], usize)>,
    /// The message ends here.
    pub(super) is_end: bool,
}

/// Reads frames of any cut.
#[derive(Debug)]
pub(super) struct Reader {
    is_client: bool,
    /// Largest message.
    largest: u64,
    /// Of a head that is not whole.
    head: Vec<u8>,
    frame: Option<Open>,
    /// Bytes so far of a message that is not whole.
    message: Option<u64>,
}

/// A frame whose head was read.
#[derive(Debug)]
struct Open {
    kind: Kind,
    left: u64,
    mask: Option<[u8; 4]>,
    /// Bytes of it that were read.
    at: usize,
}

#[derive(Debug)]
enum Kind {
    Data { is_final: bool },
    Control(Control, Vec<u8>),
}

impl Reader {
    pub(super) fn new(is_client: bool, largest: u64) -> Self {
        Self { is_client, largest, head: Vec::new(), frame: None, message: None }
    }

    /// Takes the next piece off the front of `input`; `None`: more is needed.
    pub(super) fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<Piece<'a>>, Violation> {
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
            if let Kind::Control(_, body) = &mut frame.kind {
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
            let is_end = is_whole && matches!(frame.kind, Kind::Data { is_final: true });
            if is_whole {
                self.frame = None;
            }
            if is_end {
                self.message = None;
            }
            if is_end || !bytes.is_empty() {
                return Ok(Some(Piece::Data(Masked { bytes, mask, is_end })));
            }
        }
    }

    /// Reads a head; false: it is not whole.
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
        self.frame = Some(Open { kind, left: size, mask: header.mask, at: 0 });
        Ok(true)
    }

    fn check(&mut self, header: &FrameHeader, size: u64) -> Result<Kind, Violation> {
        let wrong = |what| Err(Violation::websocket(close::PROTOCOL, what));
        if header.rsv1 || header.rsv2 || header.rsv3 {
            return wrong("websocket frame with a reserved bit");
        }
        if header.mask.is_some() == self.is_client {
            return wrong(if self.is_client {
                "websocket frame of a server is masked"
            } else {
                "websocket frame of a client is not masked"
            });
        }
        let data = match header.opcode {
            OpCode::Data(data) => data,
            OpCode::Control(_) if !header.is_final => return wrong("websocket control frame in pieces"),
            OpCode::Control(_) if size > CONTROL_BYTES => return wrong("websocket control frame too large"),
            OpCode::Control(control) => return Ok(Kind::Control(control, Vec::new())),
        };
        let before = match (data, self.message) {
            (Data::Continue, Some(before)) => before,
            (Data::Binary, None) => 0,
            (Data::Text, _) => {
                return Err(Violation::websocket(close::UNSUPPORTED, "websocket message of text"));
            }
            (Data::Continue, None) => return wrong("websocket message goes on that never began"),
            _ => return wrong("websocket message begins inside another"),
        };
        let total = before.saturating_add(size);
        if total > self.largest {
            return Err(Violation::websocket(close::TOO_LARGE, "websocket message too large"));
        }
        self.message = Some(total);
        Ok(Kind::Data { is_final: header.is_final })
    }
}

fn control<'a>(frame: Open) -> Option<Piece<'a>> {
    let Kind::Control(control, body) = frame.kind else { return None };
    Some(match control {
        Control::Ping => Piece::Ping(body),
        Control::Close => {
            let code = body.first_chunk().map(|code| u16::from_be_bytes(*code));
            Piece::Close(code)
        }
        _ => Piece::Pong,
    })
}

/// Masks or unmasks bytes that begin at `at` of the payload.
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

/// Kinds of frames sent, each whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sent {
    Message,
    Ping,
    Pong,
    Close,
}

/// Appends the head of a frame with `size` bytes of payload.
pub(super) fn put_head(sent: Sent, size: usize, mask: Option<[u8; 4]>, out: &mut Vec<u8>) {
    let opcode = match sent {
        Sent::Message => OpCode::Data(Data::Binary),
        Sent::Ping => OpCode::Control(Control::Ping),
        Sent::Pong => OpCode::Control(Control::Pong),
        Sent::Close => OpCode::Control(Control::Close),
    };
    let header = FrameHeader { is_final: true, opcode, mask, ..FrameHeader::default() };
    // A vector takes all.
    let _ = header.format(size as u64, out);
}

/// The masks of a client: unlike each other. What is masked is nobody's secret; the rule protects
/// intermediaries from bytes chosen by a page.
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

/// Largest message by framing.
pub(super) fn largest(framing: super::Framing) -> u64 {
    match framing {
        super::Framing::Qmux01 => limits::RECORD_BYTES,
        super::Framing::Qmux00 | super::Framing::Legacy => limits::MESSAGE_BYTES,
    }
}
