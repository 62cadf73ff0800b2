//! Who a client is, by its certificate.

use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// What a certificate says of the client that showed it. One that a connection gives was verified: it chains
/// up to a root that was trusted at the handshake, was valid then, and the client has its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The first DNS name or URI it is for, else the common name of its subject. As it is written there:
    /// escape it where it is shown.
    pub name: Option<String>,
    /// SHA-256 of it.
    pub fingerprint: [u8; 32],
    /// Its last moment. A session must not outlive it.
    pub not_after: SystemTime,
    /// Who issued it (RFC 4514). Escape it where it is shown.
    pub issuer: String,
}

/// What is there instead of a certificate: nothing that can be read.
#[derive(Debug, thiserror::Error)]
#[error("unreadable certificate ({0})")]
pub(super) struct Unreadable(#[from] x509_cert::der::Error);

impl PeerCertificate {
    /// Reads a certificate; believing it is up to the caller.
    pub(super) fn read(leaf: &CertificateDer<'_>) -> Result<Self, Unreadable> {
        let certificate = Certificate::from_der(leaf)?;
        let body = certificate.tbs_certificate();
        let alternative = body.get_extension::<SubjectAltName>()?.and_then(|(_, names)| {
            names.0.into_iter().find_map(|name| match name {
                GeneralName::DnsName(name) | GeneralName::UniformResourceIdentifier(name) => {
                    Some(name.as_str().to_owned()).filter(|name| !name.is_empty())
                }
                _ => None,
            })
        });
        let name = match alternative {
            Some(name) => Some(name),
            None => body.subject().common_name()?.map(String::from),
        };
        let mut fingerprint = [0; 32];
        fingerprint.copy_from_slice(digest::digest(&digest::SHA256, leaf).as_ref());
        let not_after = body.validity().not_after.to_system_time();
        Ok(Self { name, fingerprint, not_after, issuer: body.issuer().to_string() })
    }

    /// Of the first of a chain that was verified.
    pub fn of_chain(chain: &[CertificateDer<'_>]) -> Option<Self> {
        Self::read(chain.first()?).ok()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DistinguishedName, DnType, KeyPair, SanType};

    use super::*;

    fn read(names: Vec<SanType>, common: Option<&str>) -> PeerCertificate {
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.distinguished_name = DistinguishedName::new();
        if let Some(common) = common {
            params.distinguished_name.push(DnType::CommonName, common);
        }
        params.not_after = (SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000)).into();
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        PeerCertificate::read(made.der()).unwrap()
    }

    #[test]
    fn a_client_is_named_by_its_first_name_or_uri_and_else_by_its_common_name() {
        let dns = |name: &str| SanType::DnsName(name.try_into().unwrap());
        let uri = || SanType::URI("spiffe://example/edge".try_into().unwrap());
        let ip = || SanType::IpAddress([10, 0, 0, 1].into());
        for (names, common, expected) in [
            (vec![dns("a.example"), uri()], Some("c"), Some("a.example")),
            (vec![ip(), uri(), dns("a.example")], Some("c"), Some("spiffe://example/edge")),
            (vec![ip()], Some("edge 7"), Some("edge 7")),
            (Vec::new(), Some("ünicode"), Some("ünicode")),
            (Vec::new(), None, None),
        ] {
            assert_eq!(read(names, common).name.as_deref(), expected);
        }
    }

    #[test]
    fn its_end_its_issuer_and_its_hash_are_known() {
        let read = read(Vec::new(), Some("edge"));
        assert_eq!(read.not_after, SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000));
        assert_eq!(read.issuer, "CN=edge");
        assert_ne!(read.fingerprint, [0; 32]);
    }

    #[test]
    fn a_certificate_that_was_tampered_with_is_read_or_not_and_that_is_all() {
        let mut params = CertificateParams::new(vec!["a.example".to_owned()]).unwrap();
        params.distinguished_name.push(DnType::OrganizationName, "organization");
        let made = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        let good = made.der().to_vec();
        for at in 0..good.len() {
            for value in [0, 1, 0x30, 0x7f, 0x80, 0x84, 0xff] {
                let mut bad = good.clone();
                bad[at] = value;
                let _ = PeerCertificate::read(&CertificateDer::from(bad));
            }
            let _ = PeerCertificate::read(&CertificateDer::from(&good[..at]));
        }
    }

    #[test]
    fn whatever_is_no_certificate_is_unreadable() {
        for bytes in [&b""[..], b"\x30\x00", &[0xff; 64]] {
            assert!(PeerCertificate::read(&CertificateDer::from(bytes)).is_err());
        }
    }
}
