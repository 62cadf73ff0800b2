//! Codec of frames in all framings: those of RFC 9000 §19 with the changes of draft-ietf-quic-qmux-01 §4, and
//! the legacy `webtransport` framing (deployed relays, captured).

use relay_model::transport::Dir;
use relay_wire::varint::{self, Short};

use super::{QmuxFraming, limits, violation::Violation};

// Frame types (RFC 9000 §19).
const PADDING: u64 = 0x00;
const RESET: u64 = 0x04;
const STOP: u64 = 0x05;
const STREAM: u64 = 0x08;
const STREAM_LAST: u64 = 0x0f;
const MAX_DATA: u64 = 0x10;
const MAX_STREAM_DATA: u64 = 0x11;
const MAX_STREAMS_BI: u64 = 0x12;
const MAX_STREAMS_UNI: u64 = 0x13;
const DATA_BLOCKED: u64 = 0x14;
const STREAM_DATA_BLOCKED: u64 = 0x15;
const STREAMS_BLOCKED_BI: u64 = 0x16;
const STREAMS_BLOCKED_UNI: u64 = 0x17;
const CONNECTION_CLOSE: u64 = 0x1c;
const APPLICATION_CLOSE: u64 = 0x1d;
// Frame types of extensions: RFC 9221 §4, draft-ietf-quic-qmux-01 §4.2 and §4.3.
const DATAGRAM: u64 = 0x30;
const DATAGRAM_SIZED: u64 = 0x31;
const PARAMETERS: u64 = 0x3f51_5330_0d0a_0d0a;
const PING: u64 = 0x348c_6752_9ef8_c7bd;
const PONG: u64 = 0x348c_6752_9ef8_c7be;

/// Flag bits of the type of a STREAM frame (RFC 9000 §19.8).
const FIN: u64 = 0x01;
const SIZED: u64 = 0x02;
const OFFSET: u64 = 0x04;
/// Largest stream count that stream ids can express (RFC 9000 §4.6).
const STREAMS: u64 = 1 << 60;

/// Received frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum QmuxFrame<'a> {
    /// PADDING.
    Idle,
    /// Head of a STREAM frame: `size` bytes of data follow, or all up to the end of the record or message.
    Stream {
        id: u64,
        offset: Option<u64>,
        size: Option<u64>,
        fin: bool,
    },
    /// RESET_STREAM; without a final size in the legacy framing.
    Reset {
        id: u64,
        code: u64,
        size: Option<u64>,
    },
    Stop {
        id: u64,
        code: u64,
    },
    MaxData(u64),
    MaxStreamData {
        id: u64,
        max: u64,
    },
    MaxStreams {
        dir: Dir,
        max: u64,
    },
    /// DATA_BLOCKED or STREAM_DATA_BLOCKED.
    Blocked,
    /// STREAMS_BLOCKED at `limit`, the peer's cumulative stream limit.
    StreamsBlocked {
        dir: Dir,
        limit: u64,
    },
    Close {
        is_application: bool,
        code: u64,
        reason: &'a [u8],
    },
    Parameters(&'a [u8]),
    Ping(u64),
    Pong(u64),
    Datagram(&'a [u8]),
}

/// Reason for which no frame was parsed.
enum FrameError {
    /// The frame is incomplete.
    Short,
    Wrong(Violation),
}

impl From<Short> for FrameError {
    fn from(Short: Short) -> Self {
        Self::Short
    }
}

/// Takes one frame, or the head of a STREAM frame, off the front of `input`. `None` when the frame is
/// incomplete; `input` is then unchanged. `is_end`: the record or message ends with `input`.
pub(super) fn take<'a>(
    framing: QmuxFraming,
    input: &mut &'a [u8],
    is_end: bool,
) -> Result<Option<QmuxFrame<'a>>, Violation> {
    let mut rest = *input;
    let taken = match framing {
        QmuxFraming::Legacy => legacy(&mut rest, is_end),
        QmuxFraming::Qmux00 | QmuxFraming::Qmux01 => qmux(framing, &mut rest, is_end),
    };
    match taken {
        Ok(frame) => {
            *input = rest;
            Ok(Some(frame))
        }
        Err(FrameError::Short) => Ok(None),
        Err(FrameError::Wrong(violation)) => Err(violation),
    }
}

