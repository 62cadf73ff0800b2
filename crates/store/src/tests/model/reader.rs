//! A reader that believes nothing: every entry must fit what came before it.

use std::{collections::BTreeMap, sync::Arc};

use relay_model::{StreamCode, WorkerId};

use super::{
    byte,
    naive::{Naive, State},
    size,
};
use crate::{Entry, Feed, Head, Log};

#[derive(Debug, Default, PartialEq, Eq)]
struct View {
    /// Object id and received bytes.
    objects: Vec<(u64, u64)>,
    over: Option<Result<(), StreamCode>>,
}

pub(super) struct Reader {
    pub(super) worker: WorkerId,
    feed: Feed,
    head: Head,
    groups: BTreeMap<u64, View>,
    ended: bool,
}

impl Reader {
    pub(super) fn attach(log: &Arc<Log>, worker: WorkerId) -> Self {
        let (feed, head) = log.feed(worker);
        let mut reader =
            Self { worker, feed, ended: head.end.is_some(), head: head.clone(), groups: BTreeMap::new() };
        assert!(head.groups.is_sorted());
        for sequence in head.groups {
            let mut entries = Vec::new();
            assert!(reader.feed.group(sequence, &mut entries), "a group of the head is not held");
            entries.into_iter().for_each(|entry| reader.entry(entry, true));
        }
        reader
    }

    pub(super) fn pull(&mut self) -> bool {
        let mut entries = Vec::new();
        let pulled = self.feed.pull(&mut entries);
        assert!(!pulled.lagged);
        entries.into_iter().for_each(|entry| self.entry(entry, false));
        pulled.more
    }

    fn entry(&mut self, entry: Entry, replayed: bool) {
        let may_follow_the_end = replayed || matches!(entry, Entry::Evicted { .. });
        assert!(!self.ended || may_follow_the_end, "{entry:?} after the end");
        match entry {
            Entry::Info(info) => assert!(self.head.info.replace(info).is_none(), "told twice"),
            Entry::Group { sequence } => {
                assert!(
                    self.groups.insert(sequence, View::default()).is_none(),
                    "group {sequence} opened twice"
                );
            }
            Entry::Object { group, strand: 0, head, payload } => {
                let view = self.open(group);
                assert!(view.last_is_whole(group), "object {} of {group} after a hole", head.id);
                assert!(view.objects.last().is_none_or(|(last, _)| *last < head.id), "out of order");
                assert_eq!(head.size, size(group, head.id));
                view.objects.push((head.id, 0));
                view.bytes(group, head.id, 0, &payload);
            }
            Entry::Data { group, strand: 0, object, offset, payload } => {
                assert!(!payload.is_empty());
                self.open(group).bytes(group, object, offset, &payload);
            }
            Entry::Finish { group, strand: 0 } => {
                let view = self.open(group);
                assert!(view.last_is_whole(group), "an interrupted strand looks finished");
                view.over = Some(Ok(()));
            }
            Entry::Reset { group, strand: 0, code } => match self.groups.get_mut(&group) {
                Some(view) if view.over.is_none() => view.over = Some(Err(code)),
                other => panic!("reset of {other:?}"),
            },
            Entry::Evicted { group } => {
                self.groups.remove(&group);
            }
            Entry::End(_) => self.ended = true,
            Entry::Datagram { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }

    fn open(&mut self, group: u64) -> &mut View {
        match self.groups.get_mut(&group) {
            Some(view) if view.over.is_none() => view,
            other => panic!("an entry for group {group}, which is {other:?}"),
        }
    }

    /// After everything was pulled: what it has seen is what was written.
    pub(super) fn check_against(&self, log: &Arc<Log>, naive: &Naive, exact: bool) {
        assert_eq!(self.ended, naive.ended);
        let now = self.feed.head();
        assert_eq!(now.info, self.head.info);
        let held = log.lock().groups.keys().copied().collect::<Vec<_>>();
        // What it follows is held; what is held and not followed had lost its head when it came.
        assert!(self.groups.keys().all(|sequence| held.contains(sequence)));
        for sequence in &now.groups {
            let view = self.groups.get(sequence).unwrap_or_else(|| panic!("never heard of {sequence}"));
            let mut replayed = Self::attach(log, self.worker);
            assert_eq!(replayed.groups.remove(sequence).as_ref(), Some(view), "live and replay differ");
            if exact {
                view.check_against(sequence, naive);
            }
        }
    }
}

impl View {
    fn last_is_whole(&self, group: u64) -> bool {
        self.objects.last().is_none_or(|(id, received)| *received == size(group, *id))
    }

    fn bytes(&mut self, group: u64, object: u64, offset: u64, payload: &[u8]) {
        let Some((id, received)) = self.objects.last_mut() else { panic!("bytes of no object") };
        assert_eq!((*id, *received), (object, offset), "a hole or a repeat in {group}");
        *received += payload.len() as u64;
        assert!(*received <= size(group, object));
        let expected = (offset..).map(|at| byte(group, object, at));
        assert!(payload.iter().copied().eq(expected.take(payload.len())), "other bytes than written");
    }

    fn check_against(&self, sequence: &u64, naive: &Naive) {
        let group = naive.groups.get(sequence).expect("the model holds it");
        assert!(!group.head_missing);
        assert_eq!(self.objects, group.objects);
        let over = match group.state {
            State::Open | State::Suspended => None,
            State::Finished => Some(Ok(())),
            State::Reset(code) => Some(Err(code)),
        };
        assert_eq!(self.over, over);
    }
}
