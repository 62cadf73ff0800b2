//! Reassembly of control stream bytes into messages.

use bytes::{Buf, Bytes, BytesMut};
use relay_model::limits;

use crate::{
    DecodeError,
    lite::{Message, Version},
    varint,
};

/// Receive buffer of one control stream.
///
/// Holds the pushed bytes only: a declared length reserves no memory.
#[derive(Debug, Default)]
pub struct MessageBuf {
    bytes: BytesMut,
}

impl MessageBuf {
    /// Creates an empty buffer.
    pub fn new() -> Self {
        Self::default()
    }

    /// Appends received bytes.
    pub fn push(&mut self, bytes: &[u8]) {
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns whether every byte was taken, so that a FIN is clean here.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Number of buffered bytes.
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Takes a bare integer, such as a stream type. `None` while it is incomplete.
    pub fn next_varint(&mut self) -> Option<u64> {
        let mut peek: &[u8] = &self.bytes;
        let value = varint::get(&mut peek).ok()?;
        self.skip_to(peek.len());
        Some(value)
    }

    /// Discards the whole buffer and returns its last byte.
    pub fn take_last(&mut self) -> Option<u8> {
        let last = self.bytes.last().copied();
        self.bytes = BytesMut::new();
        last
    }

    /// Takes the body of a size-prefixed message. `None` while it is incomplete; an error as soon as the size is
    /// known to exceed [`limits::CONTROL_MESSAGE_BYTES`].
    pub fn next_message(&mut self) -> Result<Option<Bytes>, DecodeError> {
        let Some((start, len)) = sized(&self.bytes)? else { return Ok(None) };
        self.bytes.advance(start);
        let body = self.bytes.split_to(len).freeze();
        self.let_go();
        Ok(Some(body))
    }

    /// Takes the body of a message with a two-byte big-endian length prefix. `None` while it is incomplete; an
    /// error as soon as the length is known to exceed `most`.
    pub(crate) fn next_short(&mut self, most: usize) -> Result<Option<Bytes>, DecodeError> {
        let Some(len) = self.bytes.first_chunk().map(|len| usize::from(u16::from_be_bytes(*len))) else {
            return Ok(None);
        };
        if len > most {
            return Err(DecodeError::SetupTooLarge);
        }
        if self.bytes.len() < len + 2 {
            return Ok(None);
        }
        self.bytes.advance(2);
        let body = self.bytes.split_to(len).freeze();
        self.let_go();
        Ok(Some(body))
    }

    /// Like [`Self::next_short`] after a type integer that must be `kind`; a wrong type fails as soon as it is
    /// read.
    pub(crate) fn next_short_typed(&mut self, kind: u64, most: usize) -> Result<Option<Bytes>, DecodeError> {
        let mut peek: &[u8] = &self.bytes;
        let Ok(found) = varint::get(&mut peek) else { return Ok(None) };
        if found != kind {
            return Err(DecodeError::UnknownResponse);
        }
        let rest = peek.len();
        let whole = peek.first_chunk().map(|len| usize::from(u16::from_be_bytes(*len)) + 2);
        if whole.is_none_or(|whole| rest < whole && whole - 2 <= most) {
            return Ok(None);
        }
        self.skip_to(rest);
        self.next_short(most)
    }

    /// Takes a message with its type before the size. A type that `known` rejects fails as soon as it is read.
    pub(crate) fn next_typed(&mut self, known: fn(u64) -> bool) -> Result<Option<(u64, Bytes)>, DecodeError> {
        let mut peek: &[u8] = &self.bytes;
        let Ok(kind) = varint::get(&mut peek) else { return Ok(None) };
        if !known(kind) {
            return Err(DecodeError::UnknownResponse);
        }
        if sized(peek)?.is_none() {
            return Ok(None);
        }
        let rest = peek.len();
        self.skip_to(rest);
        Ok(self.next_message()?.map(|body| (kind, body)))
    }

    /// Takes and decodes one message. `None` while it is incomplete.
    pub fn next<M: Message>(&mut self, version: Version) -> Result<Option<M>, DecodeError> {
        self.next_message()?.map(|body| M::decode(version, &body)).transpose()
    }

    fn skip_to(&mut self, rest: usize) {
        self.bytes.advance(self.bytes.len().saturating_sub(rest));
        self.let_go();
    }

    /// Frees an empty buffer: most control streams are idle most of the time.
    fn let_go(&mut self) {
        if self.bytes.is_empty() {
            self.bytes = BytesMut::new();
        }
    }
}

/// Returns start and length of the body of the size-prefixed message at the front; `None` while it is
/// incomplete.
fn sized(mut bytes: &[u8]) -> Result<Option<(usize, usize)>, DecodeError> {
    let before = bytes.len();
    let Ok(size) = varint::get(&mut bytes) else { return Ok(None) };
    let size = usize::try_from(size).map_err(|_| DecodeError::MessageTooLarge)?;
    if size > limits::CONTROL_MESSAGE_BYTES {
        return Err(DecodeError::MessageTooLarge);
    }
    Ok((size <= bytes.len()).then(|| (before - bytes.len(), size)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lite::{Announce, Goaway, Probe};

    fn inbox(bytes: &[u8]) -> MessageBuf {
        let mut inbox = MessageBuf::new();
        inbox.push(bytes);
        inbox
    }

    #[test]
    fn a_message_waits_for_its_last_byte() {
        let mut inbox = inbox(&[4, 3, 7]);
        assert_eq!(inbox.next_varint(), Some(4));
        assert_eq!(inbox.next::<Probe>(Version::V05), Ok(None));
        inbox.push(&[0x40]);
        assert_eq!(inbox.next::<Probe>(Version::V05), Ok(None));
        assert_eq!(inbox.len(), 3);
        inbox.push(&[9, 3]);
        assert_eq!(inbox.next(Version::V05), Ok(Some(Probe { bitrate: 7, rtt_ms: 9 })));
        assert!(!inbox.is_empty());
    }

    #[test]
    fn a_type_before_the_size_waits_with_its_message() {
        let mut inbox = inbox(&[1]);
        assert_eq!(Announce::next(&mut inbox, Version::V06), Ok(None));
        inbox.push(&[2, 0x40]);
        assert_eq!(Announce::next(&mut inbox, Version::V06), Ok(None));
        assert_eq!(inbox.len(), 3);
        inbox.push(&[9, 1]);
        assert_eq!(Announce::next(&mut inbox, Version::V06), Ok(Some(Announce::EndedId { id: 9 })));
        assert_eq!(inbox.len(), 1);
    }

    #[test]
    fn a_type_that_is_passed_over_is_not_kept() {
        let mut inbox = inbox(&[9, 3, 1, 2, 3, 9]);
        assert_eq!(Announce::next(&mut inbox, Version::V06), Ok(None));
        assert_eq!(inbox.len(), 1, "only the start of the next message stays");
    }

    #[test]
    fn a_message_over_the_limit_is_refused_by_its_size_alone() {
        let mut size = Vec::new();
        varint::put(limits::CONTROL_MESSAGE_BYTES as u64, &mut size);
        assert_eq!(inbox(&size).next_message(), Ok(None));
        let mut whole = inbox(&size);
        whole.push(&vec![0; limits::CONTROL_MESSAGE_BYTES]);
        assert_eq!(whole.next_message().unwrap().map(|b| b.len()), Some(limits::CONTROL_MESSAGE_BYTES));

        let mut size = Vec::new();
        varint::put(limits::CONTROL_MESSAGE_BYTES as u64 + 1, &mut size);
        assert_eq!(inbox(&size).next_message(), Err(DecodeError::MessageTooLarge));
        let mut size = Vec::new();
        varint::put(varint::MAX, &mut size);
        assert_eq!(inbox(&size).next::<Goaway>(Version::V05), Err(DecodeError::MessageTooLarge));
    }
}
