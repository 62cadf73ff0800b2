//! Server certificates, client certificates and session resumption.

use relay_model::transport::TransportClosed;
use std::{
    sync::{Mutex, RwLock},
    time::SystemTime,
};

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use rustls::{
    DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, aws_lc_rs::default_provider, verify_tls13_signature},
    pki_types::{ServerName, UnixTime},
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::*;

const ALPN: &[&str] = &["moq-lite-05"];
const HOUR: Duration = Duration::from_secs(3_600);

type Shown = (CertificateDer<'static>, PrivateKeyDer<'static>);

/// Certificate authority.
struct Authority {
    root: CertificateDer<'static>,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let root = params.self_signed(&key).unwrap().der().clone();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// Issues a certificate that is valid until `end`.
    fn issue(&self, name: &str, end: SystemTime) -> Shown {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = end.into();
        let key = KeyPair::generate().unwrap();
        let made = params.signed_by(&key, &self.issuer).unwrap();
        (made.der().clone(), PrivatePkcs8KeyDer::from(key.serialize_der()).into())
    }
}

/// Resolver of a replaceable certificate.
#[derive(Debug)]
struct Resolver(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.read().unwrap().clone())
    }
}

fn certified((cert, key): Shown) -> Arc<CertifiedKey> {
    Arc::new(CertifiedKey::from_der(vec![cert], key, &default_provider()).unwrap())
}

/// Verifier that accepts and records every certificate. A resumed session does not verify one.
#[derive(Debug)]
struct Noting {
    seen: Mutex<Vec<CertificateDer<'static>>>,
    provider: CryptoProvider,
}

