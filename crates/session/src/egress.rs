//! Egress, the only caller of `write` for media: decides which data enters the stream buffers, and which
//! groups are dropped when a peer is slow.

use std::{
    rc::Rc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use relay_meter::Worker as Meter;
use relay_model::{
    StreamCode, SubId, limits,
    transport::{Dir, Stream, Transport},
};
use relay_wire::lite;
use slab::Slab;

use crate::{
    control::ControlQueue,
    cursor::{CursorStep, GroupCursor},
    dialect,
    encoded_group::LocalGroup,
    fanout::Batch,
    footprint::SUBSCRIPTION,
    sub::{DownstreamSub, RequestKind},
    work::SCANNED,
};

/// Bytes a subscription sends before the next of the same priority has its turn.
const QUANTUM: usize = 16 * 1024;
/// Bytes, as charged to allowances, that a session writes before all other ready sessions have their turn.
const TURN_BYTES: usize = 1024 * 1024;
/// Interval at which superseded groups are checked.
const EXPIRY_TICK: Duration = Duration::from_millis(100);

/// Everything a session sends to its peer as a publisher of media.
#[derive(Debug)]
pub(crate) struct Egress {
    version: lite::Version,
    subs: Slab<DownstreamSub>,
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

impl Egress {
    pub(crate) fn new(version: lite::Version) -> Self {
        Self {
            version,
            subs: Slab::new(),
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

    /// Sets the negotiated version, before anything has been written.
    pub(crate) fn speak(&mut self, version: lite::Version) {
        self.version = version;
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
        Some(id)
    }

    pub(crate) fn get_mut(&mut self, id: SubId) -> Option<&mut DownstreamSub> {
        self.subs.get_mut(id.0 as u32 as usize).filter(|sub| sub.id == id)
    }

    /// Removes a subscription; its open group streams are reset.
    pub(crate) fn remove<T: Transport>(
        &mut self,
        t: &mut T,
        id: SubId,
        code: StreamCode,
    ) -> Option<DownstreamSub> {
        self.get_mut(id)?;
        let sub = self.subs.remove(id.0 as u32 as usize);
        self.names -= u64::from(sub.names);
        sub.cursors.iter().for_each(|cursor| cursor.reset(t, code));
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

    /// Applies a batch of log events to one subscription. Returns true when the subscription is over.
    pub(crate) fn apply_batch<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        id: SubId,
        batch: &Batch,
    ) -> bool {
        let Some(sub) = self.subs.get_mut(id.0 as u32 as usize).filter(|sub| sub.id == id) else {
            return false;
        };
        for group in batch.opened.iter().filter(|_| !self.winding) {
            if sub.take(group) {
                out.meter.groups_out += 1;
            }
        }
        for (start, end, code) in &batch.dropped {
            dropped(out, self.version, sub, *start, *end, *code);
        }
        for (sequence, tick, payload) in &batch.datagrams {
            datagram(out, self.version, sub, *sequence, *tick, payload);
        }
        if batch.end.is_some() {
            sub.end = batch.end;
        }
        if sub.lags() {
            shed(out, self.version, sub);
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
        end: Option<relay_store::LogEnd>,
    ) -> bool {
        let winding = self.winding;
        let Some(sub) = self.get_mut(id) else { return false };
        if let Some(first) = groups.first().filter(|_| sub.floor.is_some()) {
            // Requested groups that are not held will not arrive: the first held group becomes the floor.
            sub.floor = sub.floor.max(Some(first.sequence()));
        }
        for group in groups.iter().filter(|_| !winding) {
            out.meter.groups_out += u64::from(sub.take(group));
        }
        sub.end = end;
        if sub.lags() {
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
        let Some(sub) = self.get_mut(id) else { return false };
        let shape = sub.encoding_key(group.sequence());
        sub.started = true;
        sub.cursors.push(GroupCursor::on(sub.stream, group, shape));
        out.t.set_priority(sub.stream, sub.priority());
        self.serve_if_free(out, id)
    }

    /// Starts no further group; started ones continue.
    pub(crate) fn wind_down<T: Transport>(&mut self, out: &mut EgressContext<'_, T>) {
        self.winding = true;
        for (_, sub) in &mut self.subs {
            let version = self.version;
            while let Some(at) = sub.cursors.iter().position(|cursor| cursor.stream.is_none()) {
                give_up(out, version, sub, at, StreamCode::GOING_AWAY);
            }
        }
    }

    /// Whether every started group has been written.
    pub(crate) fn is_quiet(&self) -> bool {
        self.subs().all(|sub| sub.cursors.is_empty())
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
        if let Some((_, sub, at)) = self.find(stream) {
            sub.cursors[at].unpark();
            self.due = true;
        }
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
        let Some((id, sub, at)) = self.find(stream) else { return Vec::new() };
        sub.cursors.remove(at);
        if self.serve_if_free(out, id) { vec![id] } else { Vec::new() }
    }

    /// Applies new preferences of the peer.
    pub(crate) fn update<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        id: SubId,
        prefs: relay_model::Prefs,
    ) {
        let Some(sub) = self.get_mut(id) else { return };
        sub.update(prefs);
        let priority = sub.priority();
        sub.cursors.iter().filter_map(|cursor| cursor.stream).for_each(|s| out.t.set_priority(s, priority));
    }

    /// Drops superseded groups over the age budget; call when [`Self::deadline`] has passed.
    pub(crate) fn expire<T: Transport>(&mut self, out: &mut EgressContext<'_, T>) -> Vec<SubId> {
        let Self { version, subs, expiry, .. } = self;
        *expiry = None;
        let mut over = Vec::new();
        for (_, sub) in subs {
            expire(out, *version, sub);
            if sub.lags() {
                *expiry = Some(out.now + EXPIRY_TICK);
            }
            if sub.is_over().is_some() {
                over.push(sub.id);
            }
        }
        over
    }

    fn find(&mut self, stream: Stream) -> Option<(SubId, &mut DownstreamSub, usize)> {
        self.subs.iter_mut().find_map(|(_, sub)| {
            let at = sub.cursors.iter().position(|cursor| cursor.stream == Some(stream))?;
            Some((sub.id, sub, at))
        })
    }

    /// Fast path without a backlog: new data is written to its streams at once.
    fn serve_if_free<T: Transport>(&mut self, out: &mut EgressContext<'_, T>, id: SubId) -> bool {
        let Self { version, subs, congested, unopenable, due, is_cut, .. } = self;
        let Some(sub) = subs.get_mut(id.0 as u32 as usize).filter(|sub| sub.id == id) else { return false };
        if !*congested {
            let mut allowance = TURN_BYTES;
            match serve(out, *version, sub, *unopenable, &mut allowance) {
                ServeOutcome::Short => *congested = true,
                ServeOutcome::Unopened => *unopenable = true,
                ServeOutcome::Spent => (*due, *is_cut) = (true, true),
                ServeOutcome::Through => {}
            }
        }
        sub.is_over().is_some()
    }

    fn fill<T: Transport>(&mut self, out: &mut EgressContext<'_, T>) -> Vec<SubId> {
        let mut over = Vec::new();
        let mut order = std::mem::take(&mut self.scratch);
        order.clear();
        let turn = self.turn;
        order.extend(
            self.subs
                .iter()
                .filter(|(_, sub)| sub.cursors.iter().any(|cursor| cursor.is_runnable()))
                .map(|(slot, sub)| (sub.prefs.priority, slot)),
        );
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
        let Self { version, subs, congested, unopenable, turn, due, is_cut, .. } = self;
        let mut spent = true;
        while std::mem::take(&mut spent) {
            for (_, slot) in class {
                let Some(sub) = subs.get_mut(*slot) else { continue };
                // A subscription cut short continues with its remaining deficit: room comes in small pieces.
                if sub.deficit == 0 {
                    sub.deficit = QUANTUM;
                }
                let mut allowance = sub.deficit;
                expire(out, *version, sub);
                let served = serve(out, *version, sub, *unopenable, &mut allowance);
                *left = left.saturating_sub(sub.deficit - allowance);
                sub.deficit = allowance;
                if sub.is_over().is_some() && !over.contains(&sub.id) {
                    over.push(sub.id);
                }
                match served {
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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ServeOutcome {
    /// All data, or all that is not blocked, was written.
    Through,
    /// The allowance is used up.
    Spent,
    /// The transport is full.
    Short,
    /// Only stream credit is missing.
    Unopened,
}

/// Sends the data of a subscription, newest group first (or oldest first if requested).
fn serve<T: Transport>(
    out: &mut EgressContext<'_, T>,
    version: lite::Version,
    sub: &mut DownstreamSub,
    mut unopenable: bool,
    allowance: &mut usize,
) -> ServeOutcome {
    let mut served = ServeOutcome::Through;
    if sub.cursors.len() > 1 {
        let ordered = sub.prefs.ordered;
        sub.cursors.sort_unstable_by_key(|cursor| {
            let sequence = cursor.group.sequence();
            if ordered { sequence } else { u64::MAX - sequence }
        });
    }
    let mut at = 0;
    while at < sub.cursors.len() {
        if sub.cursors[at].stream.is_none() && sub.cursors[at].cut_short().is_none() && !unopenable {
            unopenable = !open(out, version, sub, at);
        }
        match sub.cursors[at].advance(out.t, out.meter, allowance) {
            CursorStep::Done => {
                sub.cursors.remove(at);
                continue;
            }
            CursorStep::Missed(code) => {
                let sequence = sub.cursors.remove(at).group.sequence();
                dropped(out, version, sub, sequence, sequence, u64::from(code.0));
                continue;
            }
            CursorStep::Idle | CursorStep::Parked => {}
            CursorStep::Unopened => served = ServeOutcome::Unopened,
            CursorStep::Spent => return ServeOutcome::Spent,
            CursorStep::Short => return ServeOutcome::Short,
        }
        at += 1;
    }
    served
}

/// Opens the stream of a group, after sending SUBSCRIBE_START; false without credit.
fn open<T: Transport>(
    out: &mut EgressContext<'_, T>,
    version: lite::Version,
    sub: &mut DownstreamSub,
    at: usize,
) -> bool {
    let Some(stream) = out.t.open(Dir::Uni, sub.priority()) else { return false };
    let sequence = sub.cursors[at].group.sequence();
    start(out, version, sub, sub.floor.unwrap_or(sequence).min(sequence));
    let wire_id = sub.wire_id;
    let shape = sub.cursors[at].key;
    let make = || dialect::group_header(version, wire_id, sequence, shape.first);
    let header = if shape.first == 0 { sub.cursors[at].group.header(version, wire_id, make) } else { make() };
    sub.cursors[at].opened(stream, header);
    true
}

/// Sends SUBSCRIBE_START with the first group, before any other message about groups.
fn start<T: Transport>(
    out: &mut EgressContext<'_, T>,
    version: lite::Version,
    sub: &mut DownstreamSub,
    first: u64,
) {
    if !std::mem::replace(&mut sub.started, true) && !version.has_subscribe_ok() {
        let mut message = Vec::new();
        lite::SubscribeResponse::Start { group: first }.encode(version, &mut message);
        out.control.send(out.t, out.now, sub.stream, message);
    }
}

/// Sends SUBSCRIBE_DROP for groups that will not be sent.
fn dropped<T: Transport>(
    out: &mut EgressContext<'_, T>,
    version: lite::Version,
    sub: &mut DownstreamSub,
    first: u64,
    last: u64,
    code: u64,
) {
    let Some(floor) = sub.floor.filter(|floor| last >= *floor && sub.kind == RequestKind::Live) else {
        return;
    };
    start(out, version, sub, floor);
    if !version.has_drops() {
        return;
    }
    let mut message = Vec::new();
    lite::SubscribeResponse::Drop { start: first, end: last, code }.encode(version, &mut message);
    out.control.send(out.t, out.now, sub.stream, message);
}

fn datagram<T: Transport>(
    out: &mut EgressContext<'_, T>,
    version: lite::Version,
    sub: &DownstreamSub,
    sequence: u64,
    tick: i64,
    payload: &Bytes,
) {
    if !version.has_timestamps() || !sub.wants(sequence) {
        return;
    }
    let tick = u64::try_from(tick).unwrap_or(0);
    let message = lite::Datagram { subscribe: sub.wire_id, sequence, tick, payload: payload.clone() };
    let mut bytes = Vec::with_capacity(payload.len() + 24);
    message.encode(version, &mut bytes);
    if bytes.len() <= out.t.max_datagram() && out.t.send_datagram(bytes.into()).is_ok() {
        out.meter.media_datagrams_out += 1;
    }
}

/// Resets superseded groups over the age budget; groups not started are reported as dropped.
fn expire<T: Transport>(out: &mut EgressContext<'_, T>, version: lite::Version, sub: &mut DownstreamSub) {
    let mut at = 0;
    while at < sub.cursors.len() {
        let cursor = &sub.cursors[at];
        let pending = cursor.stream.is_none() || cursor.unsent() > 0;
        if pending && sub.is_expired(&cursor.group, out.now) {
            give_up(out, version, sub, at, StreamCode::OLD);
        } else {
            at += 1;
        }
    }
}

/// Keeps the number of a reader's cursors and the unsent bytes of its older groups within their limits.
fn shed<T: Transport>(out: &mut EgressContext<'_, T>, version: lite::Version, sub: &mut DownstreamSub) {
    loop {
        let oldest = (0..sub.cursors.len()).min_by_key(|at| sub.cursors[*at].group.sequence());
        let newest = sub.newest();
        let behind: u64 = sub
            .cursors
            .iter()
            .filter(|cursor| Some(cursor.group.sequence()) != newest)
            .map(|cursor| cursor.unsent())
            .sum();
        let over = sub.cursors.len() > limits::READER_GROUPS || behind > limits::READER_LAG_BYTES as u64;
        match oldest {
            Some(at) if over && sub.cursors.len() > 1 => {
                give_up(out, version, sub, at, StreamCode::TOO_FAR_BEHIND);
            }
            _ => return,
        }
    }
}

fn give_up<T: Transport>(
    out: &mut EgressContext<'_, T>,
    version: lite::Version,
    sub: &mut DownstreamSub,
    at: usize,
    code: StreamCode,
) {
    let cursor: GroupCursor = sub.cursors.remove(at);
    out.meter.groups_expired += 1;
    match cursor.stream {
        Some(_) => cursor.reset(out.t, code),
        None => {
            let sequence = cursor.group.sequence();
            dropped(out, version, sub, sequence, sequence, u64::from(code.0));
        }
    }
}
