//! `/fetch`: one group of a track, while it grows.

mod reader;

use axum::response::Response;
use hyper::{
    HeaderMap, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH, VARY,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use relay_auth::{Permit, Refusal, Split, TrackTarget, broadcast_path, form_value};
use relay_model::{Ask, Path, Prefs, Start, TrackName, Want};
use relay_worker::Denial;

use crate::{
    readers::{HttpReaders, ReaderRejection, ReaderSession, SUB},
    reply::{empty, plain},
    request::RouteRequest,
    stream::{body, of_head},
};
use reader::{FetchReader, FrameRange, Incarnation, Missed};

/// Caching of an answer that cannot change: a complete group, under a URL that names its incarnation.
const IMMUTABLE: &str = "max-age=3600, immutable";
/// Caching of all other answers: caches revalidate each time, by the entity tag.
const NO_CACHE: &str = "no-cache";
/// Lookups for one request that the gate may forward to a server, before the last one about the longest broadcast.
const ASKS: usize = 3;
/// Largest varint (RFC 9000 section 16).
const LARGEST: u64 = (1 << 62) - 1;

/// Parsed query of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct FetchQuery {
    /// Group sequence; `None`: the latest group.
    group: Option<u64>,
    /// First frame.
    from: u64,
    /// Last frame, inclusive.
    to: Option<u64>,
    /// Track name; if present, the whole path is the broadcast.
    track: Option<String>,
    /// Incarnation that the group must belong to.
    incarnation: Option<String>,
}

type Failure = Box<Response>;

/// Answers `/fetch` and paths below it.
pub(crate) async fn answer(readers: &HttpReaders, asked: RouteRequest) -> Response {
    find(readers, &asked).await.unwrap_or_else(|response| *response)
}

async fn find(readers: &HttpReaders, asked: &RouteRequest) -> Result<Response, Failure> {
    let wanted = parse_query(&asked.query).ok_or_else(|| {
        bad_request(
            "group, from and to are numbers; group may be latest; track and incarnation are not empty\n",
        )
    })?;
    let (session, permit, track) = admit(readers, asked, &wanted).await?;
    if readers.store().budget().at_ceiling() {
        return Err(Box::new(plain(
            StatusCode::SERVICE_UNAVAILABLE,
            "memory limit reached; try again later\n",
        )));
    }
    let path = permit.root().clone();
    let (start, want) = wanted.group.map_or((Start::Latest, Want::Live), |it| (Start::Group(it), Want::Info));
    let prefs = Prefs { start, ..Prefs::default() };
    session.ask(Ask::Subscribe { sub: SUB, path: path.clone(), track, prefs, want });
    let mut reader = FetchReader::new(session, path, FrameRange { first: wanted.from, last: wanted.to });
    let sequence = reader.begin(wanted.group).await.map_err(|missed| match missed {
        Missed::Nothing => nothing(),
        Missed::Over => Box::new(empty(StatusCode::UNAUTHORIZED)),
    })?;
    let incarnation = reader.incarnation().map(|it| incarnation(readers, it)).ok_or_else(nothing)?;
    if wanted.incarnation.as_ref().is_some_and(|named| *named != incarnation) {
        return Err(nothing());
    }
    Ok(respond(asked, &wanted, sequence, &incarnation, permit.is_public(), reader))
}

fn bad_request(words: &'static str) -> Failure {
    Box::new(plain(StatusCode::BAD_REQUEST, words))
}

fn nothing() -> Failure {
    Box::new(plain(StatusCode::NOT_FOUND, "no such broadcast, track or group\n"))
}

