//! The queue between the threads that log and the thread that writes.
//!
//! Standard error may be a full disk, a pipe without a reader or a closed descriptor. None of these may block or end
//! a relay: a line that does not fit into the queue, or cannot be written, is dropped and counted.

use std::{
    io::{self, Write},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

/// Capacity of the queue, bytes: some thousand lines, a second of a debug log.
const WAITING_BYTES: usize = 1024 * 1024;
/// Pause before a retry when standard error is non-blocking and full.
const RETRY: Duration = Duration::from_millis(10);

/// Queue that accepts lines from any thread without blocking; one thread writes them.
#[derive(Clone, Debug)]
pub(super) struct Queue(Arc<QueueShared>);

#[derive(Debug, Default)]
struct QueueShared {
    waiting: Mutex<Waiting>,
    /// Signalled when text is queued.
    filled: Condvar,
    /// Signalled when all text is written.
    emptied: Condvar,
    dropped: AtomicU64,
}

#[derive(Debug, Default)]
struct Waiting {
    text: Vec<u8>,
    /// Whether the thread is writing text taken from the queue.
    is_writing: bool,
}

impl Queue {
    /// Starts the thread that writes to `out`, for as long as the process runs.
    ///
    /// # Errors
    /// The thread cannot be started.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let queue = Self(Arc::default());
        let shared = queue.0.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_to(out))?;
        Ok(queue)
    }

    /// Queues `line`, which ends with a newline, or drops it.
    pub(super) fn push(&self, line: &[u8]) {
        let mut waiting = self.0.lock();
        if waiting.text.len().saturating_add(line.len()) > WAITING_BYTES {
            drop(waiting);
            self.0.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        waiting.text.extend_from_slice(line);
        drop(waiting);
        self.0.filled.notify_one();
    }

    /// Number of lines dropped so far.
    pub(super) fn dropped(&self) -> u64 {
        self.0.dropped.load(Ordering::Relaxed)
    }

    /// Waits until everything queued has been written or dropped; no longer than `most`.
    pub(super) fn flush(&self, most: Duration) {
        let until = Instant::now() + most;
        let mut waiting = self.0.lock();
        while waiting.is_writing || !waiting.text.is_empty() {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return;
            }
            waiting = self.0.emptied.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }
}

impl QueueShared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: impl Write) {
        let mut text = Vec::new();
        let mut is_cut = false;
        loop {
            let mut waiting = self.lock();
            waiting.is_writing = false;
            while waiting.text.is_empty() {
                self.emptied.notify_all();
                waiting = self.filled.wait(waiting).unwrap_or_else(PoisonError::into_inner);
            }
            text.clear();
            std::mem::swap(&mut text, &mut waiting.text);
            waiting.is_writing = true;
            drop(waiting);
            // A line that failed half-way must not run into the next one.
            if std::mem::take(&mut is_cut) && write(&mut out, b"\n") < 1 {
                is_cut = true;
            }
            let done = write(&mut out, &text);
            let (written, rest) = text.split_at_checked(done).unwrap_or((&text, &[]));
            is_cut |= !rest.is_empty() && written.last().is_some_and(|last| *last != b'\n');
            let lost = rest.iter().filter(|byte| **byte == b'\n').count();
            self.dropped.fetch_add(lost as u64, Ordering::Relaxed);
        }
    }
}

/// Writes `text`. Returns the number of bytes written before the first error.
fn write(out: &mut impl Write, text: &[u8]) -> usize {
    let mut done = 0;
    while let Some(rest) = text.get(done..).filter(|rest| !rest.is_empty()) {
        match out.write(rest) {
            Ok(0) => break,
            Ok(count) => done += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => thread::sleep(RETRY),
            Err(_) => break,
        }
    }
    done
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    /// Writer that calls the function for each write.
    struct Out<F>(F);

    impl<F: FnMut(&[u8]) -> io::Result<usize>> Write for Out<F> {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            (self.0)(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn lines_are_written_in_order() {
        let (sender, received) = mpsc::sync_channel(16);
        let queue = Queue::start(Out(move |bytes: &[u8]| {
            // In pieces, as a pipe may accept them.
            let some = bytes.len().min(3);
            sender.send(bytes[..some].to_vec()).map(|()| some).map_err(io::Error::other)
        }))
        .unwrap();
        queue.push(b"one\n");
        queue.push(b"two\n");
        queue.flush(LONG);
        let all: Vec<u8> = received.try_iter().flatten().collect();
        assert_eq!((all.as_slice(), queue.dropped()), (&b"one\ntwo\n"[..], 0));
    }

    #[test]
    fn full_queue_drops_and_counts_without_waiting() {
        let (release, held) = mpsc::sync_channel::<()>(0);
        let queue = Queue::start(Out(move |bytes: &[u8]| {
            let _ = held.recv();
            Ok(bytes.len())
        }))
        .unwrap();
        let line = [b"x".repeat(1_023), b"\n".to_vec()].concat();
        // Text that the thread is writing does not count against the capacity.
        let room = WAITING_BYTES / line.len();
        let began = Instant::now();
        (0..3 * room).for_each(|_| queue.push(&line));
        assert!(began.elapsed() < Duration::from_secs(5), "a full queue is waited for");
        let dropped = queue.dropped();
        assert!((room as u64..=2 * room as u64).contains(&dropped), "{dropped}");
        queue.flush(Duration::ZERO);
        drop(release);
        queue.flush(LONG);
        assert_eq!(queue.dropped(), dropped, "queued lines are written once possible");
    }

    #[test]
    fn failed_write_counts_lines_and_the_next_starts_anew() {
        let (sender, received) = mpsc::sync_channel(16);
        let mut room = 6;
        let queue = Queue::start(Out(move |bytes: &[u8]| {
            if room == 0 {
                room = 100;
                return Err(io::ErrorKind::StorageFull.into());
            }
            let some = bytes.len().min(room);
            room -= some;
            sender.send(bytes[..some].to_vec()).map(|()| some).map_err(io::Error::other)
        }))
        .unwrap();
        queue.push(b"one\ntwo\nthree\n");
        queue.flush(LONG);
        assert_eq!(queue.dropped(), 2);
        queue.push(b"four\n");
        queue.flush(LONG);
        let all: Vec<u8> = received.try_iter().flatten().collect();
        assert_eq!(String::from_utf8(all).unwrap(), "one\ntw\nfour\n");
        assert_eq!(queue.dropped(), 2);
    }
}
