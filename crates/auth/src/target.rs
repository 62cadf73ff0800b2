//! Request targets: path and query as sent by the client. The only place where they are decoded.

use relay_model::{Path, limits};

use crate::Refusal;

/// Parsed request target. Not `Debug`, since it may contain a secret.
pub(crate) struct Target<'a> {
    /// Requested root of the session.
    pub(crate) path: Path,
    /// Last non-empty `jwt` of the query, as sent.
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

/// Parses the raw path of a broadcast, for HTTP routes that name the track elsewhere.
///
/// # Errors
/// [`Refusal::Malformed`], as for every request target.
pub fn broadcast_path(raw: &str) -> Result<Path, Refusal> {
    if raw.len() > limits::CONTROL_MESSAGE_BYTES {
        return Err(Refusal::Malformed);
    }
    parse_path(raw)
}

/// Decodes a form-encoded query value, in which `+` is a space. `None` for an invalid escape, text that is not
/// UTF-8, and control characters.
pub fn form_value(raw: &str) -> Option<String> {
    decode(&raw.replace('+', " ")).filter(|value| !value.contains(char::is_control))
}

/// Raw path of a broadcast followed by a track name. Track names may contain slashes, so that the split is
/// ambiguous and has to be chosen by a caller that knows the broadcasts.
pub struct TrackTarget<'a> {
    raw: &'a str,
    segments: Vec<Segment>,
    /// Number of segments that may belong to the broadcast: those before the first with an escaped slash, except the
    /// last.
    broadcast: usize,
}

struct Segment {
    text: String,
    /// End offset in the raw path.
    end: usize,
}

/// Possible split of a [`TrackTarget`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Split<'a> {
    /// Raw path of the broadcast, as passed to the admission gate.
    pub raw: &'a str,
    /// Parsed path of the broadcast.
    pub broadcast: Path,
    /// Name of the track.
    pub track: String,
}

impl<'a> TrackTarget<'a> {
    /// Parses a raw path.
    ///
    /// # Errors
    /// [`Refusal::Malformed`] for a segment that no target may have (an escaped slash is allowed in the track name),
    /// fewer than two segments, or if the longest possible broadcast is not a valid path.
    pub fn parse(raw: &'a str) -> Result<Self, Refusal> {
        if raw.len() > limits::CONTROL_MESSAGE_BYTES {
            return Err(Refusal::Malformed);
        }
        let (mut segments, mut end, mut broadcast) = (Vec::new(), 0, None);
        for piece in raw.split('/') {
            end += piece.len();
            if !piece.is_empty() {
                let text = decode(piece).ok_or(Refusal::Malformed)?;
                text.split('/').try_for_each(check_segment)?;
                if text.contains('/') {
                    broadcast.get_or_insert(segments.len());
                }
                segments.push(Segment { text, end });
            }
            end += 1;
        }
        let before_last = segments.len().saturating_sub(1);
        let broadcast = broadcast.map_or(before_last, |first| before_last.min(first));
        let target = Self { raw, segments, broadcast };
        match target.at(broadcast) {
            Some(_) => Ok(target),
            None => Err(Refusal::Malformed),
        }
    }

    /// Returns all possible splits, the longest broadcast first.
    pub fn splits(&self) -> impl Iterator<Item = Split<'a>> {
        (1..=self.broadcast).rev().filter_map(|count| self.at(count))
    }

    /// Returns the split with the first `count` segments as the broadcast.
    fn at(&self, count: usize) -> Option<Split<'a>> {
        let (broadcast, track) = self.segments.split_at_checked(count)?;
        let raw = self.raw.get(..broadcast.last()?.end)?;
        let track: Vec<&str> = track.iter().map(|segment| segment.text.as_str()).collect();
        Some(Split { raw, broadcast: parse_path(raw).ok()?, track: track.join("/") })
    }
}

/// Decodes a path segment by segment, once: a decoded character never acts as a separator or as another escape, and
/// segments with a meaning for file systems or proxies are rejected.
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
    if segment.contains('/') {
        return Err(Refusal::Malformed);
    }
    check_segment(&segment)?;
    Ok(segment)
}

