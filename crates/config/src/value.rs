//! Parsing of single values. Errors describe the expected value to operators.

/// An [`InvalidValue`] with a formatted description.
macro_rules! invalid {
    ($($text:tt)*) => {
        $crate::InvalidValue(format!($($text)*))
    };
}

mod limits;
mod quic;
mod web;

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf, time::Duration};

use relay_auth::EXPECTED;
use relay_model::{Hop, Path, Pattern, limits as model};
use relay_worker::{Takeover, Version};
use toml::Value;
use tracing::level_filters::LevelFilter;
use url::Url;

use super::{Format, InvalidValue, KeyDir};

pub(super) use limits::{count, requests};
pub(super) use quic::{congestion, idle, keep_alive, mtu, streams};
pub(super) use web::{ids, networks, origins, proxies, proxy_header, public_url};

/// Longest duration. Longer ones are a mistake and could overflow a clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);
/// Longest time the path of a lost publisher is kept; a longer one would block it.
const LONGEST_LINGER: Duration = Duration::from_secs(600);
/// Largest hop id: JavaScript peers store hops as floating-point numbers.
const LARGEST_HOP: u64 = (1 << 53) - 1;
/// Most values of one list.
const LIST: usize = 1_000;
/// Versions of other relays that this one does not support.
const UNSPOKEN: [&str; 2] = ["moq-lite-06-wip", "moq-lite-07-wip"];
/// Published drafts of moq-transport.
const DRAFTS: std::ops::RangeInclusive<u8> = 7..=22;
/// Units of time, ms.
const TIMES: [(&str, u64); 6] =
    [("ms", 1), ("s", 1_000), ("m", 60_000), ("min", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
/// Units of size, bytes.
const SIZES: [(&str, u64); 9] = [
    ("B", 1),
    ("KB", 1_000),
    ("MB", 1_000_000),
    ("GB", 1_000_000_000),
    ("TB", 1_000_000_000_000),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
];

/// An amount of memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Size {
    /// Bytes.
    Bytes(u64),
    /// Percent of the available memory.
    Percent(u8),
}

impl std::fmt::Display for Size {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{bytes}"),
            Self::Percent(percent) => write!(f, "\"{percent}%\""),
        }
    }
}

impl Size {
    /// Converts to bytes, of `available` bytes.
    pub fn of(self, available: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => available / 100 * u64::from(percent),
        }
    }
}

/// Configured versions, split by support.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Versions {
    /// Supported versions; at least one.
    pub(super) spoken: Vec<Version>,
    /// Names of versions that only other relays support.
    pub(super) unspoken: Vec<String>,
}

/// Parses `IP:PORT`.
pub(super) fn address(value: &Value) -> Result<SocketAddr, InvalidValue> {
    let address = value.as_str().and_then(|text| text.parse().ok());
    address.ok_or_else(|| {
        invalid!("{value} is not a valid address; write IP:PORT, as in \"[::]:4443\" or \"127.0.0.1:4443\"")
    })
}

/// Parses a text with a unit, or a number of seconds.
pub(super) fn duration(value: &Value) -> Result<Duration, InvalidValue> {
    let millis = match value {
        Value::String(text) => with_unit(text, &TIMES),
        Value::Integer(seconds) => {
            u64::try_from(*seconds).ok().and_then(|seconds| seconds.checked_mul(1_000))
        }
        Value::Float(seconds) => scaled(*seconds, 1_000),
        _ => None,
    };
    millis.map(Duration::from_millis).filter(|duration| *duration <= LONGEST).ok_or_else(|| {
        invalid!(
            "{value} is not a valid duration; write \"10s\", \"500ms\" or \"2m\", or a number of seconds"
        )
    })
}

