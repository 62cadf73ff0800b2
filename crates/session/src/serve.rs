//! Serving a peer: its announce requests and subscriptions.

use std::{rc::Rc, time::Instant};

use relay_model::{
    Ask, Hop, LogId, Path, Prefs, Start, StreamCode, SubId, TrackInfo, TrackName, limits, name,
    transport::{Stream, Transport},
};
use relay_store::{LogEnd, Lookup};
use relay_wire::{
    DecodeError,
    lite::{self, Message, SubscribeResponse},
};
use smallvec::SmallVec;

use crate::{
    Batch, LocalGroup, LocalReader, ObjectFraming,
    control_stream::{ControlStreamReader, StreamEnd},
    fanout::LogView,
    fetch,
    requests::{NO_ERROR, ReadOutcome, refuse},
    session::{Cx, Session, StreamKind},
    sub::{DownstreamSub, RequestKind},
    watch::{AdvertisePolicy, AnnounceStream},
    work::{self, REQUEST},
};

/// Paths examined by one watch before the session's next watch has its turn.
const FILL_ENTRIES: usize = 64;

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
        // The first watch of a prefix counts the live paths below it.
        let paths = u32::try_from(cx.store.board().paths() / work::SCANNED).unwrap_or(u32::MAX);
        cx.work.take(paths);
        let watch = cx.store.board().watch(cx.fanout.worker(), prefix.clone());
        let viewer = AdvertisePolicy {
            session: self.config.id,
            hop: self.config.hop,
            scope: grant.subscribe.clone(),
            prefix,
            exclude: self.exclude(request.exclude_hop),
            is_relay: self.peer.is_relay,
            is_peer: grant.is_peer,
        };
        cx.fanout.watch(self.config.id);
        self.watches.push(AnnounceStream::new(stream, viewer, watch, self.config.version));
        if request.exclude_hop != Hop::ANONYMOUS && self.peer.exclude != request.exclude_hop {
            self.peer.exclude = request.exclude_hop;
            self.ask(cx, Ask::Exclude { hop: request.exclude_hop });
        }
        self.pump_watches(t, cx);
    }

    /// Hop whose routes are not advertised to the peer: from the request, or else from SETUP.
    fn exclude(&self, asked: Hop) -> Hop {
        if self.config.version.has_exclude_hop() { asked } else { self.peer.exclude }
    }

    /// Marks the peer as a relay, which forwards other publishers: from now on it gets every route.
    pub(crate) fn know_relay(&mut self) {
        if !std::mem::replace(&mut self.peer.is_relay, true) {
            self.watches.iter_mut().for_each(AnnounceStream::advertise_all);
            self.has_room = true;
        }
    }

    /// Sends changes of the board to the peer, as far as it accepts them and `cx.work` lasts: a few messages of
    /// one watch at a time, written together, and the watches in turn.
    pub(crate) fn pump_watches<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        self.watches_due = false;
        if !self.may_meet() {
            return;
        }
        // Number of consecutive watches with nothing more.
        let mut idle = 0;
        while idle < self.watches.len() && self.control.has_room() {
            if cx.work.is_spent() {
                self.watches_due = true;
                return;
            }
            self.next_watch = if self.next_watch < self.watches.len() { self.next_watch } else { 0 };
            let Some(watching) = self.watches.get_mut(self.next_watch) else { return };
            let mut out = Vec::new();
            let filled = watching.fill(self.config.version, FILL_ENTRIES, &mut out);
            let stream = watching.stream;
            let entries = u32::try_from(filled.entries).unwrap_or(u32::MAX);
            cx.work.take(entries.saturating_mul(work::WATCH_ENTRY));
            if !out.is_empty() {
                self.control.send(t, cx.now, stream, out);
            }
            if filled.is_broken {
                self.break_watch(t, cx, stream);
                continue;
            }
            self.next_watch += 1;
            idle = if filled.more { 0 } else { idle + 1 };
        }
    }

    /// Resets an announce stream that cannot be continued; the peer may request it again.
    fn break_watch<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, stream: Stream) {
        self.drop_watch(cx, stream);
        self.control.reset(t, stream, StreamCode::CANCEL);
        self.forget(t, stream);
    }

    pub(crate) fn read_watch<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut inlet: ControlStreamReader,
    ) -> ReadOutcome {
        inlet.fill(t, stream, cx.work);
        if inlet.end().is_none() && inlet.buffer.is_empty() {
            return ReadOutcome::Keep(StreamKind::Watch(inlet));
        }
        if inlet.end().is_none() {
            t.stop(stream, NO_ERROR);
        }
        self.drop_watch(cx, stream);
        self.control.finish(t, stream);
        ReadOutcome::Done
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
        (wire_id, prefs, kind): (u64, Prefs, RequestKind),
    ) -> Option<SubId> {
        let path = self.grant.as_ref()?.root.join(broadcast);
        let Ok(path) = path else {
            self.violation(t, cx, "broadcast path too long");
            return None;
        };
        let taken = kind == RequestKind::Live
            && self.egress.subs().any(|sub| sub.kind == RequestKind::Live && sub.wire_id == wire_id);
        if taken {
            self.violation(t, cx, "duplicate subscribe id");
            return None;
        }
        if self.winding {
            refuse(t, cx, stream, StreamCode::GOING_AWAY);
            return None;
        }
        if name::check(track.as_str()).is_err() {
            cx.meter.track_names_refused += 1;
            refuse(t, cx, stream, StreamCode::NOT_FOUND);
            return None;
        }
        if cx.store.budget().at_ceiling() {
            cx.meter.requests_refused_memory += 1;
            refuse(t, cx, stream, StreamCode::INTERNAL);
            return None;
        }
        let framing = ObjectFraming::of(self.config.version);
        let names = path.as_str().len() + track.as_str().len();
        let make = |id| DownstreamSub::new(id, wire_id, stream, kind, prefs, framing).with_names(names);
        let Some(sub) = self.egress.insert(self.limits.subscriptions, make) else {
            cx.meter.subscriptions_limited += 1;
            refuse(t, cx, stream, StreamCode::EXCESSIVE_LOAD);
            return None;
        };
        self.ask(cx, Ask::Subscribe { sub, path, track, prefs, want: kind.want() });
        Some(sub)
    }

    pub(crate) fn read_sub<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        id: SubId,
        mut inlet: ControlStreamReader,
    ) -> ReadOutcome {
        let Some(kind) = self.egress.get_mut(id).map(|sub| sub.kind) else { return ReadOutcome::Done };
        loop {
            let more = inlet.fill(t, stream, cx.work);
            if kind != RequestKind::Live {
                // No message may follow such a request.
                inlet.discard();
            } else {
                match self.take_updates(t, cx, id, &mut inlet) {
                    Ok(true) if cx.work.is_spent() => return ReadOutcome::Keep(StreamKind::Sub(id, inlet)),
                    Ok(true) => {}
                    Ok(false) => {
                        self.hold_back(stream);
                        return ReadOutcome::Keep(StreamKind::Sub(id, inlet));
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
            None => ReadOutcome::Keep(StreamKind::Sub(id, inlet)),
            // A single-message request may be finished before its response.
            Some(StreamEnd::Fin) if kind != RequestKind::Live => {
                ReadOutcome::Keep(StreamKind::Sub(id, inlet))
            }
            Some(StreamEnd::Fin) => {
                self.drop_sub(t, cx, id);
                self.control.finish(t, stream);
                ReadOutcome::Done
            }
            Some(StreamEnd::Reset(_)) => {
                self.drop_sub(t, cx, id);
                self.control.reset(t, stream, StreamCode::CANCEL);
                ReadOutcome::Done
            }
        }
    }

    /// Processes complete updates; false when core is behind and some must wait.
    fn take_updates<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        id: SubId,
        inlet: &mut ControlStreamReader,
    ) -> Result<bool, DecodeError> {
        if !self.config.version.has_ranges() {
            // These versions define no updates; @moq/lite sends a new priority as a bare byte.
            return self.take_priorities(t, cx, id, inlet);
        }
        while self.may_ask() && self.pace.allows(cx.now) {
            if cx.work.is_spent() {
                return Ok(true);
            }
            let Some(update) = inlet.buffer.next::<lite::SubscribeUpdate>(self.config.version)? else {
                return Ok(true);
            };
            let prefs = update.prefs;
            cx.work.take(REQUEST);
            self.pace.took(cx.now);
            self.update_sub(t, cx, id, prefs);
            self.ask(cx, Ask::Update { sub: id, prefs });
        }
        Ok(inlet.buffer.is_empty())
    }

    /// Processes updates that consist of a priority byte only.
    fn take_priorities<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        id: SubId,
        inlet: &mut ControlStreamReader,
    ) -> Result<bool, DecodeError> {
        if inlet.buffer.is_empty() {
            return Ok(true);
        }
        if !self.may_ask() || !self.pace.allows(cx.now) {
            return Ok(false);
        }
        let (last, before) = (inlet.buffer.take_last(), self.egress.get_mut(id).map(|sub| sub.prefs));
        if let (Some(priority), Some(before)) = (last, before) {
            let prefs = Prefs { priority, ..before };
            self.pace.took(cx.now);
            self.update_sub(t, cx, id, prefs);
            self.ask(cx, Ask::Update { sub: id, prefs });
        }
        Ok(true)
    }

    /// Applies new preferences. Held groups admitted by a raised end are delivered at once.
    fn update_sub<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, id: SubId, prefs: Prefs) {
        let Some(before) = self.egress.get_mut(id).map(|sub| sub.prefs) else { return };
        self.with_egress(t, cx, |egress, out| egress.update(out, id, prefs));
        let Some(end) = before.end.filter(|end| prefs.end.is_none_or(|new| new > *end)) else { return };
        let Some(sub) = self.egress.get_mut(id) else { return };
        let Some(view) = sub.log.and_then(|log| cx.fanout.log_view(log)) else { return };
        let opened = first_groups(view, sub, cx.now, |sequence| sequence > end);
        let batch = Batch { opened, ..Batch::default() };
        if self.with_egress(t, cx, |egress, out| egress.apply_batch(out, id, &batch)) {
            self.finish_subs(t, cx, vec![id]);
        }
    }

    /// Attaches a subscription to the log assigned by core, initially or as a replacement.
    pub(crate) fn attach<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, id: SubId, log: LogId) {
        let reader = LocalReader { session: self.config.id, sub: id };
        let Some(sub) = self.egress.get_mut(id) else { return };
        if sub.log.is_some() {
            return self.change_log(t, cx, id, log);
        }
        let (prefs, stream) = (sub.prefs, sub.stream);
        let Some(view) = cx.fanout.attach(cx.store, log, reader, sub.framing) else {
            self.refuse_sub(t, cx, id, StreamCode::NOT_FOUND);
            return;
        };
        sub.log = Some(log);
        let (info, end) = (view.info(), view.end());
        match sub.kind {
            RequestKind::Info => return self.answer_info(t, cx, id, info, end),
            RequestKind::Fetch { group, .. } => {
                let found = fetch::find(view, group, sub.encoding_key(group), cx.now);
                return self.answer_fetch(t, cx, id, found);
            }
            RequestKind::Live => {}
        }
        if self.config.version.has_subscribe_ok() {
            let ok = lite::SubscribeOk { priority: prefs.priority, ..lite::SubscribeOk::default() };
            let mut message = Vec::new();
            SubscribeResponse::Ok(ok).encode(self.config.version, &mut message);
            self.control.send(t, cx.now, stream, message);
        }
        let groups = first_groups(view, sub, cx.now, |_| true);
        if self.with_egress(t, cx, |egress, out| egress.begin(out, id, &groups, end)) {
            self.finish_subs(t, cx, vec![id]);
        }
    }

    /// Moves a subscription to another log of the same publisher's track: groups being sent are completed from
    /// there.
    fn change_log<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, id: SubId, log: LogId) {
        let reader = LocalReader { session: self.config.id, sub: id };
        let Some(sub) = self.egress.get_mut(id) else { return };
        let Some(before) = sub.log.replace(log) else { return };
        let open = sub.cursors.iter().filter(|cursor| !cursor.group.has_ended(cursor.key));
        let open: SmallVec<[Rc<LocalGroup>; 2]> = open.map(|cursor| cursor.group.clone()).collect();
        if let Some(view) = cx.fanout.log_view(before) {
            // Entries this worker has not pulled yet.
            for group in &open {
                view.catch_up(group);
            }
        }
        cx.fanout.detach(before, reader);
        let Some(view) = cx.fanout.attach(cx.store, log, reader, sub.framing) else {
            sub.log = None;
            return self.refuse_sub(t, cx, id, StreamCode::NOT_FOUND);
        };
        open.iter().filter(|group| !group.is_over()).for_each(|group| view.adopt(group, cx.now));
        let (info, end) = (view.info(), view.end());
        if sub.kind == RequestKind::Info {
            return self.answer_info(t, cx, id, info, end);
        }
        let opened = match sub.kind {
            RequestKind::Live => first_groups(view, sub, cx.now, |_| true),
            _ => SmallVec::new(),
        };
        let batch = Batch { opened, end, ..Batch::default() };
        if self.with_egress(t, cx, |egress, out| egress.apply_batch(out, id, &batch)) {
            self.finish_subs(t, cx, vec![id]);
        }
    }

    /// Delivers a batch of log events to one subscription.
    pub(crate) fn deliver<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, id: SubId, batch: &Batch) {
        let Some(sub) = self.egress.get_mut(id) else { return };
        if sub.kind == RequestKind::Info {
            self.answer_info(t, cx, id, batch.info, batch.end);
            return;
        }
        if let Some(log) = sub.log.filter(|_| sub.has_frame_bounds()) {
            for sequence in batch.opened.iter().map(|group| group.sequence()) {
                let shape = sub.encoding_key(sequence);
                if !shape.is_whole() {
                    cx.fanout.add_encoding(log, sequence, shape, cx.now);
                }
            }
        }
        if self.with_egress(t, cx, |egress, out| egress.apply_batch(out, id, batch)) {
            self.finish_subs(t, cx, vec![id]);
        }
    }

    pub(crate) fn answer_info<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        id: SubId,
        info: Option<TrackInfo>,
        end: Option<LogEnd>,
    ) {
        match (info, end) {
            (Some(info), _) => {
                let Some(sub) = self.drop_sub(t, cx, id) else { return };
                let mut message = Vec::new();
                info.encode(self.config.version, &mut message);
                self.control.send(t, cx.now, sub.stream, message);
                self.control.finish(t, sub.stream);
                self.forget(t, sub.stream);
            }
            (None, Some(end)) => self.refuse_sub(t, cx, id, end.code.unwrap_or(StreamCode::NOT_FOUND)),
            (None, None) => {}
        }
    }

    /// Sends the end of finished subscriptions.
    pub(crate) fn finish_subs<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, over: Vec<SubId>) {
        for id in over {
            let Some(end) = self.egress.get_mut(id).and_then(|sub| sub.is_over()) else { continue };
            match end {
                Some(code) => self.refuse_sub(t, cx, id, code),
                None => {
                    let Some(sub) = self.drop_sub(t, cx, id) else { continue };
                    if sub.kind == RequestKind::Live {
                        self.send_end(t, cx.now, &sub);
                    }
                    self.forget(t, sub.stream);
                }
            }
        }
    }

    /// Sends the clean end of a track; in versions without SUBSCRIBE_END only a FIN.
    fn send_end<T: Transport>(&mut self, t: &mut T, now: Instant, sub: &DownstreamSub) {
        if !self.config.version.has_subscribe_ok() {
            let mut message = Vec::new();
            SubscribeResponse::End { group: sub.bound() }.encode(self.config.version, &mut message);
            self.control.send(t, now, sub.stream, message);
        }
        self.control.finish(t, sub.stream);
    }

    /// Ends a subscription by resetting its response stream.
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

    /// Removes a subscription everywhere except on its stream.
    pub(crate) fn drop_sub<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        id: SubId,
    ) -> Option<DownstreamSub> {
        let sub = self.egress.remove(t, id, StreamCode::CANCEL)?;
        if let Some(log) = sub.log {
            cx.fanout.detach(log, LocalReader { session: self.config.id, sub: id });
        }
        self.ask(cx, Ask::Unsubscribe { sub: id });
        Some(sub)
    }

    /// Stops reading a stream whose response is complete.
    pub(crate) fn forget<T: Transport>(&mut self, t: &mut T, stream: Stream) {
        self.streams.remove(&stream);
        t.stop(stream, NO_ERROR);
    }
}

