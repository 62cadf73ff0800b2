//! Keys that are asked for over HTTP, by the names that tokens say, or all at once (a JSON Web Key Set).
//!
//! A key is asked for once, however many sessions wait for it; that there is none is remembered, too, for a
//! while. What is known is asked for again all the time: a key that its server does not know any more is
//! revoked. While a server cannot be reached, what it said last holds.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use relay_auth::{Key, KeyId, Keys, Refusal};
use relay_worker::{Answer, Denial, Reply, Request};
use reqwest::{StatusCode, Url};
use tokio::{runtime::Handle, task::JoinSet, time::sleep};
use tracing::{info, warn};

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
/// How long.
const ABSENT_FOR: Duration = Duration::from_secs(10);
/// A whole set is not asked for more often, whatever names tokens say.
const SET_PAUSE: Duration = Duration::from_secs(2);

/// Keys on a server.
pub(super) struct Keyring {
    place: Place,
    http: Http,
    refresh: Duration,
    known: Arc<Known>,
    on: Handle,
    state: Mutex<State>,
    /// When the set was asked for last, and whether it came; held by who asks for it.
    asking: tokio::sync::Mutex<Option<(Instant, bool)>>,
}

/// How a key is asked for.
enum Place {
    /// As `NAME.jwk` below it.
    Each(Url),
    /// As one of a set.
    Set(Url),
}

#[derive(Default)]
struct State {
    keys: Keys,
    /// Names without a key, and until when that is believed.
    absent: BTreeMap<KeyId, Instant>,
    /// Who waits for which key.
    waiting: BTreeMap<KeyId, Vec<(String, Reply)>>,
    waits: usize,
    /// What is wrong with the server, or with what it says.
    trouble: Complaint,
}

/// What a server says of a key.
enum Found {
    Key(Key),
    Absent,
}

impl Keyring {
    pub(super) fn start(
        url: Url,
        refresh: Duration,
        http: Http,
        known: Arc<Known>,
        on: &Handle,
    ) -> Arc<Self> {
        let is_set = url.path().ends_with(".json") || url.path().ends_with("/jwks");
        let place = if is_set { Place::Set(url) } else { Place::Each(url) };
        let keyring = Arc::new(Self {
            place,
            http,
            refresh,
            known,
            on: on.clone(),
            state: Mutex::default(),
            asking: tokio::sync::Mutex::default(),
        });
        // Without a key there is nothing to check a token by, and a policy without keys says so at once.
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
        let Some(id) = self.known.policy().missing_key(&target) else {
            // It has come just now, or the token names none.
            let answer = self.known.answering(|policy| policy.admit(&target, request.now));
            return Answer::Now(answer.map_err(Denial::from));
        };
        let mut state = self.state();
        if state.absent.get(&id).is_some_and(|until| Instant::now() < *until) {
            return Answer::Now(Err(Refusal::UnknownKey.into()));
        }
        let is_asked = state.waiting.contains_key(&id);
        if state.waits >= WAITING || (!is_asked && state.waiting.len() >= AT_ONCE) {
            return Answer::Now(Err(Denial::Unavailable));
        }
        state.waits += 1;
        state.waiting.entry(id.clone()).or_default().push((target, request.reply()));
        drop(state);
        if !is_asked {
            let keyring = self.clone();
            self.on.spawn(async move { keyring.seek(id).await });
        }
        Answer::Later
    }

    /// Asks for a key, and answers who waits for it.
    async fn seek(self: Arc<Self>, id: KeyId) {
        let found = match &self.place {
            Place::Each(_) => self.one(&id).await,
            Place::Set(_) => self.all(SET_PAUSE).await.map(|()| match self.state().keys.get(&id) {
                Some(key) => Found::Key(key.clone()),
                None => Found::Absent,
            }),
        };
        let outage = found.is_err();
        match found {
            Ok(Found::Key(key)) => self.learn(&id, Some(key)),
            Ok(Found::Absent) => self.learn(&id, None),
            // Without its name, which whoever shows a token chooses: one outage is said once.
            Err(outage) => self.complain(Some(&format!("keys cannot be asked for: {outage}"))),
        }
        let waiting = {
            let mut state = self.state();
            let waiting = state.waiting.remove(&id).unwrap_or_default();
            state.waits = state.waits.saturating_sub(waiting.len());
            waiting
        };
        for (target, reply) in waiting {
            self.known.answering(|policy| {
                reply.give(match policy.admit(&target, now()) {
                    Err(_) if outage && policy.missing_key(&target).is_some() => Err(Denial::Unavailable),
                    answer => answer.map_err(Denial::from),
                });
            });
        }
    }

