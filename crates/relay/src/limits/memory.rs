//! How much memory there is: the least of the machine's and of every control group above us.

use std::{fs, path::Path};

/// Share of the memory that the cache may use, percent: the rest is for connections and the kernel.
pub const CACHE_PERCENT: u64 = 40;
/// Share of the memory past which even the newest groups are let go, percent: before the kernel acts.
pub const CEILING_PERCENT: u64 = 60;
/// Assumed when the system tells nothing.
const UNKNOWN: u64 = 1 << 30;

/// Bytes this process may use.
pub fn available() -> u64 {
    available_below(Path::new("/"))
}

/// The default budget of the cache, bytes.
pub fn cache_budget() -> u64 {
    share(available(), CACHE_PERCENT)
}

/// The most that payload may take, bytes, cached or on its way to a slow reader.
pub fn ceiling() -> u64 {
    share(available(), CEILING_PERCENT)
}

fn share(total: u64, percent: u64) -> u64 {
    total / 100 * percent
}

/// As [`available`], in a file system that stands at `root`.
fn available_below(root: &Path) -> u64 {
    [machine(root), unified_group(root), legacy_group(root)].into_iter().flatten().min().unwrap_or(UNKNOWN)
}

/// `MemTotal` of `/proc/meminfo`.
fn machine(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let line = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1_024)
}

/// The least `memory.max` from our own control group (version 2) up to the root.
fn unified_group(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/cgroup")).ok()?;
    let own = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let mount = root.join("sys/fs/cgroup");
    Path::new(own).ancestors().filter_map(|group| limit(&mount.join(group).join("memory.max"))).min()
}

/// The limit of a version 1 control group, as containers see their own.
fn legacy_group(root: &Path) -> Option<u64> {
    limit(&root.join("sys/fs/cgroup/memory/memory.limit_in_bytes"))
}

/// A number of bytes; `max` is none.
fn limit(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        root
    }

    const MEMINFO: (&str, &str) = ("proc/meminfo", "MemTotal:       1048576 kB\nMemFree:  1 kB\n");

    #[test]
    fn a_plain_machine_offers_its_memory() {
        assert_eq!(available_below(machine_with(&[MEMINFO]).path()), 1 << 30);
    }

    #[test]
    fn the_tightest_group_above_us_counts() {
        let root = machine_with(&[
            MEMINFO,
            ("proc/self/cgroup", "0::/pod/relay\n"),
            ("sys/fs/cgroup/pod/relay/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.max", "268435456\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
        ]);
        assert_eq!(available_below(root.path()), 256 << 20);
    }

    #[test]
    fn an_older_control_group_counts_too() {
        let root = machine_with(&[MEMINFO, ("sys/fs/cgroup/memory/memory.limit_in_bytes", "134217728\n")]);
        assert_eq!(available_below(root.path()), 128 << 20);
    }

    #[test]
    fn the_cache_gets_its_share() {
        assert_eq!(share(1_000, CACHE_PERCENT), 400);
        assert!(cache_budget() < ceiling() && ceiling() < available());
    }

    #[test]
    fn a_machine_that_tells_nothing_still_starts() {
        assert_eq!(available_below(machine_with(&[]).path()), UNKNOWN);
    }
}
