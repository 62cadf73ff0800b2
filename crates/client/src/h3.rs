//! Minimal HTTP/3 to open one WebTransport session.

use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use web_transport_proto::{
    Capsule, ConnectError, ConnectRequest, ConnectResponse, Frame, Http3CapsuleReader, Settings, VarInt,
};

use crate::{
    code::{Closed, Code},
    error::Error,
    stream::RecvStream,
    target::DialTarget,
};

/// Stream type of the HTTP/3 control stream.
pub(crate) const CONTROL: u64 = 0;

/// The CONNECT stream of an open session.
pub(crate) struct Connect {
    pub(crate) send: quinn::SendStream,
    pub(crate) recv: quinn::RecvStream,
}

/// Opens our control stream, which the caller must keep open.
pub(crate) async fn send_settings(connection: &quinn::Connection) -> Result<quinn::SendStream, Error> {
    let mut settings = Settings::default();
    settings.enable_webtransport(1);
    let mut bytes = BytesMut::new();
    settings.encode(&mut bytes);
    let mut stream = connection.open_uni().await?;
    stream.write_all(&bytes).await?;
    Ok(stream)
}

/// Reads SETTINGS off the server's control stream, whose type was read already. `Ok` when the server supports
/// WebTransport.
pub(crate) async fn read_settings(stream: &mut RecvStream) -> Result<(), Error> {
    // The codec expects the stream type too.
    let mut whole = (&[0u8][..]).chain(stream);
    let settings = Settings::read(&mut whole).await.map_err(|e| Error::WebTransport(e.to_string()))?;
    match settings.supports_webtransport() {
        0 => Err(Error::WebTransport("the server does not offer webtransport".into())),
        _ => Ok(()),
    }
}

/// Sends CONNECT for `target` offering `protocol` alone, and waits for the answer, which must select it.
pub(crate) async fn connect(
    connection: &quinn::Connection,
    target: &DialTarget,
    protocol: &str,
) -> Result<Connect, Error> {
    let url = url::Url::parse(&target.url).map_err(|e| Error::Url(e.to_string()))?;
    let mut bytes = BytesMut::new();
    ConnectRequest::new(url)
        .with_protocol(protocol)
        .encode(&mut bytes)
        .map_err(|e| Error::WebTransport(e.to_string()))?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&bytes).await?;
    let response = match ConnectResponse::read(&mut recv).await {
        Ok(response) => response,
        Err(ConnectError::WrongStatus(Some(status))) => return Err(Error::Status(status.as_u16())),
        Err(error) => {
            return Err(match connection.close_reason() {
                Some(reason) => reason.into(),
                None => Error::WebTransport(error.to_string()),
            });
        }
    };
    match response.protocol.as_deref() {
        Some(chosen) if chosen == protocol => Ok(Connect { send, recv }),
        other => Err(Error::WebTransport(format!("the server chose {other:?}, not {protocol}"))),
    }
}

/// Waits for the end of the session on its CONNECT stream. `None` when the connection ended first.
pub(crate) async fn closed(recv: quinn::RecvStream) -> Option<Closed> {
    let mut capsules = Http3CapsuleReader::new(recv);
    loop {
        match capsules.read().await {
            Ok(Some(Capsule::CloseWebTransportSession { code, reason })) => {
                return Some(Closed::Peer { code: Code::App(code), reason });
            }
            Ok(Some(_)) => {}
            Ok(None) => return Some(Closed::Peer { code: Code::App(0), reason: String::new() }),
            Err(_) => return None,
        }
    }
}

/// Sends a CLOSE_WEBTRANSPORT_SESSION capsule on the CONNECT stream and ends the stream.
pub(crate) async fn close(send: &mut quinn::SendStream, code: u32, reason: &str) {
    let mut capsule = BytesMut::new();
    Capsule::CloseWebTransportSession { code, reason: reason.to_owned() }.encode(&mut capsule);
    let mut out = BytesMut::new();
    Frame::DATA.encode(&mut out);
    VarInt::from_u32(u32::try_from(capsule.len()).unwrap_or(0)).encode(&mut out);
    out.extend_from_slice(&capsule);
    if AsyncWriteExt::write_all(send, &out).await.is_ok() {
        let _ = send.finish();
    }
}
