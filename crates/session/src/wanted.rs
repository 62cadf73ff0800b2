//! Requests of ours that wait for stream credit of the peer: a bounded queue, and a bounded wait.

use std::time::Instant;

use relay_model::{LogId, Path, StreamCode, limits};
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
    upstream::unclean,
};

/// A bidirectional stream to be opened toward the peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Wanted {
    Goaway,
    Announces(Path),
    Track(LogId),
    Subscribe(LogId),
    Fetch(LogId, u64),
}

impl Session {
    /// Queues a request and opens what can be opened. A queue that is full refuses it to who asked.
    pub(crate) fn want<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, wanted: Wanted) {
        if self.wanting.len() >= limits::WAITING_REQUESTS {
            let mut waiting = std::mem::take(&mut self.wanting);
            waiting.retain(|(_, wanted)| self.is_wanted(wanted));
            self.wanting = waiting;
        }
        if self.wanting.len() >= limits::WAITING_REQUESTS && !matches!(wanted, Wanted::Announces(_)) {
            self.give_up_wanted(t, cx, &wanted);
            return;
        }
        self.wanting.push_back((cx.now, wanted));
        self.open_wanted(t, cx);
    }

    /// Opens what waits for stream credit.
    pub(crate) fn open_wanted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        while let Some((_, wanted)) = self.wanting.front().cloned() {
            if !self.is_wanted(&wanted) {
                self.wanting.pop_front();
                continue;
            }
            let Some(stream) = t.open(Dir::Bi, PRIORITY_CONTROL) else { return };
            self.wanting.pop_front();
            self.open_one(t, cx, stream, wanted);
        }
    }

    /// When the oldest waiting request has waited for too long.
    pub(crate) fn wanting_deadline(&self) -> Option<Instant> {
        let waits = |wanted: &Wanted| !matches!(wanted, Wanted::Announces(_) | Wanted::Goaway);
        self.wanting.iter().find(|(_, wanted)| waits(wanted)).map(|(at, _)| *at + limits::WAITING_TIMEOUT)
    }

    /// Refuses what has waited for too long: whoever asked is told, and does not wait for good.
    pub(crate) fn expire_wanted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        while self.wanting_deadline().is_some_and(|due| cx.now >= due) {
            let late = self
                .wanting
                .iter()
                .position(|(_, wanted)| !matches!(wanted, Wanted::Announces(_) | Wanted::Goaway));
            let Some((_, wanted)) = late.and_then(|at| self.wanting.remove(at)) else { return };
            self.give_up_wanted(t, cx, &wanted);
        }
    }

    fn give_up_wanted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, wanted: &Wanted) {
        if !self.is_wanted(wanted) {
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

    /// Whether somebody still waits for it.
    fn is_wanted(&mut self, wanted: &Wanted) -> bool {
        match wanted {
            Wanted::Announces(_) | Wanted::Goaway => true,
            Wanted::Track(log) | Wanted::Subscribe(log) => self.upstreams.get_mut(*log).is_some(),
            Wanted::Fetch(log, group) => {
                self.upstreams.get_mut(*log).is_some_and(|up| up.pulls.contains(&(*group, None)))
            }
        }
    }

    fn open_one<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, stream: Stream, wanted: Wanted) {
        let mut message = Vec::new();
        let Some(role) = self.request(cx.now, stream, &wanted, &mut message) else { return };
        self.streams.insert(stream, role);
        self.control.send(t, cx.now, stream, message);
        if wanted == Wanted::Goaway {
            self.control.finish(t, cx.now, stream);
            t.stop(stream, NO_ERROR);
            self.streams.remove(&stream);
        }
    }

    /// The first bytes of a request, and what its stream is from now on.
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
                let up = self.upstreams.get_mut(*log)?;
                up.track_stream = Some(stream);
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
