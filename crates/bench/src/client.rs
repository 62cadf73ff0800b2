//! Clients of the relay, each with its own transport and a hand-written moq-lite.

use std::{
    collections::VecDeque,
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use bytes::BytesMut;
use relay_model::{
    WorkerId,
    transport::{Dir, Stream, Transport, TransportEvent},
};
use relay_transport::quic::{ConnKey, Ecn, Endpoint, QuicConnection};
use relay_wire::{
    lite::{BidiType, Message, Role, Setup, UniType, Version},
    varint,
};

use crate::{
    identity::{BenchIdentity, NAME},
    link::{self, RELAY, Train},
};

pub(crate) const VERSION: Version = Version::V05;
const SEGMENTS: usize = 64;

/// Behaviour of a client on its connection.
pub(crate) trait ClientBehaviour {
    /// Called once the connection is ready.
    fn ready(&mut self, conn: &mut QuicConnection) -> Result<()>;
    /// Called when the relay has opened a stream or sent data on it.
    fn readable(&mut self, conn: &mut QuicConnection, stream: Stream) -> Result<()>;
    /// Called in each turn, for actions by the clock.
    fn act(&mut self, conn: &mut QuicConnection, now: Instant) -> Result<()>;
    /// Time of the next action.
    fn next(&self) -> Option<Instant>;
}

/// A client: an endpoint with one connection.
pub(crate) struct BenchClient<P> {
    endpoint: Endpoint,
    conn: ConnKey,
    address: SocketAddr,
    latency: Duration,
    inbox: VecDeque<(Instant, Option<Ecn>, BytesMut)>,
    deadline: Option<Instant>,
    pub(crate) play: P,
}

impl<P: ClientBehaviour> BenchClient<P> {
    /// Creates the client number `index`; it connects in its first turn.
    pub(crate) fn new(index: u32, identity: &BenchIdentity, now: Instant, play: P) -> Result<Self> {
        let mut seed = [0; 32];
        seed[..4].copy_from_slice(&(index + 1).to_be_bytes());
        let mut endpoint = Endpoint::new(&identity.server, WorkerId(0), true, Some(seed));
        let conn = endpoint.connect(now, &identity.client, RELAY, NAME)?;
        Ok(Self {
            endpoint,
            conn,
            address: link::address(index),
            latency: link::latency(index),
            inbox: VecDeque::new(),
            deadline: Some(now),
            play,
        })
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Queues datagrams that the relay sent at `now`.
    pub(crate) fn send_in(&mut self, now: Instant, train: &Train) {
        let at = now + self.latency;
        self.inbox.extend(train.datagrams().map(|datagram| (at, train.ecn, datagram)));
    }

    /// Time of the next event.
    pub(crate) fn next(&self) -> Option<Instant> {
        let inbox = self.inbox.front().map(|(at, ..)| *at);
        [inbox, self.deadline, self.play.next()].into_iter().flatten().min()
    }

    /// Takes a turn at `now`; `send` gets the packets sent and their arrival times.
    pub(crate) fn run(&mut self, now: Instant, mut send: impl FnMut(Instant, Train)) -> Result<()> {
        let mut buffer = Vec::new();
        while self.inbox.front().is_some_and(|(at, ..)| *at <= now)
            && let Some((_, ecn, data)) = self.inbox.pop_front()
        {
            self.endpoint.handle(now, RELAY, Some(self.address.ip()), ecn, data, &mut buffer);
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.endpoint.handle_timeout(self.conn, now);
        }
        self.endpoint.process_connection(self.conn, now);
        let conn = self.endpoint.conn(self.conn).context("the connection is gone")?;
        while let Some(event) = conn.poll() {
            match event {
                TransportEvent::Ready => self.play.ready(conn)?,
                TransportEvent::Opened(stream, _) | TransportEvent::Readable(stream) => {
                    self.play.readable(conn, stream)?
                }
                TransportEvent::Closed(why) => bail!("a client lost its connection: {why:?}"),
                TransportEvent::Stopped(..)
                | TransportEvent::Writable(_)
                | TransportEvent::Openable(_)
                | TransportEvent::Datagram
                | TransportEvent::Room
                | TransportEvent::Moved(_) => {}
            }
        }
        self.play.act(conn, now)?;
        while let Some(transmit) = conn.poll_transmit(now, SEGMENTS, &mut buffer) {
            let stride = transmit.segment_size.unwrap_or(transmit.len);
            let bytes = std::mem::take(&mut buffer);
            send(now + self.latency, Train { peer: self.address, ecn: transmit.ecn, stride, bytes });
        }
        self.deadline = conn.next_deadline();
        Ok(())
    }
}

/// Opens the setup stream and sends SETUP.
pub(crate) fn set_up(conn: &mut QuicConnection, role: Role) -> Result<()> {
    let mut message = Vec::new();
    varint::put(UniType::Setup.id(), &mut message);
    Setup { path: Some("/".to_owned()), role: Some(role), ..Setup::default() }.encode(VERSION, &mut message);
    let stream = conn.open(Dir::Uni, 0).context("no credit for the setup stream")?;
    write(conn, stream, message)?;
    conn.finish(stream);
    Ok(())
}

/// Opens a request stream and sends its first message.
pub(crate) fn request(conn: &mut QuicConnection, kind: BidiType, body: &impl Message) -> Result<Stream> {
    let mut message = Vec::new();
    varint::put(kind.id(), &mut message);
    body.encode(VERSION, &mut message);
    let stream = conn.open(Dir::Bi, 0).context("no credit for a request")?;
    write(conn, stream, message)?;
    Ok(stream)
}

/// Writes all bytes. With the send valve lifted, only the relay's flow control limits them.
pub(crate) fn write(conn: &mut QuicConnection, stream: Stream, bytes: Vec<u8>) -> Result<()> {
    let offered = bytes.len();
    let written = conn.write(stream, &mut [bytes.into()])?;
    ensure!(written == offered, "the relay gives too little credit: {written} of {offered} bytes written");
    Ok(())
}
