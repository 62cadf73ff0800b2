//! Upstream tracks: requests to a publishing peer, and their end.

use relay_model::{
    Ask, Hop, LogId, Path, Prefs, SessionId, StreamCode, TrackInfo, Want,
    transport::{Stream, Transport},
};
use relay_store::{CommitError, LogEnd};
use relay_wire::lite::{self, Message, SubscribeResponse};

use crate::{
    control_stream::{ControlStreamReader, StreamEnd},
    requests::{NO_ERROR, ReadOutcome, refuse},
    session::{Cx, Session, StreamKind},
    upstream::{UpstreamParams, unclean},
    upstream_request::UpstreamRequest,
    work::MESSAGE,
};

/// An upstream track requested by core.
pub(crate) struct UpstreamTrack {
    pub(crate) log: LogId,
    pub(crate) epoch: relay_model::Epoch,
    pub(crate) path: Path,
    pub(crate) publisher: Hop,
    pub(crate) track: relay_model::TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
    /// Session on whose behalf it is requested.
    pub(crate) asker: SessionId,
}

impl Session {
    pub(crate) fn open_upstream<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, track: UpstreamTrack) {
        let Some(log) = cx.store.log(track.log) else { return };
        self.close_upstream(t, cx, track.log);
        // Resume point of an earlier writer, read before this one replaces it.
        let resume = log.resume();
        let Some(mut writer) = log.writer(track.epoch) else {
            // The end reported by an earlier writer crossed this order: core must not keep the log for new
            // readers.
            self.ask(cx, Ask::Ended { log: track.log, epoch: track.epoch, missing: false });
            return;
        };
        let root = self.grant.as_ref().map_or_else(Path::root, |grant| grant.root.clone());
        let Some(broadcast) = track.path.strip_prefix(&root).and_then(|rest| Path::parse(rest).ok()) else {
            return;
        };
        let has_tracks = self.config.version.has_tracks();
        if !has_tracks {
            // These versions send no track properties: use the defaults, on our clock.
            writer.info(TrackInfo::default());
            self.is_dirty = true;
        }
        let up_path = track.path.clone();
        self.upstreams.insert(UpstreamParams {
            log: track.log,
            epoch: track.epoch,
            path: track.path,
            publisher: track.publisher,
            broadcast,
            track: track.track,
            prefs: track.prefs,
            want: track.want,
            writer,
            asker: track.asker,
            resume,
        });
        let announced = self.publisher_of(&up_path);
        if announced != Some(track.publisher) && track.publisher != Hop::ANONYMOUS {
            // The order crossed an announce: another publisher would answer.
            self.end_upstream(t, cx, track.log, unclean(StreamCode::UNROUTABLE));
            return;
        }
        if has_tracks {
            self.want_for(t, cx, track.asker, UpstreamRequest::Track(track.log));
        }
        if track.want == Want::Live {
            self.want_for(t, cx, track.asker, UpstreamRequest::Subscribe(track.log));
        }
    }

    /// Repeats the subscription from the latest group: a resumed publisher that does not respond may have
    /// restarted its group numbers.
    pub(crate) fn resubscribe_from_latest<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, log: LogId) {
        let Some(stream) = self.upstreams.get_mut(log).and_then(|up| up.subscribe_stream.take()) else {
            return;
        };
        if self.streams.remove(&stream).is_some() {
            t.stop(stream, NO_ERROR);
            self.control.finish(t, stream);
        }
        self.upstreams.renumber(log);
        let Some(up) = self.upstreams.get_mut(log) else { return };
        up.ask_for_latest();
        let asker = up.asker;
        self.want_for(t, cx, asker, UpstreamRequest::Subscribe(log));
    }

    pub(crate) fn update_upstream<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        log: LogId,
        prefs: Prefs,
        want: Want,
    ) {
        let version = self.config.version;
        let Some(up) = self.upstreams.get_mut(log) else { return };
        let changed = up.prefs != prefs;
        let waits_in_vain = up.update_prefs(prefs);
        if want > up.want {
            up.want = want;
            let asker = up.asker;
            self.want_for(t, cx, asker, UpstreamRequest::Subscribe(log));
        } else if !version.has_ranges() {
            // SUBSCRIBE has neither a start nor updates in these versions.
        } else if waits_in_vain && !up.is_finishing() {
            self.resubscribe_from_latest(t, cx, log);
        } else if let Some(stream) = up.subscribe_stream.filter(|_| changed && !up.is_finishing()) {
            let prefs = up.subscribe_prefs();
            let mut message = Vec::new();
            lite::SubscribeUpdate { prefs }.encode(version, &mut message);
            self.control.send(t, cx.now, stream, message);
        }
    }

    /// Closes an upstream track that has no readers any more.
    pub(crate) fn close_upstream<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, log: LogId) {
        let Some(up) = self.upstreams.remove(log) else { return };
        for stream in [up.track_stream, up.subscribe_stream].into_iter().flatten() {
            if self.streams.remove(&stream).is_some() {
                t.stop(stream, NO_ERROR);
                self.control.finish(t, stream);
            }
        }
        for stream in up.pulls.iter().filter_map(|(_, stream)| *stream) {
            self.cancel_pull(t, stream);
        }
        self.drop_groups(t, log);
        self.open_waiting(t, cx);
    }

    /// Refuses the group streams of a closed track.
    pub(crate) fn drop_groups<T: Transport>(&mut self, t: &mut T, log: LogId) {
        self.streams.retain(|stream, role| {
            let gone =
                matches!(role, StreamKind::Group(ingest) if ingest.target.is_some_and(|target| target.log == log));
            if gone {
                t.stop(*stream, StreamCode::CANCEL);
            }
            !gone
        });
    }

    /// Ends an upstream track: appends the end to the log and informs core.
    pub(crate) fn end_upstream<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, log: LogId, end: LogEnd) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        let epoch = up.epoch;
        // If groups or properties were received, the end does not mean that the track is missing.
        let missing = end.code == Some(StreamCode::NOT_FOUND) && !up.has_answered();
        up.writer.end(end);
        // The end of a fenced writer is stale: core has moved the log.
        let ended = up.writer.commit(cx.now, cx.wakes);
        self.close_upstream(t, cx, log);
        if ended != Err(CommitError::Fenced) {
            self.ask(cx, Ask::Ended { log, epoch, missing });
        }
    }

    /// Ends tracks whose last groups have arrived or timed out, and repeats resumed subscriptions that got no
    /// response.
    pub(crate) fn end_upstreams<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.upstreams.deadline().is_some() {
            for log in self.upstreams.timed_out_resumes(cx.now) {
                self.resubscribe_from_latest(t, cx, log);
            }
            for (log, end) in self.upstreams.ended(cx.now) {
                self.end_upstream(t, cx, log, end);
            }
        }
    }

    pub(crate) fn read_track_up<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
        log: LogId,
    ) -> ReadOutcome {
        reader.fill(t, stream, cx.work);
        let info = match reader.buffer.next::<TrackInfo>(self.config.version) {
            Ok(Some(info)) => info,
            Ok(None) => {
                let code = match reader.end() {
                    None => return ReadOutcome::Keep(StreamKind::TrackUp(reader, log)),
                    Some(StreamEnd::Fin) => StreamCode::NOT_FOUND,
                    Some(StreamEnd::Reset(code)) => code,
                };
                self.control.reset(t, stream, StreamCode::CANCEL);
                self.end_upstream(t, cx, log, unclean(code));
                return ReadOutcome::Done;
            }
            Err(_) => {
                refuse(t, cx, stream, StreamCode::CANCEL);
                self.end_upstream(t, cx, log, unclean(StreamCode::MALFORMED_TRACK));
                return ReadOutcome::Done;
            }
        };
        self.upstreams.track_answered(log);
        if let Some(up) = self.upstreams.get_mut(log) {
            up.set_answered();
            up.writer.info(info);
            self.is_dirty = true;
        }
        t.stop(stream, NO_ERROR);
        self.control.finish(t, stream);
        self.open_waiting(t, cx);
        ReadOutcome::Done
    }

    pub(crate) fn read_subscribe_up<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut reader: ControlStreamReader,
        log: LogId,
    ) -> ReadOutcome {
        loop {
            let more = reader.fill(t, stream, cx.work);
            loop {
                let Some(up) = self.upstreams.get_mut(log) else { return ReadOutcome::Done };
                if cx.work.is_spent() {
                    return ReadOutcome::Keep(StreamKind::SubscribeUp(reader, log));
                }
                let response = SubscribeResponse::next(&mut reader.buffer, self.config.version);
                if matches!(response, Ok(Some(_))) {
                    cx.work.take(MESSAGE);
                }
                match response {
                    Ok(Some(SubscribeResponse::Ok(_))) => up.set_answered(),
                    Ok(Some(SubscribeResponse::Start { group })) => up.start(group),
                    Ok(Some(SubscribeResponse::End { group })) => up.bound = Some(group),
                    Ok(Some(SubscribeResponse::Drop { start, end, code })) => {
                        up.dropped(start, end);
                        up.writer.dropped(start, end, code);
                        self.is_dirty = true;
                    }
                    Ok(None) => break,
                    Err(_) => {
                        refuse(t, cx, stream, StreamCode::CANCEL);
                        self.end_upstream(t, cx, log, unclean(StreamCode::MALFORMED_TRACK));
                        return ReadOutcome::Done;
                    }
                }
            }
            if !more {
                break;
            }
        }
        let Some(up) = self.upstreams.get_mut(log) else { return ReadOutcome::Done };
        match reader.end() {
            None => return ReadOutcome::Keep(StreamKind::SubscribeUp(reader, log)),
            // Before moq-lite-05 a FIN is the only signal of the end.
            Some(StreamEnd::Fin) if up.bound.is_some() || !self.config.version.has_tracks() => {
                up.finish(cx.now);
                up.subscribe_stream = None;
                self.control.finish(t, stream);
                self.end_upstreams(t, cx);
            }
            Some(StreamEnd::Fin) => {
                self.control.finish(t, stream);
                self.end_upstream(t, cx, log, unclean(StreamCode::CANCEL));
            }
            Some(StreamEnd::Reset(code)) => {
                self.control.finish(t, stream);
                self.end_upstream(t, cx, log, unclean(code));
            }
        }
        ReadOutcome::Done
    }
}
