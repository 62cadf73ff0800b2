//! Table of all configuration keys, from which the parser, the hints, the command line, `check` and
//! `docs/configuration.md` are generated.

mod supported;
mod unsupported;

use std::sync::LazyLock;

pub use super::kind::Kind;

/// A configuration key.
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    /// The key, dotted. One that ends in `.*` stands for all below it.
    pub key: &'static str,
    /// Other spellings of it in a file: those of deployed relays.
    pub spellings: &'static [&'static str],
    /// Additional names of flag and variable, beside those derived from the key and its spellings; the first is the
    /// one shown.
    pub short: &'static [&'static str],
    /// Kind of its values.
    pub kind: Kind,
    /// Support of the key.
    pub status: KeySupport,
    /// Description for operators.
    pub meaning: &'static str,
}

/// Support of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeySupport {
    /// Supported. Holds the default, in the notation of the file.
    Used(&'static str),
    /// Accepted with a warning, without effect. Holds the cause.
    Idle(&'static str),
    /// Refused, as ignoring it would run a relay other than the intended one. Holds the cause and the remedy.
    Refused(&'static str),
}

/// Names of a key outside of a file.
#[derive(Debug, Default)]
pub struct Names {
    /// Flags, without dashes; the first is shown.
    pub flags: Vec<String>,
    /// Environment variables; the first is shown.
    pub variables: Vec<String>,
}

/// All entries, supported ones first.
pub fn entries() -> impl Iterator<Item = &'static Entry> {
    supported::ENTRIES.iter().chain(unsupported::ENTRIES)
}

/// All entries that can be given on the command line or in the environment, with their names there.
pub fn named() -> impl Iterator<Item = (&'static Entry, &'static Names)> {
    static NAMES: LazyLock<Vec<Names>> = LazyLock::new(|| entries().map(Names::of).collect());
    entries().zip(NAMES.iter()).filter(|(entry, _)| !entry.is_section())
}

/// Finds the entry of which `key` is a spelling.
pub(super) fn find(key: &str) -> Option<&'static Entry> {
    entries().find(|entry| entry.all_spellings().any(|spelling| spelling == key)).or_else(|| {
        let covers = |entry: &&Entry| entry.key.strip_suffix('*').is_some_and(|stem| key.starts_with(stem));
        entries().find(covers)
    })
}

/// Whether there are keys below `key`.
pub(super) fn is_section(key: &str) -> bool {
    let below = |spelling: &str| {
        spelling.strip_prefix(key).is_some_and(|rest| rest.starts_with('.') && rest.len() > 1)
    };
    entries().any(|entry| entry.all_spellings().any(below))
}

impl Entry {
    /// The key and its other spellings.
    pub fn all_spellings(&self) -> impl Iterator<Item = &'static str> {
        std::iter::once(self.key).chain(self.spellings.iter().copied())
    }

    /// Whether the key is supported.
    pub fn is_used(&self) -> bool {
        matches!(self.status, KeySupport::Used(_))
    }

    fn is_section(&self) -> bool {
        self.key.ends_with(".*")
    }

    /// Its names on the command line and in the environment.
    pub fn names(&self) -> &'static Names {
        static NONE: Names = Names { flags: Vec::new(), variables: Vec::new() };
        named().find(|(entry, _)| entry.key == self.key).map_or(&NONE, |(_, names)| names)
    }
}

impl Names {
    /// Derives the names from the key: `server.hop` gives `--server-hop` and `MOQ_SERVER_HOP`.
    fn of(entry: &Entry) -> Self {
        let mut flags: Vec<String> = Vec::new();
        let made = entry.all_spellings().map(|key| key.replace(['.', '_'], "-"));
        for flag in entry.short.iter().map(|&short| short.to_owned()).chain(made) {
            if !flags.contains(&flag) {
                flags.push(flag);
            }
        }
        let variable = |flag: &String| format!("MOQ_{}", flag.replace('-', "_").to_uppercase());
        Self { variables: flags.iter().map(variable).collect(), flags }
    }

    /// The flag that is shown, with its dashes.
    pub fn flag(&self) -> String {
        self.flags.first().map_or_else(String::new, |flag| format!("--{flag}"))
    }

    /// The variable that is shown.
    pub fn variable(&self) -> &str {
        self.variables.first().map_or("", String::as_str)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_spelling_flag_or_variable_means_two_things() {
        let mut seen = HashSet::new();
        for entry in entries() {
            for spelling in entry.all_spellings() {
                assert!(seen.insert(spelling.to_owned()), "{spelling} stands twice");
            }
        }
        let mut seen = HashSet::from(["config".to_owned(), "MOQ_CONFIG".to_owned()]);
        for (entry, names) in named() {
            for name in names.flags.iter().chain(&names.variables) {
                assert!(seen.insert(name.clone()), "{name} of {} stands twice", entry.key);
            }
        }
    }

    #[test]
    fn names_are_made_from_the_key() {
        let names = find("server.hop").unwrap().names();
        assert_eq!((names.flag().as_str(), names.variable()), ("--server-hop", "MOQ_SERVER_HOP"));
        let names = find("listen.bind").unwrap().names();
        assert_eq!((names.flag().as_str(), names.variable()), ("--bind", "MOQ_BIND"));
        for deployed in ["MOQ_SERVER_BIND", "MOQ_LISTEN", "MOQ_SERVER_LISTEN"] {
            assert!(names.variables.iter().any(|name| name == deployed), "{deployed}");
        }
    }

    #[test]
    fn a_section_is_known_by_what_lies_below_it() {
        assert!(is_section("server") && is_section("server.tls") && is_section("auth.public"));
        assert!(!is_section("server.bind") && !is_section("serve") && !is_section("drain_timeout"));
    }

    #[test]
    fn the_value_said_to_be_the_default_is_one_that_may_be_written() {
        for entry in entries() {
            let KeySupport::Used(default) = entry.status else { continue };
            if let Ok(value) = toml::from_str::<toml::Table>(&format!("value = {default}")) {
                entry.kind.check(&value["value"]).unwrap_or_else(|error| panic!("{}: {error}", entry.key));
            }
        }
    }
}
