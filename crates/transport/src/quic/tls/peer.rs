//! Client identity of a TLS certificate.

use std::time::SystemTime;

use aws_lc_rs::digest;
use rustls::pki_types::CertificateDer;
use x509_cert::{
    Certificate,
    der::Decode,
    ext::pkix::{SubjectAltName, name::GeneralName},
};

/// Identity in a client certificate. A value obtained from a connection was verified in the handshake: issued
/// under a trusted root, valid at the time, and the client holds the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// First DNS name or URI of the subject alternative names (RFC 5280 §4.2.1.6), otherwise the subject's common
    /// name. Not escaped.
    pub name: Option<String>,
    /// SHA-256 of the DER certificate.
    pub fingerprint: [u8; 32],
    /// End of validity (`notAfter`). A session must not outlive it.
    pub not_after: SystemTime,
    /// Issuer as a string (RFC 4514). Not escaped.
    pub issuer: String,
}

/// Certificate that cannot be parsed.
#[derive(Debug, thiserror::Error)]
#[error("unreadable certificate: {0}")]
pub(super) struct Unreadable(#[from] x509_cert::der::Error);

impl PeerCertificate {
    /// Parses a certificate without verifying it.
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

    /// Parses the first certificate of a verified chain.
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
    fn client_name_is_first_san_otherwise_common_name() {
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
    fn tampered_certificate_never_panics() {
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
