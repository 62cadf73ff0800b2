//! Open files: a relay that meets the shell's default of 1,024 fails in the middle of an event.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many open files a busy relay runs short: QUIC takes a socket a worker, but every
/// connection over TCP takes one of its own.
pub const COMFORTABLE: u64 = 4_096;

/// Open files a worker takes: its socket, what it waits on, and what wakes it.
const A_WORKER: u64 = 3;
/// Open files of everything else: standard streams, signals, the lock of the port, a file being read.
const OTHERS: u64 = 16;

/// How many files have to be open with `workers`. A connection over QUIC takes none of its own.
pub fn needed(workers: usize) -> u64 {
    u64::try_from(workers).unwrap_or(u64::MAX).saturating_mul(A_WORKER).saturating_add(OTHERS)
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
    fn the_soft_limit_becomes_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        assert_eq!(raise().unwrap(), hard);
        assert_eq!(current(), hard);
    }
}
