//! The `moq-relay` binary.

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::{CommandFactory, Parser};
use moq_relay::cli::{Cli, Verb};
use tracing_subscriber::filter::{EnvFilter, FromEnvError, LevelFilter};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    if let Err(error) = init_log() {
        eprintln!("moq-relay: RUST_LOG: {error}");
        return ExitCode::FAILURE;
    }
    let ended = match cli.verb {
        Some(Verb::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "moq-relay", &mut io::stdout());
            Ok(())
        }
        Some(Verb::Check(args)) => return moq_relay::check(&args),
        None => moq_relay::run(&cli.run),
    };
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("moq-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Logs to standard error what `RUST_LOG` asks for, `info` by default.
fn init_log() -> Result<(), FromEnvError> {
    let filter = EnvFilter::builder().with_default_directive(LevelFilter::INFO.into()).from_env()?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    Ok(())
}
