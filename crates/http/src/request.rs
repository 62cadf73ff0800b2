//! Requests of HTTP readers.

use axum::extract::Request;
use hyper::{HeaderMap, Method, http::uri::PathAndQuery};
use relay_worker::ConnInfo;

use crate::client::ClientInfo;

/// Request for `/announced` or `/fetch`.
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
    /// Takes a request of `client` for a path at or below `route`.
    pub(crate) fn new(route: &str, request: Request, client: ClientInfo) -> Self {
        let (parts, _) = request.into_parts();
        let target = parts.uri.path_and_query().map_or("/", PathAndQuery::as_str);
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        Self {
            is_head: parts.method == Method::HEAD,
            path: path.strip_prefix(route).unwrap_or_default().to_owned(),
            query: query.to_owned(),
            headers: parts.headers,
            client,
        }
    }

    /// Describes the request of this client for the resource at `path` to the gate.
    pub(crate) fn gate_request(&self, path: &str) -> ConnInfo {
        let path = if path.is_empty() { "/" } else { path };
        let mark = if self.query.is_empty() { "" } else { "?" };
        self.client.http_request(format!("{path}{mark}{}", self.query))
    }
}
