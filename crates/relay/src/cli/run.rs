//! Command line arguments of a relay, generated from [`table`].

use std::path::PathBuf;

use clap::{Arg, ArgAction, ArgMatches, Args, Command, FromArgMatches, parser::ValueSource, value_parser};

use relay_config::{InvalidValue, SettingOverrides, table};

/// Arguments of a relay.
#[derive(Clone, Debug, Default)]
pub struct RunArgs {
    /// Configuration file (TOML); the same as `--config`.
    pub file: Option<PathBuf>,
    /// Configuration file (TOML).
    pub config: Option<PathBuf>,
    /// Values of flags, by their key in [`table`].
    pub flags: Vec<(&'static str, Vec<String>)>,
}

impl RunArgs {
    /// The configuration file, however it was named; the plain argument wins.
    pub fn config_file(&self) -> Option<&PathBuf> {
        self.file.as_ref().or(self.config.as_ref())
    }

    /// Settings outside of the file: these flags and the environment variables of this process.
    pub fn overrides(&self) -> SettingOverrides {
        SettingOverrides::with_environment(self.flags.clone())
    }
}

impl Args for RunArgs {
    fn augment_args(command: Command) -> Command {
        let file = Arg::new("file").value_name("FILE").value_parser(value_parser!(PathBuf));
        let config = Arg::new("config").long("config").value_name("FILE");
        let command = command.arg(file.help("Configuration file (TOML); the same as --config")).arg(
            config.value_parser(value_parser!(PathBuf)).help("Configuration file (TOML) [env: MOQ_CONFIG]"),
        );
        table::named().fold(command, |command, (entry, names)| command.arg(argument(entry, names)))
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for RunArgs {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let mut args = Self::default();
        args.update_from_arg_matches(matches)?;
        Ok(args)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        self.file = matches.get_one::<PathBuf>("file").cloned();
        self.config = matches.get_one::<PathBuf>("config").cloned().or_else(SettingOverrides::file);
        for (entry, _) in table::named() {
            let was_given = matches.value_source(entry.key) == Some(ValueSource::CommandLine);
            if let Some(values) = matches.get_many::<String>(entry.key).filter(|_| was_given) {
                self.flags.push((entry.key, values.cloned().collect()));
            }
        }
        Ok(())
    }
}

fn argument(entry: &'static table::Entry, names: &'static table::Names) -> Arg {
    let mut flags = names.flags.iter().map(String::as_str);
    let kind = entry.kind;
    let check = move |text: &str| {
        // In a file "" means everything; on a command line it is likely an unset shell variable.
        if kind == table::Kind::Prefixes && text.trim().is_empty() {
            let what = "it is empty; leave it out, or write ** to open everything";
            return Err(InvalidValue(what.to_owned()));
        }
        kind.check(&kind.of_text(text)).map(|()| text.to_owned())
    };
    let arg = Arg::new(entry.key)
        .long(flags.next().unwrap_or(entry.key))
        .aliases(flags)
        .value_name(kind.placeholder())
        .value_parser(check)
        .help(format!("{} [env: {}]", sentence(entry.meaning), names.variable()))
        .hide(!entry.is_used());
    match kind {
        table::Kind::Switch | table::Kind::AnySwitch => {
            arg.num_args(0..=1).require_equals(true).default_missing_value("true")
        }
        table::Kind::Any => arg.action(ArgAction::Append),
        kind if kind.is_list() => arg.action(ArgAction::Append),
        _ => arg,
    }
}

/// A meaning with a capital first letter and without backticks.
fn sentence(meaning: &str) -> String {
    let plain = meaning.replace('`', "");
    let mut letters = plain.chars();
    letters.next().map_or_else(String::new, |first| first.to_uppercase().chain(letters).collect())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use clap::{Parser, error::ErrorKind};

    use super::super::Cli;

    fn flags(line: &[&str]) -> Vec<(&'static str, Vec<String>)> {
        Cli::try_parse_from(line).unwrap().run.flags
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
        for name in ["--workers", "--runtime-workers"] {
            assert_eq!(flags(&["moq-relay", name, "256"]), [("runtime.workers", vec!["256".to_owned()])]);
        }
        for bad in ["257", "0", "many"] {
            let error = Cli::try_parse_from(["moq-relay", "--workers", bad]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation);
        }
    }

    #[test]
    fn empty_public_flag_is_refused() {
        for line in [&["moq-relay", "--auth-public="][..], &["moq-relay", "--auth-public", " "]] {
            let error = Cli::try_parse_from(line).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation);
            assert!(error.to_string().contains("write ** to open everything"), "{error}");
        }
        assert_eq!(flags(&["moq-relay", "--auth-public=**"]), [("auth.public", vec!["**".to_owned()])]);
    }

    #[test]
    fn a_switch_does_not_take_the_file_for_its_value() {
        for switch in ["--iroh-enabled", "--quic-gso", "--cluster-mesh"] {
            let args = Cli::try_parse_from(["moq-relay", switch, "relay.toml"]).unwrap().run;
            assert_eq!(args.config_file(), Some(&PathBuf::from("relay.toml")), "{switch}");
        }
    }

    #[test]
    fn the_command_line_of_a_deployed_relay_is_understood() {
        let given = flags(&[
            "moq-relay",
            "--server-bind",
            "127.0.0.1:1",
            "--tls-generate",
            "localhost",
            "--auth-public",
            "a",
            "--auth-public",
            "b",
            "--web-http-listen",
            "[::]:80",
            "--iroh-enabled",
            "--server-quic-gso=false",
        ]);
        let said: Vec<(&str, String)> = given.iter().map(|(key, values)| (*key, values.join(","))).collect();
        for expected in [
            ("server.bind", "127.0.0.1:1"),
            ("tls.generate", "localhost"),
            ("auth.public", "a,b"),
            ("web.http.listen", "[::]:80"),
            ("iroh.enabled", "true"),
            ("quic.gso", "false"),
        ] {
            assert!(
                said.iter().any(|(key, text)| (*key, text.as_str()) == expected),
                "{expected:?} in {said:?}"
            );
        }
    }
}
