//! What the relay is told to do: flags, environment and a TOML file become one [`Config`].
//!
//! A file is checked before it is believed: a key nobody reads, a value of the wrong kind and an
//! option that is not enforced are all refused with the place they stand at.

mod file;
mod value;

use std::{
    fmt, fs,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path as FilePath, PathBuf},
    time::Duration,
};

use relay_model::{Hop, Path};
use relay_worker::{Takeover, Version};

pub use value::Size;

/// Where a relay without a file listens: loopback, over IPv4 because every client can reach it.
pub const DEVELOPMENT_BIND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), DEFAULT_PORT);
/// Where a relay with a file listens unless the file says otherwise: all interfaces.
pub const DEFAULT_BIND: SocketAddr =
    SocketAddr::new(std::net::IpAddr::V6(Ipv6Addr::UNSPECIFIED), DEFAULT_PORT);
/// The port MoQ relays are found at in development.
pub const DEFAULT_PORT: u16 = 4443;

/// How long sessions get to leave a relay that ends.
pub const DRAIN_TIMEOUT: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// UDP address to listen on.
    pub bind: SocketAddr,
    /// Where the certificate comes from.
    pub tls: Tls,
    /// Prefix that anybody may publish and subscribe below; the root is everything.
    pub public: Path,
    /// Protocol versions spoken.
    pub versions: Vec<Version>,
    /// The relay's own hop; drawn at start when there is none.
    pub hop: Option<Hop>,
    /// What may be held.
    pub cache: Cache,
    /// Who may publish a path that somebody publishes already.
    pub takeover: Takeover,
    /// How long sessions get to leave a relay that ends.
    pub drain_timeout: Duration,
    /// Whether a file was read; without one this is a development relay.
    pub from_file: bool,
}

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
        Self { bind: DEVELOPMENT_BIND, from_file: false, ..Self::open_to(Path::root()) }
    }

    /// The defaults of a file that opens `public`.
    fn open_to(public: Path) -> Self {
        Self {
            bind: DEFAULT_BIND,
            tls: Tls::Generated,
            public,
            versions: Version::ALL.to_vec(),
            hop: None,
            cache: Cache::default(),
            takeover: Takeover::default(),
            drain_timeout: DRAIN_TIMEOUT,
            from_file: true,
        }
    }

    /// Reads and checks `file`.
    pub fn load(file: &FilePath) -> Result<Self, Error> {
        let text = fs::read_to_string(file)
            .map_err(|source| Error::Unreadable { file: file.to_path_buf(), source })?;
        Self::parse(file, &text)
    }

    /// Checks `text`, the content of `file`.
    pub fn parse(file: &FilePath, text: &str) -> Result<Self, Error> {
        file::parse(file, text)
    }
}

#[cfg(test)]
mod tests;
