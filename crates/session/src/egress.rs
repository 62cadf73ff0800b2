//! Egress, the only caller of `write` for media: decides which data enters the stream buffers, and which
//! groups are dropped when a peer is slow.

use std::{
    collections::HashMap,
    rc::Rc,
    time::{Duration, Instant},
};

use foldhash::fast::RandomState;
use relay_meter::Worker as Meter;
use relay_model::{
    Prefs, StreamCode, SubId,
    transport::{Stream, Transport},
};
use relay_store::LogEnd;
use slab::Slab;

use crate::{
    control::{ControlQueue, Outbound},
    cursor::GroupCursor,
    dialect::MediaEncoder,
    encoded_group::LocalGroup,
    fanout::Batch,
    footprint::SUBSCRIPTION,
    request::RequestId,
    sub::{DownstreamSub, RequestKind},
    work::SCANNED,
};

mod index;
mod serve;

use index::EgressIndex;
use serve::{ServeOutcome, Serving};

/// Bytes a subscription sends before the next of the same priority has its turn.
const QUANTUM: usize = 16 * 1024;
/// Bytes, as charged to allowances, that a session writes before all other ready sessions have their turn.
const TURN_BYTES: usize = 1024 * 1024;
/// Interval at which superseded groups are checked.
const EXPIRY_TICK: Duration = Duration::from_millis(100);

/// Everything a session sends to its peer as a publisher of media.
#[derive(Debug)]
pub(crate) struct Egress {
    encoder: MediaEncoder,
    subs: Slab<DownstreamSub>,
    by_request: HashMap<RequestId, SubId, RandomState>,
    index: EgressIndex,
    /// Bytes of the subscriptions' names.
    names: u64,
    generation: u32,
    /// Whether a write fell short: nothing more is written before `Room`.
    congested: bool,
    /// Whether stream credit is used up: no stream is opened before `Openable`.
    unopenable: bool,
    /// Whether room, credit or a writable stream was reported since the last [`Self::pump`].
    due: bool,
    /// Whether the last call stopped at [`TURN_BYTES`], with more to send and possibly room for it.
    is_cut: bool,
    expiry: Option<Instant>,
    /// Whether no group is started any more.
    winding: bool,
    /// Slot whose turn it is among equal priorities.
    turn: usize,
    scratch: Vec<(u8, usize)>,
}

/// Context of a write.
pub(crate) struct EgressContext<'a, T: Transport> {
    pub(crate) t: &'a mut T,
    pub(crate) control: &'a mut ControlQueue,
    pub(crate) meter: &'a mut Meter,
    pub(crate) now: Instant,
}

impl<T: Transport> EgressContext<'_, T> {
    fn outbound(&mut self) -> Outbound<'_, T> {
        Outbound { t: self.t, control: self.control, now: self.now }
    }
}

/// Slot of a subscription.
fn slot_of(id: SubId) -> usize {
    id.0 as u32 as usize
}

impl Egress {
    pub(crate) fn new(encoder: MediaEncoder) -> Self {
        Self {
            encoder,
            subs: Slab::new(),
            by_request: HashMap::default(),
            index: EgressIndex::default(),
            names: 0,
            generation: 0,
            congested: false,
            unopenable: false,
            due: false,
            is_cut: false,
            expiry: None,
            winding: false,
            turn: 0,
            scratch: Vec::new(),
        }
    }

    /// Sets the encoder of the negotiated version, before anything has been written.
    pub(crate) fn set_encoder(&mut self, encoder: MediaEncoder) {
        self.encoder = encoder;
    }

    /// Adds a subscription; `None` when there are `most` already.
    pub(crate) fn insert(&mut self, most: usize, make: impl FnOnce(SubId) -> DownstreamSub) -> Option<SubId> {
        if self.subs.len() >= most {
            return None;
        }
        self.generation = self.generation.wrapping_add(1);
        let slot = self.subs.vacant_entry();
        let id = SubId((u64::from(self.generation) << 32) | slot.key() as u64);
        let sub = slot.insert(make(id));
        self.names += u64::from(sub.names);
        self.by_request.insert(sub.request, id);
        Some(id)
    }

