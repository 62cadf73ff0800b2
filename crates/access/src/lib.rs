//! Session authorization: public paths, tokens, client certificates, key servers and auth servers.
//!
//! [`Access`] is the relay's [`Gate`]. Requests decided by local state (public paths, keys from files) are answered
//! synchronously on the worker's thread. Requests that need HTTP are answered later from a separate runtime: a key
//! fetched by its `kid` ([`remote`]), or the whole decision ([`server`], [`api`]).
//!
//! Revoking a key or a grant closes the sessions admitted by it. Answers about fetched keys are computed and sent
//! under the lock that a policy change takes for writing, so none from the old policy follows the change.

mod api;
mod cache;
mod files;
mod http;
mod log_once;
mod question;
mod remote;
mod server;

use std::{
    io,
    path::PathBuf,
    sync::{Arc, OnceLock, PoisonError, RwLock},
    thread,
    time::{Duration, Instant, SystemTime},
};

use relay_auth::{Keys, Permit, Policy, Refusal};
use relay_config::{Auth, Credentials, KeyDir};
use relay_http::Origins;
use relay_model::SessionCode;
use relay_worker::{AdmissionRequest, Denial, Gate, GateAnswer, SessionControl, SessionEnded};
use thiserror::Error;
use tokio::runtime::{Builder, Runtime};
use tracing::warn;

use remote::KeyLayout;

/// Transports whose requests name a host; a browser may use any of them for the same URL.
const NAMED: [&str; 3] = ["webtransport", "websocket", "http"];
/// Close reason of a session whose authorization was revoked.
const REVOKED: &str = "revoked";

/// Authorization configuration that cannot be used.
#[derive(Debug, Error)]
pub enum AccessError {
    /// A key file is missing or holds no usable key.
    #[error("{0}")]
    Keys(String),
    /// The HTTP client cannot be set up (URL, TLS files).
    #[error("{0}")]
    Http(String),
    /// A thread cannot be started.
    #[error("cannot start the thread that refreshes keys: {0}")]
    Thread(#[from] io::Error),
}

/// Authorization of sessions, the relay's [`Gate`].
pub struct Access {
    known: Arc<LocalPolicy>,
    backend: AuthBackend,
    /// Host names whose first labels become the first part of the path, longest first.
    domains: Vec<String>,
    /// Web origins whose pages may open sessions.
    origins: Origins,
    /// Watches key files until dropped.
    _files: Option<files::KeyWatcher>,
    /// Runtime of the requests to key servers and auth servers.
    runtime: Option<Runtime>,
}

/// Server asked for what local state cannot decide.
enum AuthBackend {
    Nobody,
    /// A key server.
    Keys(Arc<remote::Keyring>),
    /// The server of `auth.url`, which decides about each session.
    Server(Arc<server::AuthServer>),
    /// The server of `auth.api`, the older protocol.
    Api(Arc<api::Api>),
}

/// Local policy, and the live sessions it was applied to.
pub(crate) struct LocalPolicy {
    policy: RwLock<Arc<Policy>>,
    sessions: OnceLock<SessionControl>,
}

impl LocalPolicy {
    fn new(policy: Policy) -> Self {
        Self { policy: RwLock::new(Arc::new(policy)), sessions: OnceLock::new() }
    }

