//! The verb `demo`: a relay with a publisher and a subscriber in one process.

use std::{
    io::{self, IsTerminal, Write},
    net::SocketAddr,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow};
use relay_cli::{
    demo::{Actors, BROADCAST, CLOCK, DemoFigures, PATTERN},
    terminal::RESTART_LINE,
};
use relay_host::signals::Reason;
use relay_meter::Worker as Meter;
use relay_worker::RelayCounts;
use tracing::level_filters::LevelFilter;

use crate::{
    banner::reachable,
    cli::{DemoArgs, RunArgs},
    serve::Serving,
};

/// Separator of the parts of a status line.
const GAP: &str = "  ";
/// Columns of a terminal that does not report its width.
const COLUMNS: usize = 80;
/// Interval of status lines.
const PERIOD: Duration = Duration::from_secs(1);
/// Time the loop waits for a reason to end.
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Runs the demonstration until a signal or its time ends it.
///
/// # Errors
/// The relay or the clients failed to start, or the relay ended with an error.
pub fn run(args: &DemoArgs) -> Result<()> {
    let flags = args.bind.map(|bind| ("server.bind", vec![bind.to_string()]));
    let relay = RunArgs { flags: flags.into_iter().collect(), ..RunArgs::default() };
    // Warnings for operators are of no use in a demonstration.
    let mut serving = Serving::start(&relay, LevelFilter::ERROR)?;
    let address = serving.relay.local_addr();
    let near = reachable(address);
    let actors = Actors::start(format!("moqt://{near}/"), serving.fingerprint().bytes())?;
    print(&banner(address, near));
    let started = Instant::now();
    let mut status = StatusLine::new(&serving);
    let why = loop {
        match serving.wait_for(POLL_INTERVAL) {
            Some(Reason::Signal(signal)) => break signal,
            Some(Reason::Ended(end)) => {
                return Err(end.err().map_or_else(|| anyhow!("the relay ended"), Into::into));
            }
            None => {}
        }
        if let Some(line) = status.line(&serving, &actors) {
            status.show(&line);
        }
        if args.time.is_some_and(|time| started.elapsed() >= time) {
            break "time";
        }
    };
    status.done();
    actors.close();
    serving.drain(why)?;
    loop {
        match serving.wait() {
            Reason::Signal(_) => {}
            Reason::Ended(end) => return Ok(end?),
        }
    }
}

/// Introduction: address, exposure, and commands to copy.
fn banner(address: SocketAddr, near: SocketAddr) -> String {
    let who = match address.ip() {
        ip if ip.is_loopback() => {
            "reachable from this machine only (--bind IP:PORT opens it to others)".to_owned()
        }
        ip if ip.is_unspecified() => format!(
            "OPEN TO EVERYBODY who reaches UDP port {} on any address of this machine",
            address.port()
        ),
        ip => format!("OPEN TO EVERYBODY who reaches {ip}, UDP port {}", address.port()),
    };
    let me = std::env::args().next().unwrap_or_else(|| "moq-relay".to_owned());
    format!(
        "moq-relay {version} demo: a relay on {address}, a publisher and a subscriber\n\
         {who}\n\n\
         Try next, in another terminal:\n\n  \
           {me} ls https://{near}/\n  \
           {me} sub https://{near}/ {BROADCAST} {CLOCK} --lines\n  \
           clear; {me} sub https://{near}/ {BROADCAST} {PATTERN}\n  \
           {me} sub https://{near}/ me/date now --lines & date | {me} pub https://{near}/ me/date now --lines\n  \
           {me} load video --url https://{near}/ --subscribers 20 --window 5s\n\n\
         Ctrl-C ends it.\n\n",
        version = env!("CARGO_PKG_VERSION"),
    )
}

/// Writes to standard output. A failure is ignored, as the relay runs on without a reader.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Counters as of the last status line.
struct StatusLine {
    at: Instant,
    meter: Meter,
    cpu: Duration,
    in_place: bool,
}

impl StatusLine {
    fn new(serving: &Serving) -> Self {
        let in_place = io::stdout().is_terminal();
        Self { at: Instant::now(), meter: serving.relay.counts().total(), cpu: cpu(), in_place }
    }

