//! Session with one peer: transport events in, messages out, publisher and subscriber roles at once.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use relay_meter::Worker as Meter;
use relay_model::{
    Ask, Hop, LogId, Order, Path, Scope, SessionCode, SessionId, SubId, WorkerId,
    limits::{self, SessionLimits},
    transport::{Dir, PRIORITY_CONTROL, Stream, Transport, TransportClosed, TransportEvent},
};
use relay_store::{Store, WakeSet};
use relay_wire::lite::{self, Message};

use crate::{
    control::ControlQueue,
    control_stream::ControlStreamReader,
    egress::{Egress, EgressContext},
    fanout::{Batch, Fanout},
    ingest::Ingest,
    negotiation::VersionNegotiation,
    peer_announces::PeerAnnounces,
    probe::ProbeStreams,
    request_limiter::RequestLimiter,
    request_queue::RequestQueue,
    stream_table::StreamTable,
    tracks::UpstreamTrack,
    upstream::Upstreams,
    upstream_request::UpstreamRequest,
    watch::AnnounceStream,
    work::{self, Work},
};

/// Longest time a partial frame is held back for more of it.
pub(crate) const PARTIAL_DELAY: Duration = Duration::from_millis(1);

/// Context of a call into a session.
pub struct Cx<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// Logs, board and budget.
    pub store: &'a Arc<Store>,
    /// This worker's readers.
    pub fanout: &'a mut Fanout,
    /// Workers to wake at the end of the turn.
    pub wakes: &'a mut WakeSet,
    /// This worker's counters.
    pub meter: &'a mut Meter,
    /// Requests of the session to the worker and to core.
    pub out: &'a mut Vec<SessionOutput>,
    /// Work budget of this call. If it is spent afterwards, [`Session::input`] must be called again without an
    /// event, after all other ready sessions.
    pub work: &'a mut Work,
}

/// Request of a session to its worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SessionOutput {
    /// Authorisation request for the peer; answered with [`Session::authorized`] or by closing the transport.
    Authorize {
        /// Raw path and query from SETUP; empty when none was sent.
        target: String,
        /// Only role declared in SETUP; `None` = both, or none declared.
        role: Option<lite::Role>,
    },
    /// Message to core; its credit is returned through [`Session::asks_done`].
    Ask(Ask),
}

/// Rights of an admitted peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionGrant {
    /// Root to which every path of the session is relative.
    pub root: Path,
    /// Absolute paths it may publish.
    pub publish: Scope,
    /// Absolute paths it may subscribe to.
    pub subscribe: Scope,
    /// Whether the peer is a relay of the same cluster.
    pub is_peer: bool,
}

/// Parameters of a new session.
#[derive(Clone, Debug)]
pub struct SessionConfig {
    /// Id of the session, never reused.
    pub id: SessionId,
    /// Worker that owns the session.
    pub worker: WorkerId,
    /// The relay's own hop.
    pub hop: Hop,
    /// Random hop that replaces the hop of a publisher that gives none, so that two such publishers differ.
    pub stamp: Hop,
    /// Negotiated protocol version. One of [`lite::Version::LEGACY`] only means that the version is among
    /// these: the first stream of the session negotiates which.
    pub version: lite::Version,
    /// Whether the URL came with the connection (WebTransport). Otherwise SETUP carries it and the session
    /// requests authorisation with [`SessionOutput::Authorize`]; versions without SETUP have no URL.
    pub has_url: bool,
    /// Start of the process: the zero of timestamps given to frames without one.
    pub started: Instant,
    /// Limits of the session, unless the peer is a relay of the same cluster.
    pub limits: SessionLimits,
}

impl SessionConfig {
    /// Milliseconds since [`Self::started`].
    pub(crate) fn clock_ms(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }
}

/// Properties of the peer, from SETUP and later messages.
#[derive(Debug)]
pub(crate) struct PeerInfo {
    /// Whether its SETUP was read.
    pub(crate) is_known: bool,
    /// Only role declared in SETUP; `None` = both, or none declared.
    pub(crate) role: Option<lite::Role>,
    /// Cost of the link from the peer, as declared in SETUP.
    pub(crate) price: Option<u64>,
    /// Hop whose routes are not advertised to it.
    pub(crate) exclude: Hop,
    /// Whether it sent GOAWAY.
    pub(crate) draining: bool,
    /// Whether it forwards other publishers' broadcasts; such a peer gets every route.
    pub(crate) is_relay: bool,
}

