//! Server-sent events as the body of an answer.

use std::{
    future::Future,
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    body::{Body, HttpBody},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use hyper::body::Frame;

use super::watch::StatusWatcher;

/// Interval of comments on an idle stream, so that nothing in between takes the connection for dead.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
const COMMENT: &[u8] = b": still here\n\n";

/// Streams the events of a place, until its owner is too slow or leaves.
pub(super) fn response(place: StatusWatcher) -> Response {
    let headers = [
        (header::CONTENT_TYPE, "text/event-stream"),
        (header::CACHE_CONTROL, "no-store"),
        // Proxies that buffer answers are asked not to.
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (StatusCode::OK, headers, Body::new(Events::new(place))).into_response()
}

/// Next event of a place, returned together with the place.
type Next = Pin<Box<dyn Future<Output = (StatusWatcher, Option<Bytes>)> + Send>>;

struct Events {
    state: EventsState,
}

enum EventsState {
    Idle(StatusWatcher),
    Waiting(Next),
    Over,
}

impl Events {
    fn new(place: StatusWatcher) -> Self {
        Self { state: EventsState::Idle(place) }
    }
}

impl HttpBody for Events {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        // The body is polled for more: the previous event was taken.
        let mut next = match std::mem::replace(&mut self.state, EventsState::Over) {
            EventsState::Over => return Poll::Ready(None),
            EventsState::Idle(place) if place.is_lost() => {
                return Poll::Ready(Some(Err(io::Error::other("events were not taken in time"))));
            }
            EventsState::Idle(place) => {
                place.is_ready();
                wait(place)
            }
            EventsState::Waiting(next) => next,
        };
        match next.as_mut().poll(cx) {
            Poll::Pending => {
                self.state = EventsState::Waiting(next);
                Poll::Pending
            }
            Poll::Ready((place, Some(event))) => {
                self.state = EventsState::Idle(place);
                Poll::Ready(Some(Ok(Frame::data(event))))
            }
            Poll::Ready((_, None)) => Poll::Ready(None),
        }
    }
}

fn wait(mut place: StatusWatcher) -> Next {
    Box::pin(async move {
        let next = tokio::time::timeout(KEEP_ALIVE, place.next()).await;
        let event = next.unwrap_or(Some(Bytes::from_static(COMMENT)));
        (place, event)
    })
}
