//! Memory accounting of sessions: a budget beside that of payload, shared by all workers and the HTTP
//! readers.
//!
//! Every session is charged, under its peer's address, for the memory that the peer makes the relay hold.
//! Nothing happens below [`BINDING`] percent of the limit. Above it, the largest session of the largest
//! address is closed, then the next, until the total is below that share again. Connections without a session
//! (HTTP connections, peers that wait for the gate) are charged too; while they hold more than
//! [`PENDING`] percent of that share, the one to close is chosen among them only, so that a flood of
//! connections from many addresses costs no session. Relays of the cluster have a limit of their own. The lock
//! is never held together with another one.

use std::{
    collections::{BTreeSet, HashMap},
    net::{IpAddr, Ipv6Addr},
    sync::{
        Arc, OnceLock,
        atomic::{AtomicU64, Ordering},
    },
};

use foldhash::fast::RandomState;
use parking_lot::Mutex;
use relay_model::{SessionCode, SessionId};
use relay_session::Footprint;

use crate::session_control::SessionControl;

/// Share of a limit above which sessions are closed, percent.
const BINDING: u64 = 75;
/// Part of that share above which connections without a session are closed first, percent. Below it they are
/// kept, so that one address with large sessions cannot exclude everyone who wants to begin one.
const PENDING: u64 = 25;
/// Difference at which a charge is corrected, bytes: small enough that thousands of sessions together hide
/// little, large enough that the lock is rarely taken.
const STEP: u64 = 4 * 1024;
/// Sessions below this size count as equally large, bytes, and the newest of them is closed first: a crowd of
/// idle sessions does not push out those that were there before.
const SMALL: u64 = 128 * 1024;
/// Close reason of such a session.
pub const REASON: &str = "memory share exceeded";

/// Limits of a [`MemoryLedger`], bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StateLimits {
    /// Limit on all sessions except those of the cluster.
    pub clients: u64,
    /// Limit on sessions of the cluster.
    pub peers: u64,
}

/// Memory that sessions hold, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct StateCounts {
    /// All sessions except those of the cluster.
    pub clients: u64,
    /// Limit on `clients`.
    pub clients_limit: u64,
    /// Sessions of the cluster.
    pub peers: u64,
    /// Limit on `peers`.
    pub peers_limit: u64,
    /// Routes whose session is gone.
    pub stale_bytes: u64,
    /// All sessions by class, in the order of [`Footprint::NAMES`].
    pub classes: [u64; 6],
    /// Sessions closed for exceeding their share so far.
    pub closed: u64,
}

/// Charges of all sessions.
#[derive(Debug)]
pub struct MemoryLedger {
    pools: [Pool; 2],
    classes: [AtomicU64; 6],
    ghosts: AtomicU64,
    closed: AtomicU64,
    serial: AtomicU64,
    sessions: OnceLock<SessionControl>,
}

/// Sessions that share one limit.
#[derive(Debug)]
struct Pool {
    limit: u64,
    /// Sum over all sessions, closing ones included.
    bytes: AtomicU64,
    accounts: Mutex<Groups>,
}

/// Accounts of sessions, and those of connections without a session.
#[derive(Debug, Default)]
struct Groups([Accounts; 2]);

/// Sessions that may still be closed for exceeding their share.
#[derive(Debug, Default)]
struct Accounts {
    addresses: HashMap<IpAddr, Account, RandomState>,
    /// Addresses by size.
    order: BTreeSet<(u64, IpAddr)>,
    bytes: u64,
}

#[derive(Debug, Default)]
struct Account {
    bytes: u64,
    /// Sessions by rank.
    sessions: BTreeSet<LedgerEntry>,
}

/// A session; the last in order is closed first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct LedgerEntry {
    /// Bytes, or 1 for every small session.
    rank: u64,
    /// Increases with each session.
    serial: u64,
    id: SessionId,
    bytes: u64,
    /// Whether it is a connection without a session.
    is_pending: bool,
}

impl MemoryLedger {
    /// A ledger without sessions.
    pub fn new(limits: StateLimits) -> Arc<Self> {
        let pool = |limit| Pool { limit, bytes: AtomicU64::new(0), accounts: Mutex::default() };
        Arc::new(Self {
            pools: [pool(limits.clients), pool(limits.peers)],
            classes: Default::default(),
            ghosts: AtomicU64::new(0),
            closed: AtomicU64::new(0),
            serial: AtomicU64::new(0),
            sessions: OnceLock::new(),
        })
    }

    /// Sets the handle for closing sessions of other workers. Called once, before the first session.
    pub(crate) fn start(&self, sessions: SessionControl) {
        // A second call would be a second relay with the same ledger, which does not exist.
        let _ = self.sessions.set(sessions);
    }

    /// Opens an empty charge for `session` of a peer at `address`.
    pub fn open(self: &Arc<Self>, session: SessionId, address: IpAddr) -> Charge {
        self.open_as(session, address, false)
    }

