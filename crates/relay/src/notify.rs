//! What a service manager is told (`sd_notify`): one datagram a message, to the socket it named.

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
    process,
    time::Duration,
};

/// Names the socket; a leading `@` is the abstract namespace.
const SOCKET: &str = "NOTIFY_SOCKET";
/// How long the manager waits for a sign of life, microseconds.
const WATCHDOG: &str = "WATCHDOG_USEC";
/// For which process that is meant.
const WATCHDOG_PID: &str = "WATCHDOG_PID";

/// Where messages go, if anybody wants them.
#[derive(Debug, Default)]
pub struct Notify {
    to: Option<(UnixDatagram, SocketAddr)>,
    watchdog: Option<Duration>,
}

impl Notify {
    /// What the environment asks for.
    ///
    /// # Errors
    /// There is a socket, and it cannot be one.
    pub fn from_env() -> io::Result<Self> {
        let meant = env::var(WATCHDOG_PID).map_or(true, |pid| pid.trim() == process::id().to_string());
        let watchdog = env::var(WATCHDOG).ok().filter(|_| meant).and_then(|micros| interval(&micros));
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
        // A manager that does not read must not hold the relay up.
        socket.set_nonblocking(true)?;
        Ok(Self { to: Some((socket, address)), watchdog })
    }

    /// How often it wants a sign of life: twice in the time it waits for one.
    pub fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    /// The relay serves.
    ///
    /// # Errors
    /// Nobody takes the message.
    pub fn ready(&self, status: &str) -> io::Result<()> {
        self.send(&format!("READY=1\nSTATUS={}", line(status)))
    }

    /// The relay leaves, and may take `window` for it.
    pub fn stopping(&self, window: Duration, status: &str) {
        let micros = window.as_micros();
        self.tell(&format!("STOPPING=1\nEXTEND_TIMEOUT_USEC={micros}\nSTATUS={}", line(status)));
    }

    /// How it is, in words.
    pub fn status(&self, status: &str) {
        self.tell(&format!("STATUS={}", line(status)));
    }

    /// It lives.
    pub fn alive(&self) {
        self.tell("WATCHDOG=1");
    }

    /// Whoever did not hear the last one will hear the next.
    fn tell(&self, message: &str) {
        if let Err(error) = self.send(message) {
            tracing::debug!(%error, "the service manager was not told");
        }
    }

    fn send(&self, message: &str) -> io::Result<()> {
        let Some((socket, address)) = &self.to else { return Ok(()) };
        socket.send_to_addr(message.as_bytes(), address).map(|_| ())
    }
}

/// Half of what the manager waits.
fn interval(micros: &str) -> Option<Duration> {
    let micros: u64 = micros.trim().parse().ok()?;
    (micros > 1).then(|| Duration::from_micros(micros / 2))
}

/// A value ends with its line.
fn line(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
}

#[cfg(test)]
mod tests {
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
            notify.alive();
            assert_eq!(heard(&socket), "WATCHDOG=1");
            notify.stopping(Duration::from_secs(2), "draining");
            assert_eq!(heard(&socket), "STOPPING=1\nEXTEND_TIMEOUT_USEC=2000000\nSTATUS=draining");
        }
    }

    #[test]
    fn a_manager_that_is_gone_is_noticed_and_survived() {
        let folder = tempfile::tempdir().unwrap();
        let notify = Notify::to(folder.path().join("nobody").as_os_str(), None).unwrap();
        assert!(notify.ready("").is_err());
        notify.alive();
        Notify::default().ready("nobody asked").unwrap();
    }

    #[test]
    fn signs_of_life_are_due_twice_in_the_time_given() {
        assert_eq!(interval("30000000"), Some(Duration::from_secs(15)));
        assert_eq!(interval("0"), None);
        assert_eq!(interval("soon"), None);
    }
}
