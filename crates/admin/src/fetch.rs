//! `/fetch`: one group of a track, while it grows.

mod reader;

use axum::response::Response;
use hyper::{
    HeaderMap, StatusCode,
    header::{
        CACHE_CONTROL, CONTENT_LENGTH, CONTENT_TYPE, ETAG, HeaderName, HeaderValue, IF_NONE_MATCH,
        X_CONTENT_TYPE_OPTIONS,
    },
};
use relay_auth::split_track;
use relay_model::{Ask, Prefs, Start, TrackName, Want};

use crate::{
    hub::{Hub, SUB},
    site::{Asked, empty, plain},
    stream::body,
};
use reader::{Missed, Reader, Whole};

/// A finished group does not change, but a publisher that starts anew counts from the start again.
const FINISHED: &str = "max-age=3600, immutable";
/// Varints end there.
const LARGEST: u64 = (1 << 62) - 1;

/// What is asked for of a track.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Wanted {
    /// `None`: the latest.
    group: Option<u64>,
    /// Its first frame.
    from: u64,
    /// Its last one, itself included.
    to: Option<u64>,
    /// A token is part of the address.
    is_private: bool,
}

/// Answers what is below `/fetch`.
pub(crate) async fn answer(hub: &Hub, asked: Asked) -> Response {
    find(hub, &asked).await.unwrap_or_else(|response| *response)
}

async fn find(hub: &Hub, asked: &Asked) -> Result<Response, Box<Response>> {
    let bad = |words| Box::new(plain(StatusCode::BAD_REQUEST, words));
    let parts = split_track(&asked.path).map_err(|_| bad("write /fetch/BROADCAST/TRACK\n"))?;
    let (path, track) =
        (parts.0, TrackName::parse(&parts.1).ok_or_else(|| bad("the track's name is too long\n"))?);
    let wanted =
        wanted(&asked.query).ok_or_else(|| bad("group, from and to are numbers; group may be latest\n"))?;
    let mut visitor = hub.admit(asked.asker(path)).await.map_err(|refused| Box::new(refused.response()))?;
    let permit = visitor.permit().filter(|permit| permit.subscribe().allows(permit.root()));
    let Some(permit) = permit else { return Err(Box::new(empty(StatusCode::UNAUTHORIZED))) };
    if hub.store().budget().at_ceiling() {
        return Err(Box::new(plain(StatusCode::SERVICE_UNAVAILABLE, "out of memory for now\n")));
    }
    let path = permit.root().clone();
    let (start, want) = wanted.group.map_or((Start::Latest, Want::Live), |it| (Start::Group(it), Want::Info));
    let prefs = Prefs { start, ..Prefs::default() };
    visitor.ask(Ask::Subscribe { sub: SUB, path: path.clone(), track, prefs, want });
    let missing = |missed| match missed {
        Missed::Nothing => Box::new(plain(StatusCode::NOT_FOUND, "no such broadcast, track or group\n")),
        Missed::Over => Box::new(empty(StatusCode::UNAUTHORIZED)),
    };
    let mut reader = Reader::new(visitor, path, (wanted.from, wanted.to));
    let sequence = reader.begin(wanted.group).await.map_err(missing)?;
    Ok(respond(hub, asked, wanted, sequence, reader))
}

fn respond(hub: &Hub, asked: &Asked, wanted: Wanted, sequence: u64, reader: Reader) -> Response {
    let whole = reader.whole();
    let mut response = empty(StatusCode::OK);
    let headers = response.headers_mut();
    headers.insert(HeaderName::from_static("moq-group"), sequence.into());
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    let caching = match (whole.is_some() && wanted.group.is_some(), wanted.is_private) {
        (true, true) => format!("private, {FINISHED}"),
        (true, false) => format!("public, {FINISHED}"),
        (false, _) => "no-cache".to_owned(),
    };
    if let Ok(caching) = HeaderValue::from_str(&caching) {
        headers.insert(CACHE_CONTROL, caching);
    }
    let Some(Whole { log, bytes }) = whole else {
        if !asked.is_head {
            *response.body_mut() = body(reader);
        }
        return response;
    };
    let Wanted { from, to, .. } = wanted;
    let to = to.map(|to| to.to_string()).unwrap_or_default();
    let tag = format!("\"{:x}-{log}-{sequence}-{from}-{to}\"", hub.boot());
    let is_known = knows(&asked.headers, &tag);
    if let Ok(tag) = HeaderValue::from_str(&tag) {
        headers.insert(ETAG, tag);
    }
    if is_known {
        headers.remove(CONTENT_TYPE);
        *response.status_mut() = StatusCode::NOT_MODIFIED;
        return response;
    }
    headers.insert(CONTENT_LENGTH, bytes.into());
    if !asked.is_head {
        *response.body_mut() = body(reader);
    }
    response
}

/// Whether who asks has what `tag` names.
fn knows(headers: &HeaderMap, tag: &str) -> bool {
    let texts = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    texts
        .flat_map(|text| text.split(','))
        .map(str::trim)
        .any(|one| one == "*" || one.strip_prefix("W/").unwrap_or(one) == tag)
}

/// What a query asks for; of what is said twice the last counts. `None`: what it says is nothing.
fn wanted(query: &str) -> Option<Wanted> {
    let mut wanted = Wanted::default();
    let number = |text: &str| text.parse::<u64>().ok().filter(|number| *number <= LARGEST);
    for (name, value) in query.split('&').filter_map(|pair| pair.split_once('=')) {
        match name {
            "group" if value == "latest" => wanted.group = None,
            "group" => wanted.group = Some(number(value)?),
            "from" => wanted.from = number(value)?,
            "to" => wanted.to = Some(number(value)?),
            _ => wanted.is_private = true,
        }
    }
    wanted.to.is_none_or(|to| to >= wanted.from).then_some(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_names_a_group_and_frames_of_it() {
        let of = |group, from, to, is_private| Some(Wanted { group, from, to, is_private });
        for (query, expected) in [
            ("", of(None, 0, None, false)),
            ("group=latest", of(None, 0, None, false)),
            ("group=7&from=1&to=3", of(Some(7), 1, Some(3), false)),
            ("jwt=x&group=0", of(Some(0), 0, None, true)),
            ("group=1&group=2", of(Some(2), 0, None, false)),
            ("from=3&to=3", of(None, 3, Some(3), false)),
            ("group=4611686018427387903", of(Some(LARGEST), 0, None, false)),
            ("group=4611686018427387904", None),
            ("group=-1", None),
            ("group=", None),
            ("group=newest", None),
            ("from=2&to=1", None),
            ("to=x", None),
        ] {
            assert_eq!(wanted(query), expected, "{query}");
        }
    }

    #[test]
    fn a_tag_is_known_by_any_of_several_spellings() {
        let with = |text: &'static str| {
            knows(&HeaderMap::from_iter([(IF_NONE_MATCH, HeaderValue::from_static(text))]), "\"a\"")
        };
        assert!(with("\"a\"") && with("W/\"a\"") && with("\"b\", \"a\"") && with("*"));
        assert!(!with("\"b\"") && !with("a") && !knows(&HeaderMap::new(), "\"a\""));
    }
}
