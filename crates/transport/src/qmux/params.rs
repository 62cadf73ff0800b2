//! Transport parameters, sent in the first frame (draft-ietf-quic-qmux-01 §5).

use std::time::Duration;

use relay_wire::varint;

use super::{QmuxFraming, limits, violation::Violation};

// Parameter ids: RFC 9000 §18.2; DATAGRAM: RFC 9221 §3; RECORD: draft-ietf-quic-qmux-01 §5.2; PROTOCOLS:
// deployed relays, captured.
const IDLE: u64 = 0x01;
const DATA: u64 = 0x04;
const STREAM_DATA_BI_LOCAL: u64 = 0x05;
const STREAM_DATA_BI_REMOTE: u64 = 0x06;
const STREAM_DATA_UNI: u64 = 0x07;
const STREAMS_BI: u64 = 0x08;
const STREAMS_UNI: u64 = 0x09;
const DATAGRAM: u64 = 0x20;
const RECORD: u64 = 0x0571_c594_29cd_0845;
const PROTOCOLS: u64 = 0x3d4f_9c2a_8b1e_6075;
/// Largest stream count that stream ids can express (RFC 9000 §4.6).
const STREAMS: u64 = 1 << 60;

/// Limits of one end. An absent limit is 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Parameters {
    /// Idle timeout; `None`: none.
    pub(super) idle: Option<Duration>,
    pub(super) data: u64,
    /// Credit on bidirectional streams opened by the sender of the parameters.
    pub(super) stream_data_bi_local: u64,
    /// Credit on bidirectional streams opened by their receiver.
    pub(super) stream_data_bi_remote: u64,
    pub(super) stream_data_uni: u64,
    pub(super) streams_bi: u64,
    pub(super) streams_uni: u64,
    /// Largest DATAGRAM frame, head included.
    pub(super) datagram: u64,
    /// Largest record.
    pub(super) record: u64,
    /// Application protocols, preferred first.
    pub(super) protocols: Vec<Box<[u8]>>,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            idle: None,
            data: 0,
            stream_data_bi_local: 0,
            stream_data_bi_remote: 0,
            stream_data_uni: 0,
            streams_bi: 0,
            streams_uni: 0,
            datagram: 0,
            record: limits::RECORD_BYTES,
            protocols: Vec::new(),
        }
    }
}

impl Parameters {
    /// Appends the body of the frame.
    pub(super) fn put(&self, framing: QmuxFraming, out: &mut Vec<u8>) {
        let idle = self.idle.map_or(0, |idle| u64::try_from(idle.as_millis()).unwrap_or(varint::MAX));
        let datagram = if framing == QmuxFraming::Qmux01 { self.datagram } else { 0 };
        for (id, value) in [
            (IDLE, idle),
            (DATA, self.data),
            (STREAM_DATA_BI_LOCAL, self.stream_data_bi_local),
            (STREAM_DATA_BI_REMOTE, self.stream_data_bi_remote),
            (STREAM_DATA_UNI, self.stream_data_uni),
            (STREAMS_BI, self.streams_bi),
            (STREAMS_UNI, self.streams_uni),
            (DATAGRAM, datagram),
            (RECORD, self.record),
        ] {
            if value != 0 {
                varint::put(id, out);
                varint::put(varint::size(value) as u64, out);
                varint::put(value, out);
            }
        }
        if !self.protocols.is_empty() {
            let mut list = Vec::new();
            for name in &self.protocols {
                varint::put(name.len() as u64, &mut list);
                list.extend_from_slice(name);
            }
            varint::put(PROTOCOLS, out);
            varint::put(list.len() as u64, out);
            out.extend_from_slice(&list);
        }
    }

