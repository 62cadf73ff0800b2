//! Values of the `limits` section.

use std::ops::RangeInclusive;

use toml::Value;

use crate::InvalidValue;

/// Range of count limits of one session. Above it the limit would not bound memory.
const COUNTS: RangeInclusive<usize> = 1..=100_000;
/// Range of rate limits, requests per second. Below it sessions of ordinary players would be closed.
const REQUESTS: RangeInclusive<u32> = 10..=100_000;

/// Parses a count limit of one session.
pub(crate) fn count(value: &Value) -> Result<usize, InvalidValue> {
    let count = value.as_integer().and_then(|count| usize::try_from(count).ok());
    count.filter(|count| COUNTS.contains(count)).ok_or_else(|| out_of_range(value, &COUNTS))
}

/// Parses a rate limit of one session, requests per second.
pub(crate) fn requests(value: &Value) -> Result<u32, InvalidValue> {
    let requests = value.as_integer().and_then(|requests| u32::try_from(requests).ok());
    requests.filter(|requests| REQUESTS.contains(requests)).ok_or_else(|| out_of_range(value, &REQUESTS))
}

fn out_of_range<T: std::fmt::Display>(value: &Value, range: &RangeInclusive<T>) -> InvalidValue {
    invalid!("{value}: expected a number from {} to {}", range.start(), range.end())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_hold_their_range_and_one_past_is_refused() {
        let of = Value::Integer;
        assert_eq!((count(&of(1)), count(&of(100_000))), (Ok(1), Ok(100_000)));
        assert!(count(&of(0)).is_err() && count(&of(100_001)).is_err() && count(&of(-1)).is_err());
        assert_eq!((requests(&of(10)), requests(&of(100_000))), (Ok(10), Ok(100_000)));
        assert!(requests(&of(9)).is_err() && requests(&of(100_001)).is_err());
        assert!(count(&Value::String("many".to_owned())).unwrap_err().0.contains("from 1 to 100000"));
    }
}
