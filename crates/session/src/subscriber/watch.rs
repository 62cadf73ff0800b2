//! Announce requests of the peer.

use relay_model::{Ask, Hop, Path, StreamCode, limits, transport::Transport};

use super::SubscriberSide;
use crate::{
    advertise_policy::AdvertisePolicy, control::Outbound, dialect::AnnounceWriter, request::RequestId,
    turn::Turn, work,
};

/// Paths examined by one watch before the session's next watch has its turn.
const FILL_ENTRIES: usize = 64;

impl SubscriberSide {
    /// Starts to announce the broadcasts below a prefix.
    pub(crate) fn start_watch<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        request: RequestId,
        prefix: &Path,
        exclude: Option<Hop>,
    ) {
        if self.watches.len() >= limits::ANNOUNCE_REQUESTS {
            turn.cx.meter.watches_limited += 1;
            return turn.refuse(request, StreamCode::EXCESSIVE_LOAD);
        }
        let Some(permit) = turn.state.permit() else { return };
        let Ok(prefix) = permit.root().join(prefix) else {
            turn.violation("announce prefix too long");
            return;
        };
        let config = &turn.state.config;
        let policy = AdvertisePolicy {
            session: config.id,
            hop: config.hop,
            scope: permit.subscribe().clone(),
            prefix: prefix.clone(),
            exclude: exclude.unwrap_or(turn.state.peer.exclude),
            is_relay: turn.state.peer.is_relay,
            is_peer: permit.is_peer(),
        };
        // The first watch of a prefix counts the live paths below it.
        let board = turn.cx.store.board();
        turn.cx.work.take(u32::try_from(board.paths() / work::SCANNED).unwrap_or(u32::MAX));
        let watch = board.watch(turn.cx.fanout.worker(), prefix);
        turn.cx.fanout.watch(config.id);
        self.watches.add(request, AnnounceWriter::new(turn.dialect, policy, watch));
        if let Some(hop) = exclude.filter(|hop| *hop != Hop::ANONYMOUS && turn.state.peer.exclude != *hop) {
            turn.state.peer.exclude = hop;
            turn.ask(Ask::Exclude { hop });
        }
        self.pump_watches(turn);
    }

    /// Treats the peer as a relay, which forwards other publishers: from now on it gets every route.
    pub(crate) fn advertise_all<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        if !std::mem::replace(&mut turn.state.peer.is_relay, true) {
            self.watches.for_each(AnnounceWriter::advertise_all);
            self.has_room = true;
        }
    }

    /// Sends changes of the board to the peer, as far as it accepts them and the work budget lasts: a few
    /// messages of one watch at a time, written together, and the watches in turn.
    pub(crate) fn pump_watches<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        self.watches.set_due(false);
        if !turn.may_meet() {
            return;
        }
        // Number of consecutive watches with nothing more.
        let mut idle = 0;
        while idle < self.watches.len() && turn.state.control.has_room() {
            if turn.cx.work.is_spent() {
                self.watches.set_due(true);
                return;
            }
            let Some((request, writer)) = self.watches.next() else { return };
            let mut out = Outbound { t: turn.t, control: &mut turn.state.control, now: turn.cx.now };
            let filled = writer.fill(&mut out, request, FILL_ENTRIES);
            let entries = u32::try_from(filled.entries).unwrap_or(u32::MAX);
            turn.cx.work.take(entries.saturating_mul(work::WATCH_ENTRY));
            if filled.is_broken {
                // The peer may request it again.
                self.watches.remove(request);
                self.leave_board(turn);
                turn.reply(request, &crate::request::Reply::Refused { code: StreamCode::CANCEL });
                continue;
            }
            self.watches.pass();
            idle = if filled.more { 0 } else { idle + 1 };
        }
    }

    /// Applies the hop that the peer declared: routes through it are not advertised.
    pub(crate) fn exclude<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, hop: Hop) {
        turn.state.peer.exclude = hop;
        self.watches.for_each(|writer| writer.exclude(hop));
    }

    /// Applies a changed permit to the watches: paths outside it end, added ones start.
    pub(crate) fn revise<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        let Some(permit) = turn.state.permit() else { return };
        self.watches.for_each(|writer| writer.revise(permit.subscribe().clone()));
        self.pump_watches(turn);
    }

    /// Stops to wake for changes of the board, once nothing is watched.
    pub(super) fn leave_board<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        if self.watches.is_empty() {
            turn.cx.fanout.unwatch(turn.state.config.id);
        }
    }
}
