//! Client of an auth server (`auth.url`): one JSON request when a session connects, periodically to revalidate
//! it, and when it has ended.
//!
//! Failures deny access: a session without a decision is rejected and may try again. A live session stays until its
//! grant expires; if it must be revalidated and the server is unavailable, it is closed after [`GRACE`].

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use hyper::StatusCode;
use relay_auth::{Granted, Permit, Policy};
use relay_model::{Path, Pattern, SessionCode, SessionId};
use relay_worker::{AdmissionRequest, Denial, GateAnswer, GateReply, SessionEnded};
use serde::Deserialize;
use serde_json::Value;
use tokio::{runtime::Handle, sync::Semaphore, task::AbortHandle, time::sleep};
use url::Url;

use super::{
    LocalPolicy, REVOKED,
    http::{Http, RequestError, Response, flaw},
    log_once::LogOnce,
    now,
    question::{Question, SessionTotals},
};

/// Most concurrent requests.
const AT_ONCE: usize = 64;
/// Most requests queued or in flight.
const WAITING: usize = 2_048;
/// Most memory of their questions, bytes. A target may have 16 KiB.
const WAITING_BYTES: usize = 16 * 1024 * 1024;
/// Most cached answers.
const KEPT: usize = 10_000;
/// Time a session may continue while it cannot be revalidated.
const GRACE: Duration = Duration::from_secs(30);
/// Shortest revalidation interval of a session.
const SOONEST: Duration = Duration::from_secs(1);
/// Smallest number, in seconds, that is read as a Unix time instead of a duration.
const TIMES: f64 = 1e9;

/// Client of the auth server, and the sessions it decided about.
pub(super) struct AuthServer {
    url: Url,
    node: String,
    http: Http,
    known: Arc<LocalPolicy>,
    on: Handle,
    turns: Semaphore,
    waiting: AtomicUsize,
    /// Memory of the questions that wait, bytes.
    waiting_bytes: AtomicUsize,
    live: Mutex<HashMap<SessionId, LiveSession>>,
    kept: Mutex<HashMap<[u8; 32], (Instant, AuthDecision)>>,
    failure: Mutex<LogOnce>,
}

/// A session known to the auth server.
struct LiveSession {
    question: Arc<Question>,
    /// Revalidation task.
    again: Option<AbortHandle>,
}

/// Answer body; the grant is an object `grant` or stands at the top level.
#[derive(Deserialize)]
struct ServerAnswer {
    #[serde(default)]
    grant: Option<GrantJson>,
    #[serde(flatten)]
    flat: GrantJson,
}

#[derive(Clone, Default, Deserialize)]
#[serde(default)]
struct GrantJson {
    publish: Vec<String>,
    subscribe: Vec<String>,
    root: Option<String>,
    mounts: Value,
    expires: Option<f64>,
    revalidate: Option<f64>,
    subject: Option<String>,
    peer: Value,
}

/// Decision of the auth server.
#[derive(Clone)]
enum AuthDecision {
    Granted { granted: Granted, again: Option<Duration> },
    Refused,
}

impl AuthServer {
    pub(super) fn start(url: Url, node: &str, http: Http, known: Arc<LocalPolicy>, on: &Handle) -> Arc<Self> {
        Arc::new(Self {
            url,
            node: node.to_owned(),
            http,
            known,
            on: on.clone(),
            turns: Semaphore::new(AT_ONCE),
            waiting: AtomicUsize::new(0),
            waiting_bytes: AtomicUsize::new(0),
            live: Mutex::default(),
            kept: Mutex::default(),
            failure: Mutex::new(LogOnce::new("the auth server answers again")),
        })
    }

    pub(super) fn admit(self: &Arc<Self>, request: &AdmissionRequest, target: String) -> GateAnswer {
        let question = Arc::new(Question::new(request, target));
        let live = LiveSession { question: question.clone(), again: None };
        lock(&self.live).insert(request.session, live);
        if let Some(verdict) = self.cached_decision(&question) {
            let answer = verdict.permit(&question, request.now);
            if answer.is_ok() {
                self.schedule_revalidation(request.session, &verdict);
            }
            return GateAnswer::Now(answer);
        }
        let Some(turn) = self.queue(&question) else { return GateAnswer::Now(Err(Denial::Unavailable)) };
        let (server, reply) = (self.clone(), request.reply());
        self.on.spawn(async move {
            server.decide(&question, reply).await;
            drop(turn);
        });
        GateAnswer::Later
    }

