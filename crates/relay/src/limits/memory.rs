//! How much memory there is and how much of it is free: the least of the machine's and of every control
//! group above us.

use std::{fs, path::Path};

/// Assumed when the system tells nothing.
const UNKNOWN: u64 = 1 << 30;
/// Where control groups of version 2 are: alone, or beside those of version 1.
const UNIFIED: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
/// Where the memory controller of version 1 is.
const LEGACY: &str = "sys/fs/cgroup/memory";

/// What the system says about memory, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// What this process may use at most, with all others of its groups.
    pub limit: u64,
    /// What of it nobody uses now; the page cache gives way.
    pub free: u64,
    /// What this process itself has in memory.
    pub resident: u64,
}

/// A limit and what of it is free, bytes.
#[derive(Clone, Copy, Debug)]
struct Bound {
    limit: u64,
    free: u64,
}

/// What the system says now.
pub fn read() -> Reading {
    read_below(Path::new("/"))
}

/// As [`read`], in a file system that stands at `root`.
pub fn read_below(root: &Path) -> Reading {
    let groups = fs::read_to_string(root.join("proc/self/cgroup")).unwrap_or_default();
    let bounds: Vec<Bound> = machine(root)
        .into_iter()
        .chain(unified_groups(root, &groups))
        .chain(legacy_groups(root, &groups))
        .collect();
    let limit = bounds.iter().map(|bound| bound.limit).min().unwrap_or(UNKNOWN);
    let free = bounds.iter().map(|bound| bound.free).min().unwrap_or(UNKNOWN).min(limit);
    Reading { limit, free, resident: resident(root).unwrap_or(0) }
}

/// `MemTotal` and `MemAvailable` of `/proc/meminfo`.
fn machine(root: &Path) -> Option<Bound> {
    let text = fs::read_to_string(root.join("proc/meminfo")).ok()?;
    let field = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
        kib.checked_mul(1_024)
    };
    let limit = field("MemTotal:")?;
    Some(Bound { limit, free: field("MemAvailable:").unwrap_or(limit) })
}

/// From our own control group (version 2) up to the root.
fn unified_groups(root: &Path, groups: &str) -> Vec<Bound> {
    let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let ancestors = own.into_iter().flat_map(|own| Path::new(own).ancestors());
    ancestors
        .flat_map(|group| UNIFIED.map(|mount| root.join(mount).join(group)))
        .filter_map(|folder| bound(&folder, "memory.max", "memory.current", "inactive_file"))
        .collect()
}

/// From our own control group (version 1) up to the root. A container sees its own at the root, whatever
/// its path is called outside.
fn legacy_groups(root: &Path, groups: &str) -> Vec<Bound> {
    let own = groups.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        controllers.split(',').any(|name| name == "memory").then_some(path)?.strip_prefix('/')
    });
    let ancestors = Path::new(own.unwrap_or_default()).ancestors();
    ancestors
        .map(|group| root.join(LEGACY).join(group))
        .filter_map(|folder| {
            bound(&folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        })
        .collect()
}

/// One control group; `None` when it has no limit. Inactive file pages are given up before anybody is
/// killed: they are free.
fn bound(folder: &Path, limit: &str, usage: &str, inactive: &str) -> Option<Bound> {
    let limit = number(&folder.join(limit))?;
    let stat = fs::read_to_string(folder.join("memory.stat")).unwrap_or_default();
    let cached: u64 = stat
        .lines()
        .find_map(|line| line.strip_prefix(inactive)?.strip_prefix(' ')?.trim().parse().ok())
        .unwrap_or(0);
    let used = number(&folder.join(usage)).unwrap_or(0).saturating_sub(cached);
    Some(Bound { limit, free: limit.saturating_sub(used) })
}

/// A number of bytes; `max` is none.
fn number(file: &Path) -> Option<u64> {
    fs::read_to_string(file).ok()?.trim().parse().ok()
}

/// The second field of `/proc/self/statm`, in pages.
fn resident(root: &Path) -> Option<u64> {
    let text = fs::read_to_string(root.join("proc/self/statm")).ok()?;
    let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const MEMINFO: (&str, &str) =
        ("proc/meminfo", "MemTotal:       1048576 kB\nMemFree:  1 kB\nMemAvailable:  524288 kB\n");

    fn read_with(files: &[(&str, &str)]) -> Reading {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let file = root.path().join(name);
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, text).unwrap();
        }
        read_below(root.path())
    }

    /// Limit and free, MiB.
    fn bounds(files: &[(&str, &str)]) -> (u64, u64) {
        let Reading { limit, free, .. } = read_with(files);
        (limit / MIB, free / MIB)
    }

    #[test]
    fn a_plain_machine_offers_its_memory() {
        assert_eq!(bounds(&[MEMINFO]), (1_024, 512));
    }

    #[test]
    fn the_tightest_group_above_us_counts() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "0::/pod/relay\n"),
            ("sys/fs/cgroup/pod/relay/memory.max", "max\n"),
            ("sys/fs/cgroup/pod/memory.max", "268435456\n"),
            ("sys/fs/cgroup/pod/memory.current", "134217728\n"),
            ("sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file 33554432\nactive_file 7\n"),
            ("sys/fs/cgroup/memory.max", "536870912\n"),
            ("sys/fs/cgroup/memory.current", "520093696\n"),
        ];
        assert_eq!(bounds(&files[..6]), (256, 160), "file pages that nobody looks at are free");
        assert_eq!(bounds(&files), (256, 16), "another group has nearly all of it");
    }

    #[test]
    fn an_older_control_group_counts_with_its_path_and_all_above() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "12:cpu,cpuacct:/other\n9:memory:/test/inner\n1:name=systemd:/x\n0::/\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n"),
            ("sys/fs/cgroup/memory/other/memory.limit_in_bytes", "1\n"),
            ("sys/fs/cgroup/memory/test/memory.limit_in_bytes", "134217728\n"),
            ("sys/fs/cgroup/memory/test/memory.usage_in_bytes", "100663296\n"),
            ("sys/fs/cgroup/memory/test/memory.stat", "inactive_file 5\ntotal_inactive_file 16777216\n"),
        ];
        assert_eq!(bounds(&files), (128, 48));
        // A container sees its own group at the root.
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "9:memory:/docker/4f\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "67108864\n"),
        ];
        assert_eq!(bounds(&files), (64, 64));
        assert_eq!(bounds(&[MEMINFO, files[2]]), (64, 64), "also when nobody tells the group");
    }

    #[test]
    fn groups_of_both_versions_side_by_side_count() {
        let files = [
            MEMINFO,
            ("proc/self/cgroup", "9:memory:/a\n0::/b\n"),
            ("sys/fs/cgroup/memory/a/memory.limit_in_bytes", "268435456\n"),
            ("sys/fs/cgroup/unified/b/memory.max", "134217728\n"),
        ];
        assert_eq!(bounds(&files), (128, 128));
    }

    #[test]
    fn our_own_share_is_read() {
        let page = u64::try_from(rustix::param::page_size()).unwrap();
        assert_eq!(read_with(&[("proc/self/statm", "900 25 3 1 0 40 0\n")]).resident, 25 * page);
        assert!(read().resident > MIB);
    }

    #[test]
    fn a_machine_that_tells_nothing_still_starts() {
        assert_eq!(read_with(&[]), Reading { limit: UNKNOWN, free: UNKNOWN, resident: 0 });
    }
}
