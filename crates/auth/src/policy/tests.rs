use relay_model::{Path, SessionCode, limits};

use super::*;

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

fn open() -> Policy {
    Policy::public(Scope::everything(), Scope::everything())
}

/// Raw target, and the root it must give; `None` = malformed.
const PATHS: &[(&str, Option<&str>)] = &[
    ("", Some("")),
    ("/", Some("")),
    ("///", Some("")),
    ("?", Some("")),
    ("/?x=1", Some("")),
    ("/a", Some("a")),
    ("a", Some("a")),
    ("/a/b/c", Some("a/b/c")),
    ("//a///b//", Some("a/b")),
    ("/a/b?x=/c/..", Some("a/b")),
    ("/a?b?c", Some("a")),
    ("/A/b", Some("A/b")),
    ("/a%20b", Some("a b")),
    ("/a+b", Some("a+b")),
    ("/%61", Some("a")),
    ("/%C3%A9", Some("é")),
    ("/%c3%a9", Some("é")),
    ("/é", Some("é")),
    ("/%3Fjwt=x", Some("?jwt=x")),
    ("/%23", Some("#")),
    // Decoded once: these stay what the first decoding says.
    ("/%252e%252e", Some("%2e%2e")),
    ("/%252f", Some("%2f")),
    ("/%2500", Some("%00")),
    ("/...", Some("...")),
    ("/.a", Some(".a")),
    ("/a..", Some("a..")),
    // Dot segments, plain and escaped.
    (".", None),
    ("..", None),
    ("/./a", None),
    ("/a/.", None),
    ("/a/../b", None),
    ("/a/..", None),
    ("/a/..?x", None),
    ("/%2e", None),
    ("/%2E%2e/a", None),
    ("/.%2e", None),
    // Escaped separators.
    ("/a%2fb", None),
    ("/a%2Fb", None),
    ("/%2f", None),
    ("/..%2f..", None),
    // Control characters, plain and escaped.
    ("/a%00", None),
    ("/%00", None),
    ("/a\0b", None),
    ("/a%0d%0ab", None),
    ("/a\nb", None),
    ("/%7f", None),
    ("/%c2%85", None),
    // Broken escapes, text that is none.
    ("/%", None),
    ("/%2", None),
    ("/%zz", None),
    ("/%+1", None),
    ("/a%/b", None),
    ("/%ff", None),
    ("/%c3", None),
    ("/%c3/%a9", None),
    ("/%é1", None),
];

#[test]
fn a_target_gives_its_root_or_is_malformed() {
    for (raw, expected) in PATHS {
        let got = open().admit(raw);
        match expected {
            Some(root) => assert_eq!(got.unwrap().root().as_str(), *root, "{raw:?}"),
            None => assert_eq!(got, Err(Refusal::Malformed), "{raw:?}"),
        }
    }
}

/// Query, and whether it shows a token.
const QUERIES: &[(&str, bool)] = &[
    ("", false),
    ("jwt", false),
    ("jwt=", false),
    ("jwt=&jwt=", false),
    ("JWT=x", false),
    ("xjwt=x", false),
    ("jwt[]=x", false),
    ("a=jwt=x", false),
    ("a=%26jwt=x", false),
    ("%jwt=x", false),
    ("jwt=x", true),
    ("jwt=x&jwt=", true),
    ("jwt=&jwt=x", true),
    ("a=1&jwt=x&b=2", true),
    ("jwt==", true),
    ("jwt=%", true),
    ("%6awt=x", true),
    ("&&jwt=x", true),
];

#[test]
fn any_token_is_refused_while_none_is_accepted() {
    for (query, shown) in QUERIES {
        let got = open().admit(&format!("/a?{query}"));
        match shown {
            true => assert_eq!(got, Err(Refusal::Unauthorized), "{query:?}"),
            false => assert_eq!(got.unwrap().root(), &path("a"), "{query:?}"),
        }
    }
}

#[test]
fn the_last_token_that_is_not_empty_wins() {
    let token = |raw| Target::parse(raw).ok().unwrap().token;
    assert_eq!(token("/?jwt=a&jwt=b"), Some("b"));
    assert_eq!(token("/?jwt=a&jwt=b&jwt="), Some("b"));
    assert_eq!(token("/?jwt="), None);
}

/// Publish prefixes, subscribe prefixes, target, and what is left of both (`None` = unauthorized).
type Row = (
    &'static [&'static str],
    &'static [&'static str],
    &'static str,
    Option<(&'static [&'static str], &'static [&'static str])>,
);

