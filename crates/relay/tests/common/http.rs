//! HTTP requests over plain sockets, and their raw answers.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::Duration,
};

use rustls::{
    DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use super::PATIENCE;

/// Verifier that accepts any certificate.
#[derive(Debug)]
pub(crate) struct Anybody;

impl ServerCertVerifier for Anybody {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        default_provider().signature_verification_algorithms.supported_schemes()
    }
}

/// An HTTP answer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) status: u16,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: Vec<u8>,
    /// Whether the body is complete.
    pub(crate) is_whole: bool,
}

impl Reply {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    pub(crate) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// A TCP address that was free a moment ago.
pub(crate) fn free_tcp() -> String {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
}

/// Connects, with a read timeout.
pub(crate) fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// Sends `bytes`, and reads until the end of the connection.
pub(crate) fn exchange(address: &str, bytes: &[u8]) -> Vec<u8> {
    let mut stream = connect(address);
    stream.write_all(bytes).unwrap();
    let mut all = Vec::new();
    // A reset counts as the end.
    let _ = stream.read_to_end(&mut all);
    all
}

/// Makes one request over a new connection. `headers`: lines without line breaks.
pub(crate) fn ask(address: &str, method: &str, target: &str, headers: &[&str]) -> Reply {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request =
        format!("{method} {target} HTTP/1.1\r\nhost: {address}\r\nconnection: close\r\n{lines}\r\n");
    reply(&exchange(address, request.as_bytes()), method == "HEAD")
}

pub(crate) fn get(address: &str, target: &str) -> Reply {
    ask(address, "GET", target, &[])
}

/// Requests a WebSocket upgrade; returns the head of the answer.
pub(crate) fn upgrade(address: &str, target: &str, headers: &[&str]) -> Reply {
    let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
    let request = format!(
        "GET {target} HTTP/1.1\r\nhost: {address}\r\nconnection: keep-alive, Upgrade\r\nupgrade: WebSocket\r\n{lines}\r\n"
    );
    let mut stream = connect(address);
    stream.write_all(request.as_bytes()).unwrap();
    reply(&head(&mut stream), true)
}

/// Reads until the end of the headers.
pub(crate) fn head(stream: &mut TcpStream) -> Vec<u8> {
    let (mut all, mut byte) = (Vec::new(), [0]);
    while !all.ends_with(b"\r\n\r\n") {
        match stream.read(&mut byte) {
            Ok(1) => all.extend(byte),
            _ => break,
        }
    }
    all
}

/// Reads until `text` is received.
pub(crate) fn until(stream: &mut TcpStream, text: &str) -> String {
    let (mut all, mut some) = (String::new(), [0; 4_096]);
    while !all.contains(text) {
        let count = stream.read(&mut some).unwrap_or_else(|error| panic!("{error}, no {text:?} in {all:?}"));
        assert!(count > 0, "it ended, no {text:?} in {all:?}");
        all += &String::from_utf8_lossy(&some[..count]);
    }
    all
}

/// Parses an answer. `is_bare`: it has no body.
pub(crate) fn reply(all: &[u8], is_bare: bool) -> Reply {
    let Some(end) = all.windows(4).position(|four| four == b"\r\n\r\n") else { return Reply::default() };
    let head = String::from_utf8_lossy(&all[..end]).into_owned();
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or_default();
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let mut reply = Reply { status, headers, ..Reply::default() };
    let rest = &all[end + 4..];
    if is_bare || reply.header("transfer-encoding") != Some("chunked") {
        let length = reply.header("content-length").and_then(|length| length.parse().ok());
        reply.is_whole = is_bare || length.is_none_or(|length: usize| rest.len() == length);
        reply.body = rest.to_vec();
        return reply;
    }
    (reply.body, reply.is_whole) = unchunked(rest);
    reply
}

/// Decodes chunks; returns the body, and whether the last chunk was received.
fn unchunked(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut body = Vec::new();
    loop {
        let Some(end) = rest.windows(2).position(|two| two == b"\r\n") else { return (body, false) };
        let size = std::str::from_utf8(&rest[..end]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        rest = &rest[end + 2..];
        if size == 0 {
            return (body, true);
        }
        if rest.len() < size + 2 {
            body.extend(&rest[..size.min(rest.len())]);
            return (body, false);
        }
        body.extend(&rest[..size]);
        rest = &rest[size + 2..];
    }
}

/// Polls until `found` returns a value.
pub(crate) fn eventually<T>(what: &str, mut found: impl FnMut() -> Option<T>) -> T {
    for _ in 0..2_000 {
        if let Some(found) = found() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("never: {what}");
}
