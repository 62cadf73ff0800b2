//! Promise: the generator reports every injected fault, and a clean run as clean.

mod common;

use std::time::Duration;

use common::Fault;
use relay_client::lite::Version;
use relay_load::{
    report::Report,
    run::{self, LoadOptions},
    scenario::Scenario,
};

/// Groups of one frame at 10 a second: the 12th falls in the window.
const AFTER: u64 = 12;

async fn run(fault: Fault, scenario: Scenario) -> Report {
    run_with(Version::V05, fault, scenario).await
}

async fn run_with(version: Version, fault: Fault, scenario: Scenario) -> Report {
    let addr = common::start(version, fault);
    let options = LoadOptions {
        url: format!("moqt://{addr}/"),
        version,
        window: Duration::from_secs(2),
        ramp: Duration::from_millis(100),
        viewers: Some(20),
        pid: Some(std::process::id()),
        certs: relay_client::Certs::Any,
    };
    run::run(scenario, &options).await.unwrap()
}

#[tokio::test]
async fn a_sound_relay_delivers_everything() {
    let report = run(Fault::None, Scenario::Chat).await;
    assert!(report.is_clean(), "{report}");
    assert!((380..=420).contains(&report.tally.expected), "{report}");
    assert_eq!(report.tally.delivered, report.tally.expected);
    assert!(report.latency_ms.p50 > 0.0 && report.latency_ms.p99 < 1_000.0);
    assert!(report.relay.unwrap().rss_kib > 0);
    let text = serde_json::to_string(&report).unwrap();
    assert!(serde_json::from_str::<Report>(&text).unwrap().is_clean());
}

#[tokio::test]
async fn every_version_can_be_measured() {
    let measure = |version| run_with(version, Fault::None, Scenario::Chat);
    let reports = tokio::join!(measure(Version::V03), measure(Version::V04), measure(Version::V06));
    for (report, name) in [(reports.0, "03"), (reports.1, "04"), (reports.2, "06")] {
        assert!(report.is_clean(), "{report}");
        assert_eq!(report.version, format!("moq-lite-{name}"));
    }
}

#[tokio::test]
async fn joins_are_timed() {
    let report = run(Fault::None, Scenario::Join).await;
    let join = report.join.unwrap();
    assert_eq!(join.joined, 20);
    assert!(join.first_byte_ms.p50 > 0.0 && join.rtt_ms.p50 > 0.0);
    // This relay has no cache: late joiners miss the head of their first group, and the report contains that.
    assert!(!report.is_clean());
}

#[tokio::test]
async fn a_damaged_frame_fails_the_run() {
    let report = run(Fault::Corrupt { after: AFTER }, Scenario::Chat).await;
    assert!(!report.is_clean() && report.tally.corrupt == 1, "{report}");
}

#[tokio::test]
async fn a_missing_group_fails_the_run() {
    let report = run(Fault::Skip { after: AFTER }, Scenario::Chat).await;
    assert!(!report.is_clean() && report.tally.missing == 1 && report.tally.lost == 1, "{report}");
}

#[tokio::test]
async fn a_doubled_group_fails_the_run() {
    let report = run(Fault::Double { after: AFTER }, Scenario::Chat).await;
    assert!(!report.is_clean() && report.tally.doubled == 1, "{report}");
}

#[tokio::test]
async fn a_dropped_viewer_fails_the_run() {
    let report = run(Fault::Drop { after: AFTER }, Scenario::Chat).await;
    assert!(!report.is_clean() && report.dropped.len() == 1, "{report}");
}
