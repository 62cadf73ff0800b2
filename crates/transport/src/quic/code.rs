//! Application codes on QUIC: the WebTransport error space, on raw sessions as well.

use quinn_proto::VarInt;
use relay_model::{SessionCode, StreamCode};
use web_transport_proto::{error_from_http3, error_to_http3};

/// HTTP/3 codes we send (RFC 9114 section 8.1, draft-ietf-webtrans-http3 section 9.5).
pub(super) mod h3 {
    /// Nothing wrong.
    pub(in crate::quic) const NO_ERROR: u32 = 0x100;
    /// A stream of a type that may not exist, or twice.
    pub(in crate::quic) const STREAM_CREATION: u32 = 0x103;
    /// More than a sane peer sends.
    pub(in crate::quic) const EXCESSIVE_LOAD: u32 = 0x107;
    /// SETTINGS that contradict themselves.
    pub(in crate::quic) const SETTINGS: u32 = 0x109;
    /// The control stream did not start with SETTINGS.
    pub(in crate::quic) const MISSING_SETTINGS: u32 = 0x10a;
    /// A request we did not look at.
    pub(in crate::quic) const REQUEST_REJECTED: u32 = 0x10b;
    /// A request that ended early.
    pub(in crate::quic) const REQUEST_INCOMPLETE: u32 = 0x10d;
    /// A stream of a WebTransport session that is not there.
    pub(in crate::quic) const BUFFERED_STREAM_REJECTED: u32 = 0x3994_bd84;
}

/// A stream code as QUIC carries it.
pub(super) fn stream_to_wire(code: StreamCode) -> VarInt {
    to_wire(code.0)
}

/// A session code as QUIC carries it.
pub(super) fn session_to_wire(code: SessionCode) -> VarInt {
    to_wire(code.0)
}

/// The stream code of a reset or a stop. Codes outside the WebTransport space come from other
/// stacks: small ones are taken as they are. Those of the old registry become present ones.
pub(super) fn stream_from_wire(code: VarInt) -> StreamCode {
    from_wire(code).map_or(StreamCode::INTERNAL, StreamCode::from_peer)
}

/// The session code of an application close.
pub(super) fn session_from_wire(code: VarInt) -> SessionCode {
    match from_wire(code) {
        Some(h3::NO_ERROR) => SessionCode::NONE,
        Some(code) => SessionCode(code),
        None => SessionCode::INTERNAL,
    }
}

fn to_wire(code: u32) -> VarInt {
    VarInt::from_u64(error_to_http3(code)).unwrap_or(VarInt::MAX)
}

fn from_wire(code: VarInt) -> Option<u32> {
    let code = code.into_inner();
    error_from_http3(code).or_else(|| u32::try_from(code).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_survive_the_wire() {
        for code in [0, 1, 0x1d, 0x1e, 0x1f, 0x33, 64, 0xffff_ffff] {
            assert_eq!(stream_from_wire(stream_to_wire(StreamCode(code))), StreamCode::from_peer(code));
            assert_eq!(session_from_wire(session_to_wire(SessionCode(code))), SessionCode(code));
        }
    }

    #[test]
    fn codes_of_other_stacks_mean_something() {
        assert_eq!(stream_from_wire(VarInt::from_u32(1)), StreamCode::CANCEL);
        assert_eq!(stream_from_wire(VarInt::from_u32(13)), StreamCode::NOT_FOUND, "of the old registry");
        assert_eq!(stream_from_wire(VarInt::MAX), StreamCode::INTERNAL);
        assert_eq!(session_from_wire(VarInt::from_u32(h3::NO_ERROR)), SessionCode::NONE);
    }
}
