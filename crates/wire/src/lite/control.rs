//! The small streams: track properties, fetch, probe, goaway.

use relay_model::{Path, TrackInfo, TrackName};

use super::{Body, Version};
use crate::{
    Error,
    body::{Reader, put_flag, put_str},
    varint,
};




/// Asks for a track's properties.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackRequest {
    /// Path of the broadcast.
    pub broadcast: Path,
    /// Track in it.
    pub track: TrackName,
}

/// Asks for one group, whole, on the same stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Path of the broadcast.
    pub broadcast: Path,
    /// Track in it.
    pub track: TrackName,
    /// Higher wins.
    pub priority: u8,
    /// Its sequence.
    pub group: u64,
}

/// What the sender measured of the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Estimated bits a second; 0 = unknown.
    pub bitrate: u64,
    /// Round trip, ms; 0 = unknown.
    pub rtt_ms: u64,
}

/// The sender wants the session to move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goaway {
    /// Where to, at most [`GOAWAY_URI_BYTES`]; empty = the same place.
    pub uri: String,
}

impl Body for TrackRequest {
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self { broadcast: input.path()?, track: input.track()? })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        put_str(self.broadcast.as_str(), out);
        put_str(self.track.as_str(), out);
    }
}

impl Body for TrackInfo {
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        let info = Self {
            priority: input.u8()?,
            ordered: input.flag()?,
            max_age_ms: input.varint()?,
            timescale: input.varint()?,
        };
        if info.timescale == 0 { Err(Error::Value("timescale")) } else { Ok(info) }
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        debug_assert_ne!(self.timescale, 0);
        out.push(self.priority);
        put_flag(self.ordered, out);
        varint::put(self.max_age_ms, out);
        varint::put(self.timescale, out);
    }
}

impl Body for Fetch {
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self {
            broadcast: input.path()?,
            track: input.track()?,
            priority: input.u8()?,
            group: input.varint()?,
        })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        put_str(self.broadcast.as_str(), out);
        put_str(self.track.as_str(), out);
        out.push(self.priority);
        varint::put(self.group, out);
    }
}

impl Body for Probe {
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        Ok(Self { bitrate: input.varint()?, rtt_ms: input.varint()? })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        varint::put(self.bitrate, out);
        varint::put(self.rtt_ms, out);
    }
}

impl Body for Goaway {
    fn read(_: Version, input: &mut Reader<'_>) -> Result<Self, Error> {
        let uri = input.str()?;
        if uri.len() > GOAWAY_URI_BYTES {
            return Err(Error::UriTooLong);
        }
        Ok(Self { uri: uri.to_owned() })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        debug_assert!(self.uri.len() <= GOAWAY_URI_BYTES);
        put_str(&self.uri, out);
    }
}
