//! Standard input or a file, read by a thread of its own with backpressure.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    thread,
};

use bytes::Bytes;
use tokio::sync::mpsc;

use crate::exit::{Exit, Failure};

/// Size of a read, bytes.
const READ_BYTES: usize = 64 * 1024;
/// Reads that may be queued.
const READS: usize = 4;

/// Starts reading `file`, or standard input.
pub(crate) fn read(file: Option<&Path>) -> Result<mpsc::Receiver<io::Result<Bytes>>, Failure> {
    let source: Box<dyn Read + Send> = match file {
        Some(path) if path != Path::new("-") => Box::new(File::open(path).map_err(|error| {
            Failure::new(Exit::Failed, format!("cannot read {}: {error}", path.display()))
        })?),
        _ => Box::new(io::stdin()),
    };
    let (sender, receiver) = mpsc::channel(READS);
    thread::Builder::new().name("input".to_owned()).spawn(move || forward(source, &sender))?;
    Ok(receiver)
}

fn forward(mut source: Box<dyn Read + Send>, sender: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut buffer = vec![0; READ_BYTES];
        let read = match source.read(&mut buffer) {
            Ok(0) => return,
            Ok(len) => {
                buffer.truncate(len);
                Ok(buffer.into())
            }
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => Err(error),
        };
        let failed = read.is_err();
        if sender.blocking_send(read).is_err() || failed {
            return;
        }
    }
}
