//! Open files: a relay that meets the shell's default of 1,024 fails in the middle of an event.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Below this many open files a busy relay runs short: QUIC takes a socket a worker, but every
/// connection over TCP takes one of its own.
pub const COMFORTABLE: u64 = 4_096;

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
