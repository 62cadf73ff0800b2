//! Release of large groups on a separate thread: freeing hundreds of thousands of small objects takes longer
//! than a worker's turn may.

use std::{
    sync::{
        OnceLock,
        mpsc::{SyncSender, sync_channel},
    },
    thread,
};

use crate::{bounds::OBJECT_OVERHEAD, group::CachedGroup};

/// Bookkeeping size from which a group is released on the thread, bytes: some 2,000 objects, a fraction of a
/// millisecond.
const LARGE: u64 = 2_048 * OBJECT_OVERHEAD;
/// Large groups that may wait for release; one more is released by the thread that unlinked it.
const WAITING: usize = 4_096;

/// Sender of groups to the release thread, which starts with the first large group and ends with the store.
#[derive(Debug, Default)]
pub(crate) struct Release {
    sender: OnceLock<Option<SyncSender<CachedGroup>>>,
}

impl Release {
    /// Releases `group`: here, or on the release thread if it is large. Must not be called under a lock.
    pub(crate) fn release(&self, group: CachedGroup) {
        if group.overhead >= LARGE
            && let Some(sender) = self.sender.get_or_init(start)
        {
            // If the queue is full, the group is returned and dropped here.
            drop(sender.try_send(group));
        }
    }
}

/// Starts the release thread. `None` when it cannot be started: groups are then released where they are
/// unlinked.
fn start() -> Option<SyncSender<CachedGroup>> {
    let (sender, groups) = sync_channel(WAITING);
    let release = move || groups.into_iter().for_each(drop);
    thread::Builder::new().name("store-release".to_owned()).spawn(release).ok()?;
    Some(sender)
}
