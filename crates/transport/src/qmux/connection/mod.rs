//! One qmux connection as a `Transport`: its life cycle, and the interface for its driver.

mod flush;
mod input;
mod transport;

use std::{collections::VecDeque, time::Instant};

use relay_model::{
    SessionCode, limits as model,
    transport::{PathStats, TransportClosed, TransportEvent},
};
use relay_wire::varint;

use super::{
    ConnPhase, ConnTraffic, QmuxCarrier, QmuxConfig, QmuxFraming, carrier,
    clock::QmuxTimers,
    datagrams::DatagramQueue,
    frame, limits,
    params::{self, Parameters},
    streams::QmuxStreams,
    violation::Violation,
    websocket::Masks,
};

/// A connection over a stream socket that carries one session.
///
/// As a [`Transport`](relay_model::transport::Transport): a `Stream` holds the stream id of the wire. After
/// `TransportEvent::DatagramOutcome`, receive datagrams until there are none; only then follows another such event. Streams
/// of the peer are reported in order of arrival, which may differ from the order of their ids. Data received
/// before the peer's close can be read until `Closed` is polled.
#[derive(Debug)]
pub struct Connection {
    framing: QmuxFraming,
    over: QmuxCarrier,
    protocol: Option<&'static str>,
    /// Own list, when the protocol is negotiated in-band.
    protocols: &'static [&'static str],
    target: Option<String>,
    is_client: bool,
    life: QmuxPhase,
    closed: Option<TransportClosed>,
    is_ready_due: bool,
    /// Time of the last input.
    now: Instant,
    clock: QmuxTimers,
    path: PathStats,
    traffic: ConnTraffic,

    /// Frames and records parsed.
    frames: u64,
    reader: carrier::CarrierReader,
    intake: input::FrameParser,
    streams: QmuxStreams,
    received: DatagramQueue,

    /// Transport parameters frame, until it is sent.
    hello: Option<Vec<u8>>,
    datagrams: DatagramQueue,
    /// Whether stream data precedes a datagram in the next unit.
    is_media_next: bool,
    /// Sequence numbers of the peer's pings to be answered.
    pongs: VecDeque<u64>,
    /// Payload of the last WebSocket ping to be answered.
    websocket_pong: Option<Vec<u8>>,
    farewell: CloseFrames,
    masks: Option<Masks>,
    /// Largest datagram frame and largest record that the peer accepts.
    peer_datagram: u64,
    peer_record: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QmuxPhase {
    /// Waiting for the peer's transport parameters until then.
    Opening(Instant),
    Ready,
    /// Closed for the session; the socket is dropped when the peer has confirmed the close, or at `until`.
    Leaving {
        until: Instant,
        is_heard: bool,
    },
    Over,
}

/// Frames that close the connection.
#[derive(Debug, Default)]
struct CloseFrames {
    frame: Option<Vec<u8>>,
    /// WebSocket close frame, with its optional code.
    websocket: Option<Option<u16>>,
}

impl Connection {
    /// Creates a connection on an open carrier. Its transport parameters are queued at once.
    pub fn new(config: QmuxConfig, now: Instant) -> Self {
        let QmuxConfig { framing, over, is_client, .. } = config;
        let is_legacy = framing == QmuxFraming::Legacy;
        let protocols =
            if over == QmuxCarrier::Bytes && config.protocol.is_none() { config.protocols } else { &[] };
        Self {
            framing,
            over,
            protocol: config.protocol,
            protocols,
            target: config.target,
            is_client,
            life: if is_legacy { QmuxPhase::Ready } else { QmuxPhase::Opening(now + model::SETUP_TIMEOUT) },
            closed: None,
            is_ready_due: is_legacy,
            now,
            clock: QmuxTimers::new(framing, over, config.idle, now),
            path: PathStats { rtt: config.rtt, bitrate: None },
            traffic: ConnTraffic::default(),
            frames: 0,
            reader: carrier::CarrierReader::new(framing, over, is_client),
            intake: input::FrameParser::default(),
            streams: QmuxStreams::new(framing, is_client, config.max_streams),
            received: DatagramQueue::default(),
            hello: (!is_legacy).then(|| hello(framing, config.idle, config.max_streams, protocols)),
            datagrams: DatagramQueue::default(),
            is_media_next: false,
            pongs: VecDeque::new(),
            websocket_pong: None,
            farewell: CloseFrames::default(),
            masks: (is_client && over == QmuxCarrier::WebSocket).then(|| Masks::new(config.mask_seed)),
            peer_datagram: 0,
            peer_record: limits::RECORD_BYTES,
        }
    }

