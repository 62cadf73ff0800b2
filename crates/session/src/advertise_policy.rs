//! Filter of paths and routes that may be advertised to a peer, whatever the dialect.

use relay_model::{Hop, Path, Route, Scope, SessionId, limits};

/// Filter of paths and routes that may be advertised to a peer.
#[derive(Clone, Debug)]
pub(crate) struct AdvertisePolicy {
    pub(crate) session: SessionId,
    /// The relay's own hop.
    pub(crate) hop: Hop,
    pub(crate) scope: Scope,
    /// Absolute prefix of the request; announced paths are relative to it.
    pub(crate) prefix: Path,
    /// Routes through this hop are withheld.
    pub(crate) exclude: Hop,
    /// Whether the peer is a relay, which needs the exact route. Other readers are not sent another route to
    /// the same publisher.
    pub(crate) is_relay: bool,
    /// Whether the peer was admitted as a relay of the cluster. Only such a peer gets every change at once; any
    /// client can pose as a relay, so others get the bounded number of changes a second of one path.
    pub(crate) is_peer: bool,
}

impl AdvertisePolicy {
    /// Best route that may be advertised: in scope, not the peer's own or through its hop, not fading if it
    /// is a relay, and with room in its chain for the `appended` hops of this relay.
    pub(crate) fn pick<'a>(&self, path: &Path, routes: &'a [Route], appended: usize) -> Option<&'a Route> {
        if !self.scope.allows(path) {
            return None;
        }
        routes.iter().find(|route| {
            route.session != self.session
                && !(route.stale && self.is_relay)
                && fits(route, appended)
                && (self.exclude == Hop::ANONYMOUS || !route.passes(self.exclude))
        })
    }

    /// Any route in scope that can be encoded, for a counted announcement that ends at once.
    pub(crate) fn pick_any<'a>(
        &self,
        path: &Path,
        routes: &'a [Route],
        appended: usize,
    ) -> Option<&'a Route> {
        routes.iter().find(|route| self.scope.allows(path) && fits(route, appended))
    }

    /// The path relative to the requested prefix.
    pub(crate) fn suffix(&self, path: &Path) -> Option<Path> {
        if self.prefix.is_root() {
            return Some(path.clone());
        }
        Path::parse(path.strip_prefix(&self.prefix)?).ok()
    }
}

fn fits(route: &Route, appended: usize) -> bool {
    route.hops.len() + appended <= limits::HOPS
}

#[cfg(test)]
mod tests {
    use relay_model::{Cost, Hops};

    use super::*;

    fn route(session: u64, hops: &[u64]) -> Route {
        let hops: Hops = hops.iter().map(|hop| Hop(*hop)).collect();
        Route { session: SessionId(session), hops, cost: Cost::UNKNOWN, stale: false }
    }

    #[test]
    fn own_excluded_and_stale_routes_are_withheld() {
        let path = Path::parse("p/a").unwrap();
        let mut policy = AdvertisePolicy {
            session: SessionId(1),
            hop: Hop(9),
            scope: Scope::everything(),
            prefix: Path::parse("p").unwrap(),
            exclude: Hop(3),
            is_relay: false,
            is_peer: false,
        };
        let stale = Route { stale: true, ..route(2, &[5]) };
        let routes = [route(1, &[4]), route(2, &[3, 4]), stale, route(2, &[6, 7])];
        assert_eq!(policy.pick(&path, &routes, 1), routes.get(2));
        policy.is_relay = true;
        assert_eq!(policy.pick(&path, &routes, 1), routes.get(3));
        assert_eq!(policy.suffix(&path).as_ref().map(Path::as_str), Some("a"));
        let long: Vec<u64> = (10..10 + limits::HOPS as u64).collect();
        assert!(policy.pick(&path, &[route(2, &long)], 1).is_none());
        assert!(policy.pick(&path, &[route(2, &long)], 0).is_some());
        policy.scope = Scope::nothing();
        assert!(policy.pick(&path, &routes, 1).is_none() && policy.pick_any(&path, &routes, 1).is_none());
    }
}
