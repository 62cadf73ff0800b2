//! Hand-over of accepted stream sockets to workers.
//!
//! The worker first gets a description of the connection, asks the gate as for any other session, and returns
//! its verdict; then it gets the socket. An HTTP server can thus answer an upgrade itself before it hands
//! over the socket, and sessions are admitted in one place only.

use std::{fmt, os::unix::net::UnixStream, sync::Arc};

use relay_model::SessionId;
use relay_transport::qmux::{QmuxCarrier, QmuxFraming};

use crate::{
    conn_info::ConnInfo,
    gate::Denial,
    mailbox::{Mailbox, WorkerMessage},
};

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
        f.debug_struct("Link").field("socket", &self.socket).finish_non_exhaustive()
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
    /// `None` once the socket was handed over.
    mailbox: Option<Arc<Mailbox>>,
}

impl Admission {
    pub(crate) fn new(session: SessionId, mailbox: Arc<Mailbox>) -> Self {
        Self { session, mailbox: Some(mailbox) }
    }

    /// Id of the session, for the gate and logs.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Hands over the socket, which is closed if the session has ended meanwhile.
    pub fn take(mut self, link: AdmittedSocket) {
        self.post(WorkerMessage::Link(self.session, Box::new(link)));
    }

    fn post(&mut self, message: WorkerMessage) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.post(&mut vec![message]);
        }
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        self.post(WorkerMessage::Unlinked(self.session));
    }
}

impl fmt::Debug for Admission {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("session", &self.session).finish_non_exhaustive()
    }
}

/// A connection on its way to a worker.
pub struct PendingAccept {
    pub(crate) pending: PendingSession,
    pub(crate) verdict: AdmissionCallback,
}

impl fmt::Debug for PendingAccept {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("newcomer", &self.pending).finish_non_exhaustive()
    }
}

/// Entry point for accepted stream sockets; a handle for any thread.
#[derive(Clone)]
pub struct AcceptQueue(Arc<[Arc<Mailbox>]>);

impl AcceptQueue {
    pub(crate) fn new(mailboxes: &[Arc<Mailbox>]) -> Self {
        Self(mailboxes.into())
    }

    /// Sends `newcomer` to the worker with the fewest connections, which calls `verdict`.
    pub fn arrive(&self, newcomer: PendingSession, verdict: AdmissionCallback) {
        let Some(mailbox) = self.0.iter().min_by_key(|mailbox| mailbox.load()) else {
            return verdict(Err(RejectReason::Full));
        };
        // Estimate until the worker updates its load, so that a burst is spread over all workers.
        mailbox.add_load();
        mailbox
            .post(&mut vec![WorkerMessage::Arrive(Box::new(PendingAccept { pending: newcomer, verdict }))]);
    }
}

impl fmt::Debug for AcceptQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}
