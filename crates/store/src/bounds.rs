//! Bounds internal to the store (those visible to a peer are in [`relay_model::limits`]).

/// Entries of one pull: as many as a worker can deliver before it returns to its sockets.
pub(crate) const PULL_ENTRIES: usize = 64;
/// Payload bytes of one pull; the entry that crosses it is included.
pub(crate) const PULL_BYTES: u64 = 256 * 1024;
/// Entries held for the slowest worker: seconds of a busy track, half a megabyte of handles.
pub(crate) const JOURNAL_ENTRIES: usize = 4_096;
/// Payload bytes held for the slowest worker (or one entry). Payload that the sequence index holds too is
/// shared.
pub(crate) const JOURNAL_BYTES: u64 = 8 * 1024 * 1024;
/// Capacity, in entries, above which an empty journal is shrunk.
pub(crate) const JOURNAL_IDLE_ENTRIES: usize = 128;
/// Objects copied per lock hold when a group is replayed.
pub(crate) const REPLAY_OBJECTS: usize = 1_024;
/// Groups held by one log; above it the oldest superseded group is evicted. Many times a minute of audio.
pub(crate) const LOG_GROUPS: usize = 16_384;
/// Strands of one group; publishers use one to eight. Above it the track is malformed.
pub(crate) const GROUP_STRANDS: usize = 64;
/// Bytes charged for an empty group, so that empty groups count against the budget.
pub(crate) const GROUP_OVERHEAD: u64 = 256;
/// Bytes charged for an object besides its payload.
pub(crate) const OBJECT_OVERHEAD: u64 = 160;
/// Bytes charged for each piece of an object besides its payload.
pub(crate) const PIECE_OVERHEAD: u64 = 96;
/// Ranges of groups a log remembers as absent; above it the oldest is forgotten and would be requested again.
pub(crate) const ABSENT_RANGES: usize = 1_024;
/// Bytes charged for such a range.
pub(crate) const RANGE_OVERHEAD: u64 = 32;
/// Minimum number of changes kept by a watched prefix; a watch further behind makes a pass over all its paths.
pub(crate) const BOARD_CHANGES: usize = 256;
/// Live paths of a watched prefix per change kept above that minimum: passes are then rare, and the memory is
/// small next to that of the watches.
pub(crate) const BOARD_CHANGES_SHARE: usize = 16;
/// Number of withdrawn paths that starts a sweep for those no watch needs.
pub(crate) const BOARD_WITHDRAWN: usize = 256;
/// Withdrawn paths kept for watches that are behind, or the number of live paths if that is higher. A peer that
/// reads nothing is closed within seconds; this bounds its cost until then.
pub(crate) const BOARD_WITHDRAWN_MAX: usize = 16_384;
