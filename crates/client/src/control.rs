//! Control messages of one stream.

use bytes::Bytes;
use relay_wire::{
    MessageBuf,
    lite::{Message, Version},
};

use crate::{error::Error, stream::RecvStream};

/// Reads control messages off a stream, after its type.
#[derive(Debug)]
pub(crate) struct ControlReader {
    stream: RecvStream,
    inbox: MessageBuf,
    version: Version,
}

impl ControlReader {
    pub(crate) fn new(stream: RecvStream, version: Version) -> Self {
        Self { stream, inbox: MessageBuf::new(), version }
    }

    /// Returns the next message; `None` at a clean end.
    pub(crate) async fn next<M: Message>(&mut self) -> Result<Option<M>, Error> {
        self.next_by(MessageBuf::next::<M>).await
    }

    /// Returns the next message, which is required.
    pub(crate) async fn receive<M: Message>(&mut self) -> Result<M, Error> {
        self.next().await?.ok_or(Error::Truncated)
    }

    /// Returns the next message that `take` parses; `None` at a clean end.
    pub(crate) async fn next_by<T>(
        &mut self,
        take: impl Fn(&mut MessageBuf, Version) -> Result<Option<T>, relay_wire::DecodeError>,
    ) -> Result<Option<T>, Error> {
        loop {
            if let Some(message) = take(&mut self.inbox, self.version)? {
                return Ok(Some(message));
            }
            if !self.fill().await? {
                return Ok(None);
            }
        }
    }

    /// The stream, for its codes.
    pub(crate) fn stream(&mut self) -> &mut RecvStream {
        &mut self.stream
    }

    /// Reads more bytes; `false` at the end.
    async fn fill(&mut self) -> Result<bool, Error> {
        let bytes: Option<Bytes> = self.stream.read().await?;
        match bytes {
            Some(bytes) => {
                self.inbox.push(&bytes);
                Ok(true)
            }
            None if self.inbox.is_empty() => Ok(false),
            None => Err(Error::Truncated),
        }
    }
}

/// Encodes a request: the stream type, then one message.
pub(crate) fn request<M: Message>(kind: u64, message: &M, version: Version) -> Vec<u8> {
    let mut out = Vec::with_capacity(64);
    relay_wire::varint::put(kind, &mut out);
    message.encode(version, &mut out);
    out
}
