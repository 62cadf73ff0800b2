//! Configuration: flags, environment variables and a TOML file are resolved into one [`Config`].
//!
//! Flags take precedence over the environment, the environment over the file, the file over defaults; [`table`]
//! describes each key. All layers are checked, including values that a stronger layer overrides: unknown keys, values
//! of the wrong kind and options that cannot be enforced are all reported together, with their positions.

pub mod account;
mod diagnostic;
mod file;
mod hint;
mod kind;
pub mod listeners;
mod problem;
mod resolve;
mod rules;
mod show;
mod source;
pub mod table;
mod value;
mod web;

use std::{
    fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use relay_auth::Expected;
use relay_http::Network;
use relay_model::{
    Hop, Scope,
    limits::{self, SessionLimits},
};
use relay_worker::{QuicTuning, Takeover};
use tracing::level_filters::LevelFilter;
use url::Url;

pub use diagnostic::Diagnostic;
pub use problem::{ConfigLoadError, InvalidValue, LocatedProblem, Problem};
pub use resolve::{Resolution, SettingOverrides, Warning};
pub use rules::may_be_plain;
pub use show::redacted;
pub use source::{Place, Position, Setting, Source};
pub use value::Size;
pub use web::Web;

/// Address of a relay without a file: loopback over IPv4, which every client can reach.
pub const DEVELOPMENT_BIND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
/// Default address of a relay with a file: all interfaces.
pub const DEFAULT_BIND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT);
/// Default name of a generated certificate.
pub const DEVELOPMENT_NAME: &str = "localhost";
/// Port of MoQ relays by convention in development.
pub const DEFAULT_PORT: u16 = 4443;

/// Default of [`Config::drain_timeout`].
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest configuration file that is read, bytes.
pub const FILE_BYTES: u64 = 1024 * 1024;

/// Byte order mark of Unicode.
const MARK: char = '\u{feff}';

/// Settings of a relay.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// UDP address to listen on.
    pub bind: SocketAddr,
    /// Source of the certificates.
    pub tls: Tls,
    /// Files of client authorities; if empty, clients are not asked for a certificate.
    pub client_roots: Vec<PathBuf>,
    /// Paths where anonymous clients may publish.
    pub publish: Scope,
    /// Paths where anonymous clients may subscribe.
    pub subscribe: Scope,
    /// Authorization of other clients.
    pub auth: Auth,
    /// The relay's own hop id; random if `None`.
    pub hop: Option<Hop>,
    /// Limits of the group cache.
    pub cache: Cache,
    /// Memory of sessions beside the cache; above three quarters of it the largest sessions are closed.
    pub state: Size,
    /// Clients that may take over a path with a live publisher.
    pub takeover: Takeover,
    /// Time for which a publisher that disconnected without closing keeps its path.
    pub linger: Duration,
    /// Limits of each session other than those of relays of the same cluster.
    pub limits: SessionLimits,
    /// Time sessions have to move away when the relay shuts down.
    pub drain_timeout: Duration,
    /// Worker threads; `None` for one per core.
    pub workers: Option<NonZeroU16>,
    /// QUIC transport parameters, and the protocol versions offered over it.
    pub quic: QuicTuning,
    /// Listeners other than QUIC.
    pub web: Web,
    /// Level and format of the log.
    pub log: LogConfig,
    /// Whether a file was read; without one this is a development relay.
    pub from_file: bool,
}

/// Authorization of clients that are not anonymous.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// Accepted credentials.
    pub credentials: Credentials,
    /// Refresh interval of remote keys and grants.
    pub refresh: Duration,
    /// Host names whose first labels become the first part of the path.
    pub domains: Vec<String>,
    /// The `aud` and `iss` that tokens must have.
    pub expected: Expected,
    /// Networks where an auth server or key server may be asked over plain HTTP.
    pub plain: Vec<Network>,
    /// TLS toward the auth server or key server.
    pub tls: AuthTls,
}

/// Credentials that are accepted, and their verification.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// No tokens; only anonymous clients and client certificates.
    #[default]
    None,
    /// Tokens, verified by the keys in these files.
    Files(Vec<PathBuf>),
    /// Tokens, verified by keys that are looked up by `kid`.
    Dir(KeyDir),
    /// Tokens, verified by the key set at this URL.
    Jwks(Url),
    /// A server decides about each session.
    Server(Url),
    /// A server decides about each path and key.
    Api(Url),
}

/// Location of keys that are looked up by `kid`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyDir {
    /// A folder of `KID.jwk` files.
    Local(PathBuf),
    /// A URL of a key set, or one with `KID.jwk` files below it.
    Remote(Url),
}

/// TLS settings toward the auth server or key server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthTls {
    /// Files of trusted authorities; if empty, those of the system.
    pub roots: Vec<PathBuf>,
    /// Client certificate and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Accepts any server certificate.
    pub disable_verify: bool,
}

impl Default for Auth {
    fn default() -> Self {
        let refresh = Duration::from_secs(60);
        Self {
            credentials: Credentials::None,
            refresh,
            domains: Vec::new(),
            expected: Expected::default(),
            plain: Vec::new(),
            tls: AuthTls::default(),
        }
    }
}

