//! The verb `token generate`: a key, and its public half.

use std::{
    fs::{self, File, OpenOptions},
    io::{ErrorKind, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path as File_, PathBuf},
};

use anyhow::{Context, Result, anyhow};
use clap::Args;
use relay_auth::{Algorithm, Grants, Key, KeyId};
use relay_model::{Path, Pattern};

use super::{ArgumentError, EXIT_CODES, Misuse, grant, path, print};

/// File mode of private keys.
const SECRET: u32 = 0o600;
/// File mode of public keys.
const PUBLIC: u32 = 0o644;

/// Arguments of `token generate`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct GenerateArgs {
    /// Signature algorithm: HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA
    #[arg(long, visible_alias = "alg", value_name = "NAME", default_value = "HS256")]
    algorithm: Algorithm,

    /// Its name: letters, digits, `-` and `_`; a random one by default
    #[arg(long, visible_alias = "kid", value_name = "KID", value_parser = plain_id)]
    id: Option<KeyId>,

    /// Write it to this new file
    #[arg(long, visible_alias = "key", value_name = "FILE")]
    out: Option<PathBuf>,

    /// Write it to this folder, as `KID.jwk`
    #[arg(long, value_name = "FOLDER", conflicts_with = "out")]
    out_dir: Option<PathBuf>,

    /// Write its public half to this new file
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,

    /// Write its public half to this folder, as `KID.jwk`
    #[arg(long, value_name = "FOLDER", conflicts_with = "public")]
    public_dir: Option<PathBuf>,

    /// Write base64url of the JSON
    #[arg(long)]
    base64: bool,

    /// Its tokens may grant this path and all below it, and nothing else
    #[arg(long, value_name = "PATH", value_parser = path, conflicts_with_all = ["root", "publish", "subscribe"])]
    scope: Option<Path>,

    /// Path that --publish and --subscribe are relative to
    #[arg(long, value_name = "PATH", value_parser = path, default_value = "", hide_default_value = true)]
    root: Path,

    /// Its tokens may let publish below this path, and nowhere else; may be repeated
    #[arg(long, visible_alias = "put", value_name = "PATH", value_parser = grant)]
    publish: Vec<Pattern>,

    /// Its tokens may let subscribe below this path, and nowhere else; may be repeated
    #[arg(long, visible_alias = "get", value_name = "PATH", value_parser = grant)]
    subscribe: Vec<Pattern>,
}

pub(super) fn run(args: &GenerateArgs) -> Result<()> {
    let id = args.id.clone().map_or_else(KeyId::random, Ok)?;
    let name = format!("{}.jwk", id.as_str());
    let in_folder = |folder: &Option<PathBuf>| folder.as_ref().map(|folder| folder.join(&name));
    let public_file = args.public.clone().or_else(|| in_folder(&args.public_dir));
    let secret_file = args.out.clone().or_else(|| in_folder(&args.out_dir));
    if public_file.is_some() && args.algorithm.is_symmetric() {
        let why =
            format!("a key for {} is one secret and has no public half; one for ES256 has", args.algorithm);
        return Err(Misuse(why).into());
    }
    let is_stdout = |file: &Option<PathBuf>| file.as_deref().is_none_or(|file| file == File_::new("-"));
    if public_file.is_some() && is_stdout(&public_file) && is_stdout(&secret_file) {
        let why = "both halves would go to standard output; name a file with --out or --public";
        return Err(Misuse(why.to_owned()).into());
    }

    let mut key = Key::generate(args.algorithm, Some(id))?;
    if let Some(scope) = scope(args) {
        key = key.with_scope(scope)?;
    }
    let public = public_file.as_ref().map(|_| key.public()).transpose()?;
    let text = |key: &Key| if args.base64 { key.to_base64url() } else { key.to_json() } + "\n";

    // Both files are created before either is written, so that an existing name leaves nothing behind.
    let mut made = Vec::new();
    let files = [(secret_file, Some(&key), SECRET), (public_file, public.as_ref(), PUBLIC)];
    for (file, key, mode) in files {
        match (file, key) {
            (_, None) => {}
            (file, Some(key)) if is_stdout(&file) => print(&text(key))?,
            (Some(file), Some(key)) => match create(&file, mode) {
                Ok(open) => made.push((file, open, text(key))),
                Err(error) => {
                    discard(&made);
                    return Err(error);
                }
            },
            (None, Some(_)) => {}
        }
    }
    for (file, open, text) in &mut made {
        let written = open.write_all(text.as_bytes()).and_then(|()| open.sync_all());
        written.with_context(|| format!("{}", file.display()))?;
    }
    Ok(())
}

/// Parses a `kid` that can be a file name, as the key may be put into a folder later.
fn plain_id(text: &str) -> Result<KeyId, ArgumentError> {
    let id: KeyId = text.parse().map_err(|error: relay_auth::NoKeyId| ArgumentError(error.to_string()))?;
    if id.file_stem().is_none() {
        return Err(ArgumentError(
            "a key id that we make is of letters, digits, `-` and `_`, so that it can be a file name"
                .to_owned(),
        ));
    }
    Ok(id)
}

fn scope(args: &GenerateArgs) -> Option<Grants> {
    if let Some(root) = args.scope.clone() {
        let all = vec![Pattern::subtree(Path::root())];
        return Some(Grants { root, publish: all.clone(), subscribe: all });
    }
    let grants =
        Grants { root: args.root.clone(), publish: args.publish.clone(), subscribe: args.subscribe.clone() };
    (!grants.is_empty()).then_some(grants)
}

/// Creates a new file; an existing one is an error.
fn create(file: &File_, mode: u32) -> Result<File> {
    let open = OpenOptions::new().write(true).create_new(true).mode(mode).open(file);
    open.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => {
            anyhow!("{} exists and is not overwritten; remove it or name another file", file.display())
        }
        _ => anyhow!("{}: {error}", file.display()),
    })
}

/// Removes created files that are still empty.
fn discard(made: &[(PathBuf, File, String)]) {
    for (file, _, _) in made {
        // Only the first failure is reported.
        let _ = fs::remove_file(file);
    }
}
