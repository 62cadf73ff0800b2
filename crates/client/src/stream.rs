//! Streams with application error codes, and a buffer for bytes read ahead.

use bytes::{Buf, Bytes};
use relay_model::StreamCode;
use relay_wire::varint;
use web_transport_trait as mux;

use crate::{
    code::{self, Code},
    error::Error,
};

/// Sending half of a stream. Dropped unfinished, it is reset, never finished.
pub struct SendStream {
    inner: Sending,
    done: bool,
}

enum Sending {
    Quic(quinn::SendStream),
    Mux(qmux::SendStream),
}

impl SendStream {
    pub(crate) fn new(inner: quinn::SendStream) -> Self {
        Self { inner: Sending::Quic(inner), done: false }
    }

    pub(crate) fn of_socket(inner: qmux::SendStream) -> Self {
        Self { inner: Sending::Mux(inner), done: false }
    }

    /// Writes all of `bytes`, waiting for credit.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        match &mut self.inner {
            Sending::Quic(stream) => Ok(stream.write_all(bytes).await?),
            Sending::Mux(stream) => Ok(mux::SendStream::write_all(stream, bytes).await?),
        }
    }

    /// Writes all of `chunks` without copying them first, waiting for credit. If cancelled, some of them may be
    /// written.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), Error> {
        match &mut self.inner {
            Sending::Quic(stream) => Ok(stream.write_all_chunks(chunks).await?),
            Sending::Mux(stream) => {
                for chunk in chunks {
                    mux::SendStream::write_all_buf(stream, chunk).await?;
                }
                Ok(())
            }
        }
    }

    /// Ends the stream cleanly.
    pub fn finish(&mut self) {
        self.done = true;
        match &mut self.inner {
            Sending::Quic(stream) => drop(stream.finish()),
            Sending::Mux(stream) => drop(mux::SendStream::finish(stream)),
        }
    }

    /// Ends the stream with a code.
    pub fn reset(&mut self, code: StreamCode) {
        self.done = true;
        match &mut self.inner {
            Sending::Quic(stream) => drop(stream.reset(code::to_quic(code.0))),
            Sending::Mux(stream) => mux::SendStream::reset(stream, code.0),
        }
    }

    /// Ends the stream with a QUIC code of any kind, unmapped.
    pub fn reset_raw(&mut self, code: u64) {
        self.done = true;
        match &mut self.inner {
            Sending::Quic(stream) => drop(stream.reset(code::varint(code))),
            Sending::Mux(stream) => mux::SendStream::reset(stream, small(code)),
        }
    }

    /// Sets the priority; higher values go first.
    pub fn set_priority(&mut self, priority: i32) {
        match &mut self.inner {
            Sending::Quic(stream) => drop(stream.set_priority(priority)),
            Sending::Mux(stream) => mux::SendStream::set_priority(stream, priority),
        }
    }

    /// Waits until the peer stopped the stream (its code) or acknowledged all of it (`None`). On a stream socket, which
    /// has no acknowledgements, until all of it was written.
    pub async fn stopped(&mut self) -> Result<Option<Code>, Error> {
        match &mut self.inner {
            Sending::Quic(stream) => match stream.stopped().await {
                Ok(code) => Ok(code.map(|c| Code::from_quic(c.into_inner()))),
                Err(quinn::StoppedError::ConnectionLost(error)) => Err(error.into()),
                Err(other) => Err(Error::Setup(other.to_string())),
            },
            Sending::Mux(stream) => match mux::SendStream::closed(stream).await.map_err(Error::from) {
                Ok(()) => Ok(None),
                Err(Error::Stopped(code)) => Ok(Some(code)),
                Err(error) => Err(error),
            },
        }
    }

    /// Completes when the peer stopped the stream or its connection is lost; never after a complete delivery. On a
    /// stream socket a stop is only reported by the next write.
    pub(crate) fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = match &self.inner {
            Sending::Quic(stream) => Some(stream.stopped()),
            Sending::Mux(_) => None,
        };
        async move {
            let ended = match stopped {
                Some(stopped) => stopped.await,
                None => Ok(None),
            };
            if let Ok(None) = ended {
                std::future::pending().await
            }
        }
    }
}

impl std::fmt::Debug for SendStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SendStream").field("done", &self.done).finish_non_exhaustive()
    }
}

