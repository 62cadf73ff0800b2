//! Keys of a server: one at a time by the names that tokens have, or all at once (a JSON Web Key Set).
//!
//! `auth.jwks` is a set. An address of `auth.key_dir` may be either and is fetched itself first; if its answer is a
//! set, that is used from then on, otherwise keys are fetched below it, as `KID.jwk`.
//!
//! A key is fetched once, however many sessions wait for it; its absence is remembered for a while, too. Known keys
//! are fetched again all the time: a key that its server does not have any more is revoked. While a server cannot be
//! reached, its last answer holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use hyper::StatusCode;
use relay_auth::{Algorithm, Key, KeyId, Keys, Refusal};
use relay_worker::{Answer, Denial, Reply, Request};
use tokio::{runtime::Handle, task::JoinSet, time::sleep};
use tracing::{info, warn};
use url::Url;

use super::{
    Known,
    complaint::Complaint,
    http::{Http, Outage, Response},
    now,
};

/// Keys that are asked for at once.
const AT_ONCE: usize = 16;
/// Sessions that wait for a key at once.
const WAITING: usize = 1_024;
/// Names that are remembered as those of no key.
const ABSENT: usize = 4_096;
/// How long, where keys are fetched one at a time.
const ABSENT_FOR: Duration = Duration::from_secs(10);
/// A set is not fetched more often, whatever names tokens have.
const SET_PAUSE: Duration = Duration::from_secs(2);

/// The `kid` and `alg` of a token, which name its key; without `kid` any key of the set may be meant.
type Name = (Option<KeyId>, Algorithm);

/// Keys on a server.
pub(super) struct Keyring {
    url: Url,
    http: Http,
    refresh: Duration,
    known: Arc<Known>,
    on: Handle,
    state: Mutex<State>,
    /// When the address itself was fetched last, and its answer; held while it is fetched.
    fetched: tokio::sync::Mutex<Option<(Instant, Result<Itself, Outage>)>>,
}

/// How the server has its keys.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Shape {
    /// Not known yet: the address itself has answered no set, and no key was found below it.
    #[default]
    Unknown,
    /// The address is a set.
    Set,
    /// Each key is `KID.jwk` below the address.
    Folder,
}

/// The answer of the address itself.
#[derive(Clone, Copy, Debug)]
enum Itself {
    /// A set, which was taken.
    Set,
    /// Something else, with this status.
    Other(StatusCode),
}

#[derive(Default)]
struct State {
    shape: Shape,
    keys: Keys,
    /// Names without a key, and until when that is assumed.
    absent: BTreeMap<Name, Instant>,
    /// Sessions that wait, by the name of their key.
    waiting: BTreeMap<Name, Vec<(String, Reply)>>,
    waits: usize,
    /// The status of an answer that was no set, once it is logged.
    other: Option<StatusCode>,
    /// What is wrong with the server, or with its answers.
    trouble: Complaint,
}

/// Answer of a key server for one name.
enum Found {
    Key(Key),
    Absent,
}