/// Held groups that a subscription wants and `among` allows, oldest first: the newest ones, up to the limit of
/// open groups per reader.
fn first_groups(
    view: &mut LogView,
    sub: &DownstreamSub,
    now: Instant,
    among: impl Fn(u64) -> bool,
) -> SmallVec<[Rc<LocalGroup>; 2]> {
    // The start of a running subscription is known, even if none was requested.
    let start = match (sub.prefs.start, sub.floor) {
        (Start::Latest | Start::Fresh { .. }, Some(floor)) => Start::Fresh { floor },
        (start, _) => start,
    };
    let mut first = view.first_groups(start, sub.prefs.max_age_ms, now);
    // A group without its first frames is no valid start, except for a reader that does not want those frames.
    if let Some(floor) = sub.prefs.start.floor().filter(|_| sub.prefs.start_frame > 0)
        && !first.contains(&floor)
        && view.is_latest(floor)
        && view.lookup(floor, sub.prefs.start_frame) == Lookup::Held
    {
        first.insert(0, floor);
    }
    first.retain(|sequence| sub.wants(*sequence) && among(*sequence));
    let surplus = first.len().saturating_sub(limits::READER_GROUPS);
    first
        .drain(surplus..)
        .filter_map(|sequence| view.load(sequence, sub.encoding_key(sequence), now))
        .collect()
}
