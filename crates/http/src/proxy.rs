//! PROXY protocol, versions 1 and 2: the header that a load balancer puts before a connection.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{io::AsyncReadExt, net::TcpStream, time::sleep};

/// Signature of version 2.
const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Version 2 and its two commands.
const LOCAL: u8 = 0x20;
const PROXY: u8 = 0x21;
/// Prefix of version 1.
const WORD: &[u8; 6] = b"PROXY ";
/// Longest header of version 1 with its line end, bytes.
const LINE_BYTES: usize = 107;
/// Longest header of version 2 after its first 16 bytes: addresses, and what load balancers add.
const REST_BYTES: usize = 2_048;
/// Pause between two peeks at an incomplete prefix.
const PAUSE: Duration = Duration::from_millis(5);

/// Reads the PROXY header of a trusted proxy, if `stream` begins with one. Returns the client's address; `None`: there
/// is no header, or it names no client.
///
/// # Errors
/// The header is malformed, or the stream ends.
pub(crate) async fn header(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut start = [0; SIGNATURE.len()];
    loop {
        let seen = stream.peek(&mut start).await?;
        let seen = start.get(..seen).unwrap_or_default();
        if seen.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        if seen.starts_with(WORD) {
            return read_v1(stream).await;
        }
        if seen == SIGNATURE {
            return read_v2(stream).await;
        }
        if !WORD.starts_with(seen) && !SIGNATURE.starts_with(seen) {
            return Ok(None);
        }
        sleep(PAUSE).await;
    }
}

/// PROXY header that does not follow the specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed PROXY header")]
struct MalformedHeader;

impl From<MalformedHeader> for io::Error {
    fn from(error: MalformedHeader) -> Self {
        Self::new(io::ErrorKind::InvalidData, error)
    }
}

fn bad(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

async fn read_v1(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut line = Vec::with_capacity(LINE_BYTES);
    while !line.ends_with(b"\r\n") {
        if line.len() >= LINE_BYTES {
            return Err(bad("PROXY header too long"));
        }
        line.push(stream.read_u8().await?);
    }
    let text = std::str::from_utf8(&line).map_err(|_| bad("PROXY header is not text"))?;
    Ok(parse_v1(text.trim_end())?)
}

/// Source address in a line of version 1; `None`: it names none.
fn parse_v1(line: &str) -> Result<Option<SocketAddr>, MalformedHeader> {
    let mut words = line.split(' ').skip(1);
    match words.next().ok_or(MalformedHeader)? {
        "UNKNOWN" => Ok(None),
        family => v1_source(family, words).map(Some).ok_or(MalformedHeader),
    }
}

/// Source address in the words after the family.
fn v1_source<'a>(family: &str, mut words: impl Iterator<Item = &'a str>) -> Option<SocketAddr> {
    let source: IpAddr = words.next()?.parse().ok()?;
    let _target: IpAddr = words.next()?.parse().ok()?;
    let port: u16 = words.next()?.parse().ok()?;
    let _target_port: u16 = words.next()?.parse().ok()?;
    let fits = match family {
        "TCP4" => source.is_ipv4(),
        "TCP6" => source.is_ipv6(),
        _ => false,
    };
    (fits && words.next().is_none()).then(|| SocketAddr::new(source, port))
}

async fn read_v2(stream: &mut TcpStream) -> io::Result<Option<SocketAddr>> {
    let mut head = [0; 16];
    stream.read_exact(&mut head).await?;
    let [.., command, family, high, low] = head;
    let length = usize::from(u16::from_be_bytes([high, low]));
    if length > REST_BYTES {
        return Err(bad("PROXY header too long"));
    }
    let mut rest = vec![0; length];
    stream.read_exact(&mut rest).await?;
    Ok(parse_v2(command, family, &rest)?)
}

/// Source address in a header of version 2; `None`: it names none.
fn parse_v2(command: u8, family: u8, rest: &[u8]) -> Result<Option<SocketAddr>, MalformedHeader> {
    match (command, family >> 4) {
        // Of a connection of the balancer itself, the family and the addresses are ignored.
        (LOCAL, _) => Ok(None),
        // A Unix socket, or an unspecified family.
        (PROXY, 0 | 3) => Ok(None),
        (PROXY, family) => v2_source(family, rest).map(Some).ok_or(MalformedHeader),
        _ => Err(MalformedHeader),
    }
}

/// Source address in the block of addresses.
fn v2_source(family: u8, rest: &[u8]) -> Option<SocketAddr> {
    let port = |at: usize| Some(u16::from_be_bytes(rest.get(at..at + 2)?.try_into().ok()?));
    match family {
        1 => {
            let source: [u8; 4] = rest.get(..4)?.try_into().ok()?;
            Some(SocketAddr::new(Ipv4Addr::from(source).into(), port(8)?))
        }
        2 => {
            let source: [u8; 16] = rest.get(..16)?.try_into().ok()?;
            Some(SocketAddr::new(Ipv6Addr::from(source).into(), port(32)?))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxy_v1_line_names_the_client() {
        let some = |text: &str| Ok(Some(text.parse().unwrap()));
        assert_eq!(parse_v1("PROXY TCP4 1.2.3.4 10.0.0.1 5 443"), some("1.2.3.4:5"));
        assert_eq!(parse_v1("PROXY TCP6 2001:db8::1 ::1 5 443"), some("[2001:db8::1]:5"));
        assert_eq!(parse_v1("PROXY UNKNOWN"), Ok(None));
        assert_eq!(parse_v1("PROXY UNKNOWN ffff::1 ffff::2 1 2"), Ok(None));
        for bad in [
            "PROXY",
            "PROXY TCP4 1.2.3.4",
            "PROXY TCP4 ::1 ::1 5 443",
            "PROXY TCP4 1.2.3.4 10.0.0.1 5 443 6",
            "PROXY TCP4 1.2.3.4 10.0.0.1 70000 443",
            "PROXY UDP4 1.2.3.4 10.0.0.1 5 443",
        ] {
            assert_eq!(parse_v1(bad), Err(MalformedHeader), "{bad}");
        }
    }

    #[test]
    fn proxy_v2_header_names_the_client() {
        let four = [1, 2, 3, 4, 10, 0, 0, 1, 0, 5, 1, 187];
        assert_eq!(parse_v2(PROXY, 0x11, &four), Ok(Some("1.2.3.4:5".parse().unwrap())));
        assert_eq!(parse_v2(LOCAL, 0x11, &four), Ok(None), "the balancer itself");
        assert_eq!(parse_v2(PROXY, 0x00, &[]), Ok(None));
        assert_eq!(parse_v2(PROXY, 0x11, four.get(..9).unwrap()), Err(MalformedHeader), "cut short");
        assert_eq!(parse_v2(0x11, 0x11, &four), Err(MalformedHeader), "another version");
        assert_eq!(parse_v2(PROXY, 0x51, &four), Err(MalformedHeader));
    }

    #[test]
    fn local_v2_header_has_any_family_or_no_address() {
        for (family, rest) in [(0x11, &[][..]), (0x51, &[1, 2]), (0x15, &[0; 12]), (0x00, &[])] {
            assert_eq!(parse_v2(LOCAL, family, rest), Ok(None), "{family:#x} {rest:?}");
        }
    }

    #[test]
    fn unknown_v1_line_has_any_words() {
        assert_eq!(parse_v1("PROXY UNKNOWN a b c d e f g"), Ok(None));
    }
}
