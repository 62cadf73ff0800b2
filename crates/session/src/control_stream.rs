//! The receiving side of a control stream.

use relay_model::{
    StreamCode, limits,
    transport::{ReadError, Stream, Transport},
};
use relay_wire::MessageBuf;

use crate::work::{READ as READ_UNITS, Work};

/// Bytes read at a time.
const READ: usize = 16 * 1024;

/// Received control bytes of one stream, and its end.
#[derive(Debug, Default)]
pub(crate) struct ControlStreamReader {
    pub(crate) buffer: MessageBuf,
    end: Option<StreamEnd>,
}

/// End of the peer's sending side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StreamEnd {
    /// FIN received.
    Fin,
    /// Reset received, or the stream is gone.
    Reset(StreamCode),
}

impl ControlStreamReader {
    /// Reads available bytes, about one message at most, while `work` lasts. True when there may be more: take
    /// messages out of the inbox and call again.
    pub(crate) fn fill<T: Transport>(&mut self, t: &mut T, stream: Stream, work: &mut Work) -> bool {
        while self.end.is_none() {
            if self.buffer.len() > limits::CONTROL_MESSAGE_BYTES + READ {
                return true;
            }
            if work.is_spent() {
                return false;
            }
            work.take(READ_UNITS);
            match t.read(stream, READ) {
                Ok(Some(bytes)) => self.buffer.push(&bytes),
                Ok(None) => self.end = Some(StreamEnd::Fin),
                Err(ReadError::Blocked) => return false,
                Err(ReadError::Reset(code)) => self.end = Some(StreamEnd::Reset(code)),
                Err(ReadError::Gone) => self.end = Some(StreamEnd::Reset(StreamCode::CANCEL)),
            }
        }
        false
    }

    /// Drops the unparsed bytes.
    pub(crate) fn discard(&mut self) {
        self.buffer = MessageBuf::default();
    }

    pub(crate) fn end(&self) -> Option<StreamEnd> {
        self.end
    }
}
