//! What the log says of sessions. Each line carries the session's id as `session`; none of this is done for a
//! packet, a frame or a group.

use std::time::{Duration, Instant};

use relay_auth::Permit;
use relay_model::{SessionCode, SessionId};
use relay_session::transport::{Closed, Transport};

use super::Conn;
use crate::gate::EndedBy;

/// Where a session's own lines are found: `RUST_LOG=info,moq_relay::session=debug` shows them alone.
/// What a peer said is a value of its own in them, never part of a message: both formats escape values.
pub const SESSIONS: &str = "moq_relay::session";

/// A session is let in. The path is the one that was permitted, never the request with its token.
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

/// A connection is refused, for what it asked or when it asked.
pub(super) fn refused(id: SessionId, conn: Option<&Conn<'_>>, code: SessionCode, reason: &str) {
    let peer = conn.map(|conn| tracing::field::display(conn.remote()));
    tracing::debug!(target: SESSIONS, session = %id, peer, %code, reason, "refused");
}

/// A session that was let in is over. `ours`: what we told the peer, if we ended it.
pub(super) fn ended(id: SessionId, why: Option<&Closed>, ours: Option<&Parting>, lasted: Duration) {
    let duration_ms = u64::try_from(lasted.as_millis()).unwrap_or(u64::MAX);
    let (by, code, reason) = cause(why, ours);
    let code = code.map(tracing::field::display);
    tracing::debug!(target: SESSIONS, session = %id, by = by.name(), code, reason, duration_ms, "ended");
}

/// Who ended a session, with what code and words. `ours`: what we told the peer, if we ended it.
pub(super) fn cause<'a>(
    why: Option<&'a Closed>,
    ours: Option<&'a Parting>,
) -> (EndedBy, Option<SessionCode>, &'a str) {
    match (why, ours) {
        (Some(Closed::ByPeer(code, reason)), _) => (EndedBy::Peer, Some(*code), reason),
        (Some(Closed::Lost(reason)), _) => (EndedBy::Transport, None, reason),
        (_, Some(Parting { code, reason })) => (EndedBy::Relay, Some(*code), reason),
        (Some(Closed::ByUs) | None, None) => (EndedBy::Relay, None, ""),
    }
}

/// A session that was let in may do something else from now on.
pub(super) fn revised(id: SessionId) {
    tracing::debug!(target: SESSIONS, session = %id, "permit replaced");
}

/// A connection is over before it was a session: no handshake, no request, or none that was understood.
pub(super) fn failed(id: SessionId, conn: Option<Conn<'_>>) {
    if !tracing::enabled!(target: SESSIONS, tracing::Level::DEBUG) {
        return;
    }
    let Some(mut conn) = conn else { return };
    let peer = conn.remote();
    let closed = std::iter::from_fn(|| conn.poll()).find_map(|event| match event {
        relay_session::transport::Event::Closed(why) => Some(why),
        _ => None,
    });
    let reason = match closed {
        Some(Closed::ByPeer(code, reason)) => format!("closed by the peer: {code} {reason}"),
        Some(Closed::Lost(reason)) => reason,
        Some(Closed::ByUs) | None => "closed by the relay".to_owned(),
    };
    tracing::debug!(target: SESSIONS, session = %id, %peer, reason, "not set up");
}

/// What we told a peer when we ended its session.
#[derive(Clone, Debug)]
pub(super) struct Parting {
    pub(super) code: SessionCode,
    pub(super) reason: Box<str>,
}

/// How long ago a connection came that had to be let in by `admit_by`.
pub(super) fn lasted(admit_by: Instant, now: Instant) -> Duration {
    (now + relay_model::limits::SETUP_TIMEOUT).saturating_duration_since(admit_by)
}
