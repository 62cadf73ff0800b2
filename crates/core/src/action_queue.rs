//! Queue of actions.

use std::collections::VecDeque;

use relay_model::{Order, SessionId};

use crate::event::Action;

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
