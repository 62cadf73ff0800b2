//! Total and free memory: the minimum over the machine and all control groups of this process.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
};

use super::proc_file::ProcFile;
use crate::diagnostics::{Diagnostic, bytes};

/// Limit assumed if that of a control group cannot be read, or the system reports no memory, bytes.
const UNKNOWN: u64 = 1 << 30;
/// Most nested control groups that are read, innermost first; each may take three descriptors.
const GROUPS: usize = 12;
/// Mount points of control groups version 2: alone, or beside version 1.
const UNIFIED: [&str; 2] = ["sys/fs/cgroup", "sys/fs/cgroup/unified"];
/// Mount point of the memory controller of version 1.
const LEGACY: &str = "sys/fs/cgroup/memory";

/// Memory as reported by the system, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Most memory that the machine or the control groups of this process allow.
    pub limit: u64,
    /// Unused part of the limit, including reclaimable page cache.
    pub free: u64,
    /// Resident memory of this process.
    pub resident: u64,
}

/// A limit and its free part, bytes.
#[derive(Clone, Copy, Debug)]
struct Bound {
    limit: u64,
    free: u64,
}

/// Reader of memory that keeps its descriptors open.
#[derive(Debug)]
pub struct Gauge(Mutex<MemoryFiles>);

impl Gauge {
    /// Creates a gauge of this machine.
    #[allow(clippy::useless_conversion, reason = "the field is narrower on machines of 32 bits")]
    pub fn new() -> Self {
        // `sysinfo(2)` takes no descriptor and needs no file system.
        let machine = rustix::system::sysinfo();
        let total = u64::from(machine.totalram).checked_mul(u64::from(machine.mem_unit));
        Self(Mutex::new(MemoryFiles::below(Path::new("/"), total.filter(|total| *total > 0))))
    }

    /// Reads the current values. A file that cannot be read any more counts with its last content.
    pub fn read(&self) -> Reading {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).read()
    }

    /// First file that could not be read at the last reading, and the values used instead.
    pub fn failure(&self) -> Option<Diagnostic> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).trouble()
    }

    /// Whether the limit of the last reading was measured rather than assumed.
    pub fn is_known(&self) -> bool {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).assumed.is_none()
    }
}

impl Default for Gauge {
    fn default() -> Self {
        Self::new()
    }
}

/// Reads once.
pub fn read() -> Reading {
    Gauge::new().read()
}

/// Open files, and the failures of the last reading.
#[derive(Debug)]
struct MemoryFiles {
    root: PathBuf,
    /// Memory of the machine from `sysinfo(2)`, bytes.
    total: Option<u64>,
    /// Each file with the number of the reading that used it last.
    open: BTreeMap<PathBuf, (ProcFile, u64)>,
    readings: u64,
    /// Files that could not be read.
    failed: Vec<(PathBuf, io::Error)>,
    /// The limit, if assumed because a file was never readable.
    assumed: Option<u64>,
}

impl MemoryFiles {
    fn below(root: &Path, total: Option<u64>) -> Self {
        let (open, failed) = (BTreeMap::new(), Vec::new());
        Self { root: root.to_owned(), total, open, readings: 0, failed, assumed: None }
    }

    fn read(&mut self) -> Reading {
        self.readings += 1;
        self.failed.clear();
        let groups = self.text(Path::new("proc/self/cgroup")).unwrap_or_default();
        let mut bounds: Vec<Bound> = self.machine().into_iter().collect();
        bounds.extend(self.unified_groups(&groups));
        bounds.extend(self.legacy_groups(&groups));
        let resident = self.resident().unwrap_or(0);
        let now = self.readings;
        self.open.retain(|_, (_, used)| *used == now);
        let limit = bounds.iter().map(|bound| bound.limit).min();
        let known = limit.filter(|_| !self.is_group_hidden());
        let limit = known.unwrap_or_else(|| limit.unwrap_or(UNKNOWN).min(UNKNOWN));
        self.assumed = known.is_none().then_some(limit);
        let free = bounds.iter().map(|bound| bound.free).min().unwrap_or(UNKNOWN).min(limit);
        Reading { limit, free, resident }
    }

