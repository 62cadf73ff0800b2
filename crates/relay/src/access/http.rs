//! Requests to an auth server or key server over HTTP/1.1: bounded in time and size, never redirected, through no
//! proxy of the environment, and without their content in errors and logs.
//!
//! Connections are kept for later requests. Servers close them when they like, also while a request is on its way:
//! a request that got no byte of an answer on a kept connection is sent once more on a new one. All requests are
//! safe to repeat. This rule is why the pool is here and not in a library: none of them tells whether a byte came.

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
use crate::config::Auth;
use dial::{Connection, Server};

/// A session waits for `limits::AUTH_TIMEOUT`; the answer has to be there before.
const TIMEOUT: Duration = Duration::from_millis(4_500);
/// Time for a connection, so that there is some left for the answer.
const CONNECT_TIMEOUT: Duration = Duration::from_millis(2_250);
/// Longest answer that is read, also after decompression.
pub(super) const ANSWER_BYTES: usize = 256 * 1024;
/// U+FEFF in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";
/// Connections that are kept without a request.
const IDLE: usize = 8;
/// How long they are kept: less than the minute after which common servers and balancers close them.
const IDLE_FOR: Duration = Duration::from_secs(30);
/// Media types of keys and sets (RFC 7517, section 8.5), or whatever the server has.
const KEYS: HeaderValue =
    HeaderValue::from_static("application/jwk-set+json, application/jwk+json, application/json, */*;q=0.1");
const JSON: HeaderValue = HeaderValue::from_static("application/json, */*;q=0.1");
const GZIP: HeaderValue = HeaderValue::from_static("gzip");
const AGENT: HeaderValue = HeaderValue::from_static(concat!("moq-relay/", env!("CARGO_PKG_VERSION")));

/// A client of the one server that is configured.
#[derive(Clone)]
pub(super) struct Http(Arc<Inner>);

struct Inner {
    server: Server,
    /// The value of `Host`.
    host: HeaderValue,
    /// Name and password of the URL.
    authorization: Option<HeaderValue>,
    /// Last used last.
    idle: Mutex<Vec<Connection>>,
}

/// An answer, whatever its status.
pub(super) struct Response {
    pub(super) status: StatusCode,
    pub(super) body: Vec<u8>,
    /// Until when it may be used again; `None` = it does not say.
    pub(super) lifetime: Option<Duration>,
    pub(super) at: Instant,
}

/// Why there is no answer. Without the URL: its query may hold a token.
#[derive(Clone, Debug, Error)]
pub(super) enum Outage {
    /// No answer came.
    #[error("{0}")]
    Failed(String),
    /// None came in time.
    #[error("{0}")]
    Late(String),
    /// It is longer than any should be.
    #[error("the answer is longer than {ANSWER_BYTES} bytes")]
    TooLong,
    /// A status that decides nothing.
    #[error("the answer is {0}")]
    Status(StatusCode),
    /// It cannot be understood.
    #[error("{0}")]
    Nonsense(String),
}

impl Http {
    /// A client for `url` and what is below it.
    pub(super) fn new(url: &Url, auth: &Auth) -> Result<Self, AccessError> {
        let server = Server::of(url, tls::config(&auth.tls)?, &auth.plain);
        let host = HeaderValue::from_str(&url[Position::BeforeHost..Position::AfterPort]);
        let (Some(server), Ok(host)) = (server, host) else {
            return Err(AccessError::Http(
                "requests need a URL with a host and https:// or http://".to_owned(),
            ));
        };
        Ok(Self(Arc::new(Inner { server, host, authorization: authorization(url), idle: Mutex::default() })))
    }

    /// Asks for a key or a set of keys.
    pub(super) async fn keys(&self, url: &Url) -> Result<Response, Outage> {
        self.send(Method::GET, url, KEYS, None).await
    }

    /// Asks for a JSON object.
    pub(super) async fn get(&self, url: &Url) -> Result<Response, Outage> {
        self.send(Method::GET, url, JSON, None).await
    }

    /// Sends a JSON object and asks for another.
    pub(super) async fn post(&self, url: &Url, body: Vec<u8>) -> Result<Response, Outage> {
        self.send(Method::POST, url, JSON, Some(body.into())).await
    }

