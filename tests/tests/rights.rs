//! Promise: an admitted session may do what it was granted, where it was granted, and nothing else, whatever it
//! requests and over whatever transport; and it learns nothing of anything beyond.

#![allow(missing_docs)]

use relay_auth::Policy;
use relay_client::{SessionCode, lite::Version};
use relay_model::{Path, Scope};
use relay_tests::{
    porter::open,
    rights::{Entrance, May, Row},
    run,
};

const BOTH: Result<May, SessionCode> = Ok(May { publish: true, subscribe: true });
const PUBLISH: Result<May, SessionCode> = Ok(May { publish: true, subscribe: false });
const SUBSCRIBE: Result<May, SessionCode> = Ok(May { publish: false, subscribe: true });
const NEITHER: Result<May, SessionCode> = Ok(May { publish: false, subscribe: false });
const REFUSED: Result<May, SessionCode> = Err(SessionCode::UNAUTHORIZED);
const MALFORMED: Result<May, SessionCode> = Err(SessionCode::PROTOCOL_VIOLATION);

/// Scopes in which anybody may publish and subscribe.
type Scopes = (&'static [&'static str], &'static [&'static str]);
/// Requested path, path below it, and rights there.
type Request = (&'static str, &'static str, Result<May, SessionCode>);

const ROWS: &[(Scopes, &[Request])] = &[
    (
        (&["anon"], &["anon"]),
        &[
            ("/", "anon/cam", BOTH),
            ("/", "anon", BOTH),
            ("/", "secret/cam", NEITHER),
            ("/", "anonymous/cam", NEITHER),
            ("/", "Anon/cam", NEITHER),
            ("/anon", "cam", BOTH),
            ("/anon/room", "cam", BOTH),
            ("//anon//room/", "cam", BOTH),
            ("/%61non", "cam", BOTH),
            ("/secret", "cam", REFUSED),
            ("/anonymous", "cam", REFUSED),
            ("/anon?jwt=a.b.c", "cam", REFUSED),
            ("/anon/../secret", "cam", MALFORMED),
            ("/anon%2froom", "cam", MALFORMED),
        ],
    ),
    ((&[""], &["anon"]), &[("/", "anon/x", BOTH), ("/", "other/x", PUBLISH), ("/other", "x", PUBLISH)]),
    ((&["anon"], &[""]), &[("/", "anon/x", BOTH), ("/", "other/x", SUBSCRIBE), ("/other", "x", SUBSCRIBE)]),
    ((&[""], &[]), &[("/", "x", PUBLISH)]),
    ((&[], &[""]), &[("/", "x", SUBSCRIBE)]),
    ((&[], &[]), &[("/", "x", REFUSED)]),
    ((&["a/b"], &["a"]), &[("/a", "b/c", BOTH), ("/a", "c", SUBSCRIBE), ("/a/b", "c", BOTH)]),
    (
        (&["a", "b"], &["c", "b/c"]),
        &[("/", "b/x", PUBLISH), ("/", "c/x", SUBSCRIBE), ("/", "b/c/x", BOTH), ("/", "d/x", NEITHER)],
    ),
];

/// All rows, and for each refused one the same request with a policy that allows it.
fn rows() -> impl Iterator<Item = Row> {
    let scope = |prefixes: &[&str]| Scope::of(prefixes.iter().map(|raw| Path::parse(raw).expect("a path")));
    let all = ROWS.iter().flat_map(move |((publish, subscribe), requests)| {
        requests.iter().map(move |(target, at, expected)| Row {
            policy: Policy::public(scope(publish), scope(subscribe)),
            target: (*target).to_owned(),
            root: Path::parse(&target.replace("%61", "a")).expect("a path"),
            at: (*at).to_owned(),
            expected: *expected,
        })
    });
    all.flat_map(|row| {
        // No policy makes a malformed path valid, or accepts a token where none are configured.
        let hopeless = row.expected == MALFORMED || row.target.contains('?');
        let pair = Row { policy: open(), expected: BOTH, ..row.clone() };
        let pair = Some(pair).filter(|_| row.expected != BOTH && !hopeless);
        [Some(row), pair]
    })
    .flatten()
}

/// Tries every row whose request the transport can carry.
fn through(is_web: bool, version: Version) {
    run(120, async move {
        let mut tried = 0;
        for row in rows() {
            tried += usize::from(row.check(Entrance { is_web, version }).await);
        }
        assert!(tried >= 15, "{tried} rows");
    });
}

#[test]
fn on_moq_lite_03_over_quic() {
    through(false, Version::V03);
}

#[test]
fn on_moq_lite_03_over_webtransport() {
    through(true, Version::V03);
}

#[test]
fn on_moq_lite_04_over_quic() {
    through(false, Version::V04);
}

#[test]
fn on_moq_lite_04_over_webtransport() {
    through(true, Version::V04);
}

#[test]
fn on_moq_lite_05_over_quic() {
    through(false, Version::V05);
}

#[test]
fn on_moq_lite_05_over_webtransport() {
    through(true, Version::V05);
}

#[test]
fn on_moq_lite_06_over_quic() {
    through(false, Version::V06);
}

#[test]
fn on_moq_lite_06_over_webtransport() {
    through(true, Version::V06);
}
