//! Tokens in the header `Authorization` (RFC 6750, section 2.1), and the challenge of a 401.
//!
//! The token is inserted into the query as `jwt`, so that the gate and the caching rules find every token in one place.
//! A token that the query already has takes precedence.

use axum::{extract::Request, middleware::Next, response::Response};
use hyper::{
    HeaderMap, StatusCode, Uri,
    header::{AUTHORIZATION, HeaderValue, WWW_AUTHENTICATE},
    http::uri::PathAndQuery,
};

use crate::{limits::HEADER_BYTES, reply::plain};

/// Authorization scheme that is read; other schemes belong to a proxy in front and are ignored.
const SCHEME: &str = "bearer";
/// Challenge of a 401 (RFC 6750, section 3). The same with and without a token: no answer reveals the reason.
const CHALLENGE: HeaderValue = HeaderValue::from_static("Bearer realm=\"moq\"");

/// Layer that moves the token of the header `Authorization` into the query, and adds the challenge to a 401.
pub(crate) async fn authorize(mut request: Request, next: Next) -> Response {
    match adopt(&mut request) {
        Ok(()) => challenge(next.run(request).await),
        Err(words) => plain(StatusCode::BAD_REQUEST, words),
    }
}

/// Moves the token of the header `Authorization` into the query.
///
/// # Errors
/// Text of the 400 answer: two tokens in the header, or one that is too long or cannot be part of a URL.
fn adopt<B>(request: &mut Request<B>) -> Result<(), &'static str> {
    let Some(token) = token(request.headers())? else { return Ok(()) };
    let whole = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let target = appended(whole, token);
    if target.len() > HEADER_BYTES {
        return Err("the token in Authorization is too long\n");
    }
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(target.parse().map_err(|_| "the token in Authorization cannot be read\n")?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| "the token in Authorization cannot be read\n")?;
    Ok(())
}

/// Adds the challenge to a 401, which RFC 9110, section 15.5.2 asks for.
fn challenge(mut response: Response) -> Response {
    if response.status() == StatusCode::UNAUTHORIZED {
        response.headers_mut().entry(WWW_AUTHENTICATE).or_insert(CHALLENGE);
    }
    response
}

/// Bearer token of the header, if any.
fn token(headers: &HeaderMap) -> Result<Option<&str>, &'static str> {
    let mut found = None;
    for value in headers.get_all(AUTHORIZATION) {
        let Ok(text) = value.to_str() else { continue };
        let (scheme, token) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if !scheme.eq_ignore_ascii_case(SCHEME) || token.trim().is_empty() {
            continue;
        }
        if found.replace(token.trim()).is_some() {
            return Err("two tokens in Authorization\n");
        }
    }
    Ok(found)
}

/// Inserts the token before the existing query: a `jwt` that is already there takes precedence.
fn appended(target: &str, token: &str) -> String {
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut out = format!("{path}?jwt=");
    for byte in token.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => out.push(byte.into()),
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    if !query.is_empty() {
        out.push('&');
        out.push_str(query);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn adopted(target: &str, headers: &[&'static str]) -> Result<String, &'static str> {
        let mut request = Request::new(());
        *request.uri_mut() = target.parse().unwrap();
        for header in headers {
            request.headers_mut().append(AUTHORIZATION, HeaderValue::from_static(header));
        }
        adopt(&mut request).map(|()| request.uri().to_string())
    }

    #[test]
    fn a_bearer_token_counts_as_one_in_the_query() {
        for (target, header, expected) in [
            ("/a", "Bearer x.y-z_1", "/a?jwt=x.y-z_1"),
            ("/a?v=1", "bearer x", "/a?jwt=x&v=1"),
            ("/a", "BEARER  x ", "/a?jwt=x"),
            ("/a?jwt=q", "Bearer x", "/a?jwt=x&jwt=q"),
            ("/a", "Bearer a&path=b#c d%2e", "/a?jwt=a%26path%3Db%23c%20d%252e"),
            ("/a", "Bearer ", "/a"),
            ("/a", "Bearer", "/a"),
            ("/a", "Basic eDp5", "/a"),
            ("/a", "Bearerx y", "/a"),
            ("http://relay.example/a?b", "Bearer x", "http://relay.example/a?jwt=x&b"),
        ] {
            assert_eq!(adopted(target, &[header]).as_deref(), Ok(expected), "{target} {header}");
        }
    }

    #[test]
    fn two_bearer_tokens_are_refused() {
        assert!(adopted("/a", &["Bearer x", "Bearer x"]).is_err());
        assert_eq!(adopted("/a", &["Basic eDp5", "Bearer x"]).as_deref(), Ok("/a?jwt=x"));
    }

    #[test]
    fn only_a_401_has_a_challenge() {
        for status in [StatusCode::UNAUTHORIZED, StatusCode::OK, StatusCode::FORBIDDEN] {
            let mut response = Response::default();
            *response.status_mut() = status;
            let has = challenge(response).headers().contains_key(WWW_AUTHENTICATE);
            assert_eq!(has, status == StatusCode::UNAUTHORIZED);
        }
    }
}
