//! The page at `/`: three files, built from `web/` and embedded, so that the binary alone shows them.
//!
//! They never change while a process runs and are small, so a browser asks each time whether it still has the
//! newest (`ETag`), and no cache holds one relay's script beside another's.

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};

/// What the page may do: load from and speak with the host it came from, over HTTP, WebTransport and WebSocket,
/// and run the clock of a test pattern in a worker of its own making.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; worker-src 'self' blob:; object-src 'none'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// On each file: nothing is guessed, no address leaks a token, and only this page gets at a camera.
static HEADERS: [(HeaderName, &str); 6] = [
    (header::CONTENT_SECURITY_POLICY, POLICY),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::REFERRER_POLICY, "no-referrer"),
    (header::CACHE_CONTROL, "no-cache"),
    (header::VARY, "accept-encoding"),
    (HeaderName::from_static("permissions-policy"), "camera=(self), microphone=(), geolocation=()"),
];

/// A file of the page.
struct File {
    kind: &'static str,
    bytes: &'static [u8],
    /// The same, compressed with gzip.
    squeezed: &'static [u8],
    tag: u64,
}

impl File {
    const fn new(kind: &'static str, bytes: &'static [u8], squeezed: &'static [u8]) -> Self {
        Self { kind, bytes, squeezed, tag: fnv(bytes) }
    }
}

/// A file of `dist`, with its compressed twin.
macro_rules! file {
    ($kind:literal, $name:literal) => {
        File::new(
            concat!($kind, "; charset=utf-8"),
            include_bytes!(concat!("dist/", $name)),
            include_bytes!(concat!("dist/", $name, ".gz")),
        )
    };
}

static INDEX: File = file!("text/html", "index.html");
static SCRIPT: File = file!("text/javascript", "page.js");
static STYLE: File = file!("text/css", "page.css");

/// The routes of the page: `/`, `/page.js` and `/page.css`.
pub fn router<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(|headers: HeaderMap| async move { answer(&INDEX, &headers) }))
        .route("/page.js", get(|headers: HeaderMap| async move { answer(&SCRIPT, &headers) }))
        .route("/page.css", get(|headers: HeaderMap| async move { answer(&STYLE, &headers) }))
}

fn answer(file: &'static File, asked: &HeaderMap) -> Response {
    let squeezed = words(asked, header::ACCEPT_ENCODING).any(takes_gzip);
    // Each encoding is a representation of its own, so it has a tag of its own.
    let tag = format!("\"{:016x}{}\"", file.tag, if squeezed { "-gzip" } else { "" });
    // A proxy that compresses marks the tag as weak.
    let known =
        words(asked, header::IF_NONE_MATCH).any(|one| one == "*" || one.trim_start_matches("W/") == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else if squeezed {
        ([(header::CONTENT_TYPE, file.kind), (header::CONTENT_ENCODING, "gzip")], file.squeezed)
            .into_response()
    } else {
        ([(header::CONTENT_TYPE, file.kind)], file.bytes).into_response()
    };
    let headers = response.headers_mut();
    for (name, value) in &HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    if let Ok(tag) = HeaderValue::try_from(tag) {
        headers.insert(header::ETAG, tag);
    }
    response
}

/// What a header lists.
fn words(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Whether an item of `Accept-Encoding` is gzip, and wanted at all.
fn takes_gzip(item: &str) -> bool {
    let (name, weight) = item.split_once(';').unwrap_or((item, "q=1"));
    let is_none = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
    name.trim().eq_ignore_ascii_case("gzip") && !is_none
}

/// FNV-1a: tells one build's file from another's; nobody has a reason to make two that are alike.
const fn fnv(mut bytes: &[u8]) -> u64 {
    let mut hash = 0xcbf2_9ce4_8422_2325_u64;
    while let [first, rest @ ..] = bytes {
        hash = (hash ^ *first as u64).wrapping_mul(0x0100_0000_01b3);
        bytes = rest;
    }
    hash
}

#[cfg(test)]
mod tests;
