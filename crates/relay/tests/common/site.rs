//! A relay with authorization settings and key files, and clients of it.

use std::{
    fs,
    path::{Path as File, PathBuf},
    time::Duration,
};

use relay_auth::{Algorithm, Claims, Grants, Key, KeyId};
use relay_client::{Client, ClientConfig, Closed, Error, Prefs, SessionCode, TrackInfo};
use relay_model::{Path, Pattern};
use tempfile::TempDir;
use tokio::time::timeout;

use super::{Recording, Running, free_address, relay};

/// A relay with these `auth` settings, and key files in its folder.
pub(crate) struct Site {
    folder: TempDir,
    pub(crate) relay: Running,
    address: String,
}

impl Site {
    pub(crate) fn new(auth: &str) -> Self {
        Self::with(auth, |_| {})
    }

    /// Starts it with trace logs; `prepare` adds files to its folder.
    pub(crate) fn with(auth: &str, prepare: impl FnOnce(&File)) -> Self {
        let site = Self::start("moq_relay=trace", auth, prepare);
        site.relay.line_with("serving");
        site
    }

    /// Starts it with this `RUST_LOG`, and records all lines.
    pub(crate) fn recorded(log: &str, auth: &str, prepare: impl FnOnce(&File)) -> (Self, Recording) {
        let mut site = Self::start(log, auth, prepare);
        let recording = site.relay.record();
        recording.wait_for("serving");
        (site, recording)
    }

    /// Starts it with the default log level.
    pub(crate) fn quiet(auth: &str) -> Self {
        let site = Self::start("info", auth, |_| {});
        site.relay.line_with("serving");
        site
    }

    fn start(log: &str, auth: &str, prepare: impl FnOnce(&File)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        prepare(folder.path());
        let address = free_address();
        let text = format!("[server]\nbind = \"{address}\"\nhop = 77\n[auth]\n{auth}\n");
        fs::write(folder.path().join("relay.toml"), text).unwrap();
        let mut command = relay();
        command.current_dir(folder.path()).arg("relay.toml").env("RUST_LOG", log);
        Self { folder, relay: Running::start(&mut command), address }
    }

    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub(crate) fn url(&self, scheme: &str, target: &str) -> String {
        format!("{scheme}://{}{target}", self.address)
    }

    /// Connects by raw QUIC, and waits until the session is admitted.
    pub(crate) async fn enter(&self, target: &str) -> Result<Client, Closed> {
        self.enter_by("moqt", target).await
    }

    pub(crate) async fn enter_by(&self, scheme: &str, target: &str) -> Result<Client, Closed> {
        self.enter_as(scheme, target, ClientConfig::default()).await
    }

    pub(crate) async fn enter_as(
        &self,
        scheme: &str,
        target: &str,
        config: ClientConfig,
    ) -> Result<Client, Closed> {
        let client = match Client::connect(&self.url(scheme, target), config).await {
            Err(Error::Closed(closed)) => return Err(closed),
            client => client.unwrap(),
        };
        // Only an admitted session is answered.
        match client.announced("").await {
            Ok(_) => Ok(client),
            Err(_) => Err(client.closed().await),
        }
    }

    pub(crate) async fn refused(&self, target: &str) -> Closed {
        match self.enter(target).await {
            Ok(_) => panic!("{target} was admitted"),
            Err(closed) => closed,
        }
    }
}

pub(crate) fn key(id: &str) -> Key {
    Key::generate(Algorithm::ES256, Some(id.parse::<KeyId>().unwrap())).unwrap()
}

/// Claims to publish and subscribe below `room`.
pub(crate) fn claims(room: &str) -> Claims {
    let all = vec![Pattern::parse("**").unwrap()];
    let root = Path::parse(room).unwrap();
    Claims { grants: Grants { root, publish: all.clone(), subscribe: all }, ..Claims::default() }
}

pub(crate) fn token(key: &Key, room: &str) -> String {
    key.sign(&claims(room)).unwrap()
}

pub(crate) fn code(closed: &Closed) -> Option<SessionCode> {
    match closed {
        Closed::Peer { code, .. } => code.session(),
        _ => None,
    }
}

pub(crate) fn unauthorized(closed: &Closed) {
    assert_eq!(code(closed), Some(SessionCode::UNAUTHORIZED), "{closed:?}");
}

/// Checks that a broadcast published as `path` is received as `seen`.
pub(crate) async fn flows(publisher: &Client, path: &str, subscriber: &Client, seen: &str) {
    let broadcast = publisher.broadcast(path).unwrap();
    let track = broadcast.track("t", TrackInfo::default()).unwrap();
    broadcast.announce();
    subscriber.announced("").await.unwrap().wait(seen, true).await.unwrap();
    let mut subscription = subscriber.subscribe(seen, "t", Prefs::default()).await.unwrap();
    track.wait_subscribed().await;
    let group = track.group(0);
    group.frame(0, "x".into());
    group.finish();
    assert_eq!(subscription.next_group().await.unwrap().frames().await.unwrap().len(), 1);
}

pub(crate) async fn ends(client: &Client, what: &str) -> Closed {
    timeout(Duration::from_secs(8), client.closed()).await.unwrap_or_else(|_| panic!("{what} goes on"))
}
