//! The log on standard error: filter, format and output.
//!
//! Logging is best effort. A relay logs through a queue, so that no thread waits for standard error; a line that
//! cannot be written is counted and is no error.

mod queue;

use std::{
    backtrace::{Backtrace, BacktraceStatus},
    env, fmt,
    io::{self, IsTerminal, Write},
    panic::{self, PanicHookInfo},
    str::FromStr,
    sync::OnceLock,
    time::Duration,
};

use tracing_subscriber::{
    filter::{EnvFilter, LevelFilter},
    fmt::MakeWriter,
};

use queue::Queue;

use relay_config::Format;

/// Target of the relay in filters, which stands for all crates of this project.
const NAME: &str = "moq_relay";
/// Common prefix of the other crates' targets. Filters match by prefix.
const PARTS: &str = "relay_";
/// Modules of the binary that became crates: old target and new one. Filters written for the old target stay valid.
const MOVED: [(&str, &str); 6] = [
    ("moq_relay::access", "relay_access"),
    ("moq_relay::certificate", "relay_certificate"),
    ("moq_relay::config", "relay_config"),
    ("moq_relay::limits", "relay_host::limits"),
    ("moq_relay::notify", "relay_host::notify"),
    ("moq_relay::signals", "relay_host::signals"),
];
/// Environment variable with the filter; takes precedence over the configuration.
const VARIABLE: &str = "RUST_LOG";

/// Longest time that a process waits for its log to be written before it ends.
const FLUSH: Duration = Duration::from_secs(1);

/// Queue of the relay in this process.
static QUEUE: OnceLock<Queue> = OnceLock::new();

/// Path of a line to standard error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogOutput {
    /// Through a separate thread, for programs that must not block.
    Queued,
    /// By the logging thread, in order with its other output.
    Direct,
}

/// Failure to start the log.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// A directive of the filter is invalid.
    #[error(
        "{place}: {value:?} is not a valid log filter ({why}); write a level (error, warn, info, debug, trace), or `moq_relay=debug,quinn_proto=warn`"
    )]
    Filter {
        /// Variable or configuration key.
        place: &'static str,
        /// Given filter.
        value: String,
        /// Error of the parser.
        why: String,
    },
    /// The log was started already.
    #[error("the log has been started twice")]
    Twice,
    /// The thread cannot be started.
    #[error("cannot start the thread of the log: {0}")]
    Thread(#[source] io::Error),
}

/// Writes `text` to standard error as a message of the program. Waits until the line is written, so it is for
/// programs that are about to end. Errors are ignored.
pub fn note(text: fmt::Arguments<'_>) {
    let line = format!("moq-relay: {text}\n");
    match QUEUE.get() {
        Some(queue) => {
            queue.push(line.as_bytes());
            queue.flush(FLUSH);
        }
        // One write: lines of several processes do not mix.
        None => drop(io::stderr().lock().write_all(line.as_bytes())),
    }
}

/// Waits until all log lines are written, for a second at most.
pub fn flush() {
    if let Some(queue) = QUEUE.get() {
        queue.flush(FLUSH);
    }
}

/// Number of log lines dropped because standard error was blocked or failed.
pub fn dropped() -> u64 {
    QUEUE.get().map_or(0, Queue::dropped)
}

/// Starts the log with the filter of `RUST_LOG`, or else `level` of the configuration, or else `info`.
///
/// # Errors
/// The filter is invalid, or the log runs already.
pub fn init(level: Option<LevelFilter>, format: Format, output: LogOutput) -> Result<(), LogError> {
    let variable = env::var(VARIABLE).ok();
    let level = level.map(|level| level.to_string());
    let filter = filter(variable.as_deref(), level.as_deref())?;
    let queue = match output {
        LogOutput::Direct => None,
        LogOutput::Queued => {
            let queue = Queue::start(io::stderr()).map_err(LogError::Thread)?;
            Some(QUEUE.get_or_init(|| queue))
        }
    };
    // Internal errors would be printed by a macro that panics.
    let builder = tracing_subscriber::fmt().with_env_filter(filter).log_internal_errors(false);
    let builder = builder.with_writer(LogWriter(queue));
    let started = match format {
        Format::Text => builder.with_ansi(has_colour()).try_init(),
        Format::Json => {
            builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
        }
    };
    started.map_err(|_| LogError::Twice)?;
    if output == LogOutput::Queued {
        panic::set_hook(Box::new(log_panic));
    }
    Ok(())
}

/// Logs a panic. Replaces the hook of the standard library, which blocks on standard error.
fn log_panic(panic: &PanicHookInfo<'_>) {
    let trace = Backtrace::capture();
    let said = panic.to_string().replace('\n', " ");
    if trace.status() == BacktraceStatus::Captured {
        tracing::error!(%trace, "{said}");
    } else {
        tracing::error!("{said}");
    }
}

