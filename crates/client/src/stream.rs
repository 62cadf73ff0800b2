//! Streams with application codes, and a front buffer for what was read too far.

use bytes::{Buf, Bytes};
use relay_model::StreamCode;
use relay_wire::varint;

use crate::{
    code::{self, Code},
    error::Error,
};

/// The sending half of a stream. Dropped unfinished, it is reset, never quietly finished.
#[derive(Debug)]
pub struct SendStream {
    inner: quinn::SendStream,
    done: bool,
}

impl SendStream {
    pub(crate) fn new(inner: quinn::SendStream) -> Self {
        Self { inner, done: false }
    }

    /// Writes all of `bytes`, waiting for credit.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        Ok(self.inner.write_all(bytes).await?)
    }

    /// Writes all of `chunks` without copying them first, waiting for credit.
    pub async fn write_chunks(&mut self, chunks: &mut [Bytes]) -> Result<(), Error> {
        Ok(self.inner.write_all_chunks(chunks).await?)
    }

    /// Ends the stream cleanly.
    pub fn finish(&mut self) {
        self.done = true;
        let _ = self.inner.finish();
    }

    /// Ends the stream with a code.
    pub fn reset(&mut self, code: StreamCode) {
        self.reset_raw(code::to_quic(code.0).into_inner());
    }

    /// Ends the stream with a QUIC code of any kind, unmapped.
    pub fn reset_raw(&mut self, code: u64) {
        self.done = true;
        let _ = self.inner.reset(code::varint(code));
    }

    /// Larger goes first.
    pub fn set_priority(&self, priority: i32) {
        let _ = self.inner.set_priority(priority);
    }

    /// Waits until the peer stopped the stream (its code) or acknowledged all of it (`None`).
    pub async fn stopped(&mut self) -> Result<Option<Code>, Error> {
        match self.inner.stopped().await {
            Ok(code) => Ok(code.map(|c| Code::from_quic(c.into_inner()))),
            Err(quinn::StoppedError::ConnectionLost(error)) => Err(error.into()),
            Err(other) => Err(Error::Setup(other.to_string())),
        }
    }

    /// Completes when the peer has acknowledged all of the stream, or it is over in another way.
    pub(crate) fn acknowledged(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.inner.stopped();
        async move { drop(stopped.await) }
    }

    /// Completes when the peer gave the stream up, or its connection is gone; never when all went well.
    pub(crate) fn abandoned(&self) -> impl Future<Output = ()> + Send + 'static {
        let stopped = self.inner.stopped();
        async move {
            if let Ok(None) = stopped.await {
                std::future::pending().await
            }
        }
    }

    /// Index of the stream on the QUIC connection, with direction and initiator bits.
    pub fn id(&self) -> u64 {
        self.inner.id().into()
    }
}

impl Drop for SendStream {
    fn drop(&mut self) {
        if !self.done {
            self.reset(StreamCode::CANCEL);
        }
    }
}

/// The receiving half of a stream. Dropped before its end, it is stopped with code 0.
#[derive(Debug)]
pub struct RecvStream {
    inner: quinn::RecvStream,
    /// Read, but not taken yet; goes first.
    front: Bytes,
    done: bool,
}

impl RecvStream {
    pub(crate) fn new(inner: quinn::RecvStream) -> Self {
        Self { inner, front: Bytes::new(), done: false }
    }

    /// The next bytes, as they came; `None` at the end.
    pub async fn read(&mut self) -> Result<Option<Bytes>, Error> {
        if !self.front.is_empty() {
            return Ok(Some(std::mem::take(&mut self.front)));
        }
        if self.done {
            return Ok(None);
        }
        match self.inner.read_chunk(usize::MAX, true).await {
            Ok(Some(chunk)) => Ok(Some(chunk.bytes)),
            Ok(None) => {
                self.done = true;
                Ok(None)
            }
            Err(error) => {
                self.done = true;
                Err(error.into())
            }
        }
    }

    /// Everything up to the end, at most `limit` bytes.
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

    /// The next integer; `None` at a clean end before it.
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

    /// Tells the peer that nothing more is wanted.
    pub fn stop(&mut self, code: StreamCode) {
        self.stop_raw(code::to_quic(code.0).into_inner());
    }

    /// The same with a QUIC code of any kind, unmapped.
    pub fn stop_raw(&mut self, code: u64) {
        self.done = true;
        let _ = self.inner.stop(code::varint(code));
    }

    /// Index of the stream on the QUIC connection, with direction and initiator bits.
    pub fn id(&self) -> u64 {
        self.inner.id().into()
    }
}

impl Drop for RecvStream {
    fn drop(&mut self) {
        if !self.done {
            self.stop(StreamCode(0));
        }
    }
}

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
        tokio::io::AsyncRead::poll_read(std::pin::Pin::new(&mut self.inner), cx, buf)
    }
}
