//! Writing the groups of one subscription, and giving up those that are late.

use relay_model::{
    StreamCode, limits,
    transport::{Dir, Transport},
};

use super::{EgressContext, index::EgressIndex};
use crate::{
    cursor::{CursorStep, GroupCursor},
    dialect::{MediaEncoder, OutgoingDatagram},
    request::Reply,
    sub::{DownstreamSub, RequestKind},
};

/// One subscription being served.
pub(super) struct Serving<'a> {
    pub(super) encoder: MediaEncoder,
    pub(super) index: &'a mut EgressIndex,
    pub(super) slot: usize,
    pub(super) sub: &'a mut DownstreamSub,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ServeOutcome {
    /// All data, or all that is not blocked, was written.
    Through,
    /// The allowance is used up.
    Spent,
    /// The transport is full.
    Short,
    /// Only stream credit is missing.
    Unopened,
}

impl Serving<'_> {
    /// Sends the data of the subscription, newest group first (or oldest first if requested).
    pub(super) fn serve<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        unopenable: bool,
        allowance: &mut usize,
    ) -> ServeOutcome {
        let outcome = self.write(out, unopenable, allowance);
        // The common case of a reader without a backlog touches no list.
        match outcome {
            ServeOutcome::Through => self.index.runnable.remove(self.slot),
            ServeOutcome::Spent | ServeOutcome::Short | ServeOutcome::Unopened => {
                self.index.runnable.insert(self.slot);
            }
        }
        outcome
    }

    fn write<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        mut unopenable: bool,
        allowance: &mut usize,
    ) -> ServeOutcome {
        let mut outcome = ServeOutcome::Through;
        if self.sub.cursors.len() > 1 {
            let ordered = self.sub.prefs.ordered;
            self.sub.cursors.sort_unstable_by_key(|cursor| {
                let sequence = cursor.group.sequence();
                if ordered { sequence } else { u64::MAX - sequence }
            });
        }
        let mut at = 0;
        while let Some(cursor) = self.sub.cursors.get(at) {
            if cursor.stream.is_none() && cursor.cut_short().is_none() && !unopenable {
                unopenable = !self.open(out, at);
            }
            let Some(cursor) = self.sub.cursors.get_mut(at) else { break };
            match cursor.advance(out.t, out.meter, allowance) {
                CursorStep::Done => {
                    self.take_out(at);
                    continue;
                }
                CursorStep::Missed(code) => {
                    let sequence = self.take_out(at).group.sequence();
                    self.dropped(out, sequence, sequence, u64::from(code.0));
                    continue;
                }
                CursorStep::Unopened => outcome = ServeOutcome::Unopened,
                step => {
                    if let Some(stream) = cursor.enter_index() {
                        self.index.add_stream(stream, self.slot);
                    }
                    match step {
                        CursorStep::Spent => return ServeOutcome::Spent,
                        CursorStep::Short => return ServeOutcome::Short,
                        _ => {}
                    }
                }
            }
            at += 1;
        }
        outcome
    }

    /// Removes a cursor; its stream is the caller's concern.
    pub(super) fn take_out(&mut self, at: usize) -> GroupCursor {
        let cursor = self.sub.cursors.remove(at);
        self.index.over(1);
        if let Some(stream) = cursor.indexed() {
            self.index.remove_stream(stream);
        }
        cursor
    }

    /// Opens the stream of a group, after naming the first group; false without credit.
    fn open<T: Transport>(&mut self, out: &mut EgressContext<'_, T>, at: usize) -> bool {
        let Some(stream) = out.t.open(Dir::Uni, self.sub.priority()) else { return false };
        let Some(sequence) = self.sub.cursors.get(at).map(|cursor| cursor.group.sequence()) else {
            return true;
        };
        self.start(out, self.sub.floor.unwrap_or(sequence).min(sequence));
        let (alias, encoder) = (self.sub.alias, self.encoder);
        let Some(cursor) = self.sub.cursors.get_mut(at) else { return true };
        let first = cursor.key.first;
        let make = || encoder.group_header(alias, sequence, first);
        let header = if first == 0 { cursor.group.header(encoder, alias, make) } else { make() };
        cursor.opened(stream, header);
        true
    }

    /// Names the first group, before any other message about groups.
    fn start<T: Transport>(&mut self, out: &mut EgressContext<'_, T>, first: u64) {
        if !std::mem::replace(&mut self.sub.started, true) {
            let request = self.sub.request;
            self.encoder.progress(&mut out.outbound(), request, &Reply::Started { group: first });
        }
    }

    /// Reports groups that will not be sent.
    pub(super) fn dropped<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        first: u64,
        last: u64,
        code: u64,
    ) {
        let is_live = self.sub.kind == RequestKind::Live;
        let Some(floor) = self.sub.floor.filter(|floor| last >= *floor && is_live) else { return };
        self.start(out, floor);
        let request = self.sub.request;
        self.encoder.progress(&mut out.outbound(), request, &Reply::Dropped { first, last, code });
    }

    /// Sends a datagram that the subscription wants.
    pub(super) fn datagram<T: Transport>(
        &self,
        out: &mut EgressContext<'_, T>,
        (group, tick, payload): (u64, i64, &bytes::Bytes),
    ) {
        if !self.sub.wants(group) {
            return;
        }
        let datagram = OutgoingDatagram { alias: self.sub.alias, group, tick, payload };
        let Some(bytes) = self.encoder.datagram(&datagram) else { return };
        if bytes.len() <= out.t.max_datagram() && out.t.send_datagram(bytes).is_ok() {
            out.meter.media_datagrams_out += 1;
        }
    }

    /// Resets superseded groups over the age budget; groups not started are reported as dropped.
    pub(super) fn expire<T: Transport>(&mut self, out: &mut EgressContext<'_, T>) {
        let mut at = 0;
        while let Some(cursor) = self.sub.cursors.get(at) {
            let pending = cursor.stream.is_none() || cursor.unsent() > 0;
            if pending && self.sub.is_expired(&cursor.group, out.now) {
                self.give_up(out, at, StreamCode::OLD);
            } else {
                at += 1;
            }
        }
    }

    /// Keeps the number of the reader's cursors and the unsent bytes of its older groups within their limits.
    pub(super) fn shed<T: Transport>(&mut self, out: &mut EgressContext<'_, T>) {
        loop {
            let cursors = &self.sub.cursors;
            let oldest = cursors.iter().enumerate().min_by_key(|(_, cursor)| cursor.group.sequence());
            let newest = self.sub.newest();
            let behind: u64 = cursors
                .iter()
                .filter(|cursor| Some(cursor.group.sequence()) != newest)
                .map(GroupCursor::unsent)
                .sum();
            let over = cursors.len() > limits::READER_GROUPS || behind > limits::READER_LAG_BYTES as u64;
            match oldest {
                Some((at, _)) if over && cursors.len() > 1 => {
                    self.give_up(out, at, StreamCode::TOO_FAR_BEHIND);
                }
                _ => return,
            }
        }
    }

    /// Gives up a group: its stream is reset, or the group reported as dropped.
    pub(super) fn give_up<T: Transport>(
        &mut self,
        out: &mut EgressContext<'_, T>,
        at: usize,
        code: StreamCode,
    ) {
        let cursor = self.take_out(at);
        out.meter.groups_expired += 1;
        match cursor.stream {
            Some(_) => cursor.reset(out.t, code),
            None => {
                let sequence = cursor.group.sequence();
                self.dropped(out, sequence, sequence, u64::from(code.0));
            }
        }
    }
}
