//! What a peer may do changes while its session lives.
//!
//! Core is the judge: it withdraws routes and refuses subscriptions. Here is what core does not see:
//! what the peer watches, and what it is asked to announce.

use relay_model::{Ask, Hop, Path, Scope, SessionCode, StreamCode};
use relay_wire::lite;

use crate::{
    session::{Cx, Role, Session},
    transport::{Stream, Transport},
    wanted::Wanted,
};

impl Session {
    /// From now on the peer may do this: absolute prefixes, of which those below the session's root count.
    /// Core must hear of it before it hears anything that the session asks from here on.
    pub fn revised<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, publish: &Scope, subscribe: &Scope) {
        if self.is_over() {
            return;
        }
        let Some(grant) = &mut self.grant else { return };
        let before = std::mem::replace(&mut grant.publish, publish.narrow(&grant.root));
        grant.subscribe = subscribe.narrow(&grant.root);
        self.revise_watches(t, cx);
        if self.may_meet() {
            self.revise_intakes(t, cx, &before);
        }
        self.check_role(t, cx);
        self.commit(t, cx);
    }

    /// A peer that came to do one thing only, and may not: it hears so, instead of waiting in vain.
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

    /// Watches go on with other eyes: what is not seen any more ends, what is seen now begins.
    fn revise_watches<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let (Some(grant), version) = (&self.grant, self.config.version) else { return };
        let mut broken = Vec::new();
        for watching in &mut self.watches {
            if !watching.revise(grant.subscribe.clone(), version) {
                broken.push(watching.stream);
            }
        }
        for stream in broken {
            self.drop_watch(cx, stream);
            self.control.reset(t, stream, StreamCode::CANCEL);
            self.forget(t, stream);
        }
        self.pump_watches(t, cx);
    }

    /// Requests for announces that nothing is granted of any more end; what is granted and not asked for
    /// yet is asked for; what was announced before it was allowed is told to core.
    fn revise_intakes<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, before: &Scope) {
        let Some(publish) = self.grant.as_ref().map(|grant| grant.publish.clone()) else { return };
        let is_granted = |prefix: &Path| !publish.narrow(prefix).is_empty();
        self.wanting.retain(|(_, wanted)| match wanted {
            Wanted::Announces(prefix) => is_granted(prefix),
            _ => true,
        });
        let mut asked: Vec<Path> = Vec::new();
        let mut over: Vec<Stream> = Vec::new();
        for (stream, role) in &self.streams {
            let Role::Intake(_, intake) = role else { continue };
            match is_granted(intake.prefix()) {
                true => asked.push(intake.prefix().clone()),
                false => over.push(*stream),
            }
        }
        over.sort_unstable();
        for stream in over {
            if let Some(Role::Intake(_, intake)) = self.streams.remove(&stream) {
                t.stop(stream, StreamCode::CANCEL);
                self.control.finish(t, cx.now, stream);
                self.forget_intake(cx, *intake);
            }
        }
        let mut allowed: Vec<Path> = self.heard.keys().cloned().collect();
        allowed.retain(|path| publish.allows(path) && !before.allows(path));
        allowed.sort();
        for path in allowed {
            let Some(heard) = self.heard.get(&path) else { continue };
            let (hops, cost) = (heard.hops.clone(), heard.cost);
            self.ask(cx, Ask::Announce { path, hops, cost });
        }
        asked.extend(self.wanting.iter().filter_map(|(_, wanted)| match wanted {
            Wanted::Announces(prefix) => Some(prefix.clone()),
            _ => None,
        }));
        for prefix in publish.prefixes() {
            if !asked.iter().any(|above| prefix.has_prefix(above)) {
                self.want(t, cx, Wanted::Announces(prefix.clone()));
            }
        }
    }

    /// Who makes the broadcast at `path`, as the peer announced it last.
    pub(crate) fn publisher_of(&self, path: &Path) -> Option<Hop> {
        self.heard.get(path).and_then(|heard| heard.hops.first().copied())
    }
}