/// One peer on one transport.
pub struct Session {
    pub(crate) config: SessionConfig,
    pub(crate) grant: Option<SessionGrant>,
    /// Version negotiation in progress.
    pub(crate) opening: Option<VersionNegotiation>,
    pub(crate) streams: StreamTable,
    pub(crate) control: ControlQueue,
    pub(crate) egress: Egress,
    pub(crate) upstreams: Upstreams,
    /// Announces of the peer, routed or not.
    pub(crate) peer_announces: PeerAnnounces,
    pub(crate) watches: Vec<AnnounceStream>,
    pub(crate) probes: ProbeStreams,
    pub(crate) peer: PeerInfo,
    /// Streams not read further: before authorisation, while core is behind, or while the peer exceeds its
    /// request rate.
    pub(crate) paused_streams: BTreeSet<Stream>,
    /// Whether some of those may be read, but the work budget was spent.
    pub(crate) is_resuming: bool,
    /// Streams left partly read when the work budget was spent, in the order in which to continue.
    pub(crate) unread: VecDeque<Stream>,
    /// Whether datagrams are left for the same reason.
    pub(crate) datagrams_due: bool,
    /// Whether watches have more to send, for the same reason.
    pub(crate) watches_due: bool,
    /// Watch that sends next.
    pub(crate) next_watch: usize,
    pub(crate) pace: RequestLimiter,
    /// Limits in force: [`SessionConfig::limits`], or none for a relay of the same cluster.
    pub(crate) limits: SessionLimits,
    /// Requests to the peer that wait for their turn and for its stream credit.
    pub(crate) request_queue: RequestQueue,
    /// Whether some of them wait for stream credit, as reported to core.
    pub(crate) is_blocked: bool,
    /// Logs whose publisher has restarted its group numbers.
    pub(crate) restarted: Vec<LogId>,
    /// Streams with a header deadline, oldest first.
    pub(crate) headers: VecDeque<(Instant, Stream)>,
    /// Streams with a partial frame held back; `hold` is the deadline.
    pub(crate) partial_streams: Vec<Stream>,
    pub(crate) partial_deadline: Option<Instant>,
    pub(crate) in_flight: u32,
    pub(crate) has_setup: bool,
    pub(crate) is_dirty: bool,
    /// Whether started groups are finished and no others are started.
    pub(crate) winding: bool,
    goaway_sent: bool,
    /// Whether the transport has room again since the last attempt to send.
    pub(crate) has_room: bool,
    setup_sent: bool,
    closed: Option<TransportClosed>,
    closing: bool,
    /// Close code and reason, if the session closed itself.
    parting: Option<(SessionCode, Box<str>)>,
}

/// Purpose of a stream.
#[derive(Debug)]
pub(crate) enum StreamKind {
    /// The peer's bidirectional stream, its request not read yet.
    Request(ControlStreamReader, Option<lite::BidiType>),
    /// The peer's unidirectional stream, its type not read yet.
    Header(ControlStreamReader),
    /// The peer's SETUP.
    Setup(ControlStreamReader),
    /// The list of versions that the peer offers.
    ClientSetup(ControlStreamReader),
    /// The session's first stream, whose end is the end of the session.
    Session(ControlStreamReader),
    /// A group from the peer.
    Group(Box<Ingest>),
    /// The peer's announce request; we write announces.
    Watch(ControlStreamReader),
    /// The peer's SUBSCRIBE or TRACK request.
    Sub(SubId, ControlStreamReader),
    /// Our announce request, and the state of its announces.
    AnnounceUp(ControlStreamReader, Box<crate::intake::AnnounceReceiver>),
    /// Our TRACK request.
    TrackUp(ControlStreamReader, LogId),
    /// Our SUBSCRIBE.
    SubscribeUp(ControlStreamReader, LogId),
    /// Our FETCH.
    FetchUp(Box<Ingest>),
    /// The peer's PROBE stream.
    Probe(ControlStreamReader),
    /// Send-only: nothing is read from it.
    SendOnly,
}

