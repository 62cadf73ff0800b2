//! Statistics of a log.

/// Statistics of a log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogStats {
    /// Groups opened, live or fetched; a group opened again after its eviction counts again.
    pub groups: u64,
    /// Frames committed by writers, including those already held.
    pub frames: u64,
    /// Payload committed by writers, bytes.
    pub bytes: u64,
    /// Highest group ever opened; it may have been evicted.
    pub latest: Option<u64>,
    /// Groups currently held.
    pub cached_groups: u64,
    /// Bytes charged for the held groups.
    pub cached_bytes: u64,
}

/// Totals of staged or committed data. A writer counts what it stages and adds it once per commit.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct WriteTotals {
    pub(crate) groups: u64,
    pub(crate) frames: u64,
    pub(crate) bytes: u64,
}

impl WriteTotals {
    #[inline]
    pub(crate) fn add(&mut self, more: Self) {
        self.groups += more.groups;
        self.frames += more.frames;
        self.bytes += more.bytes;
    }
}
