//! Changes of a peer's rights while its session is open.
//!
//! Core applies them to routes and subscriptions. The session applies them to what core does not see: the
//! peer's watches, and the relay's announce requests to it.

use relay_model::{
    Hop, Path, Scope, SessionCode, StreamCode,
    transport::{Stream, Transport},
};
use relay_wire::lite;

use crate::{
    session::{Cx, Session, StreamKind},
    upstream_request::UpstreamRequest,
};

impl Session {
    /// Replaces the peer's rights: absolute scopes, narrowed to the session's root. Core must be informed
    /// before it receives any later ask of the session.
    pub fn revised<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, publish: &Scope, subscribe: &Scope) {
        if self.is_over() {
            return;
        }
        let Some(grant) = &mut self.grant else { return };
        grant.publish = publish.narrow(&grant.root);
        grant.subscribe = subscribe.narrow(&grant.root);
        self.revise_watches(t, cx);
        if self.may_meet() {
            self.revise_intakes(t, cx);
        }
        self.check_role(t, cx);
        self.commit(t, cx);
    }

    /// Closes the session of a peer that declared a single role which is not allowed, instead of letting it
    /// wait in vain.
    pub(crate) fn check_role<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let Some(grant) = &self.grant else { return };
        let reason = match self.peer.role {
            Some(lite::Role::Publisher) if grant.publish.is_empty() => "may not publish",
            Some(lite::Role::Subscriber) if grant.subscribe.is_empty() => "may not subscribe",
            _ => return,
        };
        if !self.is_over() {
            cx.meter.roles_refused += 1;
            self.close(t, cx.now, SessionCode::UNAUTHORIZED, reason);
        }
    }

    /// Applies a changed scope to the watches: paths outside it end, added ones start.
    fn revise_watches<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let Some(grant) = &self.grant else { return };
        self.watches.iter_mut().for_each(|watching| watching.revise(grant.subscribe.clone()));
        self.pump_watches(t, cx);
    }

    /// Ends announce requests without a granted path left, sends new ones for granted prefixes, and passes
    /// announces that are now allowed to core.
    fn revise_intakes<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let Some(publish) = self.grant.as_ref().map(|grant| grant.publish.clone()) else { return };
        let is_granted = |prefix: &Path| !publish.narrow(prefix).is_empty();
        self.request_queue.retain(|wanted| match wanted {
            UpstreamRequest::Announces(prefix) => is_granted(prefix),
            _ => true,
        });
        let mut asked: Vec<Path> = Vec::new();
        let mut over: Vec<Stream> = Vec::new();
        for (stream, role) in self.streams.iter() {
            let StreamKind::AnnounceUp(_, receiver) = role else { continue };
            match is_granted(receiver.prefix()) {
                true => asked.push(receiver.prefix().clone()),
                false => over.push(*stream),
            }
        }
        over.sort_unstable();
        for stream in over {
            if let Some(StreamKind::AnnounceUp(_, receiver)) = self.streams.remove(&stream) {
                t.stop(stream, StreamCode::CANCEL);
                self.control.finish(t, stream);
                self.forget_intake(cx, *receiver);
            }
        }
        self.peer_announces.revise(|path| publish.allows(path));
        self.promote_announces(cx);
        asked.extend(self.request_queue.own().filter_map(|wanted| match wanted {
            UpstreamRequest::Announces(prefix) => Some(prefix.clone()),
            _ => None,
        }));
        for prefix in publish.prefixes() {
            if !asked.iter().any(|above| prefix.has_prefix(above)) {
                self.want(t, cx, UpstreamRequest::Announces(prefix.clone()));
            }
        }
    }

    /// Original publisher of `path`, by the peer's latest announce.
    pub(crate) fn publisher_of(&self, path: &Path) -> Option<Hop> {
        self.peer_announces.get(path).and_then(|heard| heard.hops.first().copied())
    }
}
