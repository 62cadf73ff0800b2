//! Threshold of the memory shares, by address and size.

use std::net::Ipv4Addr;

use relay_model::WorkerId;

use super::*;
use crate::mailbox::{Mailbox, WorkerMessage};

const MIB: u64 = 1 << 20;

struct Bench {
    ledger: Arc<MemoryLedger>,
    mailbox: Arc<Mailbox>,
}

impl Bench {
    /// Limits in MiB. Shares bind above three quarters of them.
    fn new(clients: u64, peers: u64) -> Self {
        let ledger = MemoryLedger::new(StateLimits { clients: clients * MIB, peers: peers * MIB });
        let mailbox = Arc::new(Mailbox::new(Box::new(|| {})));
        ledger.start(SessionControl::new(std::slice::from_ref(&mailbox)));
        Self { ledger, mailbox }
    }

    fn open(&self, session: u64, host: u8) -> Charge {
        self.ledger.open(SessionId::new(WorkerId(0), session), Ipv4Addr::new(192, 0, 2, host).into())
    }

    /// Charge of a connection without a session.
    fn pending(&self, id: u64, host: u8) -> Charge {
        self.ledger.open_pending(SessionId::new(WorkerId(0), id), Ipv4Addr::new(192, 0, 2, host).into())
    }

    /// Sessions with a letter to end, in order.
    fn closed(&self) -> Vec<u64> {
        let mut messages = std::collections::VecDeque::new();
        self.mailbox.take(&mut messages);
        let ends = messages.into_iter().map(|message| match message {
            WorkerMessage::End { session, close } if close.code == SessionCode::MEMORY_SHARE => session.0,
            other => panic!("{other:?}"),
        });
        ends.collect()
    }
}

fn announces(bytes: u64) -> Footprint {
    Footprint { announces: bytes, ..Footprint::default() }
}

fn connection(bytes: u64) -> Footprint {
    Footprint { connection: bytes, ..Footprint::default() }
}

#[test]
fn nothing_is_closed_at_the_threshold_and_one_step_past_it_is() {
    let bench = Bench::new(4, 1);
    let (mut large, mut small) = (bench.open(1, 1), bench.open(2, 2));
    assert_eq!(large.set(announces(2 * MIB)), ChargeVerdict::Kept);
    assert_eq!(small.set(announces(MIB)), ChargeVerdict::Kept);
    assert_eq!(bench.closed(), [0; 0]);
    assert_eq!(small.set(announces(MIB + STEP)), ChargeVerdict::Kept);
    assert_eq!(bench.closed(), [1], "the largest, not the one that grew");
    assert_eq!(large.set(announces(3 * MIB)), ChargeVerdict::Exceeded, "it goes on growing until it ends");
    assert_eq!(bench.closed(), [0; 0], "and is closed once");
    let counts = bench.ledger.counts();
    assert_eq!((counts.clients, counts.closed), (4 * MIB + STEP, 1));
    assert!(bench.ledger.is_full(), "what is closing still holds its memory");
    drop(large);
    assert!(!bench.ledger.is_full());
}

#[test]
fn largest_session_of_the_largest_address_is_closed_first() {
    let bench = Bench::new(16, 1);
    // One address with 6 MiB in three sessions, and one with a session of 5 MiB.
    let mut charges: Vec<Charge> =
        [(1, 1), (2, 1), (3, 1), (4, 2)].map(|(id, host)| bench.open(id, host)).into();
    for (charge, mib) in charges.iter_mut().zip([1, 3, 2, 5]) {
        charge.set(announces(mib * MIB));
    }
    assert_eq!(bench.closed(), [0; 0]);
    let mut last = bench.open(5, 3);
    last.set(announces(MIB + STEP));
    assert_eq!(bench.closed(), [2]);
    last.set(announces(4 * MIB + STEP));
    assert_eq!(bench.closed(), [4], "now the other address is larger");
}

#[test]
fn among_small_sessions_the_newest_is_closed_first() {
    let bench = Bench::new(1, 1);
    let mut charges: Vec<Charge> = (0..8).map(|id| bench.open(id, 1)).collect();
    for (at, charge) in charges.iter_mut().enumerate() {
        // The oldest is the largest of them.
        charge.set(announces(SMALL - 1 - at as u64 * STEP));
    }
    assert_eq!(bench.closed(), [6, 7]);
}

