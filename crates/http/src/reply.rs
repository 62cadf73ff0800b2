//! Responses that several routes and layers give, and the status of a denial.

use std::fmt;

use axum::{body::Body, response::Response};
use bytes::Bytes;
use hyper::{
    StatusCode,
    header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE, ALLOW,
        CACHE_CONTROL, CONNECTION, CONTENT_TYPE, HeaderValue, X_CONTENT_TYPE_OPTIONS,
    },
};
use relay_auth::Refusal;
use relay_worker::Denial;

/// Content type of plain text.
pub(crate) const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
/// Methods of this crate's public routes.
const METHODS: HeaderValue = HeaderValue::from_static("GET, HEAD, OPTIONS");
/// `Cache-Control` of answers that must not be stored.
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// Response without a body, which is not cached.
pub(crate) fn empty(status: StatusCode) -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// Response with a constant text.
pub(crate) fn plain(status: StatusCode, words: &'static str) -> Response {
    text(status, Bytes::from_static(words.as_bytes()))
}

/// Response with one line of formatted text.
pub(crate) fn worded(status: StatusCode, words: impl fmt::Display) -> Response {
    text(status, format!("{words}\n").into())
}

/// Response with a text, which is not cached.
pub(crate) fn text(status: StatusCode, words: Bytes) -> Response {
    let mut response = empty(status);
    *response.body_mut() = Body::from(words);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, TEXT);
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    response
}

/// Answer to OPTIONS, also to a preflight request of a browser.
pub(crate) fn capabilities() -> Response {
    let mut response = empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, METHODS);
    headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("*, Authorization"));
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    headers.insert(ALLOW, METHODS);
    response
}

/// Answer to a method that the route does not have.
pub(crate) fn not_allowed() -> Response {
    let mut response = plain(StatusCode::METHOD_NOT_ALLOWED, "only GET, HEAD and OPTIONS\n");
    response.headers_mut().insert(ALLOW, METHODS);
    response
}

/// Answer to a page of an origin that is not allowed.
pub(crate) fn foreign_page() -> Response {
    plain(StatusCode::FORBIDDEN, "pages of this origin are refused; `web.origins` lists the allowed ones\n")
}

/// Refuses a body without reading it; the connection ends.
pub(crate) fn too_large() -> Response {
    closing(plain(StatusCode::PAYLOAD_TOO_LARGE, "request body too large\n"))
}

/// Marks a response as the last one of its connection.
pub(crate) fn closing(mut response: Response) -> Response {
    response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    response
}

/// HTTP status of a denial.
pub(crate) fn denied(denial: Denial) -> StatusCode {
    match denial {
        Denial::Refused(Refusal::Malformed) => StatusCode::BAD_REQUEST,
        Denial::Refused(_) | Denial::Expired => StatusCode::UNAUTHORIZED,
        Denial::Unavailable => StatusCode::BAD_GATEWAY,
        Denial::TimedOut => StatusCode::GATEWAY_TIMEOUT,
    }
}
