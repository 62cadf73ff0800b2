//! Layers that every request passes before its route: time limit, host, target, and size of the body.

use std::{sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{DefaultBodyLimit, Request, State},
    middleware::{Next, from_fn, from_fn_with_state},
    response::Response,
};
use hyper::{
    HeaderMap, Method, StatusCode, Uri,
    header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING},
};
use tokio::time::timeout;

use crate::{
    authority::{Authority, Hosts},
    limits::{BODY_BYTES, REQUEST_TIME},
    reply::{capabilities, closing, not_allowed, plain, too_large, worded},
};

/// Adds the layers of this module to all routes of `router`, which are then served for `hosts` only. The requests that
/// they pass on have an [`Authority`] as extension, where they name one.
pub(crate) fn layered(router: Router, hosts: &Arc<Hosts>) -> Router {
    router
        .layer(from_fn(answer_for_server))
        .layer(from_fn_with_state(hosts.clone(), check_host))
        .layer(from_fn_with_state(REQUEST_TIME, limit_time))
}

/// Limits bodies of requests to routes that may read one.
pub(crate) fn with_body_limit(router: Router) -> Router {
    router.layer(DefaultBodyLimit::max(BODY_BYTES)).layer(from_fn(refuse_large_body))
}

/// Refuses every body.
pub(crate) async fn refuse_body(request: Request, next: Next) -> Response {
    let has_body = declared(request.headers()).is_some_and(|bytes| bytes > 0)
        || request.headers().contains_key(TRANSFER_ENCODING);
    if has_body { too_large() } else { next.run(request).await }
}

/// Refuses a body that is declared to be larger than [`BODY_BYTES`]; a route that reads one counts its bytes as well.
async fn refuse_large_body(request: Request, next: Next) -> Response {
    let is_large = declared(request.headers()).is_some_and(|bytes| bytes > BODY_BYTES as u64);
    if is_large { too_large() } else { next.run(request).await }
}

fn declared(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Limits the time until the answer begins.
async fn limit_time(State(limit): State<Duration>, request: Request, next: Next) -> Response {
    let answer = timeout(limit, next.run(request)).await;
    answer.unwrap_or_else(|_| plain(StatusCode::GATEWAY_TIMEOUT, "timed out\n"))
}

/// Refuses requests for other hosts, and those without a usable one.
async fn check_host(State(hosts): State<Arc<Hosts>>, mut request: Request, next: Next) -> Response {
    let authority = match Authority::of_request(&request) {
        Ok(authority) => authority,
        Err(error) => return closing(worded(StatusCode::BAD_REQUEST, error)),
    };
    if let Some(authority) = authority {
        if !hosts.allow(Some(&authority)) {
            return misdirected(&authority);
        }
        request.extensions_mut().insert(authority);
    }
    to_origin_form(&mut request);
    next.run(request).await
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

/// Rewrites a target in absolute form to origin form, with its authority as `Host` (RFC 9112 section 3.2.2), so that
/// later code sees one form.
fn to_origin_form(request: &mut Request) {
    let Some(authority) = request.uri().authority() else { return };
    let host = HeaderValue::from_str(authority.as_str());
    let target = request.uri().path_and_query().cloned();
    if let (Some(target), Ok(host)) = (target, host) {
        *request.uri_mut() = Uri::from(target);
        request.headers_mut().insert(HOST, host);
    }
}

/// Answers a request for the server as a whole, or with a method that no resource has.
async fn answer_for_server(request: Request, next: Next) -> Response {
    match (request.method(), request.uri().path()) {
        (&Method::OPTIONS, "*" | "/") => capabilities(),
        (&Method::CONNECT, _) => not_allowed(),
        (_, "*") => plain(StatusCode::BAD_REQUEST, "only OPTIONS may ask for *\n"),
        _ => next.run(request).await,
    }
}

#[cfg(test)]
mod tests;
