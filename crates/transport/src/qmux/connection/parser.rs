//! Incremental parsing of frames. Stream data is forwarded in the pieces in which it arrives; of other frames at
//! most one is buffered until it is complete.

use crate::qmux::{
    QmuxFraming,
    frame::{self, QmuxFrame},
    limits,
    violation::Violation,
};

/// Parser position within the frames.
#[derive(Debug, Default)]
pub(super) struct FrameParser {
    /// Bytes of an incomplete frame.
    head: Vec<u8>,
    data: Option<StreamData>,
}

/// STREAM frame whose data follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct StreamData {
    pub(super) id: u64,
    /// Bytes left; `None`: up to the end of the record or message.
    pub(super) left: Option<u64>,
    pub(super) fin: bool,
}

/// Piece of stream data.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct StreamPiece<'a> {
    pub(super) id: u64,
    pub(super) bytes: &'a [u8],
    /// Whether the stream ends with the piece.
    pub(super) fin: bool,
    /// Whether the frame ends with the piece.
    pub(super) is_whole: bool,
}

/// The end of a record or message is inside a frame.
pub(super) const CUT: Violation = Violation::encoding("frame truncated by the end of its record");

impl FrameParser {
    /// Takes the next piece of the STREAM frame whose data is being received off the front of `part`; `None` between
    /// frames. `is_end`: `part` ends its record or message.
    pub(super) fn piece<'a>(&mut self, part: &mut &'a [u8], is_end: bool) -> Option<StreamPiece<'a>> {
        let data = self.data?;
        let size = usize::try_from(data.left.unwrap_or(u64::MAX)).unwrap_or(usize::MAX).min(part.len());
        let (bytes, rest) = part.split_at(size);
        *part = rest;
        let left = data.left.map(|left| left.saturating_sub(size as u64));
        let is_whole = left == Some(0) || (left.is_none() && is_end);
        self.data = (!is_whole).then_some(StreamData { left, ..data });
        Some(StreamPiece { id: data.id, bytes, fin: is_whole && data.fin, is_whole })
    }

    /// Returns whether no frame is incomplete.
    pub(super) fn is_empty(&self) -> bool {
        self.head.is_empty()
    }

    /// Parses one frame, or the head of a STREAM frame, off the front of `part` and passes it to `handle`, which
    /// returns the stream data that follows, if any. `false` when `part` is exhausted.
    pub(super) fn frame(
        &mut self,
        framing: QmuxFraming,
        part: &mut &[u8],
        is_end: bool,
        handle: impl FnOnce(QmuxFrame<'_>) -> Result<Option<StreamData>, Violation>,
    ) -> Result<bool, Violation> {
        let mut head = std::mem::take(&mut self.head);
        let old = head.len();
        let more = if old == 0 { 0 } else { part.len().min(limits::FRAME_BYTES + limits::HEAD_BYTES) };
        let (joined, _) = part.split_at(more);
        head.extend_from_slice(joined);
        let whole: &[u8] = if old == 0 { part } else { &head };
        let mut rest = whole;
        let ends_here = is_end && (old == 0 || more == part.len());
        let taken = frame::take(framing, &mut rest, ends_here)?;
        let used = whole.len().saturating_sub(rest.len());
        let Some(frame) = taken else {
            if ends_here {
                return Err(CUT);
            }
            if whole.len() > limits::FRAME_BYTES + limits::HEAD_BYTES {
                return Err(Violation::protocol("frame too large"));
            }
            if old == 0 {
                head.extend_from_slice(part);
            }
            *part = &[];
            self.head = head;
            return Ok(false);
        };
        *part = part.split_at(used.saturating_sub(old).min(part.len())).1;
        self.data = handle(frame)?;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRAMING: QmuxFraming = QmuxFraming::Qmux01;

    fn max_data(max: u64) -> Vec<u8> {
        let mut out = Vec::new();
        frame::put_max_data(max, &mut out);
        out
    }

    #[test]
    fn frame_may_arrive_in_pieces() {
        let bytes = max_data(1 << 40);
        let mut parser = FrameParser::default();
        let mut found = None;
        for byte in &bytes {
            assert_eq!(found, None);
            let mut part = std::slice::from_ref(byte);
            let handle = |frame: QmuxFrame<'_>| {
                found = matches!(frame, QmuxFrame::MaxData(max) if max == 1 << 40).then_some(());
                Ok(None)
            };
            parser.frame(FRAMING, &mut part, false, handle).unwrap();
            assert!(part.is_empty());
        }
        assert_eq!((found, parser.is_empty()), (Some(()), true));
    }

    #[test]
    fn frame_must_not_cross_its_record() {
        let bytes = max_data(1 << 40);
        let mut part = bytes.get(..3).unwrap();
        let result = FrameParser::default().frame(FRAMING, &mut part, true, |_| Ok(None));
        assert_eq!(result.unwrap_err().what, CUT.what);
    }

    #[test]
    fn stream_data_follows_its_head_up_to_its_length() {
        let mut bytes = max_data(1);
        bytes.extend_from_slice(b"abcX");
        let mut parser = FrameParser::default();
        let mut part = bytes.as_slice();
        let data = StreamData { id: 4, left: Some(3), fin: true };
        parser.frame(FRAMING, &mut part, false, |_| Ok(Some(data))).unwrap();
        let (mut first, _) = part.split_at(2);
        let piece = StreamPiece { id: 4, bytes: b"ab", fin: false, is_whole: false };
        assert_eq!(parser.piece(&mut first, false), Some(piece));
        let (_, mut second) = part.split_at(2);
        let piece = StreamPiece { id: 4, bytes: b"c", fin: true, is_whole: true };
        assert_eq!(parser.piece(&mut second, false), Some(piece));
        assert_eq!((parser.piece(&mut second, false), second), (None, &b"X"[..]));
    }

    #[test]
    fn stream_data_without_length_ends_with_its_record() {
        let bytes = max_data(1);
        let mut parser = FrameParser::default();
        let data = StreamData { id: 4, left: None, fin: true };
        parser.frame(FRAMING, &mut bytes.as_slice(), false, |_| Ok(Some(data))).unwrap();
        assert!(!parser.piece(&mut &b"ab"[..], false).unwrap().fin);
        assert!(parser.piece(&mut &b"c"[..], true).unwrap().fin);
    }
}