    pub(super) fn ended(self: &Arc<Self>, ended: &SessionEnded<'_>) {
        let Some(live) = lock(&self.live).remove(&ended.session) else { return };
        if let Some(again) = live.again {
            again.abort();
        }
        if !ended.admitted {
            return;
        }
        let end = SessionTotals {
            bytes_received: ended.bytes_in,
            bytes_sent: ended.bytes_out,
            duration_ms: u64::try_from(ended.lasted.as_millis()).unwrap_or(u64::MAX),
            ended_by: ended.by.name(),
            reason: ended.reason.chars().take(256).collect(),
        };
        let Some(turn) = self.queue(&live.question) else {
            lock(&self.failure)
                .failed("too many sessions ended at once: some end events are not sent to the auth server");
            return;
        };
        let server = self.clone();
        self.on.spawn(async move {
            // Retried, so that accounting does not lose bytes to a short outage.
            for pause in [Duration::ZERO, Duration::from_secs(1), Duration::from_secs(5)] {
                sleep(pause).await;
                let asked = server.ask("end", &live.question, Some(&end)).await;
                if asked.is_ok_and(|response| !response.status.is_server_error()) {
                    break;
                }
            }
            drop(turn);
        });
    }

    /// Whether no request is queued or in flight.
    pub(super) fn is_quiet(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) == 0
    }

    async fn decide(self: &Arc<Self>, question: &Arc<Question>, reply: GateReply) {
        let session = reply.session();
        match self.verdict("connect", question).await {
            Err(outage) => {
                lock(&self.failure)
                    .failed(&format!("the auth server fails: {outage}; new sessions are rejected"));
                reply.give(Err(outage.denial()));
            }
            Ok(verdict) => {
                lock(&self.failure).recovered();
                let answer = verdict.permit(question, now());
                let is_in = answer.is_ok();
                reply.give(answer);
                if is_in {
                    self.schedule_revalidation(session, &verdict);
                }
            }
        }
    }

    /// Starts the revalidation task of a live session if its verdict asks for one.
    fn schedule_revalidation(self: &Arc<Self>, session: SessionId, verdict: &AuthDecision) {
        let AuthDecision::Granted { again: Some(pause), .. } = verdict else { return };
        let (server, pause) = (Arc::downgrade(self), (*pause).max(SOONEST));
        let mut live = lock(&self.live);
        let Some(known) = live.get_mut(&session) else { return };
        let question = known.question.clone();
        let task = self.on.spawn(async move {
            let (mut pause, mut since) = (pause, None);
            loop {
                sleep(pause).await;
                let Some(server) = server.upgrade() else { return };
                match server.revalidate(session, &question, &mut since).await {
                    Some(next) => pause = next.max(SOONEST),
                    None => return,
                }
            }
        });
        known.again = Some(task.abort_handle());
    }

    /// Revalidates a live session. Returns the time until the next revalidation; `None` for never.
    async fn revalidate(
        &self,
        session: SessionId,
        question: &Question,
        since: &mut Option<Instant>,
    ) -> Option<Duration> {
        let answer = match self.verdict("revalidate", question).await {
            Ok(verdict) => {
                *since = None;
                lock(&self.failure).recovered();
                let next = match &verdict {
                    AuthDecision::Granted { again, .. } => *again,
                    AuthDecision::Refused => None,
                };
                verdict.permit(question, now()).map(|permit| (permit, next))
            }
            Err(outage) => {
                let first = *since.get_or_insert_with(Instant::now);
                lock(&self.failure).failed(&format!("the auth server fails: {outage}"));
                if first.elapsed() < GRACE {
                    return Some(Duration::from_secs(5));
                }
                self.known.end(session, SessionCode::INTERNAL, "authorization unavailable");
                return None;
            }
        };
        match answer {
            Ok((permit, next)) => {
                self.known.revise(session, permit);
                next
            }
            Err(denial) => {
                self.known.end(session, denial.session_code(), REVOKED);
                None
            }
        }
    }

    async fn verdict(&self, event: &'static str, question: &Question) -> Result<AuthDecision, RequestError> {
        let response = self.ask(event, question, None).await?;
        let verdict = AuthDecision::of(&response, question)?;
        let lasts = response.lifetime.filter(|lasts| !lasts.is_zero());
        let mut kept = lock(&self.kept);
        match lasts {
            Some(lasts) => {
                let now = Instant::now();
                if kept.len() >= KEPT {
                    kept.retain(|_, (until, _)| now < *until);
                }
                if kept.len() < KEPT {
                    kept.insert(question.mark(), (response.at + lasts, verdict.clone()));
                }
            }
            None => drop(kept.remove(&question.mark())),
        }
        Ok(verdict)
    }

    async fn ask(
        &self,
        event: &'static str,
        question: &Question,
        end: Option<&SessionTotals>,
    ) -> Result<Response, RequestError> {
        let _turn = self
            .turns
            .acquire()
            .await
            .map_err(|_| RequestError::Failed("the relay is shutting down".to_owned()))?;
        // Encoded only now: a body is larger than its question, and many may wait for a turn.
        let end = end.map(|end| SessionTotals { reason: end.reason.clone(), ..*end });
        let body = serde_json::to_vec(&question.message(event, &self.node, end));
        let body = body.map_err(|error| RequestError::Nonsense(error.to_string()))?;
        self.http.post(&self.url, body).await
    }

    fn cached_decision(&self, question: &Question) -> Option<AuthDecision> {
        let mut kept = lock(&self.kept);
        if kept.is_empty() {
            return None;
        }
        let mark = question.mark();
        let (until, verdict) = kept.get(&mark)?;
        if Instant::now() < *until {
            return Some(verdict.clone());
        }
        kept.remove(&mark);
        None
    }

    /// Reserves a place in the request queue, released on drop; `None` when the queue is full.
    fn queue(self: &Arc<Self>, question: &Question) -> Option<RequestSlot> {
        let bytes = question.bytes();
        let waited = self.waiting.fetch_add(1, Ordering::Relaxed);
        let waited_bytes = self.waiting_bytes.fetch_add(bytes, Ordering::Relaxed);
        let turn = RequestSlot(self.clone(), bytes);
        (waited < WAITING && waited_bytes + bytes <= WAITING_BYTES).then_some(turn)
    }
}

