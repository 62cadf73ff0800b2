//! Resolution of all layers into one configuration.

use std::{
    env,
    path::{Path as FilePath, PathBuf},
};

use relay_model::{Pattern, Scope};
use toml::Value;

use super::{
    Cache, CertFiles, Config, ConfigLoadError, Credentials, InvalidValue, KeyDir, LocatedProblem, Place,
    Problem, Setting, Source, Tls,
    file::{self, Given},
    hint, rules, show,
    table::{self, KeySupport},
    value,
};

/// Variable that names the configuration file.
const CONFIG: &str = "MOQ_CONFIG";

/// Settings outside of the file.
#[derive(Clone, Debug, Default)]
pub struct SettingOverrides {
    /// Values of flags, by their key.
    pub flags: Vec<(&'static str, Vec<String>)>,
    /// Environment variables, including unrelated ones.
    pub variables: Vec<(String, String)>,
}

/// Result of resolving all layers.
#[derive(Debug)]
pub struct Resolution {
    /// The configuration without the refused values.
    pub config: Config,
    /// Every value in use, with its source.
    pub settings: Vec<Setting>,
    /// Problems; if empty, a relay may run with it.
    pub refusals: Vec<LocatedProblem>,
    /// Warnings.
    pub warnings: Vec<Warning>,
}

/// A warning and its place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Warning {
    /// Place it refers to.
    pub place: Place,
    /// Text of the warning.
    pub text: String,
}

impl SettingOverrides {
    /// Adds the `MOQ_` variables of this process to `flags`.
    pub fn with_environment(flags: Vec<(&'static str, Vec<String>)>) -> Self {
        let ours = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            let name = name.into_string().ok().filter(|name| name.starts_with("MOQ_"))?;
            // A variable filled from a secret file often ends with a newline.
            Some((name, value.to_string_lossy().trim().to_owned()))
        };
        let mut variables: Vec<_> = env::vars_os().filter_map(ours).collect();
        variables.sort();
        Self { flags, variables }
    }

    /// The configuration file that the environment of this process names.
    pub fn file() -> Option<PathBuf> {
        let named = env::var_os(CONFIG)?;
        let named = named.to_str().map_or(named.clone(), |text| text.trim().into());
        (!named.is_empty()).then(|| named.into())
    }
}

impl Resolution {
    /// Returns the configuration if it has no problems.
    ///
    /// # Errors
    /// All problems.
    pub fn into_config(self) -> Result<Config, ConfigLoadError> {
        if self.refusals.is_empty() { Ok(self.config) } else { Err(ConfigLoadError::Refused(self.refusals)) }
    }

    /// Source of the value of `key`.
    pub fn source(&self, key: &str) -> &Source {
        let found = self.settings.iter().find(|setting| setting.key == key);
        found.map_or(&Source::Default, |setting| &setting.source)
    }
}

/// Resolves the layers: `file` with its text, overridden by `outside`.
pub(super) fn resolve(file: Option<(&FilePath, &str)>, outside: &SettingOverrides) -> Resolution {
    let content = file.map(|(_, text)| file::read(text));
    let is_toml = content.as_ref().is_none_or(|content| content.is_toml);
    let mut layers = Layers { file: file.map(|(file, _)| file), ..Layers::default() };
    layers.apply_overrides(outside);
    for (at, problem) in content.as_ref().map(|content| content.problems.clone()).unwrap_or_default() {
        let place = Place::File(layers.file.unwrap_or(FilePath::new("")).into(), Some(at));
        layers.refusals.push(LocatedProblem { place, problem });
    }
    layers.given.extend(content.map(|content| content.given).unwrap_or_default());
    layers.report_ineffective();
    let mut config = if file.is_some() { Config::closed() } else { Config::development() };
    (config.web.http, config.web.https) = (None, None);
    layers.fill(&mut config);
    if is_toml {
        layers.check(&mut config);
    }
    layers.refusals.sort_by_key(order);
    layers.warnings.sort_by_key(|warning| warning.place.position());
    let settings = show::settings(&config, &layers.sources);
    Resolution { config, settings, refusals: layers.refusals, warnings: layers.warnings }
}

/// Sort key of a refusal: its position.
fn order(refusal: &LocatedProblem) -> (bool, Option<super::Position>) {
    let at = refusal.place.position();
    (at.is_none(), at)
}

impl<T> Sourced<T> {
    /// Spelling and source.
    fn origin(&self) -> (String, Source) {
        (self.spelled.clone(), self.source.clone())
    }
}

/// A value with its source.
#[derive(Clone, Debug)]
pub(super) struct Sourced<T> {
    pub(super) value: T,
    pub(super) source: Source,
    /// The key as spelled at the source.
    pub(super) spelled: String,
}

