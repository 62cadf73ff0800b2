//! The `moq-relay` binary.

// These macros panic when standard output or error is closed.
#![deny(clippy::print_stderr, clippy::print_stdout)]

use std::{
    env,
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory, Parser};
use moq_relay::{
    cli::{self, Cli, Verb},
    log::{self, LogOutput, note},
};
use relay_cli::{Exit, Failure};
use relay_config::Format;
use relay_host::diagnostics;
use tracing::level_filters::LevelFilter;

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Exit status of a usage error, the same as that of clap.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    if let Some(wrong) = cli::mistyped(env::args_os().nth(1).as_deref()) {
        note(format_args!("{wrong}"));
        return ExitCode::from(USAGE);
    }
    let cli = Cli::parse();
    match cli.verb {
        None => ended(moq_relay::run(&cli.run).map(|()| true)),
        Some(Verb::Demo(args)) => ended(cli::demo(&args).map(|()| true)),
        Some(Verb::Check(args)) => cli::check(&args),
        Some(Verb::Token { verb }) => left(relay_cli::token::run(&verb)),
        Some(Verb::Doctor(args)) => ended(cli::doctor(&args)),
        // Clients log directly, so that lines stay in order with their output.
        Some(verb) => match log::init(Some(LevelFilter::WARN), Format::Text, LogOutput::Direct) {
            Ok(()) => left(client(&verb)),
            Err(error) => ended(Err(error.into())),
        },
    }
}

/// Exit code of a relay or a check.
fn ended(result: Result<bool>) -> ExitCode {
    log::flush();
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            note(format_args!("{}", diagnostics::chain(&error)));
            ExitCode::FAILURE
        }
    }
}

/// Exit code of a client.
fn left(result: Result<Exit, Failure>) -> ExitCode {
    match result {
        Ok(exit) => ExitCode::from(exit as u8),
        Err(failure) => {
            note(format_args!("{failure}"));
            ExitCode::from(failure.exit as u8)
        }
    }
}

/// Runs a client verb.
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
        Verb::Check(_) | Verb::Demo(_) | Verb::Doctor(_) | Verb::Token { .. } => Ok(Exit::Done),
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

/// Prints to standard output; a closed pipe is no error.
fn print(text: &[u8]) -> Result<Exit, Failure> {
    match io::stdout().lock().write_all(text) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(Exit::Done),
    }
}
