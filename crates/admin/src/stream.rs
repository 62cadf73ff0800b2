//! Bodies that are made while they are taken: what is not taken is not made.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Frame;

/// The rest will not come: whoever reads must not take what came for all of it.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Gives a body piece by piece.
pub(crate) trait Source: Send + Sized + 'static {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, Interrupted>>> + Send;
}

/// What `source` gives.
pub(crate) fn body(source: impl Source) -> Body {
    Body::new(Made::Idle(source))
}

type Making<S> = Pin<Box<dyn Future<Output = (S, Option<Result<Bytes, Interrupted>>)> + Send>>;

enum Made<S> {
    Idle(S),
    Making(Making<S>),
    Over,
}

impl<S> Unpin for Made<S> {}

impl<S: Source> hyper::body::Body for Made<S> {
    type Data = Bytes;
    type Error = Interrupted;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Interrupted>>> {
        let mut making = match std::mem::replace(&mut *self, Self::Over) {
            Self::Idle(mut source) => Box::pin(async move {
                let piece = source.next().await;
                (source, piece)
            }),
            Self::Making(making) => making,
            Self::Over => return Poll::Ready(None),
        };
        match making.as_mut().poll(cx) {
            Poll::Pending => {
                *self = Self::Making(making);
                Poll::Pending
            }
            Poll::Ready((source, Some(Ok(bytes)))) => {
                *self = Self::Idle(source);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            Poll::Ready((_, Some(Err(error)))) => Poll::Ready(Some(Err(error))),
            Poll::Ready((_, None)) => Poll::Ready(None),
        }
    }
}
