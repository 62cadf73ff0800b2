//! Release of large groups on a thread of their own: to free hundreds of thousands of small objects takes a
//! worker longer than its turn may.

use std::{
    sync::{
        OnceLock,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use crate::{bounds::OBJECT_OVERHEAD, group::Group};

/// Bookkeeping from which on a group is released apart, bytes: some 2,000 objects, a fraction of a millisecond.
const LARGE: u64 = 2_048 * OBJECT_OVERHEAD;
/// Large groups that may wait to be released; one more is released by the thread that unlinked it.
const WAITING: usize = 4_096;

/// Sender of groups to the thread that releases them, which starts with the first large group and ends with the
/// store.
#[derive(Debug, Default)]
pub(crate) struct Release {
    sender: OnceLock<Option<SyncSender<Group>>>,
}

impl Release {
    /// Releases `group`: here, or apart if it is large. Never call it under a lock.
    pub(crate) fn release(&self, group: Group) {
        if group.overhead >= LARGE
            && let Some(sender) = self.sender.get_or_init(start)
        {
            // A group that finds no room comes back and is dropped here.
            drop(sender.try_send(group));
        }
    }
}

/// `None` when no thread can be had: groups are then released where they are unlinked.
fn start() -> Option<SyncSender<Group>> {
    let (sender, groups) = sync_channel(WAITING);
    let release = move || groups.into_iter().for_each(drop);
    thread::Builder::new().name("store-release".to_owned()).spawn(release).ok()?;
    Some(sender)
}
