//! Command-line arguments that several verbs share.

use std::{path::PathBuf, time::Duration};

use clap::Args;
use relay_client::lite::Version;

/// Address of the relay, and connection options.
#[derive(Clone, Debug, Args)]
pub struct ConnectArgs {
    /// The relay: https://HOST:PORT/PATH (WebTransport), moqt://HOST:PORT/PATH (raw QUIC), wss:// or
    /// ws://HOST:PORT/PATH (WebSocket), tcp://HOST:PORT/PATH or unix:///FILE:/PATH. A token goes along as
    /// ?jwt=TOKEN and is never shown
    #[arg(value_name = "URL")]
    pub url: String,

    #[command(flatten)]
    pub(crate) how: HowArgs,
}

/// Connection options, without an address.
#[derive(Clone, Debug, Args)]
pub struct HowArgs {
    /// Protocol version to speak; without it, the best for the verb that the relay speaks too
    #[arg(long, value_name = "NAME", value_parser = version, help_heading = "Connection")]
    pub(crate) protocol: Option<Version>,

    /// Believe any certificate
    #[arg(long, conflicts_with_all = ["fingerprint", "root"], help_heading = "Connection")]
    pub(crate) insecure: bool,

    /// Believe only the certificate with this SHA-256 fingerprint (may be given several times)
    #[arg(long, value_name = "HEX", value_parser = fingerprint, conflicts_with = "root", help_heading = "Connection")]
    pub(crate) fingerprint: Vec<CertFingerprint>,

    /// Believe what the certificates in this PEM file signed, instead of the system's (may be given several times)
    #[arg(long, value_name = "FILE", help_heading = "Connection")]
    pub(crate) root: Vec<PathBuf>,

    /// Time limit for connecting
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "10s", help_heading = "Connection")]
    pub(crate) timeout: Duration,
}

/// SHA-256 fingerprint of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CertFingerprint(pub(crate) [u8; 32]);

/// Broadcast and track, as positional arguments or flags.
#[derive(Clone, Debug, Args)]
pub struct TrackArgs {
    /// The same as the first BROADCAST
    #[arg(long = "broadcast", short = 'b', value_name = "BROADCAST", hide = true)]
    pub(crate) broadcast: Option<String>,

    /// The same as TRACK
    #[arg(long = "track", short = 't', value_name = "TRACK", hide = true)]
    pub(crate) track: Option<String>,
}

/// Range of frames in a group: `A..B` excludes B, `A..=B` includes it, and either may be left open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// First frame.
    pub(crate) first: u64,
    /// Last frame; `None` = to the end of the group.
    pub(crate) last: Option<u64>,
}

/// Parses a duration: `500ms`, `5s`, `2m`, `1h`, or seconds.
///
/// # Errors
/// The expected form, if `text` is not a duration.
pub fn duration(text: &str) -> Result<Duration, String> {
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let wrong = || "expected a time such as 500ms, 5s or 2m".to_owned();
    let number: f64 = number.parse().map_err(|_| wrong())?;
    let seconds = match unit {
        "ms" => number / 1_000.0,
        "" | "s" => number,
        "m" | "min" => number * 60.0,
        "h" => number * 3_600.0,
        _ => return Err(wrong()),
    };
    Duration::try_from_secs_f64(seconds).map_err(|_| wrong())
}

/// Parses a version name such as `moq-lite-06`.
pub(crate) fn version(name: &str) -> Result<Version, String> {
    Version::from_alpn(name).ok_or_else(|| {
        let known: Vec<_> = Version::ALL.iter().map(|version| version.alpn()).collect();
        format!("expected one of {}", known.join(", "))
    })
}

/// Parses 64 hexadecimal digits, with or without colons.
fn fingerprint(text: &str) -> Result<CertFingerprint, String> {
    let wrong = || "expected the 64 hexadecimal digits of a SHA-256".to_owned();
    let digits: Vec<u8> = text
        .chars()
        .filter(|c| *c != ':')
        .map(|c| c.to_digit(16).map(|digit| digit as u8))
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let bytes: Vec<u8> =
        digits.chunks_exact(2).map(|pair| pair.iter().fold(0, |byte, digit| byte << 4 | digit)).collect();
    match <[u8; 32]>::try_from(bytes) {
        Ok(bytes) if digits.len() == 64 => Ok(CertFingerprint(bytes)),
        _ => Err(wrong()),
    }
}

pub(crate) fn span(text: &str) -> Result<Span, String> {
    let wrong = || "expected frames such as 0..10 (10 left out), 0..=9 or 5..".to_owned();
    let number = |text: &str| text.parse::<u64>().map_err(|_| wrong());
    let (first, rest) = match text.split_once("..") {
        Some(parts) => parts,
        None => return number(text).map(|only| Span { first: only, last: Some(only) }),
    };
    let first = if first.is_empty() { 0 } else { number(first)? };
    let last = match rest.strip_prefix('=') {
        Some(last) => Some(number(last)?),
        None if rest.is_empty() => None,
        None => Some(number(rest)?.checked_sub(1).ok_or_else(|| "the range contains no frame".to_owned())?),
    };
    match last {
        Some(last) if last < first => Err("the range contains no frame".to_owned()),
        _ => Ok(Span { first, last }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_units() {
        assert_eq!(duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(duration("1.5"), Ok(Duration::from_millis(1_500)));
        assert_eq!(duration("2m"), Ok(Duration::from_secs(120)));
        for bad in ["", "s", "5 s", "-1s", "5y", "1e999"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn spans_are_half_open_unless_they_say_otherwise() {
        assert_eq!(span("2..5"), Ok(Span { first: 2, last: Some(4) }));
        assert_eq!(span("2..=5"), Ok(Span { first: 2, last: Some(5) }));
        assert_eq!(span("2.."), Ok(Span { first: 2, last: None }));
        assert_eq!(span("..5"), Ok(Span { first: 0, last: Some(4) }));
        assert_eq!(span("7"), Ok(Span { first: 7, last: Some(7) }));
        for bad in ["", "a..b", "5..5", "..0", "5..2", "1..2..3"] {
            assert!(span(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn fingerprints_are_read_as_tools_print_them() {
        let hex = "0123456789abcdef".repeat(4);
        let colons = hex.as_bytes().chunks(2).map(String::from_utf8_lossy).collect::<Vec<_>>().join(":");
        assert_eq!(fingerprint(&hex), fingerprint(&colons.to_uppercase()));
        assert_eq!(fingerprint(&hex).unwrap().0[..2], [0x01, 0x23]);
        for bad in ["", "zz", &hex[1..], &format!("{hex}00")] {
            assert!(fingerprint(bad).is_err(), "{bad}");
        }
    }
}
