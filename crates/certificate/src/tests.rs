use std::{fs, os::unix::fs::PermissionsExt};

use rcgen::{CertificateParams, KeyPair};
use tempfile::TempDir;
use x509_cert::ext::pkix::SubjectAltName;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Two PEM files in a folder of their own.
struct Files {
    folder: TempDir,
}

impl Files {
    fn new(cert: &str, key: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("cert.pem"), cert).unwrap();
        fs::write(folder.path().join("key.pem"), key).unwrap();
        Self { folder }
    }

    fn load(&self) -> Result<Identity, CertificateLoadError> {
        Identity::load(&self.folder.path().join("cert.pem"), &self.folder.path().join("key.pem"))
    }

    /// Error message without the folder.
    fn refusal(&self) -> String {
        let message = self.load().err().expect("a refusal").to_string();
        message.replace(&format!("{}/", self.folder.path().display()), "")
    }
}

/// A valid pair in PEM, for a day from now.
fn pair() -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
    params.not_before = (SystemTime::now() - DAY).into();
    params.not_after = (SystemTime::now() + DAY).into();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

#[test]
fn a_valid_pair_is_loaded() {
    let (cert, key) = pair();
    let identity = Files::new(&cert, &key).load().unwrap();
    let remaining = identity.remaining(SystemTime::now());
    assert!(remaining > DAY - Duration::from_secs(60) && remaining <= DAY);
    assert_eq!(identity.fingerprint().to_string().len(), 64);
}

#[test]
fn unusable_files_are_described() {
    let (cert, key) = pair();
    let (other, _) = pair();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n";
    let old =
        "-----BEGIN EC PRIVATE KEY-----\nProc-Type: 4,ENCRYPTED\n\nAAAA\n-----END EC PRIVATE KEY-----\n";
    let dsa = "-----BEGIN DSA PRIVATE KEY-----\nAAAA\n-----END DSA PRIVATE KEY-----\n";
    let reversed = format!("{other}{cert}");
    for (cert, key, expected) in [
        (
            &other[..],
            &key[..],
            "the private key in key.pem does not belong to the certificate in cert.pem; name",
        ),
        (
            &reversed,
            &key,
            "the private key in key.pem does not belong to the certificate in cert.pem; it belongs to certificate 2 of that file: put that one first",
        ),
        ("hello", &key, "no certificate in cert.pem; expected PEM, with a line -----BEGIN CERTIFICATE-----"),
        ("", &key, "no certificate in cert.pem: the file is empty; "),
        (
            &key,
            &cert,
            "no certificate in cert.pem: it holds a private key; are `tls.cert` and `tls.key` swapped?",
        ),
        (
            &cert,
            &cert,
            "no private key in key.pem: it holds a certificate; are `tls.cert` and `tls.key` swapped?",
        ),
        (
            &cert,
            encrypted,
            "no private key in key.pem that can be used: it is encrypted; decrypt it (`openssl pkey",
        ),
        (&cert, old, "no private key in key.pem that can be used: it is encrypted; "),
        (&cert, dsa, "no private key in key.pem that can be used: it is a DSA key; "),
        (&cert, "hello", "no private key in key.pem; expected PEM, with a line -----BEGIN PRIVATE KEY-----"),
        (broken, &key, "cert.pem is not valid PEM: "),
    ] {
        let said = Files::new(cert, key).refusal();
        assert!(said.starts_with(expected), "{said}");
    }
}

/// Warnings about a PEM pair whose key file has these permissions.
fn doubts(cert: &str, key: &str, mode: u32) -> Vec<String> {
    let files = Files::new(cert, key);
    let path = |name: &str| files.folder.path().join(name);
    fs::set_permissions(path("key.pem"), fs::Permissions::from_mode(mode)).unwrap();
    let now = SystemTime::now();
    let all = warnings(&files.load().unwrap(), &path("cert.pem"), &path("key.pem"), now);
    let folder = format!("{}/", files.folder.path().display());
    all.into_iter().map(|doubt| doubt.problem.replace(&folder, "")).collect()
}

