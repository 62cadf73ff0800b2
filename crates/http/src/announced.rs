//! `/announced`: live broadcasts below a path, as a list or as a stream of changes.

use axum::response::Response;
use bytes::Bytes;
use hyper::{
    HeaderMap,
    header::{ACCEPT, CONTENT_TYPE, HeaderName, HeaderValue, VARY},
};
use relay_model::{Path, Scope};
use relay_store::{Advert, BoardWatch, LivePath, VisitStep, WatchCandidate};
use tokio::{task::yield_now, time::timeout};

use crate::{
    limits::KEEP_ALIVE,
    readers::{HttpReaders, ReaderSession},
    reply::{TEXT, empty},
    request::RouteRequest,
    stream::{BodySource, Interrupted, body, of_head},
};

/// Paths visited per lock of the announce board.
const STEP: usize = 512;
/// Size of buffered events at which a chunk is sent, bytes.
const BYTES: usize = 16 * 1024;

/// Memory of the board's watch per advertised path, bytes.
const TOLD_BYTES: u64 = 20;

/// Response format.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Form {
    /// Plain text, one path per line.
    Lines,
    /// JSON array of strings.
    Json,
    /// Server-sent events, without end.
    Events,
}

/// Answers `/announced` and paths below it.
pub(crate) async fn answer(readers: &HttpReaders, asked: RouteRequest) -> Response {
    let form = form(&asked.headers);
    let reader = match readers.admit(asked.gate_request(&asked.path)).await {
        Ok(reader) => reader,
        Err(refused) => return refused.response(),
    };
    let Some(permit) = reader.permit().filter(|permit| !permit.subscribe().is_empty()) else {
        return empty(hyper::StatusCode::UNAUTHORIZED);
    };
    let root = permit.root().clone();
    let mut response = empty(hyper::StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("accept"));
    let kind = match form {
        Form::Lines => TEXT,
        Form::Json => HeaderValue::from_static("application/json"),
        Form::Events => {
            // nginx would buffer events until it has many.
            headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
            HeaderValue::from_static("text/event-stream")
        }
    };
    headers.insert(CONTENT_TYPE, kind);
    *response.body_mut() = match form {
        _ if asked.is_head => of_head(),
        Form::Lines | Form::Json => body(List::new(reader, root, form)),
        Form::Events => body(AnnounceEvents::new(reader, root, permit.subscribe().clone())),
    };
    response
}

fn form(headers: &HeaderMap) -> Form {
    let texts = headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let kinds: Vec<&str> = texts
        .flat_map(|text| text.split(','))
        .filter_map(|kind| kind.split(';').next())
        .map(str::trim)
        .collect();
    match kinds {
        kinds if kinds.contains(&"text/event-stream") => Form::Events,
        kinds if kinds.contains(&"application/json") => Form::Json,
        _ => Form::Lines,
    }
}

/// Pages through the live paths while the body is read: paths that start or end meanwhile may be listed or not. Only a
/// position on the board is held.
struct List {
    reader: ReaderSession,
    root: Path,
    form: Form,
    after: Option<Path>,
    /// Whether a path was written already.
    has_begun: bool,
    is_over: bool,
}

impl List {
    fn new(reader: ReaderSession, root: Path, form: Form) -> Self {
        Self { reader, root, form, after: None, has_begun: false, is_over: false }
    }

    fn write_path(&mut self, path: &str, out: &mut String) {
        if self.form != Form::Json {
            line(path, out);
            return;
        }
        *out += if std::mem::replace(&mut self.has_begun, true) { "," } else { "[" };
        *out += &quoted(path);
    }
}

impl BodySource for List {
    async fn next(&mut self) -> Option<Result<Bytes, Interrupted>> {
        let mut out = String::new();
        while out.is_empty() && !self.is_over {
            let Some(permit) = self.reader.permit() else { return Some(Err(Interrupted)) };
            let board = self.reader.readers().store().board();
            let live = board.list(&self.root, self.after.as_ref(), STEP);
            self.is_over = live.len() < STEP;
            self.after = live.last().map(|change| change.path.clone()).or(self.after.take());
            for LivePath { path, .. } in live.iter().filter(|change| permit.subscribe().allows(&change.path))
            {
                if let Some(suffix) = path.strip_prefix(&self.root) {
                    self.write_path(suffix, &mut out);
                }
            }
            if self.is_over && self.form == Form::Json {
                out += if self.has_begun { "]\n" } else { "[]\n" };
            }
            yield_now().await;
        }
        self.reader.sent += out.len() as u64;
        (!out.is_empty()).then(|| Ok(out.into()))
    }
}