impl Session {
    /// A session on a fresh transport.
    pub fn new(config: SessionConfig) -> Self {
        Self {
            egress: Egress::new(config.version),
            opening: VersionNegotiation::of(config.version),
            pace: RequestLimiter::new(&config.limits),
            limits: config.limits,
            config,
            grant: None,
            streams: StreamTable::default(),
            control: ControlQueue::default(),
            upstreams: Upstreams::default(),
            peer_announces: PeerAnnounces::default(),
            watches: Vec::new(),
            next_watch: 0,
            probes: ProbeStreams::default(),
            peer: PeerInfo {
                is_known: false,
                role: None,
                price: None,
                exclude: Hop::ANONYMOUS,
                draining: false,
                is_relay: false,
            },
            paused_streams: BTreeSet::new(),
            request_queue: RequestQueue::default(),
            is_blocked: false,
            is_resuming: false,
            unread: VecDeque::new(),
            datagrams_due: false,
            watches_due: false,
            restarted: Vec::new(),
            headers: VecDeque::new(),
            partial_streams: Vec::new(),
            partial_deadline: None,
            in_flight: 0,
            has_setup: false,
            is_dirty: false,
            winding: false,
            goaway_sent: false,
            has_room: false,
            setup_sent: false,
            closed: None,
            closing: false,
            parting: None,
        }
    }

    /// Id of the session.
    pub fn id(&self) -> SessionId {
        self.config.id
    }

    /// Reason the transport ended, once it has. Call [`Self::leave`] and drop the session.
    pub fn closed(&self) -> Option<&TransportClosed> {
        self.closed.as_ref()
    }

    /// Close code and reason sent to the peer, if the session closed itself, after a violation or by order of
    /// core.
    pub fn parting(&self) -> Option<(SessionCode, &str)> {
        self.parting.as_ref().map(|(code, reason)| (*code, &**reason))
    }

