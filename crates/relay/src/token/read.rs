//! Keys and tokens of files and standard input.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path as File,
};

use anyhow::{Context, Result, anyhow, bail};
use relay_auth::{Key, Keys, SET_BYTES, TOKEN_BYTES};

use crate::{config::without_mark, log::note};

/// Whether the name is that of standard input.
pub(super) fn is_stdin(file: &File) -> bool {
    file == File::new("-")
}

/// All keys of a file: one, or a set.
pub(super) fn keys(file: &File) -> Result<Keys> {
    let name = file.display();
    let (keys, faults) = Keys::parse(&text(file, SET_BYTES)?).map_err(|error| anyhow!("{name}: {error}"))?;
    for (at, error) in faults {
        note(format_args!("{name}: key {} of the set is left out: {error}", at + 1));
    }
    if keys.is_empty() {
        bail!("{name}: there is no key in it that could be used");
    }
    Ok(keys)
}

/// A key to sign with.
pub(super) fn signer(file: &File) -> Result<Key> {
    let keys = keys(file)?;
    let name = file.display();
    let mut signers = keys.iter().filter(|key| key.may_sign());
    let key = signers.next().ok_or_else(|| {
        anyhow!("{name}: the key cannot sign: it is a public half, or its `key_ops` has no `sign`")
    })?;
    if signers.next().is_some() {
        bail!("{name}: several keys in it can sign; put the one to use into a file of its own");
    }
    let others = 0o077;
    if !is_stdin(file) && fs::metadata(file).is_ok_and(|facts| facts.permissions().mode() & others != 0) {
        note(format_args!("{name}: others on this machine may read this key; `chmod 600` keeps it secret"));
    }
    Ok(key.clone())
}

/// A token: the text itself, or a URL with one.
pub(super) fn token(text: &str) -> String {
    let text = text.trim();
    let query = text.split_once('?').map_or("", |(_, query)| query.split('#').next().unwrap_or_default());
    let found =
        query.split('&').filter_map(|pair| pair.strip_prefix("jwt=")).rfind(|token| !token.is_empty());
    found.unwrap_or(text).to_owned()
}

/// A token of a file or of standard input.
pub(super) fn token_in(file: &File) -> Result<String> {
    // What is too long for a token is still a reason to give; no more than a URL around it is read.
    text(file, TOKEN_BYTES * 4).map(|text| token(&text))
}

/// Text of a file or of standard input, no more than a key or token has.
fn text(file: &File, most: usize) -> Result<String> {
    let name = if is_stdin(file) { "standard input".into() } else { file.display().to_string() };
    let mut text = String::new();
    let limit = most as u64 + 1;
    let read = if is_stdin(file) {
        io::stdin().lock().take(limit).read_to_string(&mut text)
    } else {
        fs::File::open(file).and_then(|open| open.take(limit).read_to_string(&mut text))
    };
    read.with_context(|| name.clone())?;
    if text.len() > most {
        bail!("{name}: longer than {most} bytes; that is something else");
    }
    Ok(without_mark(text))
}