    pub(crate) fn get_mut(&mut self, id: SubId) -> Option<&mut DownstreamSub> {
        self.subs.get_mut(slot_of(id)).filter(|sub| sub.id == id)
    }

    /// Subscription that a request of the peer made.
    pub(crate) fn of_request(&self, request: RequestId) -> Option<SubId> {
        self.by_request.get(&request).copied()
    }

    /// Removes a subscription; its open group streams are reset.
    pub(crate) fn remove<T: Transport>(
        &mut self,
        t: &mut T,
        id: SubId,
        code: StreamCode,
    ) -> Option<DownstreamSub> {
        self.get_mut(id)?;
        let sub = self.subs.remove(slot_of(id));
        self.names -= u64::from(sub.names);
        self.by_request.remove(&sub.request);
        self.index.remove(slot_of(id));
        self.index.over(sub.cursors.len());
        for cursor in &sub.cursors {
            cursor.reset(t, code);
            if let Some(stream) = cursor.indexed() {
                self.index.remove_stream(stream);
            }
        }
        Some(sub)
    }

    /// All subscriptions.
    pub(crate) fn subs(&self) -> impl Iterator<Item = &DownstreamSub> {
        self.subs.iter().map(|(_, sub)| sub)
    }

    /// Memory held for the subscriptions, bytes.
    pub(crate) fn footprint(&self) -> u64 {
        self.subs.len() as u64 * SUBSCRIPTION + self.names
    }

    /// Units of work charged for a scan of all subscriptions.
    pub(crate) fn scan_units(&self) -> u32 {
        u32::try_from(self.subs.len() / SCANNED).unwrap_or(u32::MAX)
    }

