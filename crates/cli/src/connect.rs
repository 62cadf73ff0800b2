//! Connects to a relay, with error messages for the person at the terminal.

use std::{
    net::{SocketAddr, UdpSocket},
    time::Duration,
};

use relay_client::{
    Certs, Client, ClientConfig, Closed, Code, Error, Tuning,
    lite::{Role, Version},
};
use relay_model::{SessionCode, StreamCode};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::{
    args::{ConnectArgs, HowArgs},
    exit::{Exit, Failure},
    progress::note,
    stop::Stop,
};

/// Streams for groups that wait to be read, and for HTTP/3 itself.
const UNI_STREAMS: u32 = 64;
const STREAM_WINDOW: u32 = 1024 * 1024;
/// The window of every stream fits, so that no stream can starve another.
const CONNECTION_WINDOW: u32 = UNI_STREAMS * STREAM_WINDOW;
/// Versions offered by default, newest first.
pub(crate) const NEWEST_FIRST: [Version; 4] = [Version::V06, Version::V05, Version::V04, Version::V03];
/// Time without an answer after which the address is probed for a listener.
const UNANSWERED: Duration = Duration::from_millis(400);
const PROBE: Duration = Duration::from_millis(200);

/// Connects with these arguments. `Err` with the exit code of a signal if one arrives first.
pub(crate) async fn connect(
    args: &ConnectArgs,
    offered: &[Version],
    stop: &mut Stop,
) -> Result<Client, Failure> {
    connect_as(None, args, offered, stop).await
}

/// The same, for one role only: a relay that does not allow it refuses at once.
pub(crate) async fn connect_as(
    role: Option<Role>,
    args: &ConnectArgs,
    offered: &[Version],
    stop: &mut Stop,
) -> Result<Client, Failure> {
    let mut place = RelayAddress::of(&args.url)?;
    place.resolve().await;
    let certs = args.how.certs(&place)?;
    let versions: Vec<Version> = match args.how.protocol {
        Some(version) => vec![version],
        None => offered.to_vec(),
    };
    let mut last = None;
    for version in versions {
        let config = ClientConfig {
            certs: certs.clone(),
            version,
            connect_timeout: args.how.timeout,
            role,
            tuning: Tuning {
                uni_streams: UNI_STREAMS,
                stream_window: STREAM_WINDOW,
                connection_window: CONNECTION_WINDOW,
                ..Tuning::default()
            },
            ..ClientConfig::default()
        };
        let outcome = tokio::select! {
            outcome = Client::connect(&args.url, config) => outcome,
            () = port_unreachable(&place) => return Err(place.no_answer()),
            exit = stop.asked() => return Err(Failure::new(exit, "stopped while connecting")),
        };
        match outcome {
            Ok(client) => return Ok(client),
            Err(error) if is_version(&error) => last = Some(error),
            Err(error) => return Err(place.unreachable(&error)),
        }
    }
    let asked = args.how.protocol.map_or("moq-lite-03 to 06", Version::alpn);
    let why = last.map(|error| error.to_string()).unwrap_or_default();
    Err(Failure::new(
        Exit::Unreachable,
        format!("the relay at {} supports no offered version ({asked}): {why}", place.display_url),
    ))
}

/// Address of a relay, with tokens removed.
pub(crate) struct RelayAddress {
    /// The URL without its query, which may contain tokens.
    pub(crate) display_url: String,
    /// Host name, or the file of a Unix socket.
    host: String,
    port: u16,
    carrier: SocketKind,
    /// Addresses of the host in the order of attempts; empty if the name could not be resolved.
    addresses: Vec<SocketAddr>,
}

/// Kind of socket that the port belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum SocketKind {
    Udp,
    Tcp,
    /// A Unix socket, without a port.
    File,
}

