//! Response bodies that are produced on demand: nothing is produced before the client has taken the last piece.

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Body;
use bytes::Bytes;
use hyper::body::Frame;

/// The rest of the body is missing; the response is cut, so that no client takes a part for the whole.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("interrupted")]
pub(crate) struct Interrupted;

/// Producer of a body, piece by piece.
pub(crate) trait BodySource: Send + Sized + 'static {
    /// The next piece; `None` at the end.
    fn next(&mut self) -> impl Future<Output = Option<Result<Bytes, Interrupted>>> + Send;
}

/// Body that `source` produces.
pub(crate) fn body(source: impl BodySource) -> Body {
    Body::new(Made::Idle(source))
}

/// Body of an answer to HEAD. Its length is unknown: of an empty body axum derives `Content-Length: 0`.
pub(crate) fn of_head() -> Body {
    body(Nothing)
}

struct Nothing;

impl BodySource for Nothing {
    async fn next(&mut self) -> Option<Result<Bytes, Interrupted>> {
        None
    }
}

type Making<S> = Pin<Box<dyn Future<Output = (S, Option<Result<Bytes, Interrupted>>)> + Send>>;

enum Made<S> {
    Idle(S),
    Making(Making<S>),
    Over,
}

impl<S> Unpin for Made<S> {}

impl<S: BodySource> hyper::body::Body for Made<S> {
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
