//! Cursor control of terminals (ECMA-48), for lines and pictures that are drawn over.

/// Return to the start of the line, and its erasure.
pub const RESTART_LINE: &str = "\r\x1b[K";
/// Erasure of the rest of the line.
pub(crate) const ERASE_REST: &str = "\x1b[K";
/// Return to the upper left corner.
pub(crate) const HOME: &str = "\x1b[H";
