//! Request targets: path and query as the client sent them, decoded here and nowhere else.

use relay_model::{Path, limits};

use crate::Refusal;

/// What a request target names. Not `Debug`: it may hold a secret.
pub(crate) struct Target<'a> {
    /// The root the session asks for.
    pub(crate) path: Path,
    /// Last `jwt` of the query that is not empty, as sent.
    pub(crate) token: Option<&'a str>,
}

impl<'a> Target<'a> {
    pub(crate) fn parse(raw: &'a str) -> Result<Self, Refusal> {
        if raw.len() > limits::CONTROL_MESSAGE_BYTES {
            return Err(Refusal::Malformed);
        }
        let (path, query) = raw.split_once('?').unwrap_or((raw, ""));
        Ok(Self { path: parse_path(path)?, token: token(query) })
    }
}

/// Takes the last segment off a raw path, for a route that names a track behind a broadcast: the path of the
/// broadcast, raw, and the name of the track. Both are there.
///
/// # Errors
/// There are not two segments, or the last one is none.
pub fn split_track(raw: &str) -> Result<(&str, String), Refusal> {
    let (path, track) = raw.trim_end_matches('/').rsplit_once('/').ok_or(Refusal::Malformed)?;
    if path.bytes().all(|byte| byte == b'/') {
        return Err(Refusal::Malformed);
    }
    Ok((path, segment(track)?))
}

/// Decodes segment by segment, once: what comes out of an escape never acts as a separator or as
/// another escape, and a segment that would mean something else to a file system or a proxy is
/// refused, not interpreted.
fn parse_path(raw: &str) -> Result<Path, Refusal> {
    let mut decoded = String::with_capacity(raw.len());
    for raw in raw.split('/').filter(|segment| !segment.is_empty()) {
        decoded.push('/');
        decoded.push_str(&segment(raw)?);
    }
    Path::parse(decoded.strip_prefix('/').unwrap_or("")).map_err(|_| Refusal::Malformed)
}

fn segment(raw: &str) -> Result<String, Refusal> {
    let segment = decode(raw).ok_or(Refusal::Malformed)?;
    if matches!(segment.as_str(), "." | "..") || segment.contains(|c: char| c == '/' || c.is_control()) {
        return Err(Refusal::Malformed);
    }
    Ok(segment)
}

/// The value of the last `jwt` pair that has one. Keys are decoded, so that no spelling of a token
/// passes for public access.
fn token(query: &str) -> Option<&str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, value)| !value.is_empty() && (*key == "jwt" || decode(key).as_deref() == Some("jwt")))
        .map(|(_, value)| value)
        .next_back()
}

/// Percent-decodes once. `None` for a broken escape or text that is no UTF-8.
pub(crate) fn decode(raw: &str) -> Option<String> {
    let mut bytes = raw.bytes();
    let mut out = Vec::with_capacity(raw.len());
    while let Some(byte) = bytes.next() {
        if byte == b'%' {
            let (high, low) = (hex(bytes.next()?)?, hex(bytes.next()?)?);
            out.push(high << 4 | low);
        } else {
            out.push(byte);
        }
    }
    String::from_utf8(out).ok()
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_track_is_the_last_segment_and_obeys_the_rules_of_every_other() {
        assert_eq!(split_track("/room/alice/video").unwrap(), ("/room/alice", "video".to_owned()));
        assert_eq!(split_track("//room//catalog%2ejson/").unwrap(), ("//room/", "catalog.json".to_owned()));
        assert_eq!(split_track("/a/%c3%a9%2520").unwrap().1, "é%20", "once");
        for bad in
            ["", "/", "/video", "//video", "/a/..", "/a/%2e%2e", "/a/b%2fc", "/a/%00", "/a/%ff", "/a/%2"]
        {
            assert_eq!(split_track(bad), Err(Refusal::Malformed), "{bad}");
        }
    }
}
