//! Errors of starting a relay, with remedies.

use std::{
    fs, io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    os::unix::fs::FileTypeExt,
    path::Path,
};

use relay_worker::{BindError, RelayStartError};

use super::{Diagnostic, has_ipv6, holder, holder::Holder};
use crate::limits::rlimit;

/// Remedy for a low limit of open files.
pub const RAISE_FILES: &str = "raise the hard limit (LimitNOFILE=65536 in a systemd unit, \
     --ulimit nofile=65536 for a container, `ulimit -Hn` in a shell)";
/// First port that needs no privilege, by default.
pub const PRIVILEGED: u16 = 1_024;

/// Longest path of a Unix socket, bytes: `sun_path` of `unix(7)` with its terminating zero.
const UNIX_PATH_BYTES: usize = 107;

/// Problem that kept a relay with `workers` from starting.
pub fn start(error: &RelayStartError, workers: usize) -> Diagnostic {
    match error {
        RelayStartError::Bind(error) => bind(Path::new("/"), error, workers),
        RelayStartError::Quic(_) => Diagnostic::new(error.to_string(), "look at [tls] in the configuration"),
        RelayStartError::Thread(cause) => thread(cause, workers),
    }
}

/// Problem of binding sockets on the machine whose files are below `root`.
fn bind(root: &Path, error: &BindError, workers: usize) -> Diagnostic {
    let what = error.to_string();
    match error {
        BindError::InUse(addr) => in_use(*addr, &holder::below(root, *addr)),
        BindError::NoSuchAddress(IpAddr::V6(ip)) if !has_ipv6(root) => {
            let alike = if ip.is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
            Diagnostic::new(
                format!("cannot listen on {ip}: IPv6 is switched off on this machine"),
                format!(
                    "listen on {alike} instead, or switch it on (`sysctl -w net.ipv6.conf.all.disable_ipv6=0`)"
                ),
            )
        }
        BindError::NoSuchAddress(_) => Diagnostic::new(
            what,
            "listen on [::] for all addresses, or on one of its own (`ip address` lists them)",
        ),
        BindError::NoIpv6(addr) => Diagnostic::new(what, without_ipv6(*addr)),
        BindError::Forbidden(addr) => forbidden(root, *addr, what),
        BindError::Files => files(workers, rlimit::hard()),
        BindError::Workers(_) => Diagnostic::new(what, "change --workers"),
        BindError::Steering(_) => Diagnostic::new(
            what,
            "Linux 4.6 or newer is needed, and a sandbox has to allow SO_ATTACH_REUSEPORT_CBPF",
        ),
        BindError::Other { .. } => {
            Diagnostic::new(what, "`moq-relay doctor` checks the limits of the machine")
        }
    }
}

/// Problem of binding a socket to `addr`.
pub(crate) fn bind_error(root: &Path, addr: SocketAddr, error: io::Error) -> Diagnostic {
    bind(root, &BindError::of(addr, error), 1)
}

/// Whether `error` means that the kernel has no IPv6 at all.
pub fn is_without_ipv6(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::AFNOSUPPORT.raw_os_error())
}

/// Remedy for a machine without IPv6.
pub(crate) fn without_ipv6(addr: SocketAddr) -> String {
    let alike = if addr.ip().is_loopback() { Ipv4Addr::LOCALHOST } else { Ipv4Addr::UNSPECIFIED };
    let at = SocketAddr::from((alike, addr.port()));
    format!("listen on IPv4 alone: --bind {at}, or bind = \"{at}\" in [server]")
}

/// Problem of a UDP port that is in use.
pub(crate) fn in_use(addr: SocketAddr, holder: &Holder) -> Diagnostic {
    let port = addr.port();
    let who = match holder {
        Holder::Process { .. } => "stop it",
        Holder::User(_) | Holder::Unknown => {
            &format!("`sudo ss -ulpn 'sport = :{port}'` shows which one: stop it")
        }
    };
    let next = SocketAddr::new(addr.ip(), port.checked_add(1).unwrap_or(PRIVILEGED));
    Diagnostic::new(
        format!("udp {addr} is already in use by {holder}"),
        format!("{who}, or listen on another port (--bind {next}, or `bind` in [server])"),
    )
}

