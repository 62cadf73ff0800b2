//! A session that is re-established when lost, and moved at the peer's GOAWAY, with the same broadcasts.

use std::sync::Arc;

use relay_model::SessionCode;
use tokio::{
    sync::watch,
    time::{Duration, Instant, sleep, timeout},
};

use crate::{
    client::{Client, parse_path},
    config::ClientConfig,
    error::Error,
    publish::Published,
    publisher::Broadcast,
};

/// Delays of reconnecting and moving.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Wait before the first attempt; doubled by each failure.
    pub first: Duration,
    /// Longest wait. A session that lives this long resets the wait.
    pub most: Duration,
    /// Longest time for which the old session is kept beside the new one after a GOAWAY. It is closed earlier once the
    /// new one has announced the broadcasts and no subscription is left on it.
    pub overlap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        let (first, most) = (Duration::from_millis(250), Duration::from_secs(10));
        Self { first, most, overlap: Duration::from_secs(5) }
    }
}

/// Keeps a session with one relay, with its broadcasts announced under one hop id: behind the relay the publisher never
/// changes.
///
/// After a GOAWAY it connects to the new place before it leaves the old one. After a loss, or [`Client::close`], it
/// reconnects to the first URL. An unauthorized close or refusal by that relay ends it. The session is closed when it
/// is dropped.
#[derive(Debug)]
pub struct Reconnecting {
    published: Arc<Published>,
    state: watch::Receiver<ReconnectState>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct ReconnectState {
    /// Session in use, if there is one.
    client: Option<Client>,
    /// Number of sessions so far.
    sessions: u64,
    /// Error that ended reconnecting.
    stopped: Option<Error>,
}

impl Reconnecting {
    /// Starts without waiting for the first session. `config` applies to every session: a local address in it must
    /// leave the port open.
    pub fn start(url: &str, config: ClientConfig, retry: Retry) -> Self {
        let published = Arc::<Published>::default();
        let (sender, state) = watch::channel(ReconnectState::default());
        let keeper = ReconnectTask {
            home: url.to_owned(),
            config,
            retry,
            published: published.clone(),
            state: sender,
        };
        Self { published, state, task: tokio::spawn(keeper.run()) }
    }

    /// Creates a broadcast that is not announced yet. It is served on every session.
    pub fn broadcast(&self, path: &str) -> Result<Broadcast, Error> {
        Ok(Broadcast::new(self.published.clone(), parse_path(path)?))
    }

    /// Waits for a session; an error if reconnecting has ended.
    pub async fn client(&self) -> Result<Client, Error> {
        self.session(1).await
    }

    /// The same, for a session after `count` were made in all.
    pub async fn session(&self, count: u64) -> Result<Client, Error> {
        let is_there = |state: &ReconnectState| {
            let alive = state.client.as_ref().is_some_and(|client| client.is_closed().is_none());
            alive && state.sessions >= count
        };
        let mut receiver = self.state.clone();
        let state = receiver.wait_for(|state| is_there(state) || state.stopped.is_some()).await;
        let state = state.map_err(|_| Error::Ended)?.clone();
        match state {
            ReconnectState { client: Some(client), stopped: None, .. } => Ok(client),
            ReconnectState { stopped, .. } => Err(stopped.unwrap_or(Error::Ended)),
        }
    }

    /// Number of sessions made so far.
    pub fn sessions(&self) -> u64 {
        self.state.borrow().sessions
    }

    /// Waits until reconnecting has ended, and returns its error.
    pub async fn stopped(&self) -> Error {
        let mut receiver = self.state.clone();
        let state = receiver.wait_for(|state| state.stopped.is_some()).await;
        state.ok().and_then(|state| state.stopped.clone()).unwrap_or(Error::Ended)
    }

    /// Ends reconnecting, and closes the session with a code and a reason.
    pub async fn close(self, code: SessionCode, reason: &str) {
        self.task.abort();
        let client = self.state.borrow().client.clone();
        if let Some(client) = client {
            client.close(code, reason).await;
        }
    }
}

impl Drop for Reconnecting {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Wait before the next attempt.
#[derive(Debug)]
struct Backoff {
    retry: Retry,
    next: Duration,
}

impl Backoff {
    fn new(retry: Retry) -> Self {
        Self { retry, next: retry.first }
    }

