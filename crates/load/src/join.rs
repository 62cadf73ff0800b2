//! Join scenario: time from connecting to the first byte of the latest group.

use anyhow::Result;
use tokio::time::{Instant, sleep, sleep_until};

use crate::{
    report::{Join, Report},
    run::{LoadOptions, RunClients},
    tally::Spread,
};

/// Largest time beyond two round trips: the relay's share, ms.
pub(crate) const ALLOWANCE_MS: f64 = 5.0;

/// Runs the scenario: one viewer keeps the track flowing, the others join one after another over the window, and stay.
pub(crate) async fn run(stage: &mut RunClients, options: &LoadOptions) -> Result<Report> {
    stage.view(0);
    stage.ready().await?;
    sleep(options.ramp).await;
    let joiners = stage.shape.viewers;
    let group_frames = stage.shape.group_frames;
    let joining = async |stage: &mut RunClients| {
        let start = Instant::now();
        for index in 0..joiners {
            sleep_until(start + options.window.mul_f64(f64::from(index) / f64::from(joiners))).await;
            stage.view(0);
        }
        sleep_until(start + options.window).await;
    };
    // A late joiner must receive its first group from the first frame, and everything after.
    let due = |viewer: &crate::viewer::Viewer, window: std::ops::Range<u64>| match viewer.view.first() {
        Some(first) => (first - first % group_frames).min(window.end)..window.end,
        None => window,
    };
    let mut report = stage.measure(options, joining, due).await?;
    let joins: Vec<(u32, u32)> = stage.viewers.iter().skip(1).filter_map(|v| v.view.joined()).collect();
    let mut took: Vec<u32> = joins.iter().map(|(took, _)| *took).collect();
    let mut rtt: Vec<u32> = joins.iter().map(|(_, rtt)| *rtt).collect();
    let mut beyond: Vec<u32> = joins.iter().map(|(took, rtt)| took.saturating_sub(2 * rtt)).collect();
    report.join = Some(Join {
        joined: joins.len() as u32,
        first_byte_ms: Spread::of(&mut took),
        rtt_ms: Spread::of(&mut rtt),
        beyond_two_rtt_ms: Spread::of(&mut beyond),
    });
    Ok(report)
}
