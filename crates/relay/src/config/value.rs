//! What single values mean. Errors say what was expected, for the person who wrote them.

use std::{net::SocketAddr, time::Duration};

use relay_model::Hop;
use relay_worker::{Takeover, Version};
use toml::Value;

/// Longer spans are a mistake, and would not fit a clock.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3_600);
/// JavaScript peers keep hops as floating-point numbers.
const LARGEST_HOP: u64 = (1 << 53) - 1;
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
    /// So many bytes.
    Bytes(u64),
    /// So many hundredths of what may be used.
    Percent(u8),
}

impl Size {
    /// Bytes, where `available` may be used.
    pub fn of(self, available: u64) -> u64 {
        match self {
            Self::Bytes(bytes) => bytes,
            Self::Percent(percent) => available / 100 * u64::from(percent),
        }
    }
}

/// `IP:PORT`.
pub(super) fn address(text: &String) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| {
        format!("{text:?} is no address; write IP:PORT, as in \"[::]:4443\" or \"127.0.0.1:4443\"")
    })
}

/// A text with a unit, or a number of seconds.
pub(super) fn duration(value: &Value) -> Result<Duration, String> {
    let millis = match value {
        Value::String(text) => with_unit(text, &TIMES),
        Value::Integer(seconds) => {
            u64::try_from(*seconds).ok().and_then(|seconds| seconds.checked_mul(1_000))
        }
        Value::Float(seconds) => scaled(*seconds, 1_000),
        _ => None,
    };
    millis.map(Duration::from_millis).filter(|duration| *duration <= LONGEST).ok_or_else(|| {
        format!("{value} is no duration; write \"10s\", \"500ms\" or \"2m\", or a number of seconds")
    })
}

/// A text with a unit, a share of the memory, or a number of bytes.
pub(super) fn size(value: &Value) -> Result<Size, String> {
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
        format!("{value} is no size; write \"8GiB\", \"500MB\" or \"75%\", or a number of bytes")
    })
}

/// One name or a list of them.
pub(super) fn versions(value: &Value) -> Result<Vec<Version>, String> {
    let names = match value {
        Value::Array(names) => names.as_slice(),
        name => std::slice::from_ref(name),
    };
    let known =
        || Version::ALL.iter().map(|version| format!("{:?}", version.alpn())).collect::<Vec<_>>().join(", ");
    if names.is_empty() {
        return Err(format!("name at least one version: {}", known()));
    }
    let named = |name: &Value| {
        let version = name.as_str().and_then(Version::from_alpn);
        version.ok_or_else(|| format!("{name} is no version we speak; the versions are {}", known()))
    };
    names.iter().map(named).collect()
}

/// A number other relays know this one by.
pub(super) fn hop(value: &Value) -> Result<Hop, String> {
    let hop = value.as_integer().and_then(|hop| u64::try_from(hop).ok());
    hop.filter(|hop| (1..=LARGEST_HOP).contains(hop))
        .map(Hop)
        .ok_or_else(|| format!("{value} is no hop; write a number from 1 to {LARGEST_HOP}"))
}

/// Who may take a path over.
pub(super) fn takeover(text: &String) -> Result<Takeover, String> {
    match text.as_str() {
        "identity" => Ok(Takeover::Identity),
        "any" => Ok(Takeover::Any),
        _ => Err(format!("{text:?} is not known; write \"identity\" or \"any\"")),
    }
}

/// A number that is not negative, followed by one of `units`, in whatever case.
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
        assert_eq!((Size::Percent(40).of(1_000), Size::Bytes(7).of(1_000)), (400, 7));
    }
}
