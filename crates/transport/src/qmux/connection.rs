//! One qmux connection as a `Transport`: its life cycle, and the interface for its driver.

mod control_output;
mod datagram_flow;
mod flush;
mod input;
mod lifecycle;
mod parser;
mod protocol_choice;
mod transport;

use std::time::Instant;

use relay_model::{
    SessionCode, limits as model,
    transport::{PathStats, TransportClosed},
};

use self::{
    control_output::{CloseCause, ControlOutput},
    datagram_flow::DatagramFlow,
    lifecycle::QmuxLifecycle,
    parser::FrameParser,
    protocol_choice::ProtocolChoice,
};
use super::{
    ConnPhase, ConnTraffic, QmuxCarrier, QmuxConfig, QmuxFraming, carrier::CarrierReader, clock::QmuxTimers,
    frame, limits, params::Parameters, streams::QmuxStreams, websocket::Masks,
};

/// A connection over a stream socket that carries one session.
///
/// As a [`Transport`](relay_model::transport::Transport): a `Stream` holds the stream id of the wire. After
/// `TransportEvent::Datagram`, receive datagrams until there are none; only then follows another such event. Streams
/// of the peer are reported in order of arrival, which may differ from the order of their ids. Data received
/// before the peer's close can be read until `Closed` is polled.
#[derive(Debug)]
pub struct QmuxConnection {
    framing: QmuxFraming,
    carrier: QmuxCarrier,
    protocols: ProtocolChoice,
    target: Option<String>,
    life: QmuxLifecycle,
    timers: QmuxTimers,
    path: PathStats,
    traffic: ConnTraffic,
    /// Frames and records parsed.
    frames: u64,
    reader: CarrierReader,
    parser: FrameParser,
    pub(super) streams: QmuxStreams,
    datagrams: DatagramFlow,
    output: ControlOutput,
    masks: Option<Masks>,
}

impl QmuxConnection {
    /// Creates a connection on an open carrier. Its transport parameters are queued at once.
    pub fn new(config: QmuxConfig, now: Instant) -> Self {
        let QmuxConfig { framing, over: carrier, is_client, .. } = config;
        let is_legacy = framing == QmuxFraming::Legacy;
        let offered = if carrier == QmuxCarrier::Bytes { config.protocols } else { &[] };
        let protocols = ProtocolChoice::new(is_client, config.protocol, offered);
        let hello =
            (!is_legacy).then(|| hello(framing, config.idle, config.max_streams, protocols.offered()));
        Self {
            framing,
            carrier,
            protocols,
            target: config.target,
            life: QmuxLifecycle::new(is_legacy, now),
            timers: QmuxTimers::new(framing, carrier, config.idle, now),
            path: PathStats { rtt: config.rtt, bitrate: None },
            traffic: ConnTraffic::default(),
            frames: 0,
            reader: CarrierReader::new(framing, carrier, is_client),
            parser: FrameParser::default(),
            streams: QmuxStreams::new(framing, is_client, config.max_streams),
            datagrams: DatagramFlow::new(),
            output: ControlOutput::new(hello),
            masks: (is_client && carrier == QmuxCarrier::WebSocket).then(|| Masks::new(config.mask_seed)),
        }
    }

    /// Handles the end of the input: the peer closed its side, or the socket failed. `why` goes to the log.
    pub fn end_of_input(&mut self, why: &str) {
        if self.life.is_open() {
            self.streams.drop_output();
        }
        self.life.end(Some(TransportClosed::Lost(why.to_owned())));
        self.drop_output();
    }

    /// Returns whether the socket should be read. After a close the input is still to be read, and is discarded.
    pub fn wants_input(&self) -> bool {
        !self.life.is_over() && (!self.life.is_open() || self.streams.wants_input())
    }

    /// Returns whether `poll` may return an event.
    pub fn has_event(&self) -> bool {
        self.life.has_event() || (self.life.is_ready() && self.streams.has_event())
    }

    /// Number of frames and records parsed so far, a measure of the receive cost.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Time at which [`QmuxConnection::handle_timeout`] is due. May change with every call that takes
    /// `&mut self`.
    pub fn timeout(&self) -> Option<Instant> {
        self.life.deadline(self.timers.deadline())
    }

    /// Handles the timeouts due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.life.set_now(now);
        let why = if self.life.is_setup_overdue() {
            "timeout waiting for transport parameters"
        } else if self.life.is_open() && self.timers.tick(now) {
            "idle timeout"
        } else {
            if self.life.is_farewell_overdue() {
                self.life.end(None);
                self.drop_output();
            }
            return;
        };
        let cause = CloseCause::Application(SessionCode::TIMEOUT, why);
        self.depart(TransportClosed::Lost(why.to_owned()), &cause);
    }

    /// Sets the kernel's current statistics of the path.
    pub fn set_path(&mut self, stats: PathStats) {
        self.path = PathStats { rtt: stats.rtt.or(self.path.rtt), bitrate: stats.bitrate };
    }

    /// Phase of the connection.
    pub fn phase(&self) -> ConnPhase {
        self.life.phase(self.has_output())
    }

    /// Negotiated application protocol. `None` at `Ready`: the version is negotiated by the legacy SETUP.
    pub fn protocol(&self) -> Option<&'static str> {
        self.protocols.protocol()
    }

    /// Raw path and query of the URL; `None` if SETUP carries them.
    pub fn target(&self) -> Option<&str> {
        self.target.as_deref()
    }

    /// Bytes of the carrier received and sent so far, after TLS.
    pub fn traffic(&self) -> ConnTraffic {
        self.traffic
    }

    /// Bytes received on streams and not read by the session. Sent data is charged by its producer.
    pub fn footprint(&self) -> u64 {
        self.streams.unread()
    }

    /// Closes the session locally, unless it is closed, and queues the close for the peer.
    fn depart(&mut self, closed: TransportClosed, cause: &CloseCause<'_>) {
        if !self.life.is_open() {
            return;
        }
        self.streams.drop_output();
        self.drop_output();
        self.output.close(self.framing, self.carrier == QmuxCarrier::WebSocket, cause);
        self.life.leave(closed, matches!(cause, CloseCause::Nothing));
    }

    /// Drops all queued output except the transport parameters and the close frames.
    fn drop_output(&mut self) {
        self.datagrams.clear_output();
        self.output.drop_pongs();
        (self.timers.ping_due, self.timers.websocket_due) = (false, false);
        if self.life.is_over() {
            self.output.clear();
        }
    }
}

fn hello(
    framing: QmuxFraming,
    idle: std::time::Duration,
    most: Option<u64>,
    protocols: &'static [&'static str],
) -> Vec<u8> {
    let most = most.unwrap_or(u64::MAX);
    let ours = Parameters {
        idle: Some(idle),
        data: model::CONNECTION_WINDOW,
        stream_data_bi_local: model::STREAM_WINDOW,
        stream_data_bi_remote: model::STREAM_WINDOW,
        stream_data_uni: model::STREAM_WINDOW,
        streams_bi: model::BIDI_STREAMS.min(most),
        streams_uni: model::UNI_STREAMS.min(most),
        datagram: limits::RECORD_BYTES,
        record: limits::RECORD_BYTES,
        protocols: protocols.iter().map(|name| name.as_bytes().into()).collect(),
    };
    let (mut body, mut out) = (Vec::new(), Vec::new());
    ours.put(framing, &mut body);
    frame::put_parameters(&body, &mut out);
    out
}
