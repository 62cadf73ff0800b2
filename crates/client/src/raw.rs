//! Streams and datagrams without the protocol: any stream, any bytes.

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::{
    carrier::Carrier,
    error::Error,
    stream::{RecvStream, SendStream},
};

/// Raw access to a session. Streams belong to the session: on WebTransport their header is written, and the caller's
/// bytes follow it. For lower access use [`Raw::quic`].
#[derive(Debug)]
pub struct Raw {
    pub(crate) carrier: Carrier,
    pub(crate) incoming: Option<Incoming>,
}

/// Streams and datagrams of the peer, in manual mode.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) uni: mpsc::Receiver<RecvStream>,
    pub(crate) bidi: mpsc::Receiver<(SendStream, RecvStream)>,
    pub(crate) datagrams: mpsc::Receiver<Bytes>,
}

impl Raw {
    /// Opens a unidirectional stream.
    pub async fn open_uni(&self) -> Result<SendStream, Error> {
        self.carrier.open_uni().await
    }

    /// Opens a bidirectional stream.
    pub async fn open_bidi(&self) -> Result<(SendStream, RecvStream), Error> {
        self.carrier.open_bidi().await
    }

    /// Sends a datagram.
    pub fn datagram(&self, body: &[u8]) -> Result<(), Error> {
        self.carrier.send_datagram(body)
    }

    /// Accepts the next unidirectional stream of the peer. `None` when the session has ended, or at once when it is not
    /// manual ([`crate::ClientConfig::manual`]) or another [`Raw`] accepts.
    pub async fn accept_uni(&mut self) -> Option<RecvStream> {
        self.incoming.as_mut()?.uni.recv().await
    }

    /// Accepts the next bidirectional stream of the peer. `None` as for [`Raw::accept_uni`].
    pub async fn accept_bidi(&mut self) -> Option<(SendStream, RecvStream)> {
        self.incoming.as_mut()?.bidi.recv().await
    }

    /// Receives the next datagram. `None` as for [`Raw::accept_uni`].
    pub async fn read_datagram(&mut self) -> Option<Bytes> {
        self.incoming.as_mut()?.datagrams.recv().await
    }

    /// The QUIC connection itself; `None` on a stream socket.
    pub fn quic(&self) -> Option<&quinn::Connection> {
        self.carrier.quic()
    }
}
