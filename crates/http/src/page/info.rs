//! `GET /page.json`: the relay's addresses, and the permissions of the requesting client.

use axum::{extract::Request, http::StatusCode, response::Response};
use relay_auth::Permit;
use relay_model::{Path, Scope};
use relay_worker::ConnInfo;
use serde::Serialize;

use super::{Page, PageListener};
use crate::{
    client::ClientInfo,
    readers::ReaderRejection,
    status::{answer as json_answer, json},
};

/// The answer. Its fields are documented in `docs/inspect.md`.
#[derive(Debug, Serialize)]
struct Info {
    version: String,
    private: bool,
    /// WebTransport and raw QUIC.
    session: Option<String>,
    websocket: Option<String>,
    /// SHA-256 of the certificate in hexadecimal, where browsers have to pin it.
    fingerprint: Option<String>,
    /// Permissions of a session with the same token; `None`: it would not be admitted, or that is unknown.
    permit: Option<Permitted>,
    /// Reason for which it would not be admitted.
    refused: Option<String>,
}

/// Patterns of paths as sessions name them, relative to the root of the permit.
#[derive(Debug, PartialEq, Eq, Serialize)]
struct Permitted {
    publish: Vec<String>,
    subscribe: Vec<String>,
}

impl Permitted {
    fn new(permit: &Permit) -> Self {
        let patterns = |scope: &Scope| relative(scope, permit.root());
        Self { publish: patterns(permit.publish()), subscribe: patterns(permit.subscribe()) }
    }
}

fn relative(scope: &Scope, root: &Path) -> Vec<String> {
    scope.patterns().iter().filter_map(|pattern| pattern.within(root)).map(|it| it.to_string()).collect()
}

/// Answers for the token in the query, which is that of the page. The gate decides as for a session of this client; an
/// auth server is asked as for an HTTP reader.
pub(super) async fn answer(page: Page, side: PageListener, request: Request) -> Response {
    let urls = page.urls(side, request.headers());
    let hub = page.0.entrances.get().and_then(|(_, hub)| hub.clone());
    let conn = request.extensions().get::<ClientInfo>().map(|client| gate_request(client, side, &request));
    let decided = match (hub, conn) {
        (Some(hub), Some(conn)) => decision(hub.admit(conn).await.map(|reader| reader.permit())),
        _ => None,
    };
    let (permit, refused) = match decided {
        None => (None, None),
        Some(Ok(permit)) => (Some(permit), None),
        Some(Err(refused)) => (None, Some(refused)),
    };
    let about = &page.0.about;
    let info = Info {
        version: about.version.clone(),
        private: side == PageListener::Private,
        session: urls.session,
        websocket: urls.websocket,
        fingerprint: (about.fingerprint)(),
        permit,
        refused,
    };
    json_answer(StatusCode::OK, json(&info))
}

/// Converts the gate's decision; `None`: the gate was not asked because the limit of HTTP readers is reached, which
/// does not apply to sessions.
fn decision(admitted: Result<Option<Permit>, ReaderRejection>) -> Option<Result<Permitted, String>> {
    let decided = match admitted {
        Ok(permit) => permit.as_ref().map(Permitted::new).ok_or_else(|| "expired".to_owned()),
        Err(ReaderRejection::Full) => return None,
        Err(ReaderRejection::Denied(denial)) => Err(denial.to_string()),
        Err(ReaderRejection::Leaving) => Err("draining".to_owned()),
    };
    Some(decided)
}

/// Describes the page's client as it would open a session at `/`. The host name of the private listener is dropped:
/// clients do not use it.
fn gate_request(client: &ClientInfo, side: PageListener, request: &Request) -> ConnInfo {
    let query = request.uri().query().map(|query| format!("?{query}")).unwrap_or_default();
    let mut conn = client.http_request(format!("/{query}"));
    if side == PageListener::Private {
        conn.server_name = None;
    }
    conn
}

#[cfg(test)]
mod tests {
    use relay_model::Pattern;
    use relay_worker::Denial;

    use super::*;

    #[test]
    fn full_reader_places_say_nothing_about_sessions() {
        assert_eq!(decision(Err(ReaderRejection::Full)), None);
        let refused = |refused| decision(Err(refused)).and_then(Result::err);
        assert_eq!(refused(ReaderRejection::Leaving).as_deref(), Some("draining"));
        assert_eq!(refused(ReaderRejection::Denied(Denial::Expired)), Some(Denial::Expired.to_string()));
    }

    #[test]
    fn patterns_are_relative_to_the_root_of_the_permit() {
        let scope: Scope = ["room/alice/**", "room/*/cam", "room"]
            .iter()
            .map(|text| Pattern::parse(text).unwrap())
            .collect();
        let root = Path::parse("room").unwrap();
        assert_eq!(relative(&scope, &root), ["", "*/cam", "alice/**"]);
        assert_eq!(relative(&Scope::everything(), &Path::root()), ["**"]);
        assert!(relative(&Scope::nothing(), &root).is_empty());
    }
}
