//! Errors for operators: cause and remedy.

pub mod holder;
mod start;

use std::{
    fmt, fs,
    path::{Path, PathBuf},
};

pub use start::{PRIVILEGED, RAISE_FILES, start};
pub(crate) use start::{bind_error, files, in_use, is_without_ipv6, listener, tcp, tcp_in_use, without_ipv6};

/// A problem with its remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub struct Diagnostic {
    /// The problem: a clause, lower case, no full stop.
    pub problem: String,
    /// The remedy: an imperative clause, lower case, no full stop.
    pub remedy: String,
}

impl Diagnostic {
    /// Creates a problem with its remedy.
    pub fn new(what: impl Into<String>, todo: impl Into<String>) -> Self {
        Self { problem: what.into(), remedy: todo.into() }
    }
}

impl fmt::Display for Diagnostic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; {}", self.problem, self.remedy)
    }
}

/// Formats an error with its causes, each once, as some errors quote their cause already.
pub fn chain(error: &anyhow::Error) -> String {
    let mut said = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if said.is_empty() {
            said = cause;
        } else if !said.contains(&cause) {
            said = format!("{said}: {cause}");
        }
    }
    said
}

/// Effective user of this process.
pub fn user() -> String {
    named(Path::new("/"), rustix::process::geteuid().as_raw())
}

/// Formats a user id with its name in `etc/passwd` below `root`.
fn named(root: &Path, uid: u32) -> String {
    let users = fs::read_to_string(root.join("etc/passwd")).unwrap_or_default();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then_some(name)
    });
    match name {
        Some(name) => format!("{} (uid {uid})", name.escape_default()),
        None => format!("uid {uid}"),
    }
}

/// Whether IPv6 is enabled in the kernel settings below `root`.
pub(crate) fn has_ipv6(root: &Path) -> bool {
    let path =
        |name: &str| -> PathBuf { root.join("proc/sys/net/ipv6/conf").join(name).join("disable_ipv6") };
    ["all", "lo"].iter().all(|name| fs::read_to_string(path(name)).is_ok_and(|text| text.trim() == "0"))
}

/// Formats a number of bytes with a unit.
pub(crate) fn bytes(count: u64) -> String {
    const KIB: u64 = 1 << 10;
    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;
    match count {
        GIB.. => format!("{:.1} GiB", count as f64 / GIB as f64),
        MIB.. => format!("{} MiB", count / MIB),
        _ => format!("{} KiB", count / KIB),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_is_named_where_the_system_knows_the_name() {
        let root = tempfile::tempdir().unwrap();
        fs::create_dir(root.path().join("etc")).unwrap();
        fs::write(
            root.path().join("etc/passwd"),
            "root:x:0:0:root:/root:/bin/sh\nmoq:x:77:7::/:/bin/false\n",
        )
        .unwrap();
        assert_eq!(named(root.path(), 77), "moq (uid 77)");
        assert_eq!(named(root.path(), 78), "uid 78");
    }

    #[test]
    fn cause_that_is_quoted_is_not_repeated() {
        let cause = || std::io::Error::from_raw_os_error(2);
        let quoted = relay_config::ConfigLoadError::Unreadable { file: "x".into(), source: cause() };
        assert_eq!(chain(&quoted.into()), "cannot read x: No such file or directory (os error 2)");
        let plain = anyhow::Error::from(cause()).context("NOTIFY_SOCKET");
        assert_eq!(chain(&plain), "NOTIFY_SOCKET: No such file or directory (os error 2)");
    }

    #[test]
    fn sizes_are_short() {
        assert_eq!(bytes(212_992), "208 KiB");
        assert_eq!(bytes(8 << 20), "8 MiB");
        assert_eq!(bytes(3 << 29), "1.5 GiB");
    }
}