/// Writer to the queue, or directly to standard error without one.
#[derive(Clone, Copy)]
struct LogWriter(Option<&'static Queue>);

impl Write for LogWriter {
    /// Accepts all of `line`, which is a complete line, and never fails.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match self.0 {
            Some(queue) => queue.push(line),
            None => drop(io::stderr().lock().write_all(line)),
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for LogWriter {
    type Writer = Self;

    fn make_writer(&'a self) -> Self {
        *self
    }
}

/// Whether standard error is a terminal and colour is not disabled (`NO_COLOR`).
fn has_colour() -> bool {
    io::stderr().is_terminal() && env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
}

fn filter(variable: Option<&str>, level: Option<&str>) -> Result<EnvFilter, LogError> {
    let written = |text: Option<&str>| text.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned);
    let (place, text) = match (written(variable), written(level)) {
        (Some(text), _) => (VARIABLE, text),
        (None, Some(text)) => ("`log.level`", text),
        (None, None) => ("", "info".to_owned()),
    };
    let refuse = |why: String| LogError::Filter { place, value: text.clone(), why };
    let directives = split(&text);
    // The parser would take an unknown level for the name of a target and disable all others.
    if let [word] = directives.as_slice()
        && word.chars().all(char::is_alphanumeric)
        && LevelFilter::from_str(word).is_err()
    {
        return Err(refuse(format!("there is no level {word:?}")));
    }
    let directives: Vec<String> = directives.into_iter().flat_map(expand).collect();
    let builder = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into());
    builder.parse(directives.join(",")).map_err(|error| refuse(error.to_string()))
}

/// Splits a filter into directives at commas, except those within the fields of a span.
fn split(text: &str) -> Vec<&str> {
    let mut depth = 0_usize;
    let separates = |c: char| {
        match c {
            '[' | '{' => depth += 1,
            ']' | '}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        c == ',' && depth == 0
    };
    text.split(separates).map(str::trim).filter(|directive| !directive.is_empty()).collect()
}

/// Expands `moq_relay=LEVEL` to all crates of this project, and the target of a module that became a crate to that
/// crate; leaves any other directive as it is.
fn expand(directive: &str) -> Vec<String> {
    let mut out = vec![directive.to_owned()];
    if let Some(rest) = directive.strip_prefix(NAME)
        && (rest.is_empty() || rest.starts_with(['=', '[']))
    {
        out.push(format!("{PARTS}{rest}"));
    }
    let moved = |(old, new): (&str, &str)| Some(format!("{new}{}", directive.strip_prefix(old)?));
    out.extend(MOVED.into_iter().filter_map(moved));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(variable: Option<&str>, level: Option<&str>) -> String {
        let filter = filter(variable, level).unwrap().to_string();
        let mut directives: Vec<&str> = filter.split(',').collect();
        directives.sort_unstable();
        directives.join(",")
    }

    #[test]
    fn filter_precedence_is_variable_file_info() {
        assert_eq!(shown(None, None), "info");
        assert_eq!(shown(None, Some("debug")), "debug");
        assert_eq!(shown(Some("warn"), Some("debug")), "warn");
        assert_eq!(shown(Some(" "), Some("debug")), "debug", "an empty variable is ignored");
    }

    #[test]
    fn relay_target_stands_for_all_crates() {
        assert_eq!(shown(Some("moq_relay=trace"), None), "moq_relay=trace,relay_=trace");
        assert_eq!(shown(Some("info, moq_relay=debug"), None), "info,moq_relay=debug,relay_=debug");
        assert_eq!(shown(Some("moq_relay::session=debug"), None), "moq_relay::session=debug");
        assert_eq!(
            split("moq_relay[session{id=1,x=2}]=trace,warn"),
            ["moq_relay[session{id=1,x=2}]=trace", "warn"]
        );
        assert_eq!(expand("moq_relay[a]=trace"), ["moq_relay[a]=trace", "relay_[a]=trace"]);
        assert_eq!(expand("moq_relay"), ["moq_relay", "relay_"]);
        assert_eq!(expand("moq_relays=info"), ["moq_relays=info"]);
    }

    #[test]
    fn target_of_a_moved_module_stands_for_its_crate() {
        assert_eq!(
            expand("moq_relay::access::remote=debug"),
            ["moq_relay::access::remote=debug", "relay_access::remote=debug"]
        );
        assert_eq!(expand("moq_relay::config"), ["moq_relay::config", "relay_config"]);
        assert_eq!(expand("moq_relay::serve=debug"), ["moq_relay::serve=debug"]);
    }

    #[test]
    fn invalid_filter_is_refused_with_its_source() {
        let refusal = |variable, level| filter(variable, level).unwrap_err().to_string();
        let said = refusal(Some("loud"), None);
        assert!(
            said.starts_with("RUST_LOG: \"loud\" is not a valid log filter (there is no level \"loud\")"),
            "{said}"
        );
        let said = refusal(None, Some("moq_relay=loud"));
        assert!(said.starts_with("`log.level`: \"moq_relay=loud\" is not a valid log filter ("), "{said}");
    }
}
