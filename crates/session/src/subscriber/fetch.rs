//! FETCH requests of the peer: one old group.

use std::{rc::Rc, time::Instant};

use relay_model::{Ask, Path, Prefs, Start, StreamCode, SubId, TrackName, transport::Transport};
use relay_store::Lookup;

use super::{SubscriberSide, subscribe::SubParams};
use crate::{
    LocalGroup,
    encoding_key::EncodingKey,
    fanout::LogView,
    request::{ObjectRange, RequestId},
    sub::RequestKind,
    turn::Turn,
};

/// Result of looking up a fetched group.
pub(super) enum FetchLookup {
    /// The group is held; the rest arrives as log events.
    Group(Rc<LocalGroup>),
    /// The group must be requested, or was requested already: the rest arrives as log events, as long as core
    /// knows that it is wanted.
    Awaited(Rc<LocalGroup>),
    /// The group is not available.
    Refused(StreamCode),
}

/// Group that a FETCH asks for, and its priority.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FetchParams {
    pub(crate) priority: u8,
    pub(crate) group: u64,
    pub(crate) range: ObjectRange,
}

impl SubscriberSide {
    /// Starts a fetch, or refuses it.
    pub(crate) fn start_fetch<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        request: RequestId,
        (broadcast, track): (Path, TrackName),
        params: FetchParams,
    ) {
        if self.egress.fetches() >= turn.state.limits.fetches {
            turn.cx.meter.fetches_limited += 1;
            return turn.refuse(request, StreamCode::EXCESSIVE_LOAD);
        }
        let FetchParams { priority, group, range } = params;
        let kind = RequestKind::Fetch { group, first: range.first, last: range.last.unwrap_or(u64::MAX) };
        let prefs = Prefs { priority, start: Start::Group(group), ..Prefs::default() };
        self.start_sub(turn, request, SubParams { broadcast, track, alias: 0, prefs, kind });
    }

    /// Serves a fetch from its log, or refuses it.
    pub(super) fn answer_fetch<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        id: SubId,
        found: FetchLookup,
    ) {
        let group = match found {
            FetchLookup::Refused(code) => return self.refuse_sub(turn, id, code),
            FetchLookup::Group(group) => group,
            FetchLookup::Awaited(group) => {
                turn.ask(Ask::Pull { sub: id, group: group.sequence() });
                group
            }
        };
        if self.with_egress(turn, |egress, out| egress.fetched(out, id, group)) {
            self.finish_sub(turn, id);
        }
    }
}

/// Looks a group up, from the first object of `key` on.
pub(super) fn find(log_view: &mut LogView, group: u64, key: EncodingKey, now: Instant) -> FetchLookup {
    match log_view.lookup(group, key.first) {
        Lookup::Held => match log_view.load(group, key, now) {
            Some(held) if log_view.has_all(&held, key) || !log_view.is_fetched(group) => {
                FetchLookup::Group(held)
            }
            Some(held) => FetchLookup::Awaited(held),
            None => FetchLookup::Refused(StreamCode::EVICTED),
        },
        Lookup::Absent(code) => FetchLookup::Refused(code),
        Lookup::Unknown => match log_view.end() {
            Some(end) => FetchLookup::Refused(end.code.unwrap_or(StreamCode::NOT_FOUND)),
            None => match log_view.await_group(group, key, now) {
                Some(group) => FetchLookup::Awaited(group),
                None => FetchLookup::Refused(StreamCode::EVICTED),
            },
        },
    }
}
