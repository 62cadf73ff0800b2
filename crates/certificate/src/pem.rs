//! PEM files.

use std::{fs::File, io::Read, path::Path};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::{CertificateLoadError, error::FoundContent};

/// Marks of an encrypted key: its label, or a header of the older form.
const ENCRYPTED: [&str; 2] = ["BEGIN ENCRYPTED PRIVATE KEY", "Proc-Type: 4,ENCRYPTED"];

/// Largest file that is read, bytes: a chain has a few KiB, all roots of a system a few hundred.
const FILE_BYTES: u64 = 4 << 20;

/// Byte order mark of UTF-8.
const MARK: &[u8] = "\u{feff}".as_bytes();

/// Reads `file`, without a byte order mark.
pub(super) fn read(file: &Path) -> Result<Vec<u8>, CertificateLoadError> {
    let unreadable = |source| CertificateLoadError::Unreadable { file: file.into(), source };
    let mut text = Vec::new();
    File::open(file).map_err(unreadable)?.take(FILE_BYTES + 1).read_to_end(&mut text).map_err(unreadable)?;
    if text.len() as u64 > FILE_BYTES {
        let why = format!("it is larger than {} MiB", FILE_BYTES >> 20);
        return Err(CertificateLoadError::Malformed { file: file.into(), why });
    }
    // Some editors begin a file with a byte order mark.
    if text.starts_with(MARK) {
        text.drain(..MARK.len());
    }
    Ok(text)
}

/// All certificates of `file`, which holds `text`, in its order; at least one.
pub(super) fn certificates(
    file: &Path,
    text: &[u8],
) -> Result<Vec<CertificateDer<'static>>, CertificateLoadError> {
    let chain = CertificateDer::pem_slice_iter(text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(file, &error))?;
    if chain.is_empty() {
        let has_key = contains(text, "PRIVATE KEY-----");
        let found = if has_key { FoundContent::Other("private key") } else { nothing_known(text) };
        return Err(CertificateLoadError::Missing { wanted: "certificate", file: file.into(), found });
    }
    Ok(chain)
}

/// The first private key of `file`, which holds `text`.
pub(super) fn private_key(file: &Path, text: &[u8]) -> Result<PrivateKeyDer<'static>, CertificateLoadError> {
    let missing = |found| CertificateLoadError::Missing { wanted: "private key", file: file.into(), found };
    if ENCRYPTED.iter().any(|mark| contains(text, mark)) {
        return Err(missing(FoundContent::Encrypted));
    }
    PrivateKeyDer::from_pem_slice(text).map_err(|error| match error {
        pem::Error::NoItemsFound if contains(text, "BEGIN DSA PRIVATE KEY") => {
            missing(FoundContent::Obsolete("DSA"))
        }
        pem::Error::NoItemsFound if contains(text, "BEGIN CERTIFICATE") => {
            missing(FoundContent::Other("certificate"))
        }
        pem::Error::NoItemsFound => missing(nothing_known(text)),
        other => malformed(file, &other),
    })
}

fn nothing_known(text: &[u8]) -> FoundContent {
    if text.trim_ascii().is_empty() { FoundContent::Nothing } else { FoundContent::NoPem }
}

fn contains(text: &[u8], needle: &str) -> bool {
    text.windows(needle.len()).any(|window| window == needle.as_bytes())
}

fn malformed(file: &Path, error: &pem::Error) -> CertificateLoadError {
    CertificateLoadError::Malformed { file: file.into(), why: error.to_string() }
}
