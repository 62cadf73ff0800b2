//! Routing of HTTP requests, and the headers that every answer has.

use std::{
    convert::Infallible,
    fmt,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use axum::{Router, body::Body, extract::DefaultBodyLimit, response::Response};
use bytes::Bytes;
use hyper::{
    HeaderMap, Method, Request, StatusCode, Uri, Version,
    body::{Frame, Incoming, SizeHint},
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ALLOW,
        CACHE_CONTROL, CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HOST, HeaderName, HeaderValue,
        TRANSFER_ENCODING, X_CONTENT_TYPE_OPTIONS,
    },
    server::conn::http1,
    service::{Service, service_fn},
};
use hyper_util::{rt::TokioIo, service::TowerToHyperService};
use relay_worker::{ConnInfo, Relay};
use tokio::time::timeout;

use crate::{
    announced,
    authority::{Authority, AuthorityError, Hosts},
    bearer,
    charge::ConnectionCharge,
    client::ClientInfo,
    fetch,
    limits::{BODY_BYTES, HEADER_BYTES, HEADERS, REQUEST_TIME},
    origin::{Origins, PageAccess},
    proxies::Proxies,
    readers::HttpReaders,
    server::{FingerprintSource, Options},
    socket::{PlainOrTls, RequestCounts, RequestGuard, TimeoutStream},
    websocket::{WebSocketEndpoint, is_upgrade, lists},
};

/// Body of the 404 answer.
const NOTHING_HERE: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>moq-relay</title>\
     </head>\n<body><h1>moq-relay</h1><p>Nothing is here. This is a relay for Media over QUIC: clients reach it with \
     WebTransport, WebSocket or QUIC.</p></body></html>\n";
/// Methods of this crate's routes.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// `Cache-Control` of answers that must not be stored.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");

/// Service behind a port.
pub(crate) enum Site {
    Public(Public),
    Internal(Internal),
}

/// Public routes.
pub(crate) struct Public {
    relay: Arc<Relay>,
    hub: Option<HttpReaders>,
    sockets: Option<WebSocketEndpoint>,
    hosts: Hosts,
    origins: Origins,
    proxies: Proxies,
    rest: TowerToHyperService<Router>,
    fingerprint: FingerprintSource,
}

/// Private routes.
pub(crate) struct Internal {
    hosts: Hosts,
    router: TowerToHyperService<Router>,
}

/// A parsed request for one of this crate's routes.
pub(crate) struct RouteRequest {
    pub(crate) is_head: bool,
    /// Raw path after the route's name: empty, or begins with a slash.
    pub(crate) path: String,
    /// Raw query.
    pub(crate) query: String,
    pub(crate) headers: HeaderMap,
    pub(crate) client: ClientInfo,
}

impl RouteRequest {
    /// Describes the request of this client for the resource at `path` to the gate.
    pub(crate) fn gate_request(&self, path: &str) -> ConnInfo {
        let path = if path.is_empty() { "/" } else { path };
        let mark = if self.query.is_empty() { "" } else { "?" };
        self.client.http_request(format!("{path}{mark}{}", self.query))
    }
}

impl Site {
    /// Serves requests on a connection until it ends or is upgraded. It is closed after `idle` without a request.
    pub(crate) async fn serve_connection(
        self: Arc<Self>,
        stream: PlainOrTls,
        client: ClientInfo,
        charge: Option<ConnectionCharge>,
        idle: Duration,
    ) {
        let phase = Arc::<RequestCounts>::default();
        let io = TokioIo::new(TimeoutStream::new(stream, phase.clone(), charge.clone(), idle));
        let remote = client.conn.remote;
        let service = service_fn(move |request: Request<Incoming>| {
            let (busy, site, client) = (phase.begin(), self.clone(), client.clone());
            let (is_kept, charge) = (is_persistent(&request), charge.clone());
            let access = site.access(&client, &request);
            async move {
                let answer = timeout(REQUEST_TIME, site.answer(client, request)).await;
                // The request is gone; its answer is charged where it takes memory.
                if let Some(charge) = charge {
                    charge.set_request(false);
                }
                let mut answer = answer.unwrap_or_else(|_| plain(StatusCode::GATEWAY_TIMEOUT, "timed out\n"));
                if let Some(access) = access {
                    access.put(answer.headers_mut());
                }
                if is_kept {
                    announce_idle(&mut answer, idle);
                }
                Ok::<_, Infallible>(answer.map(|body| ResponseBody { body, _busy: busy }))
            }
        });
        let mut http = http1::Builder::new();
        http.max_buf_size(HEADER_BYTES).max_headers(HEADERS).header_read_timeout(None).half_close(false);
        if let Err(error) = http.serve_connection(io, service).with_upgrades().await {
            tracing::debug!(%remote, %error, "HTTP connection ended with an error");
        }
    }

