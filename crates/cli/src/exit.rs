//! Results of a verb: exit codes and error messages.

use std::fmt;

/// Exit code of the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// Success.
    Done = 0,
    /// Any other error: a file that cannot be read, input that breaks its framing.
    Failed = 1,
    /// Invalid command line.
    Usage = 2,
    /// No session with the relay: name, network, certificate or version.
    Unreachable = 3,
    /// The relay does not allow it.
    Refused = 4,
    /// There is no such broadcast, track or group.
    NotFound = 5,
    /// Something was transferred, but not all of it.
    Incomplete = 6,
    /// Ended by SIGINT (Ctrl-C).
    Interrupted = 130,
    /// Ended by SIGTERM.
    Terminated = 143,
}

/// Last part of every verb's long help.
pub const EXIT_CODES: &str = "\
Exit codes:
    0  all was well; also when whoever reads standard output closed it
    1  an error that no other code says: a file that cannot be read, input that breaks its framing
    2  the command line is invalid
    3  no session with the relay: name, network, certificate or version
    4  the relay does not allow it
    5  there is no such broadcast, track or group
    6  something is missing: groups were skipped, or the track or the session broke off
  130  ended by SIGINT (Ctrl-C), 143 by SIGTERM; what was begun is finished first, a second signal ends at once";

/// Failure of a verb, with a message for the person at the terminal.
#[derive(Debug)]
pub struct Failure {
    /// Exit code of the process.
    pub exit: Exit,
    message: String,
}

impl Failure {
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into() }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Failure {}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::new(Exit::Failed, error.to_string())
    }
}