    /// Returns the wait after a session that lived for `lived`, or, at zero, after a failed attempt.
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= self.retry.most {
            self.next = self.retry.first;
        }
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.retry.most);
        wait
    }
}

/// End of one session.
enum SessionEnd {
    Moved(String),
    Lost(Error),
}

struct ReconnectTask {
    home: String,
    config: ClientConfig,
    retry: Retry,
    published: Arc<Published>,
    state: watch::Sender<ReconnectState>,
}

impl ReconnectTask {
    async fn run(self) {
        let mut url = self.home.clone();
        let mut backoff = Backoff::new(self.retry);
        // The session that is being left.
        let mut old: Option<Client> = None;
        loop {
            let dialled = Client::connect_publishing(&url, self.config.clone(), self.published.clone()).await;
            let began = Instant::now();
            let end = match dialled {
                Ok(client) => {
                    self.state.send_modify(|state| {
                        state.client = Some(client.clone());
                        state.sessions = state.sessions.saturating_add(1);
                    });
                    self.run_session(client, &mut old).await
                }
                Err(error) => SessionEnd::Lost(error),
            };
            let lived = began.elapsed();
            match end {
                SessionEnd::Moved(uri) => {
                    if !uri.is_empty() {
                        url = uri;
                    }
                    // A relay that redirects at once must not cause a busy loop.
                    if lived >= self.retry.first {
                        continue;
                    }
                }
                // A refusal of the credential elsewhere does not hold for the first relay.
                SessionEnd::Lost(error) if error.is_unauthorized() && url == self.home => {
                    return self.stop(error);
                }
                SessionEnd::Lost(_) => {
                    let alive = old.clone().filter(|old| old.is_closed().is_none());
                    self.state.send_modify(|state| state.client = alive);
                    url.clone_from(&self.home);
                }
            }
            sleep(backoff.after(lived)).await;
        }
    }

    /// Keeps the session until it ends, and closes the old one once it is not needed.
    async fn run_session(&self, client: Client, old: &mut Option<Client>) -> SessionEnd {
        loop {
            tokio::select! {
                () = self.wait_handover(&client, old.as_ref()), if old.is_some() => {
                    if let Some(old) = old.take() {
                        // Its close waits for an acknowledgement.
                        tokio::spawn(async move { old.close(SessionCode::NONE, "going away").await });
                    }
                }
                Ok(uri) = client.going_away() => {
                    *old = Some(client);
                    return SessionEnd::Moved(uri);
                }
                closed = client.closed() => return SessionEnd::Lost(closed.into()),
            }
        }
    }

    /// Waits until the new session has sent the announcements and the old one has no subscriptions, at most for
    /// [`Retry::overlap`].
    async fn wait_handover(&self, new: &Client, old: Option<&Client>) {
        let settled = async {
            let mut duties = new.session().peer_requests.subscribe();
            if self.published.is_announcing() {
                let _ = duties.wait_for(|duties| duties.announce_streams > 0).await;
            }
            if let Some(old) = old {
                let mut duties = old.session().peer_requests.subscribe();
                let _ = duties.wait_for(|duties| duties.subscriptions == 0).await;
            }
        };
        let _ = timeout(self.retry.overlap, settled).await;
    }

    fn stop(&self, error: Error) {
        self.state.send_modify(|state| {
            state.client = None;
            state.stopped = Some(error);
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_longest_until_a_session_has_lived() {
        let ms = Duration::from_millis;
        let mut backoff = Backoff::new(Retry { first: ms(10), most: ms(35), overlap: ms(0) });
        let waits: Vec<_> = [0, 0, 34, 0, 35, 0].map(|lived| backoff.after(ms(lived))).into();
        assert_eq!(waits, [10, 20, 35, 35, 10, 20].map(ms));
    }
}