fn qmux<'a>(framing: QmuxFraming, input: &mut &'a [u8], is_end: bool) -> Result<QmuxFrame<'a>, FrameError> {
    let kind = varint::get(input)?;
    let frame = match kind {
        PADDING => QmuxFrame::Idle,
        STREAM..=STREAM_LAST => {
            let id = varint::get(input)?;
            let offset = if kind & OFFSET == 0 { None } else { Some(varint::get(input)?) };
            let size = if kind & SIZED == 0 { None } else { Some(varint::get(input)?) };
            QmuxFrame::Stream { id, offset, size, fin: kind & FIN != 0 }
        }
        RESET => {
            let (id, code) = (varint::get(input)?, varint::get(input)?);
            QmuxFrame::Reset { id, code, size: Some(varint::get(input)?) }
        }
        STOP => QmuxFrame::Stop { id: varint::get(input)?, code: varint::get(input)? },
        MAX_DATA => QmuxFrame::MaxData(varint::get(input)?),
        MAX_STREAM_DATA => QmuxFrame::MaxStreamData { id: varint::get(input)?, max: varint::get(input)? },
        MAX_STREAMS_BI => QmuxFrame::MaxStreams { dir: Dir::Bi, max: streams(input)? },
        MAX_STREAMS_UNI => QmuxFrame::MaxStreams { dir: Dir::Uni, max: streams(input)? },
        DATA_BLOCKED => {
            varint::get(input)?;
            QmuxFrame::Blocked
        }
        STREAM_DATA_BLOCKED => {
            varint::get(input)?;
            varint::get(input)?;
            QmuxFrame::Blocked
        }
        STREAMS_BLOCKED_BI => QmuxFrame::StreamsBlocked { dir: Dir::Bi, limit: streams(input)? },
        STREAMS_BLOCKED_UNI => QmuxFrame::StreamsBlocked { dir: Dir::Uni, limit: streams(input)? },
        CONNECTION_CLOSE => {
            let code = varint::get(input)?;
            varint::get(input)?;
            QmuxFrame::Close { is_application: false, code, reason: sized(input)? }
        }
        APPLICATION_CLOSE => {
            QmuxFrame::Close { is_application: true, code: varint::get(input)?, reason: sized(input)? }
        }
        PARAMETERS => QmuxFrame::Parameters(sized(input)?),
        PING if framing == QmuxFraming::Qmux01 => QmuxFrame::Ping(varint::get(input)?),
        PONG if framing == QmuxFraming::Qmux01 => QmuxFrame::Pong(varint::get(input)?),
        DATAGRAM if framing == QmuxFraming::Qmux01 => QmuxFrame::Datagram(to_end(input, is_end)?),
        DATAGRAM_SIZED if framing == QmuxFraming::Qmux01 => QmuxFrame::Datagram(sized(input)?),
        _ => return Err(FrameError::Wrong(Violation::encoding("unknown frame type"))),
    };
    Ok(frame)
}

fn legacy<'a>(input: &mut &'a [u8], is_end: bool) -> Result<QmuxFrame<'a>, FrameError> {
    let kind = varint::get(input)?;
    let frame = match kind {
        0x08 | 0x09 => {
            return Ok(QmuxFrame::Stream {
                id: varint::get(input)?,
                offset: None,
                size: None,
                fin: kind & FIN != 0,
            });
        }
        RESET => QmuxFrame::Reset { id: varint::get(input)?, code: varint::get(input)?, size: None },
        STOP => QmuxFrame::Stop { id: varint::get(input)?, code: varint::get(input)? },
        // Peers with the legacy framing use both types for an application close.
        CONNECTION_CLOSE | APPLICATION_CLOSE => QmuxFrame::Close {
            is_application: true,
            code: varint::get(input)?,
            reason: to_end(input, is_end)?,
        },
        _ => return Err(FrameError::Wrong(Violation::encoding("unknown frame type"))),
    };
    Ok(frame)
}

