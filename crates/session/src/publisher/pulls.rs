//! Old groups fetched from the peer into a log.

use relay_model::{Ask, LogId, SessionId, StreamCode, transport::Transport};
use relay_store::FETCHED;

use super::PublisherSide;
use crate::{
    request::{FetchResult, RequestId},
    turn::Turn,
    upstream_request::UpstreamRequest,
};

impl PublisherSide {
    /// Fetches an old group of an open log for core.
    pub(crate) fn pull<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        log: LogId,
        group: u64,
        asker: SessionId,
    ) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        if up.pulls.iter().any(|(at, _)| *at == group) {
            return;
        }
        up.pulls.push((group, None));
        if turn.dialect.has_tracks() {
            self.request_for(turn, asker, UpstreamRequest::Fetch(log, group));
        } else {
            // A publisher of these versions serves no old groups.
            self.pull_failed(turn, log, group, StreamCode::NOT_FOUND);
        }
    }

    /// Cancels a pull that is no longer wanted.
    pub(crate) fn drop_pull<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, log: LogId, group: u64) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        let Some(at) = up.pulls.iter().position(|(at, _)| *at == group) else { return };
        let (_, request) = up.pulls.swap_remove(at);
        if let Some(request) = request {
            up.writer.reset(group, FETCHED, StreamCode::CANCEL);
            self.upstreams.mark_dirty();
            self.cancel(turn, request);
        }
    }

    /// Handles the end of the response to a FETCH.
    pub(crate) fn on_fetched<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        request: RequestId,
        result: FetchResult,
    ) {
        let Some(UpstreamRequest::Fetch(log, group)) = self.sent.remove(&request) else { return };
        match result.code {
            Some(code) if !result.has_begun => self.pull_failed(turn, log, group, code),
            code => {
                if let Some(up) = self.upstreams.get_mut(log) {
                    // If the log accepted nothing, waiting readers must be released.
                    up.writer.fetch_failed(group, code.unwrap_or(StreamCode::EVICTED));
                    self.pull_over(turn, log, group);
                }
            }
        }
    }

    /// Records a failed fetch. That a group does not exist is remembered; other failures are not.
    pub(super) fn pull_failed<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        log: LogId,
        group: u64,
        code: StreamCode,
    ) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        if code == StreamCode::NOT_FOUND {
            up.writer.absent(group, code);
        } else {
            up.writer.fetch_failed(group, code);
        }
        self.pull_over(turn, log, group);
    }

    /// Reports the end of a fetch to core, which may order it again.
    fn pull_over<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, log: LogId, group: u64) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        up.pulls.retain(|(at, _)| *at != group);
        let epoch = up.params.epoch;
        self.upstreams.mark_dirty();
        turn.ask(Ask::Pulled { log, epoch, group });
    }
}
