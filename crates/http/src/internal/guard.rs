//! Protection against cross-site requests: a page of another site must not act here through its visitor's browser,
//! which may reach this listener.
//!
//! Tools send no `Origin`. A browser sends one with each POST, and the page of this listener sends no POST: only an
//! origin that names this very listener by IP address is accepted. A host name is not, because its owner can point it
//! here. Answers carry no CORS headers, so pages of other sites cannot read them.

use std::net::IpAddr;

use axum::{
    extract::Request,
    http::{HeaderMap, Method, StatusCode, header, uri::Authority},
    middleware::Next,
    response::Response,
};

use crate::status::text_line;

/// Refuses requests other than GET and HEAD that come from pages of other sites.
pub(super) async fn same_site(request: Request, next: Next) -> Response {
    let looks = matches!(*request.method(), Method::GET | Method::HEAD);
    if !looks && is_foreign(request.headers()) {
        return text_line(StatusCode::FORBIDDEN, "refused: the request comes from a page of another site");
    }
    next.run(request).await
}

/// Whether a page of another site sent the request.
fn is_foreign(headers: &HeaderMap) -> bool {
    let Some(origin) = headers.get(header::ORIGIN) else {
        // Browsers that omit the origin still send this header.
        return headers.get("sec-fetch-site").is_some_and(|site| site != "same-origin" && site != "none");
    };
    let origin = origin.to_str().ok().and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    !matches!((origin, host), (Some(origin), Some(host)) if origin == host && is_address(host))
}

/// Whether `host` is an IP address or `localhost`, with or without a port.
fn is_address(host: &str) -> bool {
    let Ok(authority) = host.parse::<Authority>() else { return false };
    let host = authority.host();
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn foreign(headers: &[(&'static str, &'static str)]) -> bool {
        is_foreign(
            &headers.iter().map(|&(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect(),
        )
    }

    #[test]
    fn only_tools_and_this_listener_itself_act() {
        let host = ("host", "127.0.0.1:4444");
        assert!(!foreign(&[host]), "a tool");
        assert!(!foreign(&[host, ("origin", "http://127.0.0.1:4444")]));
        assert!(!foreign(&[("host", "[::1]:4444"), ("origin", "http://[::1]:4444")]));
        assert!(!foreign(&[("host", "localhost:4444"), ("origin", "http://localhost:4444")]));
        assert!(foreign(&[host, ("origin", "https://evil.example")]));
        assert!(foreign(&[host, ("origin", "http://127.0.0.1:80")]), "another port is another site");
        assert!(foreign(&[host, ("origin", "null")]));
        assert!(foreign(&[("origin", "http://127.0.0.1:4444")]), "no host to compare with");
        let rebound = [("host", "evil.example:4444"), ("origin", "http://evil.example:4444")];
        assert!(foreign(&rebound), "a name that its owner points here");
        assert!(foreign(&[host, ("sec-fetch-site", "cross-site")]));
        assert!(!foreign(&[host, ("sec-fetch-site", "same-origin")]));
    }
}
