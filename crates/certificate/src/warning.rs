//! Warnings about usable certificates.

use std::{fs, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

use relay_config::Diagnostic;
use rustls::pki_types::CertificateDer;
use x509_cert::{Certificate, der::Decode};

use super::{CertificateLoadError, Identity, countdown, date};

/// Permission bits of users that are neither the owner nor in the group.
const OTHERS: u32 = 0o007;

/// Warnings about `identity`, which was loaded from these files.
pub fn warnings(identity: &Identity, cert: &Path, key: &Path, now: SystemTime) -> Vec<Diagnostic> {
    let mut all: Vec<Diagnostic> = ending(identity, cert, now).into_iter().collect();
    if let Some(issuer) = missing_issuer(&identity.chain) {
        all.push(Diagnostic::new(
            format!(
                "the chain in {} is incomplete: the certificate of its issuer ({issuer}) is not in it",
                cert.display()
            ),
            "clients may not trust it: use the file with the whole chain (certbot calls it fullchain.pem)",
        ));
    }
    if fs::metadata(key).is_ok_and(|metadata| metadata.mode() & OTHERS != 0) {
        all.push(Diagnostic::new(
            format!("every user of this machine can read the private key in {}", key.display()),
            format!("remove that permission: `chmod o-rwx {}`", key.display()),
        ));
    }
    all
}

/// Warning that `identity`, loaded from this file, expires soon, has expired or is not valid yet.
pub fn ending(identity: &Identity, cert: &Path, now: SystemTime) -> Option<Diagnostic> {
    if let Err(error @ CertificateLoadError::NotYetValid { .. }) = identity.valid_at(cert, now) {
        return Some(error.diagnostic());
    }
    let remaining = identity.remaining(now);
    let mark = countdown::mark(identity.lifetime(), remaining)?;
    let (cert, day) = (cert.display(), date(identity.not_after()));
    let what = match (mark, remaining.as_secs() / countdown::DAY.as_secs()) {
        (0, _) => format!("the certificate in {cert} expired on {day}"),
        (_, 0) => format!("the certificate in {cert} expires on {day}, in less than a day"),
        (_, 1) => format!("the certificate in {cert} expires on {day}, in 1 day"),
        (_, days) => format!("the certificate in {cert} expires on {day}, in {days} days"),
    };
    Some(Diagnostic::new(what, "renew it (`certbot renew`); a running relay reloads it"))
}

/// Issuer of the leaf if its certificate is missing from the chain; `None` for a self-signed leaf.
fn missing_issuer(chain: &[CertificateDer<'static>]) -> Option<String> {
    let parsed: Vec<Certificate> = chain.iter().filter_map(|der| Certificate::from_der(der).ok()).collect();
    let (leaf, rest) = parsed.split_first()?;
    let leaf = leaf.tbs_certificate();
    let follows = rest.iter().any(|next| next.tbs_certificate().subject() == leaf.issuer());
    let complete = follows || leaf.issuer() == leaf.subject();
    (!complete).then(|| leaf.issuer().to_string().escape_default().to_string())
}
