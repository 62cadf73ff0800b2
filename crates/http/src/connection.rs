//! One HTTP connection: its requests, one after another, under timeouts and its memory charge.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, response::Response};
use bytes::Bytes;
use hyper::{
    Request, Version,
    body::{Frame, Incoming, SizeHint},
    header::{CONNECTION, HeaderName, HeaderValue},
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};

use crate::{
    charge::ConnectionCharge,
    client::ClientInfo,
    limits::{HEADER_BYTES, HEADERS},
    socket::PlainOrTls,
    timeouts::{RequestCounts, RequestGuard, TimeoutStream, Timeouts},
    websocket::lists,
};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

/// Connection of a client, ready to be served.
pub(crate) struct HttpConnection {
    pub(crate) stream: PlainOrTls,
    pub(crate) client: ClientInfo,
    /// `None`: its memory is not charged.
    pub(crate) charge: Option<ConnectionCharge>,
    /// Time without a request after which it is closed.
    pub(crate) idle: Duration,
}

impl HttpConnection {
    /// Serves requests by `router` until the connection ends or is upgraded.
    pub(crate) async fn serve(self, router: Router) {
        let Self { stream, client, charge, idle } = self;
        let counts = Arc::<RequestCounts>::default();
        let limits = Timeouts::with_idle(idle);
        let io = TokioIo::new(TimeoutStream::new(stream, counts.clone(), charge.clone(), limits));
        let (remote, router) = (client.conn.remote, TowerToHyperService::new(router));
        let service = service_fn(move |mut request: Request<Incoming>| {
            let (guard, charge, is_kept) = (counts.begin(), charge.clone(), is_persistent(&request));
            request.extensions_mut().insert(client.clone());
            let answer = router.call(request);
            async move {
                let Ok(mut response) = answer.await;
                // The request is gone; its answer is charged where it takes memory.
                if let Some(charge) = charge {
                    charge.set_request(false);
                }
                if is_kept {
                    announce_idle(&mut response, idle);
                }
                Ok::<_, Infallible>(response.map(|body| ResponseBody { body, _guard: guard }))
            }
        });
        let mut http = http1::Builder::new();
        http.max_buf_size(HEADER_BYTES).max_headers(HEADERS).header_read_timeout(None).half_close(false);
        if let Err(error) = http.serve_connection(io, service).with_upgrades().await {
            tracing::debug!(%remote, %error, "HTTP connection ended with an error");
        }
    }
}

/// Whether the connection persists after the answer (RFC 9112 section 9.3).
fn is_persistent<B>(request: &Request<B>) -> bool {
    let asks = |option| lists(request.headers(), &CONNECTION, option);
    if request.version() >= Version::HTTP_11 { !asks("close") } else { asks("keep-alive") }
}

/// Announces the idle time, so that no client reuses a connection that is being closed.
fn announce_idle(response: &mut Response, idle: Duration) {
    let headers = response.headers_mut();
    if headers.contains_key(CONNECTION) {
        return;
    }
    if let Ok(value) = HeaderValue::from_str(&format!("timeout={}", idle.as_secs())) {
        headers.insert(CONNECTION, HeaderValue::from_static("keep-alive"));
        headers.insert(KEEP_ALIVE, value);
    }
}

/// Body of a response; its request counts as answered once it is dropped.
struct ResponseBody {
    body: Body,
    _guard: RequestGuard,
}

impl hyper::body::Body for ResponseBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
