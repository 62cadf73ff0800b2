//! Reading of keys and tokens from files and standard input.

use std::{
    fs,
    io::{self, Read},
    os::unix::fs::PermissionsExt,
    path::Path as File,
};

use anyhow::{Context, Result, anyhow, bail};
use relay_auth::{Key, Keys, SET_BYTES, TOKEN_BYTES};

use crate::progress::note;

/// Whether the name stands for standard input.
pub(super) fn is_stdin(file: &File) -> bool {
    file == File::new("-")
}

/// Reads the keys of a file: one, or a set.
pub(super) fn keys(file: &File) -> Result<Keys> {
    let name = file.display();
    let (keys, faults) = Keys::parse(&text(file, SET_BYTES)?).map_err(|error| anyhow!("{name}: {error}"))?;
    for (at, error) in faults {
        note(format_args!("{name}: key {} of the set is left out: {error}", at + 1));
    }
    if keys.is_empty() {
        bail!("{name}: no usable key in it");
    }
    Ok(keys)
}

/// Reads a private key.
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

/// Extracts a token: the text itself, or the `jwt` parameter of a URL.
pub(super) fn token(text: &str) -> String {
    let text = text.trim();
    let query = text.split_once('?').map_or("", |(_, query)| query.split('#').next().unwrap_or_default());
    let found =
        query.split('&').filter_map(|pair| pair.strip_prefix("jwt=")).rfind(|token| !token.is_empty());
    found.unwrap_or(text).to_owned()
}

/// Reads a token from a file or standard input.
pub(super) fn token_in(file: &File) -> Result<String> {
    // Leaves room for a URL around the token, and for a token that is too long, which verification reports.
    text(file, TOKEN_BYTES * 4).map(|text| token(&text))
}

/// Reads the text of a file or standard input, at most `most` bytes.
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
        bail!("{name}: longer than {most} bytes; it is no key or token");
    }
    // Some editors put a byte order mark at the start of a file.
    Ok(text.strip_prefix('\u{feff}').map(str::to_owned).unwrap_or(text))
}
