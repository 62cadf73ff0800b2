//! Promise: the table of access rights holds for every transport and every request type, not only where the decision is
//! made.
//!
//! All rows are tried in one version, over raw QUIC and over WebTransport. Each row is tried in one other version, over
//! both again where the transport can carry its request; the rows alternate between the other versions, so that each of
//! them tries every part of the table. `rights.rs` tries rows of its own in each version.

#![allow(missing_docs)]

use std::collections::HashSet;

use relay_auth::{
    Algorithm, Key, KeyId,
    cases::{self, Case, ExpectedRights},
};
use relay_client::lite::Version;
use relay_model::Path;
use relay_tests::{
    rights::{Entrance, May, Row},
    run,
};

/// Version in which all rows are tried.
const ALL_IN: Version = Version::V05;
/// Versions that share the rows.
const SHARING: [Version; 3] = [Version::V03, Version::V04, Version::V06];

fn row(case: &Case, key: &Key) -> Row {
    let expected = match case.expected {
        ExpectedRights::Refused(refusal) => Err(refusal.session_code()),
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

/// Decodes the path of a case, independently of the code under test.
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

/// Tries the rows of `version` over one transport; at least `at_least` of them.
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
    // This transport cannot carry a path: only rows that are public at the root are left, all of which are tried.
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
