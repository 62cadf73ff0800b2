//! Hand-over of accepted stream sockets to workers.
//!
//! The worker first gets a description of the connection, asks the gate as for any other session, and returns
//! its verdict; then it gets the socket. An HTTP server can thus answer an upgrade itself before it hands
//! over the socket, and sessions are admitted in one place only.

use std::{fmt, os::unix::net::UnixStream};

use relay_model::SessionId;
use relay_transport::qmux::{QmuxCarrier, QmuxFraming};

use crate::{admission::Denial, conn_info::ConnInfo};

/// An accepted connection, described before its socket is handed over.
#[derive(Clone, Debug)]
pub struct PendingSession {
    /// Stream layout.
    pub framing: QmuxFraming,
    /// Carrier of the streams.
    pub over: QmuxCarrier,
    /// The connection. Its version is `None` if it is negotiated in-band, by the transport parameters of a byte stream
    /// or by the SETUP exchange of older versions; its target is `None` if SETUP carries it.
    pub conn: ConnInfo,
}

/// A connected socket, blocking or not.
#[derive(Debug)]
pub enum AcceptedSocket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// Socket of an admitted connection.
pub struct AdmittedSocket {
    /// The socket itself.
    pub socket: AcceptedSocket,
    /// TLS state, after the handshake.
    pub tls: Option<Box<rustls::ServerConnection>>,
    /// Bytes already read that belong to the session: after TLS, after the upgrade request.
    pub received: Vec<u8>,
}

impl fmt::Debug for AdmittedSocket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AdmittedSocket").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Reason for rejecting a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RejectReason {
    /// Denied by the gate.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The relay is draining or shutting down.
    #[error("relay is draining")]
    Leaving,
    /// A limit on connections or memory is reached.
    #[error("too many connections")]
    Full,
}

/// Callback that gets the outcome of an arrival once. Runs on a worker's thread and must not block. Dropped
/// without a call when the relay ends.
pub type AdmissionCallback = Box<dyn FnOnce(Result<Admission, RejectReason>) + Send>;

/// Place of an admitted session in a worker. The session ends if the place is dropped without a socket, or
/// gets none within `limits::SETUP_TIMEOUT`.
pub struct Admission {
    session: SessionId,
    /// Passes the socket to the worker, or that there is none; `None` once it was called.
    hand_over: Option<HandOver>,
}

/// Callback that gets the socket of an admitted session, or `None` if there will be none.
pub(crate) type HandOver = Box<dyn FnOnce(Option<AdmittedSocket>) + Send>;

impl Admission {
    pub(crate) fn new(session: SessionId, hand_over: HandOver) -> Self {
        Self { session, hand_over: Some(hand_over) }
    }

    /// Id of the session, for the gate and logs.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Hands over the socket, which is closed if the session has ended meanwhile.
    pub fn take(mut self, socket: AdmittedSocket) {
        if let Some(hand_over) = self.hand_over.take() {
            hand_over(Some(socket));
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        if let Some(hand_over) = self.hand_over.take() {
            hand_over(None);
        }
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admission").field("session", &self.session).finish_non_exhaustive()
    }
}

/// A connection on its way to a worker.
pub struct PendingAccept {
    pub(crate) pending: PendingSession,
    pub(crate) verdict: AdmissionCallback,
}

impl fmt::Debug for PendingAccept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingAccept").field("pending", &self.pending).finish_non_exhaustive()
    }
}
