//! Why bytes are no message, and what the peer is told.

use relay_model::{PathError, SessionCode, StreamCode, limits};

use crate::varint::Short;

/// What is wrong with the bytes. Always the sender's fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// The message ends inside a field.
    #[error("message ended early")]
    Short,
    /// The message goes on after its last field.
    #[error("message has bytes left over")]
    Leftover,
    /// The message is longer than [`limits::CONTROL_MESSAGE_BYTES`].
    #[error("message is longer than {} bytes", limits::CONTROL_MESSAGE_BYTES)]
    MessageTooLarge,
    /// A string is not UTF-8.
    #[error("string is not utf-8")]
    Utf8,
    /// A path breaks a limit.
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
    /// A hop chain names the same relay twice.
    #[error("hop chain repeats an id")]
    RepeatedHop,
    /// A message has more parameters than [`limits::PARAMETERS`].
    #[error("more than {} parameters", limits::PARAMETERS)]
    TooManyParameters,
    /// A list of announces is longer than a peer may announce.
    #[error("too many announces")]
    TooManyAnnounces,
    /// The first message of a moq-lite-01 or 02 session is no SETUP that we take.
    #[error("setup is longer than {} bytes", crate::lite::legacy::SETUP_BYTES)]
    SetupTooLarge,
    /// A parameter comes twice.
    #[error("duplicate")]
    DuplicateParameter,
    /// A parameter does not fill its length, or is no value of its kind.
    #[error("malformed parameter")]
    MalformedParameter,
    /// A field holds a value its message does not know.
    #[error("{0} has no such value")]
    Value(&'static str),
    /// A response type that cannot be skipped.
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

impl Error {
    /// How a session is closed for it, where it must be.
    pub fn session_code(&self) -> SessionCode {
        match self {
            Self::MalformedParameter => SessionCode::KEY_VALUE_FORMATTING,
            _ => SessionCode::PROTOCOL_VIOLATION,
        }
    }

    /// How one stream is refused for it, where the session may live on.
    pub fn stream_code(&self) -> StreamCode {
        match self {
            Self::FrameTooLarge => StreamCode::FRAME_TOO_LARGE,
            Self::Timestamp => StreamCode::TIMESTAMP_MISMATCH,
            Self::Short | Self::Leftover => StreamCode::WRONG_SIZE,
            _ => StreamCode::CANCEL,
        }
    }
}

impl From<Short> for Error {
    fn from(_: Short) -> Self {
        Self::Short
    }
}
