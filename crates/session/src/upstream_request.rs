//! Relay requests that wait for the peer's stream credit: a bounded queue, and a bounded wait.

use std::time::Instant;

use relay_model::{
    Ask, LogId, Path, SessionId, StreamCode, limits,
    transport::{Dir, PRIORITY_CONTROL, Stream, Transport},
};
use relay_store::FETCHED;
use relay_wire::{
    lite::{self, BidiType, Message},
    varint,
};

use crate::{
    control_stream::ControlStreamReader,
    ingest::{AppendTarget, Ingest},
    intake::AnnounceReceiver,
    requests::NO_ERROR,
    session::{Cx, Session, StreamKind},
    upstream::{Upstreams, unclean},
};

/// Request on a bidirectional stream to be opened to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum UpstreamRequest {
    Goaway,
    Announces(Path),
    Track(LogId),
    Subscribe(LogId),
    Fetch(LogId, u64),
}

impl Session {
    /// Queues one of the relay's own requests and opens what can be opened.
    pub(crate) fn want<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, wanted: UpstreamRequest) {
        self.request_queue.push_own(wanted);
        self.open_wanted(t, cx);
    }

    /// Queues a request on behalf of `asker` and opens what can be opened. When the queue is full, the
    /// session with the most requests in it has its newest one refused.
    pub(crate) fn want_for<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        asker: SessionId,
        wanted: UpstreamRequest,
    ) {
        if self.request_queue.len() >= limits::WAITING_REQUESTS {
            let Self { request_queue: wanting, upstreams, .. } = self;
            wanting.retain(|wanted| is_wanted(upstreams, wanted));
        }
        if self.request_queue.len() >= limits::WAITING_REQUESTS {
            let Some(longest) = self.request_queue.pop_longest(asker) else {
                return self.give_up_wanted(t, cx, &wanted);
            };
            self.give_up_wanted(t, cx, &longest.wanted);
        }
        self.request_queue.push(cx.now, asker, wanted);
        self.open_wanted(t, cx);
    }

    /// Adds `asker` to the sessions that wait for the request of a log, if it is still queued: it is opened at
    /// the first turn of any of them. A session waits at most once for each request.
    pub(crate) fn asked<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, log: LogId, asker: SessionId) {
        for wanted in [UpstreamRequest::Track(log), UpstreamRequest::Subscribe(log)] {
            if self.request_queue.len() < limits::WAITING_REQUESTS
                && self.request_queue.holds(&wanted)
                && !self.request_queue.holds_for(asker, &wanted)
            {
                self.request_queue.push(cx.now, asker, wanted);
            }
        }
        self.open_wanted(t, cx);
    }

    /// Opens waiting requests, as far as the peer's stream credit and its unanswered TRACK requests allow.
    pub(crate) fn open_wanted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let mut is_blocked = false;
        let most = if self.is_peer() { usize::MAX } else { limits::UNANSWERED_REQUESTS };
        loop {
            let upstreams = &self.upstreams;
            let first = self.request_queue.first(|asker| upstreams.unanswered(asker) >= most);
            let Some(wanted) = first.cloned() else { break };
            if !is_wanted(&mut self.upstreams, &wanted) {
                self.request_queue.pop();
                continue;
            }
            let Some(stream) = t.open(Dir::Bi, PRIORITY_CONTROL) else {
                is_blocked = true;
                break;
            };
            self.request_queue.pop();
            self.open_one(t, cx, stream, wanted);
        }
        if std::mem::replace(&mut self.is_blocked, is_blocked) != is_blocked {
            self.ask(cx, Ask::StreamsBlocked { blocked: is_blocked });
        }
    }

    /// Calls [`Self::open_wanted`] if anything waits; cheap otherwise.
    pub(crate) fn open_waiting<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.request_queue.is_empty() || self.is_blocked {
            self.open_wanted(t, cx);
        }
    }

    /// Deadline of the oldest waiting request.
    pub(crate) fn wanting_deadline(&self) -> Option<Instant> {
        self.request_queue.oldest().map(|waiting| waiting.since + limits::WAITING_TIMEOUT)
    }

    /// Refuses requests past their deadline, so that the requesting sessions do not wait forever.
    pub(crate) fn expire_wanted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        while self.wanting_deadline().is_some_and(|due| cx.now >= due) {
            let Some(late) = self.request_queue.pop_oldest() else { return };
            self.give_up_wanted(t, cx, &late.wanted);
        }
        self.open_waiting(t, cx);
    }

    fn give_up_wanted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, wanted: &UpstreamRequest) {
        // The same request may wait in the queue of another session.
        if !is_wanted(&mut self.upstreams, wanted) || self.request_queue.holds(wanted) {
            return;
        }
        cx.meter.requests_starved += 1;
        match wanted {
            UpstreamRequest::Announces(_) | UpstreamRequest::Goaway => {}
            UpstreamRequest::Track(log) | UpstreamRequest::Subscribe(log) => {
                self.end_upstream(t, cx, *log, unclean(StreamCode::CONTROL_TIMEOUT));
            }
            UpstreamRequest::Fetch(log, group) => {
                self.pull_failed(cx, *log, *group, StreamCode::CONTROL_TIMEOUT)
            }
        }
    }

    /// Whether the peer is a relay of the same cluster, which requests on behalf of all of its sessions.
    fn is_peer(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.is_peer)
    }

    fn open_one<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        wanted: UpstreamRequest,
    ) {
        let mut message = Vec::new();
        let Some(role) = self.request(cx.now, stream, &wanted, &mut message) else { return };
        self.streams.insert(stream, role);
        self.control.send(t, cx.now, stream, message);
        if wanted == UpstreamRequest::Goaway {
            self.control.finish(t, stream);
            t.stop(stream, NO_ERROR);
            self.streams.remove(&stream);
        }
    }

    /// Encodes a request into `message`. Returns the role of its stream.
    fn request(
        &mut self,
        now: Instant,
        stream: Stream,
        wanted: &UpstreamRequest,
        message: &mut Vec<u8>,
    ) -> Option<StreamKind> {
        let version = self.config.version;
        let mut put = |kind: BidiType| varint::put(kind.id(), message);
        Some(match wanted {
            UpstreamRequest::Goaway => {
                put(BidiType::Goaway);
                lite::Goaway { uri: String::new() }.encode(version, message);
                StreamKind::SendOnly
            }
            UpstreamRequest::Announces(prefix) => {
                let root = &self.grant.as_ref()?.root;
                let relative = prefix.strip_prefix(root).and_then(|rest| Path::parse(rest).ok());
                put(BidiType::Announce);
                let prefix_asked = relative.unwrap_or_else(Path::root);
                let exclude_hop = self.config.hop;
                lite::AnnounceRequest { prefix: prefix_asked, exclude_hop }.encode(version, message);
                StreamKind::AnnounceUp(
                    ControlStreamReader::default(),
                    Box::new(AnnounceReceiver::new(prefix.clone())),
                )
            }
            UpstreamRequest::Track(log) => {
                self.upstreams.track_asked(*log, stream);
                let up = self.upstreams.get_mut(*log)?;
                put(BidiType::Track);
                lite::TrackRequest { broadcast: up.broadcast.clone(), track: up.track.clone() }
                    .encode(version, message);
                StreamKind::TrackUp(ControlStreamReader::default(), *log)
            }
            UpstreamRequest::Subscribe(log) => {
                let up = self.upstreams.get_mut(*log)?;
                up.subscribed(stream, now);
                put(BidiType::Subscribe);
                let (broadcast, track) = (up.broadcast.clone(), up.track.clone());
                lite::Subscribe { id: up.wire_id, broadcast, track, prefs: up.subscribe_prefs() }
                    .encode(version, message);
                StreamKind::SubscribeUp(ControlStreamReader::default(), *log)
            }
            UpstreamRequest::Fetch(log, group) => {
                let up = self.upstreams.get_mut(*log)?;
                let pull = up.pulls.iter_mut().find(|(at, _)| at == group)?;
                pull.1 = Some(stream);
                put(BidiType::Fetch);
                let (broadcast, track) = (up.broadcast.clone(), up.track.clone());
                let priority = up.prefs.priority;
                let fetch = lite::Fetch {
                    broadcast,
                    track,
                    priority,
                    group: *group,
                    start_frame: 0,
                    end_frame: None,
                };
                fetch.encode(version, message);
                let target = AppendTarget { log: *log, sequence: *group, strand: FETCHED };
                StreamKind::FetchUp(Box::new(Ingest::fetched(version, target)))
            }
        })
    }
}

/// Whether a request is still wanted and not yet sent.
fn is_wanted(upstreams: &mut Upstreams, wanted: &UpstreamRequest) -> bool {
    match wanted {
        UpstreamRequest::Announces(_) | UpstreamRequest::Goaway => true,
        UpstreamRequest::Track(log) => upstreams.get_mut(*log).is_some_and(|up| !up.was_asked()),
        UpstreamRequest::Subscribe(log) => {
            upstreams.get_mut(*log).is_some_and(|up| up.subscribe_stream.is_none() && !up.is_finishing())
        }
        UpstreamRequest::Fetch(log, group) => {
            upstreams.get_mut(*log).is_some_and(|up| up.pulls.contains(&(*group, None)))
        }
    }
}
