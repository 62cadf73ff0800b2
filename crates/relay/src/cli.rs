//! The command line.

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf};

use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

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
    /// Shows a relay at work, with what to try next
    ///
    /// It runs the relay in this process, a publisher (broadcast demo/clock with the tracks clock and pattern)
    /// and a subscriber of both, over real QUIC, and prints a line a second. Ctrl-C lets everybody leave and ends
    /// with status 0.
    Demo(DemoArgs),

    /// Publishes standard input or a file
    ///
    /// All of it becomes one track of a broadcast, which ends with it. Input is read only while somebody is
    /// subscribed, and no faster than subscribers take it where they say how fast that is, as `sub` does: nothing
    /// is lost. With --no-wait it is read at once and always, as a live source needs it, and what nobody asked
    /// for is gone.
    Pub(relay_cli::PubArgs),

    /// Writes a track to standard output
    ///
    /// Groups come in the order of their numbers, to the end of the track. The broadcast is waited for. What the
    /// relay gives up because this end is slow is fetched afterwards, where the version can (moq-lite-05 and
    /// later): nothing is skipped that can still be had. With --max-age it rather skips than falls behind.
    /// Whatever is skipped is said, and the status is 6.
    Sub(relay_cli::SubArgs),

    /// Lists broadcasts
    Ls(relay_cli::LsArgs),

    /// Writes one group to standard output
    ///
    /// The relay serves it out of its cache, or asks the publisher for it.
    Fetch(relay_cli::FetchArgs),

    /// Puts load on a relay and prints what came of it
    ///
    /// Every frame is checked at every viewer; the status is 6 when one is missing.
    Load(relay_cli::LoadArgs),

    /// Prints a manual page (`moq-relay man | man -l -`)
    Man {
        /// Of this verb; without one, of moq-relay
        #[arg(value_name = "VERB", conflicts_with = "dir")]
        verb: Option<String>,
        /// Writes all pages into this folder
        #[arg(long, value_name = "FOLDER")]
        dir: Option<PathBuf>,
    },

    /// Prints a shell's completions, to be saved where that shell looks for them
    Completions {
        /// The shell
        shell: Shell,
    },
}

/// How to show a relay at work.
#[derive(Clone, Debug, Default, Args)]
pub struct DemoArgs {
    /// UDP address to listen on; the default is this machine only
    #[arg(long, value_name = "IP:PORT")]
    pub bind: Option<SocketAddr>,

    /// Ends by itself after this many seconds (`5` or `5s`)
    #[arg(long = "for", value_name = "TIME", value_parser = relay_cli::duration)]
    pub time: Option<std::time::Duration>,
}

/// How to run a relay.
#[derive(Clone, Debug, Default, Args)]
pub struct RunArgs {
    /// Configuration file (TOML); the same as --config
    #[arg(value_name = "FILE")]
    pub file: Option<PathBuf>,

    /// Configuration file (TOML)
    #[arg(long, value_name = "FILE", env = "MOQ_CONFIG")]
    pub config: Option<PathBuf>,

    /// UDP address to listen on, instead of the configured one
    #[arg(long, value_name = "IP:PORT", env = "MOQ_BIND")]
    pub bind: Option<SocketAddr>,

    /// Worker threads; the default is one a core
    #[arg(long, value_name = "N", env = "MOQ_WORKERS", value_parser = workers)]
    pub workers: Option<NonZeroU16>,
}

impl RunArgs {
    /// The configuration file, however it was named; the plain argument wins.
    pub fn config_file(&self) -> Option<&PathBuf> {
        self.file.as_ref().or(self.config.as_ref())
    }
}

fn workers(text: &str) -> Result<NonZeroU16, String> {
    let most = relay_model::limits::WORKERS;
    match text.parse::<NonZeroU16>() {
        Ok(count) if usize::from(count.get()) <= most => Ok(count),
        _ => Err(format!("expected a number from 1 to {most}")),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser, error::ErrorKind};

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_file_is_named_by_argument_or_flag() {
        for line in [&["moq-relay", "relay.toml"][..], &["moq-relay", "--config", "relay.toml"]] {
            let args = Cli::try_parse_from(line).unwrap().run;
            assert_eq!(args.config_file(), Some(&PathBuf::from("relay.toml")));
        }
    }

    #[test]
    fn workers_hold_their_limit_and_one_past_is_refused() {
        let parse = |n: &str| Cli::try_parse_from(["moq-relay", "--workers", n]).map(|cli| cli.run);
        assert_eq!(parse("256").unwrap().workers, NonZeroU16::new(256));
        for bad in ["257", "0", "many"] {
            assert_eq!(parse(bad).unwrap_err().kind(), ErrorKind::ValueValidation);
        }
    }
}
