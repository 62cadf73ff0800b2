//! Memory charges of HTTP and TCP connections, from their acceptance until they end or are passed to a worker.
//!
//! The charges are in the ledger of the relay, beside those of sessions. A connection that is chosen to be closed
//! there is notified through the readers.

use std::{net::IpAddr, sync::Arc};

use parking_lot::Mutex;
use relay_model::SessionId;
use relay_worker::{Charge, Footprint, ledger::ChargeVerdict};
use tokio::sync::Notify;

use crate::readers::HttpReaders;

/// Memory of an idle connection without TLS, bytes: its task, its timers and hyper's buffers. The growth of a relay's
/// resident memory per connection (`.ci/long weigh`: 28.3 KB), rounded up.
const PLAIN_BYTES: u64 = 28 * 1024;
/// The same with TLS: 31.5 KB per connection, of 4,892 in a memory cgroup.
const TLS_BYTES: u64 = 34 * 1024;
/// Further memory from the first byte of a request, or of a TLS handshake, to the end of its answer, bytes. An
/// unfinished head of 15.9 KB took 14.6 KB more without TLS and 20.6 KB more with it.
const REQUEST_BYTES: u64 = 20 * 1024;

/// Charge of one connection; a cheap handle, returned in full when the last one is dropped.
#[derive(Clone)]
pub(crate) struct ConnectionCharge(Arc<Inner>);

struct Inner {
    readers: HttpReaders,
    id: SessionId,
    state: Mutex<State>,
    exceeded: Arc<Notify>,
}

struct State {
    charge: Charge,
    is_tls: bool,
    has_request: bool,
}

impl ConnectionCharge {
    /// Charges a new connection from `address`; `None` when the ledger has no room for it.
    pub(crate) fn open(readers: &HttpReaders, address: IpAddr) -> Option<Self> {
        if readers.is_out_of_memory() {
            return None;
        }
        let exceeded = Arc::new(Notify::new());
        let (id, charge) = readers.charge_connection(address, exceeded.clone());
        let state = Mutex::new(State { charge, is_tls: false, has_request: false });
        let opened = Self(Arc::new(Inner { readers: readers.clone(), id, state, exceeded }));
        opened.change(|_| {}).then_some(opened)
    }

    /// Charges a TLS connection, with its handshake in progress.
    pub(crate) fn begin_tls(&self) {
        self.change(|state| (state.is_tls, state.has_request) = (true, true));
    }

    /// Charges a request in progress, or no longer.
    pub(crate) fn set_request(&self, has_request: bool) {
        self.change(|state| state.has_request = has_request);
    }

    /// Waits until the connection must be closed. For one caller at a time.
    pub(crate) async fn exceeded(&self) {
        self.0.exceeded.notified().await;
    }

    /// False: the connection must be closed.
    fn change(&self, change: impl FnOnce(&mut State)) -> bool {
        let mut state = self.0.state.lock();
        change(&mut state);
        let is_kept = state.update() == ChargeVerdict::Kept;
        if !is_kept {
            self.0.exceeded.notify_one();
        }
        is_kept
    }
}

impl State {
    fn update(&mut self) -> ChargeVerdict {
        let idle = if self.is_tls { TLS_BYTES } else { PLAIN_BYTES };
        let connection = idle + if self.has_request { REQUEST_BYTES } else { 0 };
        self.charge.set(Footprint { connection, ..Footprint::default() })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.readers.forget_connection(self.id);
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use relay_model::WorkerId;
    use relay_worker::{MemoryLedger, StateLimits};

    use super::*;

    const LIMIT: u64 = 1 << 20;

    fn open(ledger: &Arc<MemoryLedger>, id: u64) -> State {
        let id = SessionId::new(WorkerId(0), id);
        let charge = ledger.open_pending(id, Ipv4Addr::new(192, 0, 2, 1).into());
        State { charge, is_tls: false, has_request: false }
    }

    #[test]
    fn connection_is_charged_by_kind_and_request() {
        let ledger = MemoryLedger::new(StateLimits { clients: LIMIT, peers: LIMIT });
        let mut state = open(&ledger, 1);
        for (is_tls, has_request, bytes) in [
            (false, false, PLAIN_BYTES),
            (false, true, PLAIN_BYTES + REQUEST_BYTES),
            (true, true, TLS_BYTES + REQUEST_BYTES),
            (true, false, TLS_BYTES),
        ] {
            (state.is_tls, state.has_request) = (is_tls, has_request);
            assert_eq!(state.update(), ChargeVerdict::Kept);
            assert_eq!(ledger.counts().clients, bytes);
        }
        drop(state);
        assert_eq!(ledger.counts().clients, 0);
    }

    #[test]
    fn connection_above_the_share_is_closed() {
        let ledger = MemoryLedger::new(StateLimits { clients: LIMIT, peers: LIMIT });
        let share = LIMIT / 4 * 3;
        let mut held: Vec<State> = (0..share / PLAIN_BYTES).map(|id| open(&ledger, id)).collect();
        assert!(held.iter_mut().all(|state| state.update() == ChargeVerdict::Kept));
        assert_eq!(open(&ledger, share).update(), ChargeVerdict::Exceeded);
        assert!(held.iter_mut().all(|state| state.update() == ChargeVerdict::Kept), "the newest is closed");
    }
}
