//! Keys from a key server: a JSON Web Key Set, or single keys by the `kid` of tokens.
//!
//! `auth.jwks` is a set. The URL of `auth.key_dir` may be either: it is fetched itself first, and if the answer is a
//! set, that is used from then on; otherwise keys are fetched below it, as `KID.jwk`.
//!
//! A key is fetched once for all sessions that wait for it, and its absence is cached. Known keys are refreshed
//! periodically; a key that its server no longer has is revoked. While the server is unreachable, its last answer
//! stays in force.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::StatusCode;
use relay_auth::{Algorithm, Key, KeyId, Keys, Refusal};
use relay_worker::{AdmissionRequest, Denial, GateAnswer, GateReply};
use tokio::{runtime::Handle, task::JoinSet, time::sleep};
use tracing::{info, warn};
use url::Url;

use super::{
    LocalPolicy,
    http::{Http, RequestError, Response},
    log_once::LogOnce,
    now,
};

/// Most concurrent key requests.
const AT_ONCE: usize = 16;
/// Most sessions waiting for a key.
const WAITING: usize = 1_024;
/// Most key names cached as absent.
const ABSENT: usize = 4_096;
/// Time an absence is cached where keys are fetched one at a time.
const ABSENT_FOR: Duration = Duration::from_secs(10);
/// Shortest interval between fetches of a set on behalf of tokens.
const SET_PAUSE: Duration = Duration::from_secs(2);

/// The `kid` and `alg` of a token, which name its key; without `kid` any key of the set may be meant.
type KeyName = (Option<KeyId>, Algorithm);

/// Keys of a key server, and the sessions waiting for one.
pub(super) struct Keyring {
    url: Url,
    http: Http,
    refresh: Duration,
    known: Arc<LocalPolicy>,
    on: Handle,
    state: Mutex<RemoteState>,
    /// Time and answer of the last fetch of the URL itself; locked during a fetch.
    fetched: tokio::sync::Mutex<Option<(Instant, Result<BaseAnswer, RequestError>)>>,
}

/// Layout of the server's keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum KeyLayout {
    /// Not known yet: the URL itself has answered no set, and no key was found below it.
    #[default]
    Unknown,
    /// The URL is a key set.
    Set,
    /// Each key is `KID.jwk` below the URL.
    Folder,
}

/// Answer of the URL itself.
#[derive(Clone, Copy, Debug)]
enum BaseAnswer {
    /// A set, which was adopted.
    Set,
    /// Something else, with this status.
    Other(StatusCode),
}

struct RemoteState {
    shape: KeyLayout,
    keys: Keys,
    /// Names without a key, and the time until which that is assumed.
    absent: BTreeMap<KeyName, Instant>,
    /// Waiting sessions, by the name of their key.
    waiting: BTreeMap<KeyName, Vec<(String, GateReply)>>,
    waits: usize,
    /// Status of the last answer that was no set, if it was logged.
    other: Option<StatusCode>,
    failure: LogOnce,
}

/// Answer of a key server for one name.
enum KeyLookup {
    Key(Key),
    Absent,
}

impl Keyring {
    /// Starts refreshing the keys at `url`. With [`KeyLayout::Set`] any answer that is no key set is an error.
    pub(super) fn start(
        url: Url,
        shape: KeyLayout,
        refresh: Duration,
        http: Http,
        known: Arc<LocalPolicy>,
        on: &Handle,
    ) -> Arc<Self> {
        let keyring = Arc::new(Self {
            url,
            http,
            refresh,
            known,
            on: on.clone(),
            state: Mutex::new(RemoteState::new(shape)),
            fetched: tokio::sync::Mutex::default(),
        });
        let lasting = Arc::downgrade(&keyring);
        let refresh = keyring.refresh;
        on.spawn(async move {
            loop {
                let Some(keyring) = lasting.upgrade() else { return };
                keyring.renew().await;
                drop(keyring);
                sleep(refresh).await;
            }
        });
        keyring
    }

    /// Queues a session until the key of its token is fetched.
    pub(super) fn admit(self: &Arc<Self>, request: &AdmissionRequest, target: String) -> GateAnswer {
        let at_once = |target: &str| {
            let answer = self.known.answering(|policy| policy.admit(target, request.now));
            GateAnswer::Now(answer.map_err(Denial::from))
        };
        // The key may have arrived meanwhile.
        let Some(name) = self.known.policy().missing_key(&target) else { return at_once(&target) };
        let mut state = self.state();
        if state.absent.get(&name).is_some_and(|until| Instant::now() < *until) {
            drop(state);
            return at_once(&target);
        }
        let is_asked = state.waiting.contains_key(&name);
        if state.waits >= WAITING || (!is_asked && state.waiting.len() >= AT_ONCE) {
            return GateAnswer::Now(Err(Denial::Unavailable));
        }
        state.waits += 1;
        state.waiting.entry(name.clone()).or_default().push((target, request.reply()));
        drop(state);
        if !is_asked {
            let keyring = self.clone();
            self.on.spawn(async move { keyring.resolve_key(name).await });
        }
        GateAnswer::Later
    }

