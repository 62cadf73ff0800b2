//! Actions of an operator: kick a session, drain the relay.

use axum::{
    extract::{Path, Query, State},
    http::StatusCode,
    response::Response,
};
use bytes::Bytes;
use relay_model::{SessionCode, SessionId};
use serde::Deserialize;
use tokio::{sync::mpsc, time::timeout};

use crate::status::{Status, answer, gather::ANSWER_TIMEOUT, text_line};

/// Longest reason, bytes: it is sent in the packet that closes a connection.
const REASON_BYTES: usize = 256;
/// Default reason.
const REASON: &str = "ended by the operator";

/// Code and reason for the peer; a field in the query overrides the one in the body.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct KickRequest {
    code: Option<u32>,
    reason: Option<String>,
}

/// Ends a session. Clients do not reconnect after the default code, `unauthorized`; after code 0 they may.
pub(super) async fn kick(
    State(status): State<Status>,
    Path(id): Path<String>,
    Query(query): Query<KickRequest>,
    body: Bytes,
) -> Response {
    let Ok(session) = id.parse().map(SessionId) else {
        return text_line(StatusCode::NOT_FOUND, "no such session: ids are numbers");
    };
    let body: KickRequest = match body.is_empty() {
        true => KickRequest::default(),
        false => match serde_json::from_slice(&body) {
            Ok(body) => body,
            Err(error) => return text_line(StatusCode::BAD_REQUEST, format_args!("body: {error}")),
        },
    };
    let code = query.code.or(body.code).map_or(SessionCode::UNAUTHORIZED, SessionCode);
    let reason = query.reason.or(body.reason).unwrap_or_else(|| REASON.to_owned());
    if reason.len() > REASON_BYTES {
        let text = format_args!("reason: at most {REASON_BYTES} bytes, not {}", reason.len());
        return text_line(StatusCode::BAD_REQUEST, text);
    }
    let (sender, mut outcome) = mpsc::channel(1);
    status.inspector().kick(session, code, &reason, move |found| {
        let _ = sender.try_send(found);
    });
    match timeout(ANSWER_TIMEOUT, outcome.recv()).await {
        Ok(Some(true)) => {
            tracing::info!(%session, %code, reason, "session ended over HTTP");
            answer(StatusCode::OK, r#"{"kicked":true}"#)
        }
        Ok(Some(false)) => text_line(StatusCode::NOT_FOUND, "no such session"),
        Ok(None) | Err(_) => text_line(
            StatusCode::SERVICE_UNAVAILABLE,
            "the session's worker does not answer; the session ends when it does",
        ),
    }
}

/// Starts a drain. Repeated requests change nothing and get the same answer.
pub(super) async fn drain(State(status): State<Status>) -> Response {
    status.drain();
    answer(StatusCode::ACCEPTED, r#"{"draining":true}"#)
}
