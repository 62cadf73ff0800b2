//! Group streams of a publisher: bytes in, data for the log out.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use relay_model::{
    StreamCode,
    transport::{ReadError, Stream, Transport},
};
use relay_store::{Budget, ObjectHead, ObjectStatus};
use relay_wire::lite::{GroupEvent, GroupReader, Version};

use super::{NO_ERROR, PartialFrames, ReadContext, request_id, streams::StreamStep};
use crate::{
    ingest::{AppendTarget, GroupOpen, Ingest, PIECE},
    request::{FetchResult, Incoming},
    upstream::Upstreams,
    work::{self, FRAME},
};

/// Bytes of a group stream read at a time.
const READ: usize = 64 * 1024;

/// A group being received.
#[derive(Debug)]
pub(super) struct GroupStream {
    reader: GroupReader,
    ingest: Ingest,
    next_object: u64,
    has_timestamps: bool,
    /// Timestamp for frames of versions without timestamps: their arrival time, ms.
    stamp: i64,
    /// Bytes read from the stream but not parsed when the work budget was spent.
    unparsed: Bytes,
    /// Whether a partial frame waits for the hold time.
    is_held: bool,
}

/// End of a read of the bytes at hand.
enum Bytewise {
    Some(Bytes),
    Fin,
    Blocked,
    Broken(StreamCode),
}

impl GroupStream {
    /// A group stream, after its type.
    pub(super) fn new(version: Version) -> Self {
        Self::with(version, GroupReader::new(version), Ingest::new())
    }

    /// The response to a FETCH: frames only.
    pub(super) fn fetched(version: Version, target: AppendTarget) -> Self {
        Self::with(version, GroupReader::frames(version), Ingest::fetched(target))
    }

    fn with(version: Version, reader: GroupReader, ingest: Ingest) -> Self {
        let has_timestamps = version.has_timestamps();
        let unparsed = Bytes::new();
        Self { reader, ingest, next_object: 0, has_timestamps, stamp: 0, unparsed, is_held: false }
    }

    /// Log, group and strand, once known.
    pub(super) fn target(&self) -> Option<AppendTarget> {
        self.ingest.target()
    }

    /// Reads a group of one of the relay's subscriptions.
    pub(super) fn read<T: Transport>(
        &mut self,
        io: &mut ReadContext<'_, T>,
        stream: Stream,
        partial: &mut PartialFrames,
    ) -> StreamStep {
        if !io.access.is_admitted {
            return StreamStep::Paused;
        }
        while !io.work.is_spent() {
            match self.next_bytes(io, stream) {
                Bytewise::Some(bytes) => {
                    if let Err(code) = self.parse(io, bytes) {
                        io.t.stop(stream, code);
                        self.end(io.upstreams, io.budget, Some(code));
                        return StreamStep::Done;
                    }
                }
                Bytewise::Blocked => break,
                Bytewise::Fin => {
                    self.end(io.upstreams, io.budget, None);
                    return StreamStep::Done;
                }
                Bytewise::Broken(code) => {
                    self.end(io.upstreams, io.budget, Some(code));
                    return StreamStep::Done;
                }
            }
        }
        if self.ingest.staged() >= PIECE {
            self.flush(io.upstreams, io.budget);
        } else if self.ingest.staged() > 0 && !std::mem::replace(&mut self.is_held, true) {
            partial.add(stream, io.now);
        }
        StreamStep::Blocked
    }

    /// Reads the response to a FETCH of the relay.
    pub(super) fn read_fetched<T: Transport>(
        &mut self,
        io: &mut ReadContext<'_, T>,
        stream: Stream,
    ) -> StreamStep {
        let code = loop {
            if io.work.is_spent() {
                return StreamStep::Blocked;
            }
            match self.next_bytes(io, stream) {
                Bytewise::Some(bytes) => {
                    self.begin_fetched(io.upstreams);
                    if let Err(code) = self.parse(io, bytes) {
                        io.t.stop(stream, code);
                        break Some(code);
                    }
                }
                Bytewise::Fin => {
                    self.begin_fetched(io.upstreams);
                    break None;
                }
                Bytewise::Blocked => {
                    self.flush(io.upstreams, io.budget);
                    return StreamStep::Blocked;
                }
                Bytewise::Broken(code) => break Some(code),
            }
        };
        io.control.finish(io.t, stream);
        io.t.stop(stream, NO_ERROR);
        let has_begun = self.ingest.has_begun();
        if has_begun {
            self.close_strand(io.upstreams, io.budget, code);
        }
        StreamStep::Last(Incoming::Fetched(request_id(stream), FetchResult { has_begun, code }))
    }

    /// Appends a partial frame whose hold time has passed.
    pub(super) fn release(&mut self, upstreams: &mut Upstreams, budget: &Arc<Budget>) {
        if std::mem::take(&mut self.is_held) {
            self.flush(upstreams, budget);
        }
    }

