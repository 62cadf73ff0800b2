//! Events of a worker's sessions on their way to core.

use crossbeam_channel::{Sender, TrySendError};
use relay_core::CoreEvent;

/// Events to be sent to core, in order, once per turn.
#[derive(Debug)]
pub(super) struct CoreQueue {
    core: Sender<Vec<CoreEvent>>,
    events: Vec<CoreEvent>,
}

impl CoreQueue {
    /// Creates an empty queue to `core`.
    pub(super) fn new(core: Sender<Vec<CoreEvent>>) -> Self {
        Self { core, events: Vec::new() }
    }

    /// Adds an event.
    pub(super) fn push(&mut self, event: CoreEvent) {
        self.events.push(event);
    }

    /// Sends the events. Kept for the next call if core has no room; bounded by the sessions' limits on requests in
    /// flight.
    pub(super) fn send(&mut self) {
        if self.events.is_empty() {
            return;
        }
        match self.core.try_send(std::mem::take(&mut self.events)) {
            Err(TrySendError::Full(events)) => self.events = events,
            // Core is gone only when the relay is ending.
            Ok(()) | Err(TrySendError::Disconnected(_)) => {}
        }
    }

    /// Sends the last events. May wait for core.
    pub(super) fn finish(&mut self) {
        // Core is gone only when the relay is ending.
        let _ = self.core.send(std::mem::take(&mut self.events));
    }

    /// Whether core had no room for the events.
    pub(super) fn is_behind(&self) -> bool {
        !self.events.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use relay_model::SessionId;

    use super::*;

    #[test]
    fn events_wait_in_order_while_core_is_full() {
        let (sender, core) = crossbeam_channel::bounded(1);
        let mut queue = CoreQueue::new(sender);
        let closed = |id| CoreEvent::Closed { session: SessionId(id), vanished: false };
        queue.send();
        assert!(core.is_empty(), "nothing to send");
        for id in 1..4 {
            queue.push(closed(id));
            queue.send();
        }
        assert!(queue.is_behind());
        assert_eq!(core.try_recv().unwrap(), [closed(1)]);
        queue.send();
        assert_eq!(core.try_recv().unwrap(), [closed(2), closed(3)]);
        assert!(!queue.is_behind());
    }
}
