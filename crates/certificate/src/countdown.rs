//! Schedule of log lines about the expiry of a certificate.

use std::time::{Duration, SystemTime};

/// Days before the expiry at which it is logged.
const DAYS: [u64; 5] = [1, 3, 7, 14, 30];
pub(super) const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Smallest mark of [`DAYS`] that a certificate with this `lifetime` and `remaining` validity has passed; 0 once it
/// expired. Marks in the first half of the lifetime do not count: a short-lived certificate was just renewed then.
pub(super) fn mark(lifetime: Duration, remaining: Duration) -> Option<u64> {
    if remaining.is_zero() {
        return Some(0);
    }
    let counts = |days: u64| {
        let span = DAY * days as u32;
        remaining <= span && span * 2 <= lifetime
    };
    DAYS.into_iter().find(|days| counts(*days))
}

/// Expiry lines logged for one certificate: each mark once, at most one line a day; the expiry itself at once, and
/// again every day.
#[derive(Default)]
pub(super) struct Countdown {
    last: Option<(u64, SystemTime)>,
}

impl Countdown {
    /// Whether a line is due at `now`; records it as logged.
    pub(super) fn is_due(&mut self, lifetime: Duration, remaining: Duration, now: SystemTime) -> bool {
        let Some(mark) = mark(lifetime, remaining) else { return false };
        let due = self.last.is_none_or(|(last, at)| {
            let a_day_ago = now.duration_since(at).is_ok_and(|since| since >= DAY);
            match mark {
                0 => last > 0 || a_day_ago,
                _ => mark < last && a_day_ago,
            }
        });
        if due {
            self.last = Some((mark, now));
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Hours before the expiry at which a line is due, polling every hour from `from`.
    fn said(lifetime: Duration, from: u64) -> Vec<i64> {
        let end = SystemTime::now() + DAY * 400;
        let mut countdown = Countdown::default();
        let hours = (-60..=from as i64).rev();
        hours
            .filter(|hours| {
                let hour = Duration::from_secs(3_600 * hours.unsigned_abs());
                let now = if *hours < 0 { end + hour } else { end - hour };
                countdown.is_due(lifetime, end.duration_since(now).unwrap_or_default(), now)
            })
            .collect()
    }

    #[test]
    fn expiry_is_logged_at_each_mark_and_daily_once_past() {
        let marks: Vec<i64> = [30, 14, 7, 3, 1, 0, -1, -2].iter().map(|days| days * 24).collect();
        assert_eq!(said(DAY * 90, 24 * 80), marks);
    }

    #[test]
    fn expiry_is_logged_at_once_then_at_most_daily() {
        assert_eq!(said(DAY * 90, 24 * 3 + 24), [96, 72, 24, 0, -24, -48]);
        assert_eq!(said(DAY * 90, 30), [30, 6, 0, -24, -48], "a day after the first, and that it is over");
    }

    #[test]
    fn new_short_lived_certificate_logs_no_expiry() {
        assert_eq!(said(DAY * 7, 7 * 24), [72, 24, 0, -24, -48]);
        assert_eq!(said(DAY * 2, 48), [24, 0, -24, -48]);
        assert_eq!(mark(DAY, DAY / 2), None);
    }

    #[test]
    fn clock_set_back_repeats_no_line() {
        let now = SystemTime::now();
        let mut countdown = Countdown::default();
        assert!(countdown.is_due(DAY * 90, DAY * 7, now));
        assert!(!countdown.is_due(DAY * 90, DAY * 10, now - DAY * 3));
        assert!(!countdown.is_due(DAY * 90, DAY * 2, now - DAY), "not a day later");
        assert!(countdown.is_due(DAY * 90, DAY * 2, now + DAY * 5));
    }
}