impl Keyring {
    /// `is_set`: the address is that of a set, whatever it answers.
    pub(super) fn start(
        (url, is_set): (Url, bool),
        refresh: Duration,
        http: Http,
        known: Arc<Known>,
        on: &Handle,
    ) -> Arc<Self> {
        let shape = if is_set { Shape::Set } else { Shape::Unknown };
        let keyring = Arc::new(Self {
            url,
            http,
            refresh,
            known,
            on: on.clone(),
            state: Mutex::new(State { shape, ..State::default() }),
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

    /// Lets a session wait for the key of its token.
    pub(super) fn admit(self: &Arc<Self>, request: &Request, target: String) -> Answer {
        let at_once = |target: &str| {
            let answer = self.known.answering(|policy| policy.admit(target, request.now));
            Answer::Now(answer.map_err(Denial::from))
        };
        // It may have come just now.
        let Some(name) = self.known.policy().missing_key(&target) else { return at_once(&target) };
        let mut state = self.state();
        if state.absent.get(&name).is_some_and(|until| Instant::now() < *until) {
            drop(state);
            return at_once(&target);
        }
        let is_asked = state.waiting.contains_key(&name);
        if state.waits >= WAITING || (!is_asked && state.waiting.len() >= AT_ONCE) {
            return Answer::Now(Err(Denial::Unavailable));
        }
        state.waits += 1;
        state.waiting.entry(name.clone()).or_default().push((target, request.reply()));
        drop(state);
        if !is_asked {
            let keyring = self.clone();
            self.on.spawn(async move { keyring.seek(name).await });
        }
        Answer::Later
    }

    /// Fetches a key, and answers the sessions that wait for it.
    async fn seek(self: Arc<Self>, name: Name) {
        let found = self.find(&name).await;
        let outage = found.as_ref().err().map(Outage::denial);
        match found {
            Ok(Found::Key(key)) => self.learn(&name, Some(key)),
            Ok(Found::Absent) => self.learn(&name, None),
            // Without its name, which whoever shows a token chooses: one outage is logged once.
            Err(outage) => self.complain(Some(&format!("keys cannot be fetched: {outage}"))),
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

    /// Looks where the server may have the key.
    async fn find(&self, name: &Name) -> Result<Found, Outage> {
        let shape = self.state().shape;
        let itself = match shape {
            Shape::Folder => return self.below(name).await,
            Shape::Set | Shape::Unknown => self.itself(SET_PAUSE).await?,
        };
        let Itself::Other(status) = itself else {
            let key = name.0.as_ref().and_then(|id| self.state().keys.get(id, name.1).cloned());
            return Ok(key.map_or(Found::Absent, Found::Key));
        };
        match self.below(name).await? {
            Found::Absent if status.is_server_error() => Err(Outage::Status(status)),
            Found::Absent => {
                let what = format!(
                    "no key found: the address of `auth.key_dir` is no key set (its answer is {status}), and the key of \
                     a token is not below it; check `auth.key_dir`"
                );
                self.complain(Some(&what));
                Ok(Found::Absent)
            }
            found => Ok(found),
        }
    }

    /// Fetches everything that is known, again.
    async fn renew(self: &Arc<Self>) {
        let shape = self.state().shape;
        if shape != Shape::Folder {
            match self.itself(Duration::ZERO).await {
                Ok(Itself::Set) => {}
                Ok(Itself::Other(status)) if status.is_server_error() => {
                    self.complain(Some(&format!("the keys cannot be fetched: the answer is {status}")));
                }
                Ok(Itself::Other(status)) => {
                    if self.state().other.replace(status) != Some(status) {
                        info!(%status, "`auth.key_dir` is no key set: keys are fetched below it, as KID.jwk");
                    }
                }
                Err(outage) => {
                    let what = format!("the keys cannot be fetched: {outage}; those that are known hold");
                    self.complain(Some(&what));
                }
            }
            return;
        }
        let mut ids: Vec<KeyId> = self.state().keys.iter_named().map(|(id, _)| id.clone()).collect();
        ids.dedup();
        let (mut asking, mut ids) = (JoinSet::new(), ids.into_iter());
        let mut trouble = None;
        loop {
            // So many at once that one that hangs does not keep the others from being fetched.
            while asking.len() < AT_ONCE
                && let Some(id) = ids.next()
            {
                let keyring = self.clone();
                asking.spawn(async move { keyring.fetch_again(id).await });
            }
            match asking.join_next().await {
                Some(Ok(flaw)) => trouble = flaw.or(trouble),
                Some(Err(_)) => {}
                None => break,
            }
        }
        self.complain(trouble.as_deref());
    }

    /// Fetches a known key again. What is wrong, if anything.
    async fn fetch_again(&self, id: KeyId) -> Option<String> {
        match self.one(&id).await {
            Ok(Found::Key(key)) => {
                let name = (Some(id), key.algorithm());
                self.learn(&name, Some(key));
            }
            Ok(Found::Absent) => {
                info!(key = %id, "a key is gone from its server: its sessions end");
                self.forget(&id);
            }
            Err(outage) => {
                return Some(format!(
                    "key {id} cannot be fetched again: {outage}; the one that is known holds"
                ));
            }
        }
        None
    }

    /// Fetches the key of a token below the address.
    async fn below(&self, (id, _): &Name) -> Result<Found, Outage> {
        match id {
            Some(id) => self.one(id).await,
            None => Ok(Found::Absent),
        }
    }

    /// Fetches one key below the address.
    async fn one(&self, id: &KeyId) -> Result<Found, Outage> {
        // A name that is no file name is that of no file.
        let Some(stem) = id.file_stem() else { return Ok(Found::Absent) };
        let mut url = self.url.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(&format!("{stem}.jwk"));
        }
        let response = self.http.keys(&url).await?;
        match response.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Found::Absent),
            status if !status.is_success() => Err(Outage::Status(status)),
            _ => {
                let key = Key::parse(text(&response)?)
                    .map_err(|error| Outage::Nonsense(format!("the answer is no key: {error}")))?;
                let mut state = self.state();
                if state.shape == Shape::Unknown {
                    state.shape = Shape::Folder;
                }
                Ok(Found::Key(key))
            }
        }
    }

    /// Fetches the address itself, unless it was fetched less than `pause` ago.
    async fn itself(&self, pause: Duration) -> Result<Itself, Outage> {
        // Whoever comes meanwhile waits for the same answer.
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

    /// Fetches the address itself, and takes the set if it is one.
    async fn fetch(&self) -> Result<Itself, Outage> {
        let response = self.http.keys(&self.url).await?;
        let must_be_set = self.state().shape == Shape::Set;
        if !response.status.is_success() {
            let status = response.status;
            return if must_be_set { Err(Outage::Status(status)) } else { Ok(Itself::Other(status)) };
        }
        match text(&response).and_then(|text| {
            Keys::parse(text)
                .map_err(|error| Outage::Nonsense(format!("the answer is no set of keys: {error}")))
        }) {
            Ok((keys, faults)) => {
                self.take(keys, &faults);
                Ok(Itself::Set)
            }
            Err(outage) if must_be_set => Err(outage),
            Err(_) => Ok(Itself::Other(response.status)),
        }
    }

    /// The keys are those of this set now.
    fn take(&self, keys: Keys, faults: &[(usize, relay_auth::KeyError)]) {
        let flaws =
            faults.iter().map(|(at, fault)| format!("key {at} of the set: {fault}: its tokens are refused"));
        let mut flaws: Vec<String> = flaws.collect();
        if keys.is_empty() {
            flaws.push("the set has no key that can verify: every token is refused".to_owned());
        }
        let flaws = flaws.join("; ");
        self.complain(Some(flaws.as_str()).filter(|flaws| !flaws.is_empty()));
        let mut state = self.state();
        let gone = state.keys.iter().filter(|key| !keys.holds(key.mark())).count();
        state.shape = Shape::Set;
        state.keys = keys.clone();
        state.absent.clear();
        drop(state);
        if gone > 0 {
            info!(keys = gone, "keys are gone from their server: their sessions end");
        }
        self.known.set_keys(keys);
    }

    /// A name has this key now, or none.
    fn learn(&self, name: &Name, key: Option<Key>) {
        let mut state = self.state();
        if state.shape == Shape::Folder
            && let (Some(id), Some(key)) = (&name.0, &key)
        {
            // Its file has one key.
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

    /// The server has no key of that name any more.
    fn forget(&self, id: &KeyId) {
        let mut state = self.state();
        state.keys.remove(id);
        let keys = state.keys.clone();
        drop(state);
        self.known.set_keys(keys);
    }

    /// Logs what is wrong, once.
    fn complain(&self, what: Option<&str>) {
        self.state().trouble.now(what);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn remember_absent(&mut self, name: &Name) {
        let now = Instant::now();
        if self.absent.len() >= ABSENT {
            self.absent.retain(|_, until| now < *until);
        }
        if self.absent.len() < ABSENT {
            // A set is fetched again that soon anyway.
            let lasts = if self.shape == Shape::Set { SET_PAUSE } else { ABSENT_FOR };
            self.absent.insert(name.clone(), now + lasts);
        }
    }
}

fn text(response: &Response) -> Result<&str, Outage> {
    let text = std::str::from_utf8(&response.body);
    text.map(str::trim).map_err(|_| Outage::Nonsense("the answer is no text".to_owned()))
}
