//! What the relay is told to do: flags, environment and a TOML file become one [`Config`].
//!
//! A flag goes before the environment, that before the file, that before the default; what is known of
//! each key is in [`table`]. Everything is checked before it is believed, also what another layer covers: a
//! key nobody reads, a value of the wrong kind and an option that is not enforced are all refused, all at
//! once, with the place they stand at.

mod file;
mod hint;
mod kind;
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

use relay_admin::Network;
use relay_auth::Expected;
use relay_model::{
    Hop, Scope,
    limits::{self, SessionLimits},
};
use relay_worker::{Takeover, Tuning};
use tracing::level_filters::LevelFilter;
use url::Url;

pub use problem::{Error, Problem, Refusal};
pub use resolve::{Outside, Resolution, Warning};
pub(crate) use rules::may_be_plain;
pub(crate) use show::redacted;
pub use source::{Place, Position, Setting, Source};
pub use value::Size;
pub use web::Web;

/// Where a relay without a file listens: loopback, over IPv4 because every client can reach it.
pub const DEVELOPMENT_BIND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
/// Where a relay with a file listens unless the file says otherwise: all interfaces.
pub const DEFAULT_BIND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT);
/// What a generated certificate is for unless something else is said.
pub const DEVELOPMENT_NAME: &str = "localhost";
/// The port MoQ relays are found at in development.
pub const DEFAULT_PORT: u16 = 4443;

/// How long sessions get to leave a relay that ends.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);
/// Largest file that is read: whatever is longer is no configuration.
pub const FILE_BYTES: u64 = 1024 * 1024;

/// Byte order mark of Unicode.
const MARK: char = '\u{feff}';

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// UDP address to listen on.
    pub bind: SocketAddr,
    /// Where the certificates come from.
    pub tls: Tls,
    /// Files of the authorities that vouch for clients; none: clients are not asked.
    pub client_roots: Vec<PathBuf>,
    /// Where anybody may publish.
    pub publish: Scope,
    /// Where anybody may subscribe.
    pub subscribe: Scope,
    /// Who else may come in, by what.
    pub auth: Auth,
    /// The relay's own hop; drawn at start when there is none.
    pub hop: Option<Hop>,
    /// What may be held.
    pub cache: Cache,
    /// Memory of sessions beside the cache: above three quarters of it the largest are closed.
    pub state: Size,
    /// Who may publish a path that somebody publishes already.
    pub takeover: Takeover,
    /// How long a publisher that vanished keeps its path.
    pub linger: Duration,
    /// Limits of each session that is no relay of the same cluster.
    pub limits: SessionLimits,
    /// How long sessions get to leave a relay that ends.
    pub drain_timeout: Duration,
    /// Worker threads; `None` = one a core.
    pub workers: Option<NonZeroU16>,
    /// How QUIC behaves, and the versions spoken over it.
    pub quic: Tuning,
    /// Entrances beside QUIC.
    pub web: Web,
    /// What is logged, and how.
    pub log: Log,
    /// Whether a file was read; without one this is a development relay.
    pub from_file: bool,
}

/// Who may come in beside the public.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Auth {
    /// What is believed.
    pub credentials: Credentials,
    /// How often what is kept elsewhere is asked for again.
    pub refresh: Duration,
    /// Host names whose first labels become the first part of the path.
    pub domains: Vec<String>,
    /// The `aud` and `iss` that tokens must have.
    pub expected: Expected,
    /// Networks where an auth server or key server may be asked over plain HTTP.
    pub plain: Vec<Network>,
    /// How the relay and whoever it asks believe each other.
    pub tls: AuthTls,
}

/// What is believed of who comes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Credentials {
    /// Nothing: there is the public, and who shows a certificate.
    #[default]
    None,
    /// Tokens, by the keys in these files.
    Files(Vec<PathBuf>),
    /// Tokens, by keys that are found by name.
    Dir(KeyDir),
    /// Tokens, by the keys of a set on a server.
    Jwks(Url),
    /// Nothing here: a server decides on each session.
    Server(Url),
    /// Nothing here: a server decides on each path and key.
    Api(Url),
}

