//! Connection slots, limited in all and per address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::{client::origin_of, limits::CONNECTIONS_PER_ADDRESS, proxies::Proxies};

/// Pool of connection slots; a handle.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    taken: Arc<Mutex<Taken>>,
    /// Trusted proxies, which carry many clients and are exempt from the limit per address.
    proxies: Proxies,
    /// Limit in all.
    most: usize,
    /// Limit per address.
    share: usize,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// Connection slot, released when dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    /// Address that the slot is counted under; `None`: exempt.
    address: Option<IpAddr>,
}

impl Slots {
    /// Creates a pool of `most` slots.
    pub(crate) fn new(proxies: Proxies, most: usize) -> Self {
        let share = CONNECTIONS_PER_ADDRESS.min((most / 2).max(1));
        Self { taken: Arc::default(), proxies, most, share }
    }

    /// Reserves a connection slot for `address`; `None` when the limit in all or that of the address is reached.
    pub(crate) fn take(&self, address: IpAddr) -> Option<Slot> {
        let address = self.counted(address);
        let mut taken = self.taken.lock();
        if taken.all >= self.most || !taken.enter(address, self.share) {
            return None;
        }
        taken.all += 1;
        drop(taken);
        Some(Slot { slots: self.clone(), address })
    }

    fn counted(&self, address: IpAddr) -> Option<IpAddr> {
        let exempt = address.to_canonical().is_loopback() || self.proxies.trusts(address);
        (!exempt).then(|| origin_of(address))
    }
}

impl Taken {
    fn enter(&mut self, address: Option<IpAddr>, share: usize) -> bool {
        let Some(address) = address else { return true };
        let count = self.by_address.entry(address).or_default();
        let has_room = *count < share;
        *count += usize::from(has_room);
        has_room
    }

    fn leave(&mut self, address: Option<IpAddr>) {
        let Some(address) = address else { return };
        if let Some(count) = self.by_address.get_mut(&address) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                self.by_address.remove(&address);
            }
        }
    }
}

impl Slot {
    /// Counts the slot under `address` from now on, the client that a proxy names. `false`: its limit is reached.
    pub(crate) fn belongs_to(&mut self, address: IpAddr) -> bool {
        let address = self.slots.counted(address);
        let mut taken = self.slots.taken.lock();
        if !taken.enter(address, self.slots.share) {
            return false;
        }
        taken.leave(self.address);
        self.address = address;
        true
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut taken = self.slots.taken.lock();
        taken.all -= 1;
        taken.leave(self.address);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{limits::CONNECTIONS, proxies::TrustedProxy};

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn an_address_has_its_share_and_one_past_is_refused() {
        let slots = Slots::new(Proxies::default(), CONNECTIONS);
        let peer = address("203.0.113.1");
        let held: Vec<Slot> = (0..CONNECTIONS_PER_ADDRESS).map(|_| slots.take(peer).unwrap()).collect();
        assert!(slots.take(peer).is_none());
        assert!(slots.take(address("203.0.113.2")).is_some());
        drop(held);
        assert!(slots.take(peer).is_some());
        assert!(slots.taken.lock().by_address.is_empty(), "released addresses are forgotten");
    }

    #[test]
    fn all_together_have_a_limit_and_one_past_is_refused() {
        let slots = Slots::new(Proxies::default(), CONNECTIONS);
        let loopback = address("127.0.0.1");
        let held: Vec<Slot> = (0..CONNECTIONS).map(|_| slots.take(loopback).unwrap()).collect();
        assert!(slots.take(loopback).is_none());
        drop(held);
        assert!(slots.take(loopback).is_some());
    }

    #[test]
    fn few_places_leave_half_for_other_addresses() {
        let slots = Slots::new(Proxies::default(), 8);
        let peer = address("203.0.113.1");
        let held: Vec<Slot> = (0..4).map(|_| slots.take(peer).unwrap()).collect();
        assert!(slots.take(peer).is_none());
        let others: Vec<Slot> = (0..4).map(|_| slots.take(address("127.0.0.1")).unwrap()).collect();
        assert!(slots.take(address("127.0.0.1")).is_none());
        drop((held, others));
    }

    #[test]
    fn client_of_a_proxy_is_counted_by_its_own_address() {
        let proxy = TrustedProxy { network: "10.0.0.0/8".parse().unwrap(), header: None };
        let slots = Slots::new(Proxies::new(vec![proxy]), CONNECTIONS);
        let (proxy, client) = (address("10.0.0.1"), address("203.0.113.1"));
        let mut held = Vec::new();
        for _ in 0..CONNECTIONS_PER_ADDRESS {
            let mut slot = slots.take(proxy).unwrap();
            assert!(slot.belongs_to(client));
            held.push(slot);
        }
        assert!(!slots.take(proxy).unwrap().belongs_to(client));
        assert!(slots.take(proxy).unwrap().belongs_to(address("203.0.113.2")));
    }
}
