//! Subscriber side of a session: the peer's announce requests, subscriptions, fetches and probes, served from
//! the board and from logs.

use std::time::Instant;

use relay_model::{
    SessionId, StreamCode, SubId,
    transport::{Stream, Transport},
};

use crate::{
    dialect::MediaEncoder,
    egress::{Egress, EgressContext},
    fanout::Fanout,
    probe::ProbeStreams,
    request::RequestId,
    turn::Turn,
    watches::WatchList,
};

mod attach;
mod fetch;
mod subscribe;
mod watch;

pub(crate) use fetch::FetchParams;
pub(crate) use subscribe::SubParams;

/// State of the subscriber side.
#[derive(Debug)]
pub(crate) struct SubscriberSide {
    pub(crate) egress: Egress,
    pub(crate) watches: WatchList,
    pub(crate) probes: ProbeStreams,
    /// Whether the transport has room again since the last attempt to send.
    has_room: bool,
}

impl SubscriberSide {
    pub(crate) fn new(encoder: MediaEncoder) -> Self {
        Self {
            egress: Egress::new(encoder),
            watches: WatchList::default(),
            probes: ProbeStreams::default(),
            has_room: false,
        }
    }

    /// Records that the transport may have room again.
    pub(crate) fn set_room(&mut self) {
        self.has_room = true;
    }

    /// Whether the transport may have room that was not used.
    pub(crate) fn has_room(&self) -> bool {
        self.has_room
    }

    /// Sends control messages first, then media, then announces.
    pub(crate) fn use_room<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        if !std::mem::take(&mut self.has_room) || turn.state.phase.is_over() {
            return;
        }
        if turn.state.control.flush(turn.t, turn.cx.now, turn.cx.work) {
            self.has_room = true;
            return;
        }
        let over = self.with_egress(turn, |egress, out| egress.pump(out));
        self.finish_subs(turn, over);
        self.pump_watches(turn);
    }

    /// Runs `run` on the egress. If that spent the session's turn, so is the work budget.
    fn with_egress<T: Transport, R>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        run: impl FnOnce(&mut Egress, &mut EgressContext<'_, T>) -> R,
    ) -> R {
        let mut out = EgressContext {
            t: turn.t,
            control: &mut turn.state.control,
            meter: turn.cx.meter,
            now: turn.cx.now,
        };
        let result = run(&mut self.egress, &mut out);
        if self.egress.take_cut() {
            self.has_room = true;
            turn.cx.work.exhaust();
        }
        result
    }

    /// Starts no further group; started ones continue.
    pub(crate) fn wind_down<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        self.with_egress(turn, |egress, out| egress.wind_down(out));
    }

    /// Handles STOP_SENDING for a group.
    pub(crate) fn group_stopped<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        stream: Stream,
        code: StreamCode,
    ) {
        let over = self.with_egress(turn, |egress, out| egress.stopped(out, stream, code));
        self.finish_subs(turn, over);
    }

    /// Handles deadlines.
    pub(crate) fn timeout<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        if self.egress.deadline().is_some_and(|due| turn.cx.now >= due) {
            let over = self.with_egress(turn, |egress, out| egress.expire(out));
            self.finish_subs(turn, over);
        }
        self.pump_probes(turn);
    }

    /// Earliest deadline.
    pub(crate) fn deadlines(&self) -> [Option<Instant>; 2] {
        [self.egress.deadline(), self.probes.deadline()]
    }

    /// Ends what a request of the peer started, at the wish of the peer.
    pub(crate) fn cancel<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, request: RequestId) {
        if let Some(sub) = self.egress.of_request(request) {
            self.drop_sub(turn, sub);
        } else if self.watches.remove(request) {
            self.leave_board(turn);
        } else {
            self.probes.remove(request);
        }
    }

    /// Removes all readers and watches from the fan-out.
    pub(crate) fn leave(&mut self, session: SessionId, fanout: &mut Fanout) {
        for sub in self.egress.subs() {
            if let Some(log) = sub.log {
                fanout.detach(log, crate::LocalReader { session, sub: sub.id });
            }
        }
        fanout.unwatch(session);
    }

    /// Starts to report path statistics.
    pub(crate) fn start_probe<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, request: RequestId) {
        if turn.t.stats().rtt.is_none() || self.probes.is_full() {
            return turn.refuse(request, StreamCode::NOT_FOUND);
        }
        self.probes.add(request, turn.cx.now);
        self.pump_probes(turn);
    }

    fn pump_probes<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        if !self.probes.is_due(turn.cx.now) {
            return;
        }
        for (request, reply) in self.probes.sample(turn.t.stats(), turn.cx.now, turn.state.control.has_room())
        {
            turn.reply(request, &reply);
        }
    }

    /// Sends the end of finished subscriptions.
    pub(crate) fn finish_subs<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, over: Vec<SubId>) {
        for id in over {
            self.finish_sub(turn, id);
        }
    }
}

#[cfg(test)]
mod tests;