fn check_segment(segment: &str) -> Result<(), Refusal> {
    let is_refused = matches!(segment, "." | "..") || segment.contains(char::is_control);
    if is_refused { Err(Refusal::Malformed) } else { Ok(()) }
}

/// Returns the last non-empty value of `jwt`. Names are decoded, so that a token with an escaped name is not
/// mistaken for public access.
fn token(query: &str) -> Option<&str> {
    query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter(|(key, value)| !value.is_empty() && (*key == "jwt" || decode(key).as_deref() == Some("jwt")))
        .map(|(_, value)| value)
        .next_back()
}

/// Percent-decodes once (RFC 3986 §2.1). `None` for an invalid escape or text that is not UTF-8.
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

    fn splits(raw: &str) -> Result<Vec<(String, String, String)>, Refusal> {
        let owned = |split: Split<'_>| (split.raw.to_owned(), split.broadcast.to_string(), split.track);
        TrackTarget::parse(raw).map(|target| target.splits().map(owned).collect())
    }

    fn split(raw: &str, broadcast: &str, track: &str) -> (String, String, String) {
        (raw.to_owned(), broadcast.to_owned(), track.to_owned())
    }

    #[test]
    fn track_target_has_every_split_longest_broadcast_first() {
        assert_eq!(
            splits("/room/alice/video/hd"),
            Ok(vec![
                split("/room/alice/video", "room/alice/video", "hd"),
                split("/room/alice", "room/alice", "video/hd"),
                split("/room", "room", "alice/video/hd"),
            ])
        );
        assert_eq!(splits("//a%20b//c%2ejson/"), Ok(vec![split("//a%20b", "a b", "c.json")]));
        assert_eq!(splits("/a/%c3%a9%2520").unwrap()[0].2, "é%20", "decoded once");
    }

    #[test]
    fn escaped_slash_belongs_to_the_track() {
        assert_eq!(
            splits("/room/alice/video%2Fhd"),
            Ok(vec![
                split("/room/alice", "room/alice", "video/hd"),
                split("/room", "room", "alice/video/hd")
            ])
        );
        assert_eq!(splits("/room/a%2fb/c"), Ok(vec![split("/room", "room", "a/b/c")]));
        for bad in ["/a%2fb", "/a%2fb/c", "/%2f/c", "/a/b%2f..", "/a/..%2fb", "/a/b%2f%00", "/a/%2e%2f"] {
            assert_eq!(splits(bad), Err(Refusal::Malformed), "{bad}");
        }
    }

    #[test]
    fn track_target_obeys_the_rules_of_every_target() {
        let (long, deep) =
            (format!("/{}", "a".repeat(limits::PATH_BYTES + 1)), "/a".repeat(limits::PATH_SEGMENTS + 1));
        let huge = format!("/a/{}", "b".repeat(limits::CONTROL_MESSAGE_BYTES));
        for bad in [
            "",
            "/",
            "/video",
            "//video",
            "/video/",
            "/a/..",
            "/a/%2e%2e",
            "/./a",
            "/a/%00",
            "/a/%0a",
            "/a/%ff",
            "/a/%2",
            &format!("{long}/t"),
            &format!("{deep}/t"),
            &huge,
        ] {
            assert_eq!(splits(bad), Err(Refusal::Malformed), "{bad}");
        }
        let deepest = format!("{}/t", "/a".repeat(limits::PATH_SEGMENTS));
        assert_eq!(splits(&deepest).unwrap().len(), limits::PATH_SEGMENTS);
    }

    #[test]
    fn form_value_is_decoded_once_and_has_no_control_characters() {
        assert_eq!(form_value("video%2Fhd+a%2520").as_deref(), Some("video/hd a%20"));
        for bad in ["%", "%ff", "a%00", "a%0a"] {
            assert_eq!(form_value(bad), None, "{bad}");
        }
    }
}
