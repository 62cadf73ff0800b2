//! Client of the older auth protocol (`auth.api`): a GET whose answer holds the public patterns below a path, the
//! key of the token, and the path's alias.
//!
//! Each pair of path and key is requested once, cached for the lifetime in the answer, and requested again while
//! sessions rest on it. Failures deny access.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use hyper::StatusCode;
use relay_auth::{Expected, Key, Keys, Permit, Policy, Refusal};
use relay_model::{Path, Scope, SessionId};
use relay_worker::{AdmissionRequest, Denial, GateAnswer, GateReply, PeerCertificate};
use serde::Deserialize;
use serde_json::Value;
use tokio::{runtime::Handle, sync::Semaphore, task::JoinSet, time::sleep};
use url::Url;

use super::{
    LocalPolicy, REVOKED,
    http::{Http, RequestError, Response, flaw},
    log_once::LogOnce,
    now, peer_name,
};

/// Most concurrent requests.
const AT_ONCE: usize = 64;
/// Most sessions waiting for an answer.
const WAITING: usize = 2_048;
/// Most memory of their credentials and request URLs, bytes. A target may have 16 KiB.
const WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Memory of a waiting session besides its target and URLs, bytes: entries of the tables, and its certificate.
/// Estimated from their sizes, rounded up.
const GUEST_BYTES: usize = 2 * 1024;
/// Most cached answers.
const KEPT: usize = 10_000;

/// Client of the server of `auth.api`.
pub(super) struct Api {
    base: Url,
    refresh: Duration,
    http: Http,
    expected: Arc<Expected>,
    known: Arc<LocalPolicy>,
    on: Handle,
    turns: Semaphore,
    state: Mutex<ApiState>,
}

struct ApiState {
    entries: HashMap<Url, ApiEntry>,
    /// URL of the request that each session rests on.
    of: HashMap<SessionId, Url>,
    waits: usize,
    /// Memory of the sessions that wait, bytes.
    waiting_bytes: usize,
    failure: LogOnce,
}

/// State of one request URL.
#[derive(Default)]
struct ApiEntry {
    answer: Option<(Arc<ApiAnswer>, Instant)>,
    waiting: Vec<(SessionCredentials, GateReply)>,
    /// Sessions admitted by the answer.
    live: HashMap<SessionId, SessionCredentials>,
}

/// Credentials of a session.
#[derive(Clone)]
struct SessionCredentials {
    target: String,
    certificate: Option<PeerCertificate>,
}

/// Body of an answer.
#[derive(Default, Deserialize)]
#[serde(default)]
struct ApiAnswer {
    /// The server answered 401 or 403.
    #[serde(skip)]
    refused: bool,
    alias: Option<String>,
    public: PublicPatterns,
    key: Option<Value>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct PublicPatterns {
    subscribe: Vec<String>,
    publish: Vec<String>,
}

impl Api {
    /// Starts the client and its refresh task. `expected`: the `aud` and `iss` that tokens must have.
    pub(super) fn start(
        base: Url,
        refresh: Duration,
        http: Http,
        expected: Arc<Expected>,
        known: Arc<LocalPolicy>,
        on: &Handle,
    ) -> Arc<Self> {
        let (turns, state) = (Semaphore::new(AT_ONCE), Mutex::new(ApiState::new()));
        let api = Arc::new(Self { base, refresh, http, expected, known, on: on.clone(), turns, state });
        let lasting = Arc::downgrade(&api);
        on.spawn(async move {
            loop {
                sleep(refresh).await;
                let Some(api) = lasting.upgrade() else { return };
                api.renew().await;
            }
        });
        api
    }

    pub(super) fn admit(self: &Arc<Self>, request: &AdmissionRequest, target: String) -> GateAnswer {
        let url = match self.question(request, &target) {
            Ok(url) => url,
            Err(refusal) => return GateAnswer::Now(Err(refusal.into())),
        };
        let guest = SessionCredentials { target, certificate: request.conn.certificate.clone() };
        let mut guard = self.state();
        let state = &mut *guard;
        let bytes = guest.bytes(&url);
        if state.waits >= WAITING
            || state.waiting_bytes + bytes > WAITING_BYTES
            || (state.entries.len() >= KEPT && !state.entries.contains_key(&url))
        {
            return GateAnswer::Now(Err(Denial::Unavailable));
        }
        state.of.insert(request.session, url.clone());
        let asked = state.entries.entry(url.clone()).or_default();
        if let Some((said, until)) = &asked.answer
            && Instant::now() < *until
        {
            let answer = said.permit(&guest, &self.expected, request.now);
            if answer.is_ok() {
                asked.live.insert(request.session, guest);
            }
            return GateAnswer::Now(answer);
        }
        let is_first = asked.waiting.is_empty();
        asked.waiting.push((guest, request.reply()));
        state.waits += 1;
        state.waiting_bytes += bytes;
        drop(guard);
        if is_first {
            let api = self.clone();
            self.on.spawn(async move { api.decide(url).await });
        }
        GateAnswer::Later
    }

