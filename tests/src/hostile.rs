//! Messages as trees of fields, and their corruption at fields and lengths.

use crate::{
    peer::{number, sized},
    random::Random,
};

/// Part of a message.
#[derive(Clone, Debug)]
pub enum Field {
    /// A varint.
    Number(u64),
    /// One byte.
    Byte(u8),
    /// Raw bytes.
    Raw(Vec<u8>),
    /// A length and that many bytes; `Some` declares another length.
    Sized(Option<u64>, Vec<Field>),
}

use Field::{Byte, Number, Raw, Sized};

/// A string or bytes, with length.
pub fn text(bytes: impl AsRef<[u8]>) -> Field {
    Sized(None, vec![Raw(bytes.as_ref().to_vec())])
}

/// A message body with its size.
pub fn body(fields: Vec<Field>) -> Field {
    Sized(None, fields)
}

/// Encodes `fields`.
pub fn bytes(fields: &[Field]) -> Vec<u8> {
    let mut out = Vec::new();
    for field in fields {
        match field {
            Number(value) => out.extend(number(*value)),
            Byte(byte) => out.push(*byte),
            Raw(raw) => out.extend_from_slice(raw),
            Sized(None, inner) => out.extend(sized(&bytes(inner))),
            Sized(Some(declared), inner) => {
                out.extend(number(*declared));
                out.extend(bytes(inner));
            }
        }
    }
    out
}

/// Encodes `fields`, corrupted in one or two places (one time in six: unchanged).
pub fn spoil(mut fields: Vec<Field>, random: &mut Random) -> Vec<u8> {
    if random.one_in(6) {
        return bytes(&fields);
    }
    for _ in 0..1 + random.below(2) {
        spoil_field(&mut fields, random);
    }
    let mut out = bytes(&fields);
    match random.below(8) {
        0 => out.truncate(random.below(out.len() + 1)),
        1 => {
            let more = random.below(40);
            out.extend(random.bytes(more));
        }
        2 if !out.is_empty() => {
            let at = random.below(out.len());
            out[at] ^= 1 << random.below(8);
        }
        3 if random.one_in(4) => {
            let len = random.below(60);
            out = random.bytes(len);
        }
        _ => {}
    }
    out
}

fn spoil_field(fields: &mut Vec<Field>, random: &mut Random) {
    if fields.is_empty() {
        fields.push(Number(0));
        return;
    }
    let at = random.below(fields.len());
    match random.below(12) {
        0 => drop(fields.remove(at)),
        1 => fields.insert(at, fields[at].clone()),
        2 => {
            let other = random.below(fields.len());
            fields.swap(at, other);
        }
        3 => {
            let len = random.below(20);
            fields.insert(at, Raw(random.bytes(len)));
        }
        _ => match &mut fields[at] {
            Number(value) => *value = spoil_number(*value, random),
            Byte(byte) => *byte = random.draw() as u8,
            Raw(raw) => spoil_raw(raw, random),
            Sized(declared, inner) => match random.below(4) {
                0 => *declared = Some(spoil_number(bytes(inner).len() as u64, random)),
                _ => spoil_field(inner, random),
            },
        },
    }
}

/// Draws a number near the limits of encodings, types and values.
fn spoil_number(value: u64, random: &mut Random) -> u64 {
    const EDGES: [u64; 16] = [
        0,
        1,
        2,
        31,
        33,
        63,
        64,
        65,
        255,
        1_025,
        16_383,
        16_384,
        65_537,
        (1 << 30) - 1,
        1 << 30,
        (1 << 62) - 1,
    ];
    match random.below(4) {
        0 => value.saturating_sub(1),
        1 => value.saturating_add(1).min(EDGES[15]),
        2 => random.draw() >> 2 >> random.below(62),
        _ => *random.pick(&EDGES),
    }
}

fn spoil_raw(raw: &mut Vec<u8>, random: &mut Random) {
    match random.below(6) {
        0 => raw.clear(),
        1 => raw.extend(b"//../%2f\0"),
        2 => raw.extend([0xff, 0xfe, 0x80]),
        3 => raw.resize(raw.len() + random.below(2_000), b'x'),
        4 => *raw = b"a/".repeat(40),
        _ => {
            let len = random.below(40);
            *raw = random.bytes(len);
        }
    }
}

/// Valid messages to start from, with their stream types.
pub mod good {
    use super::{Byte, Field, Number, Raw, body, text};

    /// SETUP on its stream.
    pub fn setup() -> Vec<Field> {
        let parameter = |id, value| [Number(id), body(vec![value])];
        let parameters = [
            parameter(1, Number(0)),
            parameter(2, Raw(b"/".to_vec())),
            parameter(3, Number(1)),
            parameter(4, Number(2)),
            parameter(5, Number(99)),
        ];
        vec![Number(1), body([Number(5)].into_iter().chain(parameters.into_iter().flatten()).collect())]
    }

