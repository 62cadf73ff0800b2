//! Budget of work: how much one session may do before all other ready sessions have their turn.

/// Units of one call of a session. A unit is about a quarter of a microsecond, so that a budget is about that of
/// a group sent to a hundred viewers.
pub(crate) const UNITS: u32 = 1_024;

/// An event of the transport.
pub(crate) const EVENT: u32 = 1;
/// A read of a stream, whatever it brings.
pub(crate) const READ: u32 = 1;
/// A frame's head or a piece of its payload.
pub(crate) const FRAME: u32 = 1;
/// A control message.
pub(crate) const MESSAGE: u32 = 4;
/// A request, with what is set up for it.
pub(crate) const REQUEST: u32 = 16;
/// A datagram.
pub(crate) const DATAGRAM: u32 = 2;
/// A change of the announce board for one watch.
pub(crate) const WATCH_ENTRY: u32 = 4;
/// Subscriptions that are looked at for one unit.
pub(crate) const SCANNED: usize = 16;

/// What is left of the budget of one call. Loops over input of the peer stop when it is spent, and leave what
/// they have not read where it is; the session must then be given its next turn without an event.
#[derive(Debug)]
pub struct Work {
    left: u32,
}

impl Work {
    /// A full budget.
    pub fn new() -> Self {
        Self::of(UNITS)
    }

    /// A budget of `units`, at least one: something is done in every call.
    pub fn of(units: u32) -> Self {
        Self { left: units.max(1) }
    }

    /// Counts work that is done. More than what is left may be taken: work is not cut in the middle.
    #[inline]
    pub fn take(&mut self, units: u32) {
        self.left = self.left.saturating_sub(units);
    }

    /// Takes all that is left: there is more to do, and it is the others' turn.
    pub(crate) fn exhaust(&mut self) {
        self.left = 0;
    }

    /// Whether nothing is left.
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