    /// Parses the body of the frame. Unknown parameters are skipped.
    pub(super) fn get(framing: QmuxFraming, mut body: &[u8]) -> Result<Self, Violation> {
        const SHORT: Violation = Violation::parameters("truncated transport parameters");
        let mut found = Self::default();
        let mut seen: u32 = 0;
        while !body.is_empty() {
            let id = varint::get(&mut body).map_err(|_| SHORT)?;
            let size = varint::get(&mut body).map_err(|_| SHORT)?;
            let size = usize::try_from(size).map_err(|_| SHORT)?;
            let (value, rest) = body.split_at_checked(size).ok_or(SHORT)?;
            body = rest;
            let Some(slot) = slot(id)? else { continue };
            if seen & (1 << slot) != 0 {
                return Err(Violation::parameters("duplicate transport parameter"));
            }
            seen |= 1 << slot;
            found.set(id, value)?;
        }
        if framing == QmuxFraming::Qmux01 && found.record < limits::RECORD_BYTES {
            return Err(Violation::parameters("max_record_size below 16382"));
        }
        if found.streams_bi > STREAMS || found.streams_uni > STREAMS {
            return Err(Violation::parameters("stream count above 2^60"));
        }
        Ok(found)
    }

    fn set(&mut self, id: u64, value: &[u8]) -> Result<(), Violation> {
        if id == PROTOCOLS {
            self.protocols = names(value)?;
            return Ok(());
        }
        let value = number(value)?;
        match id {
            IDLE => self.idle = (value != 0).then(|| Duration::from_millis(value)),
            DATA => self.data = value,
            STREAM_DATA_BI_LOCAL => self.stream_data_bi_local = value,
            STREAM_DATA_BI_REMOTE => self.stream_data_bi_remote = value,
            STREAM_DATA_UNI => self.stream_data_uni = value,
            STREAMS_BI => self.streams_bi = value,
            STREAMS_UNI => self.streams_uni = value,
            DATAGRAM => self.datagram = value,
            _ => self.record = value,
        }
        Ok(())
    }
}

/// Returns a small distinct number for each known id; `None` for ids to skip.
fn slot(id: u64) -> Result<Option<u32>, Violation> {
    match id {
        IDLE | DATA..=STREAMS_UNI | DATAGRAM => Ok(Some(id as u32 & 0x1f)),
        RECORD => Ok(Some(30)),
        PROTOCOLS => Ok(Some(31)),
        // Parameters of QUIC's handshake, connection ids and acknowledgements (draft-ietf-quic-qmux-01 §5.1).
        0x00 | 0x02 | 0x03 | 0x0a..=0x10 => Err(Violation::parameters("forbidden transport parameter")),
        _ => Ok(None),
    }
}

fn number(mut value: &[u8]) -> Result<u64, Violation> {
    match varint::get(&mut value) {
        Ok(number) if value.is_empty() => Ok(number),
        _ => Err(Violation::parameters("transport parameter is not an integer")),
    }
}

fn names(mut value: &[u8]) -> Result<Vec<Box<[u8]>>, Violation> {
    const SHORT: Violation = Violation::parameters("truncated protocol list");
    let mut names = Vec::new();
    while !value.is_empty() {
        let size = varint::get(&mut value).map_err(|_| SHORT)?;
        let size = usize::try_from(size).map_err(|_| SHORT)?;
        let (name, rest) = value.split_at_checked(size).ok_or(SHORT)?;
        value = rest;
        if names.len() == limits::PROTOCOLS {
            return Err(Violation::parameters("too many protocols"));
        }
        names.push(name.into());
    }
    Ok(names)
}

/// Selects the protocol: the server's most preferred one that the client supports.
pub(super) fn agree(
    ours: &'static [&'static str],
    theirs: &[Box<[u8]>],
    is_client: bool,
) -> Option<&'static str> {
    let named = |name: &[u8]| ours.iter().copied().find(|our| our.as_bytes() == name);
    if is_client {
        return theirs.iter().find_map(|name| named(name));
    }
    ours.iter().copied().find(|our| theirs.iter().any(|name| **name == *our.as_bytes()))
}
