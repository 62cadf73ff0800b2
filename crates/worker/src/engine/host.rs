//! Sessions of a worker: their creation, admission, work and end.

mod admit;
mod arrive;
mod close;
mod departure;
mod inspect;
mod memory;
mod permits;
mod process;

use std::{sync::Arc, time::Instant};

use relay_core::CoreEvent;
use relay_meter::Worker as Meter;
use relay_model::{Ask, WorkerId};
use relay_session::{Cx, Fanout, Session, SessionOutput, Work};
use relay_store::WakeSet;

use super::{
    carrier::Conn,
    core_queue::CoreQueue,
    drain::DrainState,
    expiry::ExpiryQueue,
    guard::guard,
    hop_stamps::HopStamps,
    peers::PeerSet,
    shared::{TurnStage, WorkerShared},
    trace::SESSIONS,
};
use crate::{gate::GateClient, mailbox::Mailbox};

pub(super) use arrive::Transmitted;
pub(super) use close::Conclusion;

/// Sessions of a worker, with the parts that their work involves.
pub(super) struct SessionHost {
    id: WorkerId,
    pub(super) shared: Arc<WorkerShared>,
    mailbox: Arc<Mailbox>,
    gate: GateClient,
    pub(super) peers: PeerSet,
    pub(super) fanout: Fanout,
    pub(super) wakes: WakeSet,
    /// Events for core.
    pub(super) core: CoreQueue,
    pub(super) expiry: ExpiryQueue,
    pub(super) drain: DrainState,
    pub(super) meter: Meter,
    hops: HopStamps,
    /// Outputs of the session that has just run.
    out: Vec<SessionOutput>,
}

impl SessionHost {
    /// Creates a host without sessions.
    pub(super) fn new(
        shared: Arc<WorkerShared>,
        mailbox: Arc<Mailbox>,
        core: CoreQueue,
        peers: PeerSet,
    ) -> Self {
        let id = peers.slots.worker();
        Self {
            id,
            gate: GateClient::new(shared.gate.clone(), shared.wall.clone(), mailbox.clone()),
            shared,
            mailbox,
            peers,
            fanout: Fanout::new(id),
            wakes: WakeSet::new(),
            core,
            expiry: ExpiryQueue::default(),
            drain: DrainState::default(),
            meter: Meter::default(),
            hops: HopStamps::new(),
            out: Vec::new(),
        }
    }

    /// Runs a session's part of a stage. False: it panicked and was dropped.
    pub(super) fn with_session(
        &mut self,
        index: u32,
        stage: TurnStage,
        now: Instant,
        run: impl FnOnce(&mut Session, &mut Conn<'_>, &mut Cx<'_>),
    ) -> bool {
        let Self { peers, shared, fanout, wakes, meter, out, .. } = self;
        let Some(peer) = peers.slots.get_mut(index) else { return false };
        let Some(session) = peer.session.as_deref_mut() else { return true };
        let Some(mut conn) = peer.carrier.conn(&mut peers.quic.endpoint) else { return true };
        let id = peer.id;
        let ran = guard(|| {
            shared.fault(stage, id);
            let mut work = Work::new();
            let (store, work) = (&shared.store, &mut work);
            let mut cx = Cx { now, store, fanout, wakes, meter, out, work };
            run(session, &mut conn, &mut cx);
            let is_spent = cx.work.is_spent();
            if is_spent {
                conn.hold_input();
            }
            is_spent
        });
        let Ok(is_spent) = ran else {
            self.out.clear();
            self.drop_panicked(index, stage);
            return false;
        };
        if is_spent {
            self.peers.ready.push_behind(index, now);
        }
        self.peers.mark_dirty(index);
        if !self.out.is_empty() {
            self.take_outputs(index, now);
        }
        true
    }

    /// Handles the outputs of a session, most of which are requests to core.
    fn take_outputs(&mut self, index: u32, now: Instant) {
        let mut out = std::mem::take(&mut self.out);
        let Some(peer) = self.peers.get_mut(index) else { return };
        let session = peer.id;
        peer.publishes |= out.iter().any(|output| matches!(output, SessionOutput::Ask(Ask::Announce { .. })));
        for output in out.drain(..) {
            match output {
                SessionOutput::Ask(ask) => {
                    tracing::trace!(target: SESSIONS, %session, ?ask, "asks");
                    self.core.push(CoreEvent::Ask { session, ask });
                }
                SessionOutput::Authorize { target, role } => self.ask_gate(index, now, Some(target), role),
            }
        }
        if self.out.is_empty() {
            self.out = out;
        }
    }
}
