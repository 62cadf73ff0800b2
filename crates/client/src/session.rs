//! State of one session, and its receiving loops.

use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::Poll,
};

use bytes::Bytes;
use relay_model::{Hop, StreamCode};
use relay_wire::lite::{Datagram, Setup, UniType, Version};
use tokio::sync::{mpsc, oneshot, watch};

use crate::{
    carrier::{Carrier, Uni},
    code::Closed,
    control::ControlReader,
    error::Error,
    groups::ReceivedGroup,
    h3,
    publish::Published,
    serve,
    stream::{RecvStream, SendStream},
    subscribe::Event,
};

/// Events queued for the application. Groups beyond them wait in their streams, datagrams are dropped.
pub(crate) const EVENTS: usize = 1_024;

/// State shared by the handles of one client and its loops.
#[derive(Debug)]
pub(crate) struct ClientSession {
    pub(crate) carrier: Carrier,
    pub(crate) version: Version,
    pub(crate) hop: Hop,
    /// Broadcasts, shared with the other sessions of the same publisher.
    pub(crate) published: Arc<Published>,
    pub(crate) peer_requests: watch::Sender<PeerRequests>,
    /// Last GOAWAY received.
    pub(crate) goaway: watch::Sender<Option<String>>,
    /// The peer's SETUP.
    pub(crate) setup: watch::Sender<Option<Setup>>,
    pub(crate) closed: watch::Sender<Option<Closed>>,
    /// While true, incoming unidirectional streams are left in the transport.
    pub(crate) pause_streams: watch::Sender<bool>,
    /// Queues of the peer's streams and datagrams, in manual mode.
    pub(crate) manual: Option<Manual>,
    subscriptions: Mutex<HashMap<u64, mpsc::Sender<Event>>>,
    next_subscribe: AtomicU64,
    /// Receives the outcome of SETTINGS, on WebTransport.
    settings: Mutex<Option<oneshot::Sender<Result<(), Error>>>>,
}

/// Announce streams and subscriptions of the peer.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct PeerRequests {
    /// Number of announce streams so far whose initial set was written.
    pub(crate) announce_streams: u64,
    /// Live subscriptions.
    pub(crate) subscriptions: u64,
}

/// Queues of streams and datagrams that the caller handles itself.
#[derive(Debug)]
pub(crate) struct Manual {
    pub(crate) uni: mpsc::Sender<RecvStream>,
    pub(crate) bidi: mpsc::Sender<(SendStream, RecvStream)>,
    pub(crate) datagrams: mpsc::Sender<Bytes>,
}

impl ClientSession {
    pub(crate) fn new(
        carrier: Carrier,
        hop: Hop,
        published: Arc<Published>,
        manual: Option<Manual>,
        settings: oneshot::Sender<Result<(), Error>>,
    ) -> Self {
        Self {
            version: carrier.version,
            carrier,
            hop,
            published,
            peer_requests: watch::Sender::default(),
            goaway: watch::Sender::new(None),
            setup: watch::Sender::new(None),
            closed: watch::Sender::new(None),
            pause_streams: watch::Sender::new(false),
            manual,
            subscriptions: Mutex::default(),
            next_subscribe: AtomicU64::new(0),
            settings: Mutex::new(Some(settings)),
        }
    }

    /// Starts receiving. The loops end with the connection.
    pub(crate) fn start(self: &Arc<Self>) {
        tokio::spawn(uni_loop(self.clone()));
        tokio::spawn(bidi_loop(self.clone()));
        tokio::spawn(datagram_loop(self.clone()));
        let session = self.clone();
        tokio::spawn(async move {
            let closed = session.carrier.closed().await;
            session.set_closed(closed);
        });
    }

    /// Records the end of the session; the first cause counts.
    pub(crate) fn set_closed(&self, closed: Closed) {
        self.closed.send_if_modified(|state| {
            let first = state.is_none();
            if first {
                *state = Some(closed);
            }
            first
        });
    }

    /// Returns a new subscribe id and the channel of its events.
    pub(crate) fn register(&self) -> (u64, mpsc::Sender<Event>, mpsc::Receiver<Event>) {
        let id = self.next_subscribe.fetch_add(1, Relaxed);
        let (sender, receiver) = mpsc::channel(EVENTS);
        self.subscriptions().insert(id, sender.clone());
        (id, sender, receiver)
    }