    /// Whether a control group file exists and was never readable.
    fn is_group_hidden(&self) -> bool {
        let is_of_groups = |path: &PathBuf| !path.ends_with("meminfo") && !path.ends_with("statm");
        self.open.iter().any(|(path, (file, _))| is_of_groups(path) && file.is_unread())
    }

    fn trouble(&self) -> Option<Diagnostic> {
        let (path, error) = self.failed.first()?;
        let used = match self.assumed {
            Some(limit) => format!("a limit of {} is assumed", bytes(limit)),
            None => "the last good values are used".to_owned(),
        };
        Some(Diagnostic::new(
            format!("cannot read memory use: {}: {error}: {used}", path.display()),
            "let the relay read it (no ProcSubset=pid in a systemd unit; enough open files)",
        ))
    }

    /// Text of the file at `path` below the root, from the last good reading if it cannot be read now.
    fn text(&mut self, path: &Path) -> Option<String> {
        let path = self.root.join(path);
        let now = self.readings;
        let (file, used) =
            self.open.entry(path).or_insert_with_key(|path| (ProcFile::new(path.clone()), now));
        *used = now;
        if let Err(error) = file.refresh() {
            self.failed.push((file.path().to_owned(), error));
        }
        file.text().map(str::to_owned)
    }

    /// Number of bytes in a file; `None` for `max`.
    fn number(&mut self, path: &Path) -> Option<u64> {
        self.text(path)?.trim().parse().ok()
    }

    /// `MemTotal` and `MemAvailable` of `/proc/meminfo`. Without that file the total counts as free, since the
    /// reclaimable part is unknown.
    fn machine(&mut self) -> Option<Bound> {
        let text = self.text(Path::new("proc/meminfo"));
        let field = |name: &str| {
            let line = text.as_ref()?.lines().find_map(|line| line.strip_prefix(name))?;
            let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
            kib.checked_mul(1_024)
        };
        let limit = field("MemTotal:").or(self.total)?;
        Some(Bound { limit, free: field("MemAvailable:").unwrap_or(limit) })
    }

    /// Bounds of the control groups (version 2) from the own one up to the root.
    fn unified_groups(&mut self, groups: &str) -> Vec<Bound> {
        let own = groups.lines().find_map(|line| line.strip_prefix("0::/"));
        let ancestors = own.into_iter().flat_map(|own| Path::new(own).ancestors()).take(GROUPS);
        ancestors
            .flat_map(|group| UNIFIED.map(|mount| Path::new(mount).join(group)))
            .filter_map(|folder| self.bound(&folder, "memory.max", "memory.current", "inactive_file"))
            .collect()
    }