/// Parses a text with a unit, a percentage, or a number of bytes.
pub(super) fn size(value: &Value) -> Result<Size, InvalidValue> {
    let size = match value {
        Value::String(text) => match text.trim().strip_suffix('%') {
            Some(percent) => {
                percent.trim_end().parse().ok().filter(|percent| *percent <= 100).map(Size::Percent)
            }
            None => with_unit(text, &SIZES).map(Size::Bytes),
        },
        Value::Integer(bytes) => u64::try_from(*bytes).ok().map(Size::Bytes),
        _ => None,
    };
    size.ok_or_else(|| {
        invalid!("{value} is not a valid size; write \"8GiB\", \"500MB\" or \"75%\", or a number of bytes")
    })
}

/// Parses the time for which the path of a lost publisher is kept.
pub(super) fn linger(value: &Value) -> Result<Duration, InvalidValue> {
    duration(value).and_then(|it| {
        if it <= LONGEST_LINGER { Ok(it) } else { Err(invalid!("{value} is too long; at most 10m")) }
    })
}

/// Parses one version name or a list of them. Versions that only other relays support are accepted as long as a
/// supported one is left.
pub(super) fn versions(value: &Value) -> Result<Versions, InvalidValue> {
    let names = || Version::ALL.iter().map(|version| version.alpn()).chain([Version::LEGACY_ALPN]);
    let known = || names().map(|name| format!("{name:?}")).collect::<Vec<_>>().join(", ");
    // The oldest versions are told apart within the session, so one stands for all of them.
    let find = |name: &str| {
        let is_oldest = |version: &Version| name == version.alpn() || name == version.name();
        Version::from_alpn(name)
            .or_else(|| Version::LEGACY.iter().any(is_oldest).then_some(Version::ANY_LEGACY))
    };
    let mut versions = Versions::default();
    for name in list(value)? {
        match name.as_str().map(|text| (text, find(text))) {
            Some((_, Some(version))) if versions.spoken.contains(&version) => {}
            Some((_, Some(version))) => versions.spoken.push(version),
            Some((text, None)) if is_version_elsewhere(text) => versions.unspoken.push(text.to_owned()),
            _ => return Err(invalid!("{name} is not a supported version; the versions are {}", known())),
        }
    }
    if !versions.spoken.is_empty() {
        Ok(versions)
    } else if versions.unspoken.is_empty() {
        Err(invalid!("name at least one version: {}", known()))
    } else {
        Err(invalid!("{value} names no supported version; add one of {}", known()))
    }
}

fn is_version_elsewhere(name: &str) -> bool {
    let draft = || {
        let number = name.strip_prefix("moq-transport-").or_else(|| name.strip_prefix("moqt-"))?;
        number.parse().ok()
    };
    UNSPOKEN.contains(&name) || draft().is_some_and(|draft: u8| DRAFTS.contains(&draft))
}

/// Parses a hop id.
pub(super) fn hop(value: &Value) -> Result<Hop, InvalidValue> {
    let hop = value.as_integer().and_then(|hop| u64::try_from(hop).ok());
    hop.filter(|hop| (1..=LARGEST_HOP).contains(hop))
        .map(Hop)
        .ok_or_else(|| invalid!("{value} is not a valid hop; write a number from 1 to {LARGEST_HOP}"))
}

/// Parses the takeover rule.
pub(super) fn takeover(value: &Value) -> Result<Takeover, InvalidValue> {
    match value.as_str() {
        Some("identity") => Ok(Takeover::Identity),
        Some("any") => Ok(Takeover::Any),
        _ => Err(invalid!("{value} is not known; write \"identity\" or \"any\"")),
    }
}

/// Parses one file or a list of them.
pub(super) fn files(value: &Value) -> Result<Vec<PathBuf>, InvalidValue> {
    texts(value, "file").map(|files| files.into_iter().map(PathBuf::from).collect())
}

/// Parses one file.
pub(super) fn file(value: &Value) -> Result<PathBuf, InvalidValue> {
    match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.into()),
        _ => Err(invalid!("{value} is not a valid file; write it as a text, in quotes")),
    }
}

/// Parses a folder of keys or their URL.
pub(super) fn key_dir(value: &Value) -> Result<KeyDir, InvalidValue> {
    match value.as_str() {
        Some(text) if text.contains("://") => url(value).map(KeyDir::Remote),
        _ => file(value).map(KeyDir::Local),
    }
}