    /// Time at which [`Self::expire`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.expiry
    }

    fn serving(&mut self, id: SubId) -> Option<Serving<'_>> {
        let Self { encoder, index, subs, .. } = self;
        let sub = subs.get_mut(slot_of(id)).filter(|sub| sub.id == id)?;
        Some(Serving { encoder: *encoder, index, slot: slot_of(id), sub })
    }

    /// Applies a batch of log events to one subscription. Returns true when the subscription is over.
    pub(crate) fn apply_batch<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        id: SubId,
        batch: &Batch,
    ) -> bool {
        let winding = self.winding;
        let Some(mut serving) = self.serving(id) else { return false };
        for group in batch.opened.iter().filter(|_| !winding) {
            if serving.sub.take(group) {
                serving.index.begun(1);
                out.meter.groups_out += 1;
            }
        }
        for (first, last, code) in &batch.dropped {
            serving.dropped(out, *first, *last, *code);
        }
        for (group, tick, payload) in &batch.datagrams {
            serving.datagram(out, (*group, *tick, payload));
        }
        if batch.end.is_some() {
            serving.sub.end = batch.end;
        }
        if serving.sub.lags() {
            serving.shed(out);
            serving.index.lagging.insert(serving.slot);
            self.expiry.get_or_insert(out.now + EXPIRY_TICK);
        }
        self.serve_if_free(out, id)
    }

    /// Starts a subscription with its first groups, oldest first.
    pub(crate) fn begin<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        id: SubId,
        groups: &[Rc<LocalGroup>],
        end: Option<LogEnd>,
    ) -> bool {
        let winding = self.winding;
        let Some(serving) = self.serving(id) else { return false };
        let Serving { sub, index, slot, .. } = serving;
        if let Some(first) = groups.first().filter(|_| sub.floor.is_some()) {
            // Requested groups that are not held will not arrive: the first held group becomes the floor.
            sub.floor = sub.floor.max(Some(first.sequence()));
        }
        for group in groups.iter().filter(|_| !winding) {
            if sub.take(group) {
                index.begun(1);
                out.meter.groups_out += 1;
            }
        }
        sub.end = end;
        if sub.lags() {
            index.lagging.insert(slot);
            self.expiry.get_or_insert(out.now + EXPIRY_TICK);
        }
        self.serve_if_free(out, id)
    }

    /// Sends a fetched group on its request's stream.
    pub(crate) fn fetched<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        id: SubId,
        group: Rc<LocalGroup>,
    ) -> bool {
        let Some(Serving { encoder, index, sub, .. }) = self.serving(id) else { return false };
        let key = sub.encoding_key(group.sequence());
        let stream = encoder.fetch_stream(sub.request);
        sub.started = true;
        sub.cursors.push(GroupCursor::on(stream, group, key));
        index.begun(1);
        out.t.set_priority(stream, sub.priority());
        self.serve_if_free(out, id)
    }

    /// Starts no further group; started ones continue.
    pub(crate) fn wind_down<T: Transport>(&mut self, out: &mut EgressContext<'_, T>) {
        self.winding = true;
        let Self { encoder, index, subs, .. } = self;
        for (slot, sub) in subs {
            let mut serving = Serving { encoder: *encoder, index, slot, sub };
            while let Some(at) = serving.sub.cursors.iter().position(|cursor| cursor.stream.is_none()) {
                serving.give_up(out, at, StreamCode::GOING_AWAY);
            }
        }
    }

    /// Whether every started group has been written.
    pub(crate) fn is_quiet(&self) -> bool {
        self.index.open() == 0
    }

    /// Number of FETCH requests.
    pub(crate) fn fetches(&self) -> usize {
        self.subs().filter(|sub| matches!(sub.kind, RequestKind::Fetch { .. })).count()
    }

    /// Records that the transport has room again.
    pub(crate) fn room(&mut self) {
        self.congested = false;
        self.due = true;
    }

    /// Records that stream credit is available again.
    pub(crate) fn openable(&mut self) {
        self.unopenable = false;
        self.due = true;
    }

    /// Whether there is more to send without an event to wait for. True once.
    pub(crate) fn take_cut(&mut self) -> bool {
        std::mem::take(&mut self.is_cut)
    }

    /// Unblocks a stream.
    pub(crate) fn writable(&mut self, stream: Stream) {
        let Some((slot, sub, at)) = self.find(stream) else { return };
        if let Some(cursor) = sub.cursors.get_mut(at) {
            cursor.unpark();
        }
        self.index.runnable.insert(slot);
        self.due = true;
    }

    /// Sends the backlog by priority, in fair shares. Call after all events of a batch, so that the first
    /// writable stream does not take the share of others. Returns subscriptions that
    /// are over.
    pub(crate) fn pump<T: Transport>(&mut self, out: &mut EgressContext<'_, T>) -> Vec<SubId> {
        if !std::mem::take(&mut self.due) || self.congested {
            return Vec::new();
        }
        self.fill(out)
    }

    /// Handles STOP_SENDING for a group.
    pub(crate) fn stopped<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        stream: Stream,
        code: StreamCode,
    ) -> Vec<SubId> {
        out.t.reset(stream, code);
        let Some((_, sub, at)) = self.find(stream) else { return Vec::new() };
        let id = sub.id;
        if let Some(mut serving) = self.serving(id) {
            serving.take_out(at);
        }
        if self.serve_if_free(out, id) { vec![id] } else { Vec::new() }
    }

    /// Applies new preferences of the peer.
    pub(crate) fn update<T: Transport>(&mut self, out: &mut EgressContext<'_, T>, id: SubId, prefs: Prefs) {
        let Some(sub) = self.get_mut(id) else { return };
        sub.update(prefs);
        let priority = sub.priority();
        sub.cursors.iter().filter_map(|cursor| cursor.stream).for_each(|s| out.t.set_priority(s, priority));
    }

    /// Drops superseded groups over the age budget; call when [`Self::deadline`] has passed.
    pub(crate) fn expire<T: Transport>(&mut self, out: &mut EgressContext<'_, T>) -> Vec<SubId> {
        self.expiry = None;
        let mut over = Vec::new();
        let mut lagging = std::mem::take(&mut self.index.lagging);
        lagging.retain(|slot| {
            let Self { encoder, index, subs, expiry, .. } = self;
            let Some(sub) = subs.get_mut(slot) else { return false };
            let mut serving = Serving { encoder: *encoder, index, slot, sub };
            serving.expire(out);
            if sub.is_over().is_some() {
                over.push(sub.id);
            }
            let lags = sub.lags();
            if lags {
                *expiry = Some(out.now + EXPIRY_TICK);
            }
            lags
        });
        self.index.lagging = lagging;
        over
    }

    /// Slot, subscription and position of the cursor that sends on a stream.
    fn find(&mut self, stream: Stream) -> Option<(usize, &mut DownstreamSub, usize)> {
        let slot = self.index.slot_of(stream)?;
        let sub = self.subs.get_mut(slot)?;
        let at = sub.cursors.iter().position(|cursor| cursor.stream == Some(stream))?;
        Some((slot, sub, at))
    }

    /// Fast path without a backlog: new data is written to its streams at once.
    fn serve_if_free<T: Transport>(&mut self, out: &mut EgressContext<'_, T>, id: SubId) -> bool {
        let (congested, unopenable) = (self.congested, self.unopenable);
        let Some(mut serving) = self.serving(id) else { return false };
        if congested {
            serving.index.runnable.insert(serving.slot);
            return serving.sub.is_over().is_some();
        }
        let mut allowance = TURN_BYTES;
        let outcome = serving.serve(out, unopenable, &mut allowance);
        let is_over = serving.sub.is_over().is_some();
        match outcome {
            ServeOutcome::Short => self.congested = true,
            ServeOutcome::Unopened => self.unopenable = true,
            ServeOutcome::Spent => (self.due, self.is_cut) = (true, true),
            ServeOutcome::Through => {}
        }
        is_over
    }

    fn fill<T: Transport>(&mut self, out: &mut EgressContext<'_, T>) -> Vec<SubId> {
        let mut over = Vec::new();
        let mut order = std::mem::take(&mut self.scratch);
        order.clear();
        let Self { index, subs, turn, .. } = self;
        index.runnable.retain(|slot| {
            let Some(sub) = subs.get(slot) else { return false };
            let is_runnable = sub.cursors.iter().any(GroupCursor::is_runnable);
            if is_runnable {
                order.push((sub.prefs.priority, slot));
            }
            is_runnable
        });
        let turn = *turn;
        order.sort_unstable_by_key(|(priority, slot)| (u8::MAX - priority, *slot < turn, *slot));
        let mut left = TURN_BYTES;
        for class in order.chunk_by(|a, b| a.0 == b.0) {
            if !self.fill_class(out, class, &mut left, &mut over) {
                break;
            }
        }
        self.scratch = order;
        over
    }

    /// Deficit round robin over subscriptions of one priority; false when the room, or the `left` bytes of the
    /// session's turn, is used up.
    fn fill_class<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        class: &[(u8, usize)],
        left: &mut usize,
        over: &mut Vec<SubId>,
    ) -> bool {
        let Self { encoder, index, subs, congested, unopenable, turn, due, is_cut, .. } = self;
        let mut spent = true;
        while std::mem::take(&mut spent) {
            for (_, slot) in class {
                let Some(sub) = subs.get_mut(*slot) else { continue };
                // A subscription cut short continues with its remaining deficit: room comes in small pieces.
                if sub.deficit == 0 {
                    sub.deficit = QUANTUM;
                }
                let mut allowance = sub.deficit;
                let mut serving = Serving { encoder: *encoder, index, slot: *slot, sub };
                serving.expire(out);
                let outcome = serving.serve(out, *unopenable, &mut allowance);
                *left = left.saturating_sub(sub.deficit - allowance);
                sub.deficit = allowance;
                if sub.is_over().is_some() && !over.contains(&sub.id) {
                    over.push(sub.id);
                }
                match outcome {
                    ServeOutcome::Short => {
                        *congested = true;
                        *turn = if sub.deficit == 0 { *slot + 1 } else { *slot };
                        return false;
                    }
                    ServeOutcome::Unopened => *unopenable = true,
                    ServeOutcome::Spent => spent = true,
                    ServeOutcome::Through => sub.deficit = 0,
                }
                if *left == 0 {
                    (*due, *is_cut, *turn) = (true, true, *slot + 1);
                    return false;
                }
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
