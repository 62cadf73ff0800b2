//! One peer: events in, messages out, both roles at once.

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use relay_meter::Worker as Meter;
use relay_model::{
    Ask, Hop, LogId, Order, Path, Scope, SessionCode, SessionId, SubId, WorkerId,
    limits::{self, SessionLimits},
};
use relay_store::{Rings, Store};
use relay_wire::lite::{self, Message};

use crate::{
    control::Control,
    egress::{Egress, Out},
    fanout::{Batch, Fanout},
    ingest::Ingest,
    inlet::Inlet,
    opening::Opening,
    pace::Pace,
    peer_announces::PeerAnnounces,
    probe::Probes,
    queue::Queue,
    stream_table::StreamTable,
    tracks::Track,
    transport::{Closed, Dir, Event, PRIORITY_CONTROL, Stream, Transport},
    upstream::Upstreams,
    wanted::Wanted,
    watch::Watching,
    work::{self, Work},
};

/// How long a partial frame is held back for more of it.
pub(crate) const HOLD: Duration = Duration::from_millis(1);

/// What a session works with during a call.
pub struct Cx<'a> {
    /// The time of this turn.
    pub now: Instant,
    /// Logs, board and budget.
    pub store: &'a Arc<Store>,
    /// This worker's readers.
    pub fanout: &'a mut Fanout,
    /// Workers to wake at the end of the turn.
    pub rings: &'a mut Rings,
    /// This worker's counters.
    pub meter: &'a mut Meter,
    /// What the session wants of the worker and of core.
    pub out: &'a mut Vec<Output>,
    /// What the session may still do in this call. Where it is spent afterwards, [`Session::input`] must be called
    /// again without an event, after all other sessions that are ready.
    pub work: &'a mut Work,
}

/// What a session wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Output {
    /// May this peer come in? Answer with [`Session::authorized`] or by closing the transport.
    Authorize {
        /// Raw path and query from SETUP; empty when none was sent.
        target: String,
        /// The only thing it says it wants to do; `None` = both, or not said.
        role: Option<lite::Role>,
    },
    /// For core; credit comes back through [`Session::asks_done`].
    Ask(Ask),
}

/// What an admitted peer may touch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Every path of the session is relative to it.
    pub root: Path,
    /// Absolute prefixes it may publish under.
    pub publish: Scope,
    /// Absolute prefixes it may subscribe under.
    pub subscribe: Scope,
    /// It is a relay of the same cluster.
    pub is_peer: bool,
}

/// What a session is made from.
#[derive(Clone, Debug)]
pub struct Config {
    /// Its id, never reused.
    pub id: SessionId,
    /// The worker it lives on.
    pub worker: WorkerId,
    /// The relay's own hop.
    pub hop: Hop,
    /// Stands in for the hop of a publisher that gives none, so that two of them differ. Random.
    pub stamp: Hop,
    /// The protocol version negotiated. One of [`lite::Version::LEGACY`] says only that it is one of them:
    /// which is agreed on with the peer in its first stream.
    pub version: lite::Version,
    /// Whether the URL came with the connection (WebTransport). Otherwise SETUP carries it and the
    /// session asks with [`Output::Authorize`]; versions without SETUP have none.
    pub has_url: bool,
    /// When the process began: what frames that carry no time are stamped from.
    pub started: Instant,
    /// Limits of the session, unless it turns out to be a relay of the same cluster.
    pub limits: SessionLimits,
}

impl Config {
    /// The relay's own clock, ms.
    pub(crate) fn clock_ms(&self, now: Instant) -> i64 {
        i64::try_from(now.saturating_duration_since(self.started).as_millis()).unwrap_or(i64::MAX)
    }
}

/// What the peer said of itself.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Its SETUP was read.
    pub(crate) is_known: bool,
    /// The only thing it came to do; `None` = both, or not said.
    pub(crate) role: Option<lite::Role>,
    /// What it charges for what it sends.
    pub(crate) price: Option<u64>,
    /// Routes through this hop are of no use to it.
    pub(crate) exclude: Hop,
    /// It said that it is going away.
    pub(crate) draining: bool,
    /// It passes on what others publish: it is told of every way there is.
    pub(crate) is_relay: bool,
}