impl ServerCertVerifier for Noting {
    fn verify_server_cert(
        &self,
        leaf: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        self.seen.lock().unwrap().push(leaf.clone().into_owned());
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        unreachable!("not offered")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, leaf, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

/// Client that can resume sessions, with an optional certificate.
struct Dialler {
    config: OutgoingConfig,
    noting: Arc<Noting>,
}

impl Dialler {
    fn new(shown: Option<Shown>) -> Self {
        let noting = Arc::new(Noting { seen: Mutex::default(), provider: default_provider() });
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
            .with_protocol_versions(&[&rustls::version::TLS13])
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(noting.clone());
        let mut tls = match shown {
            None => builder.with_no_client_auth(),
            Some((cert, key)) => builder.with_client_auth_cert(vec![cert], key).unwrap(),
        };
        tls.alpn_protocols = ALPN.iter().map(|name| name.as_bytes().to_vec()).collect();
        Self { config: OutgoingConfig::new(tls, &QuicTuning::default()).unwrap(), noting }
    }

    /// Connects, and runs until the handshake has finished or failed.
    fn dial(&self, pair: &mut Pair) -> (ConnKey, ConnKey) {
        let addr = pair.server.addr;
        let client = pair.client.endpoint.connect(pair.now, &self.config, addr, "localhost").unwrap();
        pair.run(Duration::from_millis(150));
        (client, *pair.server.accepted.last().expect("accepted"))
    }

    /// Starts a connection of which the server receives only the first packet.
    fn begin(&self, pair: &mut Pair) {
        let addr = pair.server.addr;
        pair.client.endpoint.connect(pair.now, &self.config, addr, "localhost").unwrap();
        pair.run(pair.latency + Duration::from_millis(1));
    }

    /// Number of full handshakes.
    fn seen(&self) -> usize {
        self.noting.seen.lock().unwrap().len()
    }

    fn last(&self) -> CertificateDer<'static> {
        self.noting.seen.lock().unwrap().last().cloned().expect("one was seen")
    }
}

fn pair_with(tls: ServerTls) -> Pair {
    let mut pair = Pair::new();
    let config = QuicConfig::new(tls, &SECRET, 4, &QuicTuning::default()).unwrap();
    pair.server.endpoint = Endpoint::new(&config, WorkerId(1), true, Some([2; 32]));
    pair
}

/// Creates a pair whose server requests client certificates of `authority`; returns its verifier too.
fn asking(authority: &Authority) -> (Pair, Arc<Clients>) {
    let clients = Arc::new(Clients::new(std::slice::from_ref(&authority.root)).unwrap());
    let (cert, key) = identity();
    let tls = ServerTls { clients: Some(clients.clone()), ..certificate(vec![cert], key).unwrap().into() };
    (pair_with(tls), clients)
}

fn assert_refused(pair: &mut Pair, client: ConnKey, server: ConnKey) {
    assert!(
        matches!(
            pair.client_events(client)[..],
            [TransportEvent::Ready, TransportEvent::Closed(TransportClosed::Lost(_))]
        ),
        "the client is notified"
    );
    let events = pair.server_events(server);
    assert!(!events.contains(&TransportEvent::Ready), "{events:?}");
}

#[test]
fn a_client_that_shows_a_certificate_is_known_by_it() {
    let authority = Authority::new("an authority");
    let (mut pair, _) = asking(&authority);
    let end = SystemTime::UNIX_EPOCH + Duration::from_secs(4_000_000_000);
    let (_, server) = Dialler::new(Some(authority.issue("edge.example", end))).dial(&mut pair);
    assert_eq!(pair.server.conn(server).phase(), ConnPhase::Ready);
    let peer = pair.server.conn(server).peer_certificate().cloned().expect("a certificate");
    assert_eq!(peer.name.as_deref(), Some("edge.example"));
    assert_eq!(peer.not_after, end);
    assert!(peer.issuer.contains("CN=an authority"), "{}", peer.issuer);
}

#[test]
fn a_client_that_shows_none_comes_in_and_is_nobody() {
    let (mut pair, _) = asking(&Authority::new("an authority"));
    let (client, server) = Dialler::new(None).dial(&mut pair);
    assert_eq!(pair.server.conn(server).phase(), ConnPhase::Ready);
    assert_eq!(pair.server.conn(server).peer_certificate(), None);
    assert_eq!(pair.client.conn(client).peer_certificate(), None, "a server is no client");
}

#[test]
fn a_client_whose_certificate_does_not_verify_is_refused() {
    let authority = Authority::new("an authority");
    let (mut pair, _) = asking(&authority);
    let far = SystemTime::now() + HOUR;
    let of_another = Authority::new("an authority").issue("edge.example", far);
    let expired = authority.issue("edge.example", SystemTime::now() - HOUR);
    let (_, wrong_key) = authority.issue("edge.example", far);
    for (shown, what) in [(of_another, "of another"), (expired, "expired")] {
        let (client, server) = Dialler::new(Some(shown)).dial(&mut pair);
        assert_refused(&mut pair, client, server);
        assert_eq!(pair.server.conn(server).peer_certificate(), None, "{what}");
    }
    let (good, _) = authority.issue("edge.example", far);
    let tls = rustls::ClientConfig::builder_with_provider(Arc::new(default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_client_auth_cert(vec![good], wrong_key);
    assert!(tls.is_err(), "the library of the client does not even try");
}

#[test]
fn new_roots_count_from_the_next_handshake_on() {
    let (old, new) = (Authority::new("the old one"), Authority::new("the new one"));
    let (mut pair, clients) = asking(&old);
    let end = SystemTime::now() + HOUR;
    let of_old = Dialler::new(Some(old.issue("edge.example", end)));
    let of_new = Dialler::new(Some(new.issue("edge.example", end)));
    let (_, kept) = of_old.dial(&mut pair);
    let (client, server) = of_new.dial(&mut pair);
    assert_refused(&mut pair, client, server);
    clients.replace(std::slice::from_ref(&new.root)).unwrap();
    let (_, server) = of_new.dial(&mut pair);
    assert!(pair.server.conn(server).peer_certificate().is_some());
    let (client, server) = of_old.dial(&mut pair);
    assert_refused(&mut pair, client, server);
    assert_eq!(pair.server.conn(kept).phase(), ConnPhase::Ready, "open connections stay");
    assert!(matches!(clients.replace(&[]), Err(RootsError::None)));
    let broken = clients.replace(&[new.root.clone(), CertificateDer::from(&b"x"[..])]);
    assert!(matches!(broken, Err(RootsError::Unusable { place: 2, .. })));
    let (_, server) = of_new.dial(&mut pair);
    assert!(pair.server.conn(server).peer_certificate().is_some(), "unusable roots change nothing");
}

#[test]
fn client_authentication_disables_resumption() {
    let authority = Authority::new("an authority");
    let (mut pair, _) = asking(&authority);
    let dialler = Dialler::new(Some(authority.issue("edge.example", SystemTime::now() + HOUR)));
    for times in 1..=3 {
        let (_, server) = dialler.dial(&mut pair);
        assert_eq!(dialler.seen(), times, "a whole handshake each time");
        assert!(pair.server.conn(server).peer_certificate().is_some());
    }
}

#[test]
fn who_could_resume_sees_a_new_certificate_all_the_same() {
    let authority = Authority::new("an authority");
    let made = || authority.issue("localhost", SystemTime::now() + HOUR);
    let (first, second) = (made(), made());
    let newest = second.0.clone();
    let resolver = Arc::new(Resolver(RwLock::new(certified(first))));
    let tls = ServerTls::from(resolver.clone() as Arc<dyn ResolvesServerCert>);
    let tickets = tls.tickets.clone();
    let mut pair = pair_with(tls);
    let dialler = Dialler::new(None);
    dialler.dial(&mut pair);
    dialler.dial(&mut pair);
    assert_eq!(dialler.seen(), 1, "the second was resumed");
    *resolver.0.write().unwrap() = certified(second);
    tickets.renew().unwrap();
    let (_, server) = dialler.dial(&mut pair);
    assert_eq!(pair.server.conn(server).phase(), ConnPhase::Ready);
    assert_eq!((dialler.seen(), dialler.last()), (2, newest));
    dialler.dial(&mut pair);
    assert_eq!(dialler.seen(), 2, "and resumes again");
}

#[test]
fn a_handshake_that_a_new_certificate_overtakes_is_not_resumed() {
    let authority = Authority::new("an authority");
    let made = || authority.issue("localhost", SystemTime::now() + HOUR);
    let (first, second) = (made(), made());
    let (oldest, newest) = (first.0.clone(), second.0.clone());
    let resolver = Arc::new(Resolver(RwLock::new(certified(first))));
    let tls = ServerTls::from(resolver.clone() as Arc<dyn ResolvesServerCert>);
    let tickets = tls.tickets.clone();
    let mut pair = pair_with(tls);
    let dialler = Dialler::new(None);
    dialler.begin(&mut pair);
    *resolver.0.write().unwrap() = certified(second);
    tickets.renew().unwrap();
    pair.run(Duration::from_millis(150));
    assert_eq!((dialler.seen(), dialler.last()), (1, oldest), "it began before");
    dialler.dial(&mut pair);
    assert_eq!((dialler.seen(), dialler.last()), (2, newest));
}
