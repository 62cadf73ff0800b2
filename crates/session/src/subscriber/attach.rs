//! Logs that serve the peer's subscriptions.

use std::{rc::Rc, time::Instant};

use relay_model::{LogId, Start, StreamCode, SubId, TrackInfo, limits, transport::Transport};
use relay_store::{LogEnd, Lookup};
use smallvec::SmallVec;

use super::{SubscriberSide, fetch};
use crate::{
    Batch, LocalGroup, LocalReader,
    fanout::LogView,
    request::Reply,
    sub::{DownstreamSub, RequestKind},
    turn::Turn,
};

impl SubscriberSide {
    /// Attaches a subscription to the log assigned by core, initially or as a replacement.
    pub(crate) fn attach<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, id: SubId, log: LogId) {
        let reader = LocalReader { session: turn.state.config.id, sub: id };
        let Some(sub) = self.egress.get_mut(id) else { return };
        if sub.log.is_some() {
            return self.change_log(turn, id, log);
        }
        let (priority, request, now) = (sub.prefs.priority, sub.request, turn.cx.now);
        let Some(log_view) = turn.cx.fanout.attach(turn.cx.store, log, reader, sub.framing) else {
            self.refuse_sub(turn, id, StreamCode::NOT_FOUND);
            return;
        };
        sub.log = Some(log);
        let (info, end) = (log_view.info(), log_view.end());
        match sub.kind {
            RequestKind::Info => return self.answer_info(turn, id, info, end),
            RequestKind::Fetch { group, .. } => {
                let found = fetch::find(log_view, group, sub.encoding_key(group), now);
                return self.answer_fetch(turn, id, found);
            }
            RequestKind::Live => {}
        }
        turn.reply(request, &Reply::Accepted { priority });
        let Some(log_view) = turn.cx.fanout.log_view(log) else { return };
        let groups = first_groups(log_view, sub, now, |_| true);
        if self.with_egress(turn, |egress, out| egress.begin(out, id, &groups, end)) {
            self.finish_sub(turn, id);
        }
    }

    /// Moves a subscription to another log of the same publisher's track: groups being sent are completed from
    /// there.
    fn change_log<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, id: SubId, log: LogId) {
        let reader = LocalReader { session: turn.state.config.id, sub: id };
        let now = turn.cx.now;
        let Some(sub) = self.egress.get_mut(id) else { return };
        let Some(before) = sub.log.replace(log) else { return };
        let open = sub.cursors.iter().filter(|cursor| !cursor.group.has_ended(cursor.key));
        let open: SmallVec<[Rc<LocalGroup>; 2]> = open.map(|cursor| cursor.group.clone()).collect();
        if let Some(log_view) = turn.cx.fanout.log_view(before) {
            // Entries this worker has not pulled yet.
            for group in &open {
                log_view.catch_up(group);
            }
        }
        turn.cx.fanout.detach(before, reader);
        let Some(log_view) = turn.cx.fanout.attach(turn.cx.store, log, reader, sub.framing) else {
            sub.log = None;
            return self.refuse_sub(turn, id, StreamCode::NOT_FOUND);
        };
        open.iter().filter(|group| !group.is_over()).for_each(|group| log_view.adopt(group, now));
        let (info, end) = (log_view.info(), log_view.end());
        if sub.kind == RequestKind::Info {
            return self.answer_info(turn, id, info, end);
        }
        let opened = match sub.kind {
            RequestKind::Live => first_groups(log_view, sub, now, |_| true),
            _ => SmallVec::new(),
        };
        self.apply_batch(turn, id, &Batch { opened, end, ..Batch::default() });
    }

    /// Sends a track's properties once they are known, or refuses the request at the end of the track.
    pub(super) fn answer_info<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        id: SubId,
        info: Option<TrackInfo>,
        end: Option<LogEnd>,
    ) {
        match (info, end) {
            (Some(info), _) => {
                if let Some(sub) = self.drop_sub(turn, id) {
                    turn.reply(sub.request, &Reply::Info(info));
                }
            }
            (None, Some(end)) => self.refuse_sub(turn, id, end.code.unwrap_or(StreamCode::NOT_FOUND)),
            (None, None) => {}
        }
    }
}

/// Held groups that a subscription wants and `among` allows, oldest first: the newest ones, up to the limit of
/// open groups per reader.
pub(super) fn first_groups(
    log_view: &mut LogView,
    sub: &DownstreamSub,
    now: Instant,
    among: impl Fn(u64) -> bool,
) -> SmallVec<[Rc<LocalGroup>; 2]> {
    // The start of a running subscription is known, even if none was requested.
    let start = match (sub.prefs.start, sub.floor) {
        (Start::Latest | Start::Fresh { .. }, Some(floor)) => Start::Fresh { floor },
        (start, _) => start,
    };
    let mut first = log_view.first_groups(start, sub.prefs.max_age_ms, now);
    // A group without its first frames is no valid start, except for a reader that does not want those frames.
    if let Some(floor) = sub.prefs.start.floor().filter(|_| sub.prefs.start_frame > 0)
        && !first.contains(&floor)
        && log_view.is_latest(floor)
        && log_view.lookup(floor, sub.prefs.start_frame) == Lookup::Held
    {
        first.insert(0, floor);
    }
    first.retain(|sequence| sub.wants(*sequence) && among(*sequence));
    let surplus = first.len().saturating_sub(limits::READER_GROUPS);
    let wanted = first.drain(surplus..);
    wanted.filter_map(|sequence| log_view.load(sequence, sub.encoding_key(sequence), now)).collect()
}
