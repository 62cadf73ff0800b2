//! How many connections there are, in all and from one address.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use parking_lot::Mutex;

use crate::{client::origin_of, limits::CONNECTIONS_PER_ADDRESS, proxies::Proxies};

/// Places for connections.
#[derive(Clone, Debug)]
pub(crate) struct Slots {
    taken: Arc<Mutex<Taken>>,
    /// Many speak through them.
    proxies: Proxies,
    /// In all.
    most: usize,
    /// From one address.
    share: usize,
}

#[derive(Debug, Default)]
struct Taken {
    all: usize,
    by_address: HashMap<IpAddr, usize>,
}

/// A place; free again once dropped.
#[derive(Debug)]
pub(crate) struct Slot {
    slots: Slots,
    /// Whose it counts as; `None`: nobody's.
    address: Option<IpAddr>,
}

impl Slots {
    /// As many as `most`.
    pub(crate) fn new(proxies: Proxies, most: usize) -> Self {
        let share = CONNECTIONS_PER_ADDRESS.min((most / 2).max(1));
        Self { taken: Arc::default(), proxies, most, share }
    }

    /// A place for who comes from `address`, if there is one.
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
    /// It turns out to be somebody else's: a proxy says so. False: who has too many.
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
        assert!(slots.taken.lock().by_address.is_empty(), "nothing is left of who left");
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
    fn who_comes_through_a_proxy_is_counted_as_itself() {
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