    /// Fetches a key, and answers the sessions that wait for it.
    async fn resolve_key(self: Arc<Self>, name: KeyName) {
        let found = self.find(&name).await;
        let outage = found.as_ref().err().map(RequestError::denial);
        match found {
            Ok(KeyLookup::Key(key)) => self.record(&name, Some(key)),
            Ok(KeyLookup::Absent) => self.record(&name, None),
            // Without the `kid`, which the client chooses, so that one outage is logged once.
            Err(outage) => self.state().failure.failed(&format!("keys cannot be fetched: {outage}")),
        }
        let waiting = {
            let mut state = self.state();
            let waiting = state.waiting.remove(&name).unwrap_or_default();
            state.waits = state.waits.saturating_sub(waiting.len());
            waiting
        };
        for (target, reply) in waiting {
            self.known.answering(|policy| {
                reply.give(match (policy.admit(&target, now()), outage) {
                    (Err(Refusal::UnknownKey), Some(outage)) => Err(outage),
                    (answer, _) => answer.map_err(Denial::from),
                });
            });
        }
    }

    /// Fetches a key from the set or below the URL, depending on the server's layout.
    async fn find(&self, name: &KeyName) -> Result<KeyLookup, RequestError> {
        let shape = self.state().shape;
        let itself = match shape {
            KeyLayout::Folder => return self.fetch_named(name).await,
            KeyLayout::Set | KeyLayout::Unknown => self.fetch_base(SET_PAUSE).await?,
        };
        let BaseAnswer::Other(status) = itself else {
            let key = name.0.as_ref().and_then(|id| self.state().keys.get(id, name.1).cloned());
            return Ok(key.map_or(KeyLookup::Absent, KeyLookup::Key));
        };
        match self.fetch_named(name).await? {
            KeyLookup::Absent if status.is_server_error() => Err(RequestError::Status(status)),
            KeyLookup::Absent => {
                let what = format!(
                    "no key found: the URL of `auth.key_dir` is not a key set (its answer is {status}), and the \
                     key of a token is not below it; check `auth.key_dir`"
                );
                self.state().failure.failed(&what);
                Ok(KeyLookup::Absent)
            }
            found => Ok(found),
        }
    }

    /// Refreshes all known keys.
    async fn renew(self: &Arc<Self>) {
        let shape = self.state().shape;
        if shape != KeyLayout::Folder {
            match self.fetch_base(Duration::ZERO).await {
                Ok(BaseAnswer::Set) => {}
                Ok(BaseAnswer::Other(status)) if status.is_server_error() => {
                    self.state().failure.failed(&format!("key refresh failed: the answer is {status}"));
                }
                Ok(BaseAnswer::Other(status)) => {
                    if self.state().other.replace(status) != Some(status) {
                        info!(%status, "`auth.key_dir` is not a key set: fetching keys below it, as KID.jwk");
                    }
                }
                Err(outage) => {
                    let what = format!("key refresh failed: {outage}; keeping the previous keys");
                    self.state().failure.failed(&what);
                }
            }
            return;
        }
        let mut ids: Vec<KeyId> = self.state().keys.iter_named().map(|(id, _)| id.clone()).collect();
        ids.dedup();
        let (mut asking, mut ids) = (JoinSet::new(), ids.into_iter());
        let mut trouble = None;
        loop {
            // Concurrent, so that one request that hangs does not delay the others.
            while asking.len() < AT_ONCE
                && let Some(id) = ids.next()
            {
                let keyring = self.clone();
                asking.spawn(async move { keyring.refresh_key(id).await });
            }
            match asking.join_next().await {
                Some(Ok(flaw)) => trouble = flaw.or(trouble),
                Some(Err(_)) => {}
                None => break,
            }
        }
        self.state().failure.update(trouble.as_deref());
    }

    /// Refreshes a known key. Returns a description of the failure, if any.
    async fn refresh_key(&self, id: KeyId) -> Option<String> {
        match self.one(&id).await {
            Ok(KeyLookup::Key(key)) => {
                let name = (Some(id), key.algorithm());
                self.record(&name, Some(key));
            }
            Ok(KeyLookup::Absent) => {
                info!(key = %id, "key removed from its server: closing its sessions");
                self.remove_key(&id);
            }
            Err(outage) => {
                return Some(format!("key {id} cannot be fetched again: {outage}; keeping the previous key"));
            }
        }
        None
    }

    /// Fetches the key of a token below the URL.
    async fn fetch_named(&self, (id, _): &KeyName) -> Result<KeyLookup, RequestError> {
        match id {
            Some(id) => self.one(id).await,
            None => Ok(KeyLookup::Absent),
        }
    }

