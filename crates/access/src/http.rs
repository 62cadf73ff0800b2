//! Requests to an auth server or key server over HTTP/1.1: bounded in time and size, never redirected, through no
//! proxy of the environment, and without their content in errors and logs.
//!
//! Connections are kept for later requests. Servers close them when they like, also while a request is on its way:
//! a request that got no byte of an answer on a kept connection is sent once more on a new one. All requests are
//! safe to repeat. The pool is written here because no library reports whether a byte of the answer was received.

mod dial;
mod tls;

use std::{
    error::Error,
    io::Read,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::{
    HeaderMap, Method, Request, StatusCode,
    body::Incoming,
    header::{
        ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_ENCODING, CONTENT_TYPE, HOST, HeaderValue, USER_AGENT,
    },
};
use percent_encoding::percent_decode_str;
use relay_worker::Denial;
use thiserror::Error;
use tokio::time::timeout;
use url::{Position, Url};

use super::{AccessError, cache};
use dial::{HttpConnection, ServerAddress};
use relay_config::Auth;

/// Deadline of a request, shorter than `limits::AUTH_TIMEOUT`, for which a session waits.
const TIMEOUT: Duration = Duration::from_millis(4_500);
/// Deadline for connecting, which leaves time for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_250);
/// Largest answer body that is accepted, bytes, also after decompression.
pub(super) const ANSWER_BYTES: usize = 256 * 1024;
/// U+FEFF in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// Most idle connections kept open.
const IDLE: usize = 8;
/// Time an idle connection is kept: below the minute after which common servers and load balancers close it.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Media types of keys and key sets (RFC 7517, section 8.5), with any other type as a fallback.
const KEYS: HeaderValue =
    HeaderValue::from_static("application/jwk-set+json, application/jwk+json, application/json, */*;q=0.1");
const JSON: HeaderValue = HeaderValue::from_static("application/json, */*;q=0.1");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("moq-relay/", env!("CARGO_PKG_VERSION")));

/// HTTP client of the one configured server.
#[derive(Clone)]
pub(super) struct Http(Arc<HttpClientInner>);

struct HttpClientInner {
    server: ServerAddress,
    /// The value of `Host`.
    host: HeaderValue,
    /// `Authorization` from the name and password of the URL.
    authorization: Option<HeaderValue>,
    /// Idle connections, most recently used last.
    idle: Mutex<Vec<HttpConnection>>,
}

/// An HTTP answer of any status.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// Time for which it may be reused; `None` if unstated.
    pub(super) lifetime: Option<Duration>,
    pub(super) at: Instant,
}

/// Failure of a request. Never holds the URL, whose query may carry a token.
#[derive(Clone, Debug, Error)]
pub(super) enum RequestError {
    /// The request failed before a complete answer.
    #[error("{0}")]
    Failed(String),
    /// The deadline passed.
    #[error("{0}")]
    Late(String),
    /// The body exceeds [`ANSWER_BYTES`].
    #[error("the answer is longer than {ANSWER_BYTES} bytes")]
    TooLong,
    /// A status that carries no decision.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// The answer cannot be parsed, or the request not be built.
    #[error("{0}")]
    Nonsense(String),
}

impl Http {
    /// Creates a client for the server of `url`.
    pub(super) fn new(url: &Url, auth: &Auth) -> Result<Self, AccessError> {
        let server = ServerAddress::of(url, tls::config(&auth.tls)?, &auth.plain);
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]);
        let (Some(server), Ok(host)) = (server, host) else {
            return Err(AccessError::Http(
                "requests need a URL with a host and https:// or http://".to_owned(),
            ));
        };
        Ok(Self(Arc::new(HttpClientInner {
            server,
            host,
            authorization: authorization(url),
            idle: Mutex::default(),
        })))
    }

    /// Requests a key or a key set.
    pub(super) async fn keys(&self, url: &Url) -> Result<Response, RequestError> {
        self.send(Method::GET, url, KEYS, None).await
    }

    /// Requests a JSON object.
    pub(super) async fn get(&self, url: &Url) -> Result<Response, RequestError> {
        self.send(Method::GET, url, JSON, None).await
    }

    /// Posts a JSON object and requests one in return.
    pub(super) async fn post(&self, url: &Url, body: Vec<u8>) -> Result<Response, RequestError> {
        self.send(Method::POST, url, JSON, Some(body.into())).await
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        accept: HeaderValue,
        body: Option<Bytes>,
    ) -> Result<Response, RequestError> {
        let request = self.0.request(method, url, accept, body)?;
        let answer = timeout(TIMEOUT, self.0.exchange(request)).await;
        answer.unwrap_or_else(|_| Err(RequestError::Late("no answer in time".to_owned())))
    }
}

