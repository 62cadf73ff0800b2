//! What is served over HTTP: who answers which request, and what every answer has.

use std::{
    convert::Infallible,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use axum::{Router, body::Body, extract::DefaultBodyLimit, response::Response};
use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::{Frame, Incoming, SizeHint},
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN,
        ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL, CONNECTION,
        CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderValue, TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
    },
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use relay_worker::{Asker, Relay};
use tokio::time::timeout;

use crate::{
    announced, bearer,
    client::{Client, Proxies},
    fetch,
    hub::Hub,
    limits::{BODY_BYTES, HEADER_BYTES, REQUEST_TIME},
    server::Fingerprint,
    socket::{Busy, Guarded, Phase, Stream},
    websocket::{Sockets, is_upgrade},
};

/// What is said where nothing is.
const NOTHING_HERE: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>moq-relay</title>\
     </head>\n<body><h1>moq-relay</h1><p>Nothing is here. This is a relay for Media over QUIC: clients reach it with \
     WebTransport, WebSocket or QUIC.</p></body></html>\n";
/// What may be asked of our own routes.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// What is kept nowhere.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// What stands behind a port.
pub(crate) enum Site {
    Public(Public),
    Internal(Internal),
}

/// What everybody may ask.
pub(crate) struct Public {
    relay: Arc<Relay>,
    hub: Option<Hub>,
    sockets: Option<Sockets>,
    proxies: Proxies,
    rest: TowerToHyperService<Router>,
    fingerprint: Fingerprint,
}

/// What operators ask.
pub(crate) struct Internal {
    router: TowerToHyperService<Router>,
}

/// A request of our own routes, taken apart.
pub(crate) struct Asked {
    pub(crate) is_head: bool,
    /// What follows the name of the route, raw: empty, or begins with a slash.
    pub(crate) path: String,
    /// The query, raw.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) client: Client,
}

impl Asked {
    /// Who asks, for what lies at `path`.
    pub(crate) fn asker(&self, path: &str) -> Asker {
        let path = if path.is_empty() { "/" } else { path };
        let mark = if self.query.is_empty() { "" } else { "?" };
        Asker {
            target: format!("{path}{mark}{}", self.query),
            transport: "http",
            version: "http/1.1",
            remote: self.client.remote,
            local: self.client.local,
            server_name: self.client.server_name.clone(),
            certificate: self.client.certificate.clone(),
        }
    }
}

impl Site {
    /// Answers what comes over a connection until it ends, or leaves HTTP.
    pub(crate) async fn converse(self: Arc<Self>, stream: Stream, client: Client) {
        let phase = Arc::<Phase>::default();
        let io = TokioIo::new(Guarded::new(stream, phase.clone()));
        let remote = client.remote;
        let service = service_fn(move |request: Request<Incoming>| {
            let (busy, site, client) = (phase.begin(), self.clone(), client.clone());
            async move {
                let answer = timeout(REQUEST_TIME, site.answer(client, request)).await;
                let answer = answer.unwrap_or_else(|_| plain(StatusCode::GATEWAY_TIMEOUT, "too late\n"));
                Ok::<_, Infallible>(answer.map(|body| Answer { body, _busy: busy }))
            }
        });
        let mut http = http1::Builder::new();
        http.max_buf_size(HEADER_BYTES).header_read_timeout(None).half_close(false);
        if let Err(error) = http.serve_connection(io, service).with_upgrades().await {
            tracing::debug!(%remote, %error, "a connection over HTTP ended");
        }
    }

    async fn answer(&self, mut client: Client, mut request: Request<Incoming>) -> Response {
        match self {
            Self::Public(public) => {
                if client.is_proxy {
                    client.remote = public.proxies.client(client.remote, request.headers());
                }
                client.server_name = client.server_name.take().or_else(|| host(request.headers()));
                match bearer::adopt(&mut request) {
                    Ok(()) => bearer::challenge(public.answer(client, request).await),
                    Err(words) => plain(StatusCode::BAD_REQUEST, words),
                }
            }
            Self::Internal(internal) => {
                request.extensions_mut().insert(client);
                routed(&internal.router, request).await
            }
        }
    }
}

impl Public {
    pub(crate) fn new(
        relay: Arc<Relay>,
        hub: Option<Hub>,
        sockets: Option<Sockets>,
        proxies: Proxies,
        routes: Vec<Router>,
        fingerprint: Fingerprint,
    ) -> Self {
        let rest = routes.into_iter().fold(Router::new(), Router::merge).fallback(nothing_here);
        let rest = TowerToHyperService::new(rest.layer(DefaultBodyLimit::max(BODY_BYTES)));
        Self { relay, hub, sockets, proxies, rest, fingerprint }
    }

