//! Announces of the peer: names, limits and permit, and the routes requested from core.

use relay_model::{
    Ask, Cost, Hop, Hops, Path,
    name::{self, NameError},
    transport::Transport,
};

use super::PublisherSide;
use crate::{
    peer_announces::AnnounceRouting,
    request::{Announcement, RequestId},
    turn::Turn,
    upstream_request::UpstreamRequest,
};

/// Bytes of a path in a log line.
const LOGGED: usize = 100;

impl PublisherSide {
    /// Handles a change on one of the relay's announce requests. True if it shows that the peer forwards other
    /// publishers.
    pub(crate) fn on_announcement<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        request: RequestId,
        announcement: Announcement,
    ) -> bool {
        let Some(UpstreamRequest::Announces(prefix)) = self.sent.get(&request) else { return false };
        let (Announcement::Live { path: suffix, .. } | Announcement::Ended { path: suffix }) = &announcement;
        let path = match prefix.join(suffix) {
            Ok(path) => path,
            Err(error) => {
                turn.violation(&error.to_string());
                return false;
            }
        };
        match announcement {
            Announcement::Ended { .. } => {
                self.withdraw(turn, path);
                self.promote(turn);
                false
            }
            Announcement::Live { path: suffix, hops, cost, is_new } => {
                if let Err(error) = name::check(path.as_str()) {
                    turn.dialect.skip_announce(request, &suffix);
                    self.skip_misnamed(turn, &path, error);
                    return false;
                }
                if !self.announces.has_room(&path, turn.state.limits.announces) {
                    turn.dialect.skip_announce(request, &suffix);
                    self.count_over_limit(turn, &path);
                    return false;
                }
                let is_relay = hops.len() > 1;
                self.route(turn, path, (hops, cost), is_new);
                is_relay
            }
        }
    }

    /// Withdraws everything announced on a request that has ended.
    pub(crate) fn on_announcements_ended<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        request: RequestId,
        suffixes: Vec<Path>,
    ) {
        let Some(UpstreamRequest::Announces(prefix)) = self.sent.remove(&request) else { return };
        for path in suffixes.iter().filter_map(|suffix| prefix.join(suffix).ok()) {
            self.withdraw(turn, path);
        }
        // After all withdrawals, so that none of the paths is routed only to be withdrawn.
        self.promote(turn);
    }

    /// Asks core for a route: its chain with the peer included, its cost with this link added. A route over the
    /// session's limit waits. `is_new`: it was not announced on this request before.
    fn route<T: Transport>(
        &mut self,
        turn: &mut Turn<'_, '_, T>,
        path: Path,
        (hops, cost): (Hops, Cost),
        is_new: bool,
    ) {
        let mut chain: Vec<Hop> = hops.iter().copied().collect();
        if chain.is_empty() {
            chain.push(Hop::ANONYMOUS);
        }
        if chain.first() == Some(&Hop::ANONYMOUS) {
            chain.insert(0, turn.state.config.stamp);
        }
        if let Some(publisher) = chain.first().copied() {
            self.upstreams.drop_ambiguous(&path, publisher, turn.cx.now);
        }
        let hops = Hops::from(chain);
        let is_allowed = turn.state.permit().is_some_and(|permit| permit.publish().allows(&path));
        let may = (is_allowed, turn.state.limits.announces);
        let surplus = self.announces.surplus();
        match self.announces.insert(&path, (hops.clone(), cost), is_new, may) {
            AnnounceRouting::Surplus(_) if self.announces.surplus() > surplus => {
                self.count_over_limit(turn, &path);
            }
            AnnounceRouting::Surplus(_) => {}
            AnnounceRouting::Routed | AnnounceRouting::Denied => {
                turn.ask(Ask::Announce { path, hops, cost });
            }
        }
    }

    /// Withdraws a path on one request; with overlapping prefixes it may remain announced on another.
    fn withdraw<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, path: Path) {
        match self.announces.remove(&path) {
            None | Some(AnnounceRouting::Surplus(_)) => {}
            Some(AnnounceRouting::Routed | AnnounceRouting::Denied) => turn.ask(Ask::Unannounce { path }),
        }
    }

    /// Asks core for waiting routes, up to the session's limit.
    fn promote<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        while let Some((path, hops, cost)) = self.announces.promote(turn.state.limits.announces) {
            turn.ask(Ask::Announce { path, hops, cost });
        }
    }

    /// Counts and logs an announce over the session's limit.
    fn count_over_limit<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, path: &Path) {
        turn.cx.meter.announces_limited += 1;
        if let Some(count) = self.announces.count_over_limit(turn.cx.now) {
            tracing::warn!(
                session = %turn.state.config.id, limit = turn.state.limits.announces, count,
                path = ?clipped(path),
                "announces not routed: session limit `limits.announces` reached; \
                  raise it, or spread the publisher over several sessions"
            );
        }
    }

    /// Counts and logs an announce with an invalid path.
    fn skip_misnamed<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>, path: &Path, error: NameError) {
        turn.cx.meter.announce_names_refused += 1;
        if let Some(count) = self.announces.count_misnamed(turn.cx.now) {
            tracing::warn!(
                session = %turn.state.config.id, count, path = ?clipped(path), %error,
                "announces not routed: invalid path; rename the broadcast"
            );
        }
    }

    /// Ends announce requests without a granted path left, sends new ones for granted prefixes, and passes
    /// announces that are now allowed to core.
    pub(crate) fn revise<T: Transport>(&mut self, turn: &mut Turn<'_, '_, T>) {
        let Some(publish) = turn.state.permit().map(|permit| permit.publish().clone()) else { return };
        let is_granted = |prefix: &Path| !publish.narrow(prefix).is_empty();
        self.queue.retain(|wanted| match wanted {
            UpstreamRequest::Announces(prefix) => is_granted(prefix),
            _ => true,
        });
        let mut asked: Vec<Path> = Vec::new();
        let mut over: Vec<RequestId> = Vec::new();
        for (request, wanted) in &self.sent {
            let UpstreamRequest::Announces(prefix) = wanted else { continue };
            match is_granted(prefix) {
                true => asked.push(prefix.clone()),
                false => over.push(*request),
            }
        }
        over.sort_unstable();
        for request in over {
            let live = turn.cancel(request);
            self.on_announcements_ended(turn, request, live);
        }
        self.announces.revise(|path| publish.allows(path));
        self.promote(turn);
        asked.extend(self.queue.own().filter_map(|wanted| match wanted {
            UpstreamRequest::Announces(prefix) => Some(prefix.clone()),
            _ => None,
        }));
        for prefix in publish.prefixes() {
            if !asked.iter().any(|above| prefix.has_prefix(above)) {
                self.request(turn, UpstreamRequest::Announces(prefix.clone()));
            }
        }
    }

    /// Original publisher of `path`, by the peer's latest announce.
    pub(super) fn publisher_of(&self, path: &Path) -> Option<Hop> {
        self.announces.get(path).and_then(|announce| announce.hops.first().copied())
    }
}

/// Start of a path, for a log line.
fn clipped(path: &Path) -> &str {
    let text = path.as_str();
    text.get(..text.floor_char_boundary(LOGGED)).unwrap_or_default()
}
