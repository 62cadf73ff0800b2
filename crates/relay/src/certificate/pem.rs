//! PEM files, with errors that say what to do.

use std::{fs, path::Path};

use rustls::pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject},
};

use super::Error;

/// All certificates of `file`, in its order; at least one.
pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let text = read(file)?;
    let chain = CertificateDer::pem_slice_iter(&text)
        .collect::<Result<Vec<_>, _>>()
        .map_err(|error| malformed(file, &error))?;
    if chain.is_empty() {
        let hint = match PrivateKeyDer::from_pem_slice(&text) {
            Ok(_) => ": it holds a private key; are `tls.cert` and `tls.key` swapped?",
            Err(_) => ": expected PEM, with a line -----BEGIN CERTIFICATE-----",
        };
        return Err(Error::Missing { wanted: "certificate", file: file.into(), hint });
    }
    Ok(chain)
}

/// The first private key of `file`.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Error> {
    let text = read(file)?;
    PrivateKeyDer::from_pem_slice(&text).map_err(|error| match error {
        pem::Error::NoItemsFound => {
            let hint = key_hint(&text);
            Error::Missing { wanted: "private key", file: file.into(), hint }
        }
        other => malformed(file, &other),
    })
}

fn key_hint(text: &[u8]) -> &'static str {
    if contains(text, b"BEGIN ENCRYPTED PRIVATE KEY") {
        ": it is encrypted; decrypt it first, as with `openssl pkey`"
    } else if contains(text, b"BEGIN CERTIFICATE") {
        ": it holds a certificate; are `tls.cert` and `tls.key` swapped?"
    } else {
        ": expected PEM, with a line -----BEGIN PRIVATE KEY-----"
    }
}

fn contains(text: &[u8], needle: &[u8]) -> bool {
    text.windows(needle.len()).any(|window| window == needle)
}

fn read(file: &Path) -> Result<Vec<u8>, Error> {
    fs::read(file).map_err(|source| Error::Unreadable { file: file.into(), source })
}

fn malformed(file: &Path, error: &pem::Error) -> Error {
    Error::Malformed { file: file.into(), why: error.to_string() }
}