impl RelayAddress {
    pub(crate) fn of(url: &str) -> Result<Self, Failure> {
        let shown = url.split(['?', '#']).next().unwrap_or_default().to_owned();
        let wrong = || {
            let help = "expected https://HOST:PORT/PATH (WebTransport), moqt://HOST:PORT/PATH (raw QUIC), \
                        wss:// or ws://HOST:PORT/PATH (WebSocket), tcp://HOST:PORT/PATH or unix:///FILE:/PATH";
            Failure::new(Exit::Usage, format!("`{shown}` is no address of a relay: {help}"))
        };
        let (scheme, rest) = shown.split_once("://").ok_or_else(wrong)?;
        let carrier = match scheme {
            "https" | "moqt" | "moql" => SocketKind::Udp,
            "wss" | "ws" | "tcp" => SocketKind::Tcp,
            "unix" => SocketKind::File,
            _ => return Err(wrong()),
        };
        if carrier == SocketKind::File {
            let file = rest.split(':').next().unwrap_or_default().to_owned();
            return match file.starts_with('/') {
                true => Ok(Self { host: file, port: 0, carrier, display_url: shown, addresses: Vec::new() }),
                false => Err(wrong()),
            };
        }
        let authority = rest.split('/').next().unwrap_or_default();
        let (host, port) = match authority.strip_prefix('[') {
            Some(v6) => v6.split_once(']').map(|(host, port)| (host, port.strip_prefix(':'))),
            None => Some(authority.split_once(':').map_or((authority, None), |(h, p)| (h, Some(p)))),
        }
        .filter(|(host, _)| !host.is_empty())
        .ok_or_else(wrong)?;
        let default = if scheme == "ws" { 80 } else { 443 };
        let port = port.map_or(Ok(default), str::parse).map_err(|_| wrong())?;
        let host = host.to_owned();
        Ok(Self { host, port, carrier, display_url: shown, addresses: Vec::new() })
    }

    /// Resolves the name, for messages only: a failure is reported by the dial.
    async fn resolve(&mut self) {
        if self.carrier != SocketKind::File {
            self.addresses = relay_client::addresses(&self.host, self.port).await.unwrap_or_default();
        }
    }

    /// Host and port as in a URL.
    fn authority(&self) -> String {
        let (host, port) = (&self.host, self.port);
        if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") }
    }

    /// Lists the addresses tried, if the host is a name.
    fn tried(&self) -> String {
        if self.addresses.is_empty() || self.host.parse::<std::net::IpAddr>().is_ok() {
            return String::new();
        }
        let all: Vec<String> = self.addresses.iter().map(|address| address.ip().to_string()).collect();
        format!(" (tried {})", all.join(" and "))
    }

    fn is_loopback(&self) -> bool {
        self.carrier == SocketKind::File
            || self.host == "localhost"
            || self.host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
    }

    fn no_answer(&self) -> Failure {
        Failure::new(
            Exit::Unreachable,
            format!(
                "nothing listens on {}{}: is the relay running, is the {} right?",
                self.at(),
                self.tried(),
                self.what()
            ),
        )
    }

    /// Address of the listener, for messages.
    fn at(&self) -> String {
        match self.carrier {
            SocketKind::Udp => format!("UDP {}", self.authority()),
            SocketKind::Tcp => format!("TCP {}", self.authority()),
            SocketKind::File => self.host.clone(),
        }
    }

    fn what(&self) -> &'static str {
        if self.carrier == SocketKind::File { "file" } else { "port" }
    }

    fn unreachable(&self, error: &Error) -> Failure {
        let (host, authority, tried) = (&self.host, self.authority(), self.tried());
        let text = error.to_string();
        let reason = match text.rsplit("invalid peer certificate: ").next() {
            Some("ApplicationVerificationFailure") => "its fingerprint does not match",
            Some("UnknownIssuer") => "its issuer is unknown",
            other => other.unwrap_or_default(),
        };
        let (exit, message) = match error {
            Error::ConnectTimeout => (
                Exit::Unreachable,
                match self.carrier {
                    SocketKind::Udp => format!(
                        "nothing answered on UDP {authority}{tried}: is the relay running, is the port open for \
                         UDP?"
                    ),
                    _ => {
                        format!("nothing answered on {}{tried}: is it a relay that listens there?", self.at())
                    }
                },
            ),
            Error::Io(why) if is_no_listener(why) => return self.no_answer(),
            Error::Io(why) if self.carrier == SocketKind::File => {
                (Exit::Unreachable, format!("the socket {host} cannot be used: {why}"))
            }
            Error::Resolve { why, .. } => {
                (Exit::Unreachable, format!("the name {host} cannot be resolved: {why}"))
            }
            Error::Status(401 | 403) => (
                Exit::Refused,
                format!(
                    "the relay at {} does not allow it ({text}): does the URL carry the right path and ?jwt=?",
                    self.display_url
                ),
            ),
            _ if text.contains("invalid peer certificate") => (
                Exit::Unreachable,
                format!(
                    "the certificate of {authority} is not trusted ({}): give --fingerprint HEX to pin it, \
                     --root FILE to trust its issuer, or --insecure to accept any",
                    reason
                ),
            ),
            _ if error.is_unauthorized() => (
                Exit::Refused,
                format!(
                    "the relay at {} does not allow it: does the URL carry the right path and ?jwt=?",
                    self.display_url
                ),
            ),
            _ => (Exit::Unreachable, format!("no session with {}: {}", self.display_url, describe(error))),
        };
        Failure::new(exit, message)
    }
}