    pub(super) fn ended(&self, session: SessionId) {
        let mut state = self.state();
        if let Some(url) = state.of.remove(&session)
            && let Some(asked) = state.entries.get_mut(&url)
        {
            asked.live.remove(&session);
        }
    }

    /// Builds the request URL for a session.
    fn question(&self, request: &AdmissionRequest, target: &str) -> Result<Url, Refusal> {
        // Checks the syntax of the path only; the scope does not matter here.
        let anything = Policy::public(Scope::everything(), Scope::everything());
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let root = anything.admit(path, request.now)?.root().clone();
        // A `kid` that is no safe file name is not sent: the server may open a file of that name.
        let kid = anything.missing_key(target).and_then(|(kid, _)| kid);
        let kid = kid.as_ref().and_then(|kid| kid.file_stem());
        let mut url = self.base.clone();
        {
            let mut query = url.query_pairs_mut();
            query.append_pair("root", root.as_str());
            if let Some(kid) = kid {
                query.append_pair("kid", kid);
            }
            if request.conn.certificate.is_some() {
                query.append_pair("mtls", "true");
            }
            query.append_pair("transport", request.conn.transport);
        }
        Ok(url)
    }

    /// Sends the request and answers the waiting sessions.
    async fn decide(self: Arc<Self>, url: Url) {
        let answer = self.ask(&url).await;
        let mut state = self.state();
        let waits = &mut *state;
        let Some(asked) = waits.entries.get_mut(&url) else { return };
        let waiting = std::mem::take(&mut asked.waiting);
        waits.waits = waits.waits.saturating_sub(waiting.len());
        let bytes: usize = waiting.iter().map(|(guest, _)| guest.bytes(&url)).sum();
        waits.waiting_bytes = waits.waiting_bytes.saturating_sub(bytes);
        match answer {
            Err(outage) => {
                waits.failure.failed(&format!("the auth server fails: {outage}; new sessions are rejected"));
                waiting.into_iter().for_each(|(_, reply)| reply.give(Err(outage.denial())));
            }
            Ok((said, until)) => {
                for (guest, reply) in waiting {
                    let permit = said.permit(&guest, &self.expected, now());
                    // A session that closed meanwhile is not in `of`.
                    if permit.is_ok() && waits.of.contains_key(&reply.session()) {
                        asked.live.insert(reply.session(), guest);
                    }
                    reply.give(permit);
                }
                asked.answer = Some((said, until));
                waits.failure.recovered();
            }
        }
        // An entry without a fresh answer or a session makes room.
        if waits.entries.get(&url).is_some_and(|asked| !asked.is_of_use(Instant::now())) {
            waits.entries.remove(&url);
        }
    }

    /// Repeats the requests that live sessions rest on, and drops the other entries.
    async fn renew(self: &Arc<Self>) {
        let now = Instant::now();
        let urls: Vec<Url> = {
            let mut state = self.state();
            state.entries.retain(|_, asked| asked.is_of_use(now));
            state
                .entries
                .iter()
                .filter(|(_, asked)| !asked.live.is_empty())
                .map(|(url, _)| url.clone())
                .collect()
        };
        let (mut asking, mut urls) = (JoinSet::new(), urls.into_iter());
        loop {
            while asking.len() < AT_ONCE
                && let Some(url) = urls.next()
            {
                let api = self.clone();
                asking.spawn(async move { api.revalidate(url).await });
            }
            if asking.join_next().await.is_none() {
                return;
            }
        }
    }