/// Saturates a code to 32 bits, for qmux.
fn small(code: u64) -> u32 {
    u32::try_from(code).unwrap_or(u32::MAX)
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.done {
            self.reset(StreamCode::CANCEL);
        }
    }
}

/// Receiving half of a stream. Dropped before its end, it is stopped with code 0.
pub struct RecvStream {
    inner: Receiving,
    /// Bytes read ahead, which are returned first.
    front: Bytes,
    done: bool,
}

enum Receiving {
    Quic(quinn::RecvStream),
    Mux(qmux::RecvStream),
}

impl RecvStream {
    pub(crate) fn new(inner: quinn::RecvStream) -> Self {
        Self { inner: Receiving::Quic(inner), front: Bytes::new(), done: false }
    }

    pub(crate) fn of_socket(inner: qmux::RecvStream) -> Self {
        Self { inner: Receiving::Mux(inner), front: Bytes::new(), done: false }
    }

    /// Returns the next bytes as they arrive; `None` at the end.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.front.is_empty() {
            return Ok(Some(std::mem::take(&mut self.front)));
        }
        if self.done {
            return Ok(None);
        }
        let read = match &mut self.inner {
            Receiving::Quic(stream) => match stream.read_chunk(usize::MAX, true).await {
                Ok(chunk) => Ok(chunk.map(|chunk| chunk.bytes)),
                Err(error) => Err(error.into()),
            },
            Receiving::Mux(stream) => {
                mux::RecvStream::read_chunk(stream, usize::MAX).await.map_err(Error::from)
            }
        };
        self.done = !matches!(read, Ok(Some(_)));
        read
    }

    /// Reads everything up to the end, at most `limit` bytes.
    pub async fn read_all(&mut self, limit: usize) -> Result<Vec<u8>, Error> {
        let mut out = Vec::new();
        while let Some(bytes) = self.read().await? {
            if out.len() + bytes.len() > limit {
                return Err(Error::Malformed(format!("stream is longer than {limit} bytes")));
            }
            out.extend_from_slice(&bytes);
        }
        Ok(out)
    }

    /// Reads a varint; `None` at a clean end before it.
    pub async fn varint(&mut self) -> Result<Option<u64>, Error> {
        let mut held: Vec<u8> = Vec::new();
        loop {
            let Some(mut bytes) = self.read().await? else {
                return if held.is_empty() { Ok(None) } else { Err(Error::Truncated) };
            };
            if held.is_empty() {
                let mut peek: &[u8] = &bytes;
                if let Ok(value) = varint::get(&mut peek) {
                    let used = bytes.len() - peek.len();
                    bytes.advance(used);
                    self.front = bytes;
                    return Ok(Some(value));
                }
            }
            while bytes.has_remaining() {
                held.push(bytes.get_u8());
                if let Ok(value) = varint::get(&mut held.as_slice()) {
                    self.front = bytes;
                    return Ok(Some(value));
                }
            }
        }
    }

    /// Stops the stream with a code (STOP_SENDING).
    pub fn stop(&mut self, code: StreamCode) {
        self.done = true;
        match &mut self.inner {
            Receiving::Quic(stream) => drop(stream.stop(code::to_quic(code.0))),
            Receiving::Mux(stream) => mux::RecvStream::stop(stream, code.0),
        }
    }

    /// The same with a QUIC code of any kind, unmapped.
    pub fn stop_raw(&mut self, code: u64) {
        self.done = true;
        match &mut self.inner {
            Receiving::Quic(stream) => drop(stream.stop(code::varint(code))),
            Receiving::Mux(stream) => mux::RecvStream::stop(stream, small(code)),
        }
    }
}

impl std::fmt::Debug for RecvStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RecvStream").field("done", &self.done).finish_non_exhaustive()
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if !self.done {
            self.stop(StreamCode(0));
        }
    }
}

/// For HTTP/3, which is used on QUIC only.
impl tokio::io::AsyncRead for RecvStream {
    fn poll_read(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> std::task::Poll<std::io::Result<()>> {
        if !self.front.is_empty() {
            let take = self.front.len().min(buf.remaining());
            buf.put_slice(&self.front.split_to(take));
            return std::task::Poll::Ready(Ok(()));
        }
        match &mut self.inner {
            Receiving::Quic(stream) => tokio::io::AsyncRead::poll_read(std::pin::Pin::new(stream), cx, buf),
            Receiving::Mux(_) => std::task::Poll::Ready(Err(std::io::ErrorKind::Unsupported.into())),
        }
    }
}
