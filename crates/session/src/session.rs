//! Session with one peer: transport events in, messages out, publisher and subscriber roles at once.

use std::time::Instant;

use relay_auth::Permit;
use relay_model::{
    Ask, Hop, Order, Path, Prefs, SessionCode, SessionId, StreamCode, SubId,
    limits::SessionLimits,
    transport::{Dir, Stream, Transport, TransportClosed, TransportEvent},
};
use relay_wire::Version;

use crate::{
    backlog::InputBacklog,
    context::{Cx, SessionConfig, SessionOutput},
    control::Outbound,
    dialect::{Dialect, ReadAccess, ReadContext, ReadStep, Stopped},
    fanout::{Batch, Fanout},
    publisher::PublisherSide,
    request::{Incoming, PeerSetup, Reply, Request, RequestId},
    request_limiter::RequestLimiter,
    state::SessionState,
    sub::RequestKind,
    subscriber::{FetchParams, SubParams, SubscriberSide},
    turn::Turn,
    upstream::UpstreamParams,
    upstream_request::UpstreamRequest,
    work,
};

/// One peer on one transport.
#[derive(Debug)]
pub struct Session {
    state: SessionState,
    dialect: Dialect,
    /// Input left in the transport.
    backlog: InputBacklog,
    limiter: RequestLimiter,
    publisher: PublisherSide,
    subscriber: SubscriberSide,
}

/// The sides of a session, with the context that their methods take.
macro_rules! turn {
    ($session:expr, $t:expr, $cx:expr) => {
        Turn { t: &mut *$t, cx: &mut *$cx, state: &mut $session.state, dialect: &mut $session.dialect }
    };
}

impl Session {
    /// A session on a fresh transport.
    pub fn new(config: SessionConfig) -> Self {
        let dialect = Dialect::new(config.version);
        Self {
            backlog: InputBacklog::default(),
            limiter: RequestLimiter::new(&config.limits),
            publisher: PublisherSide::default(),
            subscriber: SubscriberSide::new(dialect.encoder()),
            dialect,
            state: SessionState::new(config),
        }
    }

    /// Id of the session.
    pub fn id(&self) -> SessionId {
        self.state.config.id
    }

    /// Protocol version, once known.
    pub fn version(&self) -> Option<Version> {
        self.dialect.version()
    }

    /// Reason the transport ended, once it has. Call [`Self::leave`] and drop the session.
    pub fn closed(&self) -> Option<&TransportClosed> {
        self.state.phase.closed()
    }

    /// Close code and reason sent to the peer, if the session closed itself, after a violation or by order of
    /// core.
    pub fn parting(&self) -> Option<(SessionCode, &str)> {
        self.state.phase.local_close().map(|local| (local.code, &*local.reason))
    }

    /// Whether all started groups have been passed to the transport or received from it.
    pub fn is_quiet(&self) -> bool {
        self.subscriber.egress.is_quiet()
            && self.state.control.is_empty()
            && !self.publisher.upstreams.is_receiving()
    }

    /// Starts the session: requests authorisation at once for versions without SETUP on a transport without a
    /// URL, since no message names a path. If the version is still to be negotiated, starts that deadline
    /// instead. Call once, when the transport is ready.
    pub fn start(&mut self, cx: &mut Cx<'_>) {
        let is_negotiating = self.dialect.start(cx.now);
        if !is_negotiating && !self.state.config.has_url && !self.dialect.has_setup() {
            cx.out.push(SessionOutput::Authorize { target: String::new(), role: None });
        }
    }

