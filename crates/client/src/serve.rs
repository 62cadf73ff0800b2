//! Answers requests of the relay to this publisher.

use std::sync::Arc;

use relay_model::{Prefs, StreamCode};
use relay_wire::lite::{
    AnnounceRequest, BidiType, Fetch, Goaway, Group, Message, Subscribe, SubscribeOk, SubscribeResponse,
    SubscribeUpdate, TrackRequest, put_group_header,
};
use tokio::task::JoinSet;

use crate::{
    announcer::Announcer,
    control::ControlReader,
    error::Error,
    group_log::{Encoder, End, FrameSpan, GroupLog},
    publish::{SubscriberCommand, TrackState},
    session::ClientSession,
    stream::{RecvStream, SendStream},
};

/// Serves one stream that the peer opened, to its end.
pub(crate) async fn stream(session: Arc<ClientSession>, mut send: SendStream, mut recv: RecvStream) {
    let kind = match recv.varint().await {
        Ok(Some(kind)) => BidiType::from_id(session.version, kind),
        _ => None,
    };
    let Some(kind) = kind else { return refuse(&mut send, &mut recv) };
    if kind == BidiType::Probe {
        // Our SETUP has probe level 0; versions without SETUP cannot signal it.
        return refuse(&mut send, &mut recv);
    }
    let reader = ControlReader::new(recv, session.version);
    // An error means that the peer reset the stream or the session ended: there is nobody to report it to.
    let _ = match kind {
        BidiType::Announce => announce(&session, send, reader).await,
        BidiType::Subscribe => subscribe(&session, send, reader).await,
        BidiType::Fetch => fetch(&session, send, reader).await,
        BidiType::Track => track(&session, send, reader).await,
        BidiType::Goaway => goaway(&session, send, reader).await,
        BidiType::Probe => Ok(()),
    };
}

fn refuse(send: &mut SendStream, recv: &mut RecvStream) {
    send.reset(StreamCode::CANCEL);
    recv.stop(StreamCode(0));
}

async fn announce(
    session: &ClientSession,
    mut send: SendStream,
    mut reader: ControlReader,
) -> Result<(), Error> {
    let request: AnnounceRequest = reader.receive().await?;
    let (initial, mut changes) = session.published.watch(request.prefix);
    let mut announcer = Announcer::new(session.version, session.hop);
    let mut out = Vec::new();
    announcer.put_initial(initial, &mut out);
    send.write(&out).await?;
    session
        .peer_requests
        .send_modify(|duties| duties.announce_streams = duties.announce_streams.saturating_add(1));
    loop {
        tokio::select! {
            change = changes.recv() => {
                let Some(change) = change else { break };
                out.clear();
                announcer.put(change, &mut out);
                send.write(&out).await?;
            }
            _ = reader.next::<AnnounceRequest>() => break,
        }
    }
    send.finish();
    Ok(())
}

async fn track(
    session: &ClientSession,
    mut send: SendStream,
    mut reader: ControlReader,
) -> Result<(), Error> {
    let request: TrackRequest = reader.receive().await?;
    let Some(track) = session.published.track(&request.broadcast, &request.track) else {
        send.reset(StreamCode::NOT_FOUND);
        return Ok(());
    };
    track.count(|live| live.info_requests += 1);
    let mut out = Vec::new();
    track.info.encode(session.version, &mut out);
    send.write(&out).await?;
    send.finish();
    Ok(())
}

async fn goaway(
    session: &ClientSession,
    mut send: SendStream,
    mut reader: ControlReader,
) -> Result<(), Error> {
    let message: Goaway = reader.receive().await?;
    session.goaway.send_replace(Some(message.uri));
    send.reset(StreamCode::CANCEL);
    Ok(())
}

