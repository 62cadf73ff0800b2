//! Standard output, written by a thread of its own: a full pipe must not stop the session.

use std::{
    io::{self, Write},
    thread,
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::spawn_blocking};

use crate::{
    exit::{Exit, Failure},
    stop::Stop,
};

/// Pieces that may be queued.
const PIECES: usize = 64;

/// Destination of the data.
pub(crate) struct Output {
    pieces: mpsc::Sender<Bytes>,
    writer: thread::JoinHandle<io::Result<()>>,
}

/// Reason for which nothing more can be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    /// The reader has closed its end, or writing failed; [`Output::finish`] tells them apart.
    Closed,
    /// A signal asked the verb to end.
    Stopped(Exit),
}

impl Output {
    pub(crate) fn start() -> Result<Self, Failure> {
        let (pieces, mut waiting) = mpsc::channel::<Bytes>(PIECES);
        let writer = thread::Builder::new().name("output".to_owned()).spawn(move || {
            let mut out = io::stdout().lock();
            while let Some(piece) = waiting.blocking_recv() {
                out.write_all(&piece)?;
                if waiting.is_empty() {
                    out.flush()?;
                }
            }
            out.flush()
        })?;
        Ok(Self { pieces, writer })
    }

    /// Queues a piece, waiting for the reader.
    pub(crate) async fn write(&self, piece: Bytes, stop: &mut Stop) -> Result<(), Ended> {
        if piece.is_empty() {
            return Ok(());
        }
        tokio::select! {
            sent = self.pieces.send(piece) => sent.map_err(|_| Ended::Closed),
            exit = stop.asked() => Err(Ended::Stopped(exit)),
        }
    }

    /// Completes when a write has failed, as after the reader has closed its end.
    pub(crate) async fn closed(&self) {
        self.pieces.closed().await;
    }

    /// Waits until all is written. A reader that has closed its end is not an error.
    pub(crate) async fn finish(self) -> Result<(), Failure> {
        drop(self.pieces);
        let written = spawn_blocking(move || self.writer.join()).await;
        match written {
            Ok(Ok(Err(error))) if error.kind() != io::ErrorKind::BrokenPipe => {
                Err(Failure::new(Exit::Failed, format!("cannot write to standard output: {error}")))
            }
            _ => Ok(()),
        }
    }
}
