//! The `moq-relay` binary.

use std::{io, process::ExitCode};

use clap::{CommandFactory, Parser};
use moq_relay::cli::{Cli, Verb};

#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let ended = match cli.verb {
        Some(Verb::Completions { shell }) => {
            clap_complete::generate(shell, &mut Cli::command(), "moq-relay", &mut io::stdout());
            Ok(true)
        }
        Some(Verb::Check(args)) => return moq_relay::check(&args),
        Some(Verb::Doctor(args)) => moq_relay::doctor::run(&args),
        None => moq_relay::run(&cli.run).map(|()| true),
    };
    match ended {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("moq-relay: {error:#}");
            ExitCode::FAILURE
        }
    }
}