/// Where keys are found by name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeyDir {
    /// In a folder.
    Local(PathBuf),
    /// On a server: as one set, or as files of that name.
    Remote(Url),
}

/// TLS toward whoever is asked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuthTls {
    /// Files of the authorities that are trusted; none: those of the system.
    pub roots: Vec<PathBuf>,
    /// The certificate that is shown, and its key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Anybody is trusted.
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
    /// The key of the file that says so.
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

    /// The address that is asked over HTTP, if one is.
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
    /// Whether anything is asked over HTTP.
    pub fn asks(&self) -> bool {
        self.credentials.url().is_some()
    }
}

/// Default of [`Config::state`]. With the ceiling of the cache, a half more for relays of the cluster, and the process
/// itself it fits 256 MiB.
const STATE: Size = Size::Percent(20);

/// What may be held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cache {
    /// What groups may take, as long as the machine has it.
    pub capacity: Size,
    /// What must stay free for the rest of the machine, or of the control group.
    pub headroom: Size,
    /// How long a group is held once there is a newer one.
    pub duration: Duration,
}

impl Default for Cache {
    fn default() -> Self {
        Self { capacity: Size::Percent(40), headroom: Size::Percent(10), duration: Duration::from_secs(30) }
    }
}

/// Where the certificates come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tls {
    /// Made at start, self-signed, for development: for these names and addresses.
    Generated(Vec<String>),
    /// Read from PEM files. Clients that ask for none of their names get the first.
    Files(Vec<Pair>),
}

/// Two PEM files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate chain, leaf first.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What is logged, and how; `None` = nothing was said of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Log {
    /// How much.
    pub level: Option<LevelFilter>,
    /// How a line looks.
    pub format: Option<Format>,
}

/// How a line of the log looks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

impl Config {
    /// A relay for one's own machine: loopback, a generated certificate, everything open.
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

    /// The defaults of a file, which let nobody in.
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
            quic: Tuning::default(),
            web: Web::default(),
            log: Log::default(),
            from_file: true,
        }
    }

    /// Reads and checks `file`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn load(file: &FilePath) -> Result<Self, Error> {
        Self::resolve(Some(file), &Outside::default())?.into_config()
    }

    /// Checks `text`, the content of `file`.
    ///
    /// # Errors
    /// Everything that is wrong with it.
    pub fn parse(file: &FilePath, text: &str) -> Result<Self, Error> {
        resolve::resolve(Some((file, text)), &Outside::default()).into_config()
    }

    /// What all layers say together, and what is wrong with it: `file`, where there is one, under what is
    /// said `outside` of it.
    ///
    /// # Errors
    /// The file cannot be read. Whatever else is wrong is part of the resolution.
    pub fn resolve(file: Option<&FilePath>, outside: &Outside) -> Result<Resolution, Error> {
        let text = file.map(read).transpose()?;
        Ok(resolve::resolve(file.zip(text.as_deref()), outside))
    }
}

fn read(file: &FilePath) -> Result<String, Error> {
    let unreadable = |source| Error::Unreadable { file: file.to_path_buf(), source };
    let size = fs::metadata(file).map_err(unreadable)?.len();
    if size > FILE_BYTES {
        let refusal = Refusal { place: Place::File(file.into(), None), problem: Problem::TooLong(size) };
        return Err(Error::Refused(vec![refusal]));
    }
    let text = fs::read(file).map_err(unreadable)?;
    let text = String::from_utf8(text).map_err(|error| {
        let is_utf_16 = matches!(error.as_bytes(), [0xff, 0xfe, ..] | [0xfe, 0xff, ..]);
        let problem = Problem::NoText(if is_utf_16 { "UTF-16" } else { "no UTF-8" });
        Error::Refused(vec![Refusal { place: Place::File(file.into(), None), problem }])
    })?;
    Ok(without_mark(text))
}

/// `text` without the byte order mark that some editors begin a file with.
pub(crate) fn without_mark(mut text: String) -> String {
    if text.starts_with(MARK) {
        text.drain(..MARK.len_utf8());
    }
    text
}

#[cfg(test)]
mod tests;
