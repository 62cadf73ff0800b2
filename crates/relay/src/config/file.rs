//! A file becomes a [`Config`], or an error that says where.

use std::{
    ops::Range,
    path::{Path as FilePath, PathBuf},
};

use relay_model::Path;
use serde::Deserialize;
use toml::{Spanned, Value, de::DeTable};

use super::{Cache, Config, Error, Position, Problem, Tls, value};

/// Keys a file may hold, dotted.
pub(super) const KEYS: [&str; 11] = [
    "auth.public",
    "auth.takeover",
    "cache.capacity",
    "cache.duration",
    "cache.headroom",
    "drain_timeout",
    "server.bind",
    "server.hop",
    "server.version",
    "tls.cert",
    "tls.key",
];
/// Keys that restrict who may connect and that nothing here enforces: running on would be running open.
const UNENFORCED: [&str; 4] = ["auth.api", "auth.key", "auth.key_dir", "auth.url"];

/// Checks `text`, the content of `file`.
pub(super) fn parse(file: &FilePath, text: &str) -> Result<Config, Error> {
    Source { file, text }.config()
}

/// The file as written; every field is checked again before it is used.
#[derive(Deserialize, Default)]
#[serde(default)]
struct Raw {
    server: RawServer,
    tls: RawTls,
    auth: RawAuth,
    cache: RawCache,
    drain_timeout: Option<Spanned<Value>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawServer {
    bind: Option<Spanned<String>>,
    version: Option<Spanned<Value>>,
    hop: Option<Spanned<Value>>,
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
    takeover: Option<Spanned<String>>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct RawCache {
    capacity: Option<Spanned<Value>>,
    headroom: Option<Spanned<Value>>,
    duration: Option<Spanned<Value>>,
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
        let Raw { server, tls, auth, cache, drain_timeout } = raw;
        let default = Config::open_to(Path::root());
        Ok(Config {
            bind: self.read("server.bind", server.bind, value::address)?.unwrap_or(default.bind),
            tls: self.tls(tls)?,
            versions: self
                .read("server.version", server.version, value::versions)?
                .unwrap_or(default.versions),
            hop: self.read("server.hop", server.hop, value::hop)?,
            cache: self.cache(cache)?,
            takeover: self.read("auth.takeover", auth.takeover, value::takeover)?.unwrap_or(default.takeover),
            drain_timeout: self
                .read("drain_timeout", drain_timeout, value::duration)?
                .unwrap_or(default.drain_timeout),
            public: self.public(auth.public)?,
            ..default
        })
    }

    fn cache(&self, raw: RawCache) -> Result<Cache, Error> {
        let default = Cache::default();
        Ok(Cache {
            capacity: self.read("cache.capacity", raw.capacity, value::size)?.unwrap_or(default.capacity),
            headroom: self.read("cache.headroom", raw.headroom, value::size)?.unwrap_or(default.headroom),
            duration: self.read("cache.duration", raw.duration, value::duration)?.unwrap_or(default.duration),
        })
    }

    /// What `parse` makes of the value of `key`, if there is one.
    fn read<V, T>(
        &self,
        key: &str,
        value: Option<Spanned<V>>,
        parse: impl Fn(&V) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let parsed = value.map(|value| {
            parse(value.get_ref())
                .map_err(|what| self.refuse(value.span(), Problem::Value { key: key.to_owned(), what }))
        });
        parsed.transpose()
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

    fn public(&self, public: Option<Spanned<String>>) -> Result<Path, Error> {
        let parse = |text: &String| Path::parse(text).map_err(|error| error.to_string());
        let nobody = || Error::Incomplete { file: self.file.into(), problem: Problem::NobodyAllowed };
        self.read("auth.public", public, parse)?.ok_or_else(nobody)
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
        _ => format!("the keys are {}", known_keys()),
    }
}

/// All keys, as a sentence lists them.
pub(super) fn known_keys() -> String {
    KEYS.map(|known| format!("`{known}`")).join(", ")
}

fn position(text: &str, offset: usize) -> Position {
    let before = text.get(..offset).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    Position {
        line: 1 + before.matches('\n').count(),
        column: 1 + before.get(line_start..).unwrap_or_default().chars().count(),
    }
}
