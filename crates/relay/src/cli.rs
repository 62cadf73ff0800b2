//! The command line.

use std::{net::SocketAddr, num::NonZeroU16, path::PathBuf};

use clap::Parser;

/// A Media over QUIC relay: routes live broadcasts between publishers and subscribers.
///
/// Without a configuration file it is a development relay: it listens on this machine only, makes
/// its own certificate and lets everybody publish and subscribe.
#[derive(Clone, Debug, Default, Parser)]
#[command(name = "moq-relay", version, about)]
pub struct Args {
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

impl Args {
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
        Args::command().debug_assert();
    }

    #[test]
    fn a_file_is_named_by_argument_or_flag() {
        for line in [&["moq-relay", "relay.toml"][..], &["moq-relay", "--config", "relay.toml"]] {
            let args = Args::try_parse_from(line).unwrap();
            assert_eq!(args.config_file(), Some(&PathBuf::from("relay.toml")));
        }
    }

    #[test]
    fn workers_hold_their_limit_and_one_past_is_refused() {
        let parse = |n: &str| Args::try_parse_from(["moq-relay", "--workers", n]);
        assert_eq!(parse("256").unwrap().workers, NonZeroU16::new(256));
        for bad in ["257", "0", "many"] {
            assert_eq!(parse(bad).unwrap_err().kind(), ErrorKind::ValueValidation);
        }
    }
}