    fn policy(&self) -> Arc<Policy> {
        self.policy.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Runs `answer` with the current policy under its read lock, so that `answer` completes before any change.
    fn answering<T>(&self, answer: impl FnOnce(&Policy) -> T) -> T {
        answer(&self.policy.read().unwrap_or_else(PoisonError::into_inner))
    }

    /// Replaces the keys, and closes the sessions whose permits rest on removed keys.
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
    /// Loads the configured credentials and starts refreshing them. `policy` holds the public paths; `node` is this
    /// relay's name in requests to an auth server.
    ///
    /// # Errors
    /// [`AccessError`], which names the file or configuration key.
    pub fn start(policy: Policy, auth: &Auth, node: &str) -> Result<Self, AccessError> {
        let expected = Arc::new(auth.expected.clone());
        let policy = policy.with_expected(expected.clone());
        // Before the first keys arrive a token fails with an unknown key instead of being rejected as unsupported.
        let policy = if auth.credentials.takes_tokens() { policy.with_keys(Keys::new()) } else { policy };
        let known = Arc::new(LocalPolicy::new(policy));
        if auth.asks() && auth.tls.disable_verify {
            warn!(
                "`auth.tls.disable_verify` is on: anybody on the network path can pose as the auth server or key server"
            );
        }
        let mut domains: Vec<String> = auth.domains.iter().map(|domain| domain.to_lowercase()).collect();
        domains.sort_by_key(|domain| std::cmp::Reverse(domain.len()));
        let watcher = source(auth).map(|source| files::KeyWatcher::start(source, known.clone())).transpose();
        let watcher = watcher.map_err(|error| match error {
            AccessError::Keys(what) => AccessError::Keys(format!("`{}`: {what}", auth.credentials.key())),
            error => error,
        })?;
        let Some(url) = auth.credentials.url() else {
            return Ok(Self {
                known,
                backend: AuthBackend::Nobody,
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
            Credentials::None | Credentials::Files(_) | Credentials::Dir(KeyDir::Local(_)) => {
                AuthBackend::Nobody
            }
            Credentials::Dir(KeyDir::Remote(url)) => {
                AuthBackend::Keys(remote::Keyring::start(url, KeyLayout::Unknown, refresh, http, to, on))
            }
            Credentials::Jwks(url) => {
                AuthBackend::Keys(remote::Keyring::start(url, KeyLayout::Set, refresh, http, to, on))
            }
            Credentials::Server(url) => {
                AuthBackend::Server(server::AuthServer::start(url, node, http, to, on))
            }
            Credentials::Api(url) => AuthBackend::Api(api::Api::start(url, refresh, http, expected, to, on)),
        };
        Ok(Self {
            known,
            backend: asked,
            domains,
            origins: Origins::default(),
            _files: watcher,
            runtime: Some(runtime),
        })
    }

    /// Waits until the auth server has received the end events of closed sessions, at most `most`.
    pub fn wait_idle(&self, most: Duration) {
        let AuthBackend::Server(server) = &self.backend else { return };
        let until = Instant::now() + most;
        while !server.is_quiet() && Instant::now() < until {
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Request target with the path of its host name's labels below `auth.domains` prepended.
    fn target(&self, request: &AdmissionRequest) -> String {
        if self.domains.is_empty() || !NAMED.contains(&request.conn.transport) {
            return request.conn.target().to_owned();
        }
        let host =
            request.conn.server_name.as_deref().unwrap_or_default().trim_end_matches('.').to_lowercase();
        let below =
            self.domains.iter().find_map(|domain| host.strip_suffix(domain.as_str())?.strip_suffix('.'));
        let Some(labels) = below else { return request.conn.target().to_owned() };
        let mut target = String::new();
        for label in labels.rsplit('.') {
            target.push('/');
            target.push_str(label);
        }
        if !request.conn.target().starts_with(['/', '?']) && !request.conn.target().is_empty() {
            target.push('/');
        }
        target.push_str(request.conn.target());
        target
    }

    /// Restricts requests that carry an `Origin` to `origins`.
    pub fn only_from(mut self, origins: Origins) -> Self {
        self.origins = origins;
        self
    }

    /// Decides by client certificate or local policy.
    fn decide(&self, request: &AdmissionRequest, target: &str) -> Result<Permit, Refusal> {
        if let Some(certificate) = &request.conn.certificate {
            return Policy::peer(target, peer_name(certificate), certificate.not_after, request.now);
        }
        self.known.policy().admit(target, request.now)
    }
}

impl Drop for Access {
    fn drop(&mut self) {
        // A pending DNS lookup must not delay shutdown.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Local key files that `auth` names, if any.
fn source(auth: &Auth) -> Option<files::KeySource> {
    match &auth.credentials {
        Credentials::Files(files) => Some(files::KeySource::Files(files.clone())),
        Credentials::Dir(KeyDir::Local(folder)) => Some(files::KeySource::Folder(folder.clone())),
        _ => None,
    }
}

/// Paths of the local key files that `auth` names.
pub fn key_files(auth: &Auth) -> Vec<PathBuf> {
    source(auth).and_then(|source| files::all(source).ok()).unwrap_or_default()
}

/// First error that would keep a relay from starting, as far as it shows without network requests.
pub fn startup_error(auth: &Auth) -> Option<String> {
    let keys = source(auth).and_then(files::startup_error);
    keys.or_else(|| http::Http::new(auth.credentials.url()?, auth).err().map(|error| error.to_string()))
}

/// Name of a client certificate in the log, and as the owner of its broadcasts.
fn peer_name(certificate: &relay_worker::PeerCertificate) -> String {
    let digits = certificate.fingerprint.iter().take(8).map(|byte| format!("{byte:02x}")).collect::<String>();
    match &certificate.name {
        Some(name) => format!("certificate:{}", name.escape_default()),
        None => format!("certificate:{digits}"),
    }
}

impl Gate for Access {
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
        if !self.origins.allow(request.conn.origin.as_deref().map(str::as_bytes), request.conn.local.ip()) {
            return GateAnswer::Now(Err(Refusal::Unauthorized.into()));
        }
        let target = self.target(request);
        match &self.backend {
            AuthBackend::Server(server) => return server.admit(request, target),
            AuthBackend::Api(api) => return api.admit(request, target),
            AuthBackend::Nobody | AuthBackend::Keys(_) => {}
        }
        if let AuthBackend::Keys(keyring) = &self.backend
            && request.conn.certificate.is_none()
            && self.known.policy().missing_key(&target).is_some()
        {
            return keyring.admit(request, target);
        }
        GateAnswer::Now(self.decide(request, &target).map_err(Denial::from))
    }

    fn ended(&self, ended: &SessionEnded<'_>) {
        match &self.backend {
            AuthBackend::Server(server) => server.ended(ended),
            AuthBackend::Api(api) => api.ended(ended.session),
            AuthBackend::Nobody | AuthBackend::Keys(_) => {}
        }
    }

    fn started(&self, sessions: &SessionControl) {
        // Set once; a second call has no effect.
        let _ = self.known.sessions.set(sessions.clone());
    }
}

/// Wall-clock time.
fn now() -> SystemTime {
    SystemTime::now()
}
