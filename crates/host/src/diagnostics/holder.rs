//! Process that holds a UDP or TCP port, from the socket tables and open files in `/proc`.

use std::{
    fmt,
    fs::{self, File},
    net::{IpAddr, SocketAddr},
    path::Path,
};

use procfs_core::{
    ExplicitSystemInfo,
    net::{TcpNetEntries, TcpState, UdpNetEntries},
    prelude::FromReadSI,
};
use relay_config::account::named;

/// Most processes searched; on a machine with more the holder may remain unknown.
const PROCESSES: usize = 100_000;

/// Of these, the socket tables depend on the byte order alone.
const SYSTEM: ExplicitSystemInfo = ExplicitSystemInfo {
    boot_time_secs: 0,
    ticks_per_second: 0,
    page_size: 0,
    is_little_endian: cfg!(target_endian = "little"),
};

/// Holder of a port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Holder {
    /// A process that this user may inspect.
    Process {
        /// Process id.
        pid: u32,
        /// Process name, escaped.
        name: String,
    },
    /// A process that may not be inspected, of this user.
    User(String),
    /// Unknown.
    Unknown,
}

impl fmt::Display for Holder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { pid, name } => write!(f, "{name} (pid {pid})"),
            Self::User(user) => write!(f, "a process of {user}"),
            Self::Unknown => f.write_str("another process"),
        }
    }
}

/// An entry of the kernel's socket table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SocketEntry {
    local: SocketAddr,
    uid: u32,
    inode: u64,
}

/// Finds the holder of UDP `addr`.
pub fn of(addr: SocketAddr) -> Holder {
    below(Path::new("/"), addr)
}

/// Finds the holder of TCP `addr`.
pub fn of_tcp(addr: SocketAddr) -> Holder {
    tcp_below(Path::new("/"), addr)
}

/// As [`of`], in the file system below `root`.
pub fn below(root: &Path, addr: SocketAddr) -> Holder {
    let sockets = ["proc/net/udp", "proc/net/udp6"].into_iter().flat_map(|file| {
        let table = table::<UdpNetEntries>(root, file).map_or_else(Vec::new, |table| table.0);
        table.into_iter().map(|entry| SocketEntry {
            local: entry.local_address,
            uid: entry.uid,
            inode: entry.inode,
        })
    });
    find(root, sockets, addr)
}

/// As [`of_tcp`], in the file system below `root`.
pub fn tcp_below(root: &Path, addr: SocketAddr) -> Holder {
    let sockets = ["proc/net/tcp", "proc/net/tcp6"].into_iter().flat_map(|file| {
        let table = table::<TcpNetEntries>(root, file).map_or_else(Vec::new, |table| table.0);
        table.into_iter().filter(|entry| entry.state == TcpState::Listen).map(|entry| SocketEntry {
            local: entry.local_address,
            uid: entry.uid,
            inode: entry.inode,
        })
    });
    find(root, sockets, addr)
}

/// Reads a socket table; `None` if it is missing or malformed.
fn table<T: FromReadSI>(root: &Path, file: &str) -> Option<T> {
    T::from_read(File::open(root.join(file)).ok()?, &SYSTEM).ok()
}

/// Finds the holder of `addr` among `sockets`.
fn find(root: &Path, sockets: impl Iterator<Item = SocketEntry>, addr: SocketAddr) -> Holder {
    let sockets: Vec<SocketEntry> = sockets.filter(|socket| meets(socket.local, addr)).collect();
    let Some(first) = sockets.first() else { return Holder::Unknown };
    match process(root, &sockets) {
        Some((pid, name)) => Holder::Process { pid, name },
        None => Holder::User(named(root, first.uid)),
    }
}

/// Whether a socket at `held` conflicts with one at `wanted`.
fn meets(held: SocketAddr, wanted: SocketAddr) -> bool {
    let (a, b) = (held.ip().to_canonical(), wanted.ip().to_canonical());
    // The unspecified IPv6 address is assumed to cover IPv4 too, as that of a dual-stack socket does.
    let covers = |any: IpAddr, other: IpAddr| any.is_unspecified() && (any.is_ipv6() || other.is_ipv4());
    held.port() == wanted.port() && (a == b || covers(a, b) || covers(b, a))
}

