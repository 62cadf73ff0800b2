//! Log lines about sessions. Each carries the session's id as `session`; none is written per packet, frame or
//! group.

use std::time::{Duration, Instant};

use relay_auth::Permit;
use relay_model::{
    SessionCode, SessionId,
    transport::{Transport, TransportClosed},
};

use super::carrier::Conn;
use crate::{admission::CloseReason, gate::EndedBy};

/// Log target of these lines: `RUST_LOG=info,moq_relay::session=debug` shows them alone. Peer-controlled text
/// is a field of its own, never part of a message: both formats escape fields.
pub const SESSIONS: &str = "moq_relay::session";

/// Logs an admitted session. The path is the permitted one, never the request with its token.
pub(super) fn accepted(id: SessionId, conn: &Conn<'_>, permit: &Permit) {
    tracing::debug!(
        target: SESSIONS,
        session = %id,
        peer = %conn.remote(),
        transport = conn.transport(),
        version = conn.protocol(),
        path = permit.root().as_str(),
        subject = permit.subject(),
        "accepted"
    );
}

/// Logs a refused connection.
pub(super) fn refused(id: SessionId, conn: Option<&Conn<'_>>, close: &CloseReason) {
    let peer = conn.map(|conn| tracing::field::display(conn.remote()));
    let CloseReason { code, reason } = close;
    tracing::debug!(target: SESSIONS, session = %id, peer, %code, reason = &**reason, "refused");
}

/// Logs the end of an admitted session. `ours`: code and reason of our close, if we closed it.
pub(super) fn ended(
    id: SessionId,
    why: Option<&TransportClosed>,
    ours: Option<&CloseReason>,
    lasted: Duration,
) {
    let duration_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
    let (by, code, reason) = cause(why, ours);
    let code = code.map(tracing::field::display);
    tracing::debug!(target: SESSIONS, session = %id, by = by.name(), code, reason, duration_ms, "ended");
}

/// Party that ended a session, code and reason. `ours`: code and reason of our close, if we closed it.
pub(super) fn cause<'a>(
    why: Option<&'a TransportClosed>,
    ours: Option<&'a CloseReason>,
) -> (EndedBy, Option<SessionCode>, &'a str) {
    match (why, ours) {
        (Some(TransportClosed::ByPeer(code, reason)), _) => (EndedBy::Peer, Some(*code), reason),
        (Some(TransportClosed::Lost(reason)), _) => (EndedBy::Transport, None, reason),
        (_, Some(CloseReason { code, reason })) => (EndedBy::Relay, Some(*code), reason),
        (Some(TransportClosed::ByUs) | None, None) => (EndedBy::Relay, None, ""),
    }
}

/// Logs a changed permit.
pub(super) fn revised(id: SessionId) {
    tracing::debug!(target: SESSIONS, session = %id, "permit replaced");
}

/// Logs a connection that ended before it had a session: no handshake, no request, or a malformed one.
pub(super) fn failed(id: SessionId, conn: Option<Conn<'_>>) {
    if !tracing::enabled!(target: SESSIONS, tracing::Level::DEBUG) {
        return;
    }
    let Some(mut conn) = conn else { return };
    let peer = conn.remote();
    let closed = std::iter::from_fn(|| conn.poll()).find_map(|event| match event {
        relay_model::transport::TransportEvent::Closed(why) => Some(why),
        _ => None,
    });
    let reason = match closed {
        Some(TransportClosed::ByPeer(code, reason)) => format!("closed by the peer: {code} {reason}"),
        Some(TransportClosed::Lost(reason)) => reason,
        Some(TransportClosed::ByUs) | None => "closed by the relay".to_owned(),
    };
    tracing::debug!(target: SESSIONS, session = %id, %peer, reason, "not set up");
}

/// Time since the arrival of a connection that had to be admitted by `admit_by`.
pub(super) fn lasted(admit_by: Instant, now: Instant) -> Duration {
    (now + relay_model::limits::SETUP_TIMEOUT).saturating_duration_since(admit_by)
}
