//! Errors of loading certificates.

use std::{fmt, io, path::PathBuf};

use relay_config::{Diagnostic, account::user};

/// Failure to load or generate a certificate. Its `Display` names the cause and the remedy.
#[derive(Debug)]
pub enum CertificateLoadError {
    /// A file cannot be read.
    Unreadable {
        /// The file.
        file: PathBuf,
        /// Error of the system.
        source: io::Error,
    },
    /// A file is damaged PEM.
    Malformed {
        /// The file.
        file: PathBuf,
        /// Error of the parser.
        why: String,
    },
    /// A file holds something else than it should.
    Missing {
        /// The wanted item.
        wanted: &'static str,
        /// The file.
        file: PathBuf,
        /// The content found instead.
        found: FoundContent,
    },
    /// The leaf is not a certificate that can be read.
    Unparsable {
        /// The file.
        file: PathBuf,
        /// Error of the parser.
        why: String,
    },
    /// The key belongs to another certificate.
    Mismatch {
        /// The certificate's file.
        cert: PathBuf,
        /// The key's file.
        key: PathBuf,
        /// Position, counted from 1, of the certificate in the file that it belongs to.
        place: Option<usize>,
    },
    /// The key is of a kind that TLS cannot use.
    UnusableKey {
        /// The key's file.
        key: PathBuf,
        /// Error of the library.
        why: String,
    },
    /// The leaf has expired.
    Expired {
        /// The file.
        file: PathBuf,
        /// Its last day.
        date: time::Date,
    },
    /// The leaf is not valid yet.
    NotYetValid {
        /// The file.
        file: PathBuf,
        /// Its first day.
        date: time::Date,
    },
    /// A file of authorities holds a certificate that is not usable as one.
    UnusableRoot {
        /// The file.
        file: PathBuf,
        /// Error of the library.
        why: String,
    },
    /// No certificate could be generated.
    Generate(String),
}

/// Content of a file that lacks the wanted item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FoundContent {
    /// Nothing.
    Nothing,
    /// A key instead of a certificate, or the reverse.
    Other(&'static str),
    /// A key that needs a password.
    Encrypted,
    /// A key of a kind that TLS no longer uses.
    Obsolete(&'static str),
    /// No PEM of any kind.
    NoPem,
}

impl CertificateLoadError {
    /// Cause and remedy.
    pub fn diagnostic(&self) -> Diagnostic {
        match self {
            Self::Unreadable { file, source } => unreadable(&file.display().to_string(), source),
            Self::Malformed { file, why } => Diagnostic::new(
                format!("{} is not valid PEM: {why}", file.display()),
                "fetch the file again from its source: it is damaged or truncated",
            ),
            Self::Missing { wanted, file, found } => missing(wanted, &file.display().to_string(), *found),
            Self::Unparsable { file, why } => Diagnostic::new(
                format!("the certificate in {} cannot be read: {why}", file.display()),
                "fetch the file again from its source",
            ),
            Self::Mismatch { cert, key, place } => Diagnostic::new(
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
            Self::UnusableKey { key, why } => Diagnostic::new(
                format!("the private key in {} cannot be used: {why}", key.display()),
                "TLS takes RSA (2048 bits or more), ECDSA (P-256, P-384, P-521) and Ed25519: ask for a \
                 certificate with one of those",
            ),
            Self::Expired { file, date } => Diagnostic::new(
                format!("the certificate in {} expired on {date}", file.display()),
                "renew it (`certbot renew`)",
            ),
            Self::NotYetValid { file, date } => Diagnostic::new(
                format!("the certificate in {} is not valid before {date}", file.display()),
                "is the clock of this machine right? (`date -u`)",
            ),
            Self::UnusableRoot { file, why } => Diagnostic::new(
                format!("the authorities in {} cannot be used: {why}", file.display()),
                "`tls.root` names PEM files of the authorities that issue certificates to clients",
            ),
            Self::Generate(why) => Diagnostic::new(
                format!("cannot make a certificate: {why}"),
                "name one in [tls]: cert and key",
            ),
        }
    }
}

impl fmt::Display for CertificateLoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.diagnostic().fmt(f)
    }
}

impl std::error::Error for CertificateLoadError {}

fn unreadable(file: &str, source: &io::Error) -> Diagnostic {
    match source.kind() {
        io::ErrorKind::NotFound => Diagnostic::new(
            format!("there is no file {file}"),
            "correct its name in the configuration (a relative path starts where the relay is started)",
        ),
        io::ErrorKind::IsADirectory => Diagnostic::new(
            format!("{file} is a folder"),
            "name the file in it (certbot calls them fullchain.pem and privkey.pem)",
        ),
        io::ErrorKind::PermissionDenied => Diagnostic::new(
            format!("not allowed to read {file}: the relay runs as {}", user()),
            "let that user read it and enter the folders above it (docs/operations.md shows how a service \
             gets its certificate)",
        ),
        _ => Diagnostic::new(format!("cannot read {file}: {source}"), "check the disk and the file system"),
    }
}

fn missing(wanted: &str, file: &str, found: FoundContent) -> Diagnostic {
    let what = format!("no {wanted} in {file}");
    match found {
        FoundContent::Nothing => {
            Diagnostic::new(format!("{what}: the file is empty"), "fetch it again from its source")
        }
        FoundContent::Other(other) => {
            Diagnostic::new(format!("{what}: it holds a {other}"), "are `tls.cert` and `tls.key` swapped?")
        }
        FoundContent::Encrypted => Diagnostic::new(
            format!("{what} that can be used: it is encrypted"),
            "decrypt it (`openssl pkey -in OLD -out NEW`): the relay cannot ask for its password",
        ),
        FoundContent::Obsolete(kind) => Diagnostic::new(
            format!("{what} that can be used: it is a {kind} key"),
            "ask for a certificate with an ECDSA, RSA or Ed25519 key",
        ),
        FoundContent::NoPem => {
            let label = wanted.to_uppercase();
            Diagnostic::new(what, format!("expected PEM, with a line -----BEGIN {label}-----"))
        }
    }
}
