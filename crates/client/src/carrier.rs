//! One QUIC connection as a session's streams and datagrams, raw or inside WebTransport.

use bytes::{Buf, Bytes, BytesMut};
use relay_wire::{lite::Version, varint};

use crate::{
    error::Error,
    stream::{RecvStream, SendStream},
};

/// Stream type of a WebTransport unidirectional stream.
const WT_UNI: u64 = 0x54;
/// Frame type that opens a WebTransport bidirectional stream.
const WT_BIDI: u64 = 0x41;
/// The session id is that of the CONNECT stream, which is the first the client opens.
pub(crate) const WT_SESSION: u64 = 0;

/// The connection and how streams are marked on it.
#[derive(Clone, Debug)]
pub(crate) struct Carrier {
    pub(crate) connection: quinn::Connection,
    pub(crate) webtransport: bool,
    pub(crate) version: Version,
}

/// What an incoming unidirectional stream is for.
pub(crate) enum Uni {
    /// The session's.
    Session(RecvStream),
    /// HTTP/3's own: control (0) or QPACK (2, 3) or unknown.
    Http(u64, RecvStream),
}

impl Carrier {
    pub(crate) async fn open_uni(&self) -> Result<SendStream, Error> {
        let mut stream = SendStream::new(self.connection.open_uni().await?);
        self.mark(&mut stream, WT_UNI).await?;
        Ok(stream)
    }

    pub(crate) async fn open_bidi(&self) -> Result<(SendStream, RecvStream), Error> {
        let (send, recv) = self.connection.open_bi().await?;
        let mut send = SendStream::new(send);
        self.mark(&mut send, WT_BIDI).await?;
        Ok((send, RecvStream::new(recv)))
    }

    async fn mark(&self, stream: &mut SendStream, kind: u64) -> Result<(), Error> {
        if !self.webtransport {
            return Ok(());
        }
        let mut head = Vec::with_capacity(4);
        varint::put(kind, &mut head);
        varint::put(WT_SESSION, &mut head);
        stream.write(&head).await
    }

    /// Reads what an accepted unidirectional stream says before the session's own bytes.
    pub(crate) async fn enter_uni(&self, stream: quinn::RecvStream) -> Result<Uni, Error> {
        let mut stream = RecvStream::new(stream);
        if !self.webtransport {
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
    pub(crate) async fn enter_bidi(
        &self,
        send: quinn::SendStream,
        recv: quinn::RecvStream,
    ) -> Result<(SendStream, RecvStream), Error> {
        let (send, mut recv) = (SendStream::new(send), RecvStream::new(recv));
        if self.webtransport {
            let kind = recv.varint().await?.ok_or(Error::Truncated)?;
            if kind != WT_BIDI {
                return Err(Error::WebTransport(format!("server opened a stream of frame type {kind:#x}")));
            }
            expect_session(&mut recv).await?;
        }
        Ok((send, recv))
    }

    pub(crate) fn send_datagram(&self, body: &[u8]) -> Result<(), Error> {
        let mut out = BytesMut::with_capacity(body.len() + 1);
        if self.webtransport {
            // The quarter stream id of the CONNECT stream, which is 0.
            out.extend_from_slice(&[0]);
        }
        out.extend_from_slice(body);
        self.connection.send_datagram(out.freeze()).map_err(|e| Error::Setup(e.to_string()))
    }

    /// The next datagram's body; those of other sessions are skipped.
    pub(crate) async fn read_datagram(&self) -> Result<Bytes, Error> {
        loop {
            let mut body = self.connection.read_datagram().await?;
            if !self.webtransport {
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
}

async fn expect_session(stream: &mut RecvStream) -> Result<(), Error> {
    match stream.varint().await? {
        Some(WT_SESSION) => Ok(()),
        other => Err(Error::WebTransport(format!("stream of session {other:?}"))),
    }
}
