//! Routes of the public listeners and of the private one, with the layers that their requests pass.

use std::sync::Arc;

use axum::{
    Extension, Router,
    extract::{Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
    routing::{MethodRouter, get},
};
use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{CONTENT_TYPE, HeaderValue},
};
use relay_worker::Relay;

use crate::{
    announced,
    authority::{Authority, Hosts},
    bearer,
    client::ClientInfo,
    cors::{self, CrossOrigin},
    fetch, front,
    origin::Origins,
    proxies::Proxies,
    readers::HttpReaders,
    reply::{capabilities, not_allowed, plain, text},
    request::RouteRequest,
    tls::FingerprintSource,
    websocket::{self, WebSocketEndpoint},
};

/// Body of the 404 answer.
const NOTHING_HERE: &str = "<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>moq-relay</title>\
     </head>\n<body><h1>moq-relay</h1><p>Nothing is here. This is a relay for Media over QUIC: clients reach it with \
     WebTransport, WebSocket or QUIC.</p></body></html>\n";
const HTML: HeaderValue = HeaderValue::from_static("text/html; charset=utf-8");
/// Names of the two routes of readers.
const ANNOUNCED: &str = "/announced";
const FETCH: &str = "/fetch";

/// Parts of the public site.
pub(crate) struct PublicSite {
    pub(crate) state: PublicState,
    /// `None`: WebSockets are not served.
    pub(crate) websocket: Option<WebSocketEndpoint>,
    pub(crate) origins: Origins,
    pub(crate) hosts: Hosts,
    pub(crate) proxies: Proxies,
    /// Further routes; those of this module go first.
    pub(crate) routes: Vec<Router>,
}

/// State that the public routes read.
#[derive(Clone)]
pub(crate) struct PublicState {
    pub(crate) relay: Arc<Relay>,
    /// `None`: the relay has no place for HTTP readers.
    pub(crate) readers: Option<HttpReaders>,
    pub(crate) fingerprint: FingerprintSource,
}

impl PublicSite {
    /// Builds the router. Requests come with a [`ClientInfo`] as extension.
    pub(crate) fn router(self) -> Router {
        let Self { state, websocket, origins, hosts, proxies, routes } = self;
        let rules = Arc::new(CrossOrigin { origins, has_websocket: websocket.is_some() });
        let further = routes.into_iter().fold(Router::new(), Router::merge).fallback(nothing_here);
        let further = front::with_body_limit(further).layer(from_fn(cors::refuse_foreign));
        let layers =
            PublicLayers { websocket: websocket.map(Arc::new), proxies: proxies.into(), hosts: hosts.into() };
        layers
            .add(own(state))
            .layer(from_fn_with_state(rules.clone(), cors::expose))
            .fallback_service(layers.add(further))
            .layer(from_fn_with_state(rules, cors::decide))
    }
}

/// Adds the layers of the private listener, which is for `hosts`.
pub(crate) fn private(router: Router, hosts: Hosts) -> Router {
    front::layered(front::with_body_limit(router), &hosts.into())
}

/// Layers of all public requests, between the decision about their origin and their route.
struct PublicLayers {
    websocket: Option<Arc<WebSocketEndpoint>>,
    proxies: Arc<Proxies>,
    hosts: Arc<Hosts>,
}

impl PublicLayers {
    fn add(&self, router: Router) -> Router {
        let router = match &self.websocket {
            Some(endpoint) => router.layer(from_fn_with_state(endpoint.clone(), websocket::upgrade)),
            None => router,
        };
        let router = router.layer(from_fn(bearer::authorize));
        front::layered(router.layer(from_fn_with_state(self.proxies.clone(), identify)), &self.hosts)
    }
}

/// Routes of this module. A body is refused, and an answer about broadcasts is withheld from pages of other origins.
fn own(state: PublicState) -> Router {
    let foreign = from_fn(cors::refuse_foreign);
    let routes: [(&[&str], MethodRouter<PublicState>); 5] = [
        (&["/health", "/health/"], get(health)),
        (&["/ready", "/ready/"], get(ready)),
        (&["/certificate.sha256", "/certificate.sha256/"], get(certificate)),
        (
            &[ANNOUNCED, "/announced/", "/announced/{*path}"],
            get(announced_below).route_layer(foreign.clone()),
        ),
        (&[FETCH, "/fetch/", "/fetch/{*path}"], get(fetch_below).route_layer(foreign)),
    ];
    let mut router = Router::new();
    for (paths, reads) in routes {
        let methods = reads
            .route_layer(from_fn(front::refuse_body))
            .options(async || capabilities())
            .fallback(async || not_allowed());
        router = paths.iter().fold(router, |router, path| router.route(path, methods.clone()));
    }
    router.with_state(state)
}

async fn health() -> Response {
    plain(StatusCode::OK, "ok\n")
}

/// Whether new clients should be sent to this relay.
async fn ready(State(public): State<PublicState>) -> Response {
    if public.relay.is_ready() { plain(StatusCode::OK, "ready\n") } else { draining() }
}

async fn certificate(State(public): State<PublicState>) -> Response {
    match (public.fingerprint)() {
        Some(fingerprint) => text(StatusCode::OK, fingerprint.into()),
        None => plain(StatusCode::NOT_FOUND, "no certificate\n"),
    }
}

async fn announced_below(
    State(public): State<PublicState>,
    Extension(client): Extension<ClientInfo>,
    request: Request,
) -> Response {
    match public.open_readers() {
        Some(readers) => announced::answer(readers, RouteRequest::new(ANNOUNCED, request, client)).await,
        None => draining(),
    }
}

async fn fetch_below(
    State(public): State<PublicState>,
    Extension(client): Extension<ClientInfo>,
    request: Request,
) -> Response {
    match public.open_readers() {
        Some(readers) => fetch::answer(readers, RouteRequest::new(FETCH, request, client)).await,
        None => draining(),
    }
}

impl PublicState {
    /// Readers, unless the relay is draining.
    fn open_readers(&self) -> Option<&HttpReaders> {
        self.readers.as_ref().filter(|_| self.relay.is_ready())
    }
}

fn draining() -> Response {
    plain(StatusCode::SERVICE_UNAVAILABLE, "draining\n")
}

async fn nothing_here() -> Response {
    let mut response = text(StatusCode::NOT_FOUND, Bytes::from_static(NOTHING_HERE.as_bytes()));
    response.headers_mut().insert(CONTENT_TYPE, HTML);
    response
}

/// Sets the client of a request: the one that a trusted proxy names, and the host it asks for where TLS names none.
async fn identify(State(proxies): State<Arc<Proxies>>, mut request: Request, next: Next) -> Response {
    let authority = request.extensions_mut().remove::<Authority>();
    if let Some(mut client) = request.extensions_mut().remove::<ClientInfo>() {
        if client.is_proxy {
            client.conn.remote = proxies.client(client.conn.remote, request.headers());
        }
        let named = || authority.and_then(|authority| authority.host.into_name());
        client.conn.server_name = client.conn.server_name.take().or_else(named);
        request.extensions_mut().insert(client);
    }
    next.run(request).await
}
