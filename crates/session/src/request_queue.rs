//! Requests to a peer that wait for a stream: one queue per requesting session, served round-robin.

use std::{
    collections::{BTreeMap, HashMap, VecDeque},
    time::Instant,
};

use relay_model::SessionId;

use crate::upstream_request::UpstreamRequest;

/// A waiting request.
#[derive(Clone, Debug)]
pub(crate) struct WaitingRequest {
    pub(crate) since: Instant,
    pub(crate) asker: SessionId,
    pub(crate) wanted: UpstreamRequest,
}

/// All waiting requests. The relay's own come first, in order; then one of each requesting session in turn.
#[derive(Debug, Default)]
pub(crate) struct RequestQueue {
    own: VecDeque<UpstreamRequest>,
    /// Requests by age.
    waiting: BTreeMap<u64, WaitingRequest>,
    next: u64,
    /// Keys by requesting session, oldest first. Never empty.
    lines: HashMap<SessionId, VecDeque<u64>, foldhash::fast::RandomState>,
    /// Sessions with waiting requests, in turn order.
    turns: VecDeque<SessionId>,
}

impl RequestQueue {
    pub(crate) fn is_empty(&self) -> bool {
        self.own.is_empty() && self.waiting.is_empty()
    }

    /// Number of waiting requests of sessions, without the relay's own.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    /// Adds one of the relay's own requests after the others of its own.
    pub(crate) fn push_own(&mut self, wanted: UpstreamRequest) {
        self.own.push_back(wanted);
    }

    /// Adds one of the relay's own requests before all others.
    pub(crate) fn push_first(&mut self, wanted: UpstreamRequest) {
        self.own.push_front(wanted);
    }

    /// Adds a request to the queue of a session.
    pub(crate) fn push(&mut self, since: Instant, asker: SessionId, wanted: UpstreamRequest) {
        let key = self.next;
        self.next += 1;
        self.waiting.insert(key, WaitingRequest { since, asker, wanted });
        let line = self.lines.entry(asker).or_default();
        if line.is_empty() {
            self.turns.push_back(asker);
        }
        line.push_back(key);
    }

    /// Request whose turn it is. TRACK requests of sessions for which `is_full` holds are skipped.
    pub(crate) fn first(&mut self, is_full: impl Fn(SessionId) -> bool) -> Option<&UpstreamRequest> {
        if self.own.is_empty() {
            for _ in 0..self.turns.len() {
                let asker = self.turns.front()?;
                let key = self.lines.get(asker)?.front()?;
                let waiting = self.waiting.get(key)?;
                if !matches!(waiting.wanted, UpstreamRequest::Track(_)) || !is_full(*asker) {
                    return self.waiting.get(key).map(|waiting| &waiting.wanted);
                }
                self.turns.rotate_left(1);
            }
        }
        self.own.front()
    }

    /// Removes the request whose turn it is; the next one is another session's.
    pub(crate) fn pop(&mut self) -> Option<UpstreamRequest> {
        if let Some(own) = self.own.pop_front() {
            return Some(own);
        }
        let asker = self.turns.pop_front()?;
        let line = self.lines.get_mut(&asker)?;
        let key = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&asker);
        } else {
            self.turns.push_back(asker);
        }
        self.waiting.remove(&key).map(|waiting| waiting.wanted)
    }

    /// The session request that has waited longest.
    pub(crate) fn oldest(&self) -> Option<&WaitingRequest> {
        self.waiting.first_key_value().map(|(_, waiting)| waiting)
    }

    pub(crate) fn pop_oldest(&mut self) -> Option<WaitingRequest> {
        let key = *self.waiting.first_key_value()?.0;
        self.take(key)
    }

    /// Removes the newest request of the longest session queue, if that is longer than the queue of `asker`
    /// would be with one more.
    pub(crate) fn pop_longest(&mut self, asker: SessionId) -> Option<WaitingRequest> {
        let own = self.lines.get(&asker).map_or(0, VecDeque::len) + 1;
        let longest = self.lines.values().max_by_key(|line| line.len()).filter(|line| line.len() > own)?;
        let key = *longest.back()?;
        self.take(key)
    }

    /// Keeps the requests for which `is_wanted` holds.
    pub(crate) fn retain(&mut self, mut is_wanted: impl FnMut(&UpstreamRequest) -> bool) {
        self.own.retain(&mut is_wanted);
        let over = self.waiting.iter().filter(|(_, waiting)| !is_wanted(&waiting.wanted));
        for key in over.map(|(key, _)| *key).collect::<Vec<_>>() {
            self.take(key);
        }
    }

    /// Waiting requests of the relay's own.
    pub(crate) fn own(&self) -> impl Iterator<Item = &UpstreamRequest> {
        self.own.iter()
    }

    /// Whether an equal session request waits.
    pub(crate) fn holds(&self, wanted: &UpstreamRequest) -> bool {
        self.waiting.values().any(|waiting| waiting.wanted == *wanted)
    }

    /// Whether an equal request waits in the queue of `asker`.
    pub(crate) fn holds_for(&self, asker: SessionId, wanted: &UpstreamRequest) -> bool {
        let keys = self.lines.get(&asker).into_iter().flatten();
        keys.filter_map(|key| self.waiting.get(key)).any(|waiting| waiting.wanted == *wanted)
    }

    fn take(&mut self, key: u64) -> Option<WaitingRequest> {
        let waiting = self.waiting.remove(&key)?;
        if let Some(line) = self.lines.get_mut(&waiting.asker) {
            line.retain(|other| *other != key);
            if line.is_empty() {
                self.lines.remove(&waiting.asker);
                self.turns.retain(|asker| *asker != waiting.asker);
            }
        }
        Some(waiting)
    }
}

