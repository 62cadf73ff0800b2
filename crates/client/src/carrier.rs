//! Carrier of a session's streams and datagrams: QUIC, raw or with WebTransport, or a stream socket.

use bytes::{Buf, Bytes, BytesMut};
use relay_wire::{lite::Version, varint};
use web_transport_trait::{Session as _, Stats as _};

use crate::{
    code::{self, Closed},
    error::Error,
    stream::{RecvStream, SendStream},
};

/// Stream type of a WebTransport unidirectional stream.
const WT_UNI: u64 = 0x54;
/// Frame type that opens a WebTransport bidirectional stream.
const WT_BIDI: u64 = 0x41;
/// WebTransport session id: that of the CONNECT stream, which is the first stream of the client.
pub(crate) const WT_SESSION: u64 = 0;

/// A connection, with its version and stream headers.
#[derive(Clone, Debug)]
pub(crate) struct Carrier {
    pub(crate) wire: Wire,
    pub(crate) version: Version,
}

/// Transport of the bytes.
#[derive(Clone)]
pub(crate) enum Wire {
    Quic { connection: quinn::Connection, webtransport: bool },
    Socket(qmux::Session),
}

/// Purpose of an incoming unidirectional stream.
pub(crate) enum Uni {
    /// A stream of the session.
    Session(RecvStream),
    /// A stream of HTTP/3: control (0), QPACK (2, 3) or unknown.
    Http(u64, RecvStream),
}

impl Carrier {
    pub(crate) fn quic(&self) -> Option<&quinn::Connection> {
        match &self.wire {
            Wire::Quic { connection, .. } => Some(connection),
            Wire::Socket(_) => None,
        }
    }

    pub(crate) fn webtransport(&self) -> bool {
        matches!(self.wire, Wire::Quic { webtransport: true, .. })
    }

    pub(crate) async fn open_uni(&self) -> Result<SendStream, Error> {
        let mut stream = match &self.wire {
            Wire::Quic { connection, .. } => SendStream::new(connection.open_uni().await?),
            Wire::Socket(session) => SendStream::of_socket(session.open_uni().await?),
        };
        self.mark(&mut stream, WT_UNI).await?;
        Ok(stream)
    }

    pub(crate) async fn open_bidi(&self) -> Result<(SendStream, RecvStream), Error> {
        let (mut send, recv) = match &self.wire {
            Wire::Quic { connection, .. } => {
                let (send, recv) = connection.open_bi().await?;
                (SendStream::new(send), RecvStream::new(recv))
            }
            Wire::Socket(session) => of_socket(session.open_bi().await?),
        };
        self.mark(&mut send, WT_BIDI).await?;
        Ok((send, recv))
    }

    async fn mark(&self, stream: &mut SendStream, kind: u64) -> Result<(), Error> {
        if !self.webtransport() {
            return Ok(());
        }
        let mut head = Vec::with_capacity(4);
        varint::put(kind, &mut head);
        varint::put(WT_SESSION, &mut head);
        stream.write(&head).await
    }

    /// Accepts the next unidirectional stream of the peer; [`Self::enter_uni`] has to follow.
    pub(crate) async fn accept_uni(&self) -> Result<RecvStream, Error> {
        Ok(match &self.wire {
            Wire::Quic { connection, .. } => RecvStream::new(connection.accept_uni().await?),
            Wire::Socket(session) => RecvStream::of_socket(session.accept_uni().await?),
        })
    }

    /// Accepts the next bidirectional stream of the peer; [`Self::enter_bidi`] has to follow.
    pub(crate) async fn accept_bidi(&self) -> Result<(SendStream, RecvStream), Error> {
        Ok(match &self.wire {
            Wire::Quic { connection, .. } => {
                let (send, recv) = connection.accept_bi().await?;
                (SendStream::new(send), RecvStream::new(recv))
            }
            Wire::Socket(session) => of_socket(session.accept_bi().await?),
        })
    }

