//! A session that is kept: made again when lost, moved when the peer asks, with the same broadcasts.

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

/// How soon a lost session is made again, and how slowly one is left.
#[derive(Clone, Copy, Debug)]
pub struct Retry {
    /// Wait before the first attempt; doubled by each that fails.
    pub first: Duration,
    /// Longest wait. A session that lived as long as this makes the next wait short again.
    pub most: Duration,
    /// How long the old session may be kept beside the new one when the peer asked to move: until the
    /// broadcasts are known there and nobody reads them by the old one.
    pub overlap: Duration,
}

impl Default for Retry {
    fn default() -> Self {
        let (first, most) = (Duration::from_millis(250), Duration::from_secs(10));
        Self { first, most, overlap: Duration::from_secs(5) }
    }
}

/// Keeps a session to one place, and its broadcasts announced there, under one hop id: to those behind
/// a relay the publisher never left.
///
/// Asked to move, it connects to the new place before it leaves the old. Lost, also by
/// [`Client::close`], it comes back to where it began. An unauthorized close or refusal there ends it.
/// Dropped, it closes.
#[derive(Debug)]
pub struct Reconnecting {
    published: Arc<Published>,
    state: watch::Receiver<State>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Clone, Debug, Default)]
struct State {
    /// The session to use, while there is one.
    client: Option<Client>,
    /// Sessions made.
    sessions: u64,
    /// Why there will be no more.
    stopped: Option<Error>,
}

impl Reconnecting {
    /// Begins, without waiting for the first session. `config` makes every session: its local address,
    /// if it names one, must leave the port open.
    pub fn start(url: &str, config: ClientConfig, retry: Retry) -> Self {
        let published = Arc::<Published>::default();
        let (sender, state) = watch::channel(State::default());
        let keeper =
            Keeper { home: url.to_owned(), config, retry, published: published.clone(), state: sender };
        Self { published, state, task: tokio::spawn(keeper.keep()) }
    }

    /// Makes a broadcast, not announced yet. It is served on every session.
    pub fn broadcast(&self, path: &str) -> Result<Broadcast, Error> {
        Ok(Broadcast::new(self.published.clone(), parse_path(path)?))
    }

    /// The session, once there is one; the reason, when there will be none.
    pub async fn client(&self) -> Result<Client, Error> {
        self.session(1).await
    }

    /// The same, once `count` sessions were made in all.
    pub async fn session(&self, count: u64) -> Result<Client, Error> {
        let is_there = |state: &State| {
            let alive = state.client.as_ref().is_some_and(|client| client.is_closed().is_none());
            alive && state.sessions >= count
        };
        let mut receiver = self.state.clone();
        let state = receiver.wait_for(|state| is_there(state) || state.stopped.is_some()).await;
        let state = state.map_err(|_| Error::Ended)?.clone();
        match state {
            State { client: Some(client), stopped: None, .. } => Ok(client),
            State { stopped, .. } => Err(stopped.unwrap_or(Error::Ended)),
        }
    }

    /// How many sessions were made in all.
    pub fn sessions(&self) -> u64 {
        self.state.borrow().sessions
    }

    /// Waits until it gave up, and says why.
    pub async fn stopped(&self) -> Error {
        let mut receiver = self.state.clone();
        let state = receiver.wait_for(|state| state.stopped.is_some()).await;
        state.ok().and_then(|state| state.stopped.clone()).unwrap_or(Error::Ended)
    }

    /// Ends it, and the session with a code and a reason.
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

/// The next wait.
#[derive(Debug)]
struct Backoff {
    retry: Retry,
    next: Duration,
}

impl Backoff {
    fn new(retry: Retry) -> Self {
        Self { retry, next: retry.first }
    }

    /// How long to wait after a session that lived so long, or, at zero, an attempt that failed.
    fn after(&mut self, lived: Duration) -> Duration {
        if lived >= self.retry.most {
            self.next = self.retry.first;
        }
        let wait = self.next;
        self.next = wait.saturating_mul(2).min(self.retry.most);
        wait
    }
}

/// How one session ended.
enum End {
    Moved(String),
    Lost(Error),
}

struct Keeper {
    home: String,
    config: ClientConfig,
    retry: Retry,
    published: Arc<Published>,
    state: watch::Sender<State>,
}

impl Keeper {
    async fn keep(self) {
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
                    self.attend(client, &mut old).await
                }
                Err(error) => End::Lost(error),
            };
            let lived = began.elapsed();
            match end {
                End::Moved(uri) => {
                    if !uri.is_empty() {
                        url = uri;
                    }
                    // A place that sends away whoever comes is no reason to hurry.
                    if lived >= self.retry.first {
                        continue;
                    }
                }
                // What another place says of the credential need not hold at home.
                End::Lost(error) if error.is_unauthorized() && url == self.home => return self.stop(error),
                End::Lost(_) => {
                    let alive = old.clone().filter(|old| old.is_closed().is_none());
                    self.state.send_modify(|state| state.client = alive);
                    url.clone_from(&self.home);
                }
            }
            sleep(backoff.after(lived)).await;
        }
    }

    /// Keeps the session until it ends, and leaves the old one once it is of no more use.
    async fn attend(&self, client: Client, old: &mut Option<Client>) -> End {
        loop {
            tokio::select! {
                () = self.settled(&client, old.as_ref()), if old.is_some() => {
                    if let Some(old) = old.take() {
                        // Its goodbye waits for an answer.
                        tokio::spawn(async move { old.close(SessionCode::NONE, "going away").await });
                    }
                }
                Ok(uri) = client.going_away() => {
                    *old = Some(client);
                    return End::Moved(uri);
                }
                closed = client.closed() => return End::Lost(closed.into()),
            }
        }
    }

    /// Waits until what is announced was told by the new session and nobody reads by the old one, but
    /// not forever.
    async fn settled(&self, new: &Client, old: Option<&Client>) {
        let settled = async {
            let mut duties = new.session().duties.subscribe();
            if self.published.is_announcing() {
                let _ = duties.wait_for(|duties| duties.told > 0).await;
            }
            if let Some(old) = old {
                let mut duties = old.session().duties.subscribe();
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