async fn fetch(
    session: &ClientSession,
    mut send: SendStream,
    mut reader: ControlReader,
) -> Result<(), Error> {
    let request: Fetch = reader.receive().await?;
    let Some(track) = session.published.track(&request.broadcast, &request.track) else {
        send.reset(StreamCode::NOT_FOUND);
        return Ok(());
    };
    track.count(|live| live.fetches.asked += 1);
    let Some(group) = track.group(request.group) else {
        track.count(|live| live.fetches.refused += 1);
        send.reset(StreamCode::NOT_FOUND);
        return Ok(());
    };
    let mut encoder =
        Encoder::new(session.version, FrameSpan { first: request.start_frame, last: request.end_frame });
    let unfinished = Unfinished::new(track.clone());
    let abandoned = send.abandoned();
    let outcome = tokio::select! {
        outcome = copy(&group, &mut encoder, &mut send, Vec::new()) => outcome,
        () = abandoned => Err(Error::Ended),
        error = reset_of(&mut reader) => Err(error),
    };
    track.count(|live| match &outcome {
        Ok(End::Finished) => live.fetches.served += 1,
        Ok(End::Reset(_)) => {}
        Err(_) => live.fetches.cancelled += 1,
    });
    if outcome.is_ok() {
        unfinished.until_acknowledged(send);
    }
    outcome.map(|_| ())
}

/// Waits until the peer resets its side; a FIN only ends its request.
async fn reset_of(reader: &mut ControlReader) -> Error {
    match reader.next::<Fetch>().await {
        Ok(None) => std::future::pending().await,
        Ok(Some(_)) => Error::Protocol("a second request on a stream"),
        Err(error) => error,
    }
}

async fn subscribe(
    session: &Arc<ClientSession>,
    mut send: SendStream,
    mut reader: ControlReader,
) -> Result<(), Error> {
    let request: Subscribe = reader.receive().await?;
    let Some(track) = session.published.track(&request.broadcast, &request.track) else {
        send.reset(StreamCode::NOT_FOUND);
        return Ok(());
    };
    let unfinished = Unfinished::new(track.clone());
    let (key, mut commands) = track.subscribe(request.id, request.prefs, session.carrier.clone());
    let _guard = Unsubscribe::new(session.clone(), track.clone(), key);
    let mut serving = ServedSubscription {
        session: session.clone(),
        track: track.clone(),
        id: request.id,
        started: false,
        groups: JoinSet::new(),
    };
    serving.accept(&request.prefs, &mut send).await?;
    loop {
        tokio::select! {
            Some(command) = commands.recv() => {
                if !serving.command(command, &mut send).await? {
                    unfinished.until_acknowledged(send);
                    return Ok(());
                }
            }
            update = reader.next::<SubscribeUpdate>() => match update {
                Ok(Some(update)) => track.update(key, update.prefs),
                Ok(None) | Err(_) => {
                    send.finish();
                    return Ok(());
                }
            },
            Some(_) = serving.groups.join_next() => {}
        }
    }
}

/// Counts a stream of a track until the peer has acknowledged all of it, or until it is abandoned.
struct Unfinished(Arc<TrackState>);

impl Unfinished {
    fn new(track: Arc<TrackState>) -> Self {
        track.count(|live| live.unfinished = live.unfinished.saturating_add(1));
        Self(track)
    }

    /// Waits for the acknowledgement of `send`, which has ended, in a task.
    fn until_acknowledged(self, mut send: SendStream) {
        tokio::spawn(async move {
            let _ = send.stopped().await;
            drop(self);
        });
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.0.count(|live| live.unfinished = live.unfinished.saturating_sub(1));
    }
}

/// Removes the subscription from its track when the stream ends.
struct Unsubscribe {
    session: Arc<ClientSession>,
    track: Arc<TrackState>,
    key: u64,
}

impl Unsubscribe {
    fn new(session: Arc<ClientSession>, track: Arc<TrackState>, key: u64) -> Self {
        session
            .peer_requests
            .send_modify(|duties| duties.subscriptions = duties.subscriptions.saturating_add(1));
        Self { session, track, key }
    }
}

impl Drop for Unsubscribe {
    fn drop(&mut self) {
        self.track.unsubscribe(self.key);
        let duties = &self.session.peer_requests;
        duties.send_modify(|duties| duties.subscriptions = duties.subscriptions.saturating_sub(1));
    }
}

