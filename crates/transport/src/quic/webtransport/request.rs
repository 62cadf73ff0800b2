//! CONNECT request that opens a WebTransport session (RFC 9220, draft-ietf-webtrans-http3-13 §3.2).

use web_transport_proto::{ConnectError, ConnectRequest, Frame, VarInt, http::StatusCode};

/// Header name under which the raw `:path` is decoded a second time: the library keeps only a parsed URL, whose
/// parser resolves dot segments, while targets must be interpreted by a single parser.
const RAW_TARGET: &str = "x-raw-target";
/// Index of `:path` with value `/` in the QPACK static table (RFC 9204, Appendix A).
const STATIC_PATH: u64 = 1;
/// `:path` in the Huffman code of RFC 7541, Appendix B.
const HUFFMAN_PATH: [u8; 4] = [0xb9, 0x58, 0xd3, 0x3f];
/// `:protocol` value of newer drafts; the library accepts `webtransport` only.
const NEW_PROTOCOL: &str = "webtransport-h3";

/// Parsed CONNECT request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SessionRequest {
    /// Raw path and query.
    pub(super) target: String,
    /// `origin` header.
    pub(super) origin: Option<String>,
    /// Offered subprotocols, preferred first (`wt-available-protocols`).
    pub(super) protocols: Vec<String>,
}

/// Parses the field section of a request, the body of a HEADERS frame; an error is the status to respond with.
pub(super) fn parse(section: &[u8]) -> Result<SessionRequest, StatusCode> {
    let path = find_path(section).ok_or(StatusCode::BAD_REQUEST)?;
    let mut copy = section.to_vec();
    if let PathLocation::Literal(value) = path {
        put_name(RAW_TARGET, &mut copy);
        copy.extend_from_slice(value);
    }
    let request = decode(&copy).or_else(|error| match error {
        ConnectError::WrongProtocol(Some(name)) if name == NEW_PROTOCOL => {
            // The library uses the last line of a name.
            put_name(":protocol", &mut copy);
            put_length(0, 7, "webtransport".len(), &mut copy);
            copy.extend_from_slice(b"webtransport");
            decode(&copy)
        }
        error => Err(error),
    });
    let request = request.map_err(|error| match error {
        ConnectError::WrongMethod(_) | ConnectError::WrongProtocol(_) => StatusCode::NOT_FOUND,
        ConnectError::FieldSectionTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        _ => StatusCode::BAD_REQUEST,
    })?;
    let header = |name| request.headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
    let target = match path {
        PathLocation::Root => "/".to_owned(),
        PathLocation::Literal(_) => header(RAW_TARGET).ok_or(StatusCode::BAD_REQUEST)?,
    };
    Ok(SessionRequest { target, origin: header("origin"), protocols: request.protocols })
}

fn decode(section: &[u8]) -> Result<ConnectRequest, ConnectError> {
    let mut frame = Vec::with_capacity(section.len() + 8);
    Frame::HEADERS.encode(&mut frame);
    VarInt::try_from(section.len()).map_err(|_| ConnectError::FrameTooLarge)?.encode(&mut frame);
    frame.extend_from_slice(section);
    ConnectRequest::decode(&mut frame.as_slice())
}

/// Location of the value of `:path`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PathLocation<'a> {
    /// The `/` of the static table.
    Root,
    /// String literal: Huffman bit, length and bytes.
    Literal(&'a [u8]),
}

/// Finds the last `:path` in the field lines (RFC 9204 §4.5).
fn find_path(section: &[u8]) -> Option<PathLocation<'_>> {
    let mut rest = section;
    integer(&mut rest, 8)?;
    integer(&mut rest, 7)?;
    let mut found = None;
    while let Some(first) = rest.first() {
        match first {
            0b1100_0000.. => {
                if integer(&mut rest, 6)? == STATIC_PATH {
                    found = Some(PathLocation::Root);
                }
            }
            0b0101_0000..=0b0101_1111 | 0b0111_0000..=0b0111_1111 => {
                let name = integer(&mut rest, 4)?;
                let value = string(&mut rest)?;
                if name == STATIC_PATH {
                    found = Some(PathLocation::Literal(value));
                }
            }
            0b0010_0000..=0b0011_1111 => {
                let huffman = first & 0b1000 != 0;
                let len = usize::try_from(integer(&mut rest, 3)?).ok()?;
                let (name, after) = rest.split_at_checked(len)?;
                rest = after;
                let value = string(&mut rest)?;
                if name == if huffman { &HUFFMAN_PATH[..] } else { b":path" } {
                    found = Some(PathLocation::Literal(value));
                }
            }
            // Reference to the dynamic table, whose capacity is 0 here.
            _ => return None,
        }
    }
    found
}

