//! Listeners of a configuration, for reports made before it runs.

use std::{
    fmt,
    net::SocketAddr,
    os::unix::fs::FileTypeExt,
    path::{Path, PathBuf},
};

use crate::diagnostics::Diagnostic;
use relay_config::Config;

/// Longest path of a Unix socket, bytes: `sun_path` of `unix(7)` with its terminating zero.
const UNIX_PATH_BYTES: usize = 107;

/// A listener other than UDP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Listener {
    /// Its name in reports.
    pub(crate) name: &'static str,
    /// Configuration key of the listener.
    pub(crate) key: &'static str,
    /// Its address.
    pub(crate) place: ListenerAddress,
    /// Description of its services.
    pub(crate) serves: &'static str,
}

/// The address of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ListenerAddress {
    /// TCP address.
    Tcp(SocketAddr),
    /// Path of a Unix socket.
    Unix(PathBuf),
}

impl fmt::Display for ListenerAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => path.display().fmt(f),
        }
    }
}

/// All listeners of `config` other than UDP.
pub(crate) fn all(config: &Config) -> Vec<Listener> {
    let web = &config.web;
    let mut all = Vec::new();
    let mut tcp = |name, key, address: Option<SocketAddr>, serves| {
        all.extend(address.map(|address| Listener {
            name,
            key,
            place: ListenerAddress::Tcp(address),
            serves,
        }));
    };
    let is_one = web.http == web.https;
    let serves = match (is_one, web.websocket) {
        (true, true) => "HTTP and HTTPS, WebSocket (ws:// and wss://)",
        (true, false) => "HTTP and HTTPS",
        (false, true) => "HTTP, WebSocket (ws://)",
        (false, false) => "HTTP",
    };
    tcp("HTTP", "web.http.listen", web.http, serves);
    let serves = if web.websocket { "HTTPS, WebSocket (wss://)" } else { "HTTPS" };
    tcp("HTTPS", "web.https.listen", web.https.filter(|_| !is_one), serves);
    tcp(
        "internal",
        "internal.listen",
        web.internal,
        "for operators: /metrics, /status, /sessions (docs/inspect.md)",
    );
    let serves = if web.tcp_tls { "sessions over TLS" } else { "sessions, without TLS" };
    tcp("TCP", "server.tcp.bind", web.tcp, serves);
    let unix = web.unix.clone().map(ListenerAddress::Unix);
    all.extend(unix.map(|place| Listener {
        name: "Unix",
        key: "server.unix.bind",
        place,
        serves: "sessions",
    }));
    all
}

/// Problem that prevents a Unix socket at `path`, as far as the file system shows.
pub(crate) fn unix_diagnostic(path: &Path) -> Option<Diagnostic> {
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

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn every_listener_of_a_configuration_is_listed() {
        let mut config = Config::development();
        let names = |config: &Config| all(config).iter().map(|one| one.name).collect::<Vec<_>>();
        assert_eq!(names(&config), ["HTTP"], "one port for HTTP and HTTPS");
        let at = |port| Some(SocketAddr::from(([127, 0, 0, 1], port)));
        (config.web.https, config.web.internal, config.web.tcp) = (at(1), at(2), at(3));
        config.web.unix = Some("/run/x.sock".into());
        assert_eq!(names(&config), ["HTTP", "HTTPS", "internal", "TCP", "Unix"]);
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
