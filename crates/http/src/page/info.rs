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
    let readers = page.0.entrances.get().and_then(|(_, readers)| readers.clone());
    let conn = request.extensions().get::<ClientInfo>().map(|client| gate_request(client, side, &request));
    let Rights { permit, refused } = match (readers, conn) {
        (Some(readers), Some(conn)) => Rights::new(readers.admit(conn).await.map(|reader| reader.permit())),
        _ => Rights::default(),
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

/// Decision of the gate about a session; neither field is set where it was not asked.
#[derive(Debug, Default, PartialEq, Eq)]
struct Rights {
    permit: Option<Permitted>,
    refused: Option<String>,
}

impl Rights {
    fn new(admitted: Result<Option<Permit>, ReaderRejection>) -> Self {
        let refused = match admitted {
            Ok(Some(permit)) => return Self { permit: Some(Permitted::new(&permit)), refused: None },
            // The limit of HTTP readers does not apply to sessions.
            Err(ReaderRejection::Full) => return Self::default(),
            Ok(None) => "expired".to_owned(),
            Err(ReaderRejection::Denied(denial)) => denial.to_string(),
            Err(ReaderRejection::Leaving) => "draining".to_owned(),
        };
        Self { permit: None, refused: Some(refused) }
    }
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
        assert_eq!(Rights::new(Err(ReaderRejection::Full)), Rights::default());
        let refused = |refused| Rights::new(Err(refused)).refused;
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
