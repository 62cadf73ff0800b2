//! Subscriptions and requests for properties of the peer.

use relay_model::{Ask, Path, Prefs, StreamCode, SubId, TrackName, name, transport::Transport};

use super::SubscriberSide;
use crate::{
    Batch, LocalReader,
    request::{PrefsUpdate, Reply, RequestId},
    sub::{DownstreamSub, RequestKind},
    turn::Turn,
};

use super::attach::first_groups;

/// Parameters of a subscription, fetch or request for properties.
pub(crate) struct SubParams {
    /// Path relative to the session's root.
    pub(crate) broadcast: Path,
    pub(crate) track: TrackName,
    /// Number of the subscription on data streams, chosen by the peer; 0 for the others.
    pub(crate) alias: u64,
    pub(crate) prefs: Prefs,
    pub(crate) kind: RequestKind,
}

impl SubscriberSide {
    /// Starts a subscription, or refuses it.
    pub(crate) fn start_sub<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        request: RequestId,
        params: SubParams,
    ) {
        let SubParams { broadcast, track, alias, prefs, kind } = params;
        let Ok(path) = turn.state.root().join(&broadcast) else {
            turn.violation("broadcast path too long");
            return;
        };
        let is_live = kind == RequestKind::Live;
        let taken =
            is_live && self.egress.subs().any(|sub| sub.kind == RequestKind::Live && sub.alias == alias);
        if taken {
            turn.violation("duplicate subscribe id");
            return;
        }
        if !turn.state.phase.accepts() {
            return turn.refuse(request, StreamCode::GOING_AWAY);
        }
        if name::check(track.as_str()).is_err() {
            turn.cx.meter.track_names_refused += 1;
            return turn.refuse(request, StreamCode::NOT_FOUND);
        }
        if turn.cx.store.budget().at_ceiling() {
            turn.cx.meter.requests_refused_memory += 1;
            return turn.refuse(request, StreamCode::INTERNAL);
        }
        let framing = turn.dialect.encoder().framing();
        let names = path.as_str().len() + track.as_str().len();
        let make = |id| DownstreamSub::new(id, alias, request, kind, prefs, framing).with_names(names);
        let Some(sub) = self.egress.insert(turn.state.limits.subscriptions, make) else {
            turn.cx.meter.subscriptions_limited += 1;
            return turn.refuse(request, StreamCode::EXCESSIVE_LOAD);
        };
        turn.ask(Ask::Subscribe { sub, path, track, prefs, want: kind.want() });
    }

    /// Applies new preferences of the peer. Held groups admitted by a raised end are delivered at once.
    pub(crate) fn update_sub<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        request: RequestId,
        update: PrefsUpdate,
    ) {
        let Some(id) = self.egress.of_request(request) else { return };
        let Some(before) = self.egress.get_mut(id).map(|sub| sub.prefs) else { return };
        let prefs = match update {
            PrefsUpdate::All(prefs) => prefs,
            PrefsUpdate::Priority(priority) => Prefs { priority, ..before },
        };
        self.with_egress(turn, |egress, out| egress.update(out, id, prefs));
        self.deliver_raised_end(turn, id, before, prefs);
        turn.ask(Ask::Update { sub: id, prefs });
    }

    fn deliver_raised_end<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        id: SubId,
        before: Prefs,
        prefs: Prefs,
    ) {
        let Some(end) = before.end.filter(|end| prefs.end.is_none_or(|new| new > *end)) else { return };
        let Some(sub) = self.egress.get_mut(id) else { return };
        let Some(log_view) = sub.log.and_then(|log| turn.cx.fanout.log_view(log)) else { return };
        let opened = first_groups(log_view, sub, turn.cx.now, |sequence| sequence > end);
        self.apply_batch(turn, id, &Batch { opened, ..Batch::default() });
    }

    /// Delivers a batch of log events to one subscription.
    pub(crate) fn deliver<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, id: SubId, batch: &Batch) {
        let Some(sub) = self.egress.get_mut(id) else { return };
        if sub.kind == RequestKind::Info {
            self.answer_info(turn, id, batch.info, batch.end);
            return;
        }
        if let Some(log) = sub.log.filter(|_| sub.has_frame_bounds()) {
            for sequence in batch.opened.iter().map(|group| group.sequence()) {
                let key = sub.encoding_key(sequence);
                if !key.is_whole() {
                    turn.cx.fanout.add_encoding(log, sequence, key, turn.cx.now);
                }
            }
        }
        self.apply_batch(turn, id, batch);
    }

    pub(super) fn apply_batch<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, id: SubId, batch: &Batch) {
        if self.with_egress(turn, |egress, out| egress.apply_batch(out, id, batch)) {
            self.finish_sub(turn, id);
        }
    }

    /// Sends the end of a subscription that is over.
    pub(super) fn finish_sub<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, id: SubId) {
        let Some(end) = self.egress.get_mut(id).and_then(|sub| sub.is_over()) else { return };
        if let Some(code) = end {
            return self.refuse_sub(turn, id, code);
        }
        let Some(sub) = self.drop_sub(turn, id) else { return };
        let reply = match sub.kind {
            RequestKind::Live => Reply::Ended { bound: sub.bound() },
            RequestKind::Info | RequestKind::Fetch { .. } => Reply::Delivered,
        };
        turn.reply(sub.request, &reply);
    }

    /// Ends a subscription by resetting its response.
    pub(crate) fn refuse_sub<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        id: SubId,
        code: StreamCode,
    ) {
        if let Some(sub) = self.drop_sub(turn, id) {
            turn.refuse(sub.request, code);
        }
    }

    /// Removes a subscription everywhere except at its request.
    pub(super) fn drop_sub<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        id: SubId,
    ) -> Option<DownstreamSub> {
        let sub = self.egress.remove(turn.t, id, StreamCode::CANCEL)?;
        if let Some(log) = sub.log {
            turn.cx.fanout.detach(log, LocalReader { session: turn.state.config.id, sub: id });
        }
        turn.ask(Ask::Unsubscribe { sub: id });
        Some(sub)
    }
}
