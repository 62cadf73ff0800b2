//! Verbs of the command line that need no relay of this process: clients of any moq-lite relay (publish, subscribe, list,
//! fetch, load), and the work on keys and tokens.
//!
//! - Data goes to standard output, everything else to standard error.
//! - A verb ends with an [`Exit`] code, or with a [`Failure`], which has a message for the person at the terminal.
//! - Buffers are bounded: input is read no faster than it is sent, output is received no faster than it is written.

// These macros panic when the reader has closed its end.
#![deny(clippy::print_stderr, clippy::print_stdout)]

mod args;
mod assemble;
mod connect;
pub mod demo;
mod exit;
mod fetch;
mod framing;
mod input;
mod load;
mod ls;
mod output;
mod progress;
mod publish;
mod stop;
mod subscribe;
pub mod terminal;
pub mod token;
mod track;

use std::{future::Future, time::Duration};

pub use args::{CertFingerprint, ConnectArgs, HowArgs, Span, TrackArgs, duration};
pub use exit::{EXIT_CODES, Exit, Failure};
pub use fetch::FetchArgs;
pub use framing::FramingArgs;
pub use load::LoadArgs;
pub use ls::LsArgs;
pub use publish::PubArgs;
pub use subscribe::SubArgs;

/// Time for the last packets to be sent.
const FLUSH_TIME: Duration = Duration::from_millis(20);

/// Publishes standard input or a file, to its end.
///
/// # Errors
/// The input could not be published, or did not reach all subscribers.
pub fn publish(args: &PubArgs) -> Result<Exit, Failure> {
    run(publish::run(args))
}

/// Writes a track to standard output, to its end.
///
/// # Errors
/// The track could not be read, or not completely.
pub fn subscribe(args: &SubArgs) -> Result<Exit, Failure> {
    run(subscribe::run(args))
}

/// Lists broadcasts.
///
/// # Errors
/// The list could not be requested.
pub fn ls(args: &LsArgs) -> Result<Exit, Failure> {
    run(ls::run(args))
}

/// Writes one group to standard output.
///
/// # Errors
/// The group could not be fetched, or not completely.
pub fn fetch(args: &FetchArgs) -> Result<Exit, Failure> {
    run(fetch::run(args))
}

/// Puts load on a relay and prints the results.
///
/// # Errors
/// Nothing was measured, or not every frame arrived.
pub fn load(args: &LoadArgs) -> Result<Exit, Failure> {
    run(load::run(args))
}

/// Runs a verb on one thread, which is enough for a client; files and pipes have threads of their own.
fn run(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let ended = work.await;
        // The session is closed when its last handle is dropped, and a task sends the close. Without it the relay would
        // hold the session until it times out.
        tokio::time::sleep(FLUSH_TIME).await;
        ended
    });
    // A thread may still wait for input that never arrives.
    runtime.shutdown_background();
    ended
}
