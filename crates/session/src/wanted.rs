//! Relay requests that wait for the peer's stream credit: a bounded queue, and a bounded wait.

use std::time::Instant;

use relay_model::{Ask, LogId, Path, SessionId, StreamCode, limits};
use relay_store::FETCHED;
use relay_wire::{
    lite::{self, BidiType, Message},
    varint,
};

use crate::{
    ingest::{Ingest, Target},
    inlet::Inlet,
    intake::Intake,
    requests::NO_ERROR,
    session::{Cx, Role, Session},
    transport::{Dir, PRIORITY_CONTROL, Stream, Transport},
    upstream::{Upstreams, unclean},
};

/// Request on a bidirectional stream to be opened to the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Goaway,
    Announces(Path),
    Track(LogId),
    Subscribe(LogId),
    Fetch(LogId, u64),
}

impl Session {
    /// Queues one of the relay's own requests and opens what can be opened.
    pub(crate) fn want<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, wanted: Wanted) {
        self.wanting.push_own(wanted);
        self.open_wanted(t, cx);
    }

    /// Queues a request on behalf of `asker` and opens what can be opened. When the queue is full, the
    /// session with the most requests in it has its newest one refused.
    pub(crate) fn want_for<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        asker: SessionId,
        wanted: Wanted,
    ) {
        if self.wanting.len() >= limits::WAITING_REQUESTS {
            let Self { wanting, upstreams, .. } = self;
            wanting.retain(|wanted| is_wanted(upstreams, wanted));
        }
        if self.wanting.len() >= limits::WAITING_REQUESTS {
            let Some(longest) = self.wanting.pop_longest(asker) else {
                return self.give_up_wanted(t, cx, &wanted);
            };
            self.give_up_wanted(t, cx, &longest.wanted);
        }
        self.wanting.push(cx.now, asker, wanted);
        self.open_wanted(t, cx);
    }

    /// Adds `asker` to the sessions that wait for the request of a log, if it is still queued: it is opened at
    /// the first turn of any of them. A session waits at most once for each request.
    pub(crate) fn asked<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, log: LogId, asker: SessionId) {
        for wanted in [Wanted::Track(log), Wanted::Subscribe(log)] {
            if self.wanting.len() < limits::WAITING_REQUESTS
                && self.wanting.holds(&wanted)
                && !self.wanting.holds_for(asker, &wanted)
            {
                self.wanting.push(cx.now, asker, wanted);
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
            let first = self.wanting.first(|asker| upstreams.unanswered(asker) >= most);
            let Some(wanted) = first.cloned() else { break };
            if !is_wanted(&mut self.upstreams, &wanted) {
                self.wanting.pop();
                continue;
            }
            let Some(stream) = t.open(Dir::Bi, PRIORITY_CONTROL) else {
                is_blocked = true;
                break;
            };
            self.wanting.pop();
            self.open_one(t, cx, stream, wanted);
        }
        if std::mem::replace(&mut self.is_blocked, is_blocked) != is_blocked {
            self.ask(cx, Ask::StreamsBlocked { blocked: is_blocked });
        }
    }

    /// Calls [`Self::open_wanted`] if anything waits; cheap otherwise.
    pub(crate) fn open_waiting<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.wanting.is_empty() || self.is_blocked {
            self.open_wanted(t, cx);
        }
    }

    /// Deadline of the oldest waiting request.
    pub(crate) fn wanting_deadline(&self) -> Option<Instant> {
        self.wanting.oldest().map(|waiting| waiting.since + limits::WAITING_TIMEOUT)
    }

    /// Refuses requests past their deadline, so that the requesting sessions do not wait forever.
    pub(crate) fn expire_wanted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        while self.wanting_deadline().is_some_and(|due| cx.now >= due) {
            let Some(late) = self.wanting.pop_oldest() else { return };
            self.give_up_wanted(t, cx, &late.wanted);
        }
        self.open_waiting(t, cx);
    }

    fn give_up_wanted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, wanted: &Wanted) {
        // The same request may wait in the queue of another session.
        if !is_wanted(&mut self.upstreams, wanted) || self.wanting.holds(wanted) {
            return;
        }
        cx.meter.requests_starved += 1;
        match wanted {
            Wanted::Announces(_) | Wanted::Goaway => {}
            Wanted::Track(log) | Wanted::Subscribe(log) => {
                self.end_upstream(t, cx, *log, unclean(StreamCode::CONTROL_TIMEOUT));
            }
            Wanted::Fetch(log, group) => self.pull_failed(cx, *log, *group, StreamCode::CONTROL_TIMEOUT),
        }
    }

    /// Whether the peer is a relay of the same cluster, which requests on behalf of all of its sessions.
    fn is_peer(&self) -> bool {
        self.grant.as_ref().is_some_and(|grant| grant.is_peer)
    }

    fn open_one<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, stream: Stream, wanted: Wanted) {
        let mut message = Vec::new();
        let Some(role) = self.request(cx.now, stream, &wanted, &mut message) else { return };
        self.streams.insert(stream, role);
        self.control.send(t, cx.now, stream, message);
        if wanted == Wanted::Goaway {
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
        wanted: &Wanted,
        message: &mut Vec<u8>,
    ) -> Option<Role> {
        let version = self.config.version;
        let mut put = |kind: BidiType| varint::put(kind.id(), message);
        Some(match wanted {
            Wanted::Goaway => {
                put(BidiType::Goaway);
                lite::Goaway { uri: String::new() }.encode(version, message);
                Role::Said
            }
            Wanted::Announces(prefix) => {
                let root = &self.grant.as_ref()?.root;
                let relative = prefix.strip_prefix(root).and_then(|rest| Path::parse(rest).ok());
                put(BidiType::Announce);
                let prefix_asked = relative.unwrap_or_else(Path::root);
                let exclude_hop = self.config.hop;
                lite::AnnounceRequest { prefix: prefix_asked, exclude_hop }.encode(version, message);
                Role::Intake(Inlet::default(), Box::new(Intake::new(prefix.clone())))
            }
            Wanted::Track(log) => {
                self.upstreams.track_asked(*log, stream);
                let up = self.upstreams.get_mut(*log)?;
                put(BidiType::Track);
                lite::TrackRequest { broadcast: up.broadcast.clone(), track: up.track.clone() }
                    .encode(version, message);
                Role::TrackUp(Inlet::default(), *log)
            }
            Wanted::Subscribe(log) => {
                let up = self.upstreams.get_mut(*log)?;
                up.subscribed(stream, now);
                put(BidiType::Subscribe);
                let (broadcast, track) = (up.broadcast.clone(), up.track.clone());
                lite::Subscribe { id: up.wire_id, broadcast, track, prefs: up.asked() }
                    .encode(version, message);
                Role::SubscribeUp(Inlet::default(), *log)
            }
            Wanted::Fetch(log, group) => {
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
                let target = Target { log: *log, sequence: *group, strand: FETCHED };
                Role::FetchUp(Box::new(Ingest::fetched(version, target)))
            }
        })
    }
}

/// Whether a request is still wanted and not yet sent.
fn is_wanted(upstreams: &mut Upstreams, wanted: &Wanted) -> bool {
    match wanted {
        Wanted::Announces(_) | Wanted::Goaway => true,
        Wanted::Track(log) => upstreams.get_mut(*log).is_some_and(|up| !up.was_asked()),
        Wanted::Subscribe(log) => {
            upstreams.get_mut(*log).is_some_and(|up| up.subscribe_stream.is_none() && !up.is_finishing())
        }
        Wanted::Fetch(log, group) => {
            upstreams.get_mut(*log).is_some_and(|up| up.pulls.contains(&(*group, None)))
        }
    }
}
