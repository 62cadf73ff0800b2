//! Standard error: notes, and on a terminal a progress line.

use std::{
    fmt,
    io::{self, IsTerminal, Write},
    time::{Duration, Instant},
};

use crate::terminal::RESTART_LINE;

/// Time before the progress line appears, and between its updates.
const PERIOD: Duration = Duration::from_secs(1);

/// Prints a note that is not an error.
pub(crate) fn note(text: fmt::Arguments<'_>) {
    // Standard error may be closed.
    let _ = writeln!(io::stderr().lock(), "moq-relay: {text}");
}

/// Frames, groups and bytes so far; shown on a terminal only.
#[derive(Debug)]
pub(crate) struct Progress {
    started: Instant,
    shown: Instant,
    shown_bytes: u64,
    is_shown: bool,
    on_terminal: bool,
    pub(crate) frames: u64,
    pub(crate) groups: u64,
    pub(crate) bytes: u64,
}

impl Progress {
    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            started: now,
            shown: now,
            shown_bytes: 0,
            is_shown: false,
            // On the same terminal, data and the line would mix.
            on_terminal: io::stderr().is_terminal() && !io::stdout().is_terminal(),
            frames: 0,
            groups: 0,
            bytes: 0,
        }
    }

    /// Updates the line when it is due.
    pub(crate) fn tick(&mut self) {
        let since = self.shown.elapsed();
        if !self.on_terminal || since < PERIOD {
            return;
        }
        let rate = self.bytes.saturating_sub(self.shown_bytes) as f64 / since.as_secs_f64();
        let line = format!(
            "{} s  {} groups  {} frames  {}  {}/s",
            self.started.elapsed().as_secs(),
            self.groups,
            self.frames,
            bytes(self.bytes as f64),
            bytes(rate)
        );
        let _ = write!(io::stderr().lock(), "{RESTART_LINE}{line}");
        (self.shown, self.shown_bytes, self.is_shown) = (Instant::now(), self.bytes, true);
    }

    /// Erases the line, so that other text can be printed.
    pub(crate) fn clear(&mut self) {
        if std::mem::take(&mut self.is_shown) {
            let _ = write!(io::stderr().lock(), "{RESTART_LINE}");
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

fn bytes(count: f64) -> String {
    match count {
        c if c < 1e3 => format!("{c:.0} B"),
        c if c < 1e6 => format!("{:.1} kB", c / 1e3),
        c if c < 1e9 => format!("{:.1} MB", c / 1e6),
        c => format!("{:.2} GB", c / 1e9),
    }
}
