//! Accounting of received frames per viewer, and the sum over all viewers.

use std::ops::Range;

use serde::{Deserialize, Serialize};

/// One intact frame as it arrived at a viewer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// Number among its publisher's frames.
    pub number: u64,
    /// Delay of the frame; `None` if it was sent before this viewer connected.
    pub took: Option<FrameDelay>,
}

/// Times since a frame was sent, us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FrameDelay {
    /// Until its last byte arrived in the viewer's socket.
    pub arrived_us: u32,
    /// Until the viewer had verified it.
    pub checked_us: u32,
}

/// Times of many frames, us.
#[derive(Clone, Debug, Default)]
pub struct Times {
    /// See [`FrameDelay::arrived_us`].
    pub arrived_us: Vec<u32>,
    /// See [`FrameDelay::checked_us`].
    pub checked_us: Vec<u32>,
}

/// Everything one viewer received, in order.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    /// Intact frames of its publisher.
    pub arrivals: Vec<Arrival>,
    /// Frames that were damaged, of another publisher, or at another position than their head has.
    pub corrupt: u64,
    /// Groups that were reset or cut.
    pub broken_groups: u64,
}

/// Expected frames by outcome.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tally {
    /// Frames sent times viewers.
    pub expected: u64,
    /// Of these, frames that arrived once, intact and in order.
    pub delivered: u64,
    /// Sum of the missing, doubled, reordered and corrupt ones.
    pub lost: u64,
    /// Never arrived intact.
    pub missing: u64,
    /// Arrived again.
    pub doubled: u64,
    /// Arrived after a later one.
    pub reordered: u64,
    /// Arrived damaged, at any time.
    pub corrupt: u64,
    /// Groups reset or cut, at any time.
    pub broken_groups: u64,
}

impl Ledger {
    /// Judges the frames numbered `window`, all of which were sent. Appends the times of delivered ones to `times`.
    pub fn judge(&self, window: Range<u64>, times: &mut Times) -> Tally {
        let size = window.end.saturating_sub(window.start);
        let mut seen = vec![false; usize::try_from(size).unwrap_or(0)];
        let mut tally = Tally {
            expected: size,
            corrupt: self.corrupt,
            broken_groups: self.broken_groups,
            ..Tally::default()
        };
        let mut highest = None;
        for arrival in &self.arrivals {
            let late = highest.is_some_and(|highest| arrival.number < highest);
            highest = highest.max(Some(arrival.number));
            if !window.contains(&arrival.number) {
                continue;
            }
            let Some(seen) = seen.get_mut((arrival.number - window.start) as usize) else { continue };
            if std::mem::replace(seen, true) {
                tally.doubled += 1;
            } else if late {
                tally.reordered += 1;
            } else {
                tally.delivered += 1;
                times.arrived_us.extend(arrival.took.map(|took| took.arrived_us));
                times.checked_us.extend(arrival.took.map(|took| took.checked_us));
            }
        }
        tally.missing = seen.iter().filter(|seen| !**seen).count() as u64;
        tally.lost = tally.missing + tally.reordered + tally.doubled + tally.corrupt;
        tally
    }
}

impl std::ops::AddAssign for Tally {
    fn add_assign(&mut self, other: Self) {
        self.expected += other.expected;
        self.delivered += other.delivered;
        self.lost += other.lost;
        self.missing += other.missing;
        self.doubled += other.doubled;
        self.reordered += other.reordered;
        self.corrupt += other.corrupt;
        self.broken_groups += other.broken_groups;
    }
}

/// Percentiles of a set of times, ms.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Spread {
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// Largest.
    pub max: f64,
}

impl Spread {
    /// Computes the percentiles of times in us, which it sorts; 0 for an empty slice.
    pub fn of(us: &mut [u32]) -> Self {
        us.sort_unstable();
        let at = |share: f64| {
            let index = (us.len() as f64 * share) as usize;
            us.get(index.min(us.len().saturating_sub(1))).map_or(0.0, |us| f64::from(*us) / 1_000.0)
        };
        Self { p50: at(0.5), p99: at(0.99), max: at(1.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TOOK: FrameDelay = FrameDelay { arrived_us: 1, checked_us: 2 };

    fn ledger(numbers: &[u64]) -> Ledger {
        let arrivals = numbers.iter().map(|&number| Arrival { number, took: Some(TOOK) }).collect();
        Ledger { arrivals, ..Ledger::default() }
    }

    fn judge(numbers: &[u64]) -> Tally {
        ledger(numbers).judge(10..14, &mut Times::default())
    }

    #[test]
    fn only_the_window_counts() {
        let mut times = Times::default();
        let tally = ledger(&[8, 9, 10, 11, 12, 13, 14]).judge(10..14, &mut times);
        assert_eq!((tally.expected, tally.delivered, tally.lost, times.arrived_us.len()), (4, 4, 0, 4));
    }

    #[test]
    fn missing_doubled_and_reordered_frames_are_lost() {
        let missing = judge(&[9, 10, 12, 13]);
        assert_eq!((missing.delivered, missing.missing, missing.lost), (3, 1, 1));
        let doubled = judge(&[10, 11, 11, 12, 13]);
        assert_eq!((doubled.delivered, doubled.doubled, doubled.lost), (4, 1, 1));
        let reordered = judge(&[10, 12, 11, 13]);
        assert_eq!((reordered.delivered, reordered.reordered, reordered.lost), (3, 1, 1));
        // A frame that arrives after one past the window is reordered too.
        assert_eq!(judge(&[10, 11, 12, 14, 13]).reordered, 1);
        assert_eq!(judge(&[]).lost, 4);
    }

    #[test]
    fn damage_is_lost_whenever_it_came() {
        let ledger = Ledger { corrupt: 2, ..ledger(&[10, 11, 12, 13]) };
        assert_eq!(ledger.judge(10..14, &mut Times::default()).lost, 2);
    }

    #[test]
    fn percentiles_are_those_of_the_sorted_times() {
        let mut times: Vec<u32> = (1..=100).rev().map(|ms| ms * 1_000).collect();
        assert_eq!(Spread::of(&mut times), Spread { p50: 51.0, p99: 100.0, max: 100.0 });
        assert_eq!(Spread::of(&mut []), Spread::default());
    }
}