impl HttpClientInner {
    fn request(
        &self,
        method: Method,
        url: &Url,
        accept: HeaderValue,
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>, RequestError> {
        let mut request = Request::new(Full::new(body.clone().unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = url[Position::BeforePath..Position::AfterQuery]
            .parse()
            .map_err(|_| RequestError::Nonsense("the request is longer than a URL can be".to_owned()))?;
        let headers = request.headers_mut();
        headers.insert(HOST, self.host.clone());
        headers.insert(USER_AGENT, AGENT);
        headers.insert(ACCEPT, accept);
        headers.insert(ACCEPT_ENCODING, GZIP);
        if body.is_some() {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        if let Some(authorization) = &self.authorization {
            headers.insert(AUTHORIZATION, authorization.clone());
        }
        Ok(request)
    }

    /// Sends `request`, on a kept connection if there is one.
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, RequestError> {
        let at = Instant::now();
        if let Some(mut connection) = self.kept().await {
            match connection.send(request.clone()).await {
                Ok(answer) => return self.read(connection, answer, at).await,
                Err(failure) if failure.is_answered => {
                    return Err(RequestError::Failed(causes(&failure.error)));
                }
                Err(_) => {}
            }
        }
        let opened = timeout(CONNECT_TIMEOUT, self.server.connect()).await;
        let mut connection = opened.map_err(|_| RequestError::Late("no connection in time".to_owned()))??;
        match connection.send(request).await {
            Ok(answer) => self.read(connection, answer, at).await,
            Err(failure) => Err(RequestError::Failed(causes(&failure.error))),
        }
    }

    /// Takes a kept connection that is still open.
    async fn kept(&self) -> Option<HttpConnection> {
        loop {
            let mut connection = self.idle().pop()?;
            if connection.idle_since.elapsed() < IDLE_FOR && connection.is_open().await {
                return Some(connection);
            }
        }
    }

    /// Reads the body, and keeps the connection.
    async fn read(
        &self,
        mut connection: HttpConnection,
        answer: hyper::Response<Incoming>,
        at: Instant,
    ) -> Result<Response, RequestError> {
        let (head, mut rest) = answer.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = rest.frame().await {
            let frame = frame.map_err(|error| RequestError::Failed(causes(&error)))?;
            let Ok(piece) = frame.into_data() else { continue };
            if body.len().saturating_add(piece.len()) > ANSWER_BYTES {
                return Err(RequestError::TooLong);
            }
            body.extend_from_slice(&piece);
        }
        connection.idle_since = Instant::now();
        let mut idle = self.idle();
        idle.retain(|kept| kept.idle_since.elapsed() < IDLE_FOR);
        if idle.len() < IDLE {
            idle.push(connection);
        }
        drop(idle);
        let body = without_mark(decoded(&head.headers, body)?);
        Ok(Response { status: head.status, body, lifetime: cache::lifetime(&head.headers), at })
    }

    fn idle(&self) -> MutexGuard<'_, Vec<HttpConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Basic authorization (RFC 7617) of the name and password in `url`.
fn authorization(url: &Url) -> Option<HeaderValue> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let mut pair: Vec<u8> = percent_decode_str(url.username()).collect();
    pair.push(b':');
    pair.extend(percent_decode_str(url.password().unwrap_or_default()));
    let mut value = HeaderValue::from_str(&format!("Basic {}", STANDARD.encode(pair))).ok()?;
    value.set_sensitive(true);
    Some(value)
}

/// Decompresses the body according to its `ParsedFile-Encoding`.
fn decoded(headers: &HeaderMap, body: Vec<u8>) -> Result<Vec<u8>, RequestError> {
    let coding = headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    match coding.as_deref() {
        None | Some(b"" | b"identity") => Ok(body),
        Some(b"gzip" | b"x-gzip") => {
            let mut plain = Vec::new();
            let mut reader = MultiGzDecoder::new(body.as_slice()).take(ANSWER_BYTES as u64 + 1);
            match reader.read_to_end(&mut plain) {
                Ok(_) if plain.len() > ANSWER_BYTES => Err(RequestError::TooLong),
                Ok(_) => Ok(plain),
                Err(_) => Err(RequestError::Nonsense("the answer is not valid gzip".to_owned())),
            }
        }
        Some(_) => Err(RequestError::Nonsense("the answer has an unsupported content coding".to_owned())),
    }
}

/// The body without the byte order mark (U+FEFF in UTF-8) that it may begin with.
fn without_mark(mut body: Vec<u8>) -> Vec<u8> {
    if body.starts_with(MARK) {
        body.drain(..MARK.len());
    }
    body
}

/// Describes a JSON error of an answer and its position, without any content of the answer: a server may echo the
/// request, which holds a token.
pub(super) fn flaw(error: &serde_json::Error) -> String {
    let said = error.to_string();
    match said.rsplit_once(", expected ") {
        Some((_, expected)) if error.is_data() => format!("expected {expected}"),
        _ if error.is_data() => {
            format!("a value has the wrong type at line {} column {}", error.line(), error.column())
        }
        _ => format!("invalid JSON at line {} column {}", error.line(), error.column()),
    }
}

impl RequestError {
    /// Denial that the waiting session receives.
    pub(super) fn denial(&self) -> Denial {
        if matches!(self, Self::Late(_)) { Denial::TimedOut } else { Denial::Unavailable }
    }
}

/// Formats an error with its causes.
fn causes(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.contains(&next) {
            text.push_str(": ");
            text.push_str(&next);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests;
