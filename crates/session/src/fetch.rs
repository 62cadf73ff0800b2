//! FETCH requests of the peer: one old group, on the request's own stream.

use std::{rc::Rc, time::Instant};

use relay_model::{Ask, Prefs, Start, StreamCode, SubId};
use relay_store::Lookup;
use relay_wire::lite;

use crate::{
    dialect::Shape,
    fanout::Mirror,
    lane::Group,
    requests::refuse,
    session::{Cx, Session},
    sub::Kind,
    transport::{Stream, Transport},
};

/// Result of looking up a fetched group.
pub(crate) enum Found {
    /// The group is held; the rest arrives as log events.
    Group(Rc<Group>),
    /// The group must be requested, or was requested already: the rest arrives as log events, as long as core
    /// knows that it is wanted.
    Awaited(Rc<Group>),
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
        let kind = Kind::Fetch { group, first: start_frame, last: end_frame.unwrap_or(u64::MAX) };
        let prefs = Prefs { priority, start: Start::Group(group), ..Prefs::default() };
        self.start_sub(t, cx, stream, &broadcast, track, (0, prefs, kind))
    }

    /// Serves a fetch from its log, or refuses it.
    pub(crate) fn answer_fetch<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, id: SubId, found: Found) {
        let group = match found {
            Found::Refused(code) => return self.refuse_sub(t, cx, id, code),
            Found::Group(group) => group,
            Found::Awaited(group) => {
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
pub(crate) fn find(mirror: &mut Mirror, group: u64, shape: Shape, now: Instant) -> Found {
    match mirror.lookup(group, shape.first) {
        Lookup::Held => match mirror.load(group, shape, now) {
            Some(held) if mirror.has_all(&held, shape) || !mirror.is_fetched(group) => Found::Group(held),
            Some(held) => Found::Awaited(held),
            None => Found::Refused(StreamCode::EVICTED),
        },
        Lookup::Absent(code) => Found::Refused(code),
        Lookup::Unknown => match mirror.end() {
            Some(end) => Found::Refused(end.code.unwrap_or(StreamCode::NOT_FOUND)),
            None => match mirror.await_group(group, shape, now) {
                Some(group) => Found::Awaited(group),
                None => Found::Refused(StreamCode::EVICTED),
            },
        },
    }
}