    /// Asks for all that is known, again.
    async fn renew(self: &Arc<Self>) {
        if let Place::Set(_) = &self.place {
            if let Err(outage) = self.all(Duration::ZERO).await {
                self.complain(Some(&format!("the keys cannot be asked for: {outage}; those of before hold")));
            }
            return;
        }
        let ids: Vec<KeyId> = self.state().keys.iter_named().map(|(id, _)| id.clone()).collect();
        let (mut asking, mut ids) = (JoinSet::new(), ids.into_iter());
        let mut trouble = None;
        loop {
            // So many at once that one that hangs does not keep the others from being asked for.
            while asking.len() < AT_ONCE
                && let Some(id) = ids.next()
            {
                let keyring = self.clone();
                asking.spawn(async move { keyring.ask_again(&id).await });
            }
            match asking.join_next().await {
                Some(Ok(said)) => trouble = said.or(trouble),
                Some(Err(_)) => {}
                None => break,
            }
        }
        self.complain(trouble.as_deref());
    }

    /// Asks for a key again. What is wrong, if anything.
    async fn ask_again(&self, id: &KeyId) -> Option<String> {
        match self.one(id).await {
            Ok(Found::Key(key)) => self.learn(id, Some(key)),
            Ok(Found::Absent) => {
                info!(key = %id, "a key is gone from its server: its sessions end");
                self.learn(id, None);
            }
            Err(outage) => {
                return Some(format!("key {id} cannot be asked for again: {outage}; that of before holds"));
            }
        }
        None
    }

    /// Asks for one key.
    async fn one(&self, id: &KeyId) -> Result<Found, Outage> {
        let Place::Each(base) = &self.place else { return Ok(Found::Absent) };
        let mut url = base.clone();
        if let Ok(mut segments) = url.path_segments_mut() {
            segments.pop_if_empty().push(&format!("{id}.jwk"));
        }
        let response = self.http.get(url).await?;
        match response.status {
            StatusCode::NOT_FOUND | StatusCode::GONE => Ok(Found::Absent),
            status if !status.is_success() => Err(Outage::Status(status)),
            _ => Key::parse(text(&response)?)
                .map(Found::Key)
                .map_err(|error| Outage::Nonsense(format!("the answer is no key: {error}"))),
        }
    }

    /// Asks for the set, unless it was asked for less than `pause` ago.
    async fn all(&self, pause: Duration) -> Result<(), Outage> {
        let Place::Set(url) = &self.place else { return Ok(()) };
        // Whoever comes meanwhile waits for the same answer.
        let mut asked = self.asking.lock().await;
        match *asked {
            Some((at, true)) if at.elapsed() < pause => return Ok(()),
            Some((at, false)) if at.elapsed() < pause => {
                return Err(Outage::Failed("it failed a moment ago".to_owned()));
            }
            _ => {}
        }
        let taken = self.take(url).await;
        *asked = Some((Instant::now(), taken.is_ok()));
        taken
    }

    /// Takes the set as it is there.
    async fn take(&self, url: &Url) -> Result<(), Outage> {
        let response = self.http.get(url.clone()).await?;
        if !response.status.is_success() {
            return Err(Outage::Status(response.status));
        }
        let (keys, faults) = Keys::parse(text(&response)?)
            .map_err(|error| Outage::Nonsense(format!("the answer is no set of keys: {error}")))?;
        let said =
            faults.iter().map(|(at, fault)| format!("key {at} of the set: {fault}: its tokens are refused"));
        let said = said.collect::<Vec<_>>().join("; ");
        self.complain(Some(said.as_str()).filter(|said| !said.is_empty()));
        let mut state = self.state();
        let gone = state.keys.iter().filter(|key| !keys.holds(key.mark())).count();
        state.keys = keys.clone();
        state.absent.clear();
        drop(state);
        if gone > 0 {
            info!(keys = gone, "keys are gone from their server: their sessions end");
        }
        self.known.set_keys(keys);
        Ok(())
    }

    /// A key is this now, or is none.
    fn learn(&self, id: &KeyId, key: Option<Key>) {
        let mut state = self.state();
        state.keys.remove(id);
        match key {
            Some(key) => {
                state.absent.remove(id);
                if let Err(error) = state.keys.insert_as(id.clone(), key) {
                    warn!(key = %id, "{error}: its tokens are refused");
                }
            }
            None => {
                let now = Instant::now();
                if state.absent.len() >= ABSENT {
                    state.absent.retain(|_, until| now < *until);
                }
                if state.absent.len() < ABSENT {
                    state.absent.insert(id.clone(), now + ABSENT_FOR);
                }
            }
        }
        let keys = state.keys.clone();
        drop(state);
        self.known.set_keys(keys);
    }

    /// Says what is wrong, once.
    fn complain(&self, what: Option<&str>) {
        self.state().trouble.now(what);
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn text(response: &Response) -> Result<&str, Outage> {
    let text = std::str::from_utf8(&response.body);
    text.map(str::trim).map_err(|_| Outage::Nonsense("the answer is no text".to_owned()))
}