    async fn send(
        &self,
        method: Method,
        url: &Url,
        accept: HeaderValue,
        body: Option<Bytes>,
    ) -> Result<Response, Outage> {
        let request = self.0.request(method, url, accept, body)?;
        let answer = timeout(TIMEOUT, self.0.exchange(request)).await;
        answer.unwrap_or_else(|_| Err(Outage::Late("no answer in time".to_owned())))
    }
}

impl Inner {
    fn request(
        &self,
        method: Method,
        url: &Url,
        accept: HeaderValue,
        body: Option<Bytes>,
    ) -> Result<Request<Full<Bytes>>, Outage> {
        let mut request = Request::new(Full::new(body.clone().unwrap_or_default()));
        *request.method_mut() = method;
        *request.uri_mut() = url[Position::BeforePath..Position::AfterQuery]
            .parse()
            .map_err(|_| Outage::Nonsense("the request is longer than a URL can be".to_owned()))?;
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
    async fn exchange(&self, request: Request<Full<Bytes>>) -> Result<Response, Outage> {
        let at = Instant::now();
        if let Some(mut connection) = self.kept().await {
            match connection.send(request.clone()).await {
                Ok(answer) => return self.read(connection, answer, at).await,
                Err(failure) if failure.is_answered => return Err(Outage::Failed(causes(&failure.error))),
                Err(_) => {}
            }
        }
        let opened = timeout(CONNECT_TIMEOUT, self.server.connect()).await;
        let mut connection = opened.map_err(|_| Outage::Late("no connection in time".to_owned()))??;
        match connection.send(request).await {
            Ok(answer) => self.read(connection, answer, at).await,
            Err(failure) => Err(Outage::Failed(causes(&failure.error))),
        }
    }

    /// A kept connection that is still open.
    async fn kept(&self) -> Option<Connection> {
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
        mut connection: Connection,
        answer: hyper::Response<Incoming>,
        at: Instant,
    ) -> Result<Response, Outage> {
        let (head, mut rest) = answer.into_parts();
        let mut body = Vec::new();
        while let Some(frame) = rest.frame().await {
            let frame = frame.map_err(|error| Outage::Failed(causes(&error)))?;
            let Ok(piece) = frame.into_data() else { continue };
            if body.len().saturating_add(piece.len()) > ANSWER_BYTES {
                return Err(Outage::TooLong);
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

    fn idle(&self) -> MutexGuard<'_, Vec<Connection>> {
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

/// The body as it was before compression.
fn decoded(headers: &HeaderMap, body: Vec<u8>) -> Result<Vec<u8>, Outage> {
    let coding = headers.get(CONTENT_ENCODING).map(|value| value.as_bytes().to_ascii_lowercase());
    match coding.as_deref() {
        None | Some(b"" | b"identity") => Ok(body),
        Some(b"gzip" | b"x-gzip") => {
            let mut plain = Vec::new();
            let mut reader = MultiGzDecoder::new(body.as_slice()).take(ANSWER_BYTES as u64 + 1);
            match reader.read_to_end(&mut plain) {
                Ok(_) if plain.len() > ANSWER_BYTES => Err(Outage::TooLong),
                Ok(_) => Ok(plain),
                Err(_) => {
                    Err(Outage::Nonsense("the answer is no gzip, which its header says it is".to_owned()))
                }
            }
        }
        Some(_) => Err(Outage::Nonsense("the answer has a content coding that was not asked for".to_owned())),
    }
}

/// The body without the byte order mark (U+FEFF in UTF-8) that it may begin with.
fn without_mark(mut body: Vec<u8>) -> Vec<u8> {
    if body.starts_with(MARK) {
        body.drain(..MARK.len());
    }
    body
}

/// What is wrong with the JSON of an answer, and where. Never what it says: a server may repeat what it was
/// asked, and that holds a token.
pub(super) fn flaw(error: &serde_json::Error) -> String {
    let said = error.to_string();
    match said.rsplit_once(", expected ") {
        Some((_, expected)) if error.is_data() => format!("it is not {expected}"),
        _ if error.is_data() => {
            format!("something in it is of another kind at line {} column {}", error.line(), error.column())
        }
        _ => format!("it is no JSON at line {} column {}", error.line(), error.column()),
    }
}

impl Outage {
    /// The reason a session is refused for.
    pub(super) fn denial(&self) -> Denial {
        if matches!(self, Self::Late(_)) { Denial::TimedOut } else { Denial::Unavailable }
    }
}

/// An error with its causes.
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