/// Admits a reader of the broadcast and track that the request names.
///
/// A path can be split into broadcast and track in several ways. The longest announced broadcast that the client may
/// read is chosen. A broadcast that it may not read is skipped as if it were not announced, so no answer reveals
/// broadcasts outside the client's scope. Whether a broadcast is announced is decided at the path that the gate maps it
/// to.
async fn admit(
    readers: &HttpReaders,
    asked: &RouteRequest,
    wanted: &FetchQuery,
) -> Result<(ReaderSession, Permit, TrackName), Failure> {
    let name =
        |track: &str| TrackName::parse(track).ok_or_else(|| bad_request("the track's name is too long\n"));
    let malformed = |_| bad_request("write /fetch/BROADCAST/TRACK, or /fetch/BROADCAST?track=NAME\n");
    let mut asks = Asks::default();
    if let Some(track) = &wanted.track {
        broadcast_path(&asked.path).map_err(malformed)?;
        let (session, permit) = asks.enter(readers, asked, &asked.path).await.map_err(Rejected::response)?;
        return Ok((session, permit, name(track)?));
    }
    let target = TrackTarget::parse(&asked.path).map_err(malformed)?;
    let mut prefix = None;
    for Split { raw, broadcast, track } in target.splits() {
        let mapped = |prefix: &Path| prefix.join(&broadcast).ok();
        if prefix
            .as_ref()
            .is_some_and(|prefix| !mapped(prefix).is_some_and(|path| is_announced(readers, &path)))
        {
            continue;
        }
        if asks.elsewhere >= ASKS {
            break;
        }
        match asks.enter(readers, asked, raw).await {
            Ok((session, permit)) if is_announced(readers, permit.root()) => {
                return Ok((session, permit, name(&track)?));
            }
            Ok((_, permit)) => prefix = prefix.or_else(|| added(permit.root(), &broadcast)),
            Err(Rejected::PassedOver(_)) => {}
            Err(rejected) => return Err(rejected.response()),
        }
    }
    let Some(Split { raw, track, .. }) = target.splits().next() else { return Err(nothing()) };
    let (session, permit) = asks.enter(readers, asked, raw).await.map_err(Rejected::response)?;
    Ok((session, permit, name(&track)?))
}

/// Prefix that the gate put before `path`; `None` where it mapped the path in another way.
fn added(root: &Path, path: &Path) -> Option<Path> {
    let front = root.as_str().strip_suffix(path.as_str())?;
    if front.is_empty() {
        return Some(Path::root());
    }
    Path::parse(front.strip_suffix('/')?).ok()
}

/// Gate lookups of one request.
#[derive(Default)]
struct Asks {
    /// Number of lookups that the gate forwarded to a server.
    elsewhere: usize,
}

/// Rejection of a reader of one broadcast.
enum Rejected {
    /// This broadcast is outside its scope, or a server has no answer about it.
    PassedOver(Response),
    /// It would be rejected for every other broadcast as well.
    Otherwise(Response),
}

impl Rejected {
    fn response(self) -> Failure {
        match self {
            Self::PassedOver(response) | Self::Otherwise(response) => Box::new(response),
        }
    }
}

impl Asks {
    /// Asks the gate to admit a reader of the broadcast at `raw`.
    async fn enter(
        &mut self,
        readers: &HttpReaders,
        asked: &RouteRequest,
        raw: &str,
    ) -> Result<(ReaderSession, Permit), Rejected> {
        let mut is_elsewhere = false;
        let admitted = readers.admit_noting(asked.gate_request(raw), &mut is_elsewhere).await;
        self.elsewhere += usize::from(is_elsewhere);
        let session = admitted.map_err(|refused| match refused {
            ReaderRejection::Denied(
                Denial::Refused(Refusal::Unauthorized | Refusal::OutOfScope | Refusal::Malformed)
                | Denial::Unavailable,
            ) => Rejected::PassedOver(refused.response()),
            _ => Rejected::Otherwise(refused.response()),
        })?;
        let permit = session.permit().filter(|permit| permit.subscribe().allows(permit.root()));
        permit
            .map(|permit| (session, permit))
            .ok_or_else(|| Rejected::PassedOver(empty(StatusCode::UNAUTHORIZED)))
    }
}

fn is_announced(readers: &HttpReaders, broadcast: &Path) -> bool {
    readers.store().board().list(broadcast, None, 1).first().is_some_and(|first| first.path == *broadcast)
}

/// Formats an incarnation for URLs and entity tags.
fn incarnation(readers: &HttpReaders, Incarnation { log, epoch }: Incarnation) -> String {
    format!("{:x}-{log}-{}", readers.boot(), epoch.0)
}