#[cfg(test)]
mod tests {
    use relay_model::LogId;

    use super::*;

    fn log(wanted: &UpstreamRequest) -> u64 {
        match wanted {
            UpstreamRequest::Track(log) => log.0,
            other => panic!("{other:?}"),
        }
    }

    fn queue(asked: &[(u64, u64)]) -> RequestQueue {
        let (mut queue, now) = (RequestQueue::default(), Instant::now());
        asked
            .iter()
            .for_each(|(asker, n)| queue.push(now, SessionId(*asker), UpstreamRequest::Track(LogId(*n))));
        queue
    }

    #[test]
    fn sessions_that_ask_take_turns() {
        let mut queue = queue(&[(1, 10), (1, 11), (1, 12), (2, 20), (3, 30), (3, 31)]);
        queue.push_own(UpstreamRequest::Goaway);
        assert_eq!(queue.pop(), Some(UpstreamRequest::Goaway));
        let order: Vec<u64> = std::iter::from_fn(|| queue.pop()).map(|wanted| log(&wanted)).collect();
        assert_eq!(order, [10, 20, 30, 11, 31, 12]);
        assert_eq!(queue.first(|_| false), None);
        assert!(queue.is_empty() && queue.lines.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn sessions_with_too_many_unanswered_requests_are_passed_over() {
        let mut queue = queue(&[(1, 10), (2, 20), (1, 11)]);
        assert_eq!(queue.first(|asker| asker == SessionId(1)).map(log), Some(20));
        assert_eq!(queue.pop().map(|wanted| log(&wanted)), Some(20));
        assert_eq!(queue.first(|_| true), None);
        queue.push_own(UpstreamRequest::Goaway);
        assert_eq!(queue.first(|_| true), Some(&UpstreamRequest::Goaway));
        queue.pop();
        assert_eq!(queue.first(|_| false).map(log), Some(10));
    }

    #[test]
    fn longest_queue_gives_way_to_shorter_ones() {
        let mut queue = queue(&[(1, 10), (1, 11), (1, 12), (2, 20)]);
        assert_eq!(queue.pop_longest(SessionId(1)).map(|waiting| log(&waiting.wanted)), None);
        assert_eq!(queue.pop_longest(SessionId(2)).map(|waiting| log(&waiting.wanted)), Some(12));
        assert_eq!(queue.pop_longest(SessionId(2)).map(|waiting| log(&waiting.wanted)), None);
        assert_eq!(queue.pop_longest(SessionId(9)).map(|waiting| log(&waiting.wanted)), Some(11));
        assert_eq!(queue.len(), 2);
    }

    #[test]
    fn unwanted_request_leaves_its_queue() {
        let mut queue = queue(&[(1, 10), (2, 20), (1, 11)]);
        queue.retain(|wanted| log(wanted) != 10);
        assert!(!queue.holds(&UpstreamRequest::Track(LogId(10))));
        assert!(queue.holds_for(SessionId(1), &UpstreamRequest::Track(LogId(11))));
        assert!(!queue.holds_for(SessionId(2), &UpstreamRequest::Track(LogId(11))));
        assert_eq!(queue.pop_oldest().map(|waiting| log(&waiting.wanted)), Some(20));
        assert_eq!((queue.pop().map(|wanted| log(&wanted)), queue.pop()), (Some(11), None));
    }
}
