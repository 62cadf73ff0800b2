//! Limit of open files. The usual soft limit of 1,024 is too low for a busy relay.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Open files per worker: its socket, two for its poll, and its waker.
const A_WORKER: u64 = 4;
/// Open files of all other parts: standard streams, signals, the lock of the port, two runtimes, listeners, memory
/// readings, the service manager, and a file being read.
const OTHERS: u64 = 40;
/// Divisor of the limit that gives the files kept free for reloads and connections to auth servers.
const SPARE: u64 = 8;
/// Most files kept free; auth servers are asked over 64 connections at once.
const MOST_SPARE: u64 = 128;
/// Divisor of the remaining files that gives the share of HTTP, including WebSocket handshakes.
const HTTP: u64 = 4;

/// Number of open files that `workers` need. A QUIC connection takes none of its own.
pub fn needed(workers: usize) -> u64 {
    u64::try_from(workers).unwrap_or(u64::MAX).saturating_mul(A_WORKER).saturating_add(OTHERS)
}

/// Limits of open stream sockets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sockets {
    /// Connections that serve HTTP or have not become a session yet.
    pub http: usize,
    /// Sessions over WebSocket, TCP and Unix sockets.
    pub sessions: usize,
}

/// Computes the limits of stream sockets from the current limit of open files and the need of `workers`.
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

/// Hard limit of open files, to which [`raise`] raises the soft one; `None` is no limit.
pub fn hard() -> Option<u64> {
    getrlimit(Resource::Nofile).maximum
}

/// Raises the soft limit of open files to the hard one. Returns the new limit; `None` is no limit.
///
/// # Errors
/// The system refuses; [`current`] then returns the unchanged limit.
pub fn raise() -> Result<Option<u64>, std::io::Error> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })?;
    }
    Ok(maximum)
}

/// Soft limit of open files; `None` is no limit.
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
