//! Messages of the TRACK, FETCH, PROBE and GOAWAY streams.

use relay_model::{Path, TrackInfo, TrackName, limits};

use super::{Body, Version};
use crate::{
    DecodeError,
    body::{BodyReader, put_flag, put_opt, put_str},
    varint,
};

/// Request for the properties of a track (draft-lcurley-moq-lite-05, TRACK).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrackRequest {
    /// Path of the broadcast.
    pub broadcast: Path,
    /// Name of the track.
    pub track: TrackName,
}

/// Request for one group, answered by its frames on the same stream (draft-lcurley-moq-lite-03, FETCH; frame
/// bounds: deployed relays, captured).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fetch {
    /// Path of the broadcast.
    pub broadcast: Path,
    /// Name of the track.
    pub track: TrackName,
    /// Subscriber priority; higher values are sent first.
    pub priority: u8,
    /// Group sequence.
    pub group: u64,
    /// First frame requested (moq-lite-06; before, always 0).
    pub start_frame: u64,
    /// Last frame requested, inclusive; `None` = to the end of the group (moq-lite-06; before, always `None`).
    pub end_frame: Option<u64>,
}

/// Measurements of the connection by the sender (draft-lcurley-moq-lite-04, PROBE).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Probe {
    /// Estimated bitrate in bits per second; 0 = unknown.
    pub bitrate: u64,
    /// Round-trip time in ms; 0 = unknown. On the wire from moq-lite-04 on.
    pub rtt_ms: u64,
}

/// Request to move the session elsewhere (draft-lcurley-moq-lite-04, GOAWAY).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Goaway {
    /// URI to reconnect to, at most [`limits::GOAWAY_URI_BYTES`]; empty = the same URI.
    pub uri: String,
}

impl Body for TrackRequest {
    fn read(_: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        Ok(Self { broadcast: input.path()?, track: input.track()? })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        put_str(self.broadcast.as_str(), out);
        put_str(self.track.as_str(), out);
    }
}

impl Body for TrackInfo {
    fn read(version: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        let info = Self {
            priority: input.u8()?,
            ordered: if version.has_order_hint() { input.flag()? } else { false },
            max_age_ms: input.varint()?,
            timescale: input.varint()?,
        };
        if info.timescale == 0 { Err(DecodeError::Value("timescale")) } else { Ok(info) }
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        debug_assert_ne!(self.timescale, 0);
        out.push(self.priority);
        if version.has_order_hint() {
            put_flag(self.ordered, out);
        }
        varint::put(self.max_age_ms, out);
        varint::put(self.timescale, out);
    }
}

impl Body for Fetch {
    fn read(version: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        let ranges = version.has_frame_ranges();
        let fetch = Self {
            broadcast: input.path()?,
            track: input.track()?,
            priority: input.u8()?,
            group: input.varint()?,
            start_frame: if ranges { input.varint()? } else { 0 },
            end_frame: if ranges { input.opt()? } else { None },
        };
        match fetch.end_frame {
            Some(end) if end < fetch.start_frame => Err(DecodeError::Value("frame range")),
            _ => Ok(fetch),
        }
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        put_str(self.broadcast.as_str(), out);
        put_str(self.track.as_str(), out);
        out.push(self.priority);
        varint::put(self.group, out);
        if version.has_frame_ranges() {
            varint::put(self.start_frame.min(varint::MAX), out);
            put_opt(self.end_frame, out);
        }
    }
}

impl Body for Probe {
    fn read(version: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        let bitrate = input.varint()?;
        Ok(Self { bitrate, rtt_ms: if version.has_round_trips() { input.varint()? } else { 0 } })
    }

    fn write(&self, version: Version, out: &mut Vec<u8>) {
        varint::put(self.bitrate.min(varint::MAX), out);
        if version.has_round_trips() {
            varint::put(self.rtt_ms.min(varint::MAX), out);
        }
    }
}

impl Body for Goaway {
    fn read(_: Version, input: &mut BodyReader<'_>) -> Result<Self, DecodeError> {
        let uri = input.str()?;
        if uri.len() > limits::GOAWAY_URI_BYTES {
            return Err(DecodeError::UriTooLong);
        }
        Ok(Self { uri: uri.to_owned() })
    }

    fn write(&self, _: Version, out: &mut Vec<u8>) {
        debug_assert!(self.uri.len() <= limits::GOAWAY_URI_BYTES);
        put_str(&self.uri, out);
    }
}