const GRANTS: &[Row] = &[
    (&[""], &[""], "/", Some((&[""], &[""]))),
    (&[""], &[""], "/a/b", Some((&["a/b"], &["a/b"]))),
    (&["anon"], &["anon"], "/anon", Some((&["anon"], &["anon"]))),
    (&["anon"], &["anon"], "/anon/room", Some((&["anon/room"], &["anon/room"]))),
    (&["anon"], &["anon"], "/", Some((&["anon"], &["anon"]))),
    (&["anon"], &["anon"], "/anonymous", None),
    (&["anon"], &["anon"], "/%61non/x", Some((&["anon/x"], &["anon/x"]))),
    (&["anon"], &["anon"], "/other", None),
    (&["a/b", "a/c"], &[], "/a", Some((&["a/b", "a/c"], &[]))),
    (&["a/b", "a/c"], &[], "/a/b", Some((&["a/b"], &[]))),
    (&["anon"], &[""], "/other", Some((&[], &["other"]))),
    (&[], &[""], "/anon", Some((&[], &["anon"]))),
    (&[""], &[], "/anon", Some((&["anon"], &[]))),
    (&[], &[], "/", None),
    (&[], &[], "/anon", None),
];

#[test]
fn grants_are_narrowed_to_the_root() {
    let scope = |prefixes: &[&str]| Scope::of(prefixes.iter().map(|prefix| path(prefix)));
    for (publish, subscribe, raw, expected) in GRANTS {
        let got = Policy::public(scope(publish), scope(subscribe)).admit(raw);
        match expected {
            Some((publish, subscribe)) => {
                let permit = got.unwrap();
                assert_eq!(permit.publish(), &scope(publish), "{raw:?}");
                assert_eq!(permit.subscribe(), &scope(subscribe), "{raw:?}");
                assert_eq!((permit.expires(), permit.subject(), permit.is_peer()), (None, None, false));
            }
            None => assert_eq!(got, Err(Refusal::Unauthorized), "{raw:?}"),
        }
    }
}

#[test]
fn a_path_at_its_limits_is_admitted_and_one_past_is_not() {
    let long = "x".repeat(limits::PATH_BYTES);
    assert!(open().admit(&format!("/{long}")).is_ok());
    assert_eq!(open().admit(&format!("/{long}x")), Err(Refusal::Malformed));
    let escaped = "%78".repeat(limits::PATH_BYTES);
    assert!(open().admit(&format!("/{escaped}")).is_ok());
    assert_eq!(open().admit(&format!("/{escaped}%78")), Err(Refusal::Malformed));
    let deep = "/x".repeat(limits::PATH_SEGMENTS);
    assert!(open().admit(&deep).is_ok());
    assert_eq!(open().admit(&format!("{deep}/x")), Err(Refusal::Malformed));
    let query = "x".repeat(limits::CONTROL_MESSAGE_BYTES - 2);
    assert!(open().admit(&format!("/?{query}")).is_ok());
    assert_eq!(open().admit(&format!("/?{query}x")), Err(Refusal::Malformed));
}

#[test]
fn each_refusal_has_its_session_code() {
    assert_eq!(Refusal::Malformed.session_code(), SessionCode::PROTOCOL_VIOLATION);
    assert_eq!(Refusal::Unauthorized.session_code(), SessionCode::UNAUTHORIZED);
}

#[test]
fn a_malformed_path_is_told_apart_from_a_refused_one_even_with_a_token() {
    assert_eq!(open().admit("/../x?jwt=x"), Err(Refusal::Malformed));
}

#[test]
fn a_permit_says_whom_its_policy_is_for() {
    let alice = open().with_subject("alice").admit("/a").unwrap();
    assert_eq!((alice.subject(), alice.is_peer()), (Some("alice"), false));
    assert_ne!(alice, open().admit("/a").unwrap());
    let relay = open().for_peers().admit("/a").unwrap();
    assert_eq!((relay.subject(), relay.is_peer()), (None, true));
}

proptest::proptest! {
    #[test]
    fn no_target_panics_and_no_root_holds_what_is_refused(raw in "[%/.?&=a-f0-9jwt\\PC]{0,64}") {
        if let Ok(permit) = open().admit(&raw) {
            let root = permit.root().as_str();
            assert!(root.is_empty() || root.split('/').all(|s| !matches!(s, "" | "." | "..")));
            assert!(!root.contains(char::is_control));
        }
    }

    #[test]
    fn an_escaped_name_comes_back_as_it_was(name in "[^/\\p{C}]{1,40}") {
        proptest::prop_assume!(name != "." && name != "..");
        let escaped: String = name.bytes().map(|b| format!("%{b:02x}")).collect();
        let permit = open().admit(&format!("/{escaped}")).unwrap();
        assert_eq!(permit.root().as_str(), name);
    }
}
