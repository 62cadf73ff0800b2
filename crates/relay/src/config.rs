//! What the relay is told to do: flags, environment and a TOML file become one [`Config`].
//!
//! A file is checked before it is believed: a key nobody reads, a value of the wrong kind and an
//! option that is not enforced are all refused with the place they stand at.

use std::{
    fmt, fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    ops::Range,
    path::{Path as FilePath, PathBuf},
};

use relay_model::Path;
use serde::Deserialize;
use toml::{Spanned, de::DeTable};

/// Where a relay without a file listens: loopback, over IPv4 because every client can reach it.
pub const DEVELOPMENT_BIND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
/// Where a relay with a file listens unless the file says otherwise: all interfaces.
pub const DEFAULT_BIND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT);
/// The port MoQ relays are found at in development.
pub const DEFAULT_PORT: u16 = 4443;

/// Keys a file may hold, dotted.
const KEYS: [&str; 4] = ["auth.public", "server.bind", "tls.cert", "tls.key"];
/// Keys that restrict who may connect and that nothing here enforces: running on would be running open.
const UNENFORCED: [&str; 4] = ["auth.api", "auth.key", "auth.key_dir", "auth.url"];

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// UDP address to listen on.
    pub bind: SocketAddr,
    /// Where the certificate comes from.
    pub tls: Tls,
    /// Prefix that anybody may publish and subscribe below; the root is everything.
    pub public: Path,
    /// Whether a file was read; without one this is a development relay.
    pub from_file: bool,
}

/// Where the certificate comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Made at start, self-signed, for development.
    Generated,
    /// Read from two PEM files.
    Files {
        /// The certificate chain, leaf first.
        cert: PathBuf,
        /// Its private key.
        key: PathBuf,
    },
}

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {}: {source}", file.display())]
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// Something in the file is wrong.
    #[error("{}:{at}: {problem}", file.display())]
    Refused {
        /// The file.
        file: PathBuf,
        /// Where in it.
        at: Position,
        /// What is wrong.
        problem: Problem,
    },
    /// The file lacks something.
    #[error("{}: {problem}", file.display())]
    Incomplete {
        /// The file.
        file: PathBuf,
        /// What is missing.
        problem: Problem,
    },
}

/// What is wrong with a file.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Problem {
    /// Not TOML.
    #[error("{0}")]
    Syntax(String),
    /// A key nobody reads.
    #[error("unknown key `{key}`; {hint}")]
    UnknownKey {
        /// The key, dotted.
        key: String,
        /// What may have been meant.
        hint: String,
    },
    /// A known key with a value that makes no sense.
    #[error("`{key}`: {what}")]
    Value {
        /// The key, dotted.
        key: String,
        /// What was expected.
        what: String,
    },
    /// A key that restricts access and is not enforced.
    #[error(
        "`{0}` asks for token authentication, which is not enforced yet: \
         the relay refuses to start rather than run open; remove the key, or use `auth.public` alone"
    )]
    Unenforced(String),
    /// One of `tls.cert` and `tls.key` without the other.
    #[error("`{present}` needs `{missing}` beside it")]
    HalfTls {
        /// The key that is there.
        present: &'static str,
        /// The key that is not.
        missing: &'static str,
    },
    /// No rule says who may connect.
    #[error(
        "nobody may connect: set `auth.public` to the prefix that is open to all, \
         or to \"\" to open everything"
    )]
    NobodyAllowed,
}

/// A place in a file, both counted from 1; the column counts characters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line.
    pub line: usize,
    /// Column.
    pub column: usize,
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

impl Config {
    /// A relay for one's own machine: loopback, a generated certificate, everything open.
    pub fn development() -> Self {
        Self { bind: DEVELOPMENT_BIND, tls: Tls::Generated, public: Path::root(), from_file: false }
    }

    /// Reads and checks `file`.
    pub fn load(file: &FilePath) -> Result<Self, Error> {
        let text = fs::read_to_string(file)
            .map_err(|source| Error::Unreadable { file: file.to_path_buf(), source })?;
        Self::parse(file, &text)
    }

    /// Checks `text`, the content of `file`.
    pub fn parse(file: &FilePath, text: &str) -> Result<Self, Error> {
        Source { file, text }.config()
    }
}

