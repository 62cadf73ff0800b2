//! `fetch`: writes one group to standard output.

use clap::Args;
use relay_client::{Error, Piece};

use crate::{
    args::{ConnectArgs, Span, TrackArgs, span},
    assemble::Assembler,
    connect::{NEWEST_FIRST, connect, refused},
    exit::{EXIT_CODES, Exit, Failure},
    framing::FramingArgs,
    output::{Ended, Output},
    stop::Stop,
};

/// Arguments of `fetch`.
#[derive(Clone, Debug, Args)]
#[command(
    after_long_help = EXIT_CODES,
    override_usage = "moq-relay fetch [OPTIONS] <URL> <BROADCAST> <TRACK> --group <N>"
)]
pub struct FetchArgs {
    #[command(flatten)]
    connect: ConnectArgs,

    /// Path of the broadcast, then name of the track (or --broadcast B --track T)
    #[arg(value_name = "BROADCAST TRACK", num_args = 0..=2)]
    names: Vec<String>,

    #[command(flatten)]
    track: TrackArgs,

    /// Number of the group
    #[arg(long, short = 'g', value_name = "N")]
    group: u64,

    /// Only these frames of it, counted from 0: 2..5 leaves 5 out, 2..=5 does not, 2.. goes to the end
    #[arg(long, value_name = "A..B", value_parser = span)]
    frames: Option<Span>,

    #[command(flatten)]
    framing: FramingArgs,
}

pub(crate) async fn run(args: &FetchArgs) -> Result<Exit, Failure> {
    let (named, _) = args.track.resolve(&args.names)?;
    let mut stop = Stop::listen()?;
    let client = connect(&args.connect, &NEWEST_FIRST, &mut stop).await?;
    let what = format!("group {} of track {} of {}", args.group, named.track, named.broadcast);
    let wanted = args.frames.unwrap_or(Span { first: 0, last: None });
    // Versions without frame ranges transfer the whole group; unwanted frames are skipped here.
    let native = client.version().has_frame_ranges();
    let (first, last) = if native { (wanted.first, wanted.last) } else { (0, None) };
    let mut index = if native { wanted.first } else { 0 };
    let asked = client.fetch(&named.broadcast, &named.track, args.group, first, last, 127).await;
    let mut group = asked.map_err(|error| match error {
        Error::Unsupported(version, _) => Failure::new(
            Exit::Failed,
            format!("{version} has no FETCH: the relay needs moq-lite-05 or later"),
        ),
        error => refused(&error, &what),
    })?;
    let mut assembler = Assembler::new(args.framing.framing(None));
    let output = Output::start()?;
    let mut is_wanted = false;
    loop {
        let piece = tokio::select! {
            piece = group.piece() => piece.map_err(|error| refused(&error, &what)),
            () = output.closed() => break,
            exit = stop.asked() => return Ok(exit),
        };
        let piece = match piece {
            Ok(Some(piece)) => piece,
            Ok(None) => break,
            Err(failure) => {
                output.finish().await?;
                return Err(failure);
            }
        };
        if matches!(piece, Piece::Frame { .. }) {
            is_wanted = index >= wanted.first && wanted.last.is_none_or(|last| index <= last);
            index += 1;
        }
        let Some(bytes) = is_wanted.then(|| assembler.push(piece)).flatten() else { continue };
        match output.write(bytes, &mut stop).await {
            Ok(()) => {}
            Err(Ended::Closed) => break,
            Err(Ended::Stopped(exit)) => return Ok(exit),
        }
    }
    output.finish().await?;
    Ok(Exit::Done)
}