/// A reserved place in the request queue, and the memory of its question, bytes.
struct RequestSlot(Arc<AuthServer>, usize);

impl Drop for RequestSlot {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
        self.0.waiting_bytes.fetch_sub(self.1, Ordering::Relaxed);
    }
}

impl AuthDecision {
    fn of(response: &Response, question: &Question) -> Result<Self, RequestError> {
        match response.status {
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => return Ok(Self::Refused),
            status if !status.is_success() => return Err(RequestError::Status(status)),
            _ => {}
        }
        let nonsense =
            |what: &dyn std::fmt::Display| RequestError::Nonsense(format!("the answer is malformed: {what}"));
        let said: ServerAnswer =
            serde_json::from_slice(&response.body).map_err(|error| nonsense(&flaw(&error)))?;
        let said = said.grant.unwrap_or(said.flat);
        let has_mounts = match &said.mounts {
            Value::Null => false,
            Value::Array(mounts) => !mounts.is_empty(),
            Value::Object(mounts) => !mounts.is_empty(),
            _ => true,
        };
        if has_mounts {
            return Err(nonsense(&"`mounts` are not supported"));
        }
        // No request path can contain dot segments, so they are a mistake.
        let undotted = |text: &str| match text.split('/').any(|segment| matches!(segment, "." | "..")) {
            true => Err(nonsense(&"a path has no dot segments")),
            false => Ok(()),
        };
        let patterns = |texts: &[String]| -> Result<Vec<Pattern>, RequestError> {
            let pattern = |text: &String| {
                undotted(text)?;
                Pattern::parse(text).map_err(|error| nonsense(&error))
            };
            texts.iter().map(pattern).collect()
        };
        let root = match said.root.as_deref() {
            None => None,
            Some(root) => {
                undotted(root)?;
                Some(Path::parse(root.trim_matches('/')).map_err(|error| nonsense(&error))?)
            }
        };
        let now = now();
        let granted = Granted {
            root,
            publish: patterns(&said.publish)?,
            subscribe: patterns(&said.subscribe)?,
            expires: said.expires.map(|at| time(at, now)).transpose().map_err(|what| nonsense(&what))?,
            subject: said.subject.as_deref().map(Arc::from).or_else(|| question.holder()),
            peer: matches!(said.peer, Value::Bool(true)),
        };
        let again = said.revalidate.map(|at| time(at, now)).transpose().map_err(|what| nonsense(&what))?;
        let again = again.map(|at| at.duration_since(now).unwrap_or_default());
        Ok(Self::Granted { granted, again })
    }

    fn permit(&self, question: &Question, now: SystemTime) -> Result<Permit, Denial> {
        match self {
            Self::Granted { granted, .. } => {
                Policy::grant(question.target(), granted.clone(), now).map_err(Denial::from)
            }
            Self::Refused => Err(relay_auth::Refusal::Unauthorized.into()),
        }
    }
}

/// Converts a Unix time in seconds, or a number of seconds from `now`.
fn time(seconds: f64, now: SystemTime) -> Result<SystemTime, &'static str> {
    let span = Duration::try_from_secs_f64(seconds).map_err(|_| "a time is out of range")?;
    let from = if seconds >= TIMES { SystemTime::UNIX_EPOCH } else { now };
    from.checked_add(span).ok_or("a time is out of range")
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
