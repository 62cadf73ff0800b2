//! The command line.

mod check;
mod demo;
mod doctor;
mod run;

use std::{
    ffi::OsStr,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use clap::{Args, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;

pub use check::check;
pub use demo::run as demo;
pub use doctor::{DoctorArgs, run as doctor};
pub use run::RunArgs;

/// Largest edit distance at which a verb is suggested.
const SLIP: usize = 2;

/// A Media over QUIC relay: routes live broadcasts between publishers and subscribers.
///
/// Without a configuration file it is a development relay: it listens on this machine only, makes
/// its own certificate and lets everybody publish and subscribe.
#[derive(Clone, Debug, Parser)]
#[command(name = "moq-relay", version, about, args_conflicts_with_subcommands = true)]
pub struct Cli {
    /// Verb to run instead of a relay.
    #[command(subcommand)]
    pub verb: Option<Verb>,

    /// Settings of the relay.
    #[command(flatten)]
    pub run: RunArgs,
}

/// Verbs other than running a relay.
#[derive(Clone, Debug, Subcommand)]
pub enum Verb {
    /// Shows a relay at work, with what to try next
    ///
    /// It runs the relay in this process, a publisher (broadcast demo/clock with the tracks clock and pattern)
    /// and a subscriber of both, over real QUIC, and prints a line a second. Ctrl-C drains the relay and
    /// ends with status 0.
    Demo(DemoArgs),

    /// Explains what a relay would do with these settings, and starts nothing
    ///
    /// Everything is resolved as it would be for a relay: listeners, permissions, certificates, memory limits,
    /// and the source of each value.
    ///
    /// The exit code is 0 when the relay would start, 1 when it would not, and 2 when the command line is
    /// wrong. With --token-key it is 1 as well when the token is not valid.
    Check(CheckArgs),

    /// Checks the machine, the configuration, the certificate and the port, and reports problems
    ///
    /// Ends with 0 if a relay can run (warnings included), with 1 if something keeps it from that.
    Doctor(DoctorArgs),

    /// Makes keys, and signs, verifies and shows tokens
    Token {
        /// Action on keys and tokens
        #[command(subcommand)]
        verb: relay_cli::token::TokenVerb,
    },

    /// Publishes standard input or a file
    ///
    /// All of it becomes one track of a broadcast, which ends with it. Input is read only while somebody is
    /// subscribed, and no faster than subscribers accept it where they report their pace, as `sub` does: nothing
    /// is lost. With --no-wait it is read at once and always, as a live source needs it, and data without a
    /// subscriber is dropped.
    Pub(relay_cli::PubArgs),

    /// Writes a track to standard output
    ///
    /// Groups come in the order of their numbers, to the end of the track. The broadcast is waited for. Groups
    /// that the relay drops because this end is slow are fetched afterwards, where the version allows it
    /// (moq-lite-05 and later): nothing is skipped that is still available. With --max-age it skips rather than
    /// falls behind. Skips are reported, and the status is 6.
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
        /// Page of this verb; without one, of moq-relay
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

/// Usage error for a first argument that is neither a verb nor a file; `None` for all others. Without it a mistyped
/// verb would be reported as a file that cannot be read.
pub fn mistyped(first: Option<&OsStr>) -> Option<String> {
    let word = first?.to_str()?;
    let is_word = word.starts_with(|c: char| c.is_ascii_alphabetic())
        && word.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    let command = Cli::command();
    let verbs: Vec<&str> = command.get_subcommands().map(clap::Command::get_name).chain(["help"]).collect();
    if !is_word || verbs.contains(&word) || Path::new(word).exists() {
        return None;
    }
    let todo = match word {
        "run" | "start" | "serve" | "server" | "relay" => {
            "a relay is run without a verb: moq-relay [relay.toml]".to_owned()
        }
        "version" => "did you mean moq-relay --version?".to_owned(),
        _ => {
            let distance = |verb: &&str| strsim::damerau_levenshtein(word, verb);
            match verbs.iter().copied().min_by_key(distance).filter(|verb| distance(verb) <= SLIP) {
                Some(near) => format!("did you mean moq-relay {near}?"),
                None => format!("the verbs are {}", verbs.join(", ")),
            }
        }
    };
    Some(format!("there is no verb and no file {word}; {todo}"))
}

/// Arguments of the verb `demo`.
#[derive(Clone, Debug, Default, Args)]
pub struct DemoArgs {
    /// UDP address to listen on; the default is this machine only
    #[arg(long, value_name = "IP:PORT")]
    pub bind: Option<SocketAddr>,

    /// Ends by itself after this many seconds (`5` or `5s`)
    #[arg(long = "for", value_name = "TIME", value_parser = relay_cli::duration)]
    pub time: Option<std::time::Duration>,
}

/// Arguments of the verb `check`.
#[derive(Clone, Debug, Args)]
pub struct CheckArgs {
    /// Prints JSON instead of text
    #[arg(long)]
    pub json: bool,

    /// Shows the permissions of this token: a token, a URL with one, or `-` for standard input
    #[arg(long, value_name = "TOKEN")]
    pub token: Option<String>,

    /// A key, or a set of keys, that may have signed it; without one it is not verified. May be repeated
    #[arg(long, value_name = "FILE", requires = "token")]
    pub token_key: Vec<PathBuf>,

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
