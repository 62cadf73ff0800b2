//! Promise: an error that keeps a relay from starting names its cause and remedy.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    net::UdpSocket,
    os::unix::fs::PermissionsExt,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use common::{
    Running, file, free_address,
    golden::golden,
    http::{free_tcp, get},
    relay, skip,
};
use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Error line of a relay that refuses to start with status 1.
fn refusal(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    said.lines().find(|line| line.starts_with("moq-relay: ")).map(|line| format!("{line}\n")).expect(&said)
}

/// `text` with each of `masks` replaced.
fn masked(text: &str, masks: &[(&str, &str)]) -> String {
    masks.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

/// Command of the relay, run by a program that restricts it; `None`, with a note, where that is not allowed.
fn below(program: &str, args: &[&str]) -> Option<Command> {
    let works = Command::new(program).args(args).arg("true").stderr(Stdio::null()).status();
    if !works.is_ok_and(|status| status.success()) {
        skip(&format!("{program} {} does not work here", args.join(" ")));
        return None;
    }
    let mut command = Command::new(program);
    command.args(args).arg(env!("CARGO_BIN_EXE_moq-relay")).env_remove("RUST_LOG");
    Some(command)
}

#[test]
fn port_in_use_is_reported_with_its_holder() {
    let taken = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let said = refusal(relay().args(["--bind", &address.to_string()]));
    let pid = format!("(pid {})", std::process::id());
    let name = fs::read_to_string("/proc/self/comm").unwrap();
    let next = format!(":{}", u32::from(address.port()) + 1);
    let port = format!(":{}", address.port());
    golden(
        "errors/port-in-use.txt",
        &masked(&said, &[(&pid, "(pid PID)"), (name.trim(), "NAME"), (&next, ":NEXT"), (&port, ":PORT")]),
    );
}

#[test]
fn another_relay_at_the_port_is_named() {
    let address = free_address();
    let first = Running::start(relay().args(["--bind", &address]));
    first.line_with("https://");
    let said = refusal(relay().args(["--bind", &address]));
    assert!(said.contains(&format!("already in use by moq-relay (pid {})", first.child.id())), "{said}");
}

#[test]
fn foreign_address_is_reported() {
    golden("errors/no-such-address.txt", &refusal(relay().args(["--bind", "192.0.2.77:4443"])));
}

#[test]
fn a_low_port_needs_a_capability() {
    let drop = ["--bounding-set=-net_bind_service", "--inh-caps=-net_bind_service"];
    let first = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start").unwrap_or_default();
    if first.trim() != "1024" {
        skip("low ports are free for all here");
        return;
    }
    let Some(mut command) = below("setpriv", &drop) else { return };
    golden("errors/forbidden.txt", &refusal(command.args(["--bind", "127.0.0.1:443"])));
}

#[test]
fn disabled_ipv6_is_reported_with_a_remedy() {
    let off = "sysctl -qw net.ipv6.conf.all.disable_ipv6=1 && exec \"$@\"";
    let Some(mut command) = below("unshare", &["-n", "sh", "-c", off, "sh"]) else { return };
    golden("errors/no-ipv6.txt", &refusal(command.args(["--bind", "[::1]:4443"])));
}

#[test]
fn too_low_file_limit_is_reported() {
    let Some(mut command) = below("prlimit", &["--nofile=12:12"]) else { return };
    let address = free_address();
    golden("errors/files.txt", &refusal(command.args(["--bind", &address, "--workers", "8"])));
}

#[test]
fn small_file_limit_is_a_warning() {
    let Some(mut command) = below("prlimit", &["--nofile=1024:1024"]) else { return };
    let address = free_address();
    let relay = Running::start(command.args(["--bind", &address, "--workers", "1"]));
    let line = relay.line_with("files may be open");
    assert!(
        line.contains("WARN") && line.contains("at most 1024") && line.contains("LimitNOFILE="),
        "{line}"
    );
}

/// A relay with these PEM files.
struct Pair {
    folder: TempDir,
}

impl Pair {
    fn new(cert: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let pair = Self { folder };
        for (name, text) in [("cert.pem", cert), ("key.pem", key)] {
            fs::write(pair.path(name), text).unwrap();
        }
        pair
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    fn configured(&self, command: &mut Command) -> String {
        let (cert, key) = (self.path("cert.pem"), self.path("key.pem"));
        let text = format!(
            "[server]\nbind = \"127.0.0.1:0\"\n[tls]\ncert = {cert:?}\nkey = {key:?}\n[auth]\npublic = \"\"\n"
        );
        let (_folder, path) = file(&text);
        let said = refusal(command.arg(&path));
        said.replace(&self.folder.path().display().to_string(), "/etc/relay")
    }

    fn refusal(&self) -> String {
        self.configured(&mut relay())
    }
}

fn pair(from: SystemTime, until: SystemTime) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
    (params.not_before, params.not_after) = (from.into(), until.into());
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn unusable_certificate_is_reported() {
    let now = SystemTime::now();
    let (cert, key) = pair(now - DAY, now + DAY);
    let (other, _) = pair(now - DAY, now + DAY);
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let unusable = "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n";
    for (name, cert, key) in [
        ("no-pem", "hello", &key[..]),
        ("empty", "", &key),
        ("swapped", &key, &cert),
        ("mismatch", &other, &key),
        ("encrypted-key", &cert, encrypted),
        ("unusable-key", &cert, unusable),
    ] {
        golden(&format!("errors/{name}.txt"), &Pair::new(cert, key).refusal());
    }
}

#[test]
fn unreadable_certificate_is_reported() {
    let now = SystemTime::now();
    let (cert, key) = pair(now - DAY, now + DAY);
    let files = Pair::new(&cert, &key);
    fs::remove_file(files.path("cert.pem")).unwrap();
    golden("errors/not-found.txt", &files.refusal());
    fs::create_dir(files.path("cert.pem")).unwrap();
    golden("errors/folder.txt", &files.refusal());

    let files = Pair::new(&cert, &key);
    fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(0o000)).unwrap();
    let all = "-dac_override,-dac_read_search";
    let said = if rustix::process::geteuid().is_root() {
        let Some(mut command) = below("setpriv", &["--bounding-set", all, "--inh-caps", all]) else { return };
        files.configured(&mut command)
    } else {
        files.refusal()
    };
    let (before, after) = said.split_once("runs as ").unwrap();
    let (_, after) = after.split_once(';').unwrap();
    golden("errors/not-allowed.txt", &format!("{before}runs as USER;{after}"));
}

#[test]
fn world_readable_key_is_a_warning() {
    let now = SystemTime::now();
    let (cert, key) = pair(now - DAY, now + 90 * DAY);
    let files = Pair::new(&cert, &key);
    fs::set_permissions(files.path("key.pem"), fs::Permissions::from_mode(0o644)).unwrap();
    let (cert, key) = (files.path("cert.pem"), files.path("key.pem"));
    let text = format!(
        "[server]\nbind = \"127.0.0.1:0\"\n[tls]\ncert = {cert:?}\nkey = {key:?}\n[auth]\npublic = \"\"\n"
    );
    let (_folder, path) = file(&text);
    let relay = Running::start(relay().arg(&path));
    let line = relay.line_with("can read the private key");
    assert!(line.contains("WARN") && line.contains("chmod o-rwx"), "{line}");
    relay.line_with("serving");
}

#[test]
fn certificate_outside_its_validity_starts_as_an_error() {
    let epoch = SystemTime::UNIX_EPOCH;
    for (from, until, said, expired) in [
        (epoch, epoch + 10_000 * DAY, "cert.pem expired on 1997-05-19; renew it", 1),
        (
            epoch + 40_000 * DAY,
            epoch + 41_000 * DAY,
            "cert.pem is not valid before 2079-07-08; is the clock",
            0,
        ),
    ] {
        let (cert, key) = pair(from, until);
        let pair = Pair::new(&cert, &key);
        let (address, http, internal) = (free_address(), free_tcp(), free_tcp());
        let (cert, key) = (pair.path("cert.pem"), pair.path("key.pem"));
        let (_folder, path) = file(&format!(
            "[server]\nbind = {address:?}\n[tls]\ncert = {cert:?}\nkey = {key:?}\n[auth]\npublic = \"\"\n\
             [web]\nhttp.listen = {http:?}\n[internal]\nlisten = {internal:?}\n"
        ));
        let relay = Running::start(relay().arg(&path));
        assert!(relay.line_with(said).contains("ERROR"));
        relay.line_with("serving");
        assert_eq!(get(&http, "/health").status, 200, "plain HTTP is served");
        let metrics = get(&internal, "/metrics");
        assert!(metrics.text().contains(&format!("\nmoq_relay_certificate_expired {expired}\n")));
        assert!(metrics.text().contains("\nmoq_relay_certificate_not_after_seconds "));
    }
}

#[test]
fn listener_that_cannot_be_bound_is_named_with_its_cause() {
    let (folder, path) = file("");
    let socket = folder.path().join("relay.sock");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let http = taken.local_addr().unwrap();
    let start = |more: &str| {
        let text = format!("[server]\nbind = {:?}\n{more}\n[auth]\npublic = \"\"\n", free_address());
        fs::write(&path, text).unwrap();
        refusal(relay().arg(&path))
    };
    let unix = format!("unix.bind = {socket:?}");
    fs::write(&socket, "precious").unwrap();
    let said = start(&unix);
    assert!(said.contains("relay.sock: a file that is no socket is there; remove it"), "{said}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "precious");
    fs::remove_file(&socket).unwrap();
    let _live = std::os::unix::net::UnixListener::bind(&socket).unwrap();
    let said = start(&unix);
    assert!(said.contains("relay.sock: another process listens there; stop it"), "{said}");
    let said = start(&format!("tcp.bind = \"{http}\""));
    let holder = format!("tcp {http}, where TCP is to be served, is already in use by ");
    assert!(said.contains(&holder) && said.contains(&format!("(pid {})", std::process::id())), "{said}");
    assert_eq!(said.matches("os error").count(), 0, "{said}");
}