    /// Admits the peer: serves its requests and requests its announces.
    pub fn authorized<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, permit: Permit) {
        let mut turn = turn!(self, t, cx);
        if permit.is_peer() {
            self.subscriber.advertise_all(&mut turn);
            self.limiter = RequestLimiter::new(&SessionLimits::NONE);
        }
        turn.state.admit(permit);
        turn.check_role();
        if turn.state.phase.is_over() {
            return;
        }
        self.send_setup(t, cx.now);
        self.meet(t, cx);
        self.resume_paused(t, cx);
        self.commit(t, cx);
    }

    /// Replaces the rights of an admitted peer; the root stays. Core must be informed before it receives any
    /// later ask of the session.
    pub fn revised<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, permit: Permit) {
        if self.state.phase.is_over() || self.state.permit().is_none() {
            return;
        }
        self.state.revise(permit);
        let mut turn = turn!(self, t, cx);
        self.subscriber.revise(&mut turn);
        if turn.may_meet() {
            self.publisher.revise(&mut turn);
        }
        turn.check_role();
        self.commit(t, cx);
    }

    /// Sends GOAWAY, asking the peer to move to a new session at the same URL. No effect in versions without
    /// GOAWAY.
    pub fn go_away<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.state.phase.drain() && self.dialect.has_goaway() {
            cx.meter.goaways_out += 1;
            self.publisher.send_goaway(&mut turn!(self, t, cx));
        }
    }

    /// Starts no further group in either direction and accepts no request; finishes started groups.
    pub fn wind_down<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.state.phase.wind_down() {
            self.subscriber.wind_down(&mut turn!(self, t, cx));
        }
    }

    /// Processes the transport's events and uses its free room, while `cx.work` lasts. Call after every batch
    /// of input.
    pub fn input<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        // Room left unused by an earlier call is used now, whatever the input.
        let is_owed = self.subscriber.has_room();
        if self.backlog.is_due() || self.subscriber.watches.is_due() {
            self.go_on(t, cx);
        }
        while !cx.work.is_spent()
            && let Some(event) = t.poll()
        {
            cx.work.take(work::EVENT);
            self.event(t, cx, event);
        }
        // After all events, so that the first writable stream does not take the share of others.
        if is_owed || !cx.work.is_spent() {
            self.subscriber.use_room(&mut turn!(self, t, cx));
        }
        self.commit(t, cx);
        self.check_control(t, cx);
    }

    /// Executes an order of core.
    pub fn order<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, order: Order) {
        if self.state.phase.is_over() {
            return;
        }
        let Self { publisher, subscriber, .. } = self;
        let turn = &mut turn!(self, t, cx);
        match order {
            Order::Open { log, epoch, path, publisher: hop, track, prefs, want, asker } => {
                let broadcast = Path::root();
                let params =
                    UpstreamParams { log, epoch, path, publisher: hop, broadcast, track, prefs, want, asker };
                publisher.open_track(turn, params);
            }
            Order::Prefs { log, prefs, want } => publisher.update_track(turn, log, prefs, want),
            Order::Close { log } => publisher.close_track(turn, log),
            Order::Asked { log, asker } => publisher.share_request(turn, log, asker),
            Order::Pull { log, group, asker } => publisher.pull(turn, log, group, asker),
            Order::DropPull { log, group } => publisher.drop_pull(turn, log, group),
            Order::Attach { sub, log } => subscriber.attach(turn, sub, log),
            Order::Refuse { sub, code } => subscriber.refuse_sub(turn, sub, code),
            Order::Kill { code, reason } => turn.close(code, reason),
        }
        self.commit(t, cx);
    }

    /// Returns credit for `count` asks processed by core.
    pub fn asks_done<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, count: u32) {
        self.state.asks.done(count);
        if !self.state.phase.is_over() && self.may_ask() {
            self.resume_paused(t, cx);
            self.commit(t, cx);
        }
    }

    /// Delivers events of a log to one of this session's subscriptions.
    pub fn deliver_batch<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, sub: SubId, batch: &Batch) {
        if !self.state.phase.is_over() {
            self.subscriber.deliver(&mut turn!(self, t, cx), sub, batch);
        }
    }

    /// Handles a change of the announce board.
    pub fn board<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.state.phase.is_over() {
            self.subscriber.pump_watches(&mut turn!(self, t, cx));
        }
    }

    /// Handles deadlines. Call when [`Self::next_deadline`] has passed.
    pub fn timeout<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.state.phase.is_over() {
            return;
        }
        self.dialect.release_partial(&mut self.publisher.upstreams, cx.now, cx.store.budget());
        self.subscriber.timeout(&mut turn!(self, t, cx));
        self.publisher.expire_requests(&mut turn!(self, t, cx));
        self.resume_throttled(t, cx);
        let backlog = &self.backlog;
        while !cx.work.is_spent() && self.dialect.expire_header(t, cx.now, |stream| backlog.is_paused(stream))
        {
            cx.work.take(work::EVENT);
        }
        self.publisher.end_tracks(&mut turn!(self, t, cx));
        self.commit(t, cx);
        if self.dialect.negotiation_deadline().is_some_and(|by| cx.now >= by) {
            turn!(self, t, cx).close(SessionCode::TIMEOUT, "setup timeout");
        }
        self.check_control(t, cx);
    }

    /// Time at which [`Self::timeout`] is next due. Called after every turn of every session, so states that
    /// most sessions do not have are checked cheaply.
    pub fn next_deadline(&self) -> Option<Instant> {
        if self.state.phase.is_over() {
            return None;
        }
        let mut soonest = self.dialect.stream_deadline();
        let mut due = |at: Option<Instant>| {
            if let Some(at) = at
                && soonest.is_none_or(|soonest| at < soonest)
            {
                soonest = Some(at);
            }
        };
        self.subscriber.deadlines().into_iter().for_each(&mut due);
        due(self.state.control.deadline());
        due(self.limiter.deadline());
        due(self.dialect.negotiation_deadline());
        due(self.publisher.deadline());
        soonest
    }

    /// Removes the session's readers and watches from the fan-out. Call before dropping it, also after a panic.
    pub fn leave(&mut self, fanout: &mut Fanout) {
        self.subscriber.leave(self.state.config.id, fanout);
    }

    fn event<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, event: TransportEvent) {
        if let TransportEvent::Closed(why) = event {
            self.state.phase.end(why);
            return;
        }
        if self.state.phase.is_over() {
            return;
        }
        match event {
            TransportEvent::Ready | TransportEvent::Closed(_) => {}
            TransportEvent::Opened(stream, dir) => {
                self.dialect.opened(t, cx.now, stream, dir);
                self.readable(t, cx, stream);
            }
            TransportEvent::Readable(stream) => self.readable(t, cx, stream),
            TransportEvent::Writable(stream) => {
                self.subscriber.set_room();
                self.state.control.writable(t, cx.now, stream, cx.work);
                self.subscriber.egress.writable(stream);
            }
            TransportEvent::Stopped(stream, code) => self.stopped(t, cx, stream, code),
            TransportEvent::Openable(Dir::Uni) => {
                self.send_setup(t, cx.now);
                self.subscriber.set_room();
                self.subscriber.egress.openable();
            }
            TransportEvent::Openable(Dir::Bi) => self.publisher.open_requests(&mut turn!(self, t, cx)),
            TransportEvent::Datagram => self.read_datagrams(t, cx),
            TransportEvent::Room => {
                self.subscriber.set_room();
                self.state.control.room();
                self.subscriber.egress.room();
            }
            TransportEvent::Moved(address) => {
                tracing::debug!(session = %self.state.config.id, %address, "peer address changed");
            }
        }
    }

    /// Reads a stream as far as it may be read, and handles its messages.
    fn readable<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, stream: Stream) {
        loop {
            let access = ReadAccess {
                is_admitted: self.state.permit().is_some(),
                may_ask: self.may_ask(),
                accepts_groups: self.state.phase.accepts(),
            };
            let mut io = ReadContext {
                t,
                now: cx.now,
                work: cx.work,
                meter: cx.meter,
                budget: cx.store.budget(),
                control: &mut self.state.control,
                limiter: &mut self.limiter,
                upstreams: &mut self.publisher.upstreams,
                access,
                started: self.state.config.started,
            };
            match self.dialect.read(&mut io, stream) {
                ReadStep::Event(event) => {
                    self.handle(t, cx, event);
                    if self.state.phase.is_over() {
                        return;
                    }
                    continue;
                }
                ReadStep::Paused => self.backlog.pause(stream),
                ReadStep::Blocked => {}
                ReadStep::Done => return,
            }
            // Reading may have stopped because the budget was spent.
            if cx.work.is_spent() {
                self.backlog.push_unread(stream);
            }
            return;
        }
    }

    /// Handles a message of the peer.
    fn handle<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, event: Incoming) {
        let turn = &mut turn!(self, t, cx);
        match event {
            Incoming::Negotiated => self.negotiated(t, cx),
            Incoming::Setup(setup) => self.take_setup(t, cx, setup),
            Incoming::Request(id, request) => self.handle_request(t, cx, id, request),
            Incoming::Reply(id, reply) => self.publisher.on_reply(turn, id, &reply),
            Incoming::Announcement(id, announcement) => {
                if self.publisher.on_announcement(turn, id, announcement) {
                    self.subscriber.advertise_all(turn);
                }
            }
            Incoming::AnnouncementsEnded(id, paths) => {
                self.publisher.on_announcements_ended(turn, id, paths);
            }
            Incoming::Fetched(id, result) => self.publisher.on_fetched(turn, id, result),
            Incoming::Violation(reason) => turn.violation(&reason),
            Incoming::Close(code, reason) => turn.close(code, &reason),
        }
    }

    /// Handles a request of the peer.
    fn handle_request<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, id: RequestId, request: Request) {
        let subscriber = &mut self.subscriber;
        if !matches!(request, Request::Update(_) | Request::Cancel(_)) {
            cx.work.take(subscriber.egress.scan_units());
        }
        let turn = &mut turn!(self, t, cx);
        match request {
            Request::Watch { prefix, exclude } => subscriber.start_watch(turn, id, &prefix, exclude),
            Request::Subscribe { alias, broadcast, track, prefs } => {
                let kind = RequestKind::Live;
                subscriber.start_sub(turn, id, SubParams { broadcast, track, alias, prefs, kind });
            }
            Request::TrackInfo { broadcast, track } => {
                let (prefs, kind) = (Prefs::default(), RequestKind::Info);
                subscriber.start_sub(turn, id, SubParams { broadcast, track, alias: 0, prefs, kind });
            }
            Request::Fetch { broadcast, track, priority, group, range } => {
                let params = FetchParams { priority, group, range };
                subscriber.start_fetch(turn, id, (broadcast, track), params);
            }
            Request::Update(update) => subscriber.update_sub(turn, id, update),
            Request::Probe => subscriber.start_probe(turn, id),
            Request::Goaway => {
                // The peer closes the session itself; until then it is served, and its routes are the last
                // choice.
                if !std::mem::replace(&mut turn.state.peer.is_draining, true) {
                    turn.cx.meter.goaways_in += 1;
                    turn.ask(Ask::Draining);
                }
            }
            Request::Cancel(reply) => {
                subscriber.cancel(turn, id);
                turn.reply(id, &reply);
            }
        }
    }

    /// Handles STOP_SENDING on one of our sending sides.
    fn stopped<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, stream: Stream, code: StreamCode) {
        let mut out = Outbound { t, control: &mut self.state.control, now: cx.now };
        let stopped = self.dialect.stopped(&mut out, stream, code);
        let turn = &mut turn!(self, t, cx);
        match stopped {
            Stopped::Handled => {}
            Stopped::Request(request) => {
                self.subscriber.cancel(turn, request);
                turn.reply(request, &Reply::Refused { code });
            }
            Stopped::Media => self.subscriber.group_stopped(turn, stream, code),
        }
    }

    /// Completes the version negotiation and resumes paused streams.
    fn negotiated<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        self.subscriber.egress.set_encoder(self.dialect.encoder());
        if self.state.permit().is_some() {
            self.meet(t, cx);
            self.resume_paused(t, cx);
        } else if !self.state.config.has_url {
            cx.out.push(SessionOutput::Authorize { target: String::new(), role: None });
        }
    }

    /// Processes the peer's SETUP.
    fn take_setup<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, setup: PeerSetup) {
        let PeerSetup { target, role, is_relay, exclude } = setup;
        let turn = &mut turn!(self, t, cx);
        turn.state.peer.role = role;
        if is_relay {
            self.subscriber.advertise_all(turn);
        }
        turn.check_role();
        if turn.state.phase.is_over() {
            return;
        }
        let is_admitted = turn.state.permit().is_some();
        if !turn.state.config.has_url && !is_admitted {
            turn.cx.out.push(SessionOutput::Authorize { target: target.unwrap_or_default(), role });
        }
        if let Some(hop) = exclude {
            self.subscriber.exclude(turn, hop);
            self.meet(t, cx);
        }
    }

    /// Starts the exchange of announces, once the peer is authorised and known.
    fn meet<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let turn = &mut turn!(self, t, cx);
        if !turn.may_meet() {
            return;
        }
        let prefixes = turn.state.permit().map(|permit| permit.publish().prefixes().to_vec());
        for prefix in prefixes.into_iter().flatten() {
            self.publisher.request(turn, UpstreamRequest::Announces(prefix));
        }
        if turn.state.peer.exclude != Hop::ANONYMOUS {
            let hop = turn.state.peer.exclude;
            turn.ask(Ask::Exclude { hop });
        }
        self.subscriber.pump_watches(turn);
    }

    /// Sends our SETUP once the peer is admitted and a stream can be opened.
    fn send_setup<T: Transport>(&mut self, t: &mut T, now: Instant) {
        if self.state.permit().is_some() {
            let mut out = Outbound { t, control: &mut self.state.control, now };
            self.dialect.send_setup(&mut out, self.state.config.hop);
        }
    }

    /// Whether messages that lead to asks may be read.
    fn may_ask(&self) -> bool {
        self.state.may_ask() && self.dialect.version().is_some()
    }

    /// Continues the input left when the last work budget was spent. Events are processed only after it: the
    /// last event is the end of the transport, and earlier input must be read before.
    fn go_on<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        while !cx.work.is_spent()
            && !self.state.phase.is_over()
            && let Some(stream) = self.backlog.pop_unread()
        {
            self.readable(t, cx, stream);
        }
        if self.state.phase.is_over() {
            return;
        }
        if self.backlog.is_resuming() && self.may_ask() {
            self.resume_paused(t, cx);
        }
        if self.backlog.has_datagrams() {
            self.read_datagrams(t, cx);
        }
        if self.subscriber.watches.is_due() {
            self.subscriber.pump_watches(&mut turn!(self, t, cx));
        }
    }

    /// Continues to read paused streams, oldest first, as far as allowed.
    fn resume_paused<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let mut waiting = self.backlog.take_paused();
        while !cx.work.is_spent()
            && let Some(stream) = waiting.pop_first()
        {
            self.readable(t, cx, stream);
            if self.backlog.has_paused() && (!self.may_ask() || !self.limiter.allows(cx.now)) {
                break;
            }
        }
        self.backlog.put_paused(waiting, cx.work.is_spent());
        if !self.backlog.has_paused() {
            self.limiter.caught_up();
        }
    }

    /// Resumes the streams of a peer that exceeded its request rate; closes the session if it does so
    /// continuously.
    fn resume_throttled<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if !self.limiter.resumes(cx.now) {
            return;
        }
        cx.meter.requests_paced += 1;
        if self.limiter.is_flooded(cx.now) {
            turn!(self, t, cx).violation("request rate exceeded");
            return;
        }
        self.resume_paused(t, cx);
    }

    /// Reads datagrams while the work budget lasts.
    fn read_datagrams<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        let are_left = self.publisher.read_datagrams(&mut turn!(self, t, cx));
        self.backlog.set_datagrams(are_left);
    }

    fn commit<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        self.publisher.commit(&mut turn!(self, t, cx));
    }

    fn check_control<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.state.control.is_stuck(cx.now) {
            turn!(self, t, cx).close(SessionCode::TIMEOUT, "control stream blocked");
        }
    }
}

mod stats;