fn respond(
    asked: &RouteRequest,
    wanted: &FetchQuery,
    sequence: u64,
    incarnation: &str,
    is_public: bool,
    reader: FetchReader,
) -> Response {
    let is_complete = reader.is_complete();
    let mut response = empty(StatusCode::OK);
    if asked.is_head {
        *response.body_mut() = of_head();
    }
    let headers = response.headers_mut();
    let mut put = |name, value: &str| {
        if let Ok(value) = HeaderValue::from_str(value) {
            headers.insert(name, value);
        }
    };
    put(HeaderName::from_static("moq-incarnation"), incarnation);
    put(CACHE_CONTROL, &caching(is_complete, wanted, is_public));
    if !is_public {
        put(VARY, "authorization");
    }
    let FetchQuery { from, to, .. } = wanted;
    let to = to.map(|to| to.to_string()).unwrap_or_default();
    let tag = format!("\"{incarnation}-{sequence}-{from}-{to}\"");
    if is_complete {
        put(ETAG, &tag);
    }
    headers.insert(HeaderName::from_static("moq-group"), sequence.into());
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if is_complete && matches_etag(&asked.headers, &tag) {
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    if let Some(bytes) = reader.bytes(!asked.is_head) {
        headers.insert(CONTENT_LENGTH, bytes.into());
    }
    if !asked.is_head {
        *response.body_mut() = body(reader);
    }
    response
}

/// `Cache-Control` of an answer.
fn caching(is_complete: bool, wanted: &FetchQuery, is_public: bool) -> String {
    let is_named = wanted.group.is_some() && wanted.incarnation.is_some();
    match (is_complete && is_named, is_public) {
        (true, true) => format!("public, {IMMUTABLE}"),
        (true, false) => format!("private, {IMMUTABLE}"),
        (false, true) => NO_CACHE.to_owned(),
        (false, false) => format!("private, {NO_CACHE}"),
    }
}

/// Whether `If-None-Match` contains `tag`.
fn matches_etag(headers: &HeaderMap, tag: &str) -> bool {
    let texts = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// Parses a query; of repeated parameters the last one counts. `None`: a value is invalid.
fn parse_query(query: &str) -> Option<FetchQuery> {
    let mut wanted = FetchQuery::default();
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number <= LARGEST);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "group" if value == "latest" => wanted.group = None,
            "group" => wanted.group = Some(number(value)?),
            "from" => wanted.from = number(value)?,
            "to" => wanted.to = Some(number(value)?),
            "track" => wanted.track = Some(form_value(value).filter(|name| !name.is_empty())?),
            "incarnation" if value.is_empty() => return None,
            "incarnation" => wanted.incarnation = Some(value.to_owned()),
            _ => {}
        }
    }
    wanted.to.is_none_or(|to| to >= wanted.from).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn query_names_group_and_frames() {
        let of = |group, from, to| Some(FetchQuery { group, from, to, ..FetchQuery::default() });
        for (query, expected) in [
            ("", of(None, 0, None)),
            ("group=latest", of(None, 0, None)),
            ("group=7&from=1&to=3", of(Some(7), 1, Some(3))),
            ("jwt=x&group=0", of(Some(0), 0, None)),
            ("group=1&group=2", of(Some(2), 0, None)),
            ("from=3&to=3", of(None, 3, Some(3))),
            ("group=4611686018427387903", of(Some(LARGEST), 0, None)),
            ("group=4611686018427387904", None),
            ("group=-1", None),
            ("group=", None),
            ("group=newest", None),
            ("from=2&to=1", None),
            ("to=x", None),
            ("track=", None),
            ("track=%00", None),
            ("incarnation=", None),
        ] {
            assert_eq!(parse_query(query), expected, "{query}");
        }
        let named = parse_query("track=a%2Fb+c&incarnation=1-2-3").unwrap();
        assert_eq!((named.track.as_deref(), named.incarnation.as_deref()), (Some("a/b c"), Some("1-2-3")));
    }

    #[test]
    fn front_of_a_mapped_path_is_whole_segments() {
        let path = |text: &str| Path::parse(text).unwrap();
        let front = |root: &str, asked: &str| added(&path(root), &path(asked)).map(|it| it.to_string());
        assert_eq!(front("room/alice", "room/alice").as_deref(), Some(""));
        assert_eq!(front("a/b/room/alice", "room/alice").as_deref(), Some("a/b"));
        for root in ["bedroom/alice", "x7/alice", "alice", ""] {
            assert_eq!(front(root, "room/alice"), None, "{root}");
        }
    }

    #[test]
    fn only_a_named_incarnation_is_immutable() {
        let named = parse_query("group=7&incarnation=x").unwrap();
        for (is_complete, wanted, is_public, expected) in [
            (true, &named, true, "public, max-age=3600, immutable"),
            (true, &named, false, "private, max-age=3600, immutable"),
            (false, &named, true, "no-cache"),
            (true, &parse_query("group=7").unwrap(), true, "no-cache"),
            (true, &parse_query("incarnation=x").unwrap(), true, "no-cache"),
            (true, &parse_query("group=7").unwrap(), false, "private, no-cache"),
        ] {
            assert_eq!(caching(is_complete, wanted, is_public), expected);
        }
    }

    #[test]
    fn a_tag_is_known_by_any_of_several_spellings() {
        let with = |text: &'static str| {
            matches_etag(&HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(text))]), "\"a\"")
        };
        assert!(with("\"a\"") && with("W/\"a\"") && with("\"b\", \"a\"") && with("*"));
        assert!(!with("\"b\"") && !with("a") && !matches_etag(&HeaderMap::new(), "\"a\""));
    }
}
