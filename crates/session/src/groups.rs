//! Groups and datagrams received from a publisher, appended to logs.

use std::sync::Arc;

use bytes::Bytes;
use relay_model::{
    Ask, StreamCode, limits,
    transport::{ReadError, Stream, Transport},
};
use relay_store::CommitError;
use relay_wire::lite::{self, GroupEvent};

use crate::{
    ingest::{AppendTarget, Ingest, PIECE},
    requests::ReadOutcome,
    session::{Cx, PARTIAL_DELAY, Session, StreamKind},
    upstream::unclean,
    work::{self, DATAGRAM, FRAME},
};

/// Bytes of a group stream read at a time.
const READ: usize = 64 * 1024;

/// Returns the next bytes of a group: those left unparsed when the last work budget was spent, or else bytes of
/// its stream.
pub(crate) fn read_on<T: Transport>(
    t: &mut T,
    cx: &mut Cx<'_>,
    stream: Stream,
    ingest: &mut Ingest,
) -> Result<Option<Bytes>, ReadError> {
    if !ingest.unparsed.is_empty() {
        return Ok(Some(std::mem::take(&mut ingest.unparsed)));
    }
    cx.work.take(work::READ);
    t.read(stream, READ)
}

impl Session {
    // Groups of the peer.

    pub(crate) fn read_group<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut ingest: Box<Ingest>,
    ) -> ReadOutcome {
        if self.grant.is_none() {
            self.hold_back(stream);
            return ReadOutcome::Keep(StreamKind::Group(ingest));
        }
        while !cx.work.is_spent() {
            match read_on(t, cx, stream, &mut ingest) {
                Ok(Some(bytes)) => {
                    if let Err(code) = self.group_bytes(cx, &mut ingest, bytes) {
                        t.stop(stream, code);
                        self.group_over(cx, &mut ingest, Some(code));
                        return ReadOutcome::Done;
                    }
                }
                Ok(None) => {
                    self.group_over(cx, &mut ingest, None);
                    return ReadOutcome::Done;
                }
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => {
                    self.group_over(cx, &mut ingest, Some(code));
                    return ReadOutcome::Done;
                }
                Err(ReadError::Gone) => {
                    self.group_over(cx, &mut ingest, Some(StreamCode::CANCEL));
                    return ReadOutcome::Done;
                }
            }
        }
        if ingest.staged() > 0 {
            self.hold(cx, stream, &mut ingest);
        }
        ReadOutcome::Keep(StreamKind::Group(ingest))
    }

    /// Parses bytes of a group while `cx.work` lasts; an error refuses the stream.
    pub(crate) fn group_bytes(
        &mut self,
        cx: &mut Cx<'_>,
        ingest: &mut Ingest,
        mut bytes: Bytes,
    ) -> Result<(), StreamCode> {
        let budget: &Arc<_> = cx.store.budget();
        if !self.config.version.has_timestamps() {
            ingest.set_clock(self.config.clock_ms(cx.now));
        }
        while let Some(event) = ingest.next(&mut bytes).map_err(|error| error.stream_code())? {
            cx.work.take(FRAME);
            if let GroupEvent::Header(header) = &event {
                ingest.begin(self.open_group(cx, *header)?, header.first_frame);
                self.is_dirty = true;
                continue;
            }
            let target = ingest.target.ok_or(StreamCode::CANCEL)?;
            let up = self.upstreams.get_mut(target.log).ok_or(StreamCode::CANCEL)?;
            match event {
                GroupEvent::Header(_) => {}
                GroupEvent::Frame(head) => ingest.frame(head, &mut up.writer, budget, cx.meter),
                GroupEvent::Payload(payload) => ingest.payload(&payload, &mut up.writer, budget, cx.meter),
            }
            self.is_dirty = true;
            if cx.work.is_spent() {
                ingest.unparsed = bytes;
                break;
            }
        }
        Ok(())
    }

    /// Opens a group of one of the relay's subscriptions; an error refuses it.
    fn open_group(&mut self, cx: &mut Cx<'_>, header: lite::Group) -> Result<AppendTarget, StreamCode> {
        if self.winding {
            return Err(StreamCode::GOING_AWAY);
        }
        let up = self.upstreams.by_wire(header.subscribe).ok_or(StreamCode::CANCEL)?;
        if !up.continues(header.sequence) {
            let log = up.log;
            self.restarted.push(log);
            self.is_dirty = true;
            return Err(StreamCode::CANCEL);
        }
        if up.groups >= limits::UPSTREAM_GROUPS {
            return Err(StreamCode::CANCEL);
        }
        if cx.store.budget().at_ceiling() {
            // The cache is already evicted: refusing a group is better than running out of memory.
            cx.meter.groups_refused += 1;
            return Err(StreamCode::EVICTED);
        }
        up.group_opened(header.sequence);
        up.writer.open_group_at(header.sequence, header.first_frame);
        cx.meter.groups_in += 1;
        Ok(AppendTarget { log: up.log, sequence: header.sequence, strand: 0 })
    }

    /// Ends logs whose publisher restarted its group numbers: its data belongs to another log.
    pub(crate) fn end_restarted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        for log in std::mem::take(&mut self.restarted) {
            self.end_upstream(t, cx, log, unclean(StreamCode::GOING_AWAY));
        }
    }

    /// Handles the end of a group stream: cleanly if `code` is `None`.
    fn group_over(&mut self, cx: &mut Cx<'_>, ingest: &mut Ingest, code: Option<StreamCode>) {
        let Some(up) = ingest.target.and_then(|target| self.upstreams.get_mut(target.log)) else { return };
        up.group_closed();
        match code {
            None => ingest.finish(&mut up.writer, cx.store.budget()),
            Some(code) => ingest.reset(&mut up.writer, cx.store.budget(), code),
        }
        self.is_dirty = true;
    }

    /// Appends the received part of a partial frame to the log.
    pub(crate) fn flush_partial(&mut self, cx: &mut Cx<'_>, ingest: &mut Ingest) {
        if ingest.staged() > 0
            && let Some(up) = ingest.target.and_then(|target| self.upstreams.get_mut(target.log))
        {
            ingest.flush(&mut up.writer, cx.store.budget());
            self.is_dirty = true;
        }
    }

    /// Appends a partial frame if it is large enough, or else schedules it for the end of the hold time.
    fn hold(&mut self, cx: &mut Cx<'_>, stream: Stream, ingest: &mut Ingest) {
        if ingest.staged() >= PIECE {
            self.flush_partial(cx, ingest);
        } else if !std::mem::replace(&mut ingest.held, true) {
            self.partial_streams.push(stream);
            self.partial_deadline.get_or_insert(cx.now + PARTIAL_DELAY);
        }
    }

    pub(crate) fn release_held_pieces(&mut self, cx: &mut Cx<'_>) {
        self.partial_deadline = None;
        for stream in std::mem::take(&mut self.partial_streams) {
            let Some(ingest) = self.streams.group_mut(stream) else { continue };
            let Some(up) = ingest.target.and_then(|target| self.upstreams.get_mut(target.log)) else {
                continue;
            };
            if ingest.held && ingest.staged() > 0 {
                ingest.flush(&mut up.writer, cx.store.budget());
                self.is_dirty = true;
            }
            ingest.held = false;
        }
    }

    pub(crate) fn datagrams<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        loop {
            self.datagrams_due = cx.work.is_spent();
            if self.datagrams_due {
                return;
            }
            let Some(bytes) = t.recv_datagram() else { return };
            cx.work.take(DATAGRAM);
            if !self.config.version.has_timestamps() || cx.store.budget().at_ceiling() {
                continue;
            }
            let Ok(datagram) = lite::Datagram::decode(self.config.version, bytes) else { continue };
            let Some(up) = self.upstreams.by_wire(datagram.subscribe) else { continue };
            let Ok(tick) = i64::try_from(datagram.tick) else { continue };
            cx.meter.media_datagrams_in += 1;
            let payload = cx.store.budget().chunk(datagram.payload.to_vec());
            up.writer.datagram(datagram.sequence, tick, payload);
            self.is_dirty = true;
        }
    }

    /// Makes this turn's appends visible: one lock per log.
    pub(crate) fn commit<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !std::mem::take(&mut self.is_dirty) {
            return;
        }
        if !self.restarted.is_empty() {
            self.end_restarted(t, cx);
        }
        let mut lost = Vec::new();
        for up in self.upstreams.iter_mut().filter(|up| up.writer.is_dirty()) {
            if let Err(error) = up.writer.commit(cx.now, cx.wakes) {
                lost.push((up.log, up.epoch, error));
            }
        }
        for (log, epoch, error) in lost {
            self.close_upstream(t, cx, log);
            if matches!(error, CommitError::Malformed) {
                self.ask(cx, Ask::Ended { log, epoch, missing: false });
            }
        }
        self.end_upstreams(t, cx);
    }
}