    /// Opens an empty charge for a connection from `address` that has no session yet, or never has one. If it
    /// exceeds its share, the worker of `id` is told as for a session.
    pub fn open_pending(self: &Arc<Self>, id: SessionId, address: IpAddr) -> Charge {
        self.open_as(id, address, true)
    }

    fn open_as(self: &Arc<Self>, id: SessionId, address: IpAddr, is_pending: bool) -> Charge {
        let serial = self.serial.fetch_add(1, Ordering::Relaxed);
        let entry = LedgerEntry { rank: 0, serial, id, bytes: 0, is_pending };
        let address = network_of(address);
        self.pools[CLIENTS].accounts.lock().insert(address, entry);
        let footprint = Footprint::default();
        Charge {
            ledger: self.clone(),
            address,
            entry,
            footprint,
            pool: CLIENTS,
            standing: ChargeVerdict::Kept,
        }
    }

    /// Whether no new session should be accepted: the limit itself is reached.
    pub fn is_full(&self) -> bool {
        let [clients, _] = &self.pools;
        clients.bytes.load(Ordering::Relaxed) >= clients.limit
    }

    /// Publishes the memory of routes whose session is gone, as counted by core.
    pub fn set_stale_bytes(&self, bytes: u64) {
        self.ghosts.store(bytes, Ordering::Relaxed);
    }

    /// Charged memory and its limits.
    pub fn counts(&self) -> StateCounts {
        let [clients, peers] = &self.pools;
        let load = |count: &AtomicU64| count.load(Ordering::Relaxed);
        StateCounts {
            clients: load(&clients.bytes),
            clients_limit: clients.limit,
            peers: load(&peers.bytes),
            peers_limit: peers.limit,
            stale_bytes: load(&self.ghosts),
            classes: self.classes.each_ref().map(load),
            closed: load(&self.closed),
        }
    }

    /// Closes sessions of other threads. Not called with the lock held, as it posts messages.
    fn close(&self, victims: &[SessionId]) {
        self.closed.fetch_add(victims.len() as u64, Ordering::Relaxed);
        if let Some(sessions) = self.sessions.get() {
            victims.iter().for_each(|session| sessions.end(*session, SessionCode::MEMORY_SHARE, REASON));
        }
    }
}

/// Index of the pool of clients.
const CLIENTS: usize = 0;
/// Index of the pool of relays of the cluster.
const PEERS: usize = 1;

impl Pool {
    /// Adds a session moved from the other pool.
    fn enter(&self, address: IpAddr, entry: LedgerEntry) -> Victims {
        let zero = LedgerEntry { bytes: 0, ..entry };
        self.accounts.lock().insert(address, zero);
        self.update(address, &zero, Some(entry)).unwrap_or_default()
    }

    /// Size above which sessions are closed, bytes.
    fn binding(&self) -> u64 {
        self.limit.saturating_mul(BINDING) / 100
    }

    /// Replaces or removes the entry of a session, and removes the largest sessions until the total is below
    /// the binding share. `None`: the session itself had been removed before.
    fn update(&self, address: IpAddr, before: &LedgerEntry, after: Option<LedgerEntry>) -> Option<Victims> {
        let mut accounts = self.accounts.lock();
        if !accounts.remove(address, before) {
            return None;
        }
        if let Some(after) = after {
            accounts.insert(address, after);
        }
        let mut victims = Victims::new();
        while accounts.bytes() > self.binding()
            && let Some(victim) = accounts.take_largest(self.binding() * PENDING / 100)
        {
            victims.push(victim);
        }
        Some(victims)
    }
}

type Victims = Vec<SessionId>;

impl Groups {
    fn of(&mut self, entry: &LedgerEntry) -> &mut Accounts {
        let [sessions, pending] = &mut self.0;
        if entry.is_pending { pending } else { sessions }
    }

    fn insert(&mut self, address: IpAddr, entry: LedgerEntry) {
        self.of(&entry).insert(address, entry);
    }

    fn remove(&mut self, address: IpAddr, entry: &LedgerEntry) -> bool {
        self.of(entry).remove(address, entry)
    }

    fn bytes(&self) -> u64 {
        self.0.iter().map(|accounts| accounts.bytes).sum()
    }

    /// Removes the next to close: a connection without a session while these hold more than `most` bytes.
    fn take_largest(&mut self, most: u64) -> Option<SessionId> {
        let [sessions, pending] = &mut self.0;
        if pending.bytes > most {
            return pending.take_largest();
        }
        sessions.take_largest().or_else(|| pending.take_largest())
    }
}

impl Accounts {
    fn insert(&mut self, address: IpAddr, entry: LedgerEntry) {
        let account = self.addresses.entry(address).or_default();
        self.order.remove(&(account.bytes, address));
        account.bytes += entry.bytes;
        account.sessions.insert(entry);
        self.order.insert((account.bytes, address));
        self.bytes += entry.bytes;
    }

