//! Output of the core: actions and counts.

use std::collections::VecDeque;

use relay_model::{Order, SessionId};

use crate::event::{Action, CoreTally};

/// Output of the core, written by every handler.
#[derive(Debug, Default)]
pub(crate) struct CoreOutput {
    pub(crate) actions: ActionQueue,
    /// Counts of refused and dropped requests since the start.
    pub(crate) tally: CoreTally,
}

/// Queue of actions that the caller drains after each event. An action that supersedes the last queued one
/// replaces it.
#[derive(Debug, Default)]
pub(crate) struct ActionQueue(VecDeque<Action>);

impl ActionQueue {
    pub(crate) fn push(&mut self, action: Action) {
        if let Some(last) = self.0.back_mut()
            && supersedes(&action, last)
        {
            *last = action;
            return;
        }
        self.0.push_back(action);
    }

    pub(crate) fn order(&mut self, session: SessionId, order: Order) {
        self.push(Action::Order { session, order });
    }

    pub(crate) fn pop(&mut self) -> Option<Action> {
        self.0.pop_front()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }
}

/// Whether `new`, directly after `old`, makes `old` unnecessary.
fn supersedes(new: &Action, old: &Action) -> bool {
    match (new, old) {
        (Action::Board { path: new, .. }, Action::Board { path: old, .. }) => new == old,
        (
            Action::Order { session: a, order: Order::Prefs { log: new, .. } },
            Action::Order { session: b, order: Order::Prefs { log: old, .. } },
        ) => a == b && new == old,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use relay_model::{LogId, Path, SubId};

    use super::*;

    #[test]
    fn later_routes_of_one_path_replace_queued_ones() {
        let mut queue = ActionQueue::default();
        let board = |path: &str| Action::Board { path: Path::parse(path).unwrap(), routes: Vec::new() };
        ["a", "a", "b", "a"].into_iter().for_each(|path| queue.push(board(path)));
        queue.order(SessionId(1), Order::Attach { sub: SubId(1), log: LogId(1) });
        assert_eq!(queue.len(), 4);
        assert_eq!([queue.pop(), queue.pop(), queue.pop()], ["a", "b", "a"].map(|path| Some(board(path))));
    }
}