    /// Admits the peer: serves its requests and requests its announces.
    pub fn authorized<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, grant: SessionGrant) {
        if grant.is_peer {
            self.know_relay();
            self.limits = SessionLimits::NONE;
            self.pace = RequestLimiter::new(&self.limits);
        }
        self.grant = Some(grant);
        self.check_role(t, cx);
        if self.is_over() {
            return;
        }
        self.send_setup(t, cx.now);
        if self.may_meet() {
            self.met(t, cx);
        }
        self.resume_paused(t, cx);
        self.commit(t, cx);
    }

    /// Whether announces may be exchanged: authorised, version known, and SETUP read where it carries the cost
    /// and filter of announces.
    pub(crate) fn may_meet(&self) -> bool {
        self.grant.is_some()
            && self.opening.is_none()
            && (self.peer.is_known || !self.config.version.has_announce_ids())
    }

    /// Starts the exchange of announces, once the peer is authorised and known.
    pub(crate) fn met<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let Some(grant) = &self.grant else { return };
        for prefix in grant.publish.prefixes().to_vec() {
            self.want(t, cx, UpstreamRequest::Announces(prefix));
        }
        if self.peer.exclude != Hop::ANONYMOUS {
            self.ask(cx, Ask::Exclude { hop: self.peer.exclude });
        }
        self.pump_watches(t, cx);
    }

    /// Sends GOAWAY, asking the peer to move to a new session at the same URL. No effect in versions without
    /// GOAWAY.
    pub fn go_away<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.is_over() || std::mem::replace(&mut self.goaway_sent, true) {
            return;
        }
        if self.config.version.has_goaway() {
            cx.meter.goaways_out += 1;
            self.request_queue.push_first(UpstreamRequest::Goaway);
            self.open_wanted(t, cx);
        }
    }

    /// Starts no further group in either direction and accepts no request; finishes started groups.
    pub fn wind_down<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.is_over() && !std::mem::replace(&mut self.winding, true) {
            self.with_egress(t, cx, |egress, out| egress.wind_down(out));
        }
    }

    /// Whether all started groups have been passed to the transport or received from it.
    pub fn is_quiet(&self) -> bool {
        self.egress.is_quiet() && self.control.is_empty() && !self.upstreams.is_receiving()
    }

    /// Processes the transport's events and uses its free room, while `cx.work` lasts. Call after every batch
    /// of input.
    pub fn input<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        // Room left unused by an earlier call is used now, whatever the input.
        let is_owed = self.has_room;
        self.go_on(t, cx);
        while !cx.work.is_spent()
            && let Some(event) = t.poll()
        {
            cx.work.take(work::EVENT);
            self.event(t, cx, event);
        }
        // After all events, so that the first writable stream does not take the share of others.
        if (is_owed || !cx.work.is_spent()) && std::mem::take(&mut self.has_room) && !self.is_over() {
            self.use_room(t, cx);
        }
        self.commit(t, cx);
        self.check_control(t, cx.now);
    }

    /// Executes an order of core.
    pub fn order<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, order: Order) {
        if self.is_over() {
            return;
        }
        match order {
            Order::Open { log, epoch, path, publisher, track, prefs, want, asker } => {
                let wanted = UpstreamTrack { log, epoch, path, publisher, track, prefs, want, asker };
                self.open_upstream(t, cx, wanted);
            }
            Order::Prefs { log, prefs, want } => self.update_upstream(t, cx, log, prefs, want),
            Order::Close { log } => self.close_upstream(t, cx, log),
            Order::Asked { log, asker } => self.asked(t, cx, log, asker),
            Order::Pull { log, group, asker } => self.pull(t, cx, log, group, asker),
            Order::DropPull { log, group } => self.drop_pull(t, log, group),
            Order::Attach { sub, log } => self.attach(t, cx, sub, log),
            Order::Refuse { sub, code } => self.refuse_sub(t, cx, sub, code),
            Order::Kill { code, reason } => self.close(t, cx.now, code, reason),
        }
        self.commit(t, cx);
    }

    /// Returns credit for `count` asks processed by core.
    pub fn asks_done<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, count: u32) {
        self.in_flight = self.in_flight.saturating_sub(count);
        if !self.is_over() && self.may_ask() {
            self.resume_paused(t, cx);
            self.commit(t, cx);
        }
    }

    /// Delivers events of a log to one of this session's subscriptions.
    pub fn deliver_batch<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, sub: SubId, batch: &Batch) {
        if self.is_over() {
            return;
        }
        self.deliver(t, cx, sub, batch);
    }

    /// Handles a change of the announce board.
    pub fn board<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.is_over() {
            self.pump_watches(t, cx);
        }
    }

    /// Handles deadlines. Call when [`Self::next_deadline`] has passed.
    pub fn timeout<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.is_over() {
            return;
        }
        if self.partial_deadline.is_some_and(|due| cx.now >= due) {
            self.release_held_pieces(cx);
        }
        if self.egress.deadline().is_some_and(|due| cx.now >= due) {
            let over = self.with_egress(t, cx, |egress, out| egress.expire(out));
            self.finish_subs(t, cx, over);
        }
        self.probes.pump(t, &mut self.control, self.config.version, cx.now);
        self.expire_wanted(t, cx);
        self.resume_throttled(t, cx);
        while !cx.work.is_spent()
            && let Some((_, stream)) = self.headers.front().copied().filter(|(due, _)| cx.now >= *due)
        {
            cx.work.take(work::EVENT);
            self.headers.pop_front();
            self.header_is_late(t, stream);
        }
        self.end_upstreams(t, cx);
        self.commit(t, cx);
        if self.is_opening_late(cx.now) {
            self.close(t, cx.now, SessionCode::TIMEOUT, "setup timeout");
        }
        self.check_control(t, cx.now);
    }

    /// Time at which [`Self::timeout`] is next due. Called after every turn of every session, so states that
    /// most sessions do not have are checked cheaply.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let mut soonest = self.partial_deadline;
        let mut due = |at: Option<Instant>| {
            if let Some(at) = at
                && soonest.is_none_or(|soonest| at < soonest)
            {
                soonest = Some(at);
            }
        };
        due(self.egress.deadline());
        due(self.control.deadline());
        due(self.probes.deadline());
        due(self.pace.deadline());
        due(self.opening.as_ref().and_then(VersionNegotiation::deadline));
        if let Some((at, _)) = self.headers.front() {
            due(Some(*at));
        }
        if !self.upstreams.is_empty() {
            due(self.upstreams.deadline());
        }
        if !self.request_queue.is_empty() {
            due(self.wanting_deadline());
        }
        soonest
    }

    /// Removes the session's readers and watches from the fan-out. Call before dropping it, also after a panic.
    pub fn leave(&mut self, fanout: &mut Fanout) {
        for sub in self.egress.subs() {
            if let Some(log) = sub.log {
                fanout.detach(log, crate::LocalReader { session: self.config.id, sub: sub.id });
            }
        }
        fanout.unwatch(self.config.id);
    }

    fn event<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, event: TransportEvent) {
        if let TransportEvent::Closed(why) = event {
            self.closed = Some(why);
            return;
        }
        if self.is_over() {
            return;
        }
        match event {
            TransportEvent::Ready => {}
            TransportEvent::Opened(stream, dir) => {
                let role = match dir {
                    Dir::Bi => {
                        t.set_priority(stream, PRIORITY_CONTROL);
                        StreamKind::Request(ControlStreamReader::default(), None)
                    }
                    Dir::Uni => StreamKind::Header(ControlStreamReader::default()),
                };
                self.streams.insert(stream, role);
                self.prune_headers();
                self.headers.push_back((cx.now + limits::STREAM_HEADER_TIMEOUT, stream));
                self.readable(t, cx, stream);
            }
            TransportEvent::Readable(stream) => self.readable(t, cx, stream),
            TransportEvent::Writable(stream) => {
                self.has_room = true;
                self.control.writable(t, cx.now, stream, cx.work);
                cx.work.take(self.egress.scan_units());
                self.egress.writable(stream);
            }
            TransportEvent::Stopped(stream, code) => {
                cx.work.take(self.egress.scan_units());
                self.stopped(t, cx, stream, code);
            }
            TransportEvent::Openable(Dir::Uni) => {
                self.send_setup(t, cx.now);
                self.has_room = true;
                self.egress.openable();
            }
            TransportEvent::Openable(Dir::Bi) => self.open_wanted(t, cx),
            TransportEvent::Datagram => self.datagrams(t, cx),
            TransportEvent::Room => {
                self.has_room = true;
                self.control.room();
                self.egress.room();
            }
            TransportEvent::Moved(address) => {
                tracing::debug!(session = %self.config.id, %address, "peer address changed")
            }
            TransportEvent::Closed(_) => {}
        }
    }

    /// Sends control messages first, then media, then announces.
    fn use_room<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.control.flush(t, cx.now, cx.work) {
            self.has_room = true;
            return;
        }
        let over = self.with_egress(t, cx, |egress, out| egress.pump(out));
        self.finish_subs(t, cx, over);
        self.pump_watches(t, cx);
    }

    /// Sends our SETUP once, as soon as a stream can be opened.
    fn send_setup<T: Transport>(&mut self, t: &mut T, now: Instant) {
        if self.setup_sent || self.grant.is_none() || !self.config.version.has_setup() {
            return;
        }
        let Some(stream) = t.open(Dir::Uni, PRIORITY_CONTROL) else { return };
        self.setup_sent = true;
        let probe = u64::from(t.stats().rtt.is_some());
        let setup = lite::Setup { probe, path: None, role: None, cost: None, hop: Some(self.config.hop) };
        let mut message = Vec::new();
        relay_wire::varint::put(lite::UniType::Setup.id(), &mut message);
        setup.encode(self.config.version, &mut message);
        self.control.send(t, now, stream, message);
        self.control.finish(t, stream);
    }

    /// Sends an ask to core.
    pub(crate) fn ask(&mut self, cx: &mut Cx<'_>, ask: Ask) {
        self.in_flight = self.in_flight.saturating_add(1);
        cx.meter.asks += 1;
        cx.out.push(SessionOutput::Ask(ask));
    }

    /// Whether requests that lead to asks may be read.
    pub(crate) fn may_ask(&self) -> bool {
        self.grant.is_some() && self.opening.is_none() && self.in_flight < limits::ASKS_IN_FLIGHT
    }

    /// Defers reading a stream until it is allowed.
    pub(crate) fn hold_back(&mut self, stream: Stream) {
        self.paused_streams.insert(stream);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.closing || self.closed.is_some()
    }

    /// Closes the session.
    pub(crate) fn close<T: Transport>(&mut self, t: &mut T, now: Instant, code: SessionCode, reason: &str) {
        if !self.is_over() {
            self.closing = true;
            self.parting = Some((code, reason.into()));
            t.close(now, code, reason);
        }
    }

    /// Closes a session whose peer broke the protocol.
    pub(crate) fn violation<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, reason: &str) {
        cx.meter.violations += 1;
        tracing::debug!(session = %self.config.id, reason, "protocol violation");
        self.close(t, cx.now, SessionCode::PROTOCOL_VIOLATION, reason);
    }

    pub(crate) fn with_egress<T: Transport, R>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        run: impl FnOnce(&mut Egress, &mut EgressContext<'_, T>) -> R,
    ) -> R {
        let mut out = EgressContext { t, control: &mut self.control, meter: &mut *cx.meter, now: cx.now };
        let result = run(&mut self.egress, &mut out);
        if self.egress.take_cut() {
            self.has_room = true;
            cx.work.exhaust();
        }
        result
    }

    fn check_control<T: Transport>(&mut self, t: &mut T, now: Instant) {
        if self.control.is_stuck(now) {
            self.close(t, now, SessionCode::TIMEOUT, "control stream blocked");
        }
    }
}
