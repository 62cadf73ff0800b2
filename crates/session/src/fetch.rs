//! FETCH requests of the peer: one old group, on the request's own stream.

use std::{rc::Rc, time::Instant};

use relay_model::{
    Ask, Prefs, Start, StreamCode, SubId,
    transport::{Stream, Transport},
};
use relay_store::Lookup;
use relay_wire::lite;

use crate::{
    dialect::EncodingKey,
    encoded_group::LocalGroup,
    fanout::LogView,
    requests::refuse,
    session::{Cx, Session},
    sub::RequestKind,
};

/// Result of looking up a fetched group.
pub(crate) enum FetchLookup {
    /// The group is held; the rest arrives as log events.
    Group(Rc<LocalGroup>),
    /// The group must be requested, or was requested already: the rest arrives as log events, as long as core
    /// knows that it is wanted.
    Awaited(Rc<LocalGroup>),
    /// The group is not available.
    Refused(StreamCode),
}

impl Session {
    pub(crate) fn start_fetch<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        request: lite::Fetch,
    ) -> Option<SubId> {
        if self.egress.fetches() >= self.limits.fetches {
            cx.meter.fetches_limited += 1;
            refuse(t, cx, stream, StreamCode::EXCESSIVE_LOAD);
            return None;
        }
        let lite::Fetch { broadcast, track, priority, group, start_frame, end_frame } = request;
        let kind = RequestKind::Fetch { group, first: start_frame, last: end_frame.unwrap_or(u64::MAX) };
        let prefs = Prefs { priority, start: Start::Group(group), ..Prefs::default() };
        self.start_sub(t, cx, stream, &broadcast, track, (0, prefs, kind))
    }

    /// Serves a fetch from its log, or refuses it.
    pub(crate) fn answer_fetch<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        id: SubId,
        found: FetchLookup,
    ) {
        let group = match found {
            FetchLookup::Refused(code) => return self.refuse_sub(t, cx, id, code),
            FetchLookup::Group(group) => group,
            FetchLookup::Awaited(group) => {
                self.ask(cx, Ask::Pull { sub: id, group: group.sequence() });
                group
            }
        };
        if self.with_egress(t, cx, |egress, out| egress.fetched(out, id, group)) {
            self.finish_subs(t, cx, vec![id]);
        }
    }
}

/// Looks a group up, from the first object of `shape` on.
pub(crate) fn find(view: &mut LogView, group: u64, key: EncodingKey, now: Instant) -> FetchLookup {
    match view.lookup(group, key.first) {
        Lookup::Held => match view.load(group, key, now) {
            Some(held) if view.has_all(&held, key) || !view.is_fetched(group) => FetchLookup::Group(held),
            Some(held) => FetchLookup::Awaited(held),
            None => FetchLookup::Refused(StreamCode::EVICTED),
        },
        Lookup::Absent(code) => FetchLookup::Refused(code),
        Lookup::Unknown => match view.end() {
            Some(end) => FetchLookup::Refused(end.code.unwrap_or(StreamCode::NOT_FOUND)),
            None => match view.await_group(group, key, now) {
                Some(group) => FetchLookup::Awaited(group),
                None => FetchLookup::Refused(StreamCode::EVICTED),
            },
        },
    }
}
