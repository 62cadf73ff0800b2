//! Application protocol of a connection, agreed before it or in its transport parameters.

use crate::qmux::params;

/// Negotiation of the application protocol.
#[derive(Debug)]
pub(super) struct ProtocolChoice {
    is_client: bool,
    protocol: Option<&'static str>,
    /// Own list, when the protocol is negotiated in-band.
    offered: &'static [&'static str],
}

impl ProtocolChoice {
    /// Creates the negotiation of an end that offers `offered`, unless `protocol` is agreed already.
    pub(super) fn new(
        is_client: bool,
        protocol: Option<&'static str>,
        offered: &'static [&'static str],
    ) -> Self {
        Self { is_client, protocol, offered: if protocol.is_none() { offered } else { &[] } }
    }

    /// Agreed protocol.
    pub(super) fn protocol(&self) -> Option<&'static str> {
        self.protocol
    }

    /// Own list of protocols for the transport parameters.
    pub(super) fn offered(&self) -> &'static [&'static str] {
        self.offered
    }

    /// Applies the peer's list; `false` if none is in common. Without a list on either side, the session negotiates.
    pub(super) fn agree(&mut self, peer: &[Box<[u8]>]) -> bool {
        if self.offered.is_empty() || peer.is_empty() {
            return true;
        }
        self.protocol = params::agree(self.offered, peer, self.is_client);
        self.protocol.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn protocol_in_common_is_agreed() {
        let mut choice = ProtocolChoice::new(false, None, &["a", "b"]);
        assert!(choice.agree(&[]) && choice.protocol().is_none(), "left to the session");
        assert!(choice.agree(&[Box::from(&b"b"[..])]));
        assert_eq!(choice.protocol(), Some("b"));
        assert!(!choice.agree(&[Box::from(&b"c"[..])]));
    }

    #[test]
    fn protocol_agreed_before_is_not_offered() {
        let mut choice = ProtocolChoice::new(true, Some("a"), &["a", "b"]);
        assert!(choice.offered().is_empty() && choice.agree(&[Box::from(&b"b"[..])]));
        assert_eq!(choice.protocol(), Some("a"));
    }
}