/// Parses the URL of an auth server or key server. [`super::rules::plain`] checks plain HTTP against `auth.plain`.
pub(super) fn url(value: &Value) -> Result<Url, InvalidValue> {
    let wrong =
        || invalid!("{value} is not the URL of a server; write one as in \"https://auth.example.com/moq\"");
    let url: Url = value.as_str().ok_or_else(wrong)?.parse().map_err(|_| wrong())?;
    match url.scheme() {
        "https" | "http" if url.has_host() => Ok(url),
        _ => Err(wrong()),
    }
}

/// Parses one value of `aud` or `iss`, or a list of them.
pub(super) fn expected(value: &Value) -> Result<Vec<String>, InvalidValue> {
    let values = texts(value, "name in a token")?;
    if values.len() > EXPECTED {
        return Err(invalid!("{} are too many; at most {EXPECTED}", values.len()));
    }
    Ok(values)
}

/// Parses a refresh interval.
pub(super) fn refresh(value: &Value) -> Result<Duration, InvalidValue> {
    let pause = duration(value)?;
    match pause {
        pause if pause < Duration::from_secs(1) => {
            Err(invalid!("{value} is too often; once a second is enough"))
        }
        pause if pause > Duration::from_secs(24 * 3_600) => {
            Err(invalid!("{value} is too seldom: a revoked key would stay valid that long; a day at most"))
        }
        pause => Ok(pause),
    }
}

/// Parses one host name or a list of them; addresses, and a `*` for the first label, are accepted too.
pub(super) fn names(value: &Value) -> Result<Vec<String>, InvalidValue> {
    let names = texts(value, "host name")?;
    match names.iter().find(|name| !is_host(name)) {
        None => Ok(names),
        Some(bad) if !bad.is_ascii() => {
            Err(invalid!("{bad:?} is not a valid host name for TLS; write it in its ASCII form (xn--...)"))
        }
        Some(bad) => Err(invalid!("{bad:?} is not a valid host name; write one as in \"relay.example.com\"")),
    }
}

fn is_host(name: &str) -> bool {
    let of_label = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    let is_label = |label: &str| (1..=63).contains(&label.len()) && label.bytes().all(of_label);
    let rest = name.strip_prefix("*.").unwrap_or(name);
    name.parse::<std::net::IpAddr>().is_ok() || name.len() <= 253 && rest.split('.').all(is_label)
}

/// Parses one prefix or pattern, or a list of them: `x` stands for `x/**`, a text with `*` is a pattern. A list that
/// contains everything beside other patterns is an error.
pub(super) fn prefixes(value: &Value) -> Result<Vec<Pattern>, InvalidValue> {
    let pattern = |value: &Value| {
        let text = value
            .as_str()
            .ok_or_else(|| invalid!("{value} is not a valid path; write it as a text, in quotes"))?;
        if text.contains('*') {
            return Pattern::parse(text.trim_matches('/')).map_err(|error| invalid!("{value}: {error}"));
        }
        Path::parse(text).map(Pattern::subtree).map_err(|error| invalid!("{error}"))
    };
    let patterns: Vec<Pattern> = list(value)?.iter().map(pattern).collect::<Result<_, _>>()?;
    let is_all = |pattern: &Pattern| pattern.as_subtree().is_some_and(Path::is_root);
    if patterns.len() > 1 && patterns.iter().any(is_all) {
        return Err(invalid!("{value}: \"\" opens everything, which contradicts the rest; keep one of them"));
    }
    Ok(patterns)
}

/// Parses a number of threads.
pub(super) fn workers(value: &Value) -> Result<NonZeroU16, InvalidValue> {
    let count = value.as_integer().and_then(|count| u16::try_from(count).ok()).and_then(NonZeroU16::new);
    count.filter(|count| usize::from(count.get()) <= model::WORKERS).ok_or_else(|| {
        invalid!("{value}: expected a number from 1 to {}; leave it out for one a core", model::WORKERS)
    })
}

