//! Promise: problems with server or client certificates are reported to the log and the service manager.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::net::UnixDatagram,
    path::PathBuf,
    sync::Arc,
    time::Instant,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use relay_client::quinn::{self, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer},
};
use tempfile::TempDir;

use common::{PATIENCE, Running, file, free_address, relay, run};

/// An authority and its certificate in PEM.
fn authority(name: &str) -> (Issuer<'static, KeyPair>, String, CertificateDer<'static>) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.distinguished_name.push(DnType::CommonName, name);
    let key = KeyPair::generate().unwrap();
    let root = params.self_signed(&key).unwrap();
    (Issuer::new(params, key), root.pem(), root.der().clone())
}

/// A relay with a certificate for localhost, and client authorities.
struct Bench {
    folder: TempDir,
    address: String,
    root: CertificateDer<'static>,
}

impl Bench {
    fn new(roots: &str) -> Self {
        let (issuer, _, root) = authority("of servers");
        let key = KeyPair::generate().unwrap();
        let leaf =
            CertificateParams::new(vec!["localhost".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
        let (folder, path) = file("");
        let address = free_address();
        let bench = Self { folder, address, root };
        bench.write("cert.pem", &leaf.pem());
        bench.write("key.pem", &key.serialize_pem());
        bench.write("root.pem", roots);
        let [cert, key, root] = ["cert.pem", "key.pem", "root.pem"].map(|name| bench.path(name));
        let text = format!(
            "server.bind = {:?}\ntls = {{ cert = {cert:?}, key = {key:?}, root = {root:?} }}\nauth.public = \"\"\n",
            bench.address
        );
        fs::write(path, text).unwrap();
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).unwrap();
    }

    /// Connects with a client certificate.
    async fn show(&self, cert: CertificateDer<'static>, key: &KeyPair) -> quinn::ConnectionError {
        let mut roots = RootCertStore::empty();
        roots.add(self.root.clone()).unwrap();
        let mut tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .with_root_certificates(roots)
            .with_client_auth_cert(vec![cert], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
            .unwrap();
        tls.alpn_protocols = vec![b"moq-lite-05".to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).unwrap()));
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).unwrap();
        let address: SocketAddr = self.address.parse().unwrap();
        match endpoint.connect_with(config, address, "localhost").unwrap().await {
            Ok(connection) => connection.closed().await,
            Err(error) => error,
        }
    }
}

#[test]
fn unverified_client_certificate_is_logged() {
    run(async {
        let (_, roots, _) = authority("of clients");
        let (other, ..) = authority("of\nnobody");
        let bench = Bench::new(&roots);
        let relay = Running::start(relay().arg(bench.path("relay.toml")));
        relay.line_with("serving");
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec!["edge.example".to_owned()]).unwrap();
        let cert = params.signed_by(&key, &other).unwrap().der().clone();
        let refused = bench.show(cert, &key).await.to_string();
        assert!(refused.contains("invalid peer certificate"), "the client receives the reason: {refused}");
        let line = relay.line_with("does not verify against `tls.root`");
        for part in ["WARN", "edge.example", "UnknownIssuer", "nobody"] {
            assert!(line.contains(part), "{part} in {line}");
        }
    });
}

#[test]
fn service_manager_status_names_unusable_files() {
    let (_, roots, _) = authority("of clients");
    let bench = Bench::new(&roots);
    let path = bench.path("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let relay = Running::start(relay().arg(bench.path("relay.toml")).env("NOTIFY_SOCKET", &path));
    relay.line_with("serving");
    let heard = |text: &str| {
        let mut buffer = [0; 2_048];
        let began = Instant::now();
        while began.elapsed() < PATIENCE {
            let len = socket.recv(&mut buffer).expect("a message in time");
            let message = String::from_utf8_lossy(&buffer[..len]).into_owned();
            if message.contains(text) {
                return message;
            }
        }
        panic!("{text} is not reported");
    };
    bench.write("root.pem", "torn");
    let status = heard("no certificate in ");
    assert!(status.starts_with("STATUS=serving 0 sessions") && status.contains("root.pem"), "{status}");
    relay.line_with("keeping the previous client authorities");
    bench.write("root.pem", &roots);
    relay.line_with("files match the certificate in use again");
    assert!(!heard("STATUS=serving").contains("root.pem"));
}
