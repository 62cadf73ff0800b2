//! The verb `token`: generates keys, and signs, verifies and shows tokens, without a relay.

mod generate;
mod read;
mod show;
mod sign;
mod verify;

use std::{
    io::{self, Write},
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::Result;
use clap::Subcommand;
use relay_auth::Expected;
use relay_model::{Path, Pattern};

use crate::{Exit, Failure};

pub use generate::GenerateArgs;
pub use show::TokenReport;
pub use sign::SignArgs;
pub use verify::{InspectArgs, VerifyArgs};

/// Last section of each help text.
const EXIT_CODES: &str = "\
Exit codes:
    0  all was well; a token that was verified holds
    1  a token does not hold, or a file cannot be read or written
    2  the command line is invalid";

/// Actions on keys and tokens.
#[derive(Clone, Debug, Subcommand)]
pub enum TokenVerb {
    /// Makes a key
    ///
    /// The key is written as a JSON Web Key, which deployed tools read too. Only its owner may read the file
    /// (mode 0600). No file is ever overwritten. Without --out or --out-dir the key goes to standard output.
    ///
    /// With HS256, HS384 and HS512 there is one secret: anybody who can verify can also sign. With all others a
    /// relay needs only the public half.
    Generate(GenerateArgs),

    /// Signs a token
    ///
    /// A path stands for itself and all below it; "" is all below the root. With `*` in it, it is a pattern:
    /// `*` is one segment, `**` any number of them.
    Sign(SignArgs),

    /// Verifies a token, and shows what it grants or everything that is wrong with it
    Verify(VerifyArgs),

    /// Shows the content of a token without verifying it
    Inspect(InspectArgs),
}

/// Runs an action. A token that was verified and is not valid ends with [`Exit::Failed`].
///
/// # Errors
/// The arguments contradict each other, or a file cannot be read or written.
pub fn run(verb: &TokenVerb) -> Result<Exit, Failure> {
    let now = SystemTime::now();
    let done = match verb {
        TokenVerb::Generate(args) => generate::run(args).map(|()| true),
        TokenVerb::Sign(args) => sign::run(args, now).map(|()| true),
        TokenVerb::Verify(args) => verify::run(args, now),
        TokenVerb::Inspect(args) => verify::inspect(args, now),
    };
    match done {
        Ok(true) => Ok(Exit::Done),
        Ok(false) => Ok(Exit::Failed),
        Err(error) => {
            let exit = if error.is::<Misuse>() { Exit::Usage } else { Exit::Failed };
            Err(Failure::new(exit, format!("{error:#}")))
        }
    }
}

/// Usage error in the combination of arguments.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Misuse(String);

/// Describes a token. `text` is the token, a URL with one, or `-` for standard input. Without keys it is
/// not verified.
///
/// # Errors
/// Standard input or a key file cannot be read, or a file has no usable key.
pub fn about(text: &str, keys: &[PathBuf], expected: &Expected, now: SystemTime) -> Result<TokenReport> {
    let token = if text == "-" { read::token_in(text.as_ref())? } else { read::token(text) };
    if keys.is_empty() {
        return Ok(verify::decode(&token, None, now));
    }
    Ok(verify::judge(&token, &verify::keys(keys, None, &token)?, expected, None, now))
}

/// Argument that cannot be parsed; describes the expected one.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct ArgumentError(String);

/// Parses a path or pattern of a command line.
fn grant(text: &str) -> Result<Pattern, ArgumentError> {
    if text.split('/').any(|segment| matches!(segment, "." | "..")) || text.contains(char::is_control) {
        return Err(ArgumentError("no path has a segment `.` or `..`, or a control character".to_owned()));
    }
    if text.contains('*') {
        return Pattern::parse(text.trim_matches('/')).map_err(|error| ArgumentError(error.to_string()));
    }
    Path::parse(text).map(Pattern::subtree).map_err(|error| ArgumentError(error.to_string()))
}

/// Parses a path of a command line.
fn path(text: &str) -> Result<Path, ArgumentError> {
    grant(text)?.as_subtree().cloned().ok_or_else(|| ArgumentError("a path has no `*`".to_owned()))
}

/// Smallest plain number accepted as a Unix time; a smaller one is most likely meant as a duration.
const UNIX_TIMES: u64 = 1_000_000_000;

/// A time of a command line: relative to now, or a Unix time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    Unix(u64),
    In(Duration),
}

impl When {
    fn parse(text: &str) -> Result<Self, ArgumentError> {
        let wrong = || {
            ArgumentError(
                "expected a time from now such as 90s, 15m, 12h or 30d, or a unix time in seconds".to_owned(),
            )
        };
        let split = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
        let (number, unit) = text.split_at(split);
        let number: u64 = number.parse().map_err(|_| wrong())?;
        let seconds = match unit {
            "" if (UNIX_TIMES..=i64::MAX as u64).contains(&number) => return Ok(Self::Unix(number)),
            "s" => Some(number),
            "m" | "min" => number.checked_mul(60),
            "h" => number.checked_mul(3_600),
            "d" => number.checked_mul(86_400),
            _ => None,
        };
        seconds.map(Duration::from_secs).map(Self::In).ok_or_else(wrong)
    }

    fn at(self, now: SystemTime) -> Result<SystemTime> {
        let at = match self {
            Self::Unix(seconds) => SystemTime::UNIX_EPOCH.checked_add(Duration::from_secs(seconds)),
            Self::In(length) => now.checked_add(length),
        };
        at.ok_or_else(|| anyhow::anyhow!("that time is too far away"))
    }
}

/// Prints to standard output; a closed pipe is no error.
fn print(text: &str) -> Result<()> {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_from_now_or_since_1970() {
        for (text, expected) in [
            ("90s", Some(When::In(Duration::from_secs(90)))),
            ("15m", Some(When::In(Duration::from_secs(900)))),
            ("12h", Some(When::In(Duration::from_secs(43_200)))),
            ("30d", Some(When::In(Duration::from_secs(2_592_000)))),
            ("4102444800", Some(When::Unix(4_102_444_800))),
            ("3600", None),
            ("9223372036854775808", None),
            ("999999999999999999d", None),
            ("-5m", None),
            ("1.5h", None),
            ("h", None),
            ("", None),
        ] {
            assert_eq!(When::parse(text).ok(), expected, "{text}");
        }
    }

    #[test]
    fn path_includes_its_subtree_and_star_makes_a_pattern() {
        let shown = |text| grant(text).map(|pattern| pattern.to_string()).ok();
        assert_eq!(shown("room/alice").as_deref(), Some("room/alice/**"));
        assert_eq!(shown("").as_deref(), Some("**"));
        assert_eq!(shown("/room//alice/").as_deref(), Some("room/alice/**"));
        assert_eq!(shown("room/*/cam").as_deref(), Some("room/*/cam"));
        assert_eq!((shown("a/../b"), shown("a**"), shown("a\nb")), (None, None, None));
        assert!(path("a/*").is_err() && path("a").is_ok());
    }
}