/// Parses a boolean.
pub(super) fn switch(value: &Value) -> Result<bool, InvalidValue> {
    value.as_bool().ok_or_else(|| invalid!("{value} is not a switch; write true or false, without quotes"))
}

/// Parses a log level.
pub(super) fn level(value: &Value) -> Result<LevelFilter, InvalidValue> {
    let level = value
        .as_str()
        .filter(|text| !text.is_empty() && text.parse::<u8>().is_err())
        .and_then(|text| text.parse().ok());
    level.ok_or_else(|| {
        invalid!(
            "{value} is not a valid level; write \"error\", \"warn\", \"info\", \"debug\", \"trace\" or \"off\" \
             (RUST_LOG takes more than that)"
        )
    })
}

/// Parses a log format.
pub(super) fn format(value: &Value) -> Result<Format, InvalidValue> {
    match value.as_str() {
        Some("text") => Ok(Format::Text),
        Some("json") => Ok(Format::Json),
        _ => Err(invalid!("{value} is not known; write \"text\" or \"json\"")),
    }
}

/// Returns the values of a list, or a single value as a list of one.
fn list(value: &Value) -> Result<&[Value], InvalidValue> {
    let values = match value {
        Value::Array(values) => values.as_slice(),
        value => std::slice::from_ref(value),
    };
    if values.len() > LIST {
        Err(invalid!("{} are too many; at most {LIST}", values.len()))
    } else {
        Ok(values)
    }
}

/// Parses at least one text, none of them empty.
fn texts(value: &Value, what: &str) -> Result<Vec<String>, InvalidValue> {
    let text = |value: &Value| match value.as_str() {
        Some(text) if !text.is_empty() => Ok(text.to_owned()),
        _ => Err(invalid!("{value} is not a valid {what}; write it as a text, in quotes")),
    };
    match list(value)? {
        [] => Err(invalid!("name at least one {what}, or leave the key out")),
        values => values.iter().map(text).collect(),
    }
}

/// Parses a non-negative number followed by one of `units`, in any case.
fn with_unit(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit() && c != '.')?);
    let unit = unit.trim_start();
    let (_, factor) = units.iter().find(|(name, _)| name.eq_ignore_ascii_case(unit))?;
    match number.parse::<u64>() {
        Ok(whole) => whole.checked_mul(*factor),
        Err(_) => scaled(number.parse().ok()?, *factor),
    }
}

