//! The verb `check`: explains the resolved settings of a relay without starting one.

mod certificate;
mod json;
mod report;
mod text;

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
    time::SystemTime,
};

use relay_cli::token::{self, TokenReport};
use relay_config::Config;
use relay_host::diagnostics;
use report::CheckReport;

use crate::{cli::CheckArgs, log::note};

/// Explains the settings on standard output. The exit status tells whether a relay would start with them.
pub fn check(args: &CheckArgs) -> ExitCode {
    let file = args.run.config_file();
    let outside = args.run.overrides();
    let mut report = match Config::resolve(file.map(PathBuf::as_path), &outside) {
        Ok(resolution) => CheckReport::of(file.cloned(), resolution),
        Err(error) => {
            note(format_args!("{error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Some(token) = &args.token {
        let keys = match args.token_key.as_slice() {
            [] => relay_access::key_files(&report.resolution.config.auth),
            given => given.to_vec(),
        };
        match token::about(token, &keys, &report.resolution.config.auth.expected, SystemTime::now()) {
            Ok(shown) => report.token = Some(shown),
            Err(error) => {
                note(format_args!("{}", diagnostics::chain(&error)));
                return ExitCode::FAILURE;
            }
        }
    }
    let said = if args.json { json::written(&report) } else { report.to_string() };
    let mut out = io::stdout().lock();
    if out.write_all(said.as_bytes()).and_then(|()| out.flush()).is_err() {
        return ExitCode::FAILURE;
    }
    let holds = args.token_key.is_empty() || report.token.as_ref().is_none_or(TokenReport::is_valid);
    if report.starts() && holds { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
