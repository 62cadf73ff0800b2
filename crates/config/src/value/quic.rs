//! Values of the `quic` section.

use std::time::Duration;

use relay_model::limits;
use relay_worker::{Congestion, mtu as sizes};
use toml::Value;

use super::duration;
use crate::InvalidValue;

/// Shortest idle timeout; a shorter one closes connections after a brief loss of the path.
const SHORTEST_IDLE: Duration = Duration::from_secs(1);
/// Longest idle timeout; a longer one keeps connections of vanished peers.
const LONGEST_IDLE: Duration = Duration::from_secs(600);
/// Shortest keep-alive interval; a shorter one only adds load.
const SHORTEST_KEEP_ALIVE: Duration = Duration::from_millis(100);
/// Largest stream limit: each stream a peer may open costs memory, used or not.
const MOST_STREAMS: u64 = 65_536;

/// Parses a congestion controller, by its name or its family.
pub(crate) fn congestion(value: &Value) -> Result<Congestion, InvalidValue> {
    match value.as_str().map(str::to_ascii_lowercase).as_deref() {
        Some("cubic" | "loss") => Ok(Congestion::Cubic),
        Some("bbr" | "delay") => Ok(Congestion::Bbr),
        Some("newreno" | "new-reno" | "reno") => Ok(Congestion::NewReno),
        _ => Err(invalid!(
            "{value} is not a congestion control; write \"cubic\" (or \"loss\"), \"bbr\" (or \"delay\"), \
             or \"newreno\""
        )),
    }
}

/// Parses an idle timeout.
pub(crate) fn idle(value: &Value) -> Result<Duration, InvalidValue> {
    let idle = duration(value)?;
    if (SHORTEST_IDLE..=LONGEST_IDLE).contains(&idle) {
        Ok(idle)
    } else {
        Err(invalid!(
            "{value} is out of range, \"1s\" to \"10m\": without an idle timeout connections of vanished peers stay"
        ))
    }
}

/// Parses a keep-alive interval; zero disables it.
pub(crate) fn keep_alive(value: &Value) -> Result<Option<Duration>, InvalidValue> {
    let interval = duration(value)?;
    if interval.is_zero() {
        Ok(None)
    } else if interval >= SHORTEST_KEEP_ALIVE {
        Ok(Some(interval))
    } else {
        Err(invalid!("{value} is too short; at least \"100ms\", or \"0s\" for none"))
    }
}

/// Parses a limit of streams of one direction.
pub(crate) fn streams(value: &Value) -> Result<u64, InvalidValue> {
    let count = value.as_integer().and_then(|count| u64::try_from(count).ok());
    count
        .filter(|count| (limits::UNI_STREAMS..=MOST_STREAMS).contains(count))
        .ok_or_else(|| invalid!("{value}: expected a number from {} to {MOST_STREAMS}", limits::UNI_STREAMS))
}

/// Parses the size of a datagram, bytes.
pub(crate) fn mtu(value: &Value) -> Result<u16, InvalidValue> {
    let bytes = value.as_integer().and_then(|bytes| u16::try_from(bytes).ok());
    bytes.filter(|bytes| (sizes::SMALLEST..=sizes::LARGEST).contains(bytes)).ok_or_else(|| {
        invalid!(
            "{value}: expected a number of bytes from {} (what every path must carry) to {} (an Ethernet frame)",
            sizes::SMALLEST,
            sizes::LARGEST
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Value {
        Value::String(text.to_owned())
    }

    #[test]
    fn a_controller_goes_by_its_name_or_by_its_family() {
        for (names, expected) in [
            (["cubic", "loss", "CUBIC"], Congestion::Cubic),
            (["bbr", "delay", "BBR"], Congestion::Bbr),
            (["newreno", "new-reno", "reno"], Congestion::NewReno),
        ] {
            assert!(names.iter().all(|name| congestion(&text(name)) == Ok(expected)));
        }
        assert!(congestion(&text("vegas")).is_err() && congestion(&Value::Integer(1)).is_err());
    }

    #[test]
    fn numbers_hold_their_limits_and_one_past_is_refused() {
        let of = Value::Integer;
        assert_eq!((streams(&of(16)), streams(&of(65_536))), (Ok(16), Ok(65_536)));
        assert!(streams(&of(15)).is_err() && streams(&of(65_537)).is_err() && streams(&of(-1)).is_err());
        assert_eq!((mtu(&of(1_200)), mtu(&of(1_472))), (Ok(1_200), Ok(1_472)));
        assert!(mtu(&of(1_199)).is_err() && mtu(&of(1_473)).is_err() && mtu(&text("1200")).is_err());
    }

    #[test]
    fn timeouts_hold_their_limits_and_one_past_is_refused() {
        assert_eq!(idle(&text("1s")), Ok(SHORTEST_IDLE));
        assert_eq!(idle(&text("10m")), Ok(LONGEST_IDLE));
        assert!(
            idle(&text("999ms")).is_err() && idle(&text("600001ms")).is_err() && idle(&text("0")).is_err()
        );
        assert_eq!(keep_alive(&text("100ms")), Ok(Some(SHORTEST_KEEP_ALIVE)));
        assert_eq!(keep_alive(&text("0s")), Ok(None));
        assert!(keep_alive(&text("99ms")).is_err());
    }
}
