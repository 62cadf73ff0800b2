//! Application error codes on QUIC: the WebTransport mapping (draft-ietf-webtrans-http3-13 §4.3), on raw QUIC
//! sessions too, as deployed peers do.

use quinn_proto::VarInt;
use relay_model::{SessionCode, StreamCode};
use web_transport_proto::{error_from_http3, error_to_http3};

/// HTTP/3 error codes sent by the relay (RFC 9114 §8.1, draft-ietf-webtrans-http3-13 §9.5).
pub(super) mod h3 {
    /// H3_NO_ERROR.
    pub(in crate::quic) const NO_ERROR: u32 = 0x100;
    /// H3_STREAM_CREATION_ERROR: an unacceptable stream type, or a second control stream.
    pub(in crate::quic) const STREAM_CREATION: u32 = 0x103;
    /// H3_EXCESSIVE_LOAD: a limit was exceeded.
    pub(in crate::quic) const EXCESSIVE_LOAD: u32 = 0x107;
    /// H3_SETTINGS_ERROR: malformed SETTINGS.
    pub(in crate::quic) const SETTINGS: u32 = 0x109;
    /// H3_MISSING_SETTINGS: the control stream does not start with SETTINGS.
    pub(in crate::quic) const MISSING_SETTINGS: u32 = 0x10a;
    /// H3_REQUEST_REJECTED: a request that was not processed.
    pub(in crate::quic) const REQUEST_REJECTED: u32 = 0x10b;
    /// H3_REQUEST_INCOMPLETE: a request that ended early.
    pub(in crate::quic) const REQUEST_INCOMPLETE: u32 = 0x10d;
    /// WT_BUFFERED_STREAM_REJECTED: a stream of an unknown WebTransport session.
    pub(in crate::quic) const BUFFERED_STREAM_REJECTED: u32 = 0x3994_bd84;
}

/// Maps a stream code to its QUIC error code.
pub(super) fn stream_to_wire(code: StreamCode) -> VarInt {
    to_wire(code.0)
}

/// Maps a session code to its QUIC error code.
pub(super) fn session_to_wire(code: SessionCode) -> VarInt {
    to_wire(code.0)
}

/// Maps the QUIC error code of RESET_STREAM or STOP_SENDING to a stream code. Codes outside the WebTransport
/// range come from other stacks: 32-bit ones are used unmapped. Codes of the old registry are translated.
pub(super) fn stream_from_wire(code: VarInt) -> StreamCode {
    from_wire(code).map_or(StreamCode::INTERNAL, StreamCode::from_peer)
}

/// Maps the QUIC error code of an application close to a session code.
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
