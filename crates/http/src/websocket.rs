//! WebSockets: the upgrade is negotiated here, the session is carried by a worker.

use std::{io, sync::Arc};

use aws_lc_rs::digest;
use axum::{
    Extension,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use base64::{Engine, engine::general_purpose::STANDARD};
use hyper::{
    HeaderMap, Method, StatusCode, Version,
    header::{
        CONNECTION, HeaderName, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, SEC_WEBSOCKET_PROTOCOL,
        SEC_WEBSOCKET_VERSION, UPGRADE,
    },
    upgrade::{self, OnUpgrade},
};
use hyper_util::rt::TokioIo;
use relay_transport::qmux::{QmuxCarrier, QmuxFraming};
use relay_worker::{AcceptQueue, Admission, ConnInfo, PendingSession, RejectReason};

use crate::{
    client::ClientInfo,
    limits::SUBPROTOCOLS,
    link::{link, request_admission},
    origin::PageAccess,
    reply::{denied, empty, foreign_page, plain},
    socket::PlainOrTls,
    timeouts::TimeoutStream,
};

/// Text appended to a key before it is hashed (RFC 6455, 1.3).
const GUID: &str = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
/// Length of a decoded key, bytes.
const KEY_BYTES: usize = 16;
/// Protocol name of older clients, which negotiate the version by SETUP.
const BY_SETUP: &str = relay_worker::Version::LEGACY_ALPN;

/// Framing and protocol of a WebSocket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WebSocketProtocol {
    framing: QmuxFraming,
    /// ALPN name of the version; `None`: negotiated by SETUP.
    protocol: Option<&'static str>,
}

/// A subprotocol that is served.
#[derive(Clone, Debug)]
struct OfferedSubprotocol {
    name: String,
    spoken: WebSocketProtocol,
}

/// WebSocket endpoint of a relay.
pub(crate) struct WebSocketEndpoint {
    /// In order of preference.
    served: Vec<OfferedSubprotocol>,
    arrivals: AcceptQueue,
}

impl WebSocketEndpoint {
    pub(crate) fn new(versions: &[&'static str], arrivals: AcceptQueue) -> Self {
        Self { served: served(versions), arrivals }
    }

    /// Accepts a WebSocket on any path; its socket is passed to a worker once the answer is sent.
    async fn accept(&self, client: ClientInfo, mut request: Request) -> Response {
        let (accept, chosen) = match self.agree(&request) {
            Ok(agreed) => agreed,
            Err(response) => return response,
        };
        let spoken =
            chosen.map_or(WebSocketProtocol { framing: QmuxFraming::Legacy, protocol: None }, |it| it.spoken);
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str()).to_owned();
        let pending = PendingSession {
            framing: spoken.framing,
            over: QmuxCarrier::WebSocket,
            conn: ConnInfo {
                transport: "websocket",
                version: spoken.protocol,
                target: Some(target),
                ..client.conn
            },
        };
        let upgraded = upgrade::on(&mut request);
        // Its head may be 16 KiB, and the gate may take seconds.
        drop(request);
        let place = match request_admission(&self.arrivals, pending).await {
            Ok(place) => place,
            Err(turned) => return empty(status(turned)),
        };
        tokio::spawn(hand_over(upgraded, place));
        let mut response = empty(StatusCode::SWITCHING_PROTOCOLS);
        let headers = response.headers_mut();
        headers.clear();
        headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
        headers.insert(SEC_WEBSOCKET_ACCEPT, accept);
        if let Some(name) = chosen.and_then(|chosen| HeaderValue::from_str(&chosen.name).ok()) {
            headers.insert(SEC_WEBSOCKET_PROTOCOL, name);
        }
        response
    }

    /// Whether clients that offer no subprotocol are accepted; their version is negotiated by SETUP.
    fn serves_unnamed(&self) -> bool {
        self.served.iter().any(|one| one.spoken.protocol.is_none())
    }

    /// Value of `Sec-WebSocket-Accept`, and the chosen subprotocol, if any was offered.
    #[allow(clippy::result_large_err, reason = "it is passed on at once")]
    fn agree(&self, request: &Request) -> Result<(HeaderValue, Option<&OfferedSubprotocol>), Response> {
        let headers = request.headers();
        if headers.get(SEC_WEBSOCKET_VERSION).is_none_or(|version| version != "13") {
            let mut response = plain(StatusCode::UPGRADE_REQUIRED, "only version 13 of WebSocket\n");
            response.headers_mut().insert(SEC_WEBSOCKET_VERSION, HeaderValue::from_static("13"));
            return Err(response);
        }
        let is_whole = request.version() == Version::HTTP_11 && lists(headers, &CONNECTION, "upgrade");
        let Some(accept) = headers.get(SEC_WEBSOCKET_KEY).and_then(accept).filter(|_| is_whole) else {
            return Err(plain(StatusCode::BAD_REQUEST, "a malformed WebSocket request\n"));
        };
        let offered: Vec<&str> = tokens(headers, &SEC_WEBSOCKET_PROTOCOL).take(SUBPROTOCOLS).collect();
        match choose(&self.served, &offered) {
            Some(chosen) => Ok((accept, Some(chosen))),
            None if offered.is_empty() && self.serves_unnamed() => Ok((accept, None)),
            None => Err(empty(StatusCode::BAD_REQUEST)),
        }
    }
}

