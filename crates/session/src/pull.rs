//! Old groups fetched from a publisher into the log.

use relay_model::{
    Ask, LogId, SessionId, StreamCode,
    transport::{ReadError, Stream, Transport},
};
use relay_store::FETCHED;

use crate::{
    groups::read_on,
    ingest::Ingest,
    requests::{NO_ERROR, ReadOutcome},
    session::{Cx, Session, StreamKind},
    upstream_request::UpstreamRequest,
};

impl Session {
    /// Fetches an old group of an open log for core.
    pub(crate) fn pull<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        log: LogId,
        group: u64,
        asker: SessionId,
    ) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        if up.pulls.iter().any(|(at, _)| *at == group) {
            return;
        }
        up.pulls.push((group, None));
        if self.config.version.has_tracks() {
            self.want_for(t, cx, asker, UpstreamRequest::Fetch(log, group));
        } else {
            // A publisher of these versions serves no old groups.
            self.pull_failed(cx, log, group, StreamCode::NOT_FOUND);
        }
    }

    /// Cancels a pull that is no longer wanted.
    pub(crate) fn drop_pull<T: Transport>(&mut self, t: &mut T, log: LogId, group: u64) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        let Some(at) = up.pulls.iter().position(|(at, _)| *at == group) else { return };
        let (_, stream) = up.pulls.swap_remove(at);
        if let Some(stream) = stream {
            up.writer.reset(group, FETCHED, StreamCode::CANCEL);
            self.is_dirty = true;
            self.cancel_pull(t, stream);
        }
    }

    /// Cancels a FETCH on its stream.
    pub(crate) fn cancel_pull<T: Transport>(&mut self, t: &mut T, stream: Stream) {
        if self.streams.remove(&stream).is_some() {
            t.stop(stream, StreamCode::CANCEL);
            self.control.reset(t, stream, StreamCode::CANCEL);
        }
    }

    /// Records a failed fetch. That a group does not exist is remembered; other failures are not.
    pub(crate) fn pull_failed(&mut self, cx: &mut Cx<'_>, log: LogId, group: u64, code: StreamCode) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        if code == StreamCode::NOT_FOUND {
            up.writer.absent(group, code);
        } else {
            up.writer.fetch_failed(group, code);
        }
        self.pull_over(cx, log, group);
    }

    /// Reports the end of a fetch to core, which may order it again.
    fn pull_over(&mut self, cx: &mut Cx<'_>, log: LogId, group: u64) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        up.pulls.retain(|(at, _)| *at != group);
        let epoch = up.epoch;
        self.is_dirty = true;
        self.ask(cx, Ask::Pulled { log, epoch, group });
    }

    pub(crate) fn read_fetch_up<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut ingest: Box<Ingest>,
    ) -> ReadOutcome {
        let Some(target) = ingest.target else { return ReadOutcome::Done };
        let over = loop {
            if cx.work.is_spent() {
                return ReadOutcome::Keep(StreamKind::FetchUp(ingest));
            }
            match read_on(t, cx, stream, &mut ingest) {
                Ok(Some(bytes)) => {
                    self.begin_fetched(&mut ingest);
                    if let Err(code) = self.group_bytes(cx, &mut ingest, bytes) {
                        t.stop(stream, code);
                        break Some(code);
                    }
                }
                Ok(None) => {
                    self.begin_fetched(&mut ingest);
                    break None;
                }
                Err(ReadError::Blocked) => {
                    self.flush_partial(cx, &mut ingest);
                    return ReadOutcome::Keep(StreamKind::FetchUp(ingest));
                }
                Err(ReadError::Reset(code)) => break Some(code),
                Err(ReadError::Gone) => break Some(StreamCode::CANCEL),
            }
        };
        self.control.finish(t, stream);
        t.stop(stream, NO_ERROR);
        let began = ingest.has_begun();
        let Some(up) = self.upstreams.get_mut(target.log) else { return ReadOutcome::Done };
        match over {
            None => ingest.finish(&mut up.writer, cx.store.budget()),
            Some(code) if began => ingest.reset(&mut up.writer, cx.store.budget(), code),
            Some(code) => {
                self.pull_failed(cx, target.log, target.sequence, code);
                return ReadOutcome::Done;
            }
        }
        // If the log accepted nothing, waiting readers must be released.
        up.writer.fetch_failed(target.sequence, over.unwrap_or(StreamCode::EVICTED));
        self.pull_over(cx, target.log, target.sequence);
        ReadOutcome::Done
    }

    /// Opens the fetched group in the log at the first byte of the response.
    fn begin_fetched(&mut self, ingest: &mut Ingest) {
        let Some(target) = ingest.target.filter(|_| !ingest.has_begun()) else { return };
        if let Some(up) = self.upstreams.get_mut(target.log) {
            up.writer.fetched_group(target.sequence);
            ingest.set_begun();
            self.is_dirty = true;
        }
    }
}