/// Given values, strongest layer first, with the problems found.
#[derive(Default)]
pub(super) struct Layers<'a> {
    pub(super) file: Option<&'a FilePath>,
    given: Vec<Given>,
    pub(super) sources: Vec<(&'static str, Source)>,
    pub(super) refusals: Vec<LocatedProblem>,
    pub(super) warnings: Vec<Warning>,
}

impl Layers<'_> {
    fn apply_overrides(&mut self, outside: &SettingOverrides) {
        for (key, texts) in &outside.flags {
            let Some(entry) = table::find(key) else { continue };
            let flag = entry.names().flag();
            let value = entry.kind.of_text(&texts.join(","));
            let source = Source::Flag(flag.clone());
            self.given.push(Given { entry, spelled: flag, value, source, key_at: None });
        }
        for (entry, names) in table::named() {
            for name in &names.variables {
                let Some((_, text)) = outside.variables.iter().find(|(given, _)| given == name) else {
                    continue;
                };
                if text.is_empty() {
                    continue;
                }
                let source = Source::Variable(name.clone());
                let value = entry.kind.of_text(text);
                self.given.push(Given { entry, spelled: name.clone(), value, source, key_at: None });
            }
        }
        for (name, text) in &outside.variables {
            let is_known = name == CONFIG || table::named().any(|(_, names)| names.variables.contains(name));
            if is_known && text.is_empty() {
                let text = "this variable is empty and counts as not set".to_owned();
                self.warnings.push(Warning { place: Place::Named(name.clone()), text });
            }
            if let Some(near) = hint::variable(name).filter(|_| !is_known) {
                let text = format!("unknown variable; did you mean {near}?");
                self.warnings.push(Warning { place: Place::Named(name.clone()), text });
            }
        }
    }

    /// Reports the given keys that are refused or have no effect.
    fn report_ineffective(&mut self) {
        for given in self.given.clone() {
            let (key, asks) = (given.spelled.clone(), !asks_for_nothing(&given.value));
            match given.entry.status {
                KeySupport::Refused(instead) if asks => {
                    self.refuse(&given.source, given.key_at, Problem::Refused { key, instead });
                }
                KeySupport::Idle(why) if asks => {
                    let text = format!("`{key}` has no effect: {why}");
                    let place = self.place(&given.source, given.key_at);
                    self.warnings.push(Warning { place, text });
                }
                KeySupport::Used(_) | KeySupport::Refused(_) | KeySupport::Idle(_) => {}
            }
        }
    }

    pub(super) fn place(&self, source: &Source, at: Option<super::Position>) -> Place {
        match (source, self.file) {
            (Source::Flag(name) | Source::Variable(name), _) => Place::Named(name.clone()),
            (Source::File { at: value, .. }, Some(file)) => {
                Place::File(file.into(), Some(at.unwrap_or(*value)))
            }
            (Source::Default, Some(file)) => Place::File(file.into(), None),
            (_, None) => Place::Nowhere,
        }
    }

    pub(super) fn refuse(&mut self, source: &Source, at: Option<super::Position>, problem: Problem) {
        let place = self.place(source, at);
        self.refusals.push(LocatedProblem { place, problem });
    }

    pub(super) fn warn(&mut self, source: &Source, text: String) {
        let place = self.place(source, None);
        self.warnings.push(Warning { place, text });
    }

    /// Returns the strongest value of `key`, if any; checks all of them.
    pub(super) fn get<T: Clone + PartialEq>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value) -> Result<T, InvalidValue>,
    ) -> Option<Sourced<T>> {
        let mut found: Vec<Sourced<T>> = Vec::new();
        let given: Vec<Given> = self.given.iter().filter(|given| given.entry.key == key).cloned().collect();
        for Given { spelled, value, source, .. } in given {
            match parse(&value) {
                Ok(value) => {
                    let same = found.iter().find(|one| one.source.rank() == source.rank());
                    if let Some(other) = same.filter(|one| one.value != value) {
                        let at = if matches!(other.source, Source::File { .. }) { " at " } else { "" };
                        let at = if at.is_empty() { String::new() } else { format!("{at}{}", other.source) };
                        let other = format!("`{}`{at}", other.spelled);
                        self.refuse(&source, None, Problem::Contradiction { key: spelled.clone(), other });
                    }
                    found.push(Sourced { value, source, spelled });
                }
                Err(InvalidValue(what)) if matches!(source, Source::File { .. }) => {
                    self.refuse(&source, None, Problem::Value { key: spelled, what });
                }
                Err(InvalidValue(what)) => self.refuse(&source, None, Problem::Outside(what)),
            }
        }
        found.sort_by_key(|one| one.source.rank());
        let first = found.into_iter().next()?;
        self.sources.push((key, first.source.clone()));
        Some(first)
    }

    pub(super) fn set<T: Clone + PartialEq>(
        &mut self,
        key: &'static str,
        parse: impl Fn(&Value) -> Result<T, InvalidValue>,
        into: &mut T,
    ) {
        if let Some(sourced) = self.get(key, parse) {
            *into = sourced.value;
        }
    }

    fn fill(&mut self, config: &mut Config) {
        self.set("server.bind", value::address, &mut config.bind);
        if let Some(versions) = self.get("server.version", value::versions) {
            config.quic.versions = versions.value.spoken;
            if !versions.value.unspoken.is_empty() {
                let text = format!("not supported, and not offered: {}", versions.value.unspoken.join(", "));
                self.warn(&versions.source, text);
            }
        }
        self.set("server.hop", |value| value::hop(value).map(Some), &mut config.hop);
        self.tls(config);
        self.web(config);
        self.access(config);
        self.set("auth.takeover", value::takeover, &mut config.takeover);
        let Cache { capacity, headroom, duration } = &mut config.cache;
        self.set("cache.capacity", value::size, capacity);
        self.set("cache.headroom", value::size, headroom);
        self.set("cache.duration", value::duration, duration);
        self.set("limits.memory", value::size, &mut config.state);
        self.set("cluster.linger", value::linger, &mut config.linger);
        let limits = &mut config.limits;
        self.set("limits.announces", value::count, &mut limits.announces);
        self.set("limits.subscriptions", value::count, &mut limits.subscriptions);
        self.set("limits.fetches", value::count, &mut limits.fetches);
        self.set("limits.requests", value::requests, &mut limits.requests);
        self.set("drain_timeout", value::duration, &mut config.drain_timeout);
        self.set("runtime.workers", |value| value::workers(value).map(Some), &mut config.workers);
        let quic = &mut config.quic;
        self.set("quic.congestion_control", value::congestion, &mut quic.congestion);
        self.set("quic.idle_timeout", value::idle, &mut quic.idle);
        // Half of the idle timeout, so that one lost ping does not close the connection.
        quic.keep_alive = quic.keep_alive.map(|interval| interval.min(quic.idle / 2));
        self.set("quic.keep_alive", value::keep_alive, &mut quic.keep_alive);
        self.set("quic.gso", value::switch, &mut quic.segmentation);
        self.set("quic.max_streams", |value| value::streams(value).map(Some), &mut quic.max_streams);
        self.set("quic.initial_mtu", value::mtu, &mut quic.initial_mtu);
        self.set("quic.max_mtu", value::mtu, &mut quic.max_mtu);
        self.set("quic.mtu_discovery", value::switch, &mut quic.mtu_discovery);
        self.set("log.level", |value| value::level(value).map(Some), &mut config.log.level);
        self.set("log.format", |value| value::format(value).map(Some), &mut config.log.format);
    }

    fn tls(&mut self, config: &mut Config) {
        let certs = self.get("tls.cert", value::files);
        let keys = self.get("tls.key", value::files);
        let generate = self.get("tls.generate", value::names);
        rules::certificates(self, certs.as_ref(), keys.as_ref(), generate.as_ref());
        if let (Some(certs), Some(keys)) = (certs, keys) {
            let pairs = certs.value.into_iter().zip(keys.value).map(|(cert, key)| CertFiles { cert, key });
            config.tls = Tls::Files(pairs.collect());
        } else if let Some(generate) = generate {
            config.tls = Tls::Generated(generate.value);
        }
        self.set("tls.root", value::files, &mut config.client_roots);
    }

    /// Resolves permissions: a key for one direction takes precedence over one for both, unless the latter is from a
    /// stronger layer.
    fn access(&mut self, config: &mut Config) {
        self.credentials(config);
        let both = self.get("auth.public", value::prefixes);
        let publish = self.get("auth.public.publish", value::prefixes);
        let subscribe = self.get("auth.public.subscribe", value::prefixes);
        if both.is_none() && publish.is_none() && subscribe.is_none() {
            return;
        }
        config.publish = self.direction("auth.public.publish", both.as_ref(), publish.as_ref());
        config.subscribe = self.direction("auth.public.subscribe", both.as_ref(), subscribe.as_ref());
    }

    /// Resolves the credentials. Only one kind is allowed: each of several would admit clients that another rejects.
    fn credentials(&mut self, config: &mut Config) {
        let key = self.get("auth.key", value::files);
        let dir = self.get("auth.key_dir", value::key_dir);
        let jwks = self.get("auth.jwks", value::url);
        let server = self.get("auth.url", value::url);
        let api = self.get("auth.api", value::url);
        let given = [
            key.as_ref().map(Sourced::origin),
            dir.as_ref().map(Sourced::origin),
            jwks.as_ref().map(Sourced::origin),
            server.as_ref().map(Sourced::origin),
            api.as_ref().map(Sourced::origin),
        ];
        let mut given = given.into_iter().flatten();
        if let (Some((first, _)), Some((second, source))) = (given.next(), given.next()) {
            let what =
                format!("`{first}` and `{second}` both decide which credentials are accepted; keep one");
            self.refuse(&source, None, Problem::Together(what));
        }
        self.set("auth.plain", value::networks, &mut config.auth.plain);
        for url in [&jwks, &server, &api].into_iter().flatten() {
            rules::plain(self, url, &url.value, &config.auth.plain);
        }
        if let Some(Sourced { value: KeyDir::Remote(url), .. }) = &dir
            && let Some(said) = &dir
        {
            rules::plain(self, said, url, &config.auth.plain);
        }
        let decides = server.as_ref().map(Sourced::origin).or_else(|| api.as_ref().map(Sourced::origin));
        config.auth.credentials = match (server, api, jwks, dir, key) {
            (Some(url), ..) => Credentials::Server(url.value),
            (_, Some(url), ..) => Credentials::Api(url.value),
            (_, _, Some(url), ..) => Credentials::Jwks(url.value),
            (_, _, _, Some(dir), _) => Credentials::Dir(dir.value),
            (.., Some(key)) => Credentials::Files(key.value),
            _ => Credentials::None,
        };
        self.set("auth.audience", value::expected, &mut config.auth.expected.audience);
        self.set("auth.issuer", value::expected, &mut config.auth.expected.issuer);
        rules::expected(self, &config.auth);
        self.set("auth.refresh", value::refresh, &mut config.auth.refresh);
        self.set("auth.domains", value::names, &mut config.auth.domains);
        self.set("auth.tls.root", value::files, &mut config.auth.tls.roots);
        self.set("auth.tls.disable_verify", value::switch, &mut config.auth.tls.disable_verify);
        let (cert, key) = (self.get("auth.tls.cert", value::file), self.get("auth.tls.key", value::file));
        rules::pair(self, cert.as_ref(), key.as_ref());
        config.auth.tls.identity = cert.zip(key).map(|(cert, key)| (cert.value, key.value));
        let public = ["auth.public", "auth.public.publish", "auth.public.subscribe"];
        if let (Some((decides, _)), Some(source)) = (decides, public.iter().find_map(|key| self.given(key))) {
            let what = format!(
                "`auth.public` beside `{decides}`: that server decides about every session; keep one"
            );
            self.refuse(&source, None, Problem::Together(what));
        }
    }

    fn direction(
        &mut self,
        key: &'static str,
        both: Option<&Sourced<Vec<Pattern>>>,
        one: Option<&Sourced<Vec<Pattern>>>,
    ) -> Scope {
        let chosen = match (both, one) {
            (Some(both), Some(one)) if both.source.rank() == one.source.rank() => {
                let what =
                    format!("`{}` and `{}` both set the public paths; keep one", both.spelled, one.spelled);
                self.refuse(&one.source, None, Problem::Together(what));
                both
            }
            (Some(both), Some(one)) if both.source.rank() < one.source.rank() => both,
            (_, Some(one)) => one,
            (Some(both), None) => both,
            (None, None) => return Scope::nothing(),
        };
        self.sources.retain(|(known, _)| *known != key);
        self.sources.push((key, chosen.source.clone()));
        chosen.value.iter().cloned().collect()
    }

    fn check(&mut self, config: &mut Config) {
        rules::together(self, config);
        let others = config.auth.credentials != Credentials::None || !config.client_roots.is_empty();
        let nobody = config.publish.is_empty() && config.subscribe.is_empty() && !others;
        // A missing rule is reported only once all given values are valid.
        if nobody && self.refusals.is_empty() {
            self.refuse(&Source::Default, None, Problem::NobodyAllowed);
        }
    }

    /// Source of the value of `key`.
    pub(super) fn source(&self, key: &str) -> Source {
        let found = self.sources.iter().find(|(known, _)| *known == key);
        found.map_or(Source::Default, |(_, source)| source.clone())
    }

    /// Source of the first given value of a key, in use or not.
    pub(super) fn given(&self, key: &str) -> Option<Source> {
        self.given.iter().find(|given| given.entry.key == key).map(|given| given.source.clone())
    }
}

/// Whether a value is a switch that is off, or empty.
fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Boolean(on) => !on,
        Value::String(text) => text.is_empty(),
        Value::Array(values) => values.is_empty(),
        _ => false,
    }
}
