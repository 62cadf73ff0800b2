//! Bounds of the store's own making (those a peer meets are in [`relay_model::limits`]).

/// Entries of one pull: what a worker can hand to its readers before it looks at its sockets.
pub(crate) const PULL_ENTRIES: usize = 64;
/// Payload bytes of one pull; the entry that crosses it still goes.
pub(crate) const PULL_BYTES: u64 = 256 * 1024;
/// Entries held for the slowest worker: seconds of a busy track, half a megabyte of handles.
pub(crate) const JOURNAL_ENTRIES: usize = 4_096;
/// Payload bytes held for the slowest worker (or one entry). What the sequence index has too costs
/// nothing twice.
pub(crate) const JOURNAL_BYTES: u64 = 8 * 1024 * 1024;
/// An emptied journal gives back capacity above this many entries.
pub(crate) const JOURNAL_IDLE_ENTRIES: usize = 128;
/// Objects copied out under one lock when a group is replayed.
pub(crate) const REPLAY_OBJECTS: usize = 1_024;
/// Groups held by one log; the oldest superseded goes past it. A minute of audio fits many times.
pub(crate) const LOG_GROUPS: usize = 16_384;
/// Strands of one group; the drafts' publishers use one to eight. Past it the track is malformed.
pub(crate) const GROUP_STRANDS: usize = 64;
/// What an empty group costs, bytes, so that empty ones count against the budget.
pub(crate) const GROUP_OVERHEAD: u64 = 256;
/// What an object costs besides its payload, bytes.
pub(crate) const OBJECT_OVERHEAD: u64 = 160;
/// What each further piece of an object costs besides its payload, bytes.
pub(crate) const PIECE_OVERHEAD: u64 = 96;
/// Ranges of groups a log knows its publisher not to have; the oldest knowledge goes past it, and is
/// asked for again.
pub(crate) const ABSENT_RANGES: usize = 1_024;
/// What such a range costs, bytes.
pub(crate) const RANGE_OVERHEAD: u64 = 32;
/// Changes a watched prefix remembers whatever its size; a watch further behind passes over all of it.
pub(crate) const BOARD_CHANGES: usize = 256;
/// Live paths of a watched prefix for each change it remembers past that: a pass over them is then rare,
/// and the memory little beside that of its watches.
pub(crate) const BOARD_CHANGES_SHARE: usize = 16;
/// Withdrawn paths at which those that no watch needs are looked for.
pub(crate) const BOARD_WITHDRAWN: usize = 256;
/// Withdrawn paths held for watches that are behind, if there are not more live ones. A peer that reads
/// nothing is closed within seconds; this bounds what it costs until then.
pub(crate) const BOARD_WITHDRAWN_MAX: usize = 16_384;