/// Whether the error means that nothing listens there.
fn is_no_listener(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::ConnectionRefused | std::io::ErrorKind::NotFound)
}

/// Whether the peer lacks the version, so that another one may work.
fn is_version(error: &Error) -> bool {
    match error {
        Error::Status(400) => true,
        Error::WebTransport(why) | Error::Socket(why) => why.contains("the server chose"),
        // The alert no_application_protocol.
        Error::Closed(Closed::Lost(why)) => why.contains("error 120"),
        _ => false,
    }
}

/// Completes when the system reports that nothing listens on UDP there; else never.
async fn port_unreachable(place: &RelayAddress) {
    if place.carrier != SocketKind::Udp {
        // A dial on a stream socket gets the error itself.
        return std::future::pending().await;
    }
    tokio::time::sleep(UNANSWERED).await;
    let addresses = place.addresses.clone();
    let all_refuse = move || !addresses.is_empty() && addresses.into_iter().all(is_refused);
    if !tokio::task::spawn_blocking(all_refuse).await.unwrap_or(false) {
        std::future::pending::<()>().await;
    }
}

/// Sends one byte, which relays ignore: without a listener the system answers with an error.
fn is_refused(address: SocketAddr) -> bool {
    let any: SocketAddr = if address.is_ipv4() { ([0, 0, 0, 0], 0).into() } else { ([0u16; 8], 0).into() };
    let probe = || -> std::io::Result<()> {
        let socket = UdpSocket::bind(any)?;
        socket.connect(address)?;
        socket.set_read_timeout(Some(PROBE))?;
        socket.send(&[0])?;
        socket.recv(&mut [0; 1]).map(drop)
    };
    probe().is_err_and(|error| error.kind() == std::io::ErrorKind::ConnectionRefused)
}

impl HowArgs {
    /// Certificates to trust. On the local machine any certificate is accepted, with a note.
    pub(crate) fn certs(&self, place: &RelayAddress) -> Result<Certs, Failure> {
        if self.insecure {
            return Ok(Certs::Any);
        }
        if !self.fingerprint.is_empty() {
            return Ok(Certs::Pinned(self.fingerprint.iter().map(|pin| pin.0).collect()));
        }
        if !self.root.is_empty() {
            let mut roots = Vec::new();
            for file in &self.root {
                let failed = |why: String| Failure::new(Exit::Failed, format!("{}: {why}", file.display()));
                let before = roots.len();
                for root in CertificateDer::pem_file_iter(file).map_err(|e| failed(e.to_string()))? {
                    roots.push(root.map_err(|e| failed(e.to_string()))?);
                }
                if roots.len() == before {
                    return Err(failed("holds no certificate in PEM".to_owned()));
                }
            }
            return Ok(Certs::Roots(roots));
        }
        if place.is_loopback() {
            note(format_args!(
                "{} is this machine: its certificate is not checked (--root or --fingerprint would)",
                place.host
            ));
            return Ok(Certs::Any);
        }
        Ok(Certs::Roots(rustls_native_certs::load_native_certs().certs))
    }
}

/// Formats an error of the session or of a stream, with the names of its codes.
pub(crate) fn describe(error: &Error) -> String {
    let word = |code: &Code, name: Option<String>| name.unwrap_or_else(|| format!("code {code}"));
    let stream = |code: &Code| word(code, code.stream().map(|c| StreamCode::from_peer(c.0).to_string()));
    match error {
        Error::Reset(code) => format!("stream reset by the relay: {}", stream(code)),
        Error::Stopped(code) => format!("stream stopped by the relay: {}", stream(code)),
        Error::Closed(closed) => ended(closed),
        other => other.to_string(),
    }
}

/// Formats the end of a session, with the name of its code.
pub(crate) fn ended(closed: &Closed) -> String {
    match closed {
        Closed::Peer { code, reason } => {
            let name = code.session().map_or_else(|| code.to_string(), |c: SessionCode| c.to_string());
            let reason: String = reason.chars().flat_map(char::escape_default).collect();
            format!("the relay closed the session: {name} {reason}").trim_end().to_owned()
        }
        Closed::Lost(why) => format!("the connection was lost: {why}"),
        Closed::Local => "the session was closed".to_owned(),
    }
}