    /// Handles the end of the input: the peer closed its side, or the socket failed. `why` goes to the log.
    pub fn end_of_input(&mut self, why: &str) {
        if matches!(self.life, QmuxPhase::Opening(_) | QmuxPhase::Ready) {
            self.closed = Some(TransportClosed::Lost(why.to_owned()));
            self.streams.silence();
        }
        self.life = QmuxPhase::Over;
        self.be_silent();
    }

    /// Returns whether the socket should be read. After a close the input is still to be read, and is discarded.
    pub fn wants_input(&self) -> bool {
        match self.life {
            QmuxPhase::Opening(_) | QmuxPhase::Ready => self.streams.wants_input(),
            QmuxPhase::Leaving { .. } => true,
            QmuxPhase::Over => false,
        }
    }

    /// Returns whether `poll` may return an event.
    pub fn has_event(&self) -> bool {
        match self.life {
            QmuxPhase::Opening(_) => false,
            QmuxPhase::Ready => self.is_ready_due || self.streams.has_event(),
            QmuxPhase::Leaving { .. } | QmuxPhase::Over => self.closed.is_some(),
        }
    }

    /// Number of frames and records parsed so far, a measure of the receive cost.
    pub fn frames(&self) -> u64 {
        self.frames
    }

    /// Time at which [`Connection::handle_timeout`] is due. May change with every call that takes `&mut self`.
    pub fn timeout(&self) -> Option<Instant> {
        match self.life {
            QmuxPhase::Opening(at) => Some(at.min(self.clock.deadline())),
            QmuxPhase::Ready => Some(self.clock.deadline()),
            QmuxPhase::Leaving { until, .. } => Some(until),
            QmuxPhase::Over => None,
        }
    }