fn scaled(number: f64, factor: u64) -> Option<u64> {
    let value = number * factor as f64;
    (0.0..9e18).contains(&value).then_some(value as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn durations_have_a_unit_or_are_seconds() {
        for (value, millis) in [
            (text("10s"), 10_000),
            (text("500ms"), 500),
            (text("2m"), 120_000),
            (text("1.5 h"), 5_400_000),
            (Value::Integer(30), 30_000),
            (Value::Float(0.25), 250),
            (Value::Integer(0), 0),
        ] {
            assert_eq!(duration(&value), Ok(Duration::from_millis(millis)), "{value}");
        }
        for bad in ["10", "s", "-1s", "1 week", "", "1.2.3s", "400d", "99999999999999999999s", "NaNs"] {
            assert!(duration(&text(bad)).is_err(), "{bad}");
        }
        for bad in
            [Value::Integer(-1), Value::Float(f64::NAN), Value::Integer(i64::MAX), Value::Boolean(true)]
        {
            assert!(duration(&bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn sizes_have_a_unit_or_are_a_share_or_bytes() {
        for (value, size_) in [
            (text("8GiB"), Size::Bytes(8 << 30)),
            (text("8 gib"), Size::Bytes(8 << 30)),
            (text("1.5MB"), Size::Bytes(1_500_000)),
            (text("75%"), Size::Percent(75)),
            (text("0%"), Size::Percent(0)),
            (text("100 %"), Size::Percent(100)),
            (Value::Integer(4_096), Size::Bytes(4_096)),
        ] {
            assert_eq!(size(&value), Ok(size_), "{value}");
        }
        for bad in ["101%", "-1%", "8G", "GiB", "", "8", "99999999999TiB"] {
            assert!(size(&text(bad)).is_err(), "{bad}");
        }
        assert_eq!((Size::Bytes(7).to_string(), Size::Percent(7).to_string()), ("7".into(), "\"7%\"".into()));
        assert_eq!((Size::Percent(40).of(1_000), Size::Bytes(7).of(1_000)), (400, 7));
    }

    #[test]
    fn versions_of_other_relays_are_not_mistakes() {
        let names = |names: &[&str]| Value::Array(names.iter().map(|name| text(name)).collect());
        let both =
            versions(&names(&["moq-lite-05", "moq-transport-16", "moqt-18", "moq-lite-06-wip"])).unwrap();
        assert_eq!(both.spoken, [Version::from_alpn("moq-lite-05").unwrap()]);
        assert_eq!(both.unspoken, ["moq-transport-16", "moqt-18", "moq-lite-06-wip"]);
        let oldest = versions(&names(&["moql", "moq-lite-02", "moq-lite-01"])).unwrap();
        assert_eq!((oldest.spoken, oldest.unspoken), (vec![Version::ANY_LEGACY], vec![]));
        for bad in ["moq-transport-16", "moq-transport-23", "moq-transport-", "moqt-256", "moq-lite-5", ""] {
            assert!(versions(&text(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_prefix_may_be_written_as_a_pattern() {
        let parse = |raw: &str| prefixes(&text(raw)).map(|patterns| patterns[0].to_string());
        for (raw, pattern) in [
            ("anon", "anon/**"),
            ("anon/**", "anon/**"),
            ("**", "**"),
            ("/", "**"),
            ("", "**"),
            ("a/b/**", "a/b/**"),
            ("rooms/*/chat", "rooms/*/chat"),
            ("**/cam", "**/cam"),
        ] {
            assert_eq!(parse(raw).unwrap(), pattern, "{raw}");
        }
        for bad in ["a**", "a//*", "*a*", "a/**/b/**"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        assert!(prefixes(&Value::Array(vec![text(""), text("anon")])).unwrap_err().0.contains("keep one"));
        assert_eq!(prefixes(&Value::Array(Vec::new())), Ok(Vec::new()), "nobody");
    }

    #[test]
    fn a_list_holds_its_limit_and_one_past_is_refused() {
        let of = |count| Value::Array(vec![text("a"); count]);
        assert_eq!(files(&of(LIST)).unwrap().len(), LIST);
        assert!(files(&of(LIST + 1)).unwrap_err().0.contains("at most 1000"));
        assert!(files(&of(0)).is_err() && files(&text("")).is_err() && names(&Value::Integer(1)).is_err());
    }

    #[test]
    fn a_host_is_a_name_an_address_or_a_wildcard() {
        let long = format!("{}.example", "a".repeat(63));
        for good in
            ["localhost", "relay.example.com", "*.example.com", "10.0.0.1", "::1", "xn--bcher-kva.de", &long]
        {
            assert_eq!(names(&text(good)), Ok(vec![good.to_owned()]));
        }
        let long = format!("{}.example", "a".repeat(64));
        for bad in ["a b", "a..b", ".", "*", "a.*.b", "https://x", "x:443", &long, &"a.".repeat(127)] {
            assert!(names(&text(bad)).is_err(), "{bad}");
        }
        assert!(names(&text("bücher.de")).unwrap_err().0.contains("xn--"));
    }

    #[test]
    fn a_linger_holds_its_limit_and_one_past_is_refused() {
        assert_eq!(linger(&text("10m")), Ok(LONGEST_LINGER));
        assert!(linger(&text("600001ms")).is_err());
        assert_eq!(linger(&Value::Integer(0)), Ok(Duration::ZERO));
    }

    #[test]
    fn a_level_is_a_name() {
        assert_eq!(level(&text("DEBUG")), Ok(LevelFilter::DEBUG));
        assert_eq!(level(&text("off")), Ok(LevelFilter::OFF));
        for bad in ["3", "", "verbose", "moq_relay=trace"] {
            assert!(level(&text(bad)).is_err(), "{bad}");
        }
    }
}
