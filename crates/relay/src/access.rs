//! Who may come in: public paths, tokens, client certificates, and whoever is asked about them.
//!
//! [`Access`] is the relay's [`Gate`]. What it knows by itself (public paths, keys out of files) it answers at
//! once, on the worker's thread. What has to be asked over HTTP it answers later, from a runtime of its own:
//! a key by its name ([`remote`]), or everything ([`server`], [`api`]).
//!
//! What is taken back ends the sessions that rest on it. Every answer is made, and given, under the lock
//! that a change takes: none that was made of what holds no more comes after the change.

mod api;
mod cache;
mod complaint;
mod files;
mod http;
mod remote;
mod server;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    thread,
    time::{Duration, Instant, SystemTime},
};

use relay_admin::Origins;
use relay_auth::{Keys, Permit, Policy, Refusal};
use relay_model::SessionCode;
use relay_worker::{Answer, Denial, Ended, Gate, Request, Sessions};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

use crate::config::{Auth, Credentials, KeyDir};

/// What names a host that was asked for: a browser comes by any of them for the same.
const NAMED: [&str; 3] = ["webtransport", "websocket", "http"];
/// What a session is told whose right to be here was taken back.
const REVOKED: &str = "revoked";

/// Why nobody could be let in as configured.
#[derive(Debug, Error)]
pub(crate) enum AccessError {
    /// A file of keys that is not there, or is none.
    #[error("{0}")]
    Keys(String),
    /// What is needed to ask over HTTP.
    #[error("{0}")]
    Http(String),
    /// The system gives no thread.
    #[error("cannot start what keeps keys up to date: {0}")]
    Thread(#[from] io::Error),
}

/// Who may come in.
pub(crate) struct Access {
    known: Arc<Known>,
    asked: Asked,
    /// Host names whose first labels become the first part of the path, longest first.
    domains: Vec<String>,
    /// Whose pages may open sessions.
    origins: Origins,
    /// Keeps files up to date, for as long as it lives.
    _files: Option<files::Watcher>,
    /// Where is asked.
    runtime: Option<Runtime>,
}

/// Who is asked what is not known.
enum Asked {
    Nobody,
    /// For a key.
    Keys(Arc<remote::Keyring>),
    /// For everything.
    Server(Arc<server::Server>),
    /// For everything, the older way.
    Api(Arc<api::Api>),
}

/// What is known without asking, and the sessions it holds for.
pub(super) struct Known {
    policy: RwLock<Arc<Policy>>,
    sessions: OnceLock<Sessions>,
}

impl Known {
    fn new(policy: Policy) -> Self {
        Self { policy: RwLock::new(Arc::new(policy)), sessions: OnceLock::new() }
    }

    fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs `answer` with what holds now; what it gives away is given before anything changes.
    fn answering<T>(&self, answer: impl FnOnce(&Policy) -> T) -> T {
        answer(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Other keys hold from now on; sessions of tokens by those that are gone end.
    fn set_keys(&self, keys: Keys) {
        let policy = {
            let mut policy = self.policy.write().unwrap_or_else(PoisonError::into_inner);
            if policy.keys() == &keys {
                return;
            }
            *policy = Arc::new(Policy::clone(&policy).with_keys(keys));
            policy.clone()
        };
        if let Some(sessions) = self.sessions.get() {
            sessions.end_where(SessionCode::UNAUTHORIZED, REVOKED, move |permit| !policy.upholds(permit));
        }
    }

    fn end(&self, session: relay_model::SessionId, code: SessionCode, reason: &str) {
        if let Some(sessions) = self.sessions.get() {
            sessions.end(session, code, reason);
        }
    }

    fn revise(&self, session: relay_model::SessionId, permit: Permit) {
        if let Some(sessions) = self.sessions.get() {
            sessions.revise(session, permit);
        }
    }
}

impl Access {
    /// Reads what is configured, and starts keeping it up to date. `policy` is what is public; `node` is how
    /// this relay is called toward a server that is asked.
    ///
    /// # Errors
    /// [`AccessError`]: what is wrong, and with which file.
    pub(crate) fn start(policy: Policy, auth: &Auth, node: &str) -> Result<Self, AccessError> {
        let expected = Arc::new(auth.expected.clone());
        let policy = policy.with_expected(expected.clone());
        // Tokens are of an unknown key, and not refused as such, before the first keys are there.
        let policy = if auth.credentials.takes_tokens() { policy.with_keys(Keys::new()) } else { policy };
        let known = Arc::new(Known::new(policy));
        if auth.asks() && auth.tls.disable_verify {
            warn!("`auth.tls.disable_verify`: whoever is on the way decides who may come in");
        }
        let mut domains: Vec<String> = auth.domains.iter().map(|domain| domain.to_lowercase()).collect();
        domains.sort_by_key(|domain| std::cmp::Reverse(domain.len()));
        let watcher = source(auth).map(|source| files::Watcher::start(source, known.clone())).transpose();
        let watcher = watcher.map_err(|error| match error {
            AccessError::Keys(what) => AccessError::Keys(format!("`{}`: {what}", auth.credentials.key())),
            error => error,
        })?;
        let Some(url) = auth.credentials.url() else {
            return Ok(Self {
                known,
                asked: Asked::Nobody,
                domains,
                origins: Origins::default(),
                _files: watcher,
                runtime: None,
            });
        };
        let http = http::Http::new(url, auth)?;
        let runtime =
            Builder::new_multi_thread().worker_threads(1).thread_name("access").enable_all().build()?;
        let (on, refresh, to) = (runtime.handle(), auth.refresh, known.clone());
        let asked = match auth.credentials.clone() {
            Credentials::None | Credentials::Files(_) | Credentials::Dir(KeyDir::Local(_)) => Asked::Nobody,
            Credentials::Dir(KeyDir::Remote(url)) => {
                Asked::Keys(remote::Keyring::start((url, false), refresh, http, to, on))
            }
            Credentials::Jwks(url) => Asked::Keys(remote::Keyring::start((url, true), refresh, http, to, on)),
            Credentials::Server(url) => Asked::Server(server::Server::start(url, node, http, to, on)),
            Credentials::Api(url) => Asked::Api(api::Api::start(url, refresh, http, expected, to, on)),
        };
        Ok(Self {
            known,
            asked,
            domains,
            origins: Origins::default(),
            _files: watcher,
            runtime: Some(runtime),
        })
    }

    /// Waits until whoever is asked has heard of the sessions that ended; no longer than `most`.
    pub(crate) fn settle(&self, most: Duration) {
        let Asked::Server(server) = &self.asked else { return };
        let until = Instant::now() + most;
        while !server.is_quiet() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The target as it is decided on: below the path that its host name stands for.
    fn target(&self, request: &Request) -> String {
        if self.domains.is_empty() || !NAMED.contains(&request.transport) {
            return request.target.clone();
        }
        let host = request.server_name.as_deref().unwrap_or_default().trim_end_matches('.').to_lowercase();
        let below =
            self.domains.iter().find_map(|domain| host.strip_suffix(domain.as_str())?.strip_suffix('.'));
        let Some(labels) = below else { return request.target.clone() };
        let mut target = String::new();
        for label in labels.rsplit('.') {
            target.push('/');
            target.push_str(label);
        }
        if !request.target.starts_with(['/', '?']) && !request.target.is_empty() {
            target.push('/');
        }
        target.push_str(&request.target);
        target
    }

    /// Lets in pages of `origins` only, and what is no page.
    pub(crate) fn only_from(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// By what is known here.
    fn decide(&self, request: &Request, target: &str) -> Result<Permit, Refusal> {
        if let Some(certificate) = &request.certificate {
            return Policy::peer(target, peer_name(certificate), certificate.not_after, request.now);
        }
        self.known.policy().admit(target, request.now)
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        // A name that is looked up must not hold up the end.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// The files of keys of this machine that `auth` names, if it does.
fn source(auth: &Auth) -> Option<files::Source> {
    match &auth.credentials {
        Credentials::Files(files) => Some(files::Source::Files(files.clone())),
        Credentials::Dir(KeyDir::Local(folder)) => Some(files::Source::Folder(folder.clone())),
        _ => None,
    }
}

/// The same, file by file.
pub(crate) fn key_files(auth: &Auth) -> Vec<PathBuf> {
    source(auth).and_then(|source| files::all(source).ok()).unwrap_or_default()
}

/// What would keep a relay from starting, as far as can be told without asking anybody.
pub(crate) fn trouble(auth: &Auth) -> Option<String> {
    let keys = source(auth).and_then(files::trouble);
    keys.or_else(|| http::Http::new(auth.credentials.url()?, auth).err().map(|error| error.to_string()))
}

/// How a certificate is called in the log, and as the holder of what it publishes.
fn peer_name(certificate: &relay_worker::PeerCertificate) -> String {
    let digits = certificate.fingerprint.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    match &certificate.name {
        Some(name) => format!("certificate:{}", name.escape_default()),
        None => format!("certificate:{digits}"),
    }
}

impl Gate for Access {
    fn admit(&self, request: &Request) -> Answer {
        if !self.origins.allow(request.origin.as_deref().map(str::as_bytes), request.local.ip()) {
            return Answer::Now(Err(Refusal::Unauthorized.into()));
        }
        let target = self.target(request);
        match &self.asked {
            Asked::Server(server) => return server.admit(request, target),
            Asked::Api(api) => return api.admit(request, target),
            Asked::Nobody | Asked::Keys(_) => {}
        }
        if let Asked::Keys(keyring) = &self.asked
            && request.certificate.is_none()
            && self.known.policy().missing_key(&target).is_some()
        {
            return keyring.admit(request, target);
        }
        Answer::Now(self.decide(request, &target).map_err(Denial::from))
    }

    fn ended(&self, ended: &Ended<'_>) {
        match &self.asked {
            Asked::Server(server) => server.ended(ended),
            Asked::Api(api) => api.ended(ended.session),
            Asked::Nobody | Asked::Keys(_) => {}
        }
    }

    fn started(&self, sessions: &Sessions) {
        // Once.
        let _ = self.known.sessions.set(sessions.clone());
    }
}

/// Wall-clock time.
fn now() -> SystemTime {
    SystemTime::now()
}
