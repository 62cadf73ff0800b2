//! Certificates in files, a relay that watches them, and clients that check the certificate they are shown.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use relay_certificate::{CertificateStore, Watcher};
use relay_client::quinn::{
    self,
    crypto::rustls::QuicClientConfig,
    rustls::{
        self, RootCertStore,
        client::Resumption,
        crypto::aws_lc_rs::default_provider,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};
use relay_config::{CertFiles, Tls};
use relay_wire::lite::{Setup, UniType};
use tempfile::TempDir;

use crate::{
    peer::{encoded, number},
    relay::TestRelay,
    within,
};

const ALPN: &[u8] = b"moq-lite-05";
/// One day.
pub const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Certificate authority.
pub struct Authority {
    /// Root certificate.
    pub root: CertificateDer<'static>,
    pem: String,
    issuer: rcgen::Issuer<'static, rcgen::KeyPair>,
}

/// A certificate and its key.
#[derive(Clone, Debug)]
pub struct Issued {
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// The certificate as PEM.
    pub cert: String,
    /// The key as PEM.
    pub key: String,
    key_der: Vec<u8>,
}

impl Authority {
    /// Creates an authority of this name.
    pub fn new(name: &str) -> Self {
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        let key = rcgen::KeyPair::generate().expect("a key");
        let root = params.self_signed(&key).expect("a certificate");
        Self { root: root.der().clone(), pem: root.pem(), issuer: rcgen::Issuer::new(params, key) }
    }

    /// Root certificate as PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Issues a certificate for these names that is valid for 90 days.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_until(names, SystemTime::now() + DAY * 90)
    }

    /// Issues a certificate that is valid until `end`.
    pub fn issue_until(&self, names: &[&str], end: SystemTime) -> Issued {
        let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
        let mut params = rcgen::CertificateParams::new(names).expect("names");
        params.not_after = end.into();
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        let der = made.der().clone();
        Issued { der, cert: made.pem(), key: key.serialize_pem(), key_der: key.serialize_der() }
    }
}

/// A relay that reads its certificates from files, and reloads them, as the binary does.
pub struct Served {
    /// The relay.
    pub relay: TestRelay,
    folder: TempDir,
    _watcher: Watcher,
}

impl Served {
    /// Starts a relay with these certificates in files `cert0.pem`, `key0.pem` and so on, and the authority of client
    /// certificates in `root.pem`.
    pub fn start(shown: &[&Issued], authority: Option<&Authority>) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = |name: String| folder.path().join(name);
        let mut pairs = Vec::new();
        for (at, issued) in shown.iter().enumerate() {
            let pair = CertFiles { cert: path(format!("cert{at}.pem")), key: path(format!("key{at}.pem")) };
            fs::write(&pair.cert, &issued.cert).expect("a file");
            fs::write(&pair.key, &issued.key).expect("a file");
            pairs.push(pair);
        }
        let mut roots = Vec::new();
        if let Some(authority) = authority {
            roots.push(path("root.pem".to_owned()));
            fs::write(&roots[0], authority.pem()).expect("a file");
        }
        let store =
            CertificateStore::open(&Tls::Files(pairs), &roots, SystemTime::now()).expect("good files");
        let relay = TestRelay::with(2, |options| store.configure(options));
        let watcher = Watcher::start(store, Arc::default()).expect("a thread");
        Self { relay, folder, _watcher: watcher }
    }

    /// Path of one of its files.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Overwrites one of its files in place.
    pub fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("a file");
    }

    /// Replaces one of its files by a rename.
    pub fn replace(&self, name: &str, text: &str) {
        let aside = self.path("aside");
        fs::write(&aside, text).expect("a file");
        fs::rename(aside, self.path(name)).expect("a rename");
    }

    /// Replaces one of its files by a symbolic link to a new file with this text, as certbot does.
    pub fn turn(&self, name: &str, to: &str, text: &str) {
        fs::write(self.path(to), text).expect("a file");
        let aside = self.path("aside");
        std::os::unix::fs::symlink(Path::new(to), &aside).expect("a link");
        fs::rename(aside, self.path(name)).expect("a rename");
    }

    /// Listen address.
    pub fn addr(&self) -> SocketAddr {
        let port = self.relay.port();
        SocketAddr::from((Ipv4Addr::LOCALHOST, port))
    }

    /// Waits until clients that ask for `name` are shown `expected`.
    pub async fn wait_shown(&self, visitor: &Visitor, name: &str, expected: &Issued) {
        let deadline = tokio::time::Instant::now() + Duration::from_secs(15);
        loop {
            let visit = visitor.visit(self.addr(), name).await.expect("a session");
            if visit.leaf == expected.der {
                return;
            }
            assert!(tokio::time::Instant::now() < deadline, "another certificate is shown to {name}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Client that checks the relay's certificate.
pub struct Visitor {
    endpoint: quinn::Endpoint,
    config: quinn::ClientConfig,
}

/// An admitted session.
pub struct Visit {
    /// Its connection.
    pub connection: quinn::Connection,
    /// The certificate that the relay presented.
    pub leaf: CertificateDer<'static>,
}

impl Visitor {
    /// Creates a client that trusts `authority` only, and presents a client certificate if it has one. `resumes`:
    /// whether it keeps session tickets.
    pub fn new(authority: &Authority, shows: Option<&Issued>, resumes: bool) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(authority.root.clone()).expect("a root");
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_root_certificates(roots);
        let mut tls = match shows {
            None => builder.with_no_client_auth(),
            Some(issued) => builder
                .with_client_auth_cert(
                    vec![issued.der.clone()],
                    PrivatePkcs8KeyDer::from(issued.key_der.clone()).into(),
                )
                .expect("a pair"),
        };
        tls.alpn_protocols = vec![ALPN.to_vec()];
        if !resumes {
            tls.resumption = Resumption::disabled();
        }
        let crypto = QuicClientConfig::try_from(tls).expect("a suite");
        let endpoint = quinn::Endpoint::client((Ipv4Addr::LOCALHOST, 0).into()).expect("a socket");
        Self { endpoint, config: quinn::ClientConfig::new(Arc::new(crypto)) }
    }

    /// Connects with this server name and waits until the relay has admitted the session; the error of a failed
    /// connection.
    pub async fn visit(&self, to: SocketAddr, name: &str) -> Result<Visit, String> {
        let connecting =
            self.endpoint.connect_with(self.config.clone(), to, name).map_err(|error| error.to_string())?;
        let connection = within("a handshake", 20, connecting).await.map_err(|error| error.to_string())?;
        let chain = connection.peer_identity().and_then(|it| it.downcast::<Vec<CertificateDer<'_>>>().ok());
        let leaf = chain.and_then(|chain| chain.first().cloned()).expect("a certificate was shown");
        // The client's handshake is done before the relay has verified the client certificate; the relay's SETUP is
        // sent after that.
        let setup = Setup {
            path: Some("/".to_owned()),
            hop: Some(relay_client::ClientConfig::default().hop),
            ..Setup::default()
        };
        let said = [number(UniType::Setup.id()), encoded(&setup)].concat();
        let word = async {
            let mut stream = connection.open_uni().await.map_err(|error| error.to_string())?;
            stream.write_all(&said).await.map_err(|error| error.to_string())?;
            stream.finish().map_err(|error| error.to_string())?;
            connection.accept_uni().await.map_err(|error| error.to_string())
        };
        within("a word", 20, word).await?;
        Ok(Visit { connection, leaf })
    }
}