    /// ANNOUNCE_REQUEST on its stream.
    pub fn announce_request() -> Vec<Field> {
        vec![Number(1), body(vec![text(""), Number(0)])]
    }

    fn prefs() -> [Field; 5] {
        [Byte(127), Byte(0), Number(1_000), Number(0), Number(0)]
    }

    /// SUBSCRIBE on its stream.
    pub fn subscribe(id: u64, broadcast: &str, track: &str) -> Vec<Field> {
        let names = [Number(id), text(broadcast), text(track)];
        vec![Number(2), body(names.into_iter().chain(prefs()).collect())]
    }

    /// SUBSCRIBE_UPDATE.
    pub fn update() -> Vec<Field> {
        vec![body(prefs().into())]
    }

    /// FETCH on its stream.
    pub fn fetch(broadcast: &str, track: &str) -> Vec<Field> {
        vec![Number(3), body(vec![text(broadcast), text(track), Byte(1), Number(0)])]
    }

    /// A PROBE stream.
    pub fn probe() -> Vec<Field> {
        vec![Number(4)]
    }

    /// GOAWAY on its stream.
    pub fn goaway() -> Vec<Field> {
        vec![Number(5), body(vec![text("https://elsewhere/")])]
    }

    /// TRACK on its stream.
    pub fn track(broadcast: &str, track: &str) -> Vec<Field> {
        vec![Number(6), body(vec![text(broadcast), text(track)])]
    }

    /// ANNOUNCE_OK and its first ANNOUNCE.
    pub fn announce_ok(path: &str) -> Vec<Field> {
        let mut fields = vec![body(vec![Number(77), Number(1)])];
        fields.extend(announce(path));
        fields
    }

    /// ANNOUNCE.
    pub fn announce(path: &str) -> Vec<Field> {
        vec![body(vec![Byte(1), text(path), Number(2), Number(501), Number(502)])]
    }

    /// TRACK_INFO.
    pub fn track_info() -> Vec<Field> {
        vec![body(vec![Byte(1), Byte(0), Number(5_000), Number(1_000)])]
    }

    /// All answers to SUBSCRIBE.
    pub fn responses() -> Vec<Field> {
        let start = [Number(0), body(vec![Number(0)])];
        let drop = [Number(2), body(vec![Number(3), Number(5), Number(0x34)])];
        let end = [Number(1), body(vec![Number(9)])];
        start.into_iter().chain(drop).chain(end).collect()
    }

    /// A group stream with three frames.
    pub fn group(subscribe: u64, sequence: u64) -> Vec<Field> {
        let header = [Number(0), body(vec![Number(subscribe), Number(sequence)])];
        let frames = [(0, 40), (2, 0), (4, 1_300)].map(|(delta, size)| [Number(delta), text(vec![7; size])]);
        header.into_iter().chain(frames.into_iter().flatten()).collect()
    }

    /// A datagram.
    pub fn datagram(subscribe: u64, sequence: u64) -> Vec<Field> {
        vec![Number(subscribe), Number(sequence), Number(3), Raw(vec![9; 100])]
    }

    /// A WebTransport stream, or another HTTP/3 stream, with a CONNECT or the frames of a capsule.
    pub fn http(bidi: bool) -> Vec<Field> {
        let kind = if bidi { 0x41 } else { 0x54 };
        let frame =
            [Number(0), body(vec![Number(0x2843), body(vec![Raw(vec![0, 0, 0, 3]), Raw(b"bye".to_vec())])])];
        [Number(kind), Number(0), Number(1)].into_iter().chain(frame).collect()
    }
}

#[cfg(test)]
mod tests {
    use relay_wire::{
        MessageBuf,
        lite::{Setup, Subscribe, SubscribeResponse},
    };

    use super::*;
    use crate::peer::VERSION;

    #[test]
    fn good_messages_are_good() {
        let mut inbox = MessageBuf::new();
        inbox.push(&bytes(&good::setup()));
        assert_eq!(inbox.next_varint(), Some(1));
        let setup = inbox.next::<Setup>(VERSION).expect("a message").expect("whole");
        assert_eq!((setup.path.as_deref(), setup.cost), (Some("/"), Some(2)));
        inbox.push(&bytes(&good::subscribe(4, "a", "b")));
        assert_eq!(inbox.next_varint(), Some(2));
        assert_eq!(inbox.next::<Subscribe>(VERSION).expect("a message").expect("whole").id, 4);
        inbox.push(&bytes(&good::responses()));
        for _ in 0..3 {
            assert!(SubscribeResponse::next(&mut inbox, VERSION).expect("a message").is_some());
        }
        assert!(inbox.is_empty());
    }

    #[test]
    fn the_same_seed_spoils_the_same_way() {
        let spoilt = |seed| {
            let mut random = Random::new(seed);
            (0..50).map(|_| spoil(good::group(1, 2), &mut random)).collect::<Vec<_>>()
        };
        assert_eq!(spoilt(5), spoilt(5));
        assert_ne!(spoilt(5), spoilt(7));
    }
}