    /// Bounds of the control groups (version 1) from the own one up to the root. A container sees its own group at
    /// the root, independent of its path outside.
    fn legacy_groups(&mut self, groups: &str) -> Vec<Bound> {
        let own = groups.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == "memory").then_some(path)?.strip_prefix('/')
        });
        let own = Path::new(own.unwrap_or_default());
        let root = (own != Path::new("")).then_some(Path::new(""));
        let nearest = own.ancestors().take(GROUPS).filter(|group| *group != Path::new("") || root.is_none());
        nearest
            .chain(root)
            .map(|group| Path::new(LEGACY).join(group))
            .filter_map(|folder| {
                self.bound(&folder, "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
            })
            .collect()
    }

    /// Bound of one control group; `None` without a limit. Inactive file pages count as free, as the kernel reclaims
    /// them before it kills a process.
    fn bound(&mut self, folder: &Path, limit: &str, usage: &str, inactive: &str) -> Option<Bound> {
        let limit = self.number(&folder.join(limit))?;
        let stat = self.text(&folder.join("memory.stat")).unwrap_or_default();
        let cached: u64 = stat
            .lines()
            .find_map(|line| line.strip_prefix(inactive)?.strip_prefix(' ')?.trim().parse().ok())
            .unwrap_or(0);
        let used = self.number(&folder.join(usage)).unwrap_or(0).saturating_sub(cached);
        Some(Bound { limit, free: limit.saturating_sub(used) })
    }

    /// The second field of `/proc/self/statm`, in pages.
    fn resident(&mut self) -> Option<u64> {
        let text = self.text(Path::new("proc/self/statm"))?;
        let pages: u64 = text.split_whitespace().nth(1)?.parse().ok()?;
        pages.checked_mul(u64::try_from(rustix::param::page_size()).ok()?)
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

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
        MemoryFiles::below(root.path(), None).read()
    }

    /// Limit and free part, MiB.
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
        assert_eq!(bounds(&files[..6]), (256, 160), "inactive file pages are free");
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
        assert_eq!(bounds(&[MEMINFO, files[2]]), (64, 64), "also when the group is not reported");
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
    fn machine_without_readings_gets_the_assumed_limit() {
        assert_eq!(read_with(&[]), Reading { limit: UNKNOWN, free: UNKNOWN, resident: 0 });
    }

    /// A folder instead of a file: it exists, and no user can read it.
    fn hide(root: &Path, name: &str) {
        let _ = fs::remove_file(root.join(name));
        fs::create_dir_all(root.join(name)).unwrap();
    }

    fn write(root: &Path, name: &str, text: &str) {
        fs::create_dir_all(root.join(name).parent().unwrap()).unwrap();
        fs::write(root.join(name), text).unwrap();
    }

    #[test]
    fn memory_hidden_later_keeps_the_last_good_values() {
        let root = tempfile::tempdir().unwrap();
        let root = root.path();
        write(root, MEMINFO.0, MEMINFO.1);
        write(root, "proc/self/cgroup", "0::/relay\n");
        write(root, "sys/fs/cgroup/relay/memory.max", "268435456\n");
        let mut files = MemoryFiles::below(root, Some(64 * MIB));
        let good = files.read();
        assert_eq!((good.limit / MIB, files.assumed), (256, None));
        // As when no descriptor is free: what is open is lost, and cannot be opened again.
        files.open.values_mut().for_each(|(file, _)| file.close());
        for name in [MEMINFO.0, "proc/self/cgroup", "sys/fs/cgroup/relay/memory.max"] {
            hide(root, name);
        }
        assert_eq!(files.read(), good);
        let said = files.trouble().unwrap().to_string();
        assert!(said.contains("the last good values are used"), "{said}");
        for name in [MEMINFO.0, "proc/self/cgroup", "sys/fs/cgroup/relay/memory.max"] {
            fs::remove_dir(root.join(name)).unwrap();
        }
        write(root, MEMINFO.0, MEMINFO.1);
        assert_eq!((files.read().limit / MIB, files.trouble()), (1_024, None), "the group is gone");
    }

    #[test]
    fn hidden_meminfo_leaves_the_total_of_the_kernel() {
        let root = tempfile::tempdir().unwrap();
        hide(root.path(), MEMINFO.0);
        let mut files = MemoryFiles::below(root.path(), Some(8_192 * MIB));
        assert_eq!(files.read(), Reading { limit: 8_192 * MIB, free: 8_192 * MIB, resident: 0 });
        assert!(files.assumed.is_none() && files.trouble().is_some());
    }

    #[test]
    fn hidden_control_group_limits_to_the_assumed_value() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), MEMINFO.0, "MemTotal: 8388608 kB\nMemAvailable: 8388608 kB\n");
        hide(root.path(), "proc/self/cgroup");
        let mut files = MemoryFiles::below(root.path(), None);
        assert_eq!((files.read().limit, files.assumed), (UNKNOWN, Some(UNKNOWN)));
        assert!(files.trouble().unwrap().problem.contains("a limit of 1.0 GiB is assumed"));
    }

    #[test]
    fn descriptors_stay_open_and_absent_groups_take_none() {
        let root = tempfile::tempdir().unwrap();
        write(root.path(), MEMINFO.0, MEMINFO.1);
        write(root.path(), "proc/self/cgroup", "0::/a\n");
        write(root.path(), "sys/fs/cgroup/a/memory.max", "max\n");
        let mut files = MemoryFiles::below(root.path(), None);
        files.read();
        let open = files.open.values().filter(|(file, _)| file.is_open()).count();
        assert_eq!(open, 3, "meminfo, cgroup, memory.max");
        fs::remove_file(root.path().join(MEMINFO.0)).unwrap();
        assert_eq!(files.read().limit / MIB, 1_024, "read through the open descriptor");
    }
}