    async fn answer(&self, client: Client, mut request: Request<Incoming>) -> Response {
        if let Some(sockets) = &self.sockets
            && is_upgrade(&request)
        {
            return sockets.upgrade(client, request).await;
        }
        let whole = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let (path, query) = whole.split_once('?').unwrap_or((whole, ""));
        let Some((route, rest)) = Route::of(path) else {
            request.extensions_mut().insert(client);
            return routed(&self.rest, request).await;
        };
        let (path, query, is_head) = (rest.to_owned(), query.to_owned(), request.method() == Method::HEAD);
        let mut response = match *request.method() {
            Method::GET | Method::HEAD if has_body(&request) => too_large(),
            Method::GET | Method::HEAD => {
                let asked = Asked { is_head, path, query, headers: request.into_parts().0.headers, client };
                self.own(route, asked).await
            }
            Method::OPTIONS => {
                let mut response = empty(StatusCode::NO_CONTENT);
                let headers = response.headers_mut();
                headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
                headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, Authorization"));
                headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
                headers.insert(ALLOW, METHODS);
                response
            }
            _ => {
                let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS\n");
                response.headers_mut().insert(ALLOW, METHODS);
                response
            }
        };
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("*"));
        response
    }

    async fn own(&self, route: Route, asked: Asked) -> Response {
        match route {
            Route::Health => plain(StatusCode::OK, "ok\n"),
            Route::Ready => ready(&self.relay),
            Route::Certificate => match (self.fingerprint)() {
                Some(fingerprint) => text(StatusCode::OK, fingerprint.into()),
                None => plain(StatusCode::NOT_FOUND, "no certificate\n"),
            },
            Route::Announced | Route::Fetch => {
                let Some(hub) = self.hub.as_ref().filter(|_| self.relay.is_ready()) else {
                    return plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
                };
                match route {
                    Route::Announced => announced::answer(hub, asked).await,
                    _ => fetch::answer(hub, asked).await,
                }
            }
        }
    }
}

impl Internal {
    pub(crate) fn new(router: Router) -> Self {
        Self { router: TowerToHyperService::new(router.layer(DefaultBodyLimit::max(BODY_BYTES))) }
    }
}

/// Our own routes.
#[derive(Clone, Copy)]
enum Route {
    Health,
    Ready,
    Certificate,
    Announced,
    Fetch,
}

impl Route {
    /// The route of a raw path, and what follows its name.
    fn of(path: &str) -> Option<(Self, &str)> {
        let below = |name| path.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match path {
            "/health" => Some((Self::Health, "")),
            "/ready" => Some((Self::Ready, "")),
            "/certificate.sha256" => Some((Self::Certificate, "")),
            _ => None
                .or_else(|| Some((Self::Announced, below("/announced")?)))
                .or_else(|| Some((Self::Fetch, below("/fetch")?))),
        }
    }
}

/// Whether clients should be sent here.
fn ready(relay: &Relay) -> Response {
    if relay.is_ready() {
        plain(StatusCode::OK, "ready\n")
    } else {
        plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    }
}

async fn nothing_here() -> Response {
    let mut response = text(StatusCode::NOT_FOUND, Bytes::from_static(NOTHING_HERE.as_bytes()));
    response.headers_mut().insert(CONTENT_TYPE, HTML);
    response
}

async fn routed(router: &TowerToHyperService<Router>, request: Request<Incoming>) -> Response {
    if declared(request.headers()).is_some_and(|bytes| bytes > BODY_BYTES as u64) {
        return too_large();
    }
    let Ok(response) = router.call(request).await;
    response
}

/// The host a request names, without its port.
fn host(headers: &HeaderMap) -> Option<String> {
    let host = headers.get(HOST)?.to_str().ok()?;
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    (!name.is_empty()).then(|| name.to_ascii_lowercase())
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn has_body(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    declared(headers).is_some_and(|bytes| bytes > 0) || headers.contains_key(TRANSFER_ENCODING)
}

/// What was brought along is not read: the connection ends.
fn too_large() -> Response {
    let mut response = plain(StatusCode::PAYLOAD_TOO_LARGE, "no body that large is taken here\n");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// A status and nothing else.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// A few words.
pub(crate) fn plain(status: StatusCode, words: &'static str) -> Response {
    text(status, Bytes::from_static(words.as_bytes()))
}

fn text(status: StatusCode, words: Bytes) -> Response {
    let mut response = empty(status);
    *response.body_mut() = Body::from(words);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// A body on its way; what it belongs to is answered once it is gone.
struct Answer {
    body: Body,
    _busy: Busy,
}

impl hyper::body::Body for Answer {
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
