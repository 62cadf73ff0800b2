use std::fs;

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

    fn load_at(&self, now: SystemTime) -> Result<Identity, Error> {
        Identity::load(&self.folder.path().join("cert.pem"), &self.folder.path().join("key.pem"), now)
    }

    /// The message a person reads, without the folder.
    fn refusal(&self) -> String {
        let message = self.load_at(SystemTime::now()).err().expect("a refusal").to_string();
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
    let identity = Files::new(&cert, &key).load_at(SystemTime::now()).unwrap();
    let remaining = identity.remaining(SystemTime::now());
    assert!(remaining > DAY - Duration::from_secs(60) && remaining <= DAY);
    assert_eq!(identity.fingerprint().to_string().len(), 64);
}

#[test]
fn what_is_wrong_with_the_files_is_said_plainly() {
    let (cert, key) = pair();
    let (other, _) = pair();
    let encrypted = "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n";
    let broken = "-----BEGIN CERTIFICATE-----\n%%%%\n-----END CERTIFICATE-----\n";
    for (cert, key, expected) in [
        (&other[..], &key[..], "the private key in key.pem does not belong to the certificate in cert.pem"),
        ("hello", &key, "no certificate in cert.pem: expected PEM, with a line -----BEGIN CERTIFICATE-----"),
        ("", &key, "no certificate in cert.pem: expected PEM, with a line -----BEGIN CERTIFICATE-----"),
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
            "no private key in key.pem: it is encrypted; decrypt it first, as with `openssl pkey`",
        ),
        (&cert, "", "no private key in key.pem: expected PEM, with a line -----BEGIN PRIVATE KEY-----"),
    ] {
        assert_eq!(Files::new(cert, key).refusal(), expected);
    }
    assert!(Files::new(broken, &key).refusal().starts_with("cert.pem is not valid PEM: "));
    let missing = Identity::load(Path::new("/nonexistent.pem"), Path::new("/x"), SystemTime::now());
    assert_eq!(
        missing.err().unwrap().to_string(),
        "cannot read /nonexistent.pem: No such file or directory (os error 2)"
    );
}

#[test]
fn a_certificate_outside_its_time_is_refused() {
    let (cert, key) = pair();
    let files = Files::new(&cert, &key);
    let late = files.load_at(SystemTime::now() + 3 * DAY).err().unwrap().to_string();
    assert!(late.contains("expired on 20") && late.ends_with(": renew it"), "{late}");
    let early = files.load_at(SystemTime::now() - 3 * DAY).err().unwrap().to_string();
    assert!(early.ends_with("is the clock right?"), "{early}");
}

#[test]
fn a_development_certificate_is_one_that_browsers_pin() {
    let identity = Identity::generate(SystemTime::now()).unwrap();
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
fn a_development_certificate_is_renewed_before_it_ends() {
    let start = SystemTime::now();
    let renewing = Renewing::new(&Identity::generate(start).unwrap()).unwrap();
    assert_eq!(renewing.renew(start + 9 * DAY).unwrap(), None);
    let renewed = renewing.renew(start + 11 * DAY).unwrap();
    assert!(renewed.is_some());
    assert_eq!(renewing.renew(start + 12 * DAY).unwrap(), None);
}

#[test]
fn the_stable_secret_depends_on_the_key_alone() {
    let (cert, key) = pair();
    let files = Files::new(&cert, &key);
    let first = files.load_at(SystemTime::now()).unwrap();
    let second = files.load_at(SystemTime::now() + Duration::from_secs(60)).unwrap();
    assert_eq!(first.stable_secret(), second.stable_secret());
    let other = Identity::generate(SystemTime::now()).unwrap();
    assert_ne!(first.stable_secret(), other.stable_secret());
    assert_ne!(first.stable_secret(), [0; 32]);
}
