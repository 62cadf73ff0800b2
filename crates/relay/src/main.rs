//! The `moq-relay` binary.

use std::{
    io::{self, IsTerminal, Write},
    path::Path,
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use moq_relay::cli::{Cli, Verb};
use relay_cli::{Exit, Failure};
use tracing_subscriber::filter::{EnvFilter, FromEnvError, LevelFilter};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    // What a verb shows is not to be broken up by the log; what is good to know for a server is not so for a
    // first look.
    let level = match cli.verb {
        None => LevelFilter::INFO,
        Some(Verb::Demo(_)) => LevelFilter::ERROR,
        Some(_) => LevelFilter::WARN,
    };
    if let Err(error) = init_log(level) {
        eprintln!("moq-relay: RUST_LOG: {error}");
        return ExitCode::FAILURE;
    }
    match cli.verb {
        None => served(moq_relay::run(&cli.run)),
        Some(Verb::Demo(args)) => served(moq_relay::demo(&args)),
        Some(verb) => match client(&verb) {
            Ok(exit) => ExitCode::from(exit as u8),
            Err(failure) => {
                eprintln!("moq-relay: {failure}");
                ExitCode::from(failure.exit as u8)
            }
        },
    }
}

fn served(ended: anyhow::Result<()>) -> ExitCode {
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moq-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs a verb that is no relay.
fn client(verb: &Verb) -> Result<Exit, Failure> {
    match verb {
        Verb::Pub(args) => relay_cli::publish(args),
        Verb::Sub(args) => relay_cli::subscribe(args),
        Verb::Ls(args) => relay_cli::ls(args),
        Verb::Fetch(args) => relay_cli::fetch(args),
        Verb::Load(args) => relay_cli::load(args),
        Verb::Completions { shell } => {
            let mut out = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "moq-relay", &mut out);
            print(&out)
        }
        Verb::Man { verb, dir } => manual(verb.as_deref(), dir.as_deref()),
        Verb::Demo(_) => Ok(Exit::Done),
    }
}

fn manual(verb: Option<&str>, dir: Option<&Path>) -> Result<Exit, Failure> {
    let mut whole = Cli::command();
    // Sub-commands get their full names.
    whole.build();
    if let Some(dir) = dir {
        clap_mangen::generate_to(whole, dir)?;
        return Ok(Exit::Done);
    }
    let page = match verb {
        None => whole,
        Some(name) => match whole.find_subcommand(name) {
            Some(found) => found.clone(),
            None => return Err(io::Error::other(format!("there is no verb `{name}`")).into()),
        },
    };
    let mut out = Vec::new();
    clap_mangen::Man::new(page).render(&mut out)?;
    print(&out)
}

/// To standard output; a reader that goes away had enough.
fn print(text: &[u8]) -> Result<Exit, Failure> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}

/// Logs to standard error what `RUST_LOG` asks for, `level` by default.
fn init_log(level: LevelFilter) -> Result<(), FromEnvError> {
    let filter = EnvFilter::builder().with_default_directive(level.into()).from_env()?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    Ok(())
}