#[test]
fn peers_have_a_limit_of_their_own() {
    let bench = Bench::new(4, 4);
    let (mut client, mut peer) = (bench.open(1, 1), bench.open(2, 2));
    peer.set(announces(3 * MIB));
    peer.make_peer();
    assert_eq!(client.set(announces(3 * MIB)), ChargeVerdict::Kept);
    assert_eq!(bench.closed(), [0; 0]);
    let counts = bench.ledger.counts();
    assert_eq!((counts.clients, counts.peers), (3 * MIB, 3 * MIB));
    assert_eq!(peer.set(announces(4 * MIB)), ChargeVerdict::Exceeded);
    assert_eq!(bench.closed(), [2]);
    assert_eq!(client.set(announces(3 * MIB - STEP)), ChargeVerdict::Kept);
}

#[test]
fn session_chosen_by_another_thread_is_marked_exceeded() {
    let bench = Bench::new(4, 1);
    let (mut large, mut other) = (bench.open(1, 1), bench.open(2, 2));
    large.set(announces(2 * MIB));
    other.set(announces(MIB + STEP));
    assert_eq!(bench.closed(), [1]);
    assert_eq!(large.set(announces(2 * MIB + 2 * STEP)), ChargeVerdict::Exceeded);
    // Below the threshold again, but the session is closed all the same.
    assert_eq!(large.set(announces(0)), ChargeVerdict::Exceeded);
}

#[test]
fn small_changes_take_no_lock_and_the_end_returns_everything() {
    let bench = Bench::new(64, 1);
    let mut charge = bench.open(1, 1);
    charge.set(announces(STEP - 1));
    assert_eq!(bench.ledger.counts().clients, 0);
    charge.set(announces(STEP));
    charge.set(Footprint { streams: STEP, ..announces(STEP / 2) });
    let counts = bench.ledger.counts();
    assert_eq!((counts.clients, counts.classes.iter().sum::<u64>()), (STEP, STEP), "corrected by steps");
    charge.set(Footprint { streams: 3 * STEP, ..announces(MIB) });
    drop(charge);
    let counts = bench.ledger.counts();
    assert_eq!((counts.clients, counts.classes), (0, [0; 6]));
    let groups = bench.ledger.pools[CLIENTS].accounts.lock();
    let is_empty = |accounts: &Accounts| accounts.addresses.is_empty() && accounts.order.is_empty();
    assert!(groups.0.iter().all(is_empty) && groups.bytes() == 0);
}

#[test]
fn flood_of_connections_closes_no_session() {
    let bench = Bench::new(4, 1);
    let mut session = bench.open(1, 200);
    assert_eq!(session.set(announces(2 * MIB)), ChargeVerdict::Kept);
    // One connection from each address: the largest address is that of the session.
    let mut flood: Vec<Charge> = (0..128).map(|id| bench.pending(100 + id, id as u8)).collect();
    flood.iter_mut().for_each(|charge| {
        charge.set(connection(48 * 1024));
    });
    let closed = bench.closed();
    assert!(!closed.is_empty() && closed.iter().all(|id| *id >= 100), "{closed:?}");
    assert_eq!(session.set(announces(2 * MIB)), ChargeVerdict::Kept);
}

#[test]
fn large_sessions_of_one_address_do_not_exclude_connections() {
    let bench = Bench::new(4, 1);
    let mut large: Vec<Charge> = (0..12).map(|id| bench.open(id, 1)).collect();
    large.iter_mut().for_each(|charge| {
        charge.set(announces(MIB / 4));
    });
    assert_eq!(bench.closed(), [0; 0]);
    let mut newcomer = bench.pending(100, 2);
    assert_eq!(newcomer.set(connection(48 * 1024)), ChargeVerdict::Kept);
    assert_eq!(bench.closed(), [11], "the newest of the largest address");
}

#[test]
fn connection_that_begins_its_session_counts_as_one() {
    let bench = Bench::new(4, 1);
    let mut waiting: Vec<Charge> = (0..3).map(|id| bench.pending(id, id as u8)).collect();
    waiting.iter_mut().for_each(|charge| {
        charge.set(connection(MIB));
    });
    waiting[2].begin_session();
    assert_eq!(bench.closed(), [0; 0]);
    let mut last = bench.pending(3, 9);
    assert_eq!(last.set(connection(STEP)), ChargeVerdict::Kept);
    assert_eq!(bench.closed(), [1], "the largest of those without a session");
    drop((waiting, last));
    assert_eq!(bench.ledger.counts().clients, 0);
}

#[test]
fn a_network_of_ipv6_is_one_address() {
    let of = |text: &str| network_of(text.parse().unwrap());
    assert_eq!(of("2001:db8::1"), of("2001:db8::ffff:1"));
    assert_ne!(of("2001:db8:0:1::1"), of("2001:db8::1"));
    assert_eq!(of("::ffff:10.1.2.3"), of("10.1.2.3"));
}
