//! Values in use, in the notation of the file.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use relay_http::ProxyHeader;
use relay_model::{Path, Pattern, Scope};
use relay_worker::{Congestion, Takeover};
use toml::Value;

use super::{Auth, CertFiles, Config, Credentials, Format, KeyDir, Setting, Source, Tls, Web, table};

/// Every setting in use, in the order of the table.
pub(super) fn settings(config: &Config, sources: &[(&'static str, Source)]) -> Vec<Setting> {
    let used = table::entries().filter(|entry| entry.is_used());
    used.map(|entry| {
        let found = sources.iter().find(|(key, _)| *key == entry.key);
        let source = found.map_or(Source::Default, |(_, source)| source.clone());
        let value = shown(config, entry.key, &source).unwrap_or_default();
        Setting { key: entry.key, value, source }
    })
    .collect()
}

fn shown(config: &Config, key: &str, source: &Source) -> Option<String> {
    let quic = &config.quic;
    Some(match key {
        "server.bind" => text(config.bind),
        "server.version" => list(quic.versions.iter().map(|version| version.alpn().to_owned())),
        "server.hop" => config.hop.map_or_else(|| "random".to_owned(), |hop| hop.0.to_string()),
        "tls.cert" | "tls.key" | "tls.generate" | "tls.root" => tls(config, key, source),
        "auth.public" => match (source, config.publish == config.subscribe) {
            (Source::Default, _) if config.from_file => "none".to_owned(),
            (_, true) => scope(&config.publish),
            (_, false) => "see below".to_owned(),
        },
        "auth.public.subscribe" => scope(&config.subscribe),
        "auth.public.publish" => scope(&config.publish),
        "auth.takeover" => text(match config.takeover {
            Takeover::Identity => "identity",
            Takeover::Any => "any",
        }),
        "cache.capacity" => config.cache.capacity.to_string(),
        "cache.headroom" => config.cache.headroom.to_string(),
        "cache.duration" => span(config.cache.duration),
        "limits.memory" => config.state.to_string(),
        "cluster.linger" => span(config.linger),
        "limits.announces" => config.limits.announces.to_string(),
        "limits.subscriptions" => config.limits.subscriptions.to_string(),
        "limits.fetches" => config.limits.fetches.to_string(),
        "limits.requests" => config.limits.requests.to_string(),
        "drain_timeout" => span(config.drain_timeout),
        "runtime.workers" => {
            config.workers.map_or_else(|| "one a core".to_owned(), |count| count.to_string())
        }
        "quic.congestion_control" => text(match quic.congestion {
            Congestion::Cubic => "cubic",
            Congestion::Bbr => "bbr",
            Congestion::NewReno => "newreno",
        }),
        "quic.idle_timeout" => span(quic.idle),
        "quic.keep_alive" => span(quic.keep_alive.unwrap_or_default()),
        "quic.gso" => quic.segmentation.to_string(),
        "quic.max_streams" => {
            quic.max_streams.map_or_else(|| "2048 and 1024".to_owned(), |most| most.to_string())
        }
        "quic.initial_mtu" => quic.initial_mtu.to_string(),
        "quic.max_mtu" => quic.max_mtu.to_string(),
        "quic.mtu_discovery" => quic.mtu_discovery.to_string(),
        key if key.starts_with("auth.") => auth(&config.auth, key)?,
        "web.origins" if config.web.origins.is_empty() && !config.from_file => {
            "pages of this machine".to_owned()
        }
        "web.hosts" if config.web.hosts.is_empty() && !config.from_file => {
            "addresses and localhost".to_owned()
        }
        key if key.starts_with("web.") || key.starts_with("internal.") => web(&config.web, key)?,
        key if key.starts_with("server.tcp") || key.starts_with("server.unix") || key == "listen.tcp.tls" => {
            web(&config.web, key)?
        }
        "log.level" => {
            config.log.level.map_or_else(|| text("info"), |level| text(level.to_string().to_lowercase()))
        }
        "log.format" => text(match config.log.format.unwrap_or_default() {
            Format::Text => "text",
            Format::Json => "json",
        }),
        _ => return None,
    })
}

fn auth(auth: &Auth, key: &str) -> Option<String> {
    Some(match key {
        "auth.key" | "auth.key_dir" | "auth.jwks" | "auth.url" | "auth.api" => {
            credentials(&auth.credentials, key)
        }
        "auth.refresh" => span(auth.refresh),
        "auth.audience" if auth.expected.audience.is_empty() => "none".to_owned(),
        "auth.audience" => list(auth.expected.audience.iter().cloned()),
        "auth.issuer" if auth.expected.issuer.is_empty() => "any".to_owned(),
        "auth.issuer" => list(auth.expected.issuer.iter().cloned()),
        "auth.plain" if auth.plain.is_empty() => "this machine".to_owned(),
        "auth.plain" => list(auth.plain.iter().map(ToString::to_string)),
        "auth.domains" if auth.domains.is_empty() => "none".to_owned(),
        "auth.domains" => list(auth.domains.iter().cloned()),
        "auth.tls.root" if auth.tls.roots.is_empty() => "the system's".to_owned(),
        "auth.tls.root" => files(&auth.tls.roots),
        "auth.tls.cert" => {
            auth.tls.identity.as_ref().map_or_else(|| "none".to_owned(), |(cert, _)| files([cert]))
        }
        "auth.tls.key" => {
            auth.tls.identity.as_ref().map_or_else(|| "none".to_owned(), |(_, key)| files([key]))
        }
        "auth.tls.disable_verify" => auth.tls.disable_verify.to_string(),
        _ => return None,
    })
}

fn tls(config: &Config, key: &str, source: &Source) -> String {
    match (&config.tls, key) {
        (Tls::Files(pairs), "tls.cert") => files(pairs.iter().map(|pair| &pair.cert)),
        (Tls::Files(pairs), "tls.key") => files(pairs.iter().map(|pair| &pair.key)),
        (Tls::Generated(names), "tls.generate") if *source != Source::Default => list(names.iter().cloned()),
        (_, "tls.root") if !config.client_roots.is_empty() => files(&config.client_roots),
        _ => "none".to_owned(),
    }
}

fn web(web: &Web, key: &str) -> Option<String> {
    let address = |address: Option<SocketAddr>| address.map_or_else(|| "none".to_owned(), text);
    let several = |all: Vec<String>, none: &str| if all.is_empty() { none.to_owned() } else { list(all) };
    let pairs = |pick: fn(&CertFiles) -> &PathBuf, none: &str| match web.certificates.as_slice() {
        [] => none.to_owned(),
        pairs => files(pairs.iter().map(pick)),
    };
    let ids = |ids: &[u32]| several(ids.iter().map(ToString::to_string).collect(), "everybody");
    Some(match key {
        "web.http.listen" => address(web.http),
        "web.https.listen" => address(web.https),
        "web.https.cert" => pairs(|pair| &pair.cert, "as for QUIC"),
        "web.https.key" => pairs(|pair| &pair.key, "as for QUIC"),
        "web.https.root" if web.roots.is_empty() => "none".to_owned(),
        "web.https.root" => files(&web.roots),
        "web.ws" => web.websocket.to_string(),
        "web.page" => web.page.to_string(),
        "web.url" => web.url.clone().unwrap_or_else(|| "as derived".to_owned()),
        "web.origins" => several(web.origins.iter().map(ToString::to_string).collect(), "everybody"),
        "web.hosts" => several(web.hosts.clone(), "everybody"),
        "web.proxy" if web.proxies.is_empty() => "none".to_owned(),
        "web.proxy" => {
            let shown: Vec<String> = web.proxies.iter().map(ToString::to_string).collect();
            format!("[{}]", shown.join(", "))
        }
        "web.proxy_header" => text(web.proxy_header.unwrap_or(ProxyHeader::XForwardedFor).name()),
        "internal.listen" => address(web.internal),
        "server.tcp.bind" => address(web.tcp),
        "listen.tcp.tls" => web.tcp_tls.to_string(),
        "server.unix.bind" => web.unix.as_ref().map_or_else(|| "none".to_owned(), |path| files([path])),
        "server.unix.allow.uid" => ids(&web.unix_allow.uids),
        "server.unix.allow.gid" => ids(&web.unix_allow.gids),
        "server.unix.allow.pid" => {
            several(web.unix_allow.pids.iter().map(ToString::to_string).collect(), "everybody")
        }
        _ => return None,
    })
}

/// Shows credentials, URLs without their secret parts.
fn credentials(credentials: &Credentials, key: &str) -> String {
    match (credentials, key) {
        (Credentials::Files(keys), "auth.key") => files(keys),
        (Credentials::Dir(KeyDir::Local(folder)), "auth.key_dir") => text(folder.display()),
        (Credentials::Dir(KeyDir::Remote(url)), "auth.key_dir")
        | (Credentials::Jwks(url), "auth.jwks")
        | (Credentials::Server(url), "auth.url")
        | (Credentials::Api(url), "auth.api") => text(redacted(url)),
        _ => "none".to_owned(),
    }
}

/// Scheme, host and path of a URL; query and password may be secret.
pub fn redacted(url: &url::Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    // Both can only fail for URLs without a host.
    let _ = url.set_password(None);
    let _ = url.set_username("");
    url.to_string()
}

/// One file, or a list of them.
fn files<'a>(files: impl IntoIterator<Item = &'a PathBuf>) -> String {
    let mut files: Vec<String> = files.into_iter().map(|file| file.display().to_string()).collect();
    match files.pop() {
        Some(only) if files.is_empty() => text(only),
        last => list(files.into_iter().chain(last)),
    }
}

fn text(value: impl ToString) -> String {
    Value::String(value.to_string()).to_string()
}

fn list(values: impl IntoIterator<Item = String>) -> String {
    Value::Array(values.into_iter().map(Value::String).collect()).to_string()
}

fn scope(scope: &Scope) -> String {
    let shown = |pattern: &Pattern| pattern.as_subtree().map_or_else(|| pattern.to_string(), Path::to_string);
    match scope.patterns() {
        [one] => text(shown(one)),
        patterns => list(patterns.iter().map(shown)),
    }
}

/// A duration, in the notation of the file.
fn span(span: Duration) -> String {
    text(format!("{span:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_setting_in_use_can_be_shown() {
        for setting in settings(&Config::development(), &[]) {
            assert!(!setting.value.is_empty(), "{}", setting.key);
        }
    }
}