/// One peer on one transport.
pub struct Session {
    pub(crate) config: Config,
    pub(crate) grant: Option<Grant>,
    /// Its version is not known yet.
    pub(crate) opening: Option<Opening>,
    pub(crate) streams: StreamTable,
    pub(crate) control: Control,
    pub(crate) egress: Egress,
    pub(crate) upstreams: Upstreams,
    /// What the peer announces, whether core takes it or not.
    pub(crate) heard: PeerAnnounces,
    pub(crate) watches: Vec<Watching>,
    pub(crate) probes: Probes,
    pub(crate) peer: Peer,
    /// Streams not read on: before authorisation, while core is behind, or while the peer asks too fast.
    pub(crate) held: BTreeSet<Stream>,
    /// Some of those may be read, and a budget of work did not suffice to.
    pub(crate) is_resuming: bool,
    /// Streams that a budget of work did not suffice to read to their end, in the order in which they go on.
    pub(crate) unread: VecDeque<Stream>,
    /// The same of datagrams.
    pub(crate) datagrams_due: bool,
    /// The same of watches: some have more to send.
    pub(crate) watches_due: bool,
    /// Watch that sends next.
    pub(crate) next_watch: usize,
    pub(crate) pace: Pace,
    /// In force: those of [`Config::limits`], none for a relay of the same cluster.
    pub(crate) limits: SessionLimits,
    /// Requests toward the peer that wait for their turn and for its stream credit.
    pub(crate) wanting: Queue,
    /// Some of them wait for stream credit, and core knows.
    pub(crate) is_blocked: bool,
    /// Logs whose publisher turned out to count anew.
    pub(crate) restarted: Vec<LogId>,
    /// Streams whose header must come in time, oldest first.
    pub(crate) headers: VecDeque<(Instant, Stream)>,
    /// Streams with a partial frame held back, and until when.
    pub(crate) holding: Vec<Stream>,
    pub(crate) hold: Option<Instant>,
    pub(crate) in_flight: u32,
    pub(crate) has_setup: bool,
    pub(crate) is_dirty: bool,
    /// Groups begun are finished, and nothing else is begun.
    pub(crate) winding: bool,
    said_goaway: bool,
    /// Something could be written that could not before.
    pub(crate) has_room: bool,
    setup_sent: bool,
    closed: Option<Closed>,
    closing: bool,
    /// What the peer was told when the session ended itself.
    parting: Option<(SessionCode, Box<str>)>,
}

/// What a stream is for.
#[derive(Debug)]
pub(crate) enum Role {
    /// The peer's bidirectional stream, its request not read yet.
    Request(Inlet, Option<lite::BidiType>),
    /// The peer's unidirectional stream, its type not read yet.
    Header(Inlet),
    /// The peer's SETUP.
    Setup(Inlet),
    /// The list of versions that the peer offers.
    ClientSetup(Inlet),
    /// The stream that the session began with, and ends with.
    Session(Inlet),
    /// A group from the peer.
    Group(Box<Ingest>),
    /// The peer watches announces; we write.
    Watch(Inlet),
    /// The peer's SUBSCRIBE or TRACK request.
    Sub(SubId, Inlet),
    /// Our announce request: absolute prefix, sender's hop once known, what it announced.
    Intake(Inlet, Box<crate::intake::Intake>),
    /// Our TRACK request.
    TrackUp(Inlet, LogId),
    /// Our SUBSCRIBE.
    SubscribeUp(Inlet, LogId),
    /// Our FETCH.
    FetchUp(Box<Ingest>),
    /// The peer wants to know what its path carries.
    Probe(Inlet),
    /// All is said: nothing of it is read.
    Said,
}

impl Session {
    /// A session on a fresh transport.
    pub fn new(config: Config) -> Self {
        Self {
            egress: Egress::new(config.version),
            opening: Opening::of(config.version),
            pace: Pace::new(&config.limits),
            limits: config.limits,
            config,
            grant: None,
            streams: StreamTable::default(),
            control: Control::default(),
            upstreams: Upstreams::default(),
            heard: PeerAnnounces::default(),
            watches: Vec::new(),
            next_watch: 0,
            probes: Probes::default(),
            peer: Peer {
                is_known: false,
                role: None,
                price: None,
                exclude: Hop::ANONYMOUS,
                draining: false,
                is_relay: false,
            },
            held: BTreeSet::new(),
            wanting: Queue::default(),
            is_blocked: false,
            is_resuming: false,
            unread: VecDeque::new(),
            datagrams_due: false,
            watches_due: false,
            restarted: Vec::new(),
            headers: VecDeque::new(),
            holding: Vec::new(),
            hold: None,
            in_flight: 0,
            has_setup: false,
            is_dirty: false,
            winding: false,
            said_goaway: false,
            has_room: false,
            setup_sent: false,
            closed: None,
            closing: false,
            parting: None,
        }
    }

    /// Its id.
    pub fn id(&self) -> SessionId {
        self.config.id
    }

