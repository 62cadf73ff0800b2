//! Actions on their way out.

use std::collections::VecDeque;

use relay_model::{Order, SessionId};

use crate::event::Action;

/// A queue that the caller drains after each event. A newer state of the same thing replaces an
/// older one that was just queued.
#[derive(Debug, Default)]
pub(crate) struct Outbox(VecDeque<Action>);

impl Outbox {
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

/// Whether `old` need not be done when `new` follows it at once.
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