impl Credentials {
    /// Configuration key that selects this variant.
    pub fn key(&self) -> &'static str {
        match self {
            Self::None => "auth",
            Self::Files(_) => "auth.key",
            Self::Dir(_) => "auth.key_dir",
            Self::Jwks(_) => "auth.jwks",
            Self::Server(_) => "auth.url",
            Self::Api(_) => "auth.api",
        }
    }

    /// URL of the auth server or key server, if any.
    pub fn url(&self) -> Option<&Url> {
        match self {
            Self::Dir(KeyDir::Remote(url)) | Self::Jwks(url) | Self::Server(url) | Self::Api(url) => {
                Some(url)
            }
            Self::None | Self::Files(_) | Self::Dir(KeyDir::Local(_)) => None,
        }
    }

    /// Whether the relay verifies tokens itself.
    pub fn takes_tokens(&self) -> bool {
        !matches!(self, Self::None | Self::Server(_))
    }
}

impl Auth {
    /// Whether an auth server or key server is used.
    pub fn asks(&self) -> bool {
        self.credentials.url().is_some()
    }
}

/// Default of [`Config::state`]. Together with the ceiling of the cache, half as much for relays of the cluster, and
/// the process itself it fits in 256 MiB.
const STATE: Size = Size::Percent(20);

/// Limits of the group cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// Memory of groups, as long as the machine has it.
    pub capacity: Size,
    /// Memory that must stay free on the machine or in the control group.
    pub headroom: Size,
    /// Time for which a superseded group is held.
    pub duration: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self { capacity: Size::Percent(40), headroom: Size::Percent(10), duration: Duration::from_secs(30) }
    }
}

/// Source of the certificates.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Self-signed at start, for development, with these names and addresses.
    Generated(Vec<String>),
    /// Loaded from PEM files. Clients whose server name matches none get the first.
    Files(Vec<CertFiles>),
}

/// Two PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CertFiles {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// Level and format of the log; `None` where not set.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogConfig {
    /// Log level.
    pub level: Option<LevelFilter>,
    /// Line format.
    pub format: Option<Format>,
}

/// Format of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// Plain text.
    #[default]
    Text,
    /// One JSON object per line.
    Json,
}

impl Config {
    /// Settings of a development relay: loopback, a generated certificate, anonymous access to everything.
    pub fn development() -> Self {
        let open = Scope::everything();
        let web = Web { http: Some(DEVELOPMENT_BIND), https: Some(DEVELOPMENT_BIND), ..Web::default() };
        Self {
            bind: DEVELOPMENT_BIND,
            web,
            publish: open.clone(),
            subscribe: open,
            from_file: false,
            ..Self::closed()
        }
    }

    /// Defaults with a file, which admit nobody.
    fn closed() -> Self {
        Self {
            bind: DEFAULT_BIND,
            tls: Tls::Generated(vec![DEVELOPMENT_NAME.to_owned()]),
            client_roots: Vec::new(),
            publish: Scope::nothing(),
            subscribe: Scope::nothing(),
            auth: Auth::default(),
            hop: None,
            cache: Cache::default(),
            state: STATE,
            takeover: Takeover::default(),
            linger: limits::LINGER,
            limits: SessionLimits::default(),
            drain_timeout: DRAIN_TIMEOUT,
            workers: None,
            quic: QuicTuning::default(),
            web: Web::default(),
            log: LogConfig::default(),
            from_file: true,
        }
    }

    /// Reads and checks `file`.
    ///
    /// # Errors
    /// All problems found.
    pub fn load(file: &FilePath) -> Result<Self, ConfigLoadError> {
        Self::resolve(Some(file), &SettingOverrides::default())?.into_config()
    }

    /// Checks `text`, the content of `file`.
    ///
    /// # Errors
    /// All problems found.
    pub fn parse(file: &FilePath, text: &str) -> Result<Self, ConfigLoadError> {
        resolve::resolve(Some((file, text)), &SettingOverrides::default()).into_config()
    }

    /// Resolves all layers, and collects their problems: `file`, if any, overridden by the settings `outside` of it.
    ///
    /// # Errors
    /// The file cannot be read. All other problems are part of the resolution.
    pub fn resolve(
        file: Option<&FilePath>,
        outside: &SettingOverrides,
    ) -> Result<Resolution, ConfigLoadError> {
        let text = file.map(read).transpose()?;
        Ok(resolve::resolve(file.zip(text.as_deref()), outside))
    }
}

fn read(file: &FilePath) -> Result<String, ConfigLoadError> {
    let unreadable = |source| ConfigLoadError::Unreadable { file: file.to_path_buf(), source };
    let size = fs::metadata(file).map_err(unreadable)?.len();
    if size > FILE_BYTES {
        let refusal =
            LocatedProblem { place: Place::File(file.into(), None), problem: Problem::TooLong(size) };
        return Err(ConfigLoadError::Refused(vec![refusal]));
    }
    let text = fs::read(file).map_err(unreadable)?;
    let text = String::from_utf8(text).map_err(|error| {
        let is_utf_16 = matches!(error.as_bytes(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
        let problem = Problem::NoText(if is_utf_16 { "UTF-16" } else { "not UTF-8" });
        ConfigLoadError::Refused(vec![LocatedProblem { place: Place::File(file.into(), None), problem }])
    })?;
    Ok(without_mark(text))
}

/// Removes the byte order mark that some editors put at the start of a file.
pub fn without_mark(mut text: String) -> String {
    if text.starts_with(MARK) {
        text.drain(..MARK.len_utf8());
    }
    text
}

#[cfg(test)]
mod tests;
