//! Kinds of configuration values.

use toml::Value;

use super::{InvalidValue, value};

/// Kind of a configuration value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// `IP:PORT`.
    Address,
    /// One protocol version or several.
    Versions,
    /// A hop id.
    Hop,
    /// One file or several.
    Files,
    /// One file.
    File,
    /// A folder of keys, or their URL.
    KeyDir,
    /// An HTTP URL.
    Url,
    /// Public URL of the relay.
    PublicUrl,
    /// One text or several.
    Texts,
    /// One host name or several.
    Names,
    /// One origin of web pages or several.
    Origins,
    /// One network or several.
    Networks,
    /// One network of proxies or several.
    Proxies,
    /// Header in which proxies name their clients.
    ProxyHeader,
    /// One number or several.
    Ids,
    /// One path prefix or several.
    Prefixes,
    /// Rule for taking over a live path.
    Takeover,
    /// An amount of memory.
    Size,
    /// A duration.
    Duration,
    /// Time for which the path of a lost publisher is kept.
    Linger,
    /// A number of threads.
    Workers,
    /// A congestion controller.
    Congestion,
    /// An idle timeout.
    Idle,
    /// A keep-alive interval; zero disables it.
    KeepAlive,
    /// A boolean.
    Switch,
    /// A number of streams.
    Streams,
    /// The size of a datagram.
    Mtu,
    /// A count limit of one session.
    Count,
    /// A rate limit of one session, requests per second.
    Requests,
    /// A log level.
    Level,
    /// A log format.
    Format,
    /// Not checked.
    Any,
    /// Not checked; a boolean in other relays.
    AnySwitch,
}

impl Kind {
    /// Description of the value for the documentation.
    pub fn written(self) -> &'static str {
        match self {
            Self::Address => "`\"IP:PORT\"`",
            Self::Versions => "name, or list of them",
            Self::Hop | Self::Workers | Self::Streams | Self::Mtu | Self::Count | Self::Requests => "number",
            Self::Files => "file, or list of them",
            Self::File => "file",
            Self::KeyDir => "folder or URL",
            Self::Url | Self::PublicUrl => "URL",
            Self::Texts => "text, or list of them",
            Self::Names => "host name, or list of them",
            Self::Origins => "origin, or list of them",
            Self::Networks => "network, or list of them",
            Self::Proxies => "network or `{ net, header }`, or list of them",
            Self::Ids => "number, or list of them",
            Self::Prefixes => "path, or list of them",
            Self::Takeover | Self::Congestion | Self::Level | Self::Format | Self::ProxyHeader => "name",
            Self::Size => "`\"8GiB\"`, `\"75%\"`, or bytes",
            Self::Duration | Self::Linger | Self::Idle | Self::KeepAlive => "`\"10s\"`, `\"2m\"`, or seconds",
            Self::Switch => "`true` or `false`",
            Self::Any | Self::AnySwitch => "",
        }
    }

    /// Placeholder of the value in the help.
    pub fn placeholder(self) -> &'static str {
        match self {
            Self::Address => "IP:PORT",
            Self::Versions => "VERSION",
            Self::Hop | Self::Workers | Self::Streams | Self::Count | Self::Requests => "N",
            Self::Mtu => "BYTES",
            Self::Files | Self::File => "FILE",
            Self::KeyDir => "FOLDER|URL",
            Self::Url | Self::PublicUrl => "URL",
            Self::Texts => "TEXT",
            Self::Names => "NAME",
            Self::Origins => "ORIGIN",
            Self::Networks | Self::Proxies => "NETWORK",
            Self::Ids => "N",
            Self::Prefixes => "PATH",
            Self::Takeover => "WHO",
            Self::Size => "SIZE",
            Self::Duration | Self::Linger | Self::Idle | Self::KeepAlive => "TIME",
            Self::Congestion | Self::ProxyHeader => "NAME",
            Self::Switch | Self::AnySwitch => "BOOL",
            Self::Level => "LEVEL",
            Self::Format => "FORMAT",
            Self::Any => "VALUE",
        }
    }

    /// Whether several values may be given.
    pub fn is_list(self) -> bool {
        matches!(
            self,
            Self::Versions
                | Self::Files
                | Self::Texts
                | Self::Names
                | Self::Origins
                | Self::Networks
                | Self::Proxies
                | Self::Ids
                | Self::Prefixes
        )
    }

    /// Converts the text of a flag or variable into a TOML value.
    pub fn of_text(self, text: &str) -> Value {
        let string = |text: &str| Value::String(text.to_owned());
        if self.is_list() {
            return Value::Array(text.split(',').map(|part| string(part.trim())).collect());
        }
        match self {
            Self::File | Self::KeyDir | Self::Url | Self::PublicUrl => string(text),
            Self::Address | Self::Takeover | Self::Congestion | Self::Level | Self::Format => string(text),
            Self::ProxyHeader => string(text),
            _ => {
                let number = || text.parse().ok().map(Value::Integer);
                let fraction = || text.parse().ok().filter(|it: &f64| it.is_finite()).map(Value::Float);
                let switch = || text.parse().ok().map(Value::Boolean);
                number().or_else(fraction).or_else(switch).unwrap_or_else(|| string(text))
            }
        }
    }

    /// Whether `value` is of this kind.
    ///
    /// # Errors
    /// A description of the expected value.
    pub fn check(self, value: &Value) -> Result<(), InvalidValue> {
        match self {
            Self::Address => value::address(value).map(drop),
            Self::Versions => value::versions(value).map(drop),
            Self::Hop => value::hop(value).map(drop),
            Self::Files => value::files(value).map(drop),
            Self::File => value::file(value).map(drop),
            Self::KeyDir => value::key_dir(value).map(drop),
            Self::Url => value::url(value).map(drop),
            Self::PublicUrl => value::public_url(value).map(drop),
            Self::Texts => value::expected(value).map(drop),
            Self::Names => value::names(value).map(drop),
            Self::Origins => value::origins(value).map(drop),
            Self::Networks => value::networks(value).map(drop),
            Self::Proxies => value::proxies(value).map(drop),
            Self::ProxyHeader => value::proxy_header(value).map(drop),
            Self::Ids => value::ids::<u32>(value).map(drop),
            Self::Prefixes => value::prefixes(value).map(drop),
            Self::Takeover => value::takeover(value).map(drop),
            Self::Size => value::size(value).map(drop),
            Self::Duration => value::duration(value).map(drop),
            Self::Linger => value::linger(value).map(drop),
            Self::Workers => value::workers(value).map(drop),
            Self::Congestion => value::congestion(value).map(drop),
            Self::Idle => value::idle(value).map(drop),
            Self::KeepAlive => value::keep_alive(value).map(drop),
            Self::Switch => value::switch(value).map(drop),
            Self::Streams => value::streams(value).map(drop),
            Self::Mtu => value::mtu(value).map(drop),
            Self::Count => value::count(value).map(drop),
            Self::Requests => value::requests(value).map(drop),
            Self::Level => value::level(value).map(drop),
            Self::Format => value::format(value).map(drop),
            Self::Any | Self::AnySwitch => Ok(()),
        }
    }
}
