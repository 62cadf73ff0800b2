//! Framing: cuts a byte stream into frames, and joins frames to a byte stream.

use bytes::{Buf, Bytes, BytesMut};
use clap::Args;

/// Largest frame, bytes: the relay's limit.
pub(crate) const FRAME_BYTES: usize = 16 * 1024 * 1024;
/// Largest frame without a configured frame size, bytes.
const CHUNK_BYTES: usize = 16 * 1024;

/// Framing options, the same for reading and writing. The default is raw bytes.
#[derive(Clone, Copy, Debug, Default, Args)]
#[group(multiple = false)]
pub struct FramingArgs {
    /// A frame is a line, without its newline
    #[arg(long, help_heading = "Framing")]
    pub(crate) lines: bool,

    /// Before each frame stands its length: four bytes, the highest first
    #[arg(long, help_heading = "Framing")]
    pub(crate) length_prefixed: bool,
}

/// Frame boundaries in a byte stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ByteFraming {
    /// No boundaries: frames of this size, or of the bytes available at a time.
    Raw(Option<usize>),
    Lines,
    LengthPrefixed,
}

impl FramingArgs {
    pub(crate) fn framing(self, frame_size: Option<usize>) -> ByteFraming {
        match self {
            Self { lines: true, .. } => ByteFraming::Lines,
            Self { length_prefixed: true, .. } => ByteFraming::LengthPrefixed,
            Self { .. } => ByteFraming::Raw(frame_size),
        }
    }
}

/// Framing error of the input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FramingError {
    /// The input ends within a frame.
    Truncated,
    /// A frame is over [`FRAME_BYTES`].
    TooLarge,
}

impl std::fmt::Display for FramingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Truncated => "the input ends in the middle of a frame",
            Self::TooLarge => "a frame of the input is larger than 16 MiB, the most a relay takes",
        })
    }
}

impl ByteFraming {
    /// Takes the next frame off the front of `input`. `None`: more input is needed, or, at the end, nothing is left.
    pub(crate) fn cut(self, input: &mut BytesMut, at_end: bool) -> Result<Option<Bytes>, FramingError> {
        let frame = match self {
            Self::Raw(None) => self::take(input, input.len().min(CHUNK_BYTES), true),
            Self::Raw(Some(size)) => self::take(input, size, at_end),
            Self::Lines => match input.iter().position(|byte| *byte == b'\n') {
                Some(end) => {
                    let line = input.split_to(end).freeze();
                    input.advance(1);
                    return if line.len() > FRAME_BYTES {
                        Err(FramingError::TooLarge)
                    } else {
                        Ok(Some(line))
                    };
                }
                None => self::take(input, usize::MAX, at_end),
            },
            Self::LengthPrefixed => return length_prefixed(input, at_end),
        };
        match frame {
            None if input.len() > FRAME_BYTES => Err(FramingError::TooLarge),
            frame => Ok(frame),
        }
    }

    /// Whether frames are written in pieces as they arrive, because their ends are not marked.
    pub(crate) fn is_raw(self) -> bool {
        matches!(self, Self::Raw(_))
    }

    /// Formats a whole frame for output.
    pub(crate) fn wrap(self, frame: &[u8]) -> Bytes {
        let mut out = BytesMut::with_capacity(frame.len() + 4);
        if self == Self::LengthPrefixed {
            out.extend_from_slice(&u32::try_from(frame.len()).unwrap_or(u32::MAX).to_be_bytes());
        }
        out.extend_from_slice(frame);
        if self == Self::Lines {
            out.extend_from_slice(b"\n");
        }
        out.freeze()
    }
}

/// Takes `size` bytes, or what is left if `short`.
fn take(input: &mut BytesMut, size: usize, short: bool) -> Option<Bytes> {
    match input.len() {
        0 => None,
        len if len >= size => Some(input.split_to(size).freeze()),
        _ => short.then(|| input.split().freeze()),
    }
}

fn length_prefixed(input: &mut BytesMut, at_end: bool) -> Result<Option<Bytes>, FramingError> {
    let Some(head) = input.first_chunk::<4>() else {
        return if at_end && !input.is_empty() { Err(FramingError::Truncated) } else { Ok(None) };
    };
    let size = u32::from_be_bytes(*head) as usize;
    if size > FRAME_BYTES {
        return Err(FramingError::TooLarge);
    }
    if input.len() - 4 < size {
        return if at_end { Err(FramingError::Truncated) } else { Ok(None) };
    }
    input.advance(4);
    Ok(Some(input.split_to(size).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts all frames of `input`, given in two halves split at `at`.
    fn frames(framing: ByteFraming, input: &[u8], at: usize) -> Result<Vec<Bytes>, FramingError> {
        let (first, second) = input.split_at(at);
        let (mut held, mut out) = (BytesMut::from(first), Vec::new());
        while let Some(frame) = framing.cut(&mut held, false)? {
            out.push(frame);
        }
        held.extend_from_slice(second);
        while let Some(frame) = framing.cut(&mut held, true)? {
            out.push(frame);
        }
        Ok(out)
    }

    #[test]
    fn marked_frames_are_the_same_however_input_comes() {
        let lines = b"one\n\ntwo\r\nlast";
        let prefixed = b"\0\0\0\x03one\0\0\0\0\0\0\0\x01x";
        for at in 0..=lines.len() {
            let found = frames(ByteFraming::Lines, lines, at).unwrap();
            assert_eq!(found, [&b"one"[..], b"", b"two\r", b"last"]);
        }
        for at in 0..=prefixed.len() {
            let found = frames(ByteFraming::LengthPrefixed, prefixed, at).unwrap();
            assert_eq!(found, [&b"one"[..], b"", b"x"]);
            let again: Vec<u8> = found.iter().flat_map(|f| ByteFraming::LengthPrefixed.wrap(f)).collect();
            assert_eq!(again, prefixed);
        }
    }

    #[test]
    fn frames_of_a_size_are_of_that_size_but_the_last() {
        for at in 0..=10 {
            let found = frames(ByteFraming::Raw(Some(4)), b"0123456789", at).unwrap();
            assert_eq!(found, [&b"0123"[..], b"4567", b"89"]);
        }
    }

    #[test]
    fn a_frame_cut_short_or_too_large_is_refused() {
        for short in [&b"\0\0"[..], b"\0\0\0\x02x"] {
            assert_eq!(frames(ByteFraming::LengthPrefixed, short, 0), Err(FramingError::Truncated));
        }
        let size = u32::try_from(FRAME_BYTES).unwrap();
        let mut held = BytesMut::from(&size.to_be_bytes()[..]);
        assert_eq!(ByteFraming::LengthPrefixed.cut(&mut held, false), Ok(None));
        let mut held = BytesMut::from(&(size + 1).to_be_bytes()[..]);
        assert_eq!(ByteFraming::LengthPrefixed.cut(&mut held, false), Err(FramingError::TooLarge));
        let mut long = BytesMut::zeroed(FRAME_BYTES + 1);
        assert_eq!(ByteFraming::Lines.cut(&mut long, false), Err(FramingError::TooLarge));
    }
}
