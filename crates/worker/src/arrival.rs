//! Sessions that come over a stream socket: how the thread that accepted it hands it to a worker.
//!
//! First the worker hears who comes, asks the gate as for any other session, and gives its verdict; then
//! it is given the socket. So an HTTP server can answer an upgrade in its own words before the socket
//! leaves it, and there is one place where sessions are let in.

use std::{fmt, net::SocketAddr, os::unix::net::UnixStream, sync::Arc, time::Duration};

use relay_model::SessionId;
use relay_transport::{
    qmux::{Framing, Over},
    quic::PeerCertificate,
};

use crate::{
    gate::Denial,
    mailbox::{Letter, Mailbox},
};

/// Who comes, before its socket does. Its `Debug` leaves out what may be a secret.
#[derive(Clone)]
pub struct Newcomer {
    /// How streams are laid out.
    pub framing: Framing,
    /// What carries them.
    pub over: Over,
    /// The protocol version agreed on, as ALPN names it; `None`: to be found out in-band, by the transport
    /// parameters of a byte stream or by the exchange of SETUP of the older versions.
    pub protocol: Option<&'static str>,
    /// Raw path and query of the URL; `None` where SETUP carries them. May hold a token.
    pub target: Option<String>,
    /// What the gate and logs call it: `websocket`, `tcp` or `unix`.
    pub transport: &'static str,
    /// The peer's address, as a trusted proxy tells it if there is one. Of a Unix socket: unspecified.
    pub remote: SocketAddr,
    /// Our address that it came to.
    pub local: SocketAddr,
    /// The host it asked for.
    pub server_name: Option<String>,
    /// The certificate it showed, verified.
    pub certificate: Option<PeerCertificate>,
    /// Round trip time as the kernel measured it during the handshake.
    pub rtt: Option<Duration>,
}

impl fmt::Debug for Newcomer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Newcomer")
            .field("transport", &self.transport)
            .field("protocol", &self.protocol)
            .field("remote", &self.remote)
            .finish_non_exhaustive()
    }
}

/// A connected socket, blocking or not.
#[derive(Debug)]
pub enum Socket {
    /// TCP.
    Tcp(std::net::TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
}

/// The socket of who was let in.
pub struct Link {
    /// The socket itself.
    pub socket: Socket,
    /// TLS on it, handshake done.
    pub tls: Option<Box<rustls::ServerConnection>>,
    /// What was read from it already and is the session's: after TLS, after the upgrade request.
    pub received: Vec<u8>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("socket", &self.socket).finish_non_exhaustive()
    }
}

/// Why a newcomer was turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Turned {
    /// The gate does not let it in.
    #[error(transparent)]
    Denied(#[from] Denial),
    /// The relay is about to end.
    #[error("the relay is going away")]
    Leaving,
    /// No room for another.
    #[error("too many connections")]
    Full,
}

/// Hears once what became of a newcomer; runs on a worker's thread and must not wait. Dropped unheard when
/// the relay ends.
pub type Verdict = Box<dyn FnOnce(Result<Place, Turned>) + Send>;

/// A place in a worker for who was let in. Dropped without a socket, the session ends; so it does when
/// nobody gives one for `limits::SETUP_TIMEOUT`.
pub struct Place {
    session: SessionId,
    /// Until the socket is given.
    mailbox: Option<Arc<Mailbox>>,
}

impl Place {
    pub(crate) fn new(session: SessionId, mailbox: Arc<Mailbox>) -> Self {
        Self { session, mailbox: Some(mailbox) }
    }

    /// The session it is for, as the gate and logs know it.
    pub fn session(&self) -> SessionId {
        self.session
    }

    /// Hands over the socket. If the session is over by now, the socket is closed.
    pub fn take(mut self, link: Link) {
        self.post(Letter::Link(self.session, Box::new(link)));
    }

    fn post(&mut self, letter: Letter) {
        if let Some(mailbox) = self.mailbox.take() {
            mailbox.post(&mut vec![letter]);
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.post(Letter::Unlinked(self.session));
    }
}

impl fmt::Debug for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Place").field("session", &self.session).finish_non_exhaustive()
    }
}

/// A newcomer on its way to a worker.
pub struct Arrival {
    pub(crate) newcomer: Newcomer,
    pub(crate) verdict: Verdict,
}

impl fmt::Debug for Arrival {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrival").field("newcomer", &self.newcomer).finish_non_exhaustive()
    }
}

/// Where newcomers are announced; a handle for any thread.
#[derive(Clone)]
pub struct Arrivals(Arc<[Arc<Mailbox>]>);

impl Arrivals {
    pub(crate) fn new(mailboxes: &[Arc<Mailbox>]) -> Self {
        Self(mailboxes.into())
    }

    /// Announces `newcomer` to the worker with the fewest connections, which gives its `verdict`.
    pub fn arrive(&self, newcomer: Newcomer, verdict: Verdict) {
        let Some(mailbox) = self.0.iter().min_by_key(|mailbox| mailbox.load()) else {
            return verdict(Err(Turned::Full));
        };
        // Until the worker says itself how many it has: of many who come at once, not all go to one.
        mailbox.add_load();
        mailbox.post(&mut vec![Letter::Arrive(Box::new(Arrival { newcomer, verdict }))]);
    }
}

impl fmt::Debug for Arrivals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Arrivals").finish_non_exhaustive()
    }
}