fn streams(input: &mut &[u8]) -> Result<u64, FrameError> {
    let count = varint::get(input)?;
    if count > STREAMS {
        return Err(FrameError::Wrong(Violation::encoding("stream count above 2^60")));
    }
    Ok(count)
}

fn sized<'a>(input: &mut &'a [u8]) -> Result<&'a [u8], FrameError> {
    let size = varint::get(input)?;
    if size > limits::FRAME_BYTES as u64 {
        return Err(FrameError::Wrong(Violation::protocol("frame too large")));
    }
    let (body, rest) = input.split_at_checked(size as usize).ok_or(FrameError::Short)?;
    *input = rest;
    Ok(body)
}

fn to_end<'a>(input: &mut &'a [u8], is_end: bool) -> Result<&'a [u8], FrameError> {
    if !is_end {
        return Err(FrameError::Short);
    }
    Ok(std::mem::take(input))
}

/// Appends the head of a STREAM frame with `size` bytes of data.
pub(super) fn put_stream(
    framing: QmuxFraming,
    id: u64,
    offset: u64,
    size: usize,
    fin: bool,
    out: &mut Vec<u8>,
) {
    if framing == QmuxFraming::Legacy {
        varint::put(STREAM | u64::from(fin), out);
        return varint::put(id, out);
    }
    varint::put(STREAM | OFFSET | SIZED | u64::from(fin), out);
    varint::put(id, out);
    varint::put(offset, out);
    varint::put(size as u64, out);
}

pub(super) fn put_reset(framing: QmuxFraming, id: u64, code: u64, size: u64, out: &mut Vec<u8>) {
    put(RESET, &[id, code], out);
    if framing != QmuxFraming::Legacy {
        varint::put(size, out);
    }
}

pub(super) fn put_stop(id: u64, code: u64, out: &mut Vec<u8>) {
    put(STOP, &[id, code], out);
}

pub(super) fn put_max_data(max: u64, out: &mut Vec<u8>) {
    put(MAX_DATA, &[max], out);
}

pub(super) fn put_max_stream_data(id: u64, max: u64, out: &mut Vec<u8>) {
    put(MAX_STREAM_DATA, &[id, max], out);
}

pub(super) fn put_max_streams(dir: Dir, max: u64, out: &mut Vec<u8>) {
    put(if dir == Dir::Bi { MAX_STREAMS_BI } else { MAX_STREAMS_UNI }, &[max], out);
}

pub(super) fn put_ping(sequence: u64, out: &mut Vec<u8>) {
    put(PING, &[sequence], out);
}

pub(super) fn put_pong(sequence: u64, out: &mut Vec<u8>) {
    put(PONG, &[sequence], out);
}

pub(super) fn put_parameters(body: &[u8], out: &mut Vec<u8>) {
    put(PARAMETERS, &[body.len() as u64], out);
    out.extend_from_slice(body);
}

/// Appends the head of a DATAGRAM frame with `size` bytes of payload.
pub(super) fn put_datagram(size: usize, out: &mut Vec<u8>) {
    put(DATAGRAM_SIZED, &[size as u64], out);
}

/// Appends CONNECTION_CLOSE, for an application close or a protocol violation (RFC 9000 §19.19).
pub(super) fn put_close(
    framing: QmuxFraming,
    is_application: bool,
    code: u64,
    reason: &[u8],
    out: &mut Vec<u8>,
) {
    put(if is_application { APPLICATION_CLOSE } else { CONNECTION_CLOSE }, &[code], out);
    if framing != QmuxFraming::Legacy {
        if !is_application {
            // Frame type: unknown.
            varint::put(0, out);
        }
        varint::put(reason.len() as u64, out);
    }
    out.extend_from_slice(reason);
}

fn put(kind: u64, fields: &[u64], out: &mut Vec<u8>) {
    varint::put(kind, out);
    for field in fields {
        varint::put(*field, out);
    }
}
