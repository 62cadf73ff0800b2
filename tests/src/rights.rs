//! One row of an access table, tried with every request type of a version.
//!
//! A row has the expected rights of a session with one policy and one request at one path; [`Row::check`] tries it on a
//! relay of its own. Rows are plain values, so that tables of any origin can be run.

use std::time::Duration;

use relay_auth::Policy;
use relay_client::{Announced, Client, ClientConfig, Closed, Error, SessionCode, StreamCode, lite::Version};
use relay_model::Path;

use crate::{
    media::{Source, Viewer, code_of},
    porter::{Porter, open},
    relay::TestRelay,
    wait_until, within,
};

/// Time for which an event must not happen, where nothing else proves its absence.
const SILENCE: Duration = Duration::from_millis(60);

/// One grant, one request, one path, and the result.
#[derive(Clone, Debug)]
pub struct Row {
    /// Policy by which the session is admitted.
    pub policy: Policy,
    /// Path and optional query, as in a URL: `/room?jwt=..`.
    pub target: String,
    /// Absolute path of the session's root.
    pub root: Path,
    /// Path that it publishes and subscribes to, relative to the root.
    pub at: String,
    /// Expected rights there, or the code that the session is closed with.
    pub expected: Result<May, SessionCode>,
}

/// Rights of a session at a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct May {
    /// Publish the path.
    pub publish: bool,
    /// Watch, subscribe to, query and fetch the path.
    pub subscribe: bool,
}

/// Transport and version of the session.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entrance {
    /// WebTransport, or raw QUIC.
    pub is_web: bool,
    /// Protocol version.
    pub version: Version,
}

impl Entrance {
    /// Whether it transmits a request target.
    pub fn carries_target(self) -> bool {
        self.is_web || self.version.has_setup()
    }

    fn config(self) -> ClientConfig {
        ClientConfig { version: self.version, ..ClientConfig::default() }
    }
}

impl Row {
    /// Tries the row. `false`: this transport cannot carry its request. Panics where the relay deviates from the
    /// expectation.
    pub async fn check(&self, entrance: Entrance) -> bool {
        if !entrance.carries_target() && !self.target.trim_matches('/').is_empty() {
            return false;
        }
        if entrance.is_web && self.target.contains("/..") {
            return false; // URL libraries fold it before it leaves.
        }
        let (relay, porter) = Porter::relay(1);
        let keeper = relay.connect().await;
        porter.wait_admitted(1).await;
        porter.judge_by(self.policy.clone());
        let base = if entrance.is_web { relay.web() } else { relay.raw() };
        let url = format!("{}{}", base.trim_end_matches('/'), self.target);
        let context = format!("{self:?} through {entrance:?}");
        let client = Client::connect(&url, entrance.config()).await;
        let may = match self.expected {
            Ok(may) => may,
            Err(code) => {
                assert_eq!(closed_with(client, &context).await, code, "{context}");
                assert_eq!(porter.admitted().len(), 1, "{context}");
                return true;
            }
        };
        let client = client.unwrap_or_else(|error| panic!("{error}: {context}"));
        porter.wait_admitted(2).await;
        porter.judge_by(open());
        let there = Path::parse(&self.at).and_then(|at| self.root.join(&at)).expect("a path");
        let tried = Tried { relay, keeper, client, at: &self.at, there, context };
        tried.subscribes(may.subscribe, entrance.version).await;
        tried.publishes(may.publish).await;
        tried.measures(entrance.version).await;
        assert!(tried.client.is_closed().is_none(), "{}", tried.context);
        true
    }
}

/// An admitted session, and another one that may do everything.
struct Tried<'a> {
    relay: TestRelay,
    keeper: Client,
    client: Client,
    at: &'a str,
    /// Absolute path.
    there: Path,
    context: String,
}