/// Finds the first process that has one of `sockets` open.
fn process(root: &Path, sockets: &[SocketEntry]) -> Option<(u32, String)> {
    let wanted: Vec<String> = sockets.iter().map(|socket| format!("socket:[{}]", socket.inode)).collect();
    let proc = root.join("proc");
    let entries = fs::read_dir(&proc).ok()?.flatten().take(PROCESSES);
    entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok()).find_map(|pid| {
        let folder = proc.join(pid.to_string());
        let files = fs::read_dir(folder.join("fd")).ok()?;
        let holds = files.flatten().any(|file| {
            let target = fs::read_link(file.path()).unwrap_or_default();
            target.to_str().is_some_and(|target| wanted.iter().any(|wanted| wanted == target))
        });
        let name = fs::read_to_string(folder.join("comm")).unwrap_or_default();
        holds.then(|| (pid, name.trim_end().escape_default().to_string()))
    })
}

#[cfg(test)]
mod tests {
    use std::{net::UdpSocket, os::unix::fs::symlink};

    use super::*;

    const HEAD: &str = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n";

    #[test]
    fn udp_port_of_this_process_is_found() {
        for at in ["127.0.0.1:0", "[::1]:0", "[::]:0"] {
            let Ok(socket) = UdpSocket::bind(at) else { continue };
            let Holder::Process { pid, .. } = of(socket.local_addr().unwrap()) else {
                panic!("{at} is not found")
            };
            assert_eq!(pid, std::process::id());
        }
    }

    #[test]
    fn listening_tcp_port_of_this_process_is_found() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let _connected = std::net::TcpStream::connect(address).unwrap();
        let Holder::Process { pid, .. } = of_tcp(address) else { panic!("{address} is not found") };
        assert_eq!(pid, std::process::id());
        drop(listener);
        assert_eq!(of_tcp(address), Holder::Unknown, "a connection holds no port");
    }

    /// A file system root whose socket table `table` holds `line`.
    fn machine(table: &str, line: &str) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir_all(root.path().join("proc/net")).unwrap();
        fs::write(root.path().join("proc/net").join(table), format!("{HEAD}{line}\n")).unwrap();
        root
    }

    fn at(root: &Path, addr: &str) -> Holder {
        below(root, addr.parse().unwrap())
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn uninspectable_holder_is_reported_as_its_user() {
        let root = machine(
            "udp",
            " 7: 0100007F:115B 00000000:0000 07 00000000:00000000 00:00000000 00000000    77        0 4711 2 0 0",
        );
        assert_eq!(at(root.path(), "127.0.0.1:4443"), Holder::User("uid 77".to_owned()));
        assert_eq!(at(root.path(), "127.0.0.1:4444"), Holder::Unknown);
        assert_eq!(at(root.path(), "192.0.2.1:4443"), Holder::Unknown, "another address");
        assert_eq!(at(root.path(), "0.0.0.0:4443"), Holder::User("uid 77".to_owned()), "all addresses");
        let folder = root.path().join("proc/815");
        fs::create_dir_all(folder.join("fd")).unwrap();
        fs::write(folder.join("comm"), "evil\x1b[2J\n").unwrap();
        symlink("socket:[4711]", folder.join("fd/3")).unwrap();
        let holder = at(root.path(), "127.0.0.1:4443");
        assert_eq!(holder.to_string(), "evil\\u{1b}[2J (pid 815)", "the name of a process is escaped");
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn a_socket_for_all_of_version_6_holds_version_4_too() {
        let root = machine(
            "udp6",
            " 7: 00000000000000000000000000000000:115B 00000000000000000000000000000000:0000 07 00000000:00000000 00:00000000 00000000     5        0 9 2 0 0",
        );
        assert_eq!(at(root.path(), "127.0.0.1:4443"), Holder::User("uid 5".to_owned()));
        assert_eq!(at(root.path(), "[::1]:4443"), Holder::User("uid 5".to_owned()));
    }
}