/// Problem of starting a listener other than QUIC.
pub fn listener(error: &relay_http::StartError) -> Diagnostic {
    match error {
        relay_http::StartError::Bind { what, address, source } => tcp(what, *address, source),
        relay_http::StartError::Unix { path, source } => unix_diagnostic(path).unwrap_or_else(|| {
            let shown = path.display();
            match source.kind() {
                io::ErrorKind::AddrInUse => Diagnostic::new(
                    format!("cannot listen on {shown}: another process listens there"),
                    "stop it, or choose another path (`server.unix.bind`)",
                ),
                _ => Diagnostic::new(
                    format!("cannot listen on {shown}: {source}"),
                    "let the relay's user write to its folder",
                ),
            }
        }),
        relay_http::StartError::Threads(_) => {
            Diagnostic::new(error.to_string(), "raise the limit on threads (TasksMax= in a systemd unit)")
        }
    }
}

/// Problem that prevents a Unix socket at `path`, as far as the file system shows.
pub fn unix_diagnostic(path: &Path) -> Option<Diagnostic> {
    let shown = path.display();
    let what = |why: String| format!("cannot listen on {shown}: {why}");
    if path.as_os_str().len() > UNIX_PATH_BYTES {
        let why = format!("the path has more than {UNIX_PATH_BYTES} bytes");
        return Some(Diagnostic::new(what(why), "choose a shorter one, as /run/moq-relay/sessions.sock"));
    }
    let folder = match path.parent() {
        Some(folder) if folder != Path::new("") => folder,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        let why = format!("there is no folder {}", folder.display());
        return Some(Diagnostic::new(
            what(why),
            "make it (RuntimeDirectory= in a systemd unit), and let the relay's user write there",
        ));
    }
    let is_other = path.symlink_metadata().is_ok_and(|found| !found.file_type().is_socket());
    is_other.then(|| {
        Diagnostic::new(
            what("a file that is no socket is there".to_owned()),
            "remove it, or choose another path",
        )
    })
}

/// Problem of serving `what` over TCP at `address`.
pub(crate) fn tcp(what: &str, address: SocketAddr, error: &io::Error) -> Diagnostic {
    let refused = format!("cannot listen for {what} on tcp {address}");
    match error.kind() {
        io::ErrorKind::AddrInUse => tcp_in_use(what, address, &holder::of_tcp(address)),
        io::ErrorKind::PermissionDenied => {
            forbidden(Path::new("/"), address, format!("{refused}: not allowed"))
        }
        io::ErrorKind::AddrNotAvailable => Diagnostic::new(
            format!("{refused}: this machine has no address {}", address.ip()),
            "listen on [::] for all addresses, or on one of its own (`ip address` lists them)",
        ),
        _ if is_without_ipv6(error) => {
            Diagnostic::new(format!("{refused}: this machine has no IPv6"), "listen on an address of IPv4")
        }
        _ => Diagnostic::new(
            format!("{refused}: {error}"),
            "`moq-relay doctor` checks the limits of the machine",
        ),
    }
}

/// Problem of a TCP port that is in use.
pub(crate) fn tcp_in_use(what: &str, address: SocketAddr, holder: &Holder) -> Diagnostic {
    let port = address.port();
    let who = match holder {
        Holder::Process { .. } => "stop it",
        Holder::User(_) | Holder::Unknown => {
            &format!("`sudo ss -tlpn 'sport = :{port}'` shows which one: stop it")
        }
    };
    Diagnostic::new(
        format!("tcp {address}, where {what} is to be served, is already in use by {holder}"),
        format!("{who}, or choose another port"),
    )
}

