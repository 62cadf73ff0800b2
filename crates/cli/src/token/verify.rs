//! The verbs `token verify` and `token inspect`.

use std::{
    path::{Path as File, PathBuf},
    time::SystemTime,
};

use anyhow::{Result, anyhow};
use clap::Args;
use relay_auth::{Expected, KeyId, Keys, explain};
use relay_model::Path;

use super::{EXIT_CODES, Misuse, path, print, read, show::TokenReport};

/// Arguments of `token verify`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct VerifyArgs {
    /// A key or a set of keys that may have signed it; may be repeated; `-` is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "key_dir")]
    key: Vec<PathBuf>,

    /// A folder where the key is `KID.jwk`
    #[arg(long, value_name = "FOLDER")]
    key_dir: Option<PathBuf>,

    /// A name of the relay that the token's `aud` must have (`auth.audience`); may be repeated
    #[arg(long, value_name = "NAME")]
    audience: Vec<String>,

    /// An `iss` that the token must have (`auth.issuer`); may be repeated
    #[arg(long, value_name = "NAME")]
    issuer: Vec<String>,

    #[command(flatten)]
    token: TokenArgs,
}

/// Arguments of `token inspect`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct InspectArgs {
    #[command(flatten)]
    token: TokenArgs,
}

#[derive(Clone, Debug, Args)]
struct TokenArgs {
    /// The token, or a URL with one; without it, standard input. Others on this machine see command lines
    #[arg(value_name = "TOKEN", conflicts_with = "input")]
    token: Option<String>,

    /// File with the token; `-` is standard input
    #[arg(long = "in", value_name = "FILE", default_value = "-", hide_default_value = true)]
    input: PathBuf,

    /// Only what it grants to a session at this path
    #[arg(long = "path", value_name = "PATH", value_parser = path)]
    at: Option<Path>,

    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

impl TokenArgs {
    fn read(&self) -> Result<String> {
        self.token.as_deref().map_or_else(|| read::token_in(&self.input), |token| Ok(read::token(token)))
    }

    fn print(&self, shown: &TokenReport) -> Result<()> {
        print(&if self.json { format!("{:#}\n", shown.json()) } else { shown.text() })
    }
}

/// Verifies a token and prints the result. Returns whether it is valid.
pub(super) fn run(args: &VerifyArgs, now: SystemTime) -> Result<bool> {
    if args.token.token.is_none()
        && read::is_stdin(&args.token.input)
        && args.key.iter().any(|key| read::is_stdin(key))
    {
        let why = "the key and the token would both come from standard input; name a file with --key or --in";
        return Err(Misuse(why.to_owned()).into());
    }
    let token = args.token.read()?;
    let keys = keys(&args.key, args.key_dir.as_deref(), &token)?;
    let expected = Expected { audience: args.audience.clone(), issuer: args.issuer.clone() };
    let shown = judge(&token, &keys, &expected, args.token.at.clone(), now);
    args.token.print(&shown)?;
    Ok(shown.is_valid())
}

/// Prints the content of a token. Returns whether it can be parsed.
pub(super) fn inspect(args: &InspectArgs, now: SystemTime) -> Result<bool> {
    let shown = decode(&args.token.read()?, args.token.at.clone(), now);
    args.token.print(&shown)?;
    Ok(shown.reasons.is_empty())
}

/// Verifies a token as a relay with these keys and settings would, at a path or anywhere.
pub(super) fn judge(
    token: &str,
    keys: &Keys,
    expected: &Expected,
    at: Option<Path>,
    now: SystemTime,
) -> TokenReport {
    let verdict = explain(token, keys, expected, now);
    let mut reasons: Vec<String> = verdict.errors.iter().map(ToString::to_string).collect();
    if let (Some(at), Some(claims)) = (&at, verdict.claims())
        && claims.grants.at(at).is_none()
    {
        reasons.push(format!("it grants nothing at /{at}"));
    }
    TokenReport { token: verdict.token, holds: Some(reasons.is_empty()), reasons, at, now }
}

/// Parses a token without verifying it.
pub(super) fn decode(token: &str, at: Option<Path>, now: SystemTime) -> TokenReport {
    let said = relay_auth::inspect(token);
    let flaw = said.as_ref().map_or_else(Some, |said| said.claims.as_ref().err());
    let reasons = flaw.into_iter().map(ToString::to_string).collect();
    TokenReport { token: said.ok(), holds: None, reasons, at, now }
}

/// Reads the keys in these files, and the one in the folder that the token names.
pub(super) fn keys(files: &[PathBuf], folder: Option<&File>, token: &str) -> Result<Keys> {
    let mut keys = Keys::new();
    let mut files = files.to_vec();
    let named = relay_auth::inspect(token).ok().and_then(|said| said.key);
    // A `file_stem` never contains a path separator.
    if let (Some(folder), Some(stem)) = (folder, named.as_ref().and_then(KeyId::file_stem)) {
        let file = folder.join(format!("{stem}.jwk"));
        if file.exists() {
            files.push(file);
        }
    }
    for file in files {
        for key in read::keys(&file)?.iter() {
            keys.insert(key.clone()).map_err(|error| anyhow!("{}: {error}", file.display()))?;
        }
    }
    Ok(keys)
}