    /// Repeats one request, and revises or closes its sessions.
    async fn revalidate(&self, url: Url) {
        let answer = self.ask(&url).await;
        let mut state = self.state();
        let Some(asked) = state.entries.get_mut(&url) else { return };
        match answer {
            Ok((said, until)) => {
                for (session, guest) in &asked.live {
                    match said.permit(guest, &self.expected, now()) {
                        Ok(permit) => self.known.revise(*session, permit),
                        Err(denial) => self.known.end(*session, denial.session_code(), REVOKED),
                    }
                }
                asked.answer = Some((said, until));
                state.failure.recovered();
            }
            Err(outage) => {
                // New sessions are rejected; live ones stay, as the server may be back in a moment.
                asked.answer = None;
                state.failure.failed(&format!("the auth server fails: {outage}"));
            }
        }
    }

    async fn ask(&self, url: &Url) -> Result<(Arc<ApiAnswer>, Instant), RequestError> {
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| RequestError::Failed("the relay is shutting down".to_owned()))?;
        let response = self.http.get(url).await?;
        let said = ApiAnswer::of(&response)?;
        Ok((Arc::new(said), response.at + response.lifetime.unwrap_or_default().min(self.refresh)))
    }

    fn state(&self) -> MutexGuard<'_, ApiState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl SessionCredentials {
    /// Memory while it waits for the answer to `url`, bytes. The URL is kept three times: for the session, for the
    /// answer and by the request.
    fn bytes(&self, url: &Url) -> usize {
        GUEST_BYTES + self.target.len() + 3 * url.as_str().len()
    }
}

impl ApiEntry {
    fn is_of_use(&self, now: Instant) -> bool {
        let is_fresh = self.answer.as_ref().is_some_and(|(_, until)| now < *until);
        is_fresh || !self.live.is_empty() || !self.waiting.is_empty()
    }
}

impl ApiState {
    fn new() -> Self {
        let failure = LogOnce::new("the auth server answers again");
        Self { entries: HashMap::new(), of: HashMap::new(), waits: 0, waiting_bytes: 0, failure }
    }
}

impl ApiAnswer {
    fn of(response: &Response) -> Result<Self, RequestError> {
        match response.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                return Ok(Self { refused: true, ..Self::default() });
            }
            status if !status.is_success() => return Err(RequestError::Status(status)),
            _ => {}
        }
        serde_json::from_slice(&response.body)
            .map_err(|error| RequestError::Nonsense(format!("the answer is malformed: {}", flaw(&error))))
    }

    fn permit(
        &self,
        guest: &SessionCredentials,
        expected: &Arc<Expected>,
        now: SystemTime,
    ) -> Result<Permit, Denial> {
        if self.refused {
            return Err(Refusal::Unauthorized.into());
        }
        let permit = match &guest.certificate {
            Some(certificate) => {
                Policy::peer(&guest.target, peer_name(certificate), certificate.not_after, now)?
            }
            None => {
                let policy = self.policy(&guest.target, now)?.with_expected(expected.clone());
                policy.admit(&guest.target, now)?
            }
        };
        let Some(alias) = &self.alias else { return Ok(permit) };
        let alias = Path::parse(alias.trim_matches('/')).map_err(|_| Denial::Unavailable)?;
        if depth(&alias) != depth(permit.root()) {
            return Err(Denial::Unavailable);
        }
        Ok(Policy::moved(&permit, alias)?)
    }

    /// Policy from the public patterns below the requested path, and the key.
    fn policy(&self, target: &str, now: SystemTime) -> Result<Policy, Denial> {
        let anything = Policy::public(Scope::everything(), Scope::everything());
        let path = target.split_once('?').map_or(target, |(path, _)| path);
        let root = anything.admit(path, now)?.root().clone();
        let scope = |prefixes: &[String]| -> Result<Scope, Denial> {
            let below = |prefix: &String| root.join(&Path::parse(prefix.trim_matches('/'))?);
            prefixes
                .iter()
                .map(below)
                .collect::<Result<Vec<_>, _>>()
                .map(Scope::of)
                .map_err(|_| Denial::Unavailable)
        };
        let (publish, subscribe) = (scope(&self.public.publish)?, scope(&self.public.subscribe)?);
        let public = Policy::public(publish, subscribe).decided_elsewhere();
        let Some(key) = &self.key else { return Ok(public) };
        let mut keys = Keys::new();
        let key = Key::parse(&key.to_string()).map_err(|_| Denial::Unavailable)?;
        keys.insert(key).map_err(|_| Denial::Unavailable)?;
        Ok(public.with_keys(keys))
    }
}

fn depth(path: &Path) -> usize {
    path.as_str().split('/').filter(|part| !part.is_empty()).count()
}
