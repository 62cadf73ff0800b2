//! Brake on sessions that mostly ask for tracks that are missing.
//!
//! Each such request costs a publisher two streams and an answer. A session that asks for one missing track
//! after the other has its requests taken one at a time, at a fixed rate; what is flowing already it gets
//! at once, like everybody.

use std::{collections::VecDeque, time::Instant};

use relay_model::{Epoch, LogId, Order, Path, Prefs, SessionId, StreamCode, SubId, TrackName, Want, limits};

use crate::{core::Core, log::Reader, timers::Timer};

/// A subscription that waits.
#[derive(Debug)]
pub(crate) struct Braked {
    pub(crate) sub: SubId,
    pub(crate) path: Path,
    pub(crate) track: TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
}

/// Recent requests of one session to publishers, and its waiting ones.
#[derive(Debug, Default)]
pub(crate) struct Brake {
    /// Tracks that publishers were asked for, and of these the missing ones. Both are halved every
    /// [`limits::BRAKE_HALF_LIFE`].
    asked: u32,
    missed: u32,
    halved_at: Option<Instant>,
    waiting: VecDeque<Braked>,
    /// When the next one that waits has its turn; only while one waits.
    due: Option<Instant>,
    /// No request goes to a publisher before, while the brake is on.
    free_at: Option<Instant>,
}

impl Brake {
    /// Number of requests that wait.
    pub(crate) fn len(&self) -> usize {
        self.waiting.len()
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.due
    }

    /// Whether a request waits, by the session's key.
    pub(crate) fn holds(&self, sub: SubId) -> bool {
        self.waiting.iter().any(|braked| braked.sub == sub)
    }

    /// New preferences of a request that waits; false when it does not.
    pub(crate) fn update(&mut self, sub: SubId, prefs: Prefs) -> bool {
        let found = self.waiting.iter_mut().find(|braked| braked.sub == sub);
        found.map(|braked| braked.prefs = prefs).is_some()
    }

    /// Whether another request must wait.
    fn holds_back(&mut self, now: Instant) -> bool {
        self.decay(now);
        let is_on = self.missed >= limits::BRAKE_MISSES && self.missed > self.asked / 2;
        !self.waiting.is_empty() || is_on && self.free_at.is_some_and(|at| now < at)
    }

    /// A publisher is asked for a track on behalf of the session.
    fn ask(&mut self, now: Instant) {
        self.decay(now);
        self.asked = self.asked.saturating_add(1);
        self.free_at = Some(now + limits::BRAKE_INTERVAL);
    }

    /// A publisher has not what it was asked for.
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
    /// Whether a subscription that needs its publisher has to wait, or is refused because too many do. It
    /// is taken again when its turn comes.
    pub(crate) fn is_held_back(&mut self, id: SessionId, braked: Braked, now: Instant) -> bool {
        let Some(session) = self.sessions.get_mut(&id) else { return false };
        let brake = &mut session.brake;
        // A relay of the cluster asks for all of its own sessions, and brakes them itself.
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

    /// The next request of a braked session has its turn.
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

    /// Forgets a request that waits; false when it does not.
    pub(crate) fn release_braked(&mut self, (id, sub): Reader) -> bool {
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

    /// The writer `id` says that its peer has no such track. The session it was opened for and all that
    /// read it have missed.
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
