//! Sessions over plain byte streams: TCP, TLS, Unix sockets. They are accepted here and passed to a worker.

use std::io;

use relay_transport::qmux::{QmuxCarrier, QmuxFraming};
use relay_worker::{
    AcceptQueue, AcceptedSocket, Admission, AdmittedSocket, ConnInfo, PendingSession, RejectReason,
};
use tokio::{
    net::{UnixListener, UnixStream, unix::UCred},
    sync::oneshot,
    time::{sleep, timeout},
};

use crate::{
    client::{ClientInfo, NOWHERE},
    limits::{NO_FILES_PAUSE, REQUEST_TIME},
    slots::Slots,
    socket::PlainOrTls,
};

/// Peers allowed on a Unix socket, by credentials from the kernel. An empty list allows every peer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Allowed {
    /// User ids.
    pub uids: Vec<u32>,
    /// Group ids.
    pub gids: Vec<u32>,
    /// Process ids.
    pub pids: Vec<i32>,
}

impl Allowed {
    /// Whether the peer matches every list that is not empty.
    fn admits(&self, peer: &UCred) -> bool {
        let holds = |list: &[u32], id| list.is_empty() || list.contains(&id);
        holds(&self.uids, peer.uid())
            && holds(&self.gids, peer.gid())
            && (self.pids.is_empty() || peer.pid().is_some_and(|pid| self.pids.contains(&pid)))
    }
}

/// Handle that passes connections to the workers.
#[derive(Clone, Debug)]
pub(crate) struct SessionAcceptor {
    arrivals: AcceptQueue,
}

impl SessionAcceptor {
    pub(crate) fn new(arrivals: AcceptQueue) -> Self {
        Self { arrivals }
    }

    /// Asks a worker to admit a connection and passes the socket to it.
    pub(crate) async fn admit(self, stream: PlainOrTls, client: ClientInfo) {
        let remote = client.conn.remote;
        let pending = stream_session(client.conn);
        let handed = async {
            let place = request_admission(&self.arrivals, pending).await.map_err(io::Error::other)?;
            place.take(link(stream, Vec::new())?);
            io::Result::Ok(())
        };
        if let Err(error) = handed.await {
            tracing::debug!(%remote, %error, "session over TCP refused");
        }
    }

    /// Accepts connections until the runtime ends.
    pub(crate) async fn serve_unix(self, listener: UnixListener, allowed: Allowed, slots: Slots) {
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                sleep(NO_FILES_PAUSE).await;
                continue;
            };
            let Some(slot) = slots.take(std::net::Ipv4Addr::LOCALHOST.into()) else { continue };
            match stream.peer_cred() {
                Ok(peer) if allowed.admits(&peer) => {}
                Ok(peer) => {
                    tracing::info!(
                        uid = peer.uid(),
                        gid = peer.gid(),
                        pid = peer.pid(),
                        "session over the Unix socket refused: not in `server.unix.allow`"
                    );
                    continue;
                }
                Err(error) => {
                    tracing::debug!(%error, "cannot read peer credentials of the Unix socket");
                    continue;
                }
            }
            let entrance = self.clone();
            tokio::spawn(async move {
                if let Err(error) = entrance.admit_unix(stream).await {
                    tracing::debug!(%error, "session over the Unix socket refused");
                }
                drop(slot);
            });
        }
    }

    async fn admit_unix(&self, stream: UnixStream) -> io::Result<()> {
        let pending = stream_session(ConnInfo::new("unix", NOWHERE, NOWHERE));
        let place = request_admission(&self.arrivals, pending).await.map_err(io::Error::other)?;
        let socket = AcceptedSocket::Unix(stream.into_std()?);
        place.take(AdmittedSocket { socket, tls: None, received: Vec::new() });
        Ok(())
    }
}

/// Session of the newest framing over a byte stream, which carries its version and target.
fn stream_session(conn: ConnInfo) -> PendingSession {
    PendingSession { framing: QmuxFraming::Qmux01, over: QmuxCarrier::Bytes, conn }
}

/// Asks a worker to admit a newcomer and waits for the verdict.
///
/// # Errors
/// Reason of the rejection; [`RejectReason::Leaving`] if no worker answers within [`REQUEST_TIME`].
pub(crate) async fn request_admission(
    arrivals: &AcceptQueue,
    pending: PendingSession,
) -> Result<Admission, RejectReason> {
    let (sender, receiver) = oneshot::channel();
    arrivals.arrive(pending, Box::new(move |verdict| drop(sender.send(verdict))));
    match timeout(REQUEST_TIME, receiver).await {
        Ok(Ok(verdict)) => verdict,
        Ok(Err(_)) | Err(_) => Err(RejectReason::Leaving),
    }
}

/// Prepares a connection's socket, with the bytes that were already read from it, for a worker.
///
/// # Errors
/// The socket cannot be taken from the runtime.
pub(crate) fn link(stream: PlainOrTls, received: Vec<u8>) -> io::Result<AdmittedSocket> {
    let (socket, tls) = match stream {
        PlainOrTls::Plain(socket) => (socket, None),
        PlainOrTls::Tls(stream) => {
            let (socket, tls) = stream.into_inner();
            (socket, Some(Box::new(tls)))
        }
    };
    Ok(AdmittedSocket { socket: AcceptedSocket::Tcp(socket.into_std()?), tls, received })
}