    pub(crate) fn unregister(&self, id: u64) {
        self.subscriptions().remove(&id);
    }

    fn subscriptions(&self) -> MutexGuard<'_, HashMap<u64, mpsc::Sender<Event>>> {
        self.subscriptions.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn subscriber(&self, id: u64) -> Option<mpsc::Sender<Event>> {
        self.subscriptions().get(&id).cloned()
    }
}

async fn uni_loop(session: Arc<ClientSession>) {
    let mut hold = session.pause_streams.subscribe();
    loop {
        if hold.wait_for(|hold| !hold).await.is_err() {
            return;
        }
        let Ok(stream) = session.carrier.accept_uni().await else { return };
        now_or_spawned(uni(session.clone(), stream)).await;
    }
}

/// Runs `work` at once, and spawns a task only if it has to wait: most streams arrive with their header.
async fn now_or_spawned(work: impl Future<Output = ()> + Send + 'static) {
    let mut work: Pin<Box<dyn Future<Output = ()> + Send>> = Box::pin(work);
    let pending = std::future::poll_fn(|cx| Poll::Ready(work.as_mut().poll(cx).is_pending())).await;
    if pending {
        tokio::spawn(work);
    }
}

/// Handles an incoming unidirectional stream. An invalid stream is dropped, which stops it; the session continues.
async fn uni(session: Arc<ClientSession>, stream: RecvStream) {
    match session.carrier.enter_uni(stream).await {
        Ok(Uni::Http(kind, stream)) => http(&session, kind, stream).await,
        Ok(Uni::Session(stream)) => match &session.manual {
            Some(manual) => drop(manual.uni.send(stream).await),
            None => drop(session_uni(&session, stream).await),
        },
        Err(error) => tracing::debug!(%error, "incoming stream failed"),
    }
}

async fn session_uni(session: &ClientSession, mut stream: RecvStream) -> Result<(), Error> {
    let kind = stream.varint().await?.and_then(|kind| UniType::from_id(session.version, kind));
    match kind {
        Some(UniType::Group) => {
            let group = ReceivedGroup::accept(stream, session.version).await?;
            let Some(subscriber) = session.subscriber(group.subscribe_id()) else {
                group.stop(StreamCode::CANCEL);
                return Ok(());
            };
            // Waits for room; the stream is stopped when dropped with its subscription.
            let _ = subscriber.send(Event::Group(group)).await;
        }
        Some(UniType::Setup) => {
            let setup = ControlReader::new(stream, session.version).receive().await?;
            session.setup.send_replace(Some(setup));
        }
        None => stream.stop(StreamCode(0)),
    }
    Ok(())
}

/// Reads a stream of HTTP/3 for as long as the connection lives; everything but SETTINGS is ignored.
async fn http(session: &ClientSession, kind: u64, mut stream: RecvStream) {
    if kind == h3::CONTROL {
        let outcome = h3::read_settings(&mut stream).await;
        let waiter = session.settings.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(waiter) = waiter {
            let _ = waiter.send(outcome);
        }
    }
    while let Ok(Some(_)) = stream.read().await {}
}

async fn bidi_loop(session: Arc<ClientSession>) {
    while let Ok((send, mut recv)) = session.carrier.accept_bidi().await {
        let session = session.clone();
        tokio::spawn(async move {
            match session.carrier.enter_bidi(&mut recv).await {
                Ok(()) => match &session.manual {
                    Some(manual) => drop(manual.bidi.send((send, recv)).await),
                    None => serve::stream(session, send, recv).await,
                },
                Err(error) => tracing::debug!(%error, "incoming stream failed"),
            }
        });
    }
}

/// Receives datagrams; those without room in the queue are dropped.
async fn datagram_loop(session: Arc<ClientSession>) {
    while let Ok(body) = session.carrier.read_datagram().await {
        if let Some(manual) = &session.manual {
            let _ = manual.datagrams.try_send(body);
            continue;
        }
        if !session.version.has_timestamps() {
            continue;
        }
        if let Ok(datagram) = Datagram::decode(session.version, body) {
            let Datagram { subscribe, sequence, tick, payload } = datagram;
            if let Some(subscriber) = session.subscriber(subscribe) {
                let _ = subscriber.try_send(Event::Datagram { sequence, tick, payload });
            }
        }
    }
}