    /// Reads the stream header before the session's own bytes.
    pub(crate) async fn enter_uni(&self, mut stream: RecvStream) -> Result<Uni, Error> {
        if !self.webtransport() {
            return Ok(Uni::Session(stream));
        }
        let kind = stream.varint().await?.ok_or(Error::Truncated)?;
        if kind != WT_UNI {
            return Ok(Uni::Http(kind, stream));
        }
        expect_session(&mut stream).await?;
        Ok(Uni::Session(stream))
    }

    /// The same for a bidirectional stream.
    pub(crate) async fn enter_bidi(&self, recv: &mut RecvStream) -> Result<(), Error> {
        if self.webtransport() {
            let kind = recv.varint().await?.ok_or(Error::Truncated)?;
            if kind != WT_BIDI {
                return Err(Error::WebTransport(format!("server opened a stream of frame type {kind:#x}")));
            }
            expect_session(recv).await?;
        }
        Ok(())
    }

    pub(crate) fn send_datagram(&self, body: &[u8]) -> Result<(), Error> {
        let Wire::Quic { connection, webtransport } = &self.wire else {
            return self.send_by_socket(body);
        };
        let mut out = BytesMut::with_capacity(body.len() + 1);
        if *webtransport {
            // The quarter stream id of the CONNECT stream is 0.
            out.extend_from_slice(&[0]);
        }
        out.extend_from_slice(body);
        connection.send_datagram(out.freeze()).map_err(|e| Error::Setup(e.to_string()))
    }

    fn send_by_socket(&self, body: &[u8]) -> Result<(), Error> {
        match &self.wire {
            Wire::Socket(session) => Ok(session.send_datagram(Bytes::copy_from_slice(body))?),
            Wire::Quic { .. } => Ok(()),
        }
    }

    /// Returns the body of the next datagram; those of other WebTransport sessions are skipped.
    pub(crate) async fn read_datagram(&self) -> Result<Bytes, Error> {
        let (connection, webtransport) = match &self.wire {
            Wire::Quic { connection, webtransport } => (connection, *webtransport),
            Wire::Socket(session) => return Ok(session.recv_datagram().await?),
        };
        loop {
            let mut body = connection.read_datagram().await?;
            if !webtransport {
                return Ok(body);
            }
            let mut peek: &[u8] = &body;
            if varint::get(&mut peek) == Ok(WT_SESSION / 4) {
                let used = body.len() - peek.len();
                body.advance(used);
                return Ok(body);
            }
        }
    }

    /// Waits for the end of the connection and returns its cause.
    pub(crate) async fn closed(&self) -> Closed {
        match &self.wire {
            Wire::Quic { connection, .. } => Closed::from_quic(&connection.closed().await),
            Wire::Socket(session) => Closed::from_socket(&session.closed().await),
        }
    }

    pub(crate) fn close(&self, code: u32, reason: &str) {
        match &self.wire {
            Wire::Quic { connection, .. } => connection.close(code::to_quic(code), reason.as_bytes()),
            Wire::Socket(session) => session.close(code, reason),
        }
    }

    /// Round-trip time measured by the transport; 0 if there is no measurement yet.
    pub(crate) fn rtt(&self) -> std::time::Duration {
        match &self.wire {
            Wire::Quic { connection, .. } => connection.rtt(),
            Wire::Socket(session) => session.stats().rtt().unwrap_or_default(),
        }
    }
}

fn of_socket((send, recv): (qmux::SendStream, qmux::RecvStream)) -> (SendStream, RecvStream) {
    (SendStream::of_socket(send), RecvStream::of_socket(recv))
}

async fn expect_session(stream: &mut RecvStream) -> Result<(), Error> {
    match stream.varint().await? {
        Some(WT_SESSION) => Ok(()),
        other => Err(Error::WebTransport(format!("stream of session {other:?}"))),
    }
}

impl std::fmt::Debug for Wire {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Quic { webtransport: true, .. } => "WebTransport",
            Self::Quic { .. } => "QUIC",
            Self::Socket(_) => "a stream socket",
        })
    }
}
