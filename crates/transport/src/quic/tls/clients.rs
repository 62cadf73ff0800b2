//! Optional client certificates: requested, not required, verified if sent.

use std::sync::{
    Arc, Mutex, PoisonError, RwLock,
    atomic::{AtomicU64, Ordering},
};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, RootCertStore, SignatureScheme,
    client::danger::HandshakeSignatureValid,
    crypto::aws_lc_rs::default_provider,
    pki_types::{CertificateDer, UnixTime},
    server::{
        WebPkiClientVerifier,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};

use super::PeerCertificate;

/// Least interval in seconds between log lines about rejected certificates, which any client can cause.
const LOG_INTERVAL_SECS: u64 = 10;
/// Limit in characters of a logged name from an unverified certificate.
const NAME_CHARS: usize = 128;

/// Error in the trusted roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// A certificate is unusable as a root.
    #[error("certificate {place} cannot be a root ({why})")]
    Unusable {
        /// Position of the certificate, counted from 1.
        place: usize,
        /// Error of the TLS library.
        why: Error,
    },
    /// The list is empty.
    #[error("no certificate")]
    None,
}

/// Verifier of client certificates. A client without a certificate is accepted; a certificate that does not
/// verify fails the handshake.
#[derive(Debug)]
pub struct Clients {
    verifier: RwLock<Arc<dyn ClientCertVerifier>>,
    schemes: Vec<SignatureScheme>,
    /// Time of the last log line in seconds since 1970, and the number of rejections not logged since.
    last_logged: Mutex<Option<u64>>,
    unlogged: AtomicU64,
}

impl Clients {
    /// Creates a verifier that trusts certificates issued under `roots`.
    ///
    /// # Errors
    /// A certificate is unusable as a root, or `roots` is empty.
    pub fn new(roots: &[CertificateDer<'static>]) -> Result<Self, RootsError> {
        let verifier = verifier(roots)?;
        let schemes = verifier.supported_verify_schemes();
        Ok(Self {
            verifier: RwLock::new(verifier),
            schemes,
            last_logged: Mutex::default(),
            unlogged: AtomicU64::new(0),
        })
    }

    /// Replaces the trusted roots from the next handshake on.
    ///
    /// # Errors
    /// Those of [`Clients::new`]; the previous roots stay in use.
    pub fn replace(&self, roots: &[CertificateDer<'static>]) -> Result<(), RootsError> {
        let next = verifier(roots)?;
        *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Logs a rejected certificate, at most once per [`LOG_INTERVAL_SECS`].
    fn refused(&self, leaf: &CertificateDer<'_>, why: &Error, now: UnixTime) {
        let now = now.as_secs();
        let mut said = self.last_logged.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| now.abs_diff(said) < LOG_INTERVAL_SECS) {
            self.unlogged.fetch_add(1, Ordering::Relaxed);
            return;
        }
        *said = Some(now);
        drop(said);
        let unsaid = self.unlogged.swap(0, Ordering::Relaxed);
        let of = PeerCertificate::read(leaf).ok();
        let short = |text: &String| text.chars().take(NAME_CHARS).collect::<String>();
        // Peer-supplied strings are fields, not part of the message: fields are escaped.
        tracing::warn!(
            target: "moq_relay::tls",
            name = of.as_ref().and_then(|of| of.name.as_ref()).map(short),
            issuer = of.as_ref().map(|of| short(&of.issuer)),
            why = %why,
            unsaid,
            "client handshake rejected: its certificate does not verify against `tls.root`"
        );
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// Returns no hints: the roots may change, and a client with a single certificate sends it anyway.
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.current().verify_client_cert(leaf, intermediates, now).and_then(|verified| {
            // A certificate that cannot be parsed must not be treated as an absent one.
            let read = PeerCertificate::read(leaf).map(|_| verified);
            read.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
        });
        verified.inspect_err(|why| self.refused(leaf, why, now))
    }

    /// Used over TCP only: QUIC requires TLS 1.3 (RFC 9001 §4.2).
    fn verify_tls12_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls12_signature(message, leaf, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        leaf: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.current().verify_tls13_signature(message, leaf, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.schemes.clone()
    }
}

fn verifier(roots: &[CertificateDer<'static>]) -> Result<Arc<dyn ClientCertVerifier>, RootsError> {
    let mut store = RootCertStore::empty();
    for (index, root) in roots.iter().enumerate() {
        let unusable = |why| RootsError::Unusable { place: index + 1, why };
        store.add(root.clone()).map_err(unusable)?;
    }
    let provider = Arc::new(default_provider());
    let built = WebPkiClientVerifier::builder_with_provider(Arc::new(store), provider).build();
    // Fails only for an empty store.
    built.map_err(|_| RootsError::None)
}
