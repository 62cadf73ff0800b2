//! State shared by the workers of a relay.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use relay_meter::CounterBoard;
use relay_model::{Hop, SessionId, limits::SessionLimits};
use relay_store::Store;
use relay_transport::quic::QuicConfig;

use crate::{
    gate::{Gate, WallClock},
    ledger::MemoryLedger,
};

/// Part of a connection's work in a turn, for faults and panic counters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TurnStage {
    /// Fed datagrams or bytes take effect.
    Feed,
    /// The session handles transport events.
    Input,
    /// Due timers run.
    Timeout,
    /// An order of core is executed.
    Order,
    /// Changes of a log or of the announce board are delivered.
    News,
    /// Packets are written.
    Flush,
}

/// Test hook called at each stage of each session, which may panic to inject a fault.
pub type Fault = Arc<dyn Fn(TurnStage, SessionId) + Send + Sync>;

/// State shared by the workers of a relay.
pub struct WorkerShared {
    /// QUIC keys, TLS, limits.
    pub quic: QuicConfig,
    /// Logs and the announce board.
    pub store: Arc<Store>,
    /// Memory accounting of sessions.
    pub ledger: Arc<MemoryLedger>,
    /// Authorizer of sessions.
    pub gate: Arc<dyn Gate>,
    /// Source of the time of day.
    pub wall: WallClock,
    /// Address the relay listens on.
    pub local: SocketAddr,
    /// Hop id of the relay.
    pub hop: Hop,
    /// Published counters.
    pub board: Arc<CounterBoard>,
    /// Start time of the process.
    pub started: Instant,
    /// Limits of each session that is not a relay of the same cluster.
    pub limits: SessionLimits,
    /// Fault injection, for tests.
    pub fault: Option<Fault>,
}

impl WorkerShared {
    /// Whether new sessions are refused for lack of memory.
    pub(super) fn is_out_of_memory(&self) -> bool {
        self.store.budget().at_ceiling() || self.ledger.is_full()
    }

    /// Injects the fault of tests, if there is one.
    pub(super) fn fault(&self, stage: TurnStage, session: SessionId) {
        if let Some(fault) = &self.fault {
            fault(stage, session);
        }
    }
}
