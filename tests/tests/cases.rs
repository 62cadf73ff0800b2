//! Promise: the table of who may do what where holds at every entrance, for every verb, not only where the
//! decision is made.
//!
//! All of it is tried in one version, over QUIC alone and over WebTransport. Each row is tried in one more
//! version, over both again where something carries its request; the rows take turns, so that the others
//! have every part of the table. `rights.rs` tries rows of its own in each version.

#![allow(missing_docs)]

use std::collections::HashSet;

use relay_auth::{
    Algorithm, Key, KeyId,
    cases::{self, Case, Expected},
};
use relay_client::lite::Version;
use relay_model::Path;
use relay_tests::{
    rights::{Entrance, May, Row},
    run,
};

/// The version in which everything is tried.
const ALL_IN: Version = Version::V05;
/// Those that share the table.
const SHARING: [Version; 3] = [Version::V03, Version::V04, Version::V06];

fn row(case: &Case, key: &Key) -> Row {
    let expected = match case.expected {
        Expected::Refused(refusal) => Err(refusal.session_code()),
        _ => Ok(May { publish: case.publishes(), subscribe: case.subscribes() }),
    };
    Row {
        policy: case.policy(key),
        target: case.target(key),
        root: Path::parse(&unescaped(case.path)).expect("a path"),
        at: case.at.to_owned(),
        expected,
    }
}

/// The path that is meant, read here a second time and not by what is tested.
fn unescaped(path: &str) -> String {
    let mut pieces = path.split('%');
    let mut out = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        let (digits, rest) = piece.split_at(2);
        out.push(u8::from_str_radix(digits, 16).expect("an escape"));
        out.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(out).expect("UTF-8")
}

/// The rows that are tried in `version`, through one kind of entrance: at least so many.
fn through(is_web: bool, version: Version, at_least: usize) {
    run(180, async move {
        let key = Key::generate(Algorithm::ES256, Some("table".parse::<KeyId>().expect("a name")));
        let key = key.expect("a key");
        let mut tried = 0;
        for (number, case) in cases::all().enumerate() {
            let entrance = Entrance { is_web, version };
            let is_turn = SHARING.get(number % SHARING.len()) == Some(&version);
            if version == ALL_IN || is_turn || !entrance.carries_target() {
                tried += usize::from(row(&case, &key).check(entrance).await);
            }
        }
        assert!(tried >= at_least, "{tried} rows");
    });
}

#[test]
fn no_entrance_passes_by_refusing_everything() {
    let all: Vec<Case> = cases::all().collect();
    let request = |case: &Case| (case.path, case.at);
    let allowing = all.iter().filter(|case| case.publishes() || case.subscribes());
    assert!(all.len() >= 60 && allowing.clone().count() >= 25, "{} of {}", allowing.count(), all.len());
    let publishing: HashSet<_> = all.iter().filter(|case| case.publishes()).map(request).collect();
    let subscribing: HashSet<_> = all.iter().filter(|case| case.subscribes()).map(request).collect();
    for case in &all {
        let request = request(case);
        assert!(publishing.contains(&request) && subscribing.contains(&request), "{case:?} has no pair");
    }
}

#[test]
fn all_of_it_over_quic() {
    through(false, ALL_IN, 60);
}

#[test]
fn all_of_it_over_webtransport() {
    through(true, ALL_IN, 60);
}

#[test]
fn a_share_on_moq_lite_03() {
    through(true, Version::V03, 20);
    // Nothing carries a path there: what is public at the root is left, all of it.
    through(false, Version::V03, 2);
}

#[test]
fn a_share_on_moq_lite_04() {
    through(true, Version::V04, 20);
    through(false, Version::V04, 2);
}

#[test]
fn a_share_on_moq_lite_06_over_quic() {
    through(false, Version::V06, 20);
}

#[test]
fn a_share_on_moq_lite_06_over_webtransport() {
    through(true, Version::V06, 20);
}