#[test]
fn warnings_about_a_usable_pair() {
    let far = SystemTime::now() + 90 * DAY;
    let issuer_key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
    params.distinguished_name.push(rcgen::DnType::CommonName, "an issuer");
    let issuer_pem = params.self_signed(&issuer_key).unwrap().pem();
    let issuer = rcgen::Issuer::new(params, issuer_key);
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec!["relay.example".to_owned()]).unwrap();
    params.not_after = far.into();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let leaf = params.signed_by(&key, &issuer).unwrap().pem();
    let key = key.serialize_pem();
    assert_eq!(doubts(&format!("{leaf}{issuer_pem}"), &key, 0o640), [""; 0]);
    let alone = doubts(&leaf, &key, 0o600);
    assert_eq!(alone.len(), 1);
    assert!(
        alone[0].starts_with("the chain in cert.pem is incomplete: ") && alone[0].contains("an issuer"),
        "{alone:?}"
    );
    assert_eq!(
        doubts(&format!("{leaf}{issuer_pem}"), &key, 0o604),
        ["every user of this machine can read the private key in key.pem"]
    );
    let (soon, key) = pair();
    let soon = doubts(&soon, &key, 0o600);
    assert!(soon[0].starts_with("the certificate in cert.pem expires on 20"), "{soon:?}");
    assert_eq!(soon.len(), 1, "a self-signed one stands alone");
}

fn localhost() -> Vec<String> {
    vec!["localhost".to_owned()]
}

#[test]
fn generated_certificate_has_the_requested_names() {
    let made = |names: &[&str]| {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        Identity::generate(&names, SystemTime::now()).map(|identity| identity.names())
    };
    assert_eq!(made(&["relay.lan", "10.0.0.7"]).unwrap(), ["relay.lan", "10.0.0.7"]);
    assert_eq!(made(&["*.lan", "localhost", "::1"]).unwrap(), ["*.lan", "localhost", "::1", "127.0.0.1"]);
    assert!(made(&["bücher"]).is_err());
}

#[test]
fn a_file_that_is_too_large_is_not_read() {
    let (cert, key) = pair();
    let files = Files::new(&cert, &key);
    let large = fs::File::create(files.folder.path().join("cert.pem")).unwrap();
    large.set_len((4 << 20) + 1).unwrap();
    assert!(files.refusal().contains("it is larger than 4 MiB"), "{}", files.refusal());
}

#[test]
fn the_names_of_a_certificate_are_known() {
    let identity = Identity::generate(&localhost(), SystemTime::now()).unwrap();
    assert_eq!(identity.names(), ["localhost", "127.0.0.1", "::1"]);
}

#[test]
fn certificate_outside_its_validity_is_doubtful() {
    let (cert, key) = pair();
    let files = Files::new(&cert, &key);
    let identity = files.load().unwrap();
    let said = |now| ending(&identity, Path::new("cert.pem"), now).unwrap().to_string();
    let late = said(SystemTime::now() + 3 * DAY);
    assert!(late.contains("expired on 20") && late.contains("; renew it (`certbot renew`)"), "{late}");
    let early = said(SystemTime::now() - 3 * DAY);
    assert!(early.contains("; is the clock of this machine right?"), "{early}");
}

#[test]
fn development_certificate_meets_browser_pinning_rules() {
    let identity = Identity::generate(&localhost(), SystemTime::now()).unwrap();
    let certificate = Certificate::from_der(identity.chain[0].as_ref()).unwrap();
    let body = certificate.tbs_certificate();
    let (from, until) = validity(&identity.chain, Path::new("")).unwrap();
    assert!(until.duration_since(from).unwrap() <= 14 * DAY);
    // id-ecPublicKey on secp256r1.
    let algorithm = &body.subject_public_key_info().algorithm;
    assert_eq!(algorithm.oid.to_string(), "1.2.840.10045.2.1");
    let curve: x509_cert::der::asn1::ObjectIdentifier =
        algorithm.parameters.as_ref().unwrap().decode_as().unwrap();
    assert_eq!(curve.to_string(), "1.2.840.10045.3.1.7");
    let (_, names) = body.get_extension::<SubjectAltName>().unwrap().unwrap();
    assert_eq!(names.0.len(), 3);
    identity.certified().unwrap();
}

#[test]
fn the_stable_secret_depends_on_the_key_alone() {
    let (cert, key) = pair();
    let files = Files::new(&cert, &key);
    let first = files.load().unwrap();
    let second = files.load().unwrap();
    assert_eq!(first.stable_secret(), second.stable_secret());
    let other = Identity::generate(&localhost(), SystemTime::now()).unwrap();
    assert_ne!(first.stable_secret(), other.stable_secret());
    assert_ne!(first.stable_secret(), [0; 32]);
}
