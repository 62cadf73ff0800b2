//! Threads that release the memory of groups.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use super::*;

/// Name of the release thread.
const RELEASE: &str = "store-release";
/// Objects of a group that is released on that thread.
const MANY: u64 = 2_100;

/// Payload that sends the name of the thread on which its last handle is dropped.
struct Witness(SyncSender<Option<String>>);

impl AsRef<[u8]> for Witness {
    fn as_ref(&self) -> &[u8] {
        b"x"
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        // The test has gone if this fails.
        let _ = self.0.send(thread::current().name().map(str::to_owned));
    }
}

/// Commits a group of `objects` objects, the first of which is a [`Witness`], and a later group of one object.
fn fill(f: &mut Fixture, objects: u64) -> Receiver<Option<String>> {
    let (sender, released_by) = sync_channel(1);
    f.writer.open_group(0);
    f.writer.object(0, 0, ObjectHead::frame(0, None, 1), Bytes::from_owner(Witness(sender)));
    (1..objects).for_each(|id| f.object(0, id, b"x"));
    f.writer.finish(0, 0);
    f.commit();
    f.group(1, &[b"y"]);
    f.commit();
    released_by
}

fn name(released_by: &Receiver<Option<String>>) -> Option<String> {
    released_by.recv_timeout(Duration::from_secs(20)).expect("it is released")
}

#[test]
fn large_evicted_group_is_released_on_its_own_thread() {
    for (objects, is_large) in [(MANY, true), (MANY / 2, false)] {
        let mut f = Fixture::new();
        let released_by = fill(&mut f, objects);
        f.later(31_000);
        f.store.trim(f.now, &mut f.wakes);
        let here = thread::current();
        let expected = if is_large { Some(RELEASE) } else { here.name() };
        assert_eq!(name(&released_by).as_deref(), expected, "{objects} objects");
    }
}

#[test]
fn large_group_of_a_dropped_log_is_released_on_that_thread() {
    let mut f = Fixture::new();
    let released_by = fill(&mut f, MANY);
    f.store.retire(f.log.id());
    drop(f);
    assert_eq!(name(&released_by).as_deref(), Some(RELEASE));
}
