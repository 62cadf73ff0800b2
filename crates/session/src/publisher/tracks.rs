//! Tracks requested from the peer: their subscriptions, the peer's replies, and their end.

use relay_model::{Ask, Hop, LogId, Path, Prefs, StreamCode, TrackInfo, Want, transport::Transport};
use relay_store::{CommitError, LogEnd};

use super::PublisherSide;
use crate::{
    control::Outbound,
    request::{PrefsUpdate, Reply, RequestId},
    turn::Turn,
    upstream::{UpstreamParams, unclean},
    upstream_request::UpstreamRequest,
};

impl PublisherSide {
    /// Requests a track for its log. `params.broadcast` is set here.
    pub(crate) fn open_track<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        mut params: UpstreamParams,
    ) {
        let UpstreamParams { log, epoch, asker, want, publisher, .. } = params;
        let Some(stored) = turn.cx.store.log(log) else { return };
        self.close_track(turn, log);
        // Resume point of an earlier writer, read before this one replaces it.
        let resume = stored.resume();
        let Some(mut writer) = stored.writer(epoch) else {
            // The end reported by an earlier writer crossed this order: core must not keep the log for new
            // readers.
            turn.ask(Ask::Ended { log, epoch, missing: false });
            return;
        };
        let root = turn.state.root();
        let Some(broadcast) = params.path.strip_prefix(&root).and_then(|rest| Path::parse(rest).ok()) else {
            return;
        };
        params.broadcast = broadcast;
        let has_tracks = turn.dialect.has_tracks();
        if !has_tracks {
            // These versions send no track properties: use the defaults, on our clock.
            writer.info(TrackInfo::default());
            self.upstreams.mark_dirty();
        }
        let announced = self.publisher_of(&params.path);
        self.upstreams.insert(params, writer, resume);
        if announced != Some(publisher) && publisher != Hop::ANONYMOUS {
            // The order crossed an announce: another publisher would answer.
            self.end_track(turn, log, unclean(StreamCode::UNROUTABLE));
            return;
        }
        if has_tracks {
            self.request_for(turn, asker, UpstreamRequest::Track(log));
        }
        if want == Want::Live {
            self.request_for(turn, asker, UpstreamRequest::Subscribe(log));
        }
    }

    /// Repeats the subscription from the latest group: a resumed publisher that does not respond may have
    /// restarted its group numbers.
    fn resubscribe_from_latest<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, log: LogId) {
        let Some(request) = self.upstreams.get_mut(log).and_then(|up| up.subscribe_request.take()) else {
            return;
        };
        self.cancel(turn, request);
        self.upstreams.renumber(log);
        let Some(up) = self.upstreams.get_mut(log) else { return };
        up.ask_for_latest();
        let asker = up.params.asker;
        self.request_for(turn, asker, UpstreamRequest::Subscribe(log));
    }

    /// Applies the union of the readers' preferences.
    pub(crate) fn update_track<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        log: LogId,
        prefs: Prefs,
        want: Want,
    ) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        let changed = up.params.prefs != prefs;
        let waits_in_vain = up.update_prefs(prefs);
        if want > up.params.want {
            up.params.want = want;
            let asker = up.params.asker;
            self.request_for(turn, asker, UpstreamRequest::Subscribe(log));
        } else if !turn.dialect.has_ranges() {
            // SUBSCRIBE has neither a start nor updates in these versions.
        } else if waits_in_vain && !up.is_finishing() {
            self.resubscribe_from_latest(turn, log);
        } else if let Some(request) = up.subscribe_request.filter(|_| changed && !up.is_finishing()) {
            let update = PrefsUpdate::All(up.subscribe_prefs());
            let mut out = Outbound { t: turn.t, control: &mut turn.state.control, now: turn.cx.now };
            turn.dialect.update(&mut out, request, update);
        }
    }

    /// Closes an upstream track that has no readers any more.
    pub(crate) fn close_track<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, log: LogId) {
        let Some(up) = self.upstreams.remove(log) else { return };
        let pulls = up.pulls.iter().filter_map(|(_, request)| *request);
        for request in up.track_request.into_iter().chain(up.subscribe_request).chain(pulls) {
            self.cancel(turn, request);
        }
        turn.dialect.drop_groups(turn.t, log);
        self.open_waiting(turn);
    }

    /// Ends an upstream track: appends the end to the log and informs core.
    pub(super) fn end_track<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, log: LogId, end: LogEnd) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        let epoch = up.params.epoch;
        // If groups or properties were received, the end does not mean that the track is missing.
        let missing = end.code == Some(StreamCode::NOT_FOUND) && !up.has_answered();
        up.writer.end(end);
        // The end of a fenced writer is stale: core has moved the log.
        let ended = up.writer.commit(turn.cx.now, turn.cx.wakes);
        self.close_track(turn, log);
        if ended != Err(CommitError::Fenced) {
            turn.ask(Ask::Ended { log, epoch, missing });
        }
    }

    /// Ends tracks whose last groups have arrived or timed out, and repeats resumed subscriptions that got no
    /// response.
    pub(crate) fn end_tracks<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        if self.upstreams.deadline().is_some() {
            for log in self.upstreams.timed_out_resumes(turn.cx.now) {
                self.resubscribe_from_latest(turn, log);
            }
            for (log, end) in self.upstreams.ended(turn.cx.now) {
                self.end_track(turn, log, end);
            }
        }
    }

    /// Handles a reply of the peer.
    pub(crate) fn on_reply<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        request: RequestId,
        reply: &Reply,
    ) {
        let wanted = match reply {
            Reply::Info(_) | Reply::Refused { .. } | Reply::Finished => self.sent.remove(&request),
            _ => self.sent.get(&request).cloned(),
        };
        let Some(UpstreamRequest::Track(log) | UpstreamRequest::Subscribe(log)) = wanted else { return };
        if let Reply::Info(_) = reply {
            self.upstreams.track_answered(log);
        }
        if let Some(up) = self.upstreams.get_mut(log) {
            match *reply {
                Reply::Accepted { .. } => up.set_answered(),
                Reply::Started { group } => up.start(group),
                Reply::Ended { bound } => up.set_bound(bound),
                Reply::Finished => up.finish(turn.cx.now),
                Reply::Info(info) => {
                    up.set_answered();
                    up.writer.info(info);
                    self.upstreams.mark_dirty();
                }
                Reply::Dropped { first, last, code } => {
                    up.dropped(first, last);
                    up.writer.dropped(first, last, code);
                    self.upstreams.mark_dirty();
                }
                Reply::Refused { .. } | Reply::Measured { .. } | Reply::Delivered => {}
            }
        }
        match *reply {
            Reply::Info(_) => self.open_waiting(turn),
            Reply::Finished => self.end_tracks(turn),
            Reply::Refused { code } => self.end_track(turn, log, unclean(code)),
            _ => {}
        }
    }

    /// Makes this turn's appends visible.
    pub(crate) fn commit<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        if !self.upstreams.take_dirty() {
            return;
        }
        // Data of a publisher that restarted its group numbers belongs to another log.
        for log in self.upstreams.take_restarted() {
            self.end_track(turn, log, unclean(StreamCode::GOING_AWAY));
        }
        for (log, epoch, error) in self.upstreams.commit(turn.cx.now, turn.cx.wakes) {
            self.close_track(turn, log);
            if matches!(error, CommitError::Malformed) {
                turn.ask(Ask::Ended { log, epoch, missing: false });
            }
        }
        self.end_tracks(turn);
    }
}