/// Converts a session that ended too early to a failure.
pub(crate) fn broken(closed: &Closed) -> Failure {
    let is_refused = Error::Closed(closed.clone()).is_unauthorized();
    Failure::new(if is_refused { Exit::Refused } else { Exit::Incomplete }, ended(closed))
}

/// Converts a refused or broken request for `what` to a failure.
pub(crate) fn refused(error: &Error, what: &str) -> Failure {
    let code = match error {
        Error::Reset(code) => code.stream().map(|code| StreamCode::from_peer(code.0)),
        _ => None,
    };
    let exit = match code {
        Some(StreamCode::NOT_FOUND | StreamCode::UNROUTABLE | StreamCode::EVICTED | StreamCode::OLD) => {
            Exit::NotFound
        }
        _ if error.is_unauthorized() => Exit::Refused,
        _ => Exit::Incomplete,
    };
    Failure::new(exit, format!("{what}: {}", describe(error)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_never_shown() {
        let place = RelayAddress::of("https://relay.example:4443/live?jwt=secret").unwrap();
        assert_eq!((place.display_url.as_str(), place.port), ("https://relay.example:4443/live", 4443));
        for bad in ["relay?jwt=secret", "ftp://x?jwt=secret", "https://?jwt=secret"] {
            let said = RelayAddress::of(bad).err().unwrap().to_string();
            assert!(!said.contains("secret"), "{said}");
        }
    }

    #[test]
    fn a_relay_is_found_on_any_kind_of_socket() {
        let place = |url| RelayAddress::of(url).unwrap();
        assert_eq!(place("ws://relay.example/live").at(), "TCP relay.example:80");
        assert_eq!(place("wss://relay.example?jwt=secret").at(), "TCP relay.example:443");
        assert_eq!(place("tcp://relay.example:7/").at(), "TCP relay.example:7");
        let unix = place("unix:///run/relay.sock:/live?jwt=secret");
        assert_eq!(
            (unix.at(), unix.display_url.as_str()),
            ("/run/relay.sock".into(), "unix:///run/relay.sock:/live")
        );
        assert!(unix.is_loopback() && place("ws://127.0.0.1:1/").is_loopback());
        assert!(!place("wss://relay.example/").is_loopback());
        assert!(RelayAddress::of("unix://relay.sock").is_err());
    }

    /// Failure after a server answers the upgrade with `status`.
    async fn after(status: &str) -> Failure {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("ws://{}/live?jwt=secret", listener.local_addr().unwrap());
        let answer = async {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                head.push(socket.read_u8().await.unwrap());
            }
            let words = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\n\r\n");
            socket.write_all(words.as_bytes()).await.unwrap();
        };
        let (client, ()) = tokio::join!(Client::connect(&url, ClientConfig::default()), answer);
        let place = RelayAddress::of(&url).unwrap();
        let error = client.unwrap_err();
        match is_version(&error) {
            true => Failure::new(Exit::Unreachable, "no version in common"),
            false => place.unreachable(&error),
        }
    }

    #[test]
    fn a_refused_upgrade_ends_as_a_refused_connect_does() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        for (status, exit) in [
            ("401 Unauthorized", Exit::Refused),
            ("403 Forbidden", Exit::Refused),
            ("400 Bad Request", Exit::Unreachable),
            ("503 Service Unavailable", Exit::Unreachable),
        ] {
            let failure = runtime.block_on(after(status));
            assert_eq!(failure.exit, exit, "{status}: {failure}");
            assert!(!failure.to_string().contains("secret"), "{failure}");
        }
    }

    #[test]
    fn refused_stream_socket_fails_at_once() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        for (url, at) in [
            (format!("tcp://127.0.0.1:{port}/"), format!("TCP 127.0.0.1:{port}")),
            ("unix:///nowhere/relay.sock".to_owned(), "/nowhere/relay.sock".to_owned()),
        ] {
            let error = runtime.block_on(Client::connect(&url, ClientConfig::default())).unwrap_err();
            let failure = RelayAddress::of(&url).unwrap().unreachable(&error);
            assert_eq!(failure.exit, Exit::Unreachable);
            assert!(failure.to_string().starts_with(&format!("nothing listens on {at}:")), "{failure}");
        }
    }

    #[test]
    fn only_this_machine_is_believed_unseen() {
        for (url, own) in [
            ("moqt://127.0.0.1:1/", true),
            ("moqt://[::1]:1/", true),
            ("https://localhost/", true),
            ("https://192.0.2.1/", false),
            ("https://localhost.example/", false),
        ] {
            assert_eq!(RelayAddress::of(url).unwrap().is_loopback(), own, "{url}");
        }
    }
}
