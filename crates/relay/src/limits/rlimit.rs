//! Open files: a relay that meets the shell's default of 1,024 fails in the middle of an event.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many open files a busy relay runs short: QUIC takes a socket a worker, but every
/// connection over TCP takes one of its own.
pub const COMFORTABLE: u64 = 4_096;

/// Open files a worker takes: its socket, its poll twice, and its waker.
const A_WORKER: u64 = 4;
/// Open files of everything else: standard streams, signals, the lock of the port, two runtimes, listeners, memory
/// readings, the service manager, and a file being read.
const OTHERS: u64 = 40;
/// Share of the limit that stays free for files read again and for connections to auth servers: an eighth.
const SPARE: u64 = 8;
/// No more than this stays free: auth servers are asked over 64 connections at once.
const MOST_SPARE: u64 = 128;
/// Share of what is left that HTTP gets, its WebSocket handshakes included: a quarter.
const HTTP: u64 = 4;

/// How many files have to be open with `workers`. A connection over QUIC takes none of its own.
pub fn needed(workers: usize) -> u64 {
    u64::try_from(workers).unwrap_or(u64::MAX).saturating_mul(A_WORKER).saturating_add(OTHERS)
}

/// Stream sockets that may be open at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// Connections that HTTP serves, or that have not become a session yet.
    pub http: usize,
    /// Sessions over WebSocket, TCP and Unix sockets.
    pub sessions: usize,
}

/// Stream sockets that the current limit on open files leaves beside `workers`.
pub fn sockets(workers: usize) -> Sockets {
    shared_out(workers, current())
}

fn shared_out(workers: usize, limit: Option<u64>) -> Sockets {
    let limit = limit.unwrap_or(u64::MAX);
    let left = limit.saturating_sub(needed(workers)).saturating_sub((limit / SPARE).min(MOST_SPARE));
    let http = (left / HTTP).max(1);
    let count = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Sockets { http: count(http), sessions: count(left.saturating_sub(http).max(1)) }
}

/// The hard limit on open files, up to which [`raise`] goes; `None` is no limit.
pub fn hard() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Raises the soft limit on open files to the hard one. Returns what holds now; `None` is no limit.
///
/// # Errors
/// The system's refusal; the old limit still holds then, and is returned by [`current`].
pub fn raise() -> Result<Option<u64>, std::io::Error> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

/// The soft limit on open files; `None` is no limit.
pub fn current() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_sockets_never_take_the_last_descriptors() {
        for limit in [64, 96, 256, 1_024, 65_536, 1 << 20] {
            for workers in [1, 2, 4] {
                let Sockets { http, sessions } = shared_out(workers, Some(limit));
                let used = needed(workers) + (http + sessions) as u64;
                assert!(used < limit || limit < needed(workers) + 10, "{limit} {workers}: {http} {sessions}");
            }
        }
        assert_eq!(shared_out(2, Some(1_024)), Sockets { http: 212, sessions: 636 });
        assert!(shared_out(2, None).http > 8_192);
    }

    #[test]
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise().unwrap(), hard);
        assert_eq!(current(), hard);
    }
}
