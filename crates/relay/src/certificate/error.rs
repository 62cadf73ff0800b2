//! Why there is no certificate to show.

use std::{fmt, io, path::PathBuf};

use crate::trouble::{Trouble, user};

/// Why there is no certificate to show. Shown, it says what is wrong and what to do.
#[derive(Debug)]
pub enum Error {
    /// A file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A file is damaged PEM.
    Malformed {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        why: String,
    },
    /// A file holds something else than it should.
    Missing {
        /// What was looked for.
        wanted: &'static str,
        /// The file.
        file: PathBuf,
        /// What is there instead.
        found: Found,
    },
    /// The leaf is not a certificate that can be read.
    Unparsable {
        /// The file.
        file: PathBuf,
        /// What the parser says.
        why: String,
    },
    /// The key belongs to another certificate.
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Which certificate of the file it does belong to, counted from 1.
        place: Option<usize>,
    },
    /// The key is of a kind that TLS cannot use.
    UnusableKey {
        /// The key's file.
        key: PathBuf,
        /// What the library says.
        why: String,
    },
    /// The leaf's time is over.
    Expired {
        /// The file.
        file: PathBuf,
        /// Its last day.
        date: time::Date,
    },
    /// The leaf's time has not come.
    NotYetValid {
        /// The file.
        file: PathBuf,
        /// Its first day.
        date: time::Date,
    },
    /// A file of authorities holds what cannot be one.
    UnusableRoot {
        /// The file.
        file: PathBuf,
        /// What the library says.
        why: String,
    },
    /// No certificate could be made.
    Generate(String),
}

/// What a file holds instead of what was looked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Nothing.
    Nothing,
    /// The other one of certificate and key.
    Other(&'static str),
    /// A key that needs a password.
    Encrypted,
    /// A key of a kind nobody uses in TLS any more.
    Obsolete(&'static str),
    /// No PEM of any kind.
    NoPem,
}

impl Error {
    /// What is wrong, and what to do.
    pub fn trouble(&self) -> Trouble {
        match self {
            Self::Unreadable { file, source } => unreadable(&file.display().to_string(), source),
            Self::Malformed { file, why } => Trouble::new(
                format!("{} is not valid PEM: {why}", file.display()),
                "get the file anew from where it came from: it is damaged or cut off",
            ),
            Self::Missing { wanted, file, found } => missing(wanted, &file.display().to_string(), *found),
            Self::Unparsable { file, why } => Trouble::new(
                format!("the certificate in {} cannot be read: {why}", file.display()),
                "get the file anew from where it came from",
            ),
            Self::Mismatch { cert, key, place } => Trouble::new(
                format!(
                    "the private key in {} does not belong to the certificate in {}",
                    key.display(),
                    cert.display()
                ),
                match place {
                    Some(place) => {
                        format!("it belongs to certificate {place} of that file: put that one first")
                    }
                    None => "name two files that were made together (fullchain.pem and privkey.pem of one \
                             folder)"
                        .to_owned(),
                },
            ),
            Self::UnusableKey { key, why } => Trouble::new(
                format!("the private key in {} cannot be used: {why}", key.display()),
                "TLS takes RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) and Ed25519: ask for a \
                 certificate with one of those",
            ),
            Self::Expired { file, date } => Trouble::new(
                format!("the certificate in {} expired on {date}", file.display()),
                "renew it (`certbot renew`)",
            ),
            Self::NotYetValid { file, date } => Trouble::new(
                format!("the certificate in {} is not valid before {date}", file.display()),
                "is the clock of this machine right? (`date -u`)",
            ),
            Self::UnusableRoot { file, why } => Trouble::new(
                format!("the authorities in {} cannot be used: {why}", file.display()),
                "`tls.root` names PEM files of the authorities that issue certificates to clients",
            ),
            Self::Generate(why) => {
                Trouble::new(format!("cannot make a certificate: {why}"), "name one in [tls]: cert and key")
            }
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.trouble().fmt(f)
    }
}

impl std::error::Error for Error {}

fn unreadable(file: &str, source: &io::Error) -> Trouble {
    match source.kind() {
        io::ErrorKind::NotFound => Trouble::new(
            format!("there is no file {file}"),
            "correct its name in the configuration (a relative path starts where the relay is started)",
        ),
        io::ErrorKind::IsADirectory => Trouble::new(
            format!("{file} is a folder"),
            "name the file in it (certbot calls them fullchain.pem and privkey.pem)",
        ),
        io::ErrorKind::PermissionDenied => Trouble::new(
            format!("not allowed to read {file}: the relay runs as {}", user()),
            "let that user read it and enter the folders above it (docs/operations.md shows how a service \
             gets its certificate)",
        ),
        _ => Trouble::new(format!("cannot read {file}: {source}"), "look at the disk and the file system"),
    }
}

fn missing(wanted: &str, file: &str, found: Found) -> Trouble {
    let what = format!("no {wanted} in {file}");
    match found {
        Found::Nothing => {
            Trouble::new(format!("{what}: the file is empty"), "get it anew from where it came from")
        }
        Found::Other(other) => {
            Trouble::new(format!("{what}: it holds a {other}"), "are `tls.cert` and `tls.key` swapped?")
        }
        Found::Encrypted => Trouble::new(
            format!("{what} that can be used: it is encrypted"),
            "decrypt it (`openssl pkey -in OLD -out NEW`): nobody is there to type its password",
        ),
        Found::Obsolete(kind) => Trouble::new(
            format!("{what} that can be used: it is a {kind} key"),
            "ask for a certificate with an ECDSA, RSA or Ed25519 key",
        ),
        Found::NoPem => {
            let label = wanted.to_uppercase();
            Trouble::new(what, format!("expected PEM, with a line -----BEGIN {label}-----"))
        }
    }
}
