//! Connection ids (RFC 9000 §5.1) that select their worker: `steering byte, 4 random bytes, 3 check bytes`.
//!
//! The kernel steers packets by the first byte modulo the number of workers. The check is a truncated HMAC, so
//! that a stray packet is dropped unless this process, or its predecessor, generated its connection id.

use std::time::Duration;

use aws_lc_rs::hmac;
use quinn_proto::{ConnectionId, ConnectionIdGenerator, InvalidCid};

/// Length of a connection id in bytes.
const LEN: usize = 8;
/// Offset of the check.
const CHECK: usize = 5;

/// Generator and validator of the connection ids of one worker.
pub(super) struct CidGenerator {
    /// Check key, stable across restarts.
    check: hmac::Key,
    /// Random key of this endpoint; its HMAC of `counter` is the random part.
    draw: hmac::Key,
    counter: u64,
    worker: u16,
    workers: u16,
}

impl CidGenerator {
    /// Creates a generator for `worker` of `workers` (at most 256). `seed` must be unique outside tests.
    pub(super) fn new(check: hmac::Key, seed: &[u8; 32], worker: u16, workers: u16) -> Self {
        Self { check, draw: hmac::Key::new(hmac::HMAC_SHA256, seed), counter: 0, worker, workers }
    }

    fn check_of(&self, head: &[u8]) -> [u8; LEN - CHECK] {
        let tag = hmac::sign(&self.check, head);
        let mut out = [0; LEN - CHECK];
        for (out, tag) in out.iter_mut().zip(tag.as_ref()) {
            *out = *tag;
        }
        out
    }
}

impl ConnectionIdGenerator for CidGenerator {
    fn generate_cid(&mut self) -> ConnectionId {
        self.counter = self.counter.wrapping_add(1);
        let random = hmac::sign(&self.draw, &self.counter.to_be_bytes());
        let mut cid = [0; LEN];
        for (out, random) in cid.iter_mut().zip(random.as_ref()) {
            *out = *random;
        }
        let (head, check) = cid.split_at_mut(CHECK);
        if let Some(first) = head.first_mut() {
            *first = steer(*first, self.worker, self.workers);
        }
        check.copy_from_slice(&self.check_of(head));
        ConnectionId::new(&cid)
    }

    fn validate(&self, cid: &ConnectionId) -> Result<(), InvalidCid> {
        let Some((head, check)) = cid.split_at_checked(CHECK) else { return Err(InvalidCid) };
        let ours = head.first().is_some_and(|byte| u16::from(*byte) % self.workers == self.worker);
        if ours && check == self.check_of(head) { Ok(()) } else { Err(InvalidCid) }
    }

    fn cid_len(&self) -> usize {
        LEN
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

/// Returns a byte near `random` that equals `worker` modulo `workers`.
fn steer(random: u8, worker: u16, workers: u16) -> u8 {
    let random = u16::from(random);
    let byte = random - random % workers + worker;
    u8::try_from(byte).unwrap_or_else(|_| (byte - workers) as u8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &[7; 32])
    }

    #[test]
    fn ids_name_their_worker_whatever_the_count() {
        for workers in [1, 2, 3, 7, 200, 256] {
            for worker in [0, workers / 2, workers - 1] {
                let mut generator = CidGenerator::new(key(), &[1; 32], worker, workers);
                for _ in 0..100 {
                    let cid = generator.generate_cid();
                    assert_eq!(u16::from(cid[0]) % workers, worker);
                    assert!(generator.validate(&cid).is_ok());
                }
            }
        }
    }

    #[test]
    fn ids_of_a_former_process_are_ours_and_those_of_others_are_not() {
        let cid = CidGenerator::new(key(), &[1; 32], 1, 4).generate_cid();
        assert!(CidGenerator::new(key(), &[2; 32], 1, 4).validate(&cid).is_ok());
        assert!(CidGenerator::new(key(), &[2; 32], 2, 4).validate(&cid).is_err(), "another worker's");
        let foreign = hmac::Key::new(hmac::HMAC_SHA256, &[8; 32]);
        assert!(CidGenerator::new(foreign, &[1; 32], 1, 4).validate(&cid).is_err(), "another key");
        let mut bent: Vec<u8> = cid.to_vec();
        bent[2] ^= 1;
        assert!(CidGenerator::new(key(), &[1; 32], 1, 4).validate(&ConnectionId::new(&bent)).is_err());
        assert!(CidGenerator::new(key(), &[1; 32], 1, 4).validate(&ConnectionId::new(&[])).is_err());
    }
}
