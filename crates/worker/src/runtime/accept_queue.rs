//! Distribution of accepted stream sockets to workers.

use std::{fmt, sync::Arc};

use crate::{
    accept::{AdmissionCallback, PendingAccept, PendingSession, RejectReason},
    mailbox::{Mailbox, WorkerMessage},
};

/// Entry point for accepted stream sockets; a handle for any thread.
#[derive(Clone)]
pub struct AcceptQueue(Arc<[Arc<Mailbox>]>);

impl AcceptQueue {
    pub(crate) fn new(mailboxes: &[Arc<Mailbox>]) -> Self {
        Self(mailboxes.into())
    }

    /// Sends `pending` to the worker with the fewest connections, which calls `verdict`.
    pub fn arrive(&self, pending: PendingSession, verdict: AdmissionCallback) {
        let Some(mailbox) = self.0.iter().min_by_key(|mailbox| mailbox.load()) else {
            return verdict(Err(RejectReason::Full));
        };
        // Estimate until the worker updates its load, so that a burst is spread over all workers.
        mailbox.add_load();
        mailbox.post(&mut vec![WorkerMessage::Arrive(Box::new(PendingAccept { pending, verdict }))]);
    }
}

impl fmt::Debug for AcceptQueue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AcceptQueue").finish_non_exhaustive()
    }
}