fn forbidden(root: &Path, addr: SocketAddr, what: String) -> Diagnostic {
    let file = root.join("proc/sys/net/ipv4/ip_unprivileged_port_start");
    let first = fs::read_to_string(file).ok().and_then(|text| text.trim().parse().ok()).unwrap_or(PRIVILEGED);
    if addr.port() >= first {
        return Diagnostic::new(
            what,
            "a security policy forbids it (SELinux, AppArmor, a sandbox): change it there",
        );
    }
    Diagnostic::new(
        what,
        format!(
            "ports below {first} need CAP_NET_BIND_SERVICE (AmbientCapabilities= in a systemd unit, or \
             `setcap cap_net_bind_service=+ep` on the binary); or use a port from {first}"
        ),
    )
}

/// Problem of a limit of open files that is too low for `workers`.
pub fn files(workers: usize, hard: Option<u64>) -> Diagnostic {
    let needed = rlimit::needed(workers);
    let limit = hard.map_or_else(|| "no more".to_owned(), |hard| format!("at most {hard}"));
    Diagnostic::new(format!("{limit} files may be open, and {workers} workers need {needed}"), RAISE_FILES)
}

fn thread(cause: &io::Error, workers: usize) -> Diagnostic {
    match cause.kind() {
        // EAGAIN of a thread that could not be created.
        io::ErrorKind::WouldBlock => Diagnostic::new(
            format!("cannot start a worker: no more threads ({cause})"),
            "raise the limit on threads (TasksMax= in a systemd unit, `ulimit -u` in a shell)",
        ),
        _ if rlimit::hard().is_some_and(|hard| hard < rlimit::needed(workers)) => {
            files(workers, rlimit::hard())
        }
        _ => Diagnostic::new(
            format!("cannot start a worker ({cause})"),
            "`moq-relay doctor` checks the limits of the machine",
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(error: &BindError) -> String {
        bind(Path::new("/nonexistent"), error, 4).to_string()
    }

    #[test]
    fn bind_errors_name_a_remedy() {
        let here: SocketAddr = "[::]:4443".parse().unwrap();
        assert_eq!(
            said(&BindError::NoIpv6(here)),
            "cannot listen on udp [::]:4443: this machine has no IPv6; listen on IPv4 alone: --bind \
             0.0.0.0:4443, or bind = \"0.0.0.0:4443\" in [server]"
        );
        assert_eq!(
            said(&BindError::InUse(here)),
            "udp [::]:4443 is already in use by another process; `sudo ss -ulpn 'sport = :4443'` shows which \
             one: stop it, or listen on another port (--bind [::]:4444, or `bind` in [server])"
        );
        assert!(
            said(&BindError::Forbidden(here)).ends_with("change it there"),
            "not because of the port number"
        );
        let refused = io::Error::from_raw_os_error(1);
        assert!(said(&BindError::Steering(refused)).contains("; Linux 4.6 or newer is needed"));
        let again = io::Error::from_raw_os_error(11);
        assert!(thread(&again, 1).to_string().contains("TasksMax="));
    }

    #[test]
    fn unusable_unix_path_is_refused_with_the_cause() {
        let folder = tempfile::tempdir().unwrap();
        let said = |name: &str| unix_diagnostic(&folder.path().join(name)).map(|trouble| trouble.to_string());
        assert_eq!(said("relay.sock"), None);
        assert!(said("absent/relay.sock").is_some_and(|said| said.contains("there is no folder")));
        assert!(said(&"x".repeat(120)).is_some_and(|said| said.contains("more than 107 bytes")));
        fs::write(folder.path().join("plain"), "precious").unwrap();
        assert!(said("plain").is_some_and(|said| said.contains("no socket is there")));
        let _listener = std::os::unix::net::UnixListener::bind(folder.path().join("live")).unwrap();
        assert_eq!(said("live"), None, "a path in use is detected on bind only");
    }
}
