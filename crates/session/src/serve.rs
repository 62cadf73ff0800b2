//! Serving a peer: announces it watches, tracks it subscribes to.

use std::time::Instant;

use relay_model::{Ask, LogId, Path, Prefs, StreamCode, SubId, TrackInfo, TrackName, Want, limits};
use relay_store::End;
use relay_wire::{
    Error,
    lite::{self, Message, SubscribeResponse},
};

use crate::{
    Batch, Framing, Reader,
    inlet::{Ended, Inlet},
    requests::{NO_ERROR, Next, refuse},
    session::{Cx, Role, Session},
    sub::Sub,
    transport::{Stream, Transport},
    watch::{Viewer, Watching},
};

impl Session {
    // Announces to the peer.

    pub(crate) fn start_watch<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        request: &lite::AnnounceRequest,
    ) {
        let Some(grant) = &self.grant else { return };
        let Ok(prefix) = grant.root.join(&request.prefix) else {
            self.violation(t, cx, "announce prefix too long");
            return;
        };
        if self.watches.len() >= limits::ANNOUNCE_REQUESTS {
            self.violation(t, cx, "too many announce requests");
            return;
        }
        let watch = cx.store.board().watch(cx.fanout.worker(), prefix.clone());
        let viewer = Viewer {
            session: self.config.id,
            hop: self.config.hop,
            scope: grant.subscribe.clone(),
            prefix,
            exclude: request.exclude_hop,
        };
        cx.fanout.watch(self.config.id);
        self.watches.push(Watching::new(stream, viewer, watch));
        self.pump_watches(t, cx.now);
    }

    /// Tells the peer what changed, as far as it takes it.
    pub(crate) fn pump_watches<T: Transport>(&mut self, t: &mut T, now: Instant) {
        for watching in &mut self.watches {
            while self.control.has_room() {
                let Some(message) = watching.next(self.config.version) else { break };
                self.control.send(t, now, watching.stream, message);
            }
        }
    }

    pub(crate) fn read_watch<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut inlet: Inlet,
    ) -> Next {
        inlet.fill(t, stream);
        if inlet.end().is_none() && inlet.inbox.is_empty() {
            return Next::Keep(Role::Watch(inlet));
        }
        if inlet.end().is_none() {
            t.stop(stream, NO_ERROR);
        }
        self.drop_watch(cx, stream);
        self.control.finish(t, cx.now, stream);
        Next::Done
    }

    pub(crate) fn drop_watch(&mut self, cx: &mut Cx<'_>, stream: Stream) {
        self.watches.retain(|watching| watching.stream != stream);
        if self.watches.is_empty() {
            cx.fanout.unwatch(self.config.id);
        }
    }

    // Subscriptions of the peer.

    pub(crate) fn start_sub<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        broadcast: &Path,
        track: TrackName,
        (wire_id, prefs, want): (u64, Prefs, Want),
    ) -> Option<SubId> {
        let path = self.grant.as_ref()?.root.join(broadcast);
        let Ok(path) = path else {
            self.violation(t, cx, "broadcast path too long");
            return None;
        };
        let taken = want == Want::Live
            && self.egress.subs().any(|sub| sub.want == Want::Live && sub.wire_id == wire_id);
        if taken {
            self.violation(t, cx, "subscribe id is in use");
            return None;
        }
        let framing = Framing::of(self.config.version);
        let Some(sub) = self.egress.insert(|id| Sub::new(id, wire_id, stream, want, prefs, framing)) else {
            refuse(t, cx, stream, StreamCode::CANCEL);
            return None;
        };
        self.ask(cx, Ask::Subscribe { sub, path, track, prefs, want });
        Some(sub)
    }

    pub(crate) fn read_sub<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        id: SubId,
        mut inlet: Inlet,
    ) -> Next {
        let Some(want) = self.egress.get_mut(id).map(|sub| sub.want) else { return Next::Done };
        loop {
            let more = inlet.fill(t, stream);
            if want == Want::Live {
                match self.take_updates(t, cx, id, &mut inlet) {
                    Ok(true) => {}
                    Ok(false) => {
                        self.hold_back(stream);
                        return Next::Keep(Role::Sub(id, inlet));
                    }
                    Err(error) => {
                        self.drop_sub(t, cx, id);
                        return self.bad_request(t, cx, stream, &error);
                    }
                }
            }
            if !more {
                break;
            }
        }
        match inlet.end() {
            None => Next::Keep(Role::Sub(id, inlet)),
            // A TRACK request may be finished before it is answered.
            Some(Ended::Fin) if want == Want::Info => Next::Keep(Role::Sub(id, inlet)),
            Some(Ended::Fin) => {
                self.drop_sub(t, cx, id);
                self.control.finish(t, cx.now, stream);
                Next::Done
            }
            Some(Ended::Reset(_)) => {
                self.drop_sub(t, cx, id);
                self.control.reset(t, stream, StreamCode::CANCEL);
                Next::Done
            }
        }
    }

    /// Takes the updates that are whole; false when core is behind and some must wait.
    fn take_updates<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        id: SubId,
        inlet: &mut Inlet,
    ) -> Result<bool, Error> {
        while self.may_ask() {
            let Some(update) = inlet.inbox.next::<lite::SubscribeUpdate>(self.config.version)? else {
                return Ok(true);
            };
            let prefs = update.prefs;
            self.with_egress(t, cx, |egress, out| egress.update(out, id, prefs));
            self.ask(cx, Ask::Update { sub: id, prefs });
        }
        Ok(inlet.inbox.is_empty())
    }

    /// Core found the log that serves a subscription.
    pub(crate) fn attach<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, id: SubId, log: LogId) {
        let reader = Reader { session: self.config.id, sub: id };
        let Some(sub) = self.egress.get_mut(id) else { return };
        let (want, framing, start) = (sub.want, sub.framing, sub.prefs.start);
        let Some(mirror) = cx.fanout.attach(cx.store, log, reader, framing) else {
            self.refuse_sub(t, cx, id, StreamCode::NOT_FOUND);
            return;
        };
        sub.log = Some(log);
        let (info, end) = (mirror.info(), mirror.end());
        if want == Want::Info {
            self.answer_info(t, cx, id, info, end);
            return;
        }
        let mut first: Vec<u64> = match start {
            None => mirror.latest().into_iter().collect(),
            Some(start) => mirror.held(start),
        };
        let surplus = first.len().saturating_sub(limits::READER_GROUPS);
        let groups: Vec<_> =
            first.drain(surplus..).filter_map(|sequence| mirror.load(sequence, framing, cx.now)).collect();
        if self.with_egress(t, cx, |egress, out| egress.begin(out, id, &groups, end)) {
            self.finish_subs(t, cx, vec![id]);
        }
    }

    /// Gives one subscription a log's news.
    pub(crate) fn deliver<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, id: SubId, batch: &Batch) {
        if self.egress.get_mut(id).is_some_and(|sub| sub.want == Want::Info) {
            self.answer_info(t, cx, id, batch.info, batch.end);
            return;
        }
        if self.with_egress(t, cx, |egress, out| egress.news(out, id, batch)) {
            self.finish_subs(t, cx, vec![id]);
        }
    }

    pub(crate) fn answer_info<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        id: SubId,
        info: Option<TrackInfo>,
        end: Option<End>,
    ) {
        match (info, end) {
            (Some(info), _) => {
                let Some(sub) = self.drop_sub(t, cx, id) else { return };
                let mut message = Vec::new();
                info.encode(self.config.version, &mut message);
                self.control.send(t, cx.now, sub.stream, message);
                self.control.finish(t, cx.now, sub.stream);
                self.forget(t, sub.stream);
            }
            (None, Some(end)) => self.refuse_sub(t, cx, id, end.code.unwrap_or(StreamCode::NOT_FOUND)),
            (None, None) => {}
        }
    }

    /// Says the end of subscriptions that are over.
    pub(crate) fn finish_subs<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, over: Vec<SubId>) {
        for id in over {
            let Some(end) = self.egress.get_mut(id).and_then(|sub| sub.is_over()) else { continue };
            match end {
                Some(code) => self.refuse_sub(t, cx, id, code),
                None => {
                    let Some(sub) = self.drop_sub(t, cx, id) else { continue };
                    let mut message = Vec::new();
                    SubscribeResponse::End { group: sub.bound() }.encode(self.config.version, &mut message);
                    self.control.send(t, cx.now, sub.stream, message);
                    self.control.finish(t, cx.now, sub.stream);
                    self.forget(t, sub.stream);
                }
            }
        }
    }

    /// Ends a subscription with a reset of its answer.
    pub(crate) fn refuse_sub<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        id: SubId,
        code: StreamCode,
    ) {
        let Some(sub) = self.drop_sub(t, cx, id) else { return };
        cx.meter.requests_refused += 1;
        self.control.reset(t, sub.stream, code);
        self.forget(t, sub.stream);
    }

    /// Forgets a subscription everywhere but on its stream.
    pub(crate) fn drop_sub<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, id: SubId) -> Option<Sub> {
        let sub = self.egress.remove(t, id, StreamCode::CANCEL)?;
        if let Some(log) = sub.log {
            cx.fanout.detach(log, Reader { session: self.config.id, sub: id });
        }
        self.ask(cx, Ask::Unsubscribe { sub: id });
        Some(sub)
    }

    /// Reads no more of a stream whose answer is complete.
    pub(crate) fn forget<T: Transport>(&mut self, t: &mut T, stream: Stream) {
        self.streams.remove(&stream);
        t.stop(stream, NO_ERROR);
    }
}