    /// Fetches one key below the URL.
    async fn one(&self, id: &KeyId) -> Result<KeyLookup, RequestError> {
        // A `kid` that is no file name cannot be that of a file.
        let Some(stem) = id.file_stem() else { return Ok(KeyLookup::Absent) };
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(&format!("{stem}.jwk"));
        }
        let response = self.http.keys(&url).await?;
        match response.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(KeyLookup::Absent),
            status if !status.is_success() => Err(RequestError::Status(status)),
            _ => {
                let key = Key::parse(text(&response)?)
                    .map_err(|error| RequestError::Nonsense(format!("the answer is not a key: {error}")))?;
                let mut state = self.state();
                if state.shape == KeyLayout::Unknown {
                    state.shape = KeyLayout::Folder;
                }
                Ok(KeyLookup::Key(key))
            }
        }
    }

    /// Fetches the URL itself, unless it was fetched less than `pause` ago.
    async fn fetch_base(&self, pause: Duration) -> Result<BaseAnswer, RequestError> {
        // Concurrent callers wait for the same answer.
        let mut fetched = self.fetched.lock().await;
        if let Some((at, answer)) = &*fetched
            && at.elapsed() < pause
        {
            return answer.clone();
        }
        let answer = self.fetch().await;
        *fetched = Some((Instant::now(), answer.clone()));
        answer
    }

    /// Fetches the URL itself, and adopts the answer if it is a key set.
    async fn fetch(&self) -> Result<BaseAnswer, RequestError> {
        let response = self.http.keys(&self.url).await?;
        let must_be_set = self.state().shape == KeyLayout::Set;
        if !response.status.is_success() {
            let status = response.status;
            return if must_be_set {
                Err(RequestError::Status(status))
            } else {
                Ok(BaseAnswer::Other(status))
            };
        }
        match text(&response).and_then(|text| {
            Keys::parse(text)
                .map_err(|error| RequestError::Nonsense(format!("the answer is not a key set: {error}")))
        }) {
            Ok((keys, faults)) => {
                self.take(keys, &faults);
                Ok(BaseAnswer::Set)
            }
            Err(outage) if must_be_set => Err(outage),
            Err(_) => Ok(BaseAnswer::Other(response.status)),
        }
    }

    /// Replaces all keys by those of a fetched set.
    fn take(&self, keys: Keys, faults: &[(usize, relay_auth::KeyError)]) {
        let flaws =
            faults.iter().map(|(at, fault)| format!("key {at} of the set: {fault}: its tokens are refused"));
        let mut flaws: Vec<String> = flaws.collect();
        if keys.is_empty() {
            flaws.push("the key set has no verification key: every token is refused".to_owned());
        }
        let flaws = flaws.join("; ");
        let mut state = self.state();
        state.failure.update(Some(flaws.as_str()).filter(|flaws| !flaws.is_empty()));
        let gone = state.keys.iter().filter(|key| !keys.contains(key.mark())).count();
        state.shape = KeyLayout::Set;
        state.keys = keys.clone();
        state.absent.clear();
        drop(state);
        if gone > 0 {
            info!(keys = gone, "keys removed from their server: closing their sessions");
        }
        self.known.set_keys(keys);
    }

    /// Records the key of a name, or its absence.
    fn record(&self, name: &KeyName, key: Option<Key>) {
        let mut state = self.state();
        if state.shape == KeyLayout::Folder
            && let (Some(id), Some(key)) = (&name.0, &key)
        {
            // A key file holds one key, which replaces the previous one.
            state.keys.remove(id);
            if let Err(error) = state.keys.insert_as(id.clone(), key.clone()) {
                warn!(key = %id, "{error}: its tokens are refused");
            }
        }
        if key.is_some_and(|key| key.algorithm() == name.1) {
            state.absent.remove(name);
        } else {
            state.remember_absent(name);
        }
        let keys = state.keys.clone();
        drop(state);
        self.known.set_keys(keys);
    }

    /// Removes a key that the server no longer has.
    fn remove_key(&self, id: &KeyId) {
        let mut state = self.state();
        state.keys.remove(id);
        let keys = state.keys.clone();
        drop(state);
        self.known.set_keys(keys);
    }

    fn state(&self) -> MutexGuard<'_, RemoteState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl RemoteState {
    fn new(shape: KeyLayout) -> Self {
        Self {
            shape,
            keys: Keys::default(),
            absent: BTreeMap::new(),
            waiting: BTreeMap::new(),
            waits: 0,
            other: None,
            failure: LogOnce::new("keys can be fetched again"),
        }
    }

    fn remember_absent(&mut self, name: &KeyName) {
        let now = Instant::now();
        if self.absent.len() >= ABSENT {
            self.absent.retain(|_, until| now < *until);
        }
        if self.absent.len() < ABSENT {
            // A set may be fetched again after `SET_PAUSE` anyway.
            let lasts = if self.shape == KeyLayout::Set { SET_PAUSE } else { ABSENT_FOR };
            self.absent.insert(name.clone(), now + lasts);
        }
    }
}

fn text(response: &Response) -> Result<&str, RequestError> {
    let text = std::str::from_utf8(&response.body);
    text.map(str::trim).map_err(|_| RequestError::Nonsense("the answer is not UTF-8 text".to_owned()))
}
