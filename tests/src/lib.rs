//! Harness of the end-to-end tests: a relay in this process, clients that verify every byte, and waits on conditions
//! with a time limit.

pub mod certificates;
pub mod hostile;
pub mod media;
pub mod memory;
pub mod netns;
pub mod peer;
pub mod porter;
pub mod process;
pub mod random;
pub mod relay;
pub mod rights;

use std::{
    future::Future,
    sync::{PoisonError, RwLock},
    time::Duration,
};

/// Held shared by each test on a runtime, and exclusively by those with a bound on a duration.
static TIMING: RwLock<()> = RwLock::new(());

/// Runs `test` on a runtime of its own; panics if it takes longer than `seconds`.
pub fn run(seconds: u64, test: impl Future<Output = ()>) {
    let _shared = TIMING.read().unwrap_or_else(PoisonError::into_inner);
    block_on(seconds, test);
}

/// The same while no other test of the binary runs, for tests with a bound on a duration.
pub fn run_alone(seconds: u64, test: impl Future<Output = ()>) {
    let _exclusive = TIMING.write().unwrap_or_else(PoisonError::into_inner);
    block_on(seconds, test);
}

fn block_on(seconds: u64, test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let runtime = runtime.expect("a runtime");
    let outcome = runtime.block_on(async { tokio::time::timeout(Duration::from_secs(seconds), test).await });
    runtime.shutdown_timeout(Duration::from_secs(1));
    assert!(outcome.is_ok(), "not done after {seconds} s");
}

/// Polls `condition` every few milliseconds until it is true; panics after `seconds`.
pub async fn wait_until(what: &str, seconds: u64, mut condition: impl FnMut() -> bool) {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(seconds);
    while !condition() {
        assert!(tokio::time::Instant::now() < deadline, "waited {seconds} s for {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Returns the outcome of `future`; panics if there is none after `seconds`.
pub async fn within<T>(what: &str, seconds: u64, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(Duration::from_secs(seconds), future).await {
        Ok(outcome) => outcome,
        Err(_) => panic!("waited {seconds} s for {what}"),
    }
}
