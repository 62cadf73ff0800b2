//! Sessions on stream sockets: WebSocket, TCP and Unix sockets, framed by the published `qmux`.

use std::{net::SocketAddr, sync::Arc};

use qmux::{
    Config, Protocol, Session, SharedSocketStats, TcpStats, Version,
    transport::Stream,
    ws::{self, tungstenite::client::IntoClientRequest},
};
use rustls::pki_types::ServerName;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpSocket, TcpStream, UnixStream},
};
use web_transport_trait::Session as _;

use crate::{
    config::{ClientConfig, Tuning},
    error::Error,
    race::race,
    target::{DialTarget, Scheme},
    tls,
};

/// Framing that is requested.
const FRAMING: Version = Version::QMux01;
const PREFIX: &str = "qmux-01";
const SUBPROTOCOL: &str = "sec-websocket-protocol";

/// Connects a new socket; returns its session and local address.
pub(crate) async fn dial(
    target: &DialTarget,
    config: &ClientConfig,
) -> Result<(Session, Option<SocketAddr>), Error> {
    if target.scheme == Scheme::Unix {
        let socket = UnixStream::connect(&target.host).await?;
        return Ok((by_words(socket, None, config).await?, None));
    }
    let addresses = target.resolve().await?;
    let socket = race(&addresses, |remote| connect(remote, config)).await?;
    let here = socket.local_addr()?;
    // The kernel measures round trips without requests to the peer.
    let stats = TcpStats::new(&socket).ok().map(|stats| Arc::new(stats) as SharedSocketStats);
    let session = match target.scheme {
        Scheme::WebSocket { tls: false } => upgrade(socket, stats, target, config).await?,
        Scheme::WebSocket { tls: true } => {
            let socket = secure(socket, target, config).await?;
            upgrade(socket, stats, target, config).await?
        }
        _ => by_words(socket, stats, config).await?,
    };
    Ok((session, Some(here)))
}

async fn connect(remote: SocketAddr, config: &ClientConfig) -> Result<TcpStream, Error> {
    let socket = if remote.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    if let Some(bytes) = config.socket_receive_buffer {
        socket.set_recv_buffer_size(u32::try_from(bytes).unwrap_or(u32::MAX))?;
    }
    if let Some(here) = config.bind {
        socket.bind(here)?;
    }
    let socket = socket.connect(remote).await?;
    socket.set_nodelay(true)?;
    Ok(socket)
}

async fn secure(
    socket: TcpStream,
    target: &DialTarget,
    config: &ClientConfig,
) -> Result<tokio_rustls::client::TlsStream<TcpStream>, Error> {
    let tls = tls::client_config(&config.certs, config.identity.as_ref(), b"http/1.1")?;
    let name = ServerName::try_from(target.host.clone()).map_err(|_| Error::Url(target.url.clone()))?;
    let connector = tokio_rustls::TlsConnector::from(Arc::new(tls));
    connector.connect(name, socket).await.map_err(|error| Error::Socket(error.to_string()))
}

/// Negotiates the version by the subprotocol of a WebSocket.
async fn upgrade<S: AsyncRead + AsyncWrite + Send + Unpin + 'static>(
    socket: S,
    stats: Option<SharedSocketStats>,
    target: &DialTarget,
    config: &ClientConfig,
) -> Result<Session, Error> {
    let name = format!("{PREFIX}.{}", config.version.alpn());
    let bad = |_| Error::Url(target.url.clone());
    let mut request = target.upgrade_url().into_client_request().map_err(bad)?;
    let offer = name.parse().map_err(|_| Error::Url(target.url.clone()))?;
    request.headers_mut().insert(SUBPROTOCOL, offer);
    let (socket, response) = ws::tokio_tungstenite::client_async(request, socket).await.map_err(refusal)?;
    let chosen = response.headers().get(SUBPROTOCOL).and_then(|value| value.to_str().ok());
    if chosen != Some(name.as_str()) {
        return Err(Error::Socket(format!("the server chose {chosen:?}, not {name}")));
    }
    let upgraded = ws::Upgraded::new(socket).with_alpn(&name).with_session_config(credit(&config.tuning));
    Ok(match stats {
        Some(stats) => upgraded.with_socket_stats(stats).connect(),
        None => upgraded.connect(),
    })
}

fn refusal(error: ws::tungstenite::Error) -> Error {
    match error {
        ws::tungstenite::Error::Http(response) => Error::Status(response.status().as_u16()),
        other => Error::Socket(other.to_string()),
    }
}

/// Negotiates the version by the first bytes on the socket.
async fn by_words<S: AsyncRead + AsyncWrite + Send + 'static>(
    socket: S,
    stats: Option<SharedSocketStats>,
    config: &ClientConfig,
) -> Result<Session, Error> {
    let name = config.version.alpn();
    let mut credit = credit(&config.tuning);
    credit.protocol = Protocol::Negotiate(vec![name.to_owned()]);
    let stream = Stream::new(socket, FRAMING, credit.max_record_size);
    let session = match stats {
        Some(stats) => Session::connect(stream.with_socket_stats(stats), credit).await?,
        None => Session::connect(stream, credit).await?,
    };
    match session.protocol() {
        Some(chosen) if chosen == name => Ok(session),
        other => Err(Error::Socket(format!("the server chose {other:?}, not {name}"))),
    }
}

/// Flow control limits for the peer, as on QUIC.
fn credit(tuning: &Tuning) -> Config {
    let mut config = Config::new(FRAMING);
    config.max_streams_bidi = tuning.bidi_streams.into();
    config.max_streams_uni = tuning.uni_streams.into();
    config.max_data = tuning.connection_window.into();
    config.max_stream_data_bidi_local = tuning.stream_window.into();
    config.max_stream_data_bidi_remote = tuning.stream_window.into();
    config.max_stream_data_uni = tuning.stream_window.into();
    config.max_idle_timeout = u64::try_from(tuning.idle.as_millis()).unwrap_or(u64::MAX);
    if tuning.datagram_buffer.is_none() {
        config.max_datagram_frame_size = 0;
    }
    config
}