    /// How the transport ended, once it has. Call [`Self::leave`] and drop the session.
    pub fn closed(&self) -> Option<&Closed> {
        self.closed.as_ref()
    }

    /// What the peer was told, if the session ended itself: for a violation, or because core said so.
    pub fn parting(&self) -> Option<(SessionCode, &str)> {
        self.parting.as_ref().map(|(code, reason)| (*code, &**reason))
    }

    /// The peer is let in: its requests are served, its announces asked for.
    pub fn authorized<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, grant: Grant) {
        if grant.is_peer {
            self.know_relay();
            self.limits = SessionLimits::NONE;
            self.pace = Pace::new(&self.limits);
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
        self.resume_held(t, cx);
        self.commit(t, cx);
    }

    /// Whether announces may go either way: where SETUP says what they are priced and filtered by, it
    /// must have been read.
    pub(crate) fn may_meet(&self) -> bool {
        self.grant.is_some()
            && self.opening.is_none()
            && (self.peer.is_known || !self.config.version.has_announce_ids())
    }

    /// The peer is let in and known: its announces are asked for, and ours go out. Once.
    pub(crate) fn met<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let Some(grant) = &self.grant else { return };
        for prefix in grant.publish.prefixes().to_vec() {
            self.want(t, cx, Wanted::Announces(prefix));
        }
        if self.peer.exclude != Hop::ANONYMOUS {
            self.ask(cx, Ask::Exclude { hop: self.peer.exclude });
        }
        self.pump_watches(t, cx);
    }

    /// Tells the peer to move to another session, to the same place. Where the version has no word for it
    /// nothing is said.
    pub fn go_away<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.is_over() || std::mem::replace(&mut self.said_goaway, true) {
            return;
        }
        if self.config.version.has_goaway() {
            cx.meter.goaways_out += 1;
            self.wanting.push_first(Wanted::Goaway);
            self.open_wanted(t, cx);
        }
    }

    /// From now on no group is begun, either way, and no request is taken; those begun are finished.
    pub fn wind_down<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.is_over() && !std::mem::replace(&mut self.winding, true) {
            self.with_egress(t, cx, |egress, out| egress.wind_down(out));
        }
    }

    /// Whether all that was begun has been handed to the transport, or has come from it.
    pub fn is_quiet(&self) -> bool {
        self.egress.is_quiet() && self.control.is_empty() && !self.upstreams.is_receiving()
    }

    /// Takes the transport's events and fills what room there is, while `cx.work` lasts. Call after every batch
    /// of input.
    pub fn input<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        // Room that an earlier call had no work left for is used now, whatever comes in.
        let is_owed = self.has_room;
        self.go_on(t, cx);
        while !cx.work.is_spent()
            && let Some(event) = t.poll()
        {
            cx.work.take(work::EVENT);
            self.event(t, cx, event);
        }
        // After all events: whoever is told first that it may write must not take what another deserves.
        if (is_owed || !cx.work.is_spent()) && std::mem::take(&mut self.has_room) && !self.is_over() {
            self.use_room(t, cx);
        }
        self.commit(t, cx);
        self.check_control(t, cx.now);
    }

    /// Carries out an order of core.
    pub fn order<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, order: Order) {
        if self.is_over() {
            return;
        }
        match order {
            Order::Open { log, epoch, path, publisher, track, prefs, want, asker } => {
                let wanted = Track { log, epoch, path, publisher, track, prefs, want, asker };
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

    /// Core has taken `count` asks: as many more may be sent.
    pub fn asks_done<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, count: u32) {
        self.in_flight = self.in_flight.saturating_sub(count);
        if !self.is_over() && self.may_ask() {
            self.resume_held(t, cx);
            self.commit(t, cx);
        }
    }

    /// News of a log for one of this session's subscriptions.
    pub fn news<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, sub: SubId, batch: &Batch) {
        if self.is_over() {
            return;
        }
        self.deliver(t, cx, sub, batch);
    }

    /// The announce board changed.
    pub fn board<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.is_over() {
            self.pump_watches(t, cx);
        }
    }

    /// Does what is due. Call when [`Self::next_deadline`] has passed.
    pub fn timeout<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.is_over() {
            return;
        }
        if self.hold.is_some_and(|due| cx.now >= due) {
            self.release_held_pieces(cx);
        }
        if self.egress.deadline().is_some_and(|due| cx.now >= due) {
            let over = self.with_egress(t, cx, |egress, out| egress.expire(out));
            self.finish_subs(t, cx, over);
        }
        self.probes.pump(t, &mut self.control, self.config.version, cx.now);
        self.expire_wanted(t, cx);
        self.let_on(t, cx);
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
            self.close(t, cx.now, SessionCode::TIMEOUT, "no SETUP in time");
        }
        self.check_control(t, cx.now);
    }

    /// When [`Self::timeout`] is next due. Asked after every turn of every session: what most sessions
    /// have none of costs a look.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.is_over() {
            return None;
        }
        let mut soonest = self.hold;
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
        due(self.opening.as_ref().and_then(Opening::deadline));
        if let Some((at, _)) = self.headers.front() {
            due(Some(*at));
        }
        if !self.upstreams.is_empty() {
            due(self.upstreams.deadline());
        }
        if !self.wanting.is_empty() {
            due(self.wanting_deadline());
        }
        soonest
    }

    /// Takes its readers and watches out of the fan-out. Call before dropping it, also after a panic.
    pub fn leave(&mut self, fanout: &mut Fanout) {
        for sub in self.egress.subs() {
            if let Some(log) = sub.log {
                fanout.detach(log, crate::Reader { session: self.config.id, sub: sub.id });
            }
        }
        fanout.unwatch(self.config.id);
    }

    fn event<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, event: Event) {
        if let Event::Closed(why) = event {
            self.closed = Some(why);
            return;
        }
        if self.is_over() {
            return;
        }
        match event {
            Event::Ready => {}
            Event::Opened(stream, dir) => {
                let role = match dir {
                    Dir::Bi => {
                        t.set_priority(stream, PRIORITY_CONTROL);
                        Role::Request(Inlet::default(), None)
                    }
                    Dir::Uni => Role::Header(Inlet::default()),
                };
                self.streams.insert(stream, role);
                self.prune_headers();
                self.headers.push_back((cx.now + limits::STREAM_HEADER_TIMEOUT, stream));
                self.readable(t, cx, stream);
            }
            Event::Readable(stream) => self.readable(t, cx, stream),
            Event::Writable(stream) => {
                self.has_room = true;
                cx.work.take(self.egress.scan_units());
                self.egress.writable(stream);
            }
            Event::Stopped(stream, code) => {
                cx.work.take(self.egress.scan_units());
                self.stopped(t, cx, stream, code);
            }
            Event::Openable(Dir::Uni) => {
                self.send_setup(t, cx.now);
                self.has_room = true;
                self.egress.openable();
            }
            Event::Openable(Dir::Bi) => self.open_wanted(t, cx),
            Event::Datagram => self.datagrams(t, cx),
            Event::Room => {
                self.has_room = true;
                self.egress.room();
            }
            Event::Moved(address) => tracing::debug!(session = %self.config.id, %address, "peer moved"),
            Event::Closed(_) => {}
        }
    }

    /// Control first, then media, then what can wait.
    fn use_room<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        self.control.flush(t, cx.now);
        let over = self.with_egress(t, cx, |egress, out| egress.pump(out));
        self.finish_subs(t, cx, over);
        self.pump_watches(t, cx);
    }

    /// Sends our SETUP, once, as soon as a stream can be had.
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
        self.control.finish(t, now, stream);
    }

    /// Sends an ask to core.
    pub(crate) fn ask(&mut self, cx: &mut Cx<'_>, ask: Ask) {
        self.in_flight = self.in_flight.saturating_add(1);
        cx.meter.asks += 1;
        cx.out.push(Output::Ask(ask));
    }

    /// Whether requests that lead to asks may be read.
    pub(crate) fn may_ask(&self) -> bool {
        self.grant.is_some() && self.opening.is_none() && self.in_flight < limits::ASKS_IN_FLIGHT
    }

    /// Leaves a stream unread until it may be read.
    pub(crate) fn hold_back(&mut self, stream: Stream) {
        self.held.insert(stream);
    }

    pub(crate) fn is_over(&self) -> bool {
        self.closing || self.closed.is_some()
    }

    /// Ends the session for good.
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
        run: impl FnOnce(&mut Egress, &mut Out<'_, T>) -> R,
    ) -> R {
        let mut out = Out { t, control: &mut self.control, meter: &mut *cx.meter, now: cx.now };
        let result = run(&mut self.egress, &mut out);
        if self.egress.take_cut() {
            self.has_room = true;
            cx.work.exhaust();
        }
        result
    }

    fn check_control<T: Transport>(&mut self, t: &mut T, now: Instant) {
        if self.control.is_stuck(now) {
            self.close(t, now, SessionCode::TIMEOUT, "control messages not taken");
        }
    }
}