/// The file as written; every field is checked again before it is used.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Raw {
    server: RawServer,
    tls: RawTls,
    auth: RawAuth,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawServer {
    bind: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawTls {
    cert: Option<Spanned<PathBuf>>,
    key: Option<Spanned<PathBuf>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawAuth {
    public: Option<Spanned<String>>,
}

/// A file being checked; knows how to name a place in it.
struct Source<'a> {
    file: &'a FilePath,
    text: &'a str,
}

impl Source<'_> {
    fn config(&self) -> Result<Config, Error> {
        let table = DeTable::parse(self.text).map_err(|e| self.syntax(&e))?;
        self.check_keys(table.get_ref())?;
        let raw: Raw = toml::from_str(self.text).map_err(|e| self.wrong_kind(table.get_ref(), &e))?;
        Ok(Config {
            bind: raw.server.bind.map_or(Ok(DEFAULT_BIND), |bind| self.bind(&bind))?,
            tls: self.tls(raw.tls)?,
            public: self.public(raw.auth)?,
            from_file: true,
        })
    }

    fn bind(&self, text: &Spanned<String>) -> Result<SocketAddr, Error> {
        text.get_ref().parse().map_err(|_| {
            let what = format!(
                "{:?} is no address; write IP:PORT, as in \"[::]:4443\" or \"127.0.0.1:4443\"",
                text.get_ref()
            );
            self.refuse(text.span(), Problem::Value { key: "server.bind".into(), what })
        })
    }

    fn tls(&self, raw: RawTls) -> Result<Tls, Error> {
        let half =
            |at: Range<usize>, present, missing| Err(self.refuse(at, Problem::HalfTls { present, missing }));
        match (raw.cert, raw.key) {
            (None, None) => Ok(Tls::Generated),
            (Some(cert), Some(key)) => Ok(Tls::Files { cert: cert.into_inner(), key: key.into_inner() }),
            (Some(cert), None) => half(cert.span(), "tls.cert", "tls.key"),
            (None, Some(key)) => half(key.span(), "tls.key", "tls.cert"),
        }
    }

    fn public(&self, raw: RawAuth) -> Result<Path, Error> {
        let Some(public) = raw.public else {
            return Err(Error::Incomplete { file: self.file.into(), problem: Problem::NobodyAllowed });
        };
        Path::parse(public.get_ref()).map_err(|e| {
            self.refuse(public.span(), Problem::Value { key: "auth.public".into(), what: e.to_string() })
        })
    }

    /// Refuses keys that would be ignored: first those whose neglect would open the relay, then by place.
    fn check_keys(&self, table: &DeTable<'_>) -> Result<(), Error> {
        let mut found = Vec::new();
        collect_problems("", table, &mut found);
        found.sort_by_key(|(at, problem)| (!matches!(problem, Problem::Unenforced(_)), at.start));
        match found.into_iter().next() {
            Some((at, problem)) => Err(self.refuse(at, problem)),
            None => Ok(()),
        }
    }

    fn syntax(&self, error: &toml::de::Error) -> Error {
        self.refuse(error.span().unwrap_or(0..0), Problem::Syntax(error.message().to_owned()))
    }

    fn wrong_kind(&self, table: &DeTable<'_>, error: &toml::de::Error) -> Error {
        let span = error.span().unwrap_or(0..0);
        let what = error.message().to_owned();
        match key_at("", table, span.start) {
            Some(key) => self.refuse(span, Problem::Value { key, what }),
            None => self.refuse(span, Problem::Syntax(what)),
        }
    }

    fn refuse(&self, at: Range<usize>, problem: Problem) -> Error {
        Error::Refused { file: self.file.into(), at: position(self.text, at.start), problem }
    }
}

/// Notes every key of `table` (standing at `prefix`) that must not be there, with its place.
fn collect_problems(prefix: &str, table: &DeTable<'_>, found: &mut Vec<(Range<usize>, Problem)>) {
    for (name, value) in table {
        let key = dotted(prefix, name.get_ref());
        let below = format!("{key}.");
        if UNENFORCED.contains(&key.as_str()) {
            found.push((name.span(), Problem::Unenforced(key)));
        } else if KEYS.contains(&key.as_str()) {
            // A leaf; its kind is checked when it is deserialized.
        } else if KEYS.iter().any(|known| known.starts_with(&below)) {
            if let Some(inner) = value.get_ref().as_table() {
                collect_problems(&key, inner, found);
            }
        } else {
            let hint = hint(&key);
            found.push((name.span(), Problem::UnknownKey { key, hint }));
        }
    }
}

/// The dotted key whose value stands at `offset`.
fn key_at(prefix: &str, table: &DeTable<'_>, offset: usize) -> Option<String> {
    table.iter().find_map(|(name, value)| {
        let key = dotted(prefix, name.get_ref());
        let inner = value.get_ref().as_table().and_then(|inner| key_at(&key, inner, offset));
        inner.or_else(|| value.span().contains(&offset).then_some(key))
    })
}

fn dotted(prefix: &str, name: &str) -> String {
    if prefix.is_empty() { name.to_owned() } else { format!("{prefix}.{name}") }
}

/// The known key that looks most like `key`, also when only its section is wrong or missing;
/// all of them when none does.
fn hint(key: &str) -> String {
    let last = |dotted: &str| dotted.rsplit('.').next().unwrap_or_default().to_owned();
    let distance = |known: &str| {
        let whole = strsim::damerau_levenshtein(key, known);
        let section = known.split('.').next().unwrap_or_default();
        // One more than the distance of the part, so that a match of the whole wins.
        let leaf = strsim::damerau_levenshtein(&last(key), &last(known)) + 1;
        let table = strsim::damerau_levenshtein(key, section) + 1;
        whole.min(leaf).min(table)
    };
    let nearest = KEYS.iter().map(|known| (distance(known), known)).min();
    match nearest {
        Some((distance, known)) if distance <= 1 + last(key).chars().count() / 3 => {
            format!("did you mean `{known}`?")
        }
        _ => format!("the keys are {}", KEYS.map(|known| format!("`{known}`")).join(", ")),
    }
}

fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: 1 + before.matches('\n').count(),
        column: 1 + before.get(line_start..).unwrap_or_default().chars().count(),
    }
}

#[cfg(test)]
mod tests;
