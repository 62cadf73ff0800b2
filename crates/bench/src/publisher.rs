//! Publisher of one track, which sends frames by the clock.

use std::time::Instant;

use anyhow::{Context, Result, bail};
use relay_model::{
    Cost, Hop, Path, TrackInfo,
    transport::{Dir, Stream, Transport},
};
use relay_transport::quic::QuicConnection;
use relay_wire::{
    MessageBuf,
    lite::{
        Announce, AnnounceOk, AnnounceRequest, BidiType, FrameHead, Group, Message, Role, Subscribe,
        SubscribeResponse, TrackRequest, put_frame_head, put_group_header,
    },
};

use crate::{
    client::{self, ClientBehaviour, VERSION},
    scenario::DeliveryShape,
};

/// Ticks per second of the frame timestamps.
const TIMESCALE: u64 = 1_000_000;
const HOP: Hop = Hop(77);
const READ: usize = 64 * 1024;

/// A publisher of one track.
pub(crate) struct BenchPublisher {
    shape: DeliveryShape,
    /// Answered requests of the relay.
    answered: Vec<Stream>,
    /// Subscribe id of the relay, and the time of frame 0.
    live: Option<(u64, Instant)>,
    wanted: Option<u64>,
    group: Option<Stream>,
    /// Number of the next frame.
    frame: u64,
}

impl BenchPublisher {
    pub(crate) fn new(shape: DeliveryShape) -> Self {
        Self { shape, answered: Vec::new(), live: None, wanted: None, group: None, frame: 0 }
    }

    /// Whether the relay has subscribed to the track.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted.is_some()
    }

    /// Starts sending; frame 0 is due at `start`.
    pub(crate) fn start(&mut self, start: Instant) {
        self.live = self.wanted.map(|id| (id, start));
    }

    /// Time at which frame `number` is due.
    fn due(&self, number: u64) -> Option<Instant> {
        let (_, start) = self.live?;
        Some(start + self.shape.period() * u32::try_from(number).unwrap_or(u32::MAX))
    }

    fn answer(&mut self, conn: &mut QuicConnection, stream: Stream, mut request: MessageBuf) -> Result<()> {
        // Requests are tiny and arrive whole.
        let kind = request.next_varint().context("half a request")?;
        let mut message = Vec::new();
        match BidiType::from_id(VERSION, kind) {
            Some(BidiType::Announce) => {
                request.next::<AnnounceRequest>(VERSION)?.context("half a request")?;
                AnnounceOk { hop: HOP, count: 1 }.encode(VERSION, &mut message);
                Announce::Active { suffix: broadcast()?, hops: [].into(), cost: Cost::UNKNOWN }
                    .encode(VERSION, &mut message);
                client::write(conn, stream, message)?;
            }
            Some(BidiType::Track) => {
                request.next::<TrackRequest>(VERSION)?.context("half a request")?;
                TrackInfo { timescale: TIMESCALE, ..TrackInfo::default() }.encode(VERSION, &mut message);
                client::write(conn, stream, message)?;
                conn.finish(stream);
            }
            Some(BidiType::Subscribe) => {
                let subscribe = request.next::<Subscribe>(VERSION)?.context("half a request")?;
                SubscribeResponse::Start { group: 0 }.encode(VERSION, &mut message);
                client::write(conn, stream, message)?;
                self.wanted = Some(subscribe.id);
            }
            _ => bail!("the relay asked for something else: {kind}"),
        }
        Ok(())
    }

    fn publish(&mut self, conn: &mut QuicConnection, subscribe: u64) -> Result<()> {
        let (sequence, index) = self.shape.place(self.frame);
        let mut bytes = Vec::with_capacity(self.shape.frame_bytes + 64);
        let stream = match self.group {
            Some(stream) => stream,
            None => {
                put_group_header(VERSION, &Group { subscribe, sequence, first_frame: 0 }, &mut bytes);
                let stream = conn.open(Dir::Uni, 0).context("no credit for a group")?;
                *self.group.insert(stream)
            }
        };
        let tick = |frame: u64| (frame * TIMESCALE / u64::from(self.shape.fps)).cast_signed();
        let previous = if index == 0 { 0 } else { tick(self.frame - 1) };
        let head = FrameHead { tick: Some(tick(self.frame)), size: self.shape.frame_bytes as u64 };
        put_frame_head(VERSION, previous, head, &mut bytes);
        let end = bytes.len() + self.shape.frame_bytes;
        bytes.extend_from_slice(&self.frame.to_be_bytes());
        bytes.resize(end, self.frame as u8);
        client::write(conn, stream, bytes)?;
        if index + 1 == self.shape.group_frames {
            conn.finish(stream);
            self.group = None;
        }
        self.frame += 1;
        Ok(())
    }
}

/// Path of the broadcast.
pub(crate) fn broadcast() -> Result<Path> {
    Ok(Path::parse("bench")?)
}

impl ClientBehaviour for BenchPublisher {
    fn ready(&mut self, conn: &mut QuicConnection) -> Result<()> {
        conn.exempt(true);
        client::set_up(conn, Role::Publisher)
    }

    fn readable(&mut self, conn: &mut QuicConnection, stream: Stream) -> Result<()> {
        let mut request = MessageBuf::new();
        while let Ok(Some(bytes)) = conn.read(stream, READ) {
            request.push(&bytes);
        }
        // The relay's SETUP needs no reply, nor do later messages on a request stream.
        let is_request = stream.0 & 2 == 0 && !request.is_empty();
        if !is_request || self.answered.contains(&stream) {
            return Ok(());
        }
        self.answered.push(stream);
        self.answer(conn, stream, request)
    }

    fn act(&mut self, conn: &mut QuicConnection, now: Instant) -> Result<()> {
        while let Some((subscribe, _)) = self.live
            && self.due(self.frame).is_some_and(|due| due <= now)
        {
            self.publish(conn, subscribe)?;
        }
        Ok(())
    }

    fn next(&self) -> Option<Instant> {
        self.due(self.frame)
    }
}