    /// Removes an entry; false if it does not exist.
    fn remove(&mut self, address: IpAddr, entry: &LedgerEntry) -> bool {
        let Some(account) = self.addresses.get_mut(&address) else { return false };
        if !account.sessions.remove(entry) {
            return false;
        }
        self.order.remove(&(account.bytes, address));
        account.bytes -= entry.bytes;
        self.bytes -= entry.bytes;
        if account.sessions.is_empty() {
            self.addresses.remove(&address);
        } else {
            self.order.insert((account.bytes, address));
        }
        true
    }

    fn take_largest(&mut self) -> Option<SessionId> {
        let (_, address) = *self.order.last()?;
        let largest = *self.addresses.get(&address)?.sessions.last()?;
        self.remove(address, &largest);
        Some(largest.id)
    }
}

/// Verdict on a session's charge.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ChargeVerdict {
    /// The session stays.
    Kept,
    /// The session is to be closed with [`SessionCode::MEMORY_SHARE`] and [`REASON`]. Its worker also gets a
    /// message; the thread that sees this may close it at once.
    Exceeded,
}

/// Charge of one session, returned in full on drop.
#[derive(Debug)]
pub struct Charge {
    ledger: Arc<MemoryLedger>,
    address: IpAddr,
    /// Entry in the ledger, while the session is kept.
    entry: LedgerEntry,
    footprint: Footprint,
    pool: usize,
    standing: ChargeVerdict,
}

impl Charge {
    /// Corrects the charge if `footprint` differs from it by [`STEP`] or more. Takes no lock otherwise.
    pub fn set(&mut self, footprint: Footprint) -> ChargeVerdict {
        let bytes = footprint.total();
        if bytes.abs_diff(self.footprint.total()) >= STEP {
            let rank = match bytes {
                0 => 0,
                1..SMALL => 1,
                _ => bytes,
            };
            self.count(footprint);
            self.move_to(self.pool, Some(LedgerEntry { rank, bytes, ..self.entry }));
        }
        self.standing
    }

    /// Counts the charge as that of a session from now on; see [`MemoryLedger::open_pending`].
    pub fn begin_session(&mut self) {
        if self.entry.is_pending {
            self.move_to(self.pool, Some(LedgerEntry { is_pending: false, ..self.entry }));
        }
    }

    /// Moves the charge to the pool of cluster relays.
    pub fn make_peer(&mut self) {
        if self.pool == CLIENTS {
            let footprint = self.footprint;
            self.count(Footprint::default());
            self.move_to(PEERS, Some(self.entry));
            self.count(footprint);
        }
    }

    /// Charged bytes.
    pub fn bytes(&self) -> u64 {
        self.footprint.total()
    }

    /// Updates the entry in the list of `pool`, and closes sessions above the share.
    fn move_to(&mut self, pool: usize, entry: Option<LedgerEntry>) {
        if self.standing == ChargeVerdict::Exceeded {
            self.pool = pool;
            return;
        }
        let ledger = self.ledger.clone();
        let [old, new] = [self.pool, pool].map(|index| &ledger.pools[index]);
        let updated = if self.pool == pool {
            old.update(self.address, &self.entry, entry)
        } else {
            old.update(self.address, &self.entry, None).map(|mut victims| {
                victims.extend(entry.map(|entry| new.enter(self.address, entry)).into_iter().flatten());
                victims
            })
        };
        self.pool = pool;
        self.entry = entry.unwrap_or(self.entry);
        match updated {
            None => self.standing = ChargeVerdict::Exceeded,
            Some(victims) => {
                if victims.contains(&self.entry.id) {
                    self.standing = ChargeVerdict::Exceeded;
                }
                ledger.close(&victims);
            }
        }
    }

    /// Replaces the session's part of the published sums by `footprint`.
    fn count(&mut self, footprint: Footprint) {
        // The wrapping difference also covers a decrease.
        let change = |sum: &AtomicU64, from: u64, to: u64| {
            sum.fetch_add(to.wrapping_sub(from), Ordering::Relaxed);
        };
        change(&self.ledger.pools[self.pool].bytes, self.footprint.total(), footprint.total());
        let classes = self.footprint.classes().into_iter().zip(footprint.classes());
        for (sum, (from, to)) in self.ledger.classes.iter().zip(classes) {
            change(sum, from, to);
        }
        self.footprint = footprint;
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.count(Footprint::default());
        self.move_to(self.pool, None);
    }
}

/// Address that a peer is charged under: the full IPv4 address, or the /64 of an IPv6 address.
fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => {
            let [a, b, c, d, ..] = v6.segments();
            Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0).into()
        }
        v4 @ IpAddr::V4(_) => v4,
    }
}

#[cfg(test)]
mod tests;
