//! One subscription of this client.

use std::sync::Arc;

use bytes::Bytes;
use relay_model::{Path, Prefs, StreamCode, TrackName};
use relay_wire::lite::{
    BidiType, Message, Subscribe, SubscribeOk, SubscribeResponse, SubscribeUpdate, Version,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::yield_now,
};

use crate::{
    control::{ControlReader, request},
    error::Error,
    groups::ReceivedGroup,
    session::ClientSession,
    stream::SendStream,
};

/// Event of a subscription, in order of arrival.
#[derive(Debug)]
pub enum Event {
    /// The subscription was accepted (moq-lite-03 and 04; later versions have no such message).
    Ok(SubscribeOk),
    /// The first group is known (moq-lite-05 and later).
    Start {
        /// Its sequence.
        group: u64,
    },
    /// The track has ended; groups below the bound may still arrive (moq-lite-05 and later).
    End {
        /// Exclusive bound; 0 = there was none.
        group: u64,
    },
    /// Groups that will not be sent.
    Drop {
        /// First sequence.
        start: u64,
        /// Last sequence.
        end: u64,
        /// Error code.
        code: u64,
    },
    /// A group begins to arrive.
    Group(ReceivedGroup),
    /// A group of one frame, as a datagram.
    Datagram {
        /// Sequence of the group.
        sequence: u64,
        /// Timestamp in ticks of the track's timescale.
        tick: u64,
        /// Payload of the frame.
        payload: Bytes,
    },
    /// The subscription stream was finished. Only groups in flight follow.
    Finished {
        /// Whether the track ended cleanly: END was received before. On moq-lite-03 and 04, which have no END, the FIN
        /// of an accepted subscription is enough.
        clean: bool,
    },
    /// The subscription failed: [`Error::Reset`] with the peer's code, or the session ended. Only groups in flight
    /// follow.
    Failed(Error),
}

/// A live subscription; unsubscribed when dropped.
#[derive(Debug)]
pub struct Subscription {
    session: Arc<ClientSession>,
    id: u64,
    send: SendStream,
    events: mpsc::Receiver<Event>,
    /// Dropped to cancel reading the answers.
    stop: Option<oneshot::Sender<()>>,
}

impl Subscription {
    pub(crate) async fn open(
        session: Arc<ClientSession>,
        broadcast: Path,
        track: TrackName,
        prefs: Prefs,
    ) -> Result<Self, Error> {
        let (id, sender, events) = session.register();
        let (stop, stopped) = oneshot::channel();
        let subscribe = Subscribe { id, broadcast, track, prefs };
        let opened = async {
            let (mut send, recv) = session.carrier.open_bidi().await?;
            send.write(&request(BidiType::Subscribe.id(), &subscribe, session.version)).await?;
            Ok((send, recv))
        };
        let (send, recv) = match opened.await {
            Ok(streams) => streams,
            Err(error) => {
                session.unregister(id);
                return Err(error);
            }
        };
        let reader = ControlReader::new(recv, session.version);
        let version = session.version;
        tokio::spawn(async move {
            tokio::select! {
                _ = answers(reader, version, sender) => {}
                _ = stopped => {}
            }
        });
        Ok(Self { session, id, send, events, stop: Some(stop) })
    }

    /// Subscribe id on the wire.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Waits for the next event. After [`Event::Finished`] or [`Event::Failed`] it may wait forever.
    pub async fn next(&mut self) -> Event {
        match self.events.recv().await {
            Some(event) => event,
            None => Event::Failed(Error::Ended),
        }
    }

    /// Waits for the next group; other events are skipped. [`Error::Ended`] after a finished subscription.
    pub async fn next_group(&mut self) -> Result<ReceivedGroup, Error> {
        loop {
            match self.next().await {
                Event::Group(group) => return Ok(group),
                Event::Finished { .. } => return Err(Error::Ended),
                Event::Failed(error) => return Err(error),
                _ => {}
            }
        }
    }

    /// Sends SUBSCRIBE_UPDATE.
    pub async fn update(&mut self, prefs: Prefs) -> Result<(), Error> {
        let mut out = Vec::new();
        SubscribeUpdate { prefs }.encode(self.session.version, &mut out);
        self.send.write(&out).await
    }

    /// Ends the subscription: STOP_SENDING and FIN. Groups in flight are refused from now on.
    pub fn unsubscribe(mut self) {
        self.leave();
    }

    /// Ends the subscription by a reset.
    pub fn reset(mut self, code: StreamCode) {
        self.send.reset(code);
        self.leave();
    }

    fn leave(&mut self) {
        self.session.unregister(self.id);
        self.stop = None;
        self.send.finish();
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.leave();
    }
}

async fn answers(mut reader: ControlReader, version: Version, events: mpsc::Sender<Event>) {
    let mut clean = false;
    loop {
        let event = match reader.next_by(SubscribeResponse::next).await {
            Ok(Some(SubscribeResponse::Ok(ok))) => {
                clean = version.has_subscribe_ok();
                Event::Ok(ok)
            }
            Ok(Some(SubscribeResponse::Start { group })) => Event::Start { group },
            Ok(Some(SubscribeResponse::End { group })) => {
                clean = true;
                Event::End { group }
            }
            Ok(Some(SubscribeResponse::Drop { start, end, code })) => Event::Drop { start, end, code },
            Ok(None) => Event::Finished { clean },
            Err(error) => Event::Failed(error),
        };
        let last = matches!(event, Event::Finished { .. } | Event::Failed(_));
        if last {
            // Group streams that arrived together with the end are delivered before it.
            for _ in 0..4 {
                yield_now().await;
            }
        }
        if events.send(event).await.is_err() || last {
            return;
        }
    }
}
