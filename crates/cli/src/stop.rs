//! Signals: the first one ends a verb in good order, the second one ends the process.

use tokio::{
    signal::unix::{SignalKind, signal},
    sync::watch,
};

use crate::exit::{Exit, Failure};

/// Receives the exit code of the first signal.
#[derive(Clone, Debug)]
pub(crate) struct Stop(watch::Receiver<Option<Exit>>);

impl Stop {
    /// Starts listening for SIGINT and SIGTERM.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let (mut interrupt, mut terminate) =
            (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
        let (asked, stop) = watch::channel(None);
        tokio::spawn(async move {
            loop {
                let exit = tokio::select! {
                    _ = interrupt.recv() => Exit::Interrupted,
                    _ = terminate.recv() => Exit::Terminated,
                };
                if asked.borrow().is_some() {
                    std::process::exit(exit as i32);
                }
                asked.send_replace(Some(exit));
            }
        });
        Ok(Self(stop))
    }

    /// Waits for the first signal.
    pub(crate) async fn asked(&mut self) -> Exit {
        match self.0.wait_for(Option::is_some).await {
            Ok(exit) => exit.unwrap_or(Exit::Interrupted),
            // The listener lives as long as the runtime.
            Err(_) => std::future::pending().await,
        }
    }
}
