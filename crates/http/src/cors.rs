//! Layers for pages of other origins: CORS headers on the answers of this crate's routes, and refusals.
//!
//! `docs/adr/0010-http-libraries.md` has the reasons against the CORS layer of `tower-http`.

use std::sync::Arc;

use axum::{
    Extension,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};

use crate::{
    client::ClientInfo,
    origin::{Origins, PageAccess},
    reply::foreign_page,
    websocket::is_upgrade,
};

/// Rules for pages of other origins.
#[derive(Debug)]
pub(crate) struct CrossOrigin {
    pub(crate) origins: Origins,
    /// Whether WebSockets are served; browsers apply no CORS to them.
    pub(crate) has_websocket: bool,
}

/// Decides which access the requesting page has; the layers below find it as an extension.
pub(crate) async fn decide(
    State(rules): State<Arc<CrossOrigin>>,
    Extension(client): Extension<ClientInfo>,
    mut request: Request,
    next: Next,
) -> Response {
    let access = rules.origins.access(request.headers(), client.conn.local.ip());
    request.extensions_mut().insert(access);
    next.run(request).await
}

/// Adds the CORS headers to an answer, also to an error.
pub(crate) async fn expose(
    State(rules): State<Arc<CrossOrigin>>,
    Extension(access): Extension<PageAccess>,
    request: Request,
    next: Next,
) -> Response {
    let is_socket = rules.has_websocket && is_upgrade(&request);
    let mut response = next.run(request).await;
    if !is_socket {
        access.put(response.headers_mut());
    }
    response
}

/// Refuses pages that may not read the answer.
pub(crate) async fn refuse_foreign(
    Extension(access): Extension<PageAccess>,
    request: Request,
    next: Next,
) -> Response {
    if access == PageAccess::Refused { foreign_page() } else { next.run(request).await }
}

#[cfg(test)]
mod tests;