    /// Handles the timeouts due at `now`.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.now = now;
        match self.life {
            QmuxPhase::Opening(at) if now >= at => {
                let why = "timeout waiting for transport parameters";
                self.depart(
                    TransportClosed::Lost(why.to_owned()),
                    CloseCause::Application(SessionCode::TIMEOUT, why),
                );
            }
            QmuxPhase::Opening(_) | QmuxPhase::Ready => {
                if self.clock.tick(now) {
                    let why = "idle timeout";
                    self.depart(
                        TransportClosed::Lost(why.to_owned()),
                        CloseCause::Application(SessionCode::TIMEOUT, why),
                    );
                }
            }
            QmuxPhase::Leaving { until, .. } if now >= until => {
                self.life = QmuxPhase::Over;
                self.be_silent();
            }
            QmuxPhase::Leaving { .. } | QmuxPhase::Over => {}
        }
    }

    /// Sets the kernel's current statistics of the path.
    pub fn set_path(&mut self, stats: PathStats) {
        self.path = PathStats { rtt: stats.rtt.or(self.path.rtt), bitrate: stats.bitrate };
    }

    /// Phase of the connection.
    pub fn phase(&self) -> ConnPhase {
        match self.life {
            QmuxPhase::Opening(_) => ConnPhase::Opening,
            QmuxPhase::Ready => ConnPhase::Ready,
            QmuxPhase::Leaving { is_heard: true, .. } if !self.has_output() => ConnPhase::Drained,
            QmuxPhase::Leaving { .. } => ConnPhase::Closed,
            QmuxPhase::Over => ConnPhase::Drained,
        }
    }

    /// Negotiated application protocol. `None` at `Ready`: the version is negotiated by the legacy SETUP.
    pub fn protocol(&self) -> Option<&'static str> {
        self.protocol
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

    /// Number of live streams: sending and receiving halves.
    #[cfg(test)]
    pub(super) fn live_streams(&self) -> (usize, usize) {
        self.streams.live()
    }

    /// Handles the peer's transport parameters, its first frame (draft-ietf-quic-qmux-01 §4.2).
    fn on_parameters(&mut self, body: &[u8]) -> Result<(), Violation> {
        let QmuxPhase::Opening(_) = self.life else {
            return Err(Violation::protocol("duplicate transport parameters"));
        };
        let peer = Parameters::get(self.framing, body)?;
        self.clock.limit_idle(peer.idle);
        self.streams.set_peer(&peer);
        (self.peer_record, self.peer_datagram) = (peer.record, peer.datagram);
        if !self.protocols.is_empty() && !peer.protocols.is_empty() {
            self.protocol = params::agree(self.protocols, &peer.protocols, self.is_client);
            if self.protocol.is_none() {
                let why = "no protocol in common";
                self.depart(
                    TransportClosed::Lost(why.to_owned()),
                    CloseCause::Application(SessionCode::VERSION, why),
                );
                return Ok(());
            }
        }
        (self.life, self.is_ready_due) = (QmuxPhase::Ready, true);
        Ok(())
    }

    fn violate(&mut self, violation: Violation) {
        self.depart(TransportClosed::Lost(violation.to_string()), CloseCause::Violation(violation));
    }

    /// Closes the session locally and queues `last` for the peer.
    fn depart(&mut self, closed: TransportClosed, last: CloseCause<'_>) {
        if !matches!(self.life, QmuxPhase::Opening(_) | QmuxPhase::Ready) {
            return;
        }
        self.streams.silence();
        self.be_silent();
        self.closed = Some(closed);
        let mut close = |is_application, code: u64, reason: &str| {
            let mut out = Vec::new();
            let code = code.min(varint::MAX);
            frame::put_close(self.framing, is_application, code, shortened(reason).as_bytes(), &mut out);
            self.farewell.frame = Some(out);
        };
        let websocket = match last {
            CloseCause::Application(code, reason) => {
                close(true, code.0.into(), reason);
                None
            }
            CloseCause::Violation(violation) => {
                close(false, violation.code, violation.what);
                violation.websocket
            }
            CloseCause::Nothing => {
                // The peer has closed: nothing is sent.
                self.hello = None;
                None
            }
        };
        self.farewell.websocket = (self.over == QmuxCarrier::WebSocket).then_some(websocket);
        let is_heard = matches!(last, CloseCause::Nothing);
        self.life = QmuxPhase::Leaving { until: self.now + limits::FAREWELL, is_heard };
    }

    /// Drops all queued output except the transport parameters and the close frames.
    fn be_silent(&mut self) {
        self.datagrams = DatagramQueue::default();
        self.pongs.clear();
        self.websocket_pong = None;
        (self.clock.ping_due, self.clock.websocket_due) = (false, false);
        if self.life == QmuxPhase::Over {
            (self.hello, self.farewell) = (None, CloseFrames::default());
        }
    }

    fn poll_life(&mut self) -> Option<TransportEvent> {
        if matches!(self.life, QmuxPhase::Opening(_)) {
            return None;
        }
        if std::mem::take(&mut self.is_ready_due) {
            return Some(TransportEvent::Ready);
        }
        if let Some(event) = self.streams.poll() {
            return Some(event);
        }
        let closed = self.closed.take()?;
        self.streams.forget();
        self.received = DatagramQueue::default();
        Some(TransportEvent::Closed(closed))
    }
}

/// Reason of the close that is sent to the peer.
enum CloseCause<'a> {
    Application(SessionCode, &'a str),
    Violation(Violation),
    /// The peer closed first.
    Nothing,
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

/// Truncates a close reason to [`limits::REASON_BYTES`].
fn shortened(reason: &str) -> &str {
    let end = reason.floor_char_boundary(limits::REASON_BYTES);
    reason.get(..end).unwrap_or_default()
}
