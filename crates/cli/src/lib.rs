//! Clients of any moq-lite relay for the command line: publish, subscribe, list, fetch, load.
//!
//! - Data goes to standard output, everything else to standard error.
//! - How a verb ended is its [`Exit`]; why, when it went wrong, is a [`Failure`] in words for the person
//!   who ran it.
//! - Nothing is held without a bound: input is read no faster than it is taken, output is taken no
//!   faster than it is written.

// They panic when nobody takes what they print.
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
mod track;

use std::{future::Future, time::Duration};

pub use args::{ConnectArgs, Fingerprint, HowArgs, Span, TrackArgs, duration};
pub use exit::{EXIT_CODES, Exit, Failure};
pub use fetch::FetchArgs;
pub use framing::FramingArgs;
pub use load::LoadArgs;
pub use ls::LsArgs;
pub use publish::PubArgs;
pub use subscribe::SubArgs;

/// Time for the last packets to leave.
const GOODBYE: Duration = Duration::from_millis(20);

/// Publishes standard input or a file, to its end.
///
/// # Errors
/// What kept it from being published, or from reaching whoever was subscribed.
pub fn publish(args: &PubArgs) -> Result<Exit, Failure> {
    run(publish::run(args))
}

/// Writes a track to standard output, to its end.
///
/// # Errors
/// What kept it from being read, or from being read whole.
pub fn subscribe(args: &SubArgs) -> Result<Exit, Failure> {
    run(subscribe::run(args))
}

/// Lists broadcasts.
///
/// # Errors
/// The relay could not be asked.
pub fn ls(args: &LsArgs) -> Result<Exit, Failure> {
    run(ls::run(args))
}

/// Writes one group to standard output.
///
/// # Errors
/// It could not be had, or not whole.
pub fn fetch(args: &FetchArgs) -> Result<Exit, Failure> {
    run(fetch::run(args))
}

/// Puts load on a relay and prints what came of it.
///
/// # Errors
/// Nothing was measured, or not every frame arrived.
pub fn load(args: &LoadArgs) -> Result<Exit, Failure> {
    run(load::run(args))
}

/// One thread is enough for a client; files and pipes have threads of their own.
fn run(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let ended = work.await;
        // The session was closed when its last handle went; a task sends the goodbye. Without it the relay
        // would hold the session until it times out.
        tokio::time::sleep(GOODBYE).await;
        ended
    });
    // A thread may still wait for input that never comes.
    runtime.shutdown_background();
    ended
}
