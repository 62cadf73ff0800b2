//! Rate limit on sessions whose requests are mostly for missing tracks.
//!
//! Each such request costs a publisher two streams and a reply. The requests of a session that asks for one
//! missing track after another are queued and released one at a time, at a fixed rate. Subscriptions to
//! tracks that already have a log are not delayed.

use std::{collections::VecDeque, time::Instant};

use relay_model::{Epoch, LogId, Order, Path, Prefs, SessionId, StreamCode, SubId, TrackName, Want, limits};

use crate::{core::Core, log::ReaderKey, timers::Timer};

/// A queued subscription.
#[derive(Debug)]
pub(crate) struct Braked {
    pub(crate) sub: SubId,
    pub(crate) path: Path,
    pub(crate) track: TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
}

/// Recent requests of one session to publishers, and its queued subscriptions.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    /// Requests sent to publishers for this session, and those answered as missing. Both are halved every
    /// [`limits::BRAKE_HALF_LIFE`].
    asked: u32,
    missed: u32,
    halved_at: Option<Instant>,
    waiting: VecDeque<Braked>,
    /// Release time of the next queued request; `Some` exactly while one is queued.
    due: Option<Instant>,
    /// Earliest time of the next request to a publisher while the brake is on.
    free_at: Option<Instant>,
}

impl Brake {
    /// Number of queued requests.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether the request `sub` (the session's key) is queued.
    pub(crate) fn holds(&self, sub: SubId) -> bool {
        self.waiting.iter().any(|braked| braked.sub == sub)
    }

    /// Updates the preferences of a queued request; false if it is not queued.
    pub(crate) fn update(&mut self, sub: SubId, prefs: Prefs) -> bool {
        let found = self.waiting.iter_mut().find(|braked| braked.sub == sub);
        found.map(|braked| braked.prefs = prefs).is_some()
    }

    /// Whether another request must be queued.
    fn holds_back(&mut self, now: Instant) -> bool {
        self.decay(now);
        let is_on = self.missed >= limits::BRAKE_MISSES && self.missed > self.asked / 2;
        !self.waiting.is_empty() || is_on && self.free_at.is_some_and(|at| now < at)
    }

    /// Counts a request to a publisher on behalf of the session.
    fn ask(&mut self, now: Instant) {
        self.decay(now);
        self.asked = self.asked.saturating_add(1);
        self.free_at = Some(now + limits::BRAKE_INTERVAL);
    }

    /// Counts a reply saying that the track does not exist.
    fn miss(&mut self, now: Instant) {
        self.decay(now);
        self.missed = self.missed.saturating_add(1);
    }

    fn decay(&mut self, now: Instant) {
        let since = *self.halved_at.get_or_insert(now);
        let passed = now.saturating_duration_since(since).as_millis() / limits::BRAKE_HALF_LIFE.as_millis();
        let halvings = u32::try_from(passed).unwrap_or(u32::MAX);
        if halvings > 0 {
            self.asked = self.asked.checked_shr(halvings).unwrap_or(0);
            self.missed = self.missed.checked_shr(halvings).unwrap_or(0);
            self.halved_at = Some(since + limits::BRAKE_HALF_LIFE * halvings);
        }
    }
}

impl Core {
    /// Whether a subscription that needs its publisher must wait: queued until its turn, or refused if the
    /// queue is full. Counts the request otherwise.
    pub(crate) fn is_held_back(&mut self, id: SessionId, braked: Braked, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let brake = &mut session.brake;
        // A peer relay asks on behalf of all of its own sessions, and brakes those itself.
        if session.permit.is_peer() || !brake.holds_back(now) {
            brake.ask(now);
            return false;
        }
        if brake.len() >= limits::BRAKE_WAITING {
            self.tally.brake_refused += 1;
            self.outbox.order(id, Order::Refuse { sub: braked.sub, code: StreamCode::EXCESSIVE_LOAD });
            return true;
        }
        self.tally.braked += 1;
        brake.waiting.push_back(braked);
        if brake.due.is_none() {
            let at = brake.free_at.map_or(now, |at| at.max(now));
            brake.due = Some(at);
            self.timers.arm(at, Timer::Brake(id));
        }
        true
    }

    /// Releases the next queued request of a braked session.
    pub(crate) fn brake_due(&mut self, id: SessionId, now: Instant) {
        let Some(session) = self.sessions.get_mut(&id) else { return };
        let brake = &mut session.brake;
        brake.due = None;
        let Some(braked) = brake.waiting.pop_front() else { return };
        if !brake.waiting.is_empty() {
            let at = now + limits::BRAKE_INTERVAL;
            brake.due = Some(at);
            self.timers.arm(at, Timer::Brake(id));
        }
        brake.ask(now);
        let Braked { sub, path, track, prefs, want } = braked;
        self.serve((id, sub), (path, track), (prefs, want), true, now);
    }

    /// Removes a queued request; false if it is not queued.
    pub(crate) fn release_braked(&mut self, (id, sub): ReaderKey) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let brake = &mut session.brake;
        let Some(at) = brake.waiting.iter().position(|braked| braked.sub == sub) else { return false };
        brake.waiting.remove(at);
        if brake.waiting.is_empty()
            && let Some(due) = brake.due.take()
        {
            self.timers.disarm(due, Timer::Brake(id));
        }
        true
    }

    /// Records that the peer of writer `id` has no such track, as a miss of the session that `log` was opened
    /// for and of all its readers.
    pub(crate) fn note_missing(&mut self, id: SessionId, log: LogId, epoch: Epoch, now: Instant) {
        let writes = self.sessions.get(&id).is_some_and(|session| session.writes.contains(&log));
        let Some(state) = self.logs.get(&log).filter(|state| writes && state.epoch == epoch) else { return };
        self.missing.insert((state.path.clone(), state.publisher, state.track.clone()), now);
        let readers = state.readers().map(|((session, _), _)| *session);
        let mut readers: Vec<SessionId> = readers.chain([state.asker]).collect();
        readers.sort_unstable();
        readers.dedup();
        for reader in readers {
            if let Some(session) = self.sessions.get_mut(&reader) {
                session.brake.miss(now);
            }
        }
    }
}
