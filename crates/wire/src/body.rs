//! Reader and writers for the fields of a message body.

use std::sync::Arc;

use relay_model::{Cost, Hop, Hops, Path, TrackName, limits};

use crate::{DecodeError, varint};

/// Reader for the fields of a complete message body.
#[derive(Debug)]
pub(crate) struct BodyReader<'a>(&'a [u8]);

impl<'a> BodyReader<'a> {
    pub(crate) fn new(body: &'a [u8]) -> Self {
        Self(body)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes not yet read.
    pub(crate) fn rest(&self) -> usize {
        self.0.len()
    }

    /// Fails with [`DecodeError::Leftover`] unless the body was read to its end.
    pub(crate) fn end(self) -> Result<(), DecodeError> {
        if self.is_empty() { Ok(()) } else { Err(DecodeError::Leftover) }
    }

    pub(crate) fn varint(&mut self) -> Result<u64, DecodeError> {
        Ok(varint::get(&mut self.0)?)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DecodeError> {
        let (byte, rest) = self.0.split_first().ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(*byte)
    }

    /// Reads a one-byte boolean; anything but 0 is true.
    pub(crate) fn flag(&mut self) -> Result<bool, DecodeError> {
        Ok(self.u8()? != 0)
    }

    /// Reads an optional integer: 0 = absent, else the value plus one.
    pub(crate) fn opt(&mut self) -> Result<Option<u64>, DecodeError> {
        Ok(self.varint()?.checked_sub(1))
    }

    /// Reads length-prefixed bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8], DecodeError> {
        let len = usize::try_from(self.varint()?).map_err(|_| DecodeError::Short)?;
        let (bytes, rest) = self.0.split_at_checked(len).ok_or(DecodeError::Short)?;
        self.0 = rest;
        Ok(bytes)
    }

    pub(crate) fn str(&mut self) -> Result<&'a str, DecodeError> {
        std::str::from_utf8(self.bytes()?).map_err(|_| DecodeError::Utf8)
    }

    pub(crate) fn path(&mut self) -> Result<Path, DecodeError> {
        Ok(Path::parse(self.str()?)?)
    }

    pub(crate) fn track(&mut self) -> Result<TrackName, DecodeError> {
        TrackName::parse(self.str()?).ok_or(DecodeError::TrackNameTooLong)
    }

    pub(crate) fn hop(&mut self) -> Result<Hop, DecodeError> {
        Ok(Hop(self.varint()?))
    }

    /// Reads a hop chain that carries only its length (moq-lite-03): as many anonymous hops. This is the only
    /// value that allocates for a declared length, at most [`limits::HOPS`] ids.
    pub(crate) fn hop_count(&mut self) -> Result<Hops, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::TooManyHops)?;
        if count > limits::HOPS {
            return Err(DecodeError::TooManyHops);
        }
        Ok(std::iter::repeat_n(Hop::ANONYMOUS, count).collect())
    }

    /// Reads a route cost: warm, then cold.
    pub(crate) fn cost(&mut self) -> Result<Cost, DecodeError> {
        Ok(Cost { warm: self.varint()?, cold: self.varint()? })
    }

    /// Reads a counted hop chain; only the anonymous hop may repeat.
    pub(crate) fn hops(&mut self) -> Result<Hops, DecodeError> {
        let count = usize::try_from(self.varint()?).map_err(|_| DecodeError::TooManyHops)?;
        if count > limits::HOPS {
            return Err(DecodeError::TooManyHops);
        }
        let mut hops: Vec<Hop> = Vec::with_capacity(count.min(self.rest()));
        for _ in 0..count {
            let hop = self.hop()?;
            if hop != Hop::ANONYMOUS && hops.contains(&hop) {
                return Err(DecodeError::RepeatedHop);
            }
            hops.push(hop);
        }
        Ok(Arc::from(hops))
    }
}

/// Parses a body with `read`, which must consume it to the last byte.
pub(crate) fn whole<T>(
    body: &[u8],
    read: impl FnOnce(&mut BodyReader<'_>) -> Result<T, DecodeError>,
) -> Result<T, DecodeError> {
    let mut input = BodyReader::new(body);
    let value = read(&mut input)?;
    input.end()?;
    Ok(value)
}

/// Appends a size-prefixed message whose body is appended by `write`.
pub(crate) fn put_sized(out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    write(out);
    let size = out.len().saturating_sub(start) as u64;
    varint::put(size, out);
    // The size is known after the body: move it to the front.
    if let Some(message) = out.get_mut(start..) {
        message.rotate_right(varint::size(size));
    }
}

pub(crate) fn put_flag(value: bool, out: &mut Vec<u8>) {
    out.push(u8::from(value));
}

/// Appends an optional integer as value plus one. [`varint::MAX`], which peers can send as a group number and
/// which has no encoding here, is lowered by one.
pub(crate) fn put_opt(value: Option<u64>, out: &mut Vec<u8>) {
    varint::put(value.map_or(0, |v| v.saturating_add(1).min(varint::MAX)), out);
}

pub(crate) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    varint::put(bytes.len() as u64, out);
    out.extend_from_slice(bytes);
}

pub(crate) fn put_str(text: &str, out: &mut Vec<u8>) {
    put_bytes(text.as_bytes(), out);
}

pub(crate) fn put_hops(hops: &[Hop], out: &mut Vec<u8>) {
    debug_assert!(hops.len() <= limits::HOPS);
    varint::put(hops.len() as u64, out);
    for hop in hops {
        varint::put(hop.0, out);
    }
}

pub(crate) fn put_cost(cost: Cost, out: &mut Vec<u8>) {
    varint::put(cost.warm.min(Cost::MAX), out);
    varint::put(cost.cold.min(Cost::MAX), out);
}
