//! Context of the engine within one call: the transport, the worker's context, and the ways out of the session
//! (requests, replies, asks and the close).

use relay_model::{Ask, Path, SessionCode, StreamCode, transport::Transport};

use crate::{
    context::{Cx, SessionOutput},
    control::Outbound,
    dialect::Dialect,
    request::{Reply, RequestId},
    state::SessionState,
};

/// Context of one call of a session.
pub(crate) struct Turn<'a, 'c, T: Transport> {
    pub(crate) t: &'a mut T,
    pub(crate) cx: &'a mut Cx<'c>,
    pub(crate) state: &'a mut SessionState,
    pub(crate) dialect: &'a mut Dialect,
}

impl<T: Transport> Turn<'_, '_, T> {
    /// Sends an ask to core.
    pub(crate) fn ask(&mut self, ask: Ask) {
        self.state.asks.sent();
        self.cx.meter.asks += 1;
        self.cx.out.push(SessionOutput::Ask(ask));
    }

    /// Closes the session.
    pub(crate) fn close(&mut self, code: SessionCode, reason: &str) {
        if self.state.phase.close(code, reason) {
            self.t.close(self.cx.now, code, reason);
        }
    }

    /// Closes a session whose peer broke the protocol.
    pub(crate) fn violation(&mut self, reason: &str) {
        self.cx.meter.violations += 1;
        tracing::debug!(session = %self.state.config.id, reason, "protocol violation");
        self.close(SessionCode::PROTOCOL_VIOLATION, reason);
    }

    /// Closes the session of a peer whose declared role is not allowed.
    pub(crate) fn check_role(&mut self) {
        if let Some(reason) = self.state.refused_role()
            && !self.state.phase.is_over()
        {
            self.cx.meter.roles_refused += 1;
            self.close(SessionCode::UNAUTHORIZED, reason);
        }
    }

    /// Whether announces may be exchanged: authorised, version known, and SETUP read where it carries the cost
    /// and filter of announces.
    pub(crate) fn may_meet(&self) -> bool {
        self.state.permit().is_some() && self.dialect.allows_announces()
    }

    /// Replies to a request of the peer.
    pub(crate) fn reply(&mut self, request: RequestId, reply: &Reply) {
        let mut out = Outbound { t: self.t, control: &mut self.state.control, now: self.cx.now };
        self.dialect.reply(&mut out, request, reply);
    }

    /// Refuses a request of the peer: only it ends.
    pub(crate) fn refuse(&mut self, request: RequestId, code: StreamCode) {
        self.cx.meter.requests_refused += 1;
        self.reply(request, &Reply::Refused { code });
    }

    /// Cancels a request of the relay. Returns the paths that were live on it.
    pub(crate) fn cancel(&mut self, request: RequestId) -> Vec<Path> {
        let mut out = Outbound { t: self.t, control: &mut self.state.control, now: self.cx.now };
        self.dialect.cancel(&mut out, request)
    }
}
