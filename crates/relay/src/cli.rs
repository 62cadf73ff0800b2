//! The command line.

mod run;

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

pub use run::RunArgs;

use crate::doctor;

/// A Media over QUIC relay: routes live broadcasts between publishers and subscribers.
///
/// Without a configuration file it is a development relay: it listens on this machine only, makes
/// its own certificate and lets everybody publish and subscribe.
#[derive(Clone, Debug, Parser)]
#[command(name = "moq-relay", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// What to do instead of running a relay.
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// How to run a relay.
    #[command(flatten)]
    pub run: RunArgs,
}

/// What else the binary does.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Explains what a relay would do with these settings, and starts nothing
    ///
    /// Everything is resolved as it would be for a relay: where it listens, who may do what, which
    /// certificate it shows, what it may hold, and where each value comes from.
    ///
    /// The exit code is 0 when the relay would start, 1 when it would not, and 2 when the command line is
    /// wrong.
    Check(CheckArgs),
    /// Looks at the machine, the configuration, the certificate and the port, and says what is wrong
    ///
    /// Ends with 0 if a relay can run (warnings included), with 1 if something keeps it from that.
    Doctor(doctor::Args),
    /// Prints a shell's completions, to be saved where that shell looks for them
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// What to check.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Prints JSON instead of text
    #[arg(long)]
    pub json: bool,

    /// The relay that would be run.
    #[command(flatten)]
    pub run: RunArgs,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }
}
