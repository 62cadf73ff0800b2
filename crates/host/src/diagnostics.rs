//! Errors for operators: cause and remedy.

pub mod holder;
mod start;

use std::{
    fs,
    path::{Path, PathBuf},
};

pub use relay_config::Diagnostic;
pub use start::{PRIVILEGED, RAISE_FILES, files, is_without_ipv6, listener, start, unix_diagnostic};
pub(crate) use start::{bind_error, in_use, tcp, tcp_in_use, without_ipv6};

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
