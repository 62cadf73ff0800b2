//! Answers what the relay asks of us as a publisher.

use std::sync::Arc;

use bytes::Bytes;
use relay_model::StreamCode;
use relay_wire::lite::{
    AnnounceOk, AnnounceRequest, BidiType, Fetch, Goaway, Group, Message, Subscribe, SubscribeResponse,
    SubscribeUpdate, TrackRequest, put_group_header,
};
use tokio::task::JoinSet;

use crate::{
    control::ControlReader,
    error::Error,
    grouplog::{End, GroupLog},
    publish::{Command, TrackState},
    session::Session,
    stream::{RecvStream, SendStream},
};

/// Serves one stream the peer opened, to its end.
pub(crate) async fn stream(session: Arc<Session>, mut send: SendStream, mut recv: RecvStream) {
    let kind = match recv.varint().await {
        Ok(Some(kind)) => BidiType::from_id(kind),
        _ => None,
    };
    let Some(kind) = kind else { return refuse(&mut send, &mut recv) };
    if kind == BidiType::Probe {
        // We said probe level 0.
        return refuse(&mut send, &mut recv);
    }
    let reader = ControlReader::new(recv, session.version);
    // What fails is a stream the peer gave up, or a session that ended: nobody is left to be told.
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

async fn announce(session: &Session, mut send: SendStream, mut reader: ControlReader) -> Result<(), Error> {
    let request: AnnounceRequest = reader.expect().await?;
    let (initial, mut changes) = session.published.watch(request.prefix);
    let mut out = Vec::new();
    AnnounceOk { hop: session.hop, count: initial.len() as u64 }.encode(session.version, &mut out);
    for message in initial {
        message.encode(session.version, &mut out);
    }
    send.write(&out).await?;
    loop {
        tokio::select! {
            message = changes.recv() => {
                let Some(message) = message else { break };
                out.clear();
                message.encode(session.version, &mut out);
                send.write(&out).await?;
            }
            _ = reader.next::<AnnounceRequest>() => break,
        }
    }
    send.finish();
    Ok(())
}

async fn track(session: &Session, mut send: SendStream, mut reader: ControlReader) -> Result<(), Error> {
    let request: TrackRequest = reader.expect().await?;
    let Some(track) = session.published.track(&request.broadcast, &request.track) else {
        send.reset(StreamCode::NOT_FOUND);
        return Ok(());
    };
    let mut out = Vec::new();
    track.info.encode(session.version, &mut out);
    send.write(&out).await?;
    send.finish();
    Ok(())
}

async fn goaway(session: &Session, mut send: SendStream, mut reader: ControlReader) -> Result<(), Error> {
    let message: Goaway = reader.expect().await?;
    session.goaway.send_replace(Some(message.uri));
    send.reset(StreamCode::CANCEL);
    Ok(())
}

async fn fetch(session: &Session, mut send: SendStream, mut reader: ControlReader) -> Result<(), Error> {
    let request: Fetch = reader.expect().await?;
    let track = session.published.track(&request.broadcast, &request.track);
    match track.and_then(|track| track.group(request.group)) {
        Some(group) => copy(&group, &mut send, Vec::new()).await,
        None => {
            send.reset(StreamCode::NOT_FOUND);
            Ok(())
        }
    }
}

async fn subscribe(
    session: &Arc<Session>,
    mut send: SendStream,
    mut reader: ControlReader,
) -> Result<(), Error> {
    let request: Subscribe = reader.expect().await?;
    let Some(track) = session.published.track(&request.broadcast, &request.track) else {
        send.reset(StreamCode::NOT_FOUND);
        return Ok(());
    };
    let (key, mut commands) = track.subscribe(request.id, request.prefs);
    let _guard = Unsubscribe { track: track.clone(), key };
    let mut serving =
        Serving { session: session.clone(), id: request.id, started: false, groups: JoinSet::new() };
    loop {
        tokio::select! {
            Some(command) = commands.recv() => {
                if !serving.command(command, &mut send).await? {
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

/// Takes the subscription off its track however the stream ends.
struct Unsubscribe {
    track: Arc<TrackState>,
    key: u64,
}

impl Drop for Unsubscribe {
    fn drop(&mut self) {
        self.track.unsubscribe(self.key);
    }
}

struct Serving {
    session: Arc<Session>,
    id: u64,
    started: bool,
    /// Dropped, they reset their streams.
    groups: JoinSet<()>,
}

impl Serving {
    /// False when the subscription is over.
    async fn command(&mut self, command: Command, send: &mut SendStream) -> Result<bool, Error> {
        match command {
            Command::Group(log) => {
                if !self.started {
                    self.started = true;
                    self.respond(send, SubscribeResponse::Start { group: log.sequence }).await?;
                }
                let (session, id) = (self.session.clone(), self.id);
                self.groups.spawn(async move {
                    let _ = group(&session, id, &log).await;
                });
                Ok(true)
            }
            Command::Drop { start, end, code } => {
                self.respond(send, SubscribeResponse::Drop { start, end, code }).await?;
                Ok(true)
            }
            Command::End(bound) => {
                self.respond(send, SubscribeResponse::End { group: bound }).await?;
                while self.groups.join_next().await.is_some() {}
                send.finish();
                Ok(false)
            }
            Command::Abort(code) => {
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

async fn group(session: &Session, subscribe: u64, log: &GroupLog) -> Result<(), Error> {
    let mut head = Vec::with_capacity(24);
    put_group_header(session.version, &Group { subscribe, sequence: log.sequence }, &mut head);
    let mut send = tokio::select! {
        stream = session.carrier.open_uni() => stream?,
        // Without stream credit it may be over before it began.
        _ = log.reset() => return Ok(()),
    };
    copy(log, &mut send, head).await
}

/// Writes `head`, then the log as it grows, then its end.
async fn copy(log: &GroupLog, send: &mut SendStream, head: Vec<u8>) -> Result<(), Error> {
    let mut position = 0;
    let mut head = Some(head).filter(|head| !head.is_empty());
    loop {
        let (mut chunks, end) = log.read(position);
        position += chunks.len();
        if let Some(head) = head.take() {
            chunks.insert(0, Bytes::from(head));
        }
        if !chunks.is_empty() {
            tokio::select! {
                written = send.write_chunks(&mut chunks) => written?,
                code = log.reset() => {
                    send.reset(code);
                    return Ok(());
                }
            }
        }
        match end {
            Some(End::Finished) => {
                send.finish();
                return Ok(());
            }
            Some(End::Reset(code)) => {
                send.reset(code);
                return Ok(());
            }
            None => log.wait(position).await,
        }
    }
}
