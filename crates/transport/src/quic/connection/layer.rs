//! Layer between the QUIC streams and the session of a connection.

use bytes::Bytes;
use quinn_proto::StreamId;
use relay_model::SessionCode;

use super::QuicLink;
use crate::quic::{
    versions::VersionSet,
    webtransport::{ConnectEnd, H3Layer},
};

/// Layer between QUIC streams and the session, selected by ALPN.
pub struct SessionLayer {
    kind: LayerKind,
}

enum LayerKind {
    /// The ALPN is not known yet.
    Unknown,
    /// Raw QUIC, with the ALPN.
    Raw(&'static str),
    /// WebTransport.
    H3(Box<H3Layer>),
}

impl SessionLayer {
    /// Creates the layer of a connection whose handshake begins.
    pub(super) fn unknown() -> Self {
        Self { kind: LayerKind::Unknown }
    }

    /// Selects raw QUIC with the protocol `alpn`.
    pub(super) fn set_raw(&mut self, alpn: &'static str) {
        self.kind = LayerKind::Raw(alpn);
    }

    /// Selects HTTP/3 on a server, for WebTransport with one of `versions`.
    pub(super) fn set_h3(&mut self, versions: VersionSet) {
        self.kind = LayerKind::H3(Box::new(H3Layer::new(versions)));
    }

    /// Application protocol: the ALPN on raw QUIC, the subprotocol on WebTransport; the name of a
    /// [`Version`](crate::quic::Version), for clients also [`H3`](crate::quic::H3). `None` before `Ready`.
    pub fn protocol(&self) -> Option<&'static str> {
        match &self.kind {
            LayerKind::Unknown => None,
            LayerKind::Raw(alpn) => Some(alpn),
            LayerKind::H3(h3) => h3.protocol(),
        }
    }

    /// Returns whether the connection carries WebTransport. Valid from `Ready` on.
    pub fn is_webtransport(&self) -> bool {
        matches!(self.kind, LayerKind::H3(_))
    }

    /// Raw path and query of the CONNECT request; `None` on raw QUIC.
    pub fn target(&self) -> Option<&str> {
        self.h3()?.target()
    }

    /// `origin` header of the CONNECT request.
    pub fn origin(&self) -> Option<&str> {
        self.h3()?.origin()
    }

    /// Takes the end of a WebTransport session; returned once.
    #[inline]
    pub(super) fn take_end(&mut self) -> Option<ConnectEnd> {
        match &mut self.kind {
            LayerKind::H3(h3) => h3.take_end(),
            LayerKind::Unknown | LayerKind::Raw(_) => None,
        }
    }

    /// The HTTP/3 layer, if there is one.
    #[inline]
    pub(super) fn h3(&self) -> Option<&H3Layer> {
        match &self.kind {
            LayerKind::H3(h3) => Some(h3),
            LayerKind::Unknown | LayerKind::Raw(_) => None,
        }
    }

    /// Runs `act` on the HTTP/3 layer, whose few writes are exempt from the valve; `None` without one.
    #[inline]
    pub(super) fn with_h3<R>(
        &mut self,
        link: &mut QuicLink,
        act: impl FnOnce(&mut H3Layer, &mut quinn_proto::Connection) -> R,
    ) -> Option<R> {
        let LayerKind::H3(h3) = &mut self.kind else { return None };
        Some(link.unlimited(|quic| act(h3, quic)))
    }

    /// Handles a stream opened by the peer; returns whether it belongs to the session.
    pub(super) fn accepted(&mut self, link: &mut QuicLink, id: StreamId) -> bool {
        self.with_h3(link, |h3, quic| h3.accepted(quic, id)).unwrap_or(true)
    }

    /// Writes bytes that must precede the session's on a stream; returns whether some are left.
    #[inline]
    pub(super) fn is_blocked(&mut self, link: &mut QuicLink, id: StreamId) -> bool {
        if self.h3().is_some_and(|h3| h3.owes(id)) {
            self.with_h3(link, |h3, quic| h3.flush(quic));
            return self.h3().is_some_and(|h3| h3.owes(id));
        }
        false
    }

    /// Finishes a stream whose prefix is still to be written; returns whether that applies.
    #[inline]
    pub(super) fn finish_owed(&mut self, id: StreamId) -> bool {
        match &mut self.kind {
            LayerKind::H3(h3) => h3.finish_owed(id),
            LayerKind::Unknown | LayerKind::Raw(_) => false,
        }
    }

    /// Drops the prefix of a stream that is being reset.
    #[inline]
    pub(super) fn forget_owed(&mut self, id: StreamId) {
        if let LayerKind::H3(h3) = &mut self.kind {
            h3.forget_owed(id);
        }
    }

    /// Closes the session on its CONNECT stream; `false` if there is none.
    pub(super) fn close(&mut self, link: &mut QuicLink, code: SessionCode, reason: &str) -> bool {
        if self.h3().is_none_or(|h3| h3.protocol().is_none()) {
            return false;
        }
        self.with_h3(link, |h3, quic| h3.close(quic, code, reason));
        true
    }

    /// Largest payload in bytes of a datagram of at most `size` bytes; 0: none can be sent.
    #[inline]
    pub(super) fn payload_size(&self, size: usize) -> usize {
        match &self.kind {
            LayerKind::H3(h3) if !h3.datagrams() => 0,
            LayerKind::H3(h3) => size.saturating_sub(h3.datagram_overhead()),
            LayerKind::Unknown | LayerKind::Raw(_) => size,
        }
    }

    /// Adds the session's prefix to a datagram.
    pub(super) fn wrap(&self, datagram: Bytes) -> Option<Bytes> {
        match &self.kind {
            LayerKind::H3(h3) => h3.wrap(&datagram),
            LayerKind::Unknown | LayerKind::Raw(_) => Some(datagram),
        }
    }

    /// Removes the session's prefix from a datagram; `None` if it is not of the session.
    pub(super) fn unwrap(&self, datagram: Bytes) -> Option<Bytes> {
        match &self.kind {
            LayerKind::H3(h3) => h3.unwrap(datagram),
            LayerKind::Unknown | LayerKind::Raw(_) => Some(datagram),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raw_quic_changes_no_datagram() {
        let mut layer = SessionLayer::unknown();
        assert_eq!(layer.protocol(), None);
        layer.set_raw("moq-lite-05");
        let datagram = Bytes::from_static(b"abc");
        assert_eq!(layer.wrap(datagram.clone()), Some(datagram.clone()));
        assert_eq!(layer.unwrap(datagram.clone()), Some(datagram));
        assert_eq!((layer.payload_size(1_200), layer.protocol()), (1_200, Some("moq-lite-05")));
    }

    #[test]
    fn webtransport_has_no_datagrams_before_settings() {
        let mut layer = SessionLayer::unknown();
        layer.set_h3(VersionSet::ALL);
        assert_eq!((layer.payload_size(1_200), layer.protocol()), (0, None));
        assert!(layer.is_webtransport() && layer.target().is_none());
        assert_eq!(layer.wrap(Bytes::from_static(b"abc")), None);
    }
}