    /// Next status line, if it is due.
    fn line(&mut self, serving: &Serving, actors: &Actors) -> Option<Vec<String>> {
        let took = self.at.elapsed();
        if took < PERIOD {
            return None;
        }
        let counts = serving.relay.counts();
        let (meter, cpu) = (counts.total(), cpu());
        let line = describe(&counts, &self.meter, took, cpu.saturating_sub(self.cpu), &actors.figures());
        (self.at, self.meter, self.cpu) = (Instant::now(), meter, cpu);
        Some(line)
    }

    fn show(&self, parts: &[String]) {
        print(&if self.in_place {
            // A line that reaches the edge wraps and cannot be overwritten.
            format!("{RESTART_LINE}{}", fitting(parts, columns().saturating_sub(1)))
        } else {
            format!("{}\n", parts.join(GAP))
        });
    }

    fn done(&self) {
        if self.in_place {
            print("\n");
        }
    }
}

fn describe(
    counts: &RelayCounts,
    before: &Meter,
    took: Duration,
    cpu: Duration,
    look: &DemoFigures,
) -> Vec<String> {
    let (now, seconds) = (counts.total(), took.as_secs_f64());
    let per_second = |now: u64, before: u64| now.saturating_sub(before) as f64 / seconds;
    let latency = match (look.latency_ms, &look.trouble) {
        (_, Some(trouble)) => format!("the demo's own clients stopped: {trouble}"),
        (Some((p50, max)), None) => format!("latency {p50:.1} ms (max {max:.1})"),
        (None, None) => "latency -".to_owned(),
    };
    let counted =
        |count: u64, what: &str| if count == 1 { format!("1 {what}") } else { format!("{count} {what}s") };
    vec![
        counted(now.sessions, "session"),
        counted(counts.store.board_paths as u64, "broadcast"),
        format!("{:.0} frames/s", per_second(now.deliveries, before.deliveries)),
        format!("{:.2} Mbit/s", per_second(now.bytes_out, before.bytes_out) * 8.0 / 1e6),
        latency,
        format!("cpu {:.1} %", cpu.as_secs_f64() / seconds * 100.0),
        format!("{} MiB", relay_cli::demo::memory_mib()),
    ]
}

/// Joins as many of `parts` as fit into `width` columns; truncates the first if even that is too long.
fn fitting(parts: &[String], width: usize) -> String {
    let mut line = String::new();
    for part in parts {
        let gap = if line.is_empty() { "" } else { GAP };
        if line.chars().count() + gap.len() + part.chars().count() > width {
            break;
        }
        line = line + gap + part;
    }
    if line.is_empty() {
        parts.iter().take(1).flat_map(|part| part.chars().take(width)).collect()
    } else {
        line
    }
}

/// Width of the terminal.
fn columns() -> usize {
    let size = rustix::termios::tcgetwinsize(io::stdout());
    size.ok().map(|size| usize::from(size.ws_col)).filter(|columns| *columns > 0).unwrap_or(COLUMNS)
}

/// CPU time of this process so far, including the clients.
fn cpu() -> Duration {
    relay_cli::demo::cpu()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_line_fits_a_terminal_of_80_columns() {
        let parts =
            ["12 sessions", "1 broadcast", "1200 frames/s", "20.16 Mbit/s", "latency 12.3 ms (max 120.8)"];
        let parts: Vec<String> =
            parts.iter().chain(&["cpu 100.0 %", "120 MiB"]).map(|&it| it.to_owned()).collect();
        for width in 1..200 {
            assert!(fitting(&parts, width).chars().count() <= width, "{width}");
        }
        let line = fitting(&parts, 79);
        assert!(line.starts_with("12 sessions  1 broadcast  ") && line.ends_with("Mbit/s"), "{line}");
        assert_eq!(fitting(&parts, 150), parts.join(GAP));
    }

    #[test]
    fn banner_names_the_exposure() {
        let said = |address: &str| {
            let address = address.parse().unwrap();
            banner(address, reachable(address))
        };
        assert!(said("127.0.0.1:4443").contains("from this machine only"));
        assert!(said("0.0.0.0:5000").contains("OPEN TO EVERYBODY who reaches UDP port 5000 on any address"));
        assert!(said("0.0.0.0:5000").contains("ls https://127.0.0.1:5000/"));
        assert!(said("192.0.2.1:5000").contains("OPEN TO EVERYBODY who reaches 192.0.2.1"));
    }
}