impl Tried<'_> {
    /// Tries all reading requests, with a publisher at the path and without one.
    async fn subscribes(&self, allowed: bool, version: Version) {
        let (context, at) = (&self.context, self.at);
        let absent = self.read_refusals(at, version).await;
        let mut source = Source::announce(&self.keeper, self.there.as_str(), 64);
        let board = self.relay.store().board();
        wait_until("the broadcast", 10, || board.paths() == 1).await;
        let group = source.group(2);
        for prefix in ["", at] {
            let mut watch = within("a watch", 10, self.client.announced(prefix)).await.expect("a watch");
            assert_eq!(sees(&mut watch, at, allowed).await, allowed, "watched from {prefix:?}: {context}");
        }
        if allowed {
            let viewer = Viewer::join(&self.client, at).await;
            viewer.wait_group(group).await;
            if version.has_tracks() {
                within("the answer", 10, self.client.track_info(at, "video")).await.expect(context);
                let mut answer = self.client.fetch(at, "video", group, 0, None, 0).await.expect(context);
                let frames = within("the group", 10, answer.frames()).await.expect(context);
                assert_eq!(frames.len(), 2, "{context}");
            }
        } else {
            // The answers do not reveal whether the broadcast exists.
            assert_eq!(self.read_refusals(at, version).await, absent, "{context}");
            assert_eq!((source.track.live().ever, source.track.live().info_requests), (0, 0), "{context}");
        }
        drop(source);
        wait_until("its end", 10, || board.paths() == 0).await;
    }

    /// Refusals of each request for a broadcast that is not served.
    async fn read_refusals(&self, at: &str, version: Version) -> Vec<String> {
        let viewer = Viewer::join(&self.client, at).await;
        viewer.wait("the refusal", |seen| seen.is_over()).await;
        let seen = viewer.seen();
        assert_eq!(seen.code, Some(StreamCode::UNROUTABLE), "{}", self.context);
        let mut refusals = vec![format!("{seen:?}")];
        if version.has_tracks() {
            let info = within("the answer", 10, self.client.track_info(at, "video")).await;
            refusals.push(refusal(&info, &self.context));
            let mut answer = self.client.fetch(at, "video", 0, 0, None, 0).await.expect("a request");
            refusals.push(refusal(&within("the answer", 10, answer.frames()).await, &self.context));
        }
        refusals
    }

    /// Announces the path, watched by the other session.
    async fn publishes(&self, allowed: bool) {
        let (context, there) = (&self.context, self.there.as_str());
        let mut watch = self.keeper.announced("").await.expect("a watch");
        let mut source = Source::announce(&self.client, self.at, 64);
        assert_eq!(sees(&mut watch, there, allowed).await, allowed, "published: {context}");
        let viewer = Viewer::join(&self.keeper, there).await;
        if allowed {
            within("the subscription", 10, source.track.wait_subscribed()).await;
            let group = source.group(2);
            viewer.wait_group(group).await;
        } else {
            viewer.wait("the refusal", |seen| seen.code == Some(StreamCode::UNROUTABLE)).await;
            assert_eq!(self.relay.store().board().paths(), 0, "{context}");
        }
    }

    /// Requests without a path are open to every admitted session.
    async fn measures(&self, version: Version) {
        if version.has_goaway() {
            self.client.go_away("").await.expect("a request");
        }
        let mut probes = self.client.probe().await.expect("a request");
        let measured = within("a measurement", 10, probes.next()).await;
        assert!(matches!(measured, Ok(Some(_))), "{measured:?}: {}", self.context);
    }
}

/// Whether `path` is announced. If it must not be, the test waits for [`SILENCE`].
async fn sees(watch: &mut Announced, path: &str, expected: bool) -> bool {
    let shown = watch.wait(path, true);
    if expected {
        return within("an announcement", 10, shown).await.is_ok();
    }
    match tokio::time::timeout(SILENCE, shown).await {
        // The watch stays open, too.
        Err(_) => false,
        Ok(outcome) => panic!("{path}: {outcome:?}"),
    }
}

fn refusal<T: std::fmt::Debug>(outcome: &Result<T, Error>, context: &str) -> String {
    let code = outcome.as_ref().err().and_then(code_of);
    assert_eq!(code, Some(StreamCode::UNROUTABLE), "{outcome:?}: {context}");
    format!("{outcome:?}")
}

async fn closed_with(client: Result<Client, Error>, context: &str) -> SessionCode {
    let closed = match client {
        Ok(client) => within("the close", 10, client.closed()).await,
        Err(Error::Closed(closed)) => closed,
        Err(error) => panic!("{error}: {context}"),
    };
    match closed {
        Closed::Peer { code, .. } => code.session().unwrap_or_else(|| panic!("{code}: {context}")),
        other => panic!("{other}: {context}"),
    }
}
