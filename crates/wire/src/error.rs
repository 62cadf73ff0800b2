//! Decoding errors, and their session and stream codes.

use relay_model::{PathError, SessionCode, StreamCode, limits};

use crate::varint::Short;

/// Decoding error. Always a violation by the sender.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum DecodeError {
    /// The message ends inside a field.
    #[error("message ended early")]
    Short,
    /// The message goes on after its last field.
    #[error("message has trailing bytes")]
    Leftover,
    /// The message is longer than [`limits::CONTROL_MESSAGE_BYTES`].
    #[error("message is longer than {} bytes", limits::CONTROL_MESSAGE_BYTES)]
    MessageTooLarge,
    /// A string is not UTF-8.
    #[error("string is not utf-8")]
    Utf8,
    /// A path exceeds a limit.
    #[error(transparent)]
    Path(#[from] PathError),
    /// A track name is longer than [`limits::TRACK_NAME_BYTES`].
    #[error("track name is longer than {} bytes", limits::TRACK_NAME_BYTES)]
    TrackNameTooLong,
    /// A GOAWAY URI is longer than [`limits::GOAWAY_URI_BYTES`].
    #[error("goaway uri is longer than {} bytes", limits::GOAWAY_URI_BYTES)]
    UriTooLong,
    /// A hop chain is longer than [`limits::HOPS`].
    #[error("hop chain is longer than {}", limits::HOPS)]
    TooManyHops,
    /// A hop chain repeats a non-zero id.
    #[error("hop chain repeats an id")]
    RepeatedHop,
    /// A message has more parameters than [`limits::PARAMETERS`].
    #[error("more than {} parameters", limits::PARAMETERS)]
    TooManyParameters,
    /// An ANNOUNCE_INIT lists more than [`crate::lite::AnnounceInit::MOST`] broadcasts.
    #[error("too many announces")]
    TooManyAnnounces,
    /// A CLIENT_SETUP or SERVER_SETUP is longer than [`crate::lite::legacy::SETUP_BYTES`].
    #[error("setup is longer than {} bytes", crate::lite::legacy::SETUP_BYTES)]
    SetupTooLarge,
    /// A SETUP parameter id repeats (draft-lcurley-moq-lite-05, SETUP).
    #[error("duplicate")]
    DuplicateParameter,
    /// A SETUP parameter does not fill its length, or does not parse as its type.
    #[error("malformed parameter")]
    MalformedParameter,
    /// A field holds an invalid value; the text names the field.
    #[error("invalid {0}")]
    Value(&'static str),
    /// Unknown type of a subscribe response or setup reply, which cannot be skipped.
    #[error("unknown response type")]
    UnknownResponse,
    /// A frame is larger than [`limits::FRAME_BYTES`].
    #[error("frame is larger than {} bytes", limits::FRAME_BYTES)]
    FrameTooLarge,
    /// A datagram's payload is larger than [`limits::DATAGRAM_PAYLOAD`].
    #[error("datagram is larger than {} bytes", limits::DATAGRAM_PAYLOAD)]
    DatagramTooLarge,
    /// A timestamp outside `0..=`[`crate::lite::TICK_MAX`].
    #[error("timestamp out of range")]
    Timestamp,
}

impl DecodeError {
    /// Returns the code for closing the session because of this error.
    pub fn session_code(&self) -> SessionCode {
        match self {
            Self::MalformedParameter => SessionCode::KEY_VALUE_FORMATTING,
            _ => SessionCode::PROTOCOL_VIOLATION,
        }
    }

    /// Returns the code for resetting or stopping one stream because of this error.
    pub fn stream_code(&self) -> StreamCode {
        match self {
            Self::FrameTooLarge => StreamCode::FRAME_TOO_LARGE,
            Self::Timestamp => StreamCode::TIMESTAMP_MISMATCH,
            Self::Short | Self::Leftover => StreamCode::WRONG_SIZE,
            _ => StreamCode::CANCEL,
        }
    }
}

impl From<Short> for DecodeError {
    fn from(_: Short) -> Self {
        Self::Short
    }
}
