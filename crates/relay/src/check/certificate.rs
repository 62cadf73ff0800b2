//! What there is to know about a certificate.

use std::time::SystemTime;

use x509_cert::{
    Certificate as Parsed,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

use crate::{certificate::Identity, config::Tls};

/// A certificate that would be shown.
#[derive(Debug)]
pub(super) enum Certificate {
    /// One that is made at start.
    Made,
    /// One that was read.
    Read {
        /// Where from.
        file: String,
        /// Whom it is for.
        names: Vec<String>,
        /// Its last day.
        until: String,
        /// How long it has.
        days: u64,
        /// SHA-256 of the leaf.
        fingerprint: String,
    },
    /// None: why.
    None(String),
}

impl Certificate {
    /// Reads what `tls` names.
    pub(super) fn of(tls: &Tls, now: SystemTime) -> Self {
        let Tls::Files { cert, key } = tls else { return Self::Made };
        match Identity::load(cert, key, now) {
            Err(error) => Self::None(error.to_string()),
            Ok(identity) => Self::Read {
                file: cert.display().to_string(),
                names: names(&identity),
                until: time::OffsetDateTime::from(identity.not_after()).date().to_string(),
                days: identity.remaining(now).as_secs() / 86_400,
                fingerprint: identity.fingerprint().to_string(),
            },
        }
    }
}

/// The names and addresses of the leaf.
fn names(identity: &Identity) -> Vec<String> {
    let leaf = identity.certified().ok().and_then(|certified| certified.cert.first().cloned());
    let parsed = leaf.and_then(|leaf| Parsed::from_der(&leaf).ok());
    let names = parsed.and_then(|parsed| {
        let found = parsed.tbs_certificate().get_extension::<SubjectAltName>().ok()?;
        found.map(|(_, names)| names.0)
    });
    names.unwrap_or_default().iter().filter_map(shown).collect()
}

fn shown(name: &GeneralName) -> Option<String> {
    match name {
        GeneralName::DnsName(name) => Some(name.as_str().to_owned()),
        GeneralName::IpAddress(bytes) => {
            let bytes = bytes.as_bytes();
            let v4 = || <[u8; 4]>::try_from(bytes).ok().map(std::net::IpAddr::from);
            let v6 = || <[u8; 16]>::try_from(bytes).ok().map(std::net::IpAddr::from);
            v4().or_else(v6).map(|ip| ip.to_string())
        }
        _ => None,
    }
}
