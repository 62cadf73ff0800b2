//! The page at `/`: three files, built from `web/` and embedded, so that the binary needs no others, and `/page.json`,
//! which contains the relay's addresses and the permissions of the requesting client.
//!
//! The files never change while a process runs and are small, so a browser asks each time whether it still has
//! the newest (`ETag`), and no cache holds one relay's script beside another's.

mod addresses;
mod info;

use std::{
    fmt,
    sync::{Arc, OnceLock},
};

use axum::{
    Router,
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};

use tower_http::set_header::SetResponseHeaderLayer;

pub(crate) use addresses::BrowserListeners;

use crate::{readers::HttpReaders, tls::FingerprintSource};

/// Content Security Policy, without `connect-src`: the page loads only its own files, and the clock of the test
/// pattern runs in a worker made from a `blob:`.
const POLICY: &str = "default-src 'self'; img-src 'self' data:; worker-src 'self' blob:; object-src 'none'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// Headers of every file: no content sniffing, no referrer that leaks a token, and the camera for this page only.
static HEADERS: [(HeaderName, &str); 5] = [
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
    /// The same bytes, compressed with gzip.
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
            include_bytes!(concat!("page/dist/", $name)),
            include_bytes!(concat!("page/dist/", $name, ".gz")),
        )
    };
}

static INDEX: File = file!("text/html", "index.html");
static SCRIPT: File = file!("text/javascript", "page.js");
static STYLE: File = file!("text/css", "page.css");

/// Facts of the relay that the page shows; the functions are called once a request.
#[derive(Clone)]
pub struct About {
    /// Version of the program.
    pub version: String,
    /// Public `https://` URL from the configuration; `None`: derived from the QUIC address and the certificate.
    pub url: Option<String>,
    /// DNS names and IP addresses of the certificates that clients verify; empty for a generated certificate.
    pub names: Arc<dyn Fn() -> Vec<String> + Send + Sync>,
    /// SHA-256 of a generated certificate in hexadecimal, which browsers pin; `None` for any other certificate.
    pub fingerprint: FingerprintSource,
}

/// Listener that serves the page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PageListener {
    Public,
    Private,
}

/// The page, for the public listeners and the private one; a cheap handle.
#[derive(Clone)]
pub struct Page(Arc<Shared>);

struct Shared {
    about: About,
    /// Known once the listeners are open.
    entrances: OnceLock<(BrowserListeners, Option<HttpReaders>)>,
}

impl Page {
    /// Creates the page of a relay whose listeners are not open yet.
    pub fn new(about: About) -> Self {
        Self(Arc::new(Shared { about, entrances: OnceLock::new() }))
    }

    /// Routes for the public listeners: `/`, `/page.js`, `/page.css` and `/page.json`.
    pub fn public(&self) -> Router {
        self.router(PageListener::Public)
    }

    /// The same routes for the private listener, from where sessions go to the public addresses.
    pub fn private(&self) -> Router {
        self.router(PageListener::Private)
    }

    /// Sets the addresses of the open listeners, and the readers whose gate decides about permissions.
    pub(crate) fn open(&self, entrances: BrowserListeners, readers: Option<HttpReaders>) {
        // The listeners of a relay are opened once.
        let _ = self.0.entrances.set((entrances, readers));
    }

    fn router(&self, side: PageListener) -> Router {
        let page = self.clone();
        let index = move |headers: HeaderMap| async move {
            let mut response = answer(&INDEX, &headers);
            if let Ok(policy) = HeaderValue::try_from(page.policy(side, &headers)) {
                response.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
            }
            response
        };
        let page = self.clone();
        Router::new()
            .route("/", with_headers(get(index)))
            .route("/page.js", with_headers(get(async |headers: HeaderMap| answer(&SCRIPT, &headers))))
            .route("/page.css", with_headers(get(async |headers: HeaderMap| answer(&STYLE, &headers))))
            .route("/page.json", get(move |request| info::answer(page, side, request)))
    }

    /// Content Security Policy of the document: connections go to the address of the page and to those in
    /// `/page.json`.
    fn policy(&self, side: PageListener, headers: &HeaderMap) -> String {
        let mut policy = format!("{POLICY}; connect-src 'self'");
        let urls = self.urls(side, headers);
        for source in [urls.session, urls.websocket].iter().flatten().filter_map(|url| addresses::source(url))
        {
            policy.push(' ');
            policy += &source;
        }
        policy
    }

    /// URLs of sessions as a client reaches them that sent `headers`.
    fn urls(&self, side: PageListener, headers: &HeaderMap) -> addresses::Urls {
        let Some((entrances, _)) = self.0.entrances.get() else { return addresses::Urls::default() };
        let About { url, names, fingerprint, .. } = &self.0.about;
        let known = addresses::HostSources {
            url: url.as_deref(),
            names: &names(),
            is_pinned: fingerprint().is_some(),
            host: addresses::host(headers),
        };
        addresses::urls(entrances, &known, side == PageListener::Private)
    }
}

impl fmt::Debug for Page {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Page").field("entrances", &self.0.entrances.get().map(|(it, _)| it)).finish()
    }
}

/// Adds the headers that every file of the page has.
fn with_headers(file: MethodRouter) -> MethodRouter {
    let policy = HeaderValue::from_static(POLICY);
    let policy = SetResponseHeaderLayer::if_not_present(header::CONTENT_SECURITY_POLICY, policy);
    HEADERS.iter().fold(file.route_layer(policy), |file, (name, value)| {
        file.route_layer(SetResponseHeaderLayer::overriding(name.clone(), HeaderValue::from_static(value)))
    })
}

fn answer(file: &'static File, asked: &HeaderMap) -> Response {
    let squeezed = list_items(asked, header::ACCEPT_ENCODING).any(takes_gzip);
    // Each encoding is a representation of its own, so it has a tag of its own.
    let tag = format!("\"{:016x}{}\"", file.tag, if squeezed { "-gzip" } else { "" });
    // A proxy that compresses marks the tag as weak.
    let known =
        list_items(asked, header::IF_NONE_MATCH).any(|one| one == "*" || one.trim_start_matches("W/") == tag);
    let mut response = if known {
        StatusCode::NOT_MODIFIED.into_response()
    } else if squeezed {
        ([(header::CONTENT_TYPE, file.kind), (header::CONTENT_ENCODING, "gzip")], file.squeezed)
            .into_response()
    } else {
        ([(header::CONTENT_TYPE, file.kind)], file.bytes).into_response()
    };
    if let Ok(tag) = HeaderValue::try_from(tag) {
        response.headers_mut().insert(header::ETAG, tag);
    }
    response
}

/// Items of a list header.
fn list_items(headers: &HeaderMap, name: HeaderName) -> impl Iterator<Item = &str> {
    headers
        .get_all(name)
        .into_iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
}

/// Whether an item of `Accept-Encoding` is gzip with a weight above zero.
fn takes_gzip(item: &str) -> bool {
    let (name, weight) = item.split_once(';').unwrap_or((item, "q=1"));
    let is_none = weight.trim().strip_prefix("q=").is_some_and(|q| q.parse() == Ok(0.0));
    name.trim().eq_ignore_ascii_case("gzip") && !is_none
}

/// FNV-1a hash, which distinguishes builds of a file. Nobody gains from a collision.
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