    /// The next bytes: those left unparsed when the last work budget was spent, or else bytes of the stream.
    fn next_bytes<T: Transport>(&mut self, io: &mut ReadContext<'_, T>, stream: Stream) -> Bytewise {
        if !self.unparsed.is_empty() {
            return Bytewise::Some(std::mem::take(&mut self.unparsed));
        }
        io.work.take(work::READ);
        match io.t.read(stream, READ) {
            Ok(Some(bytes)) => Bytewise::Some(bytes),
            Ok(None) => Bytewise::Fin,
            Err(ReadError::Blocked) => Bytewise::Blocked,
            Err(ReadError::Reset(code)) => Bytewise::Broken(code),
            Err(ReadError::Gone) => Bytewise::Broken(StreamCode::CANCEL),
        }
    }

    /// Parses bytes while `cx.work` lasts; an error refuses the stream.
    fn parse<T: Transport>(
        &mut self,
        io: &mut ReadContext<'_, T>,
        mut bytes: Bytes,
    ) -> Result<(), StreamCode> {
        if !self.has_timestamps {
            self.stamp = clock_ms(io.started, io.now);
        }
        if self.ingest.target().is_none() {
            let Some(event) = self.reader.next(&mut bytes).map_err(|error| error.stream_code())? else {
                return Ok(());
            };
            io.work.take(FRAME);
            let GroupEvent::Header(header) = event else { return Err(StreamCode::CANCEL) };
            if !io.access.accepts_groups {
                return Err(StreamCode::GOING_AWAY);
            }
            let open = GroupOpen {
                alias: header.subscribe,
                group: header.sequence,
                subgroup: 0,
                first: header.first_frame,
            };
            self.ingest.open(io.upstreams.open_group(open, io.budget, io.meter)?);
            self.next_object = header.first_frame;
        }
        let mut writer = self.ingest.target().and_then(|target| io.upstreams.append_to(target.log));
        let budget = io.budget;
        while let Some(event) = self.reader.next(&mut bytes).map_err(|error| error.stream_code())? {
            io.work.take(FRAME);
            let writer = writer.as_deref_mut().ok_or(StreamCode::CANCEL)?;
            match event {
                GroupEvent::Header(_) => {}
                GroupEvent::Frame(frame) => {
                    let head = ObjectHead {
                        id: self.next_object,
                        tick: Some(frame.tick.unwrap_or(self.stamp)),
                        size: frame.size,
                        status: ObjectStatus::Normal,
                        properties: Bytes::new(),
                    };
                    self.next_object = self.next_object.saturating_add(1);
                    self.ingest.object(head, writer, budget, io.meter);
                }
                GroupEvent::Payload(payload) => self.ingest.piece(&payload, writer, budget, io.meter),
            }
            if io.work.is_spent() {
                self.unparsed = bytes;
                break;
            }
        }
        Ok(())
    }

    /// Appends the received part of a partial frame to the log.
    fn flush(&mut self, upstreams: &mut Upstreams, budget: &Arc<Budget>) {
        if self.ingest.staged() > 0
            && let Some(target) = self.ingest.target()
            && let Some(writer) = upstreams.append_to(target.log)
        {
            self.ingest.flush(writer, budget);
        }
    }

    /// Handles the end of the stream: cleanly if `code` is `None`.
    fn end(&mut self, upstreams: &mut Upstreams, budget: &Arc<Budget>, code: Option<StreamCode>) {
        let Some(target) = self.ingest.target() else { return };
        upstreams.close_group(target.log);
        self.close_strand(upstreams, budget, code);
    }

    fn close_strand(&mut self, upstreams: &mut Upstreams, budget: &Arc<Budget>, code: Option<StreamCode>) {
        let Some(writer) = self.ingest.target().and_then(|target| upstreams.append_to(target.log)) else {
            return;
        };
        let code = code.or((!self.reader.at_boundary()).then_some(StreamCode::WRONG_SIZE));
        match code {
            None => self.ingest.finish(writer),
            Some(code) => self.ingest.reset(writer, budget, code),
        }
    }

    /// Opens the fetched group in the log at the first byte of the response.
    fn begin_fetched(&mut self, upstreams: &mut Upstreams) {
        let Some(target) = self.ingest.target().filter(|_| !self.ingest.has_begun()) else { return };
        if let Some(writer) = upstreams.append_to(target.log) {
            writer.fetched_group(target.sequence);
            self.ingest.open(target);
        }
    }
}

/// Milliseconds since the zero of the timestamps given to frames without one.
fn clock_ms(started: Instant, now: Instant) -> i64 {
    i64::try_from(now.saturating_duration_since(started).as_millis()).unwrap_or(i64::MAX)
}
