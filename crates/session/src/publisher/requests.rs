//! Requests of the relay to the peer: a bounded queue, and a bounded wait.

use std::time::Instant;

use relay_model::{Ask, LogId, Path, SessionId, StreamCode, limits, transport::Transport};

use super::PublisherSide;
use crate::{
    control::Outbound,
    request::{ObjectRange, Request, RequestId},
    turn::Turn,
    upstream::{Upstreams, unclean},
    upstream_request::UpstreamRequest,
};

impl PublisherSide {
    /// Queues one of the relay's own requests and opens what can be opened.
    pub(crate) fn request<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, wanted: UpstreamRequest) {
        self.queue.push_own(wanted);
        self.open_requests(turn);
    }

    /// Asks the peer to move to another session, before all other requests.
    pub(crate) fn send_goaway<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        self.queue.push_first(UpstreamRequest::Goaway);
        self.open_requests(turn);
    }

    /// Queues a request on behalf of `asker` and opens what can be opened. When the queue is full, the
    /// session with the most requests in it has its newest one refused.
    pub(super) fn request_for<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        asker: SessionId,
        wanted: UpstreamRequest,
    ) {
        if self.queue.len() >= limits::WAITING_REQUESTS {
            let Self { queue, upstreams, .. } = self;
            queue.retain(|wanted| is_wanted(upstreams, wanted));
        }
        if self.queue.len() >= limits::WAITING_REQUESTS {
            let Some(longest) = self.queue.pop_longest(asker) else {
                return self.give_up(turn, &wanted);
            };
            self.give_up(turn, &longest.wanted);
        }
        self.queue.push(turn.cx.now, asker, wanted);
        self.open_requests(turn);
    }

    /// Adds `asker` to the sessions that wait for the request of a log, if it is still queued: it is opened at
    /// the first turn of any of them. A session waits at most once for each request.
    pub(crate) fn share_request<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        log: LogId,
        asker: SessionId,
    ) {
        for wanted in [UpstreamRequest::Track(log), UpstreamRequest::Subscribe(log)] {
            if self.queue.len() < limits::WAITING_REQUESTS
                && self.queue.holds(&wanted)
                && !self.queue.holds_for(asker, &wanted)
            {
                self.queue.push(turn.cx.now, asker, wanted);
            }
        }
        self.open_requests(turn);
    }

    /// Opens waiting requests, as far as the peer's stream credit and its unanswered requests for properties
    /// allow.
    pub(crate) fn open_requests<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        let mut is_blocked = false;
        let most = if turn.state.is_cluster_peer() { usize::MAX } else { limits::UNANSWERED_REQUESTS };
        loop {
            let upstreams = &self.upstreams;
            let first = self.queue.first(|asker| upstreams.unanswered(asker) >= most);
            let Some(wanted) = first.cloned() else { break };
            if !is_wanted(&self.upstreams, &wanted) {
                self.queue.pop();
                continue;
            }
            if !self.send(turn, &wanted) {
                is_blocked = true;
                break;
            }
            self.queue.pop();
        }
        if std::mem::replace(&mut self.is_blocked, is_blocked) != is_blocked {
            turn.ask(Ask::StreamsBlocked { blocked: is_blocked });
        }
    }

    /// Calls [`Self::open_requests`] if anything waits; cheap otherwise.
    pub(super) fn open_waiting<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        if !self.queue.is_empty() || self.is_blocked {
            self.open_requests(turn);
        }
    }

    /// Deadline of the oldest waiting request.
    pub(super) fn queue_deadline(&self) -> Option<Instant> {
        self.queue.oldest().map(|waiting| waiting.since + limits::WAITING_TIMEOUT)
    }

    /// Refuses requests past their deadline, so that the requesting sessions do not wait forever.
    pub(crate) fn expire_requests<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        while self.queue_deadline().is_some_and(|due| turn.cx.now >= due) {
            let Some(late) = self.queue.pop_oldest() else { return };
            self.give_up(turn, &late.wanted);
        }
        self.open_waiting(turn);
    }

    fn give_up<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, wanted: &UpstreamRequest) {
        // The same request may wait in the queue of another session.
        if !is_wanted(&self.upstreams, wanted) || self.queue.holds(wanted) {
            return;
        }
        turn.cx.meter.requests_starved += 1;
        match wanted {
            UpstreamRequest::Announces(_) | UpstreamRequest::Goaway => {}
            UpstreamRequest::Track(log) | UpstreamRequest::Subscribe(log) => {
                self.end_track(turn, *log, unclean(StreamCode::CONTROL_TIMEOUT));
            }
            UpstreamRequest::Fetch(log, group) => {
                self.pull_failed(turn, *log, *group, StreamCode::CONTROL_TIMEOUT);
            }
        }
    }

    /// Sends a request; false without stream credit.
    fn send<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, wanted: &UpstreamRequest) -> bool {
        let Some((request, log)) = self.message(turn, wanted) else { return true };
        let mut out = Outbound { t: turn.t, control: &mut turn.state.control, now: turn.cx.now };
        let Some(id) = turn.dialect.request(&mut out, &request, log) else { return false };
        match wanted {
            UpstreamRequest::Goaway => return true,
            UpstreamRequest::Announces(_) => {}
            UpstreamRequest::Track(log) => self.upstreams.track_asked(*log, id),
            UpstreamRequest::Subscribe(log) => {
                if let Some(up) = self.upstreams.get_mut(*log) {
                    up.subscribed(id, turn.cx.now);
                }
            }
            UpstreamRequest::Fetch(log, group) => {
                let up = self.upstreams.get_mut(*log);
                let pull = up.and_then(|up| up.pulls.iter_mut().find(|(at, _)| at == group));
                if let Some((_, request)) = pull {
                    *request = Some(id);
                }
            }
        }
        self.sent.insert(id, wanted.clone());
        true
    }

    /// The message of a request, and the log that receives its data.
    fn message<T: Transport>(
        &self,
        turn: &Turn<'_, '_, T>,
        wanted: &UpstreamRequest,
    ) -> Option<(Request, Option<LogId>)> {
        Some(match wanted {
            UpstreamRequest::Goaway => (Request::Goaway, None),
            UpstreamRequest::Announces(prefix) => {
                let root = turn.state.permit()?.root();
                let relative = prefix.strip_prefix(root).and_then(|rest| Path::parse(rest).ok());
                let prefix = relative.unwrap_or_else(Path::root);
                (Request::Watch { prefix, exclude: Some(turn.state.config.hop) }, None)
            }
            UpstreamRequest::Track(log) => {
                let params = &self.upstreams.get(*log)?.params;
                let (broadcast, track) = (params.broadcast.clone(), params.track.clone());
                (Request::TrackInfo { broadcast, track }, Some(*log))
            }
            UpstreamRequest::Subscribe(log) => {
                let up = self.upstreams.get(*log)?;
                let (broadcast, track) = (up.params.broadcast.clone(), up.params.track.clone());
                let (alias, prefs) = (up.alias, up.subscribe_prefs());
                (Request::Subscribe { alias, broadcast, track, prefs }, Some(*log))
            }
            UpstreamRequest::Fetch(log, group) => {
                let params = &self.upstreams.get(*log)?.params;
                let (broadcast, track) = (params.broadcast.clone(), params.track.clone());
                let (priority, group, range) = (params.prefs.priority, *group, ObjectRange::ALL);
                (Request::Fetch { broadcast, track, priority, group, range }, Some(*log))
            }
        })
    }

    /// Cancels a request that was sent.
    pub(super) fn cancel<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, request: RequestId) {
        self.sent.remove(&request);
        turn.cancel(request);
    }
}

/// Whether a request is still wanted and not yet sent.
fn is_wanted(upstreams: &Upstreams, wanted: &UpstreamRequest) -> bool {
    match wanted {
        UpstreamRequest::Announces(_) | UpstreamRequest::Goaway => true,
        UpstreamRequest::Track(log) => upstreams.get(*log).is_some_and(|up| !up.was_asked()),
        UpstreamRequest::Subscribe(log) => {
            upstreams.get(*log).is_some_and(|up| up.subscribe_request.is_none() && !up.is_finishing())
        }
        UpstreamRequest::Fetch(log, group) => {
            upstreams.get(*log).is_some_and(|up| up.pulls.contains(&(*group, None)))
        }
    }
}
