//! Results of the QUIC handshake: protocol, address validation, client certificate.

use std::any::Any;

use rustls::pki_types::CertificateDer;

use crate::quic::{H3, PeerCertificate, versions::VersionSet};

/// Handshake of a connection: what it may negotiate, and the facts that it proves.
#[derive(Debug)]
pub(in crate::quic) struct HandshakeState {
    /// Enabled protocol versions.
    versions: VersionSet,
    /// Whether the endpoint counts the connection as a handshake with an unvalidated address.
    is_unvalidated: bool,
    /// Verified client certificate.
    certificate: Option<Box<PeerCertificate>>,
}

impl HandshakeState {
    /// Creates the state of a handshake that begins.
    pub(super) fn new(versions: VersionSet, is_unvalidated: bool) -> Self {
        Self { versions, is_unvalidated, certificate: None }
    }

    /// Enabled protocol versions.
    pub(super) fn versions(&self) -> VersionSet {
        self.versions
    }

    /// Returns the protocol that an ALPN names: [`H3`], or an enabled version.
    pub(super) fn protocol(&self, alpn: &[u8]) -> Option<&'static str> {
        if alpn == H3.as_bytes() { Some(H3) } else { self.versions.named(alpn) }
    }

    /// Stores the client certificate of the TLS session's peer identity; `false` if it cannot be parsed.
    pub(super) fn note_identity(&mut self, identity: Option<Box<dyn Any>>) -> bool {
        let Some(identity) = identity else { return true };
        let chain = identity.downcast::<Vec<CertificateDer<'static>>>().ok();
        self.certificate = chain.and_then(|chain| PeerCertificate::of_chain(&chain)).map(Box::new);
        self.certificate.is_some()
    }

    /// Client certificate, once the handshake is complete.
    pub(super) fn certificate(&self) -> Option<&PeerCertificate> {
        self.certificate.as_deref()
    }

    /// Returns whether the endpoint still counts the connection as an unvalidated handshake.
    pub(in crate::quic) fn is_unvalidated(&self) -> bool {
        self.is_unvalidated
    }

    /// Returns whether the handshake has completed since the last call, for a connection counted as unvalidated.
    #[inline]
    pub(super) fn validate(&mut self, is_handshaking: bool) -> bool {
        let is_proved = self.is_unvalidated && !is_handshaking;
        self.is_unvalidated &= !is_proved;
        is_proved
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_is_validated_once_by_the_handshake() {
        let mut state = HandshakeState::new(VersionSet::ALL, true);
        assert!(!state.validate(true) && state.is_unvalidated());
        assert!(state.validate(false) && !state.is_unvalidated());
        assert!(!state.validate(false));
        assert!(!HandshakeState::new(VersionSet::ALL, false).validate(false));
    }

    #[test]
    fn protocol_is_http3_or_an_enabled_version() {
        let state = HandshakeState::new(VersionSet::ALL, false);
        assert_eq!(state.protocol(b"h3"), Some(H3));
        assert_eq!(state.protocol(b"moq-lite-05"), Some("moq-lite-05"));
        assert_eq!(state.protocol(b"http/1.1"), None);
    }

    #[test]
    fn unreadable_identity_is_refused() {
        let mut state = HandshakeState::new(VersionSet::ALL, false);
        assert!(state.note_identity(None), "no certificate was requested");
        let garbage: Box<dyn Any> = Box::new(vec![CertificateDer::from(vec![1, 2, 3])]);
        assert!(!state.note_identity(Some(garbage)));
        assert!(!state.note_identity(Some(Box::new("not a chain"))));
        assert!(state.certificate().is_none());
    }
}
