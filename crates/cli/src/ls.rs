//! `ls`: lists announced broadcasts.

use std::{
    io::{self, Write},
    time::Duration,
};

use clap::Args;
use relay_client::{Announcement, Error};
use serde_json::json;
use tokio::time::timeout;

use crate::{
    args::ConnectArgs,
    connect::{NEWEST_FIRST, connect, describe},
    exit::{EXIT_CODES, Exit, Failure},
    stop::Stop,
};

/// Time without announcements after which the list counts as complete: before moq-lite-05 its end is not marked.
const QUIET: Duration = Duration::from_millis(500);

/// Lists the broadcasts that are live, one a line.
#[derive(Clone, Debug, Args)]
#[command(after_long_help = EXIT_CODES)]
pub struct LsArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// Only those below this path
    #[arg(value_name = "PREFIX", default_value = "", hide_default_value = true)]
    prefix: String,

    /// Goes on with what comes (+), goes (-) and changes its route (~)
    #[arg(long, short = 'f')]
    follow: bool,

    /// One JSON object a line: event, path, hops and, where the version has it, cost
    #[arg(long)]
    json: bool,
}

pub(crate) async fn run(args: &LsArgs) -> Result<Exit, Failure> {
    let mut stop = Stop::listen()?;
    let client = connect(&args.connect, &NEWEST_FIRST, &mut stop).await?;
    let failed = |error: Error| {
        let exit = if error.is_unauthorized() { Exit::Refused } else { Exit::Incomplete };
        Failure::new(exit, format!("the list of broadcasts: {}", describe(&error)))
    };
    let mut watch = client.announced(&args.prefix).await.map_err(failed)?;
    let mut first: Vec<Announcement> = Vec::new();
    if client.version().has_announce_ok() {
        let count = watch.initial().count();
        for _ in 0..count {
            first.extend(watch.next().await.map_err(failed)?);
        }
    } else {
        while let Ok(next) = timeout(QUIET, watch.next()).await {
            match next.map_err(failed)? {
                Some(next) if next.active => first.push(next),
                Some(gone) => first.retain(|known| known.path != gone.path),
                None => break,
            }
        }
    }
    first.sort_by(|a, b| a.path.as_str().cmp(b.path.as_str()));
    for announcement in &first {
        if !show(args, announcement)? {
            return Ok(Exit::Done);
        }
    }
    if !args.follow {
        return Ok(Exit::Done);
    }
    loop {
        let next = tokio::select! {
            next = watch.next() => next.map_err(failed)?,
            exit = stop.asked() => return Ok(exit),
        };
        match next {
            Some(announcement) if show(args, &announcement)? => {}
            Some(_) => return Ok(Exit::Done),
            None => return Err(Failure::new(Exit::Incomplete, "the relay ended the list of broadcasts")),
        }
    }
}

/// Prints one announcement; `false` when the reader has closed its end.
fn show(args: &LsArgs, announcement: &Announcement) -> Result<bool, Failure> {
    let path = announcement.path.as_str();
    let (event, sign) = match announcement {
        Announcement { active: false, .. } => ("ended", "- "),
        Announcement { update: true, .. } => ("changed", "~ "),
        _ => ("announced", "+ "),
    };
    let line = if args.json {
        let hops: Vec<u64> = announcement.hops.iter().map(|hop| hop.0).collect();
        let mut object = json!({ "event": event, "path": path, "hops": hops });
        if let (Some(cost), Some(object)) = (announcement.cost, object.as_object_mut()) {
            object.insert("cost".to_owned(), json!({ "warm": cost.warm, "cold": cost.cold }));
        }
        object.to_string()
    } else {
        format!("{}{}", if args.follow { sign } else { "" }, plain(path))
    };
    let mut out = io::stdout().lock();
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(error.into()),
    }
}

/// Escapes control characters, which could steer a terminal or look like two lines.
fn plain(text: &str) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().collect() } else { c.to_string() };
    text.chars().map(escape).collect()
}
