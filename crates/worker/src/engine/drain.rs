//! End of a worker: graceful drain or shutdown.

use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use crate::mailbox::Drain;

/// Interval at which a drained worker checks whether the others are drained too.
const OTHERS: Duration = Duration::from_millis(20);

/// Progress of a worker that rejects new sessions.
#[derive(Clone, Debug)]
enum Ending {
    /// Waits for sessions to leave on GOAWAY.
    Waiting(Drain),
    /// Remaining sessions wind down, each at its turn.
    Parting(Drain),
    /// All are closed; the worker ends at this time at the latest.
    Closed(Instant),
}

/// Step of a drain that is due.
#[derive(Clone, Debug)]
pub(super) enum DrainStep {
    /// Remaining sessions get a time to wind down.
    WindDown(Drain),
    /// Remaining sessions are closed.
    Close(Drain),
}

/// Progress of a worker's end; begins with none.
#[derive(Debug, Default)]
pub(super) struct DrainState {
    ending: Option<Ending>,
    /// Whether this worker is already subtracted from the busy ones of a drain.
    counted_off: bool,
}

impl DrainState {
    /// Whether new sessions are rejected.
    #[inline]
    pub(super) fn has_begun(&self) -> bool {
        self.ending.is_some()
    }

    /// Begins a drain unless the worker is ending already.
    pub(super) fn begin(&mut self, drain: Drain) {
        self.ending.get_or_insert(Ending::Waiting(drain));
    }

    /// Begins a shutdown, whose closes are sent until `until`.
    pub(super) fn shut_down(&mut self, until: Instant) {
        self.ending = Some(Ending::Closed(until));
    }

    /// Takes the next step that is due.
    pub(super) fn poll(&mut self, now: Instant) -> Option<DrainStep> {
        match self.ending.take()? {
            Ending::Waiting(drain) if now >= drain.wind_down => {
                self.ending = Some(Ending::Parting(drain.clone()));
                Some(DrainStep::WindDown(drain))
            }
            Ending::Parting(drain) if now >= drain.close => {
                self.ending = Some(Ending::Closed(drain.until));
                Some(DrainStep::Close(drain))
            }
            ending => {
                self.ending = Some(ending);
                None
            }
        }
    }

    /// Drain whose sessions are still open.
    pub(super) fn current(&self) -> Option<&Drain> {
        match &self.ending {
            Some(Ending::Waiting(drain) | Ending::Parting(drain)) => Some(drain),
            Some(Ending::Closed(_)) | None => None,
        }
    }

    /// Subtracts this worker from the busy ones of a drain, once it has no sessions (`is_empty`).
    pub(super) fn count_off(&mut self, is_empty: bool) {
        let Some(drain) = self.current() else { return };
        if is_empty && !self.counted_off {
            drain.busy.fetch_sub(1, Ordering::Relaxed);
            self.counted_off = true;
        }
    }

    /// Whether the worker ends: out of time, or without sessions (`is_empty`) like all others.
    pub(super) fn is_done(&self, now: Instant, is_empty: bool) -> bool {
        match &self.ending {
            None => false,
            Some(Ending::Waiting(drain) | Ending::Parting(drain)) => {
                now >= drain.until || (is_empty && drain.busy.load(Ordering::Relaxed) == 0)
            }
            Some(Ending::Closed(until)) => now >= *until || is_empty,
        }
    }

    /// Time of the next step.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        let step = match self.ending.as_ref()? {
            Ending::Waiting(drain) => drain.wind_down,
            Ending::Parting(drain) => drain.close,
            Ending::Closed(until) => *until,
        };
        Some(if self.counted_off { step.min(now + OTHERS) } else { step })
    }
}

#[cfg(test)]
mod tests {
    use relay_model::SessionCode;

    use super::*;

    const WINDOW: Duration = Duration::from_secs(100);

    fn drain(now: Instant, workers: usize) -> Drain {
        Drain::new(workers, SessionCode::NONE, "going away", now, WINDOW)
    }

    #[test]
    fn drain_winds_down_closes_and_ends() {
        let (mut state, now) = (DrainState::default(), Instant::now());
        assert!(!state.has_begun() && state.next(now).is_none() && state.poll(now).is_none());
        let plan = drain(now, 1);
        state.begin(plan.clone());
        assert!(state.has_begun() && state.poll(now).is_none());
        assert_eq!(state.next(now), Some(plan.wind_down));
        assert!(matches!(state.poll(plan.wind_down), Some(DrainStep::WindDown(_))));
        assert_eq!(state.next(now), Some(plan.close));
        assert!(state.current().is_some());
        assert!(matches!(state.poll(plan.close), Some(DrainStep::Close(_))));
        assert!(state.current().is_none() && state.poll(plan.close).is_none());
        assert!(!state.is_done(plan.close, false) && state.is_done(plan.close, true));
        assert!(state.is_done(plan.until, false));
    }

    #[test]
    fn late_worker_takes_both_steps() {
        let (mut state, now) = (DrainState::default(), Instant::now());
        state.begin(drain(now, 1));
        let late = now + WINDOW;
        assert!(matches!(state.poll(late), Some(DrainStep::WindDown(_))));
        assert!(matches!(state.poll(late), Some(DrainStep::Close(_))));
    }

    #[test]
    fn empty_worker_waits_for_the_others() {
        let (mut state, now) = (DrainState::default(), Instant::now());
        let plan = drain(now, 2);
        state.begin(plan.clone());
        (0..2).for_each(|_| state.count_off(true));
        assert_eq!(plan.busy.load(Ordering::Relaxed), 1, "counted once");
        assert!(!state.is_done(now, true));
        assert_eq!(state.next(now), Some(now + OTHERS));
        plan.busy.fetch_sub(1, Ordering::Relaxed);
        assert!(state.is_done(now, true) && !state.is_done(now, false));
    }

    #[test]
    fn shutdown_ends_once_all_is_sent_or_time_is_up() {
        let (mut state, now) = (DrainState::default(), Instant::now());
        state.begin(drain(now, 1));
        state.shut_down(now + WINDOW / 2);
        assert!(!state.is_done(now, false) && state.is_done(now, true));
        assert!(state.is_done(now + WINDOW / 2, false));
    }
}
