//! Work budget: the work one session may do before all other ready sessions have their turn.

/// Units of one call into a session. A unit is about a quarter of a microsecond; the budget is about the cost
/// of sending a group to a hundred viewers.
pub(crate) const UNITS: u32 = 1_024;

/// An event of the transport.
pub(crate) const EVENT: u32 = 1;
/// A read of a stream, whatever its result.
pub(crate) const READ: u32 = 1;
/// A frame header or a piece of its payload.
pub(crate) const FRAME: u32 = 1;
/// A control message.
pub(crate) const MESSAGE: u32 = 4;
/// A write of a queued control message, whatever its result.
pub(crate) const WRITE: u32 = 2;
/// A request, including the state created for it.
pub(crate) const REQUEST: u32 = 16;
/// A datagram.
pub(crate) const DATAGRAM: u32 = 2;
/// A change of the announce board for one watch.
pub(crate) const WATCH_ENTRY: u32 = 4;
/// Subscriptions examined per unit.
pub(crate) const SCANNED: usize = 16;

/// Remaining budget of one call. Loops over input stop when it is spent and leave unread input in place; the
/// session must then get its next turn without an event.
#[derive(Debug)]
pub struct Work {
    left: u32,
}

impl Work {
    /// A full budget.
    pub fn new() -> Self {
        Self::of(UNITS)
    }

    /// A budget of `units`, at least one, so that every call makes progress.
    pub fn of(units: u32) -> Self {
        Self { left: units.max(1) }
    }

    /// Charges work done. More than the rest may be taken: work is not interrupted midway.
    #[inline]
    pub fn take(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
    }

    /// Spends the rest, to give the turn to other sessions.
    pub(crate) fn exhaust(&mut self) {
        self.left = 0;
    }

    /// Whether the budget is spent.
    #[inline]
    pub fn is_spent(&self) -> bool {
        self.left == 0
    }
}

impl Default for Work {
    fn default() -> Self {
        Self::new()
    }
}
