//! Certificates of clients: asked for, not required, verified when shown.

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

/// Refusals are logged this often at most: anybody can bring them about.
const SAY_SECS: u64 = 10;
/// So much of a name is shown of somebody nobody vouches for.
const NAME_CHARS: usize = 128;

/// Why certificates cannot be roots.
#[derive(Debug, thiserror::Error)]
pub enum RootsError {
    /// One of them is of no use.
    #[error("certificate {place} cannot be a root ({why})")]
    Unusable {
        /// Which one, counted from 1.
        place: usize,
        /// What the library says.
        why: Error,
    },
    /// There are none.
    #[error("no certificate")]
    None,
}

/// Whose certificates clients may show. A client that shows none comes in as before; one whose certificate
/// does not verify fails its handshake.
#[derive(Debug)]
pub struct Clients {
    verifier: RwLock<Arc<dyn ClientCertVerifier>>,
    schemes: Vec<SignatureScheme>,
    /// When a refusal was said last, seconds since 1970; and how many were not since.
    said: Mutex<Option<u64>>,
    unsaid: AtomicU64,
}

impl Clients {
    /// Believes what chains up to one of `roots`.
    ///
    /// # Errors
    /// Not all of them can be roots, or there are none.
    pub fn new(roots: &[CertificateDer<'static>]) -> Result<Self, RootsError> {
        let verifier = verifier(roots)?;
        let schemes = verifier.supported_verify_schemes();
        Ok(Self {
            verifier: RwLock::new(verifier),
            schemes,
            said: Mutex::default(),
            unsaid: AtomicU64::new(0),
        })
    }

    /// Believes what chains up to one of these from the next handshake on, and nothing else.
    ///
    /// # Errors
    /// As [`Clients::new`]; what was, stays.
    pub fn replace(&self, roots: &[CertificateDer<'static>]) -> Result<(), RootsError> {
        let next = verifier(roots)?;
        *self.verifier.write().unwrap_or_else(PoisonError::into_inner) = next;
        Ok(())
    }

    fn current(&self) -> Arc<dyn ClientCertVerifier> {
        self.verifier.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Says that a certificate is refused, unless that was said a moment ago.
    fn refused(&self, leaf: &CertificateDer<'_>, why: &Error, now: UnixTime) {
        let now = now.as_secs();
        let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
        if said.is_some_and(|said| now.abs_diff(said) < SAY_SECS) {
            self.unsaid.fetch_add(1, Ordering::Relaxed);
            return;
        }
        *said = Some(now);
        drop(said);
        let unsaid = self.unsaid.swap(0, Ordering::Relaxed);
        let of = PeerCertificate::read(leaf).ok();
        let short = |text: &String| text.chars().take(NAME_CHARS).collect::<String>();
        // Values, not parts of the message: what a peer wrote is escaped.
        tracing::warn!(
            target: "moq_relay::tls",
            name = of.as_ref().and_then(|of| of.name.as_ref()).map(short),
            issuer = of.as_ref().map(|of| short(&of.issuer)),
            why = %why,
            unsaid,
            "the certificate of a client does not verify against `tls.root`: its handshake is refused"
        );
    }
}

impl ClientCertVerifier for Clients {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    /// None: roots may change, and a client with one certificate shows it anyway.
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
            // Whoever cannot be named must not pass for somebody who showed nothing.
            let read = PeerCertificate::read(leaf).map(|_| verified);
            read.map_err(|_| Error::InvalidCertificate(CertificateError::BadEncoding))
        });
        verified.inspect_err(|why| self.refused(leaf, why, now))
    }

    /// Over TCP; QUIC has TLS 1.3 only.
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
    // It refuses an empty store and nothing else.
    built.map_err(|_| RootsError::None)
}