/// Takes a prefixed integer with `bits` bits in its first byte (RFC 7541 §5.1).
fn integer(rest: &mut &[u8], bits: u32) -> Option<u64> {
    let mut next = || {
        let (first, after) = rest.split_first()?;
        *rest = after;
        Some(*first)
    };
    let mask = 0xff_u8 >> 8_u32.saturating_sub(bits);
    let first = next()? & mask;
    let mut value = u64::from(first);
    if first < mask {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = next()?;
        value += u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a string literal, with its length and Huffman bit (RFC 7541 §5.2).
fn string<'a>(rest: &mut &'a [u8]) -> Option<&'a [u8]> {
    let whole = *rest;
    let len = usize::try_from(integer(rest, 7)?).ok()?;
    let (_, after) = rest.split_at_checked(len)?;
    *rest = after;
    whole.get(..whole.len().saturating_sub(after.len()))
}

/// Appends the start of a literal field line with a literal name (RFC 9204 §4.5.6).
fn put_name(name: &str, out: &mut Vec<u8>) {
    put_length(0b0010_0000, 3, name.len(), out);
    out.extend_from_slice(name.as_bytes());
}

/// Appends `len` as a prefixed integer of at most two bytes.
fn put_length(flags: u8, bits: u32, len: usize, out: &mut Vec<u8>) {
    let most = (1_usize << bits) - 1;
    if len < most {
        out.push(flags | len as u8);
    } else {
        debug_assert!(len - most < 128, "own names fit two bytes");
        out.push(flags | most as u8);
        out.push((len - most) as u8);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(request: &ConnectRequest) -> Vec<u8> {
        let mut frame = Vec::new();
        request.encode(&mut frame).unwrap();
        let mut rest = frame.as_slice();
        VarInt::decode(&mut rest).unwrap();
        VarInt::decode(&mut rest).unwrap();
        rest.to_vec()
    }

    fn connect() -> ConnectRequest {
        ConnectRequest::new(url::Url::parse("https://relay.example/live?jwt=a").unwrap())
            .with_protocols(["moq-lite-05".to_owned(), "x".to_owned()])
    }

    /// Appends a hand-encoded `:path`, which replaces the one before.
    fn with_path(name: &[u8], huffman: bool, path: &str) -> Vec<u8> {
        let mut out = section(&connect());
        put_length(0b0010_0000 | if huffman { 0b1000 } else { 0 }, 3, name.len(), &mut out);
        out.extend_from_slice(name);
        put_length(0, 7, path.len(), &mut out);
        out.extend_from_slice(path.as_bytes());
        out
    }

    #[test]
    fn the_target_is_kept_as_sent() {
        let request = parse(&section(&connect())).unwrap();
        assert_eq!(request.target, "/live?jwt=a");
        assert_eq!(request.protocols, ["moq-lite-05", "x"]);
        for (name, huffman) in [(&b":path"[..], false), (&HUFFMAN_PATH[..], true)] {
            let raw = "/a/../b/%2e%2e//c?x=%2F";
            assert_eq!(parse(&with_path(name, huffman, raw)).unwrap().target, raw);
        }
    }

    #[test]
    fn a_root_from_the_static_table_is_a_target() {
        let request = ConnectRequest::new(url::Url::parse("https://relay.example").unwrap());
        assert_eq!(parse(&section(&request)).unwrap().target, "/");
    }

    #[test]
    fn a_client_cannot_plant_the_target_under_our_name() {
        let mut planted = section(&connect());
        put_name(RAW_TARGET, &mut planted);
        put_length(0, 7, 2, &mut planted);
        planted.extend_from_slice(b"/p");
        assert_eq!(parse(&planted).unwrap().target, "/live?jwt=a");
    }

    #[test]
    fn the_newer_protocol_name_is_known() {
        let mut newer = section(&connect());
        put_name(":protocol", &mut newer);
        put_length(0, 7, NEW_PROTOCOL.len(), &mut newer);
        newer.extend_from_slice(NEW_PROTOCOL.as_bytes());
        assert_eq!(parse(&newer).unwrap().target, "/live?jwt=a");
    }

    #[test]
    fn other_requests_are_told_apart() {
        let mut get = section(&connect());
        put_name(":method", &mut get);
        put_length(0, 7, 3, &mut get);
        get.extend_from_slice(b"GET");
        assert_eq!(parse(&get), Err(StatusCode::NOT_FOUND));
        assert_eq!(parse(&[0, 0]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(parse(&[]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(parse(&[0, 0, 0x80]), Err(StatusCode::BAD_REQUEST));
        assert_eq!(parse(&[0, 0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(StatusCode::BAD_REQUEST));
    }
}
