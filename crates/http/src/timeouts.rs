//! Timeouts of an HTTP connection: a request that arrives too slowly is answered with 408; a connection without
//! requests, or whose peer takes no data, is closed.
//!
//! `docs/adr/0010-http-libraries.md` has the reasons against the timer of hyper.

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep, sleep},
};

use crate::{
    charge::ConnectionCharge,
    limits::{HEADER_TIME, STALL_TIME},
};

/// Answer to a request that does not arrive in time.
const LATE: &[u8] = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// Counts of requests that were begun and answered on a connection.
#[derive(Debug, Default)]
pub(crate) struct RequestCounts {
    begun: AtomicU64,
    answered: AtomicU64,
}

/// A request that is being answered; counts as answered when dropped.
#[derive(Debug)]
pub(crate) struct RequestGuard(Arc<RequestCounts>);

impl RequestCounts {
    pub(crate) fn begin(self: &Arc<Self>) -> RequestGuard {
        self.begun.fetch_add(1, Ordering::Relaxed);
        RequestGuard(self.clone())
    }

    fn is_busy(&self) -> bool {
        self.begun.load(Ordering::Relaxed) != self.answered.load(Ordering::Relaxed)
    }
}

impl Drop for RequestGuard {
    fn drop(&mut self) {
        self.0.answered.fetch_add(1, Ordering::Relaxed);
    }
}

/// Input that is waited for, which decides the timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wait {
    /// The rest of a request that has begun to arrive.
    Header,
    /// The beginning of a request.
    Idle,
}

/// Time limits of a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Timeouts {
    /// From the first byte of a request to the end of its headers.
    pub(crate) header: Duration,
    /// Without a request.
    pub(crate) idle: Duration,
    /// Without progress of a write.
    pub(crate) stall: Duration,
}

/// Byte stream with timeouts.
pub(crate) struct TimeoutStream<S> {
    stream: S,
    counts: Arc<RequestCounts>,
    charge: Option<ConnectionCharge>,
    limits: Timeouts,
    /// Input that is waited for, and the number of answers when the wait began.
    wait: Option<(Wait, u64)>,
    read_by: Pin<Box<Sleep>>,
    write_by: Option<Pin<Box<Sleep>>>,
    /// Whether written bytes may not have been flushed.
    is_dirty: bool,
    /// Number of bytes of [`LATE`] that were written.
    late: Option<usize>,
}

impl Timeouts {
    /// Limits of a connection that is closed after `idle` without a request.
    pub(crate) fn with_idle(idle: Duration) -> Self {
        Self { header: HEADER_TIME, idle, stall: STALL_TIME }
    }
}

impl<S> TimeoutStream<S> {
    /// Begins to wait for the first request. `charge` follows the requests that arrive.
    pub(crate) fn new(
        stream: S,
        counts: Arc<RequestCounts>,
        charge: Option<ConnectionCharge>,
        limits: Timeouts,
    ) -> Self {
        let (read_by, write_by) = (Box::pin(sleep(limits.idle)), None);
        Self { stream, counts, charge, limits, wait: None, read_by, write_by, is_dirty: false, late: None }
    }

    pub(crate) fn into_stream(self) -> S {
        self.stream
    }

    fn wait_for(&mut self, wait: Wait) {
        let by = Instant::now() + if wait == Wait::Header { self.limits.header } else { self.limits.idle };
        self.wait = Some((wait, self.counts.answered.load(Ordering::Relaxed)));
        if let Some(charge) = &self.charge {
            charge.set_request(wait == Wait::Header);
        }
        self.read_by.as_mut().reset(by);
    }

    /// Whether the time for a request to arrive is over.
    fn is_late(&mut self, cx: &mut Context<'_>) -> bool {
        if self.counts.is_busy() {
            self.wait = None;
            return false;
        }
        let answered = self.counts.answered.load(Ordering::Relaxed);
        if self.wait.is_none_or(|(_, since)| since != answered) {
            self.wait_for(Wait::Idle);
        }
        self.read_by.as_mut().poll(cx).is_ready()
    }

    /// Fails a write that makes no progress for too long.
    fn check<T>(&mut self, cx: &mut Context<'_>, poll: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if poll.is_ready() {
            self.write_by = None;
            return poll;
        }
        let stall = self.limits.stall;
        let write_by = self.write_by.get_or_insert_with(|| Box::pin(sleep(stall)));
        ready!(write_by.as_mut().poll(cx));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncWrite + Unpin> TimeoutStream<S> {
    /// Writes [`LATE`] if a request has begun and no response is being written, and then ends the stream.
    fn poll_answer_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let is_asked = matches!(self.wait, Some((Wait::Header, _)));
        let mut written = match self.late {
            Some(written) => written,
            None if is_asked && !self.is_dirty => 0,
            None => LATE.len(),
        };
        while let Some(rest) = LATE.get(written..).filter(|rest| !rest.is_empty()) {
            self.late = Some(written);
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(count)) if count > 0 => written += count,
                Poll::Ready(_) => written = LATE.len(),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.late = Some(written);
        Pin::new(&mut self.stream).poll_flush(cx).map(|_| ())
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for TimeoutStream<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.late.is_some() || self.is_late(cx) {
            return self.poll_answer_late(cx).map(Ok);
        }
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        if buf.filled().len() > before && matches!(self.wait, Some((Wait::Idle, _))) {
            self.wait_for(Wait::Header);
        }
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for TimeoutStream<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.is_dirty = true;
        let poll = Pin::new(&mut self.stream).poll_write(cx, buf);
        self.check(cx, poll)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.is_dirty = true;
        let poll = Pin::new(&mut self.stream).poll_write_vectored(cx, bufs);
        self.check(cx, poll)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_flush(cx);
        self.is_dirty &= poll.is_pending();
        self.check(cx, poll)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let poll = Pin::new(&mut self.stream).poll_shutdown(cx);
        self.check(cx, poll)
    }
}

#[cfg(test)]
mod tests;
