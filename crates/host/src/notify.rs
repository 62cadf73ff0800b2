//! Notifications to the service manager (`sd_notify`): one datagram per message, to its socket.
//!
//! The messages and the watchdog's variables are those of the crate `sd-notify`. The socket is our own: it is opened
//! once, so that a watchdog ping needs no free descriptor; it never blocks; and its address may be abstract.

use std::{
    env,
    ffi::OsStr,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::{
            ffi::OsStrExt,
            net::{SocketAddr, UnixDatagram},
        },
    },
    time::Duration,
};

use sd_notify::{NotifyState, watchdog_enabled};

/// Variable with the path of the socket; a leading `@` stands for the abstract namespace.
const SOCKET: &str = "NOTIFY_SOCKET";

/// Connection to the service manager, if any.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// Creates a notifier from the environment.
    ///
    /// # Errors
    /// `NOTIFY_SOCKET` is not a valid socket address.
    pub fn from_env() -> io::Result<Self> {
        let watchdog = watchdog_enabled().and_then(interval);
        match env::var_os(SOCKET).filter(|name| !name.is_empty()) {
            Some(name) => Self::to(&name, watchdog),
            None => Ok(Self::default()),
        }
    }

    fn to(name: &OsStr, watchdog: Option<Duration>) -> io::Result<Self> {
        let address = match name.as_bytes().strip_prefix(b"@") {
            Some(name) => SocketAddr::from_abstract_name(name)?,
            None => SocketAddr::from_pathname(name)?,
        };
        let socket = UnixDatagram::unbound()?;
        // A manager that does not read must not block the relay.
        socket.set_nonblocking(true)?;
        Ok(Self { to: Some((socket, address)), watchdog })
    }

    /// Interval of watchdog pings: half of the watchdog timeout.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// Reports that the relay is ready.
    ///
    /// # Errors
    /// The message cannot be sent.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send(&[NotifyState::Ready, NotifyState::Status(&line(status))])
    }

    /// Reports that the relay is shutting down, which may take `window`.
    pub fn stopping(&self, window: Duration, status: &str) {
        let micros = u32::try_from(window.as_micros()).unwrap_or(u32::MAX);
        let status = line(status);
        self.try_send(&[
            NotifyState::Stopping,
            NotifyState::ExtendTimeoutUsec(micros),
            NotifyState::Status(&status),
        ]);
    }

    /// Sends a status text.
    pub fn status(&self, status: &str) {
        self.try_send(&[NotifyState::Status(&line(status))]);
    }

    /// Sends a watchdog ping.
    pub fn ping(&self) {
        self.try_send(&[NotifyState::Watchdog]);
    }

    /// Sends a message; a failure is only logged, as later messages repeat the state.
    fn try_send(&self, states: &[NotifyState<'_>]) {
        if let Err(error) = self.send(states) {
            tracing::debug!(%error, "cannot notify the service manager");
        }
    }

    fn send(&self, states: &[NotifyState<'_>]) -> io::Result<()> {
        let Some((socket, address)) = &self.to else { return Ok(()) };
        let lines: Vec<String> = states.iter().map(ToString::to_string).collect();
        socket.send_to_addr(lines.join("\n").as_bytes(), address).map(|_| ())
    }
}

/// Interval of pings for a watchdog `timeout`: half of it; `None` for one that is too short.
fn interval(timeout: Duration) -> Option<Duration> {
    Some(timeout / 2).filter(|interval| interval.as_micros() > 0)
}

/// Replaces line breaks, which would end the value.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
    use std::process;

    use super::*;

    fn heard(socket: &UnixDatagram) -> String {
        let mut buffer = [0; 512];
        let len = socket.recv(&mut buffer).unwrap();
        String::from_utf8(buffer[..len].to_vec()).unwrap()
    }

    #[test]
    fn messages_reach_a_socket_in_either_namespace() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify");
        let name = format!("moq-relay notify test {}", process::id());
        let abstract_name = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, spelled) in [
            (UnixDatagram::bind(&path).unwrap(), path.as_os_str().to_owned()),
            (UnixDatagram::bind_addr(&abstract_name).unwrap(), format!("@{name}").into()),
        ] {
            let notify = Notify::to(&spelled, None).unwrap();
            notify.ready("serving\nall").unwrap();
            assert_eq!(heard(&socket), "READY=1\nSTATUS=serving all");
            notify.ping();
            assert_eq!(heard(&socket), "WATCHDOG=1");
            notify.stopping(Duration::from_secs(2), "draining");
            assert_eq!(heard(&socket), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000\nSTATUS=draining");
        }
    }

    #[test]
    fn missing_manager_fails_ready_only() {
        let folder = tempfile::tempdir().unwrap();
        let notify = Notify::to(folder.path().join("nobody").as_os_str(), None).unwrap();
        assert!(notify.ready("").is_err());
        notify.ping();
        Notify::default().ready("no manager").unwrap();
    }

    #[test]
    fn watchdog_interval_is_half_of_the_timeout() {
        assert_eq!(interval(Duration::from_secs(30)), Some(Duration::from_secs(15)));
        assert_eq!(interval(Duration::ZERO), None);
        assert_eq!(interval(Duration::from_micros(1)), None);
    }
}
