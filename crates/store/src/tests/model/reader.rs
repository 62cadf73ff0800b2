//! A strict reader: every entry must be consistent with the previous ones.

use std::{collections::BTreeMap, sync::Arc};

use relay_model::{StreamCode, WorkerId};

use super::{
    byte,
    naive::{Naive, State},
    size,
};
use crate::{Feed, Log, LogEntry, LogHead, Lookup};

#[derive(Debug, Default, PartialEq, Eq)]
struct View {
    /// Object id and received bytes.
    objects: Vec<(u64, u64)>,
    over: Option<Result<(), StreamCode>>,
    /// Whether the group was requested; its entries may then come twice.
    asked: bool,
}

pub(super) struct Reader {
    pub(super) worker: WorkerId,
    feed: Feed,
    head: LogHead,
    groups: BTreeMap<u64, View>,
    ended: bool,
}

impl Reader {
    pub(super) fn attach(log: &Arc<Log>, worker: WorkerId) -> Self {
        let (feed, head) = log.feed(worker);
        let mut reader =
            Self { worker, feed, ended: head.end.is_some(), head: head.clone(), groups: BTreeMap::new() };
        assert!(head.groups.is_sorted_by_key(|group| group.sequence));
        for group in head.groups {
            reader.groups.entry(group.sequence).or_default().asked = group.fetched;
            let mut entries = Vec::new();
            assert!(reader.feed.group(group.sequence, &mut entries), "a group of the head is not held");
            entries.into_iter().for_each(|entry| reader.entry(entry, true));
        }
        reader
    }

    /// Reads a held group and follows the journal for the rest, as a FETCH does.
    pub(super) fn wait_for(&mut self, sequence: u64) {
        while self.pull() {}
        if self.groups.contains_key(&sequence) {
            return;
        }
        let mut entries = Vec::new();
        match self.feed.lookup(sequence, 0) {
            Lookup::Held => assert!(self.feed.group(sequence, &mut entries), "lookup answered held"),
            Lookup::Absent(_) => return,
            Lookup::Unknown => entries.push(LogEntry::Group { sequence }),
        }
        entries.into_iter().for_each(|entry| self.entry(entry, true));
        self.groups.entry(sequence).or_default().asked = true;
    }

    pub(super) fn pull(&mut self) -> bool {
        let mut entries = Vec::new();
        let pulled = self.feed.pull(&mut entries);
        assert!(!pulled.lagged);
        entries.into_iter().for_each(|entry| self.entry(entry, false));
        pulled.more
    }

    fn entry(&mut self, entry: LogEntry, replayed: bool) {
        let may_follow_the_end = replayed || matches!(entry, LogEntry::Evicted { .. });
        assert!(!self.ended || may_follow_the_end, "{entry:?} after the end");
        match entry {
            LogEntry::Info(info) => assert!(self.head.info.replace(info).is_none(), "info twice"),
            LogEntry::Group { sequence } => {
                let view = self.groups.entry(sequence).or_default();
                assert!(view.asked || *view == View::default(), "group {sequence} opened twice");
            }
            LogEntry::Object { group, .. }
            | LogEntry::Data { group, .. }
            | LogEntry::Finish { group, .. }
            | LogEntry::Reset { group, .. } => {
                // A group that was neither opened for this reader nor requested by it.
                let Some(view) = self.groups.get_mut(&group) else { return };
                view.entry(group, entry);
            }
            LogEntry::Evicted { group } => {
                // A reader that requested it waits for a replacement.
                if let Some(view) = self.groups.remove(&group).filter(|view| view.asked) {
                    self.groups.insert(group, View { asked: view.asked, ..View::default() });
                }
            }
            LogEntry::End(_) => self.ended = true,
            LogEntry::Datagram { .. } | LogEntry::Absent { .. } => {}
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Compares all pulled entries with the written data.
    pub(super) fn check_against(&self, log: &Arc<Log>, naive: &Naive, exact: bool) {
        assert_eq!(self.ended, naive.ended);
        let now = self.feed.head();
        assert_eq!(now.info, self.head.info);
        let held = log.lock().groups.keys().copied().collect::<Vec<_>>();
        // Every followed group is held; a held group that is not followed had lost its head when it arrived.
        assert!(self.groups.iter().all(|(sequence, view)| view.asked || held.contains(sequence)));
        for group in &now.groups {
            let sequence = &group.sequence;
            let view = match self.groups.get(sequence) {
                None if group.fetched => continue,
                view => view.unwrap_or_else(|| panic!("never heard of {sequence}")),
            };
            if view.asked && self.feed.lookup(*sequence, 0) != Lookup::Held {
                continue;
            }
            let mut replayed = Self::attach(log, self.worker);
            let replayed = replayed.groups.remove(sequence).expect("a group of the head cannot be replayed");
            assert_eq!(replayed.objects, view.objects, "live and replay differ in {sequence}");
            assert_eq!(replayed.over, view.over, "live and replay differ in {sequence}");
            if exact {
                view.check_against(sequence, naive);
            }
        }
    }
}

impl View {
    fn entry(&mut self, group: u64, entry: LogEntry) {
        if self.asked && self.has(&entry) {
            return;
        }
        assert!(self.over.is_none(), "{entry:?} of a group that is over");
        match entry {
            LogEntry::Object { strand: 0, head, payload, .. } => {
                assert!(self.last_is_whole(group), "object {} of {group} after a hole", head.id);
                assert!(self.objects.last().is_none_or(|(last, _)| *last < head.id), "out of order");
                assert_eq!(head.size, size(group, head.id));
                self.objects.push((head.id, 0));
                self.bytes(group, head.id, 0, &payload);
            }
            LogEntry::Data { strand: 0, object, offset, payload, .. } => {
                assert!(!payload.is_empty());
                self.bytes(group, object, offset, &payload);
            }
            LogEntry::Finish { strand: 0, .. } => {
                assert!(self.last_is_whole(group), "an interrupted strand looks finished");
                self.over = Some(Ok(()));
            }
            LogEntry::Reset { strand: 0, code, .. } => self.over = Some(Err(code)),
            other => panic!("unexpected {other:?}"),
        }
    }

    /// Whether the entry came before, or belongs to an object that began before this reader attached.
    fn has(&self, entry: &LogEntry) -> bool {
        let last = self.objects.last();
        match entry {
            LogEntry::Object { head, .. } => last.is_some_and(|(id, _)| head.id <= *id),
            LogEntry::Data { object, offset, .. } => {
                last.is_none_or(|(id, received)| object != id || offset < received)
            }
            LogEntry::Finish { .. } => self.over == Some(Ok(())),
            _ => false,
        }
    }

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
