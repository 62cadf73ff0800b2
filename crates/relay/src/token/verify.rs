//! `token verify` and `token inspect`.

use std::{path::PathBuf, time::SystemTime};

use anyhow::{Result, anyhow};
use clap::Args;
use relay_auth::{Keys, explain};
use relay_model::Path;

use super::{EXIT_CODES, Misuse, path, print, read, show::Shown};

/// What token to verify, and by which keys.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct VerifyArgs {
    /// A key or a set of keys that may have signed it; may be repeated; `-` is standard input
    #[arg(long, value_name = "FILE", required_unless_present = "key_dir")]
    key: Vec<PathBuf>,

    /// A folder where the key is `KID.jwk`
    #[arg(long, value_name = "FOLDER")]
    key_dir: Option<PathBuf>,

    #[command(flatten)]
    token: TokenArgs,
}

/// What token to show.
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

    /// Where the token is; `-` is standard input
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

    fn print(&self, shown: &Shown<'_>) -> Result<()> {
        print(&if self.json { shown.json() } else { shown.text() })
    }
}

/// Whether it holds.
pub(super) fn run(args: &VerifyArgs, now: SystemTime) -> Result<bool> {
    if args.token.token.is_none()
        && read::is_stdin(&args.token.input)
        && args.key.iter().any(|key| read::is_stdin(key))
    {
        let why = "the key and the token would both come from standard input; name a file with --key or --in";
        return Err(Misuse(why.to_owned()).into());
    }
    let token = args.token.read()?;
    let keys = keys(args, &token)?;
    let verdict = explain(&token, &keys, now);
    let mut reasons: Vec<String> = verdict.flaws.iter().map(ToString::to_string).collect();
    if let (Some(at), Some(claims)) = (&args.token.at, verdict.claims())
        && claims.grants.at(at).is_none()
    {
        reasons.push(format!("it grants nothing at /{at}"));
    }
    let holds = reasons.is_empty();
    let (said, at) = (verdict.said.as_ref(), args.token.at.as_ref());
    args.token.print(&Shown { said, holds: Some(holds), reasons, at, now })?;
    Ok(holds)
}

/// Whether it could be read.
pub(super) fn inspect(args: &InspectArgs, now: SystemTime) -> Result<bool> {
    let said = relay_auth::inspect(&args.token.read()?);
    let flaw = said.as_ref().map_or_else(Some, |said| said.claims.as_ref().err());
    let reasons: Vec<String> = flaw.into_iter().map(ToString::to_string).collect();
    let is_read = reasons.is_empty();
    let (said, at) = (said.as_ref().ok(), args.token.at.as_ref());
    args.token.print(&Shown { said, holds: None, reasons, at, now })?;
    Ok(is_read)
}

/// The keys that are named, and the one of the folder that the token names.
fn keys(args: &VerifyArgs, token: &str) -> Result<Keys> {
    let mut keys = Keys::new();
    let mut files = args.key.clone();
    // Its name cannot be that of another folder: see `KeyId`.
    let named = relay_auth::inspect(token).ok().and_then(|said| said.key);
    if let (Some(folder), Some(id)) = (&args.key_dir, named) {
        let file = folder.join(format!("{id}.jwk"));
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