/// Live paths and their changes; the watch records which ones were sent.
struct AnnounceEvents {
    reader: ReaderSession,
    scope: Scope,
    watch: BoardWatch,
    next_id: u64,
    has_begun: bool,
}

/// Advert of a path that was sent as announced; `AnnounceEvents` uses no other value.
const SENT: Advert = Advert { id: 0, mark: 0 };

impl AnnounceEvents {
    fn new(reader: ReaderSession, root: Path, scope: Scope) -> Self {
        reader.watch();
        let watch = reader.readers().store().board().watch(reader.readers().worker(), root);
        Self { reader, scope, watch, next_id: 0, has_begun: false }
    }

    /// Appends the next events; returns whether more are ready. `None`: events were lost because the reader fell
    /// behind.
    fn fill(&mut self, out: &mut String) -> Option<bool> {
        let Self { scope, watch, next_id, .. } = self;
        let root = watch.prefix().clone();
        let visited = watch.visit(STEP, |WatchCandidate { path, is_live, advert, .. }| {
            let is_live = is_live && scope.allows(path);
            if is_live != advert.is_some() {
                let event = if is_live { "announced" } else { "ended" };
                let suffix = quoted(path.strip_prefix(&root).unwrap_or_default());
                *out += &format!("id: {next_id}\nevent: {event}\ndata: {{\"path\":{suffix}}}\n\n");
                *next_id += 1;
            }
            let advert = is_live.then_some(SENT);
            if out.len() < BYTES { VisitStep::Next(advert) } else { VisitStep::Last(advert) }
        });
        (!visited.is_lost).then_some(visited.more)
    }
}

impl BodySource for AnnounceEvents {
    async fn next(&mut self) -> Option<Result<Bytes, Interrupted>> {
        let mut out = String::new();
        if !std::mem::replace(&mut self.has_begun, true) {
            out += "retry: 1000\n\n";
        }
        loop {
            let Some(permit) = self.reader.permit() else { return Some(Err(Interrupted)) };
            if *permit.subscribe() != self.scope {
                self.scope = permit.subscribe().clone();
                self.watch.restart();
            }
            let Some(more) = self.fill(&mut out) else { return Some(Err(Interrupted)) };
            self.reader.hold(self.watch.advertised() as u64 * TOLD_BYTES);
            if !out.is_empty() {
                self.reader.sent += out.len() as u64;
                return Some(Ok(out.into()));
            }
            if more {
                yield_now().await;
            } else if timeout(KEEP_ALIVE, self.reader.changed()).await.is_err() {
                out += ":\n\n";
            }
        }
    }
}

/// Appends a line of the text list. Paths with control characters are left out: they could forge lines, or control the
/// terminal that shows them. The JSON list has them.
fn line(path: &str, out: &mut String) {
    if !path.contains(char::is_control) {
        *out += path;
        out.push('\n');
    }
}

/// Formats a JSON string with every control character escaped.
fn quoted(text: &str) -> String {
    let quoted = serde_json::Value::from(text).to_string();
    if !quoted.contains(char::is_control) {
        return quoted;
    }
    // JSON requires this for the first 32 only, not for DEL and those beyond ASCII. All of them have four digits.
    let mut escaped = String::with_capacity(quoted.len());
    for c in quoted.chars() {
        if c.is_control() {
            escaped += &format!("\\u{:04x}", u32::from(c));
        } else {
            escaped.push(c);
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accept_header_selects_the_list_format() {
        let of =
            |accept: &'static str| form(&HeaderMap::from_iter([(ACCEPT, HeaderValue::from_static(accept))]));
        assert_eq!(form(&HeaderMap::new()), Form::Lines);
        assert_eq!(of("*/*"), Form::Lines);
        assert_eq!(of("text/html, application/json;q=0.9"), Form::Json);
        assert_eq!(of("text/event-stream"), Form::Events);
    }

    #[test]
    fn a_path_cannot_break_out_of_an_event_or_a_list() {
        assert_eq!(quoted("a\"b\\c"), r#""a\"b\\c""#);
        assert_eq!(quoted("a\nb"), r#""a\nb""#);
        let raw = "a\u{1b}[31m\u{7f}\u{85}\u{9b}\0é";
        assert!(!quoted(raw).contains(char::is_control));
        assert_eq!(serde_json::from_str::<String>(&quoted(raw)).unwrap(), raw);
    }

    #[test]
    fn text_list_has_no_raw_control_character() {
        let mut out = String::new();
        for path in ["a", "b\nforged", "b\r", "c\u{1b}[31m", "d\0", "e\u{9b}", "f\t", "", "é/日本 \"x\""] {
            line(path, &mut out);
        }
        assert_eq!(out, "a\n\né/日本 \"x\"\n");
    }
}
