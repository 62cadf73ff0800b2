//! Sessions and broadcasts, in pages.

use axum::{
    extract::{Query, State},
    http::StatusCode,
    response::Response,
};
use relay_model::{Path, PathError, SessionId};
use relay_worker::{ListingQuery, SessionQuery};
use serde::{Deserialize, Serialize};

use crate::status::{
    Status, answer,
    gather::{self, LISTED, TRACKS},
    json, path,
    schema::{BroadcastJson, SessionJson},
    text_line,
};

/// Query of a list that cannot be answered.
#[derive(Clone, Copy, Debug, thiserror::Error)]
enum PageError {
    #[error("limit: a number from 1 to {LISTED} is expected, not {0}")]
    Limit(usize),
    #[error("path: {0}")]
    Path(#[from] PathError),
}

/// Query of a list: path, page size and position.
#[derive(Deserialize)]
pub(super) struct ListQuery {
    path: Option<String>,
    limit: Option<usize>,
    after: Option<String>,
}

impl ListQuery {
    /// Path, the root by default, and page size.
    fn page(&self) -> Result<(Path, usize), PageError> {
        let limit = self.limit.unwrap_or(LISTED);
        if !(1..=LISTED).contains(&limit) {
            return Err(PageError::Limit(limit));
        }
        let path = path(self.path.as_deref())?;
        Ok((path.unwrap_or_else(Path::root), limit))
    }
}

#[derive(Serialize)]
struct SessionListJson {
    sessions: Vec<SessionJson>,
    /// Number of sessions with this path, over all pages.
    total: usize,
    /// Value of `after` for the next page, which may be empty.
    next: Option<String>,
    /// Workers that did not answer: their sessions are missing.
    silent: Vec<String>,
}

pub(super) async fn sessions(State(status): State<Status>, Query(asked): Query<ListQuery>) -> Response {
    let (prefix, limit) = match asked.page() {
        Ok(page) => page,
        Err(problem) => return text_line(StatusCode::BAD_REQUEST, problem),
    };
    let after = match asked.after.as_deref().map(str::parse) {
        None => None,
        Some(Ok(id)) => Some(SessionId(id)),
        Some(Err(_)) => return text_line(StatusCode::BAD_REQUEST, "after: the id of a session is expected"),
    };
    let found = gather::sessions(status.inspector(), SessionQuery { prefix, after, limit }).await;
    let last = found.list.last().filter(|_| found.list.len() == limit);
    answer(
        StatusCode::OK,
        json(&SessionListJson {
            next: last.map(|session| session.id.to_string()),
            total: found.total,
            silent: found.silent().collect(),
            sessions: found.list.iter().map(SessionJson::new).collect(),
        }),
    )
}

#[derive(Serialize)]
struct BroadcastListJson {
    broadcasts: Vec<BroadcastJson>,
    /// Number of broadcasts at and below this path, over all pages.
    total: usize,
    /// Value of `after` for the next page, which may be empty.
    next: Option<String>,
}

pub(super) async fn broadcasts(State(status): State<Status>, Query(asked): Query<ListQuery>) -> Response {
    let (prefix, limit) = match asked.page() {
        Ok(page) => page,
        Err(problem) => return text_line(StatusCode::BAD_REQUEST, problem),
    };
    let after = match path(asked.after.as_deref()) {
        Ok(after) => after,
        Err(error) => return text_line(StatusCode::BAD_REQUEST, format_args!("after: {error}")),
    };
    let look = ListingQuery { prefix, after, broadcasts: limit, tracks: TRACKS };
    let Some(found) = gather::broadcasts(status.inspector(), look).await else {
        return text_line(StatusCode::SERVICE_UNAVAILABLE, "the control thread does not answer");
    };
    let last = found.list.last().filter(|_| found.list.len() == limit);
    answer(
        StatusCode::OK,
        json(&BroadcastListJson {
            next: last.map(|broadcast| broadcast.path.as_str().to_owned()),
            total: found.total,
            broadcasts: found.list.iter().map(|seen| BroadcastJson::new(seen, |_| None)).collect(),
        }),
    )
}
