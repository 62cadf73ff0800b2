//! The verb `token sign`: a token, or a URL with one.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use anyhow::{Result, anyhow, bail};
use clap::Args;
use relay_auth::{Claims, Grants, Policy};
use relay_model::{Path, Pattern, Scope};
use url::Url;

use super::{EXIT_CODES, When, grant, path, print, read};
use crate::progress::note;

/// Arguments of `token sign`.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct SignArgs {
    /// The key that signs; `-` is standard input
    #[arg(long, value_name = "FILE")]
    key: PathBuf,

    /// Path that --publish and --subscribe are relative to; by default the path of --url
    #[arg(long, value_name = "PATH", value_parser = path)]
    root: Option<Path>,

    /// Path that may be published; may be repeated
    #[arg(long, visible_alias = "put", value_name = "PATH", value_parser = grant, required_unless_present = "subscribe")]
    publish: Vec<Pattern>,

    /// Path that may be subscribed to; may be repeated
    #[arg(long, visible_alias = "get", value_name = "PATH", value_parser = grant)]
    subscribe: Vec<Pattern>,

    /// Expiry (`exp`): 90s, 15m, 12h or 30d from now, or a unix time
    #[arg(long, visible_alias = "exp", value_name = "TIME", value_parser = When::parse)]
    expires: Option<When>,

    /// Start of its validity (`nbf`)
    #[arg(long, visible_alias = "nbf", value_name = "TIME", value_parser = When::parse)]
    not_before: Option<When>,

    /// Time of issue (`iat`), for information only
    #[arg(long, visible_alias = "iat", value_name = "TIME", value_parser = When::parse)]
    issued: Option<When>,

    /// Subject (`sub`): may take over broadcasts of the same subject
    #[arg(long, visible_alias = "sub", value_name = "NAME")]
    subject: Option<String>,

    /// Audience (`aud`): a value of `auth.audience` of the relay; may be repeated
    #[arg(long, visible_alias = "aud", value_name = "NAME")]
    audience: Vec<String>,

    /// Issuer (`iss`)
    #[arg(long, visible_alias = "iss", value_name = "NAME")]
    issuer: Option<String>,

    /// Print this URL with the token in it; it must be good for that path
    #[arg(long, value_name = "URL")]
    url: Option<Url>,
}

pub(super) fn run(args: &SignArgs, now: SystemTime) -> Result<()> {
    let key = read::signer(&args.key)?;
    let time = |when: Option<When>| when.map(|when| when.at(now)).transpose();
    let root = match (&args.root, &args.url) {
        (Some(root), _) => root.clone(),
        (None, Some(url)) => root_of(url)?,
        (None, None) => Path::root(),
    };
    let claims = Claims {
        grants: Grants { root, publish: args.publish.clone(), subscribe: args.subscribe.clone() },
        expires: time(args.expires)?,
        not_before: time(args.not_before)?,
        issued: time(args.issued)?,
        subject: args.subject.as_deref().map(Arc::from),
        audience: (!args.audience.is_empty())
            .then(|| args.audience.iter().map(|name| name.as_str().into()).collect()),
        issuer: args.issuer.as_deref().map(Arc::from),
    };
    let token = key.sign(&claims)?;
    if let Some(at) = claims.expires.filter(|at| *at <= now) {
        let ago = now.duration_since(at).unwrap_or_default().as_secs();
        note(format_args!("the token ended {ago}s ago already"));
    }
    if claims.expires.is_none() {
        note(format_args!("the token never ends, unless its key is removed; --expires 12h limits it"));
    }
    match &args.url {
        None => print(&format!("{token}\n")),
        Some(url) => print(&format!("{}\n", with_token(url, &claims, &token)?)),
    }
}

/// Root of a session at this URL.
fn root_of(url: &Url) -> Result<Path> {
    let everything = Policy::public(Scope::everything(), Scope::everything());
    let permit = everything.admit(url.path(), SystemTime::UNIX_EPOCH);
    permit.map(|permit| permit.root().clone()).map_err(|_| anyhow!("{}: not a valid path", url.path()))
}

/// Adds the token to the URL, if it grants something there.
fn with_token(url: &Url, claims: &Claims, token: &str) -> Result<String> {
    if url.query_pairs().any(|(name, _)| name == "jwt") {
        bail!("the URL has a `jwt` already; leave it out");
    }
    if claims.grants.at(&root_of(url)?).is_none() {
        bail!("the token would grant nothing at {}: its root is `/{}`", url.path(), claims.grants.root);
    }
    let mut url = url.clone();
    // A relay ignores the fragment, which would follow the token.
    url.set_fragment(None);
    let query = url.query().filter(|query| !query.is_empty());
    let query = query.map_or_else(String::new, |query| format!("{query}&"));
    url.set_query(Some(&format!("{query}jwt={token}")));
    Ok(url.into())
}