struct ServedSubscription {
    session: Arc<ClientSession>,
    track: Arc<TrackState>,
    id: u64,
    started: bool,
    /// Tasks of group streams, which reset them when dropped.
    groups: JoinSet<()>,
}

impl ServedSubscription {
    /// Sends SUBSCRIBE_OK where the version has it. Fields other than the priority are zero, as other peers send them.
    async fn accept(&self, prefs: &Prefs, send: &mut SendStream) -> Result<(), Error> {
        if self.session.version.has_subscribe_ok() {
            let ok = SubscribeOk { priority: prefs.priority, ..SubscribeOk::default() };
            self.respond(send, SubscribeResponse::Ok(ok)).await?;
        }
        Ok(())
    }

    /// Executes a command; `false` when the subscription has ended.
    async fn command(&mut self, command: SubscriberCommand, send: &mut SendStream) -> Result<bool, Error> {
        match command {
            SubscriberCommand::Group(log, span) => {
                if !self.started && !self.session.version.has_subscribe_ok() {
                    self.respond(send, SubscribeResponse::Start { group: log.sequence }).await?;
                }
                self.started = true;
                let (session, id) = (self.session.clone(), self.id);
                let unfinished = Unfinished::new(self.track.clone());
                self.groups.spawn(async move {
                    if let Ok(Some(send)) = group(&session, id, &log, span).await {
                        unfinished.until_acknowledged(send);
                    }
                });
                Ok(true)
            }
            SubscriberCommand::Drop { start, end, code } => {
                self.respond(send, SubscribeResponse::Drop { start, end, code }).await?;
                Ok(true)
            }
            SubscriberCommand::End(bound) => {
                if !self.session.version.has_subscribe_ok() {
                    self.respond(send, SubscribeResponse::End { group: bound }).await?;
                }
                while self.groups.join_next().await.is_some() {}
                send.finish();
                Ok(false)
            }
            SubscriberCommand::Abort(code) => {
                send.reset(code);
                while self.groups.join_next().await.is_some() {}
                Ok(false)
            }
        }
    }

    async fn respond(&self, send: &mut SendStream, response: SubscribeResponse) -> Result<(), Error> {
        let mut out = Vec::new();
        response.encode(self.session.version, &mut out);
        send.write(&out).await
    }
}

/// Sends a group on a stream of its own, and returns the stream after its end.
async fn group(
    session: &ClientSession,
    subscribe: u64,
    log: &GroupLog,
    span: FrameSpan,
) -> Result<Option<SendStream>, Error> {
    let mut head = Vec::with_capacity(24);
    let header = Group { subscribe, sequence: log.sequence, first_frame: span.first };
    put_group_header(session.version, &header, &mut head);
    let mut send = tokio::select! {
        stream = session.carrier.open_uni() => stream?,
        // Without stream credit the group may be reset before its stream opens.
        _ = log.reset() => return Ok(None),
    };
    copy(log, &mut Encoder::new(session.version, span), &mut send, head).await?;
    Ok(Some(send))
}

/// Writes `head`, then the log as it grows, then its end, and returns the end.
async fn copy(
    log: &GroupLog,
    encoder: &mut Encoder,
    send: &mut SendStream,
    head: Vec<u8>,
) -> Result<End, Error> {
    let mut out = Vec::new();
    if !head.is_empty() {
        out.push(head.into());
    }
    loop {
        let end = encoder.next(log, &mut out).await;
        let chunks = out.as_mut_slice();
        if !chunks.is_empty() {
            tokio::select! {
                written = send.write_chunks(chunks) => written?,
                code = log.reset() => {
                    send.reset(code);
                    return Ok(End::Reset(code));
                }
            }
            out.clear();
        }
        match end {
            None => {}
            Some(End::Finished) => {
                send.finish();
                return Ok(End::Finished);
            }
            Some(End::Reset(code)) => {
                send.reset(code);
                return Ok(End::Reset(code));
            }
        }
    }
}