    /// Cross-origin access to the answer, whatever it is; `None` where no CORS headers apply.
    fn access<B>(&self, client: &ClientInfo, request: &Request<B>) -> Option<PageAccess> {
        let Self::Public(public) = self else { return None };
        let is_socket = public.sockets.is_some() && is_upgrade(request);
        let is_own = !is_socket && HttpRoute::of(request.uri().path()).is_some();
        is_own.then(|| public.access(client, request))
    }

    async fn answer(&self, mut client: ClientInfo, mut request: Request<Incoming>) -> Response {
        let authority = match Authority::of_request(&request) {
            Ok(authority) => authority,
            Err(error) => return malformed(error),
        };
        let hosts = match self {
            Self::Public(public) => &public.hosts,
            Self::Internal(internal) => &internal.hosts,
        };
        if let Some(authority) = authority.as_ref().filter(|authority| !hosts.allow(Some(authority))) {
            return misdirected(authority);
        }
        to_origin_form(&mut request);
        if let Some(response) = of_server(&request) {
            return response;
        }
        match self {
            Self::Public(public) => {
                if client.is_proxy {
                    client.conn.remote = public.proxies.client(client.conn.remote, request.headers());
                }
                let named = || authority.and_then(|authority| authority.host.into_name());
                client.conn.server_name = client.conn.server_name.take().or_else(named);
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
    /// Creates the public routes of `options`.
    pub(crate) fn new(relay: &Arc<Relay>, options: Options) -> Self {
        let Options { websocket, origins, hosts, proxies, routes, fingerprint, .. } = options;
        let rest = routes.into_iter().fold(Router::new(), Router::merge).fallback(nothing_here);
        let rest = TowerToHyperService::new(rest.layer(DefaultBodyLimit::max(BODY_BYTES)));
        let sockets = (!websocket.is_empty()).then(|| WebSocketEndpoint::new(&websocket, relay.arrivals()));
        let hub = relay.virtual_worker().map(HttpReaders::start);
        Self { relay: relay.clone(), hub, sockets, hosts, origins, proxies, rest, fingerprint }
    }

    /// HTTP readers; `None` when the relay has no seat for them.
    pub(crate) fn readers(&self) -> Option<HttpReaders> {
        self.hub.clone()
    }

    /// Whether WebSockets are served.
    pub(crate) fn has_websocket(&self) -> bool {
        self.sockets.is_some()
    }

    /// Cross-origin access to the answer to `request`.
    fn access<B>(&self, client: &ClientInfo, request: &Request<B>) -> PageAccess {
        self.origins.access(request.headers(), client.conn.local.ip())
    }

    async fn answer(&self, client: ClientInfo, mut request: Request<Incoming>) -> Response {
        let is_refused = self.access(&client, &request) == PageAccess::Refused;
        if let Some(sockets) = &self.sockets
            && is_upgrade(&request)
        {
            return if is_refused { foreign_page() } else { sockets.upgrade(client, request).await };
        }
        let whole = request.uri().path_and_query().map_or("/", |target| target.as_str());
        let (path, query) = whole.split_once('?').unwrap_or((whole, ""));
        let Some((route, rest)) = HttpRoute::of(path) else {
            if is_refused {
                return foreign_page();
            }
            request.extensions_mut().insert(client);
            return routed(&self.rest, request).await;
        };
        let (path, query, is_head) = (rest.to_owned(), query.to_owned(), request.method() == Method::HEAD);
        match *request.method() {
            Method::GET | Method::HEAD if has_body(&request) => too_large(),
            Method::GET | Method::HEAD if is_refused && route.shows_broadcasts() => foreign_page(),
            Method::GET | Method::HEAD => {
                let asked =
                    RouteRequest { is_head, path, query, headers: request.into_parts().0.headers, client };
                self.own(route, asked).await
            }
            Method::OPTIONS => capabilities(),
            _ => not_allowed(),
        }
    }

    async fn own(&self, route: HttpRoute, asked: RouteRequest) -> Response {
        match route {
            HttpRoute::Health => plain(StatusCode::OK, "ok\n"),
            HttpRoute::Ready => ready(&self.relay),
            HttpRoute::Certificate => match (self.fingerprint)() {
                Some(fingerprint) => text(StatusCode::OK, fingerprint.into()),
                None => plain(StatusCode::NOT_FOUND, "no certificate\n"),
            },
            HttpRoute::Announced | HttpRoute::Fetch => {
                let Some(hub) = self.hub.as_ref().filter(|_| self.relay.is_ready()) else {
                    return plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
                };
                match route {
                    HttpRoute::Announced => announced::answer(hub, asked).await,
                    _ => fetch::answer(hub, asked).await,
                }
            }
        }
    }
}

impl Internal {
    pub(crate) fn new(router: Router, hosts: Hosts) -> Self {
        let router = TowerToHyperService::new(router.layer(DefaultBodyLimit::max(BODY_BYTES)));
        Self { hosts, router }
    }
}

/// Routes of this crate.
#[derive(Clone, Copy)]
enum HttpRoute {
    Health,
    Ready,
    Certificate,
    Announced,
    Fetch,
}

impl HttpRoute {
    /// Whether the answer is withheld from pages of other origins.
    fn shows_broadcasts(self) -> bool {
        matches!(self, Self::Announced | Self::Fetch)
    }

    /// Route of a raw path, and the rest of the path after its name.
    fn of(path: &str) -> Option<(Self, &str)> {
        let below = |name| path.strip_prefix(name).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        match path.strip_suffix('/').unwrap_or(path) {
            "/health" => Some((Self::Health, "")),
            "/ready" => Some((Self::Ready, "")),
            "/certificate.sha256" => Some((Self::Certificate, "")),
            _ => None
                .or_else(|| Some((Self::Announced, below("/announced")?)))
                .or_else(|| Some((Self::Fetch, below("/fetch")?))),
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

/// Rewrites a target in absolute form to origin form, with its authority as `Host` (RFC 9112 section 3.2.2), so that
/// later code sees one form.
fn to_origin_form(request: &mut Request<Incoming>) {
    let Some(authority) = request.uri().authority() else { return };
    let host = HeaderValue::from_str(authority.as_str());
    let target = request.uri().path_and_query().cloned();
    if let (Some(target), Ok(host)) = (target, host) {
        *request.uri_mut() = Uri::from(target);
        request.headers_mut().insert(HOST, host);
    }
}

/// Answer to a request for the server as a whole, or with a method that no resource has.
fn of_server<B>(request: &Request<B>) -> Option<Response> {
    match (request.method(), request.uri().path()) {
        (&Method::OPTIONS, "*" | "/") => Some(capabilities()),
        (&Method::CONNECT, _) => Some(not_allowed()),
        (_, "*") => Some(plain(StatusCode::BAD_REQUEST, "only OPTIONS may ask for *\n")),
        _ => None,
    }
}

/// Answer to OPTIONS.
fn capabilities() -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, Authorization"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(ALLOW, METHODS);
    response
}

fn not_allowed() -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS\n");
    response.headers_mut().insert(ALLOW, METHODS);
    response
}

fn malformed(error: AuthorityError) -> Response {
    let mut response = worded(StatusCode::BAD_REQUEST, error);
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Answer to a request for a host name that is not ours.
fn misdirected(authority: &Authority) -> Response {
    let host = &authority.host;
    worded(
        StatusCode::FORBIDDEN,
        format_args!(
            "the host name \"{host}\" is not answered here; list it in `web.hosts` if it is this relay's"
        ),
    )
}

/// Answer to a page of an origin that is not allowed.
fn foreign_page() -> Response {
    plain(StatusCode::FORBIDDEN, "pages of this origin are refused; `web.origins` lists the allowed ones\n")
}

/// Answer of `/ready`: whether new clients should be sent to this relay.
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

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

fn has_body(request: &Request<Incoming>) -> bool {
    let headers = request.headers();
    declared(headers).is_some_and(|bytes| bytes > 0) || headers.contains_key(TRANSFER_ENCODING)
}

/// Refuses a body without reading it; the connection ends.
fn too_large() -> Response {
    let mut response = plain(StatusCode::PAYLOAD_TOO_LARGE, "request body too large\n");
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// Response without a body, which is not cached.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Response with a short text.
pub(crate) fn plain(status: StatusCode, words: &'static str) -> Response {
    text(status, Bytes::from_static(words.as_bytes()))
}

fn worded(status: StatusCode, words: impl fmt::Display) -> Response {
    text(status, format!("{words}\n").into())
}

fn text(status: StatusCode, words: Bytes) -> Response {
    let mut response = empty(status);
    *response.body_mut() = Body::from(words);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Body of a response; its request counts as answered once it is dropped.
struct ResponseBody {
    body: Body,
    _busy: RequestGuard,
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