/// Subprotocols of these versions, in order of preference: those that name a version go before those that leave it to
/// SETUP, which are served only if its version is.
fn served(versions: &[&'static str]) -> Vec<OfferedSubprotocol> {
    let framings = [(QmuxFraming::Qmux01, "qmux-01"), (QmuxFraming::Qmux00, "qmux-00")];
    let mut all = Vec::new();
    for version in versions {
        for (framing, prefix) in framings {
            let spoken = WebSocketProtocol { framing, protocol: Some(version) };
            all.push(OfferedSubprotocol { name: format!("{prefix}.{version}"), spoken });
        }
    }
    if !versions.contains(&BY_SETUP) {
        return all;
    }
    for (framing, name) in framings.into_iter().chain([(QmuxFraming::Legacy, "webtransport")]) {
        all.push(OfferedSubprotocol {
            name: name.to_owned(),
            spoken: WebSocketProtocol { framing, protocol: None },
        });
    }
    all
}

fn choose<'a>(served: &'a [OfferedSubprotocol], offered: &[&str]) -> Option<&'a OfferedSubprotocol> {
    served.iter().find(|one| offered.contains(&one.name.as_str()))
}

/// Layer that answers requests for WebSockets, on any path.
pub(crate) async fn upgrade(
    State(endpoint): State<Arc<WebSocketEndpoint>>,
    Extension(access): Extension<PageAccess>,
    Extension(client): Extension<ClientInfo>,
    request: Request,
    next: Next,
) -> Response {
    match is_upgrade(&request) {
        false => next.run(request).await,
        true if access == PageAccess::Refused => foreign_page(),
        true => endpoint.accept(client, request).await,
    }
}

/// Whether the request asks for a WebSocket.
pub(crate) fn is_upgrade(request: &Request) -> bool {
    request.method() == Method::GET && lists(request.headers(), &UPGRADE, "websocket")
}

/// Whether the items of a list header include `token`.
pub(crate) fn lists(headers: &HeaderMap, name: &HeaderName, token: &str) -> bool {
    tokens(headers, name).any(|one| one.eq_ignore_ascii_case(token))
}

/// Items of a list header, over all its lines.
fn tokens<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let texts = headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|token| !token.is_empty())
}

/// Value of `Sec-WebSocket-Accept` for a key; `None`: the key is malformed.
fn accept(key: &HeaderValue) -> Option<HeaderValue> {
    let key = key.to_str().ok()?;
    STANDARD.decode(key).ok().filter(|bytes| bytes.len() == KEY_BYTES)?;
    let hash = digest::digest(&digest::SHA1_FOR_LEGACY_USE_ONLY, format!("{key}{GUID}").as_bytes());
    HeaderValue::from_str(&STANDARD.encode(hash)).ok()
}

fn status(turned: RejectReason) -> StatusCode {
    match turned {
        RejectReason::Denied(denial) => denied(denial),
        RejectReason::Leaving | RejectReason::Full => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// Passes the socket to the worker once the HTTP server has released it.
async fn hand_over(upgraded: OnUpgrade, place: Admission) {
    let handed = async {
        let upgraded = upgraded.await.map_err(io::Error::other)?;
        let parts = upgraded.downcast::<TokioIo<TimeoutStream<PlainOrTls>>>();
        let parts = parts.map_err(|_| io::Error::other("upgraded connection has an unexpected type"))?;
        link(parts.io.into_inner().into_stream(), parts.read_buf.to_vec())
    };
    match handed.await {
        Ok(link) => place.take(link),
        Err(error) => tracing::debug!(%error, "WebSocket closed before its session began"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VERSIONS: &[&str] = &["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03", BY_SETUP];

    fn chosen(offered: &[&str]) -> Option<(String, Option<&'static str>)> {
        choose(&served(VERSIONS), offered).map(|one| (one.name.clone(), one.spoken.protocol))
    }

    #[test]
    fn newest_version_wins_then_newest_framing_then_unversioned() {
        for (offered, name, protocol) in [
            (&["qmux-01.moq-lite-04", "qmux-00.moq-lite-05"][..], "qmux-00.moq-lite-05", Some("moq-lite-05")),
            (&["qmux-00.moq-lite-06", "qmux-01.moq-lite-06"], "qmux-01.moq-lite-06", Some("moq-lite-06")),
            (&["qmux-01", "qmux-00.moql"], "qmux-00.moql", Some("moql")),
            (&["webtransport", "qmux-00", "qmux-01"], "qmux-01", None),
            (&["webtransport", "qmux-02"], "webtransport", None),
            (
                &["qmux-02.moq-lite-06", "qmux-01.moqt-18", "qmux-01.moq-lite-03"],
                "qmux-01.moq-lite-03",
                Some("moq-lite-03"),
            ),
        ] {
            assert_eq!(chosen(offered), Some((name.to_owned(), protocol)), "{offered:?}");
        }
        assert_eq!(chosen(&["qmux-02", "chat", "moq-lite-06", "QMUX-01"]), None);
    }

    #[test]
    fn unversioned_names_need_a_version_with_setup() {
        let served = served(&["moq-lite-05"]);
        assert!(choose(&served, &["qmux-01", "qmux-00", "webtransport", "qmux-01.moql"]).is_none());
        assert!(served.iter().all(|one| one.spoken.protocol.is_some()));
    }

    #[test]
    fn a_key_is_answered_as_the_standard_says() {
        let of = |key: &'static str| accept(&HeaderValue::from_static(key));
        assert_eq!(of("dGhlIHNhbXBsZSBub25jZQ==").unwrap(), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25jZQA=", "AAAA", "!!!"] {
            assert_eq!(of(bad), None, "{bad}");
        }
    }
}
