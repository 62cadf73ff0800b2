use std::time::Duration;

use relay_model::{SessionCode, limits};

use super::*;
use crate::{Algorithm, Claims, Key};

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn after(seconds: u64) -> SystemTime {
    now() + Duration::from_secs(seconds)
}

fn path(raw: &str) -> Path {
    Path::parse(raw).unwrap()
}

fn open() -> Policy {
    Policy::public(Scope::everything(), Scope::everything())
}

/// Raw target, and its expected root; `None` = malformed.
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
    // Decoded once: escapes that result from decoding stay as they are.
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
    // Invalid escapes, and text that is not UTF-8.
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
        let got = open().admit(raw, now());
        match expected {
            Some(root) => assert_eq!(got.unwrap().root().as_str(), *root, "{raw:?}"),
            None => assert_eq!(got, Err(Refusal::Malformed), "{raw:?}"),
        }
    }
}

/// Query, and whether it contains a token.
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
        let got = open().admit(&format!("/a?{query}"), now());
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

/// Publish prefixes, subscribe prefixes, target, and both after narrowing (`None` = unauthorized).
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
        let got = Policy::public(scope(publish), scope(subscribe)).admit(raw, now());
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
    assert!(open().admit(&format!("/{long}"), now()).is_ok());
    assert_eq!(open().admit(&format!("/{long}x"), now()), Err(Refusal::Malformed));
    let escaped = "%78".repeat(limits::PATH_BYTES);
    assert!(open().admit(&format!("/{escaped}"), now()).is_ok());
    assert_eq!(open().admit(&format!("/{escaped}%78"), now()), Err(Refusal::Malformed));
    let deep = "/x".repeat(limits::PATH_SEGMENTS);
    assert!(open().admit(&deep, now()).is_ok());
    assert_eq!(open().admit(&format!("{deep}/x"), now()), Err(Refusal::Malformed));
    let query = "x".repeat(limits::CONTROL_MESSAGE_BYTES - 2);
    assert!(open().admit(&format!("/?{query}"), now()).is_ok());
    assert_eq!(open().admit(&format!("/?{query}x"), now()), Err(Refusal::Malformed));
}

#[test]
fn each_refusal_has_its_session_code_and_its_own_name() {
    let mut names = std::collections::BTreeSet::new();
    for refusal in Refusal::ALL {
        let expected = match refusal {
            Refusal::Malformed => SessionCode::PROTOCOL_VIOLATION,
            _ => SessionCode::UNAUTHORIZED,
        };
        assert_eq!(refusal.session_code(), expected, "{refusal:?}");
        assert!(names.insert(refusal.name()), "{refusal:?}");
    }
}

#[test]
fn malformed_path_is_reported_before_an_unaccepted_token() {
    assert_eq!(open().admit("/../x?jwt=x", now()), Err(Refusal::Malformed));
}

#[test]
fn a_permit_says_whom_its_policy_is_for() {
    let alice = open().with_subject("alice").admit("/a", now()).unwrap();
    assert_eq!((alice.subject(), alice.is_peer()), (Some("alice"), false));
    assert_ne!(alice, open().admit("/a", now()).unwrap());
    let relay = open().for_peers().admit("/a", now()).unwrap();
    assert_eq!((relay.subject(), relay.is_peer()), (None, true));
}

#[test]
fn every_case_of_the_table_comes_out_as_it_says() {
    let key = Key::generate(Algorithm::HS256, Some("table".parse().unwrap())).unwrap();
    for case in cases::all() {
        let got = case.policy(&key).admit(&case.target(&key), now());
        let permit = match (got, case.expected) {
            (Ok(permit), _) => permit,
            (Err(refusal), expected) => {
                assert_eq!(cases::ExpectedRights::Refused(refusal), expected, "{case:?}");
                continue;
            }
        };
        assert!(!matches!(case.expected, cases::ExpectedRights::Refused(_)), "let in: {case:?}");
        let at = permit.root().join(&path(case.at)).unwrap();
        assert_eq!(permit.publish().allows(&at), case.publishes(), "publish: {case:?}");
        assert_eq!(permit.subscribe().allows(&at), case.subscribes(), "subscribe: {case:?}");
    }
}

#[test]
fn the_table_allows_each_request_that_it_refuses() {
    let all: Vec<_> = cases::all().collect();
    let allowed = all.iter().filter(|case| case.publishes() || case.subscribes()).count();
    assert!(all.len() >= 60 && allowed >= 25, "{allowed} of {}", all.len());
    for (path, at, _) in cases::REQUESTS {
        let of = || all.iter().filter(|case| (case.path, case.at) == (*path, *at));
        assert!(of().any(cases::Case::publishes) && of().any(cases::Case::subscribes), "{path} {at}");
    }
}

fn key(algorithm: Algorithm, id: &str) -> Key {
    Key::generate(algorithm, Some(id.parse().unwrap())).unwrap()
}

fn keys(list: &[&Key]) -> Keys {
    let mut keys = Keys::new();
    for key in list {
        keys.insert((*key).clone()).unwrap();
    }
    keys
}

fn claims(json: &str) -> Claims {
    Claims::read(json.as_bytes()).unwrap()
}

fn target(key: &Key, json: &str) -> String {
    format!("/room?jwt={}", key.sign(&claims(json)).unwrap())
}

#[test]
fn a_permit_lasts_as_long_as_its_token() {
    let key = key(Algorithm::HS256, "a");
    let policy = open().with_keys(keys(&[&key]));
    let raw = target(&key, r#"{"root":"room","get":"","exp":1800000010}"#);
    let permit = policy.admit(&raw, after(9)).unwrap();
    assert_eq!(permit.expires(), Some(after(10)));
    assert_eq!(policy.admit(&raw, after(10)), Err(Refusal::Expired));
    let raw = target(&key, r#"{"root":"room","get":""}"#);
    assert_eq!(policy.admit(&raw, now()).unwrap().expires(), None);
}

#[test]
fn a_bad_token_does_not_fall_back_on_what_is_public() {
    let (ours, other) = (key(Algorithm::HS256, "a"), key(Algorithm::HS256, "a"));
    let policy = open().with_keys(keys(&[&ours]));
    assert!(policy.admit("/room", now()).is_ok());
    let raw = target(&other, r#"{"root":"room","put":"","get":""}"#);
    assert_eq!(policy.admit(&raw, now()), Err(Refusal::BadSignature));
    assert!(policy.admit(&target(&ours, r#"{"root":"room","put":""}"#), now()).is_ok());
    // A valid token grants nothing beyond its claims.
    let permit = policy.admit(&target(&ours, r#"{"root":"room","put":""}"#), now()).unwrap();
    assert!(permit.subscribe().is_empty());
}

#[test]
fn a_key_that_is_missing_is_named_and_only_then() {
    let (ours, other) = (key(Algorithm::HS256, "ours"), key(Algorithm::HS256, "other"));
    let policy = open().with_keys(keys(&[&ours]));
    let raw = target(&other, r#"{"root":"room","get":""}"#);
    assert_eq!(policy.admit(&raw, now()), Err(Refusal::UnknownKey));
    assert_eq!(policy.missing_key(&raw).unwrap().0.unwrap().as_str(), "other");
    assert!(open().with_keys(keys(&[&ours, &other])).admit(&raw, now()).is_ok());
    // The same with an empty set of keys.
    assert_eq!(open().with_keys(Keys::new()).admit(&raw, now()), Err(Refusal::UnknownKey));
    assert_eq!(open().admit(&raw, now()), Err(Refusal::Unauthorized), "no tokens here");
    assert_eq!(policy.missing_key(&target(&ours, r#"{"root":"room","get":""}"#)), None);
    assert_eq!((policy.missing_key("/room"), policy.missing_key("/room?jwt=x")), (None, None));
    let bare = format!("/?jwt={}", ours.seal(r#"{"alg":"HS256"}"#, r#"{"get":""}"#).unwrap());
    assert_eq!(policy.missing_key(&bare), None);
    assert_eq!(open().with_keys(Keys::new()).missing_key(&bare), Some((None, Algorithm::HS256)));
}

#[test]
fn a_permit_stands_while_its_key_does() {
    let (old, new) = (key(Algorithm::ES256, "a"), key(Algorithm::ES256, "a"));
    let policy = open().with_keys(keys(&[&old]));
    let permit = policy.admit(&target(&old, r#"{"root":"room","get":""}"#), now()).unwrap();
    assert_eq!(permit.key_id().unwrap().as_str(), "a");
    assert!(policy.upholds(&permit));
    // The public half is equivalent: it verifies the same tokens.
    assert!(open().with_keys(keys(&[&old.public().unwrap()])).upholds(&permit));
    assert!(!open().with_keys(keys(&[&new])).upholds(&permit), "another key of the same name");
    assert!(!open().upholds(&permit), "no key");
    let scope = Grants { subscribe: vec![Pattern::subtree(path("x"))], ..Grants::default() };
    let limited = old.clone().with_scope(scope).unwrap();
    assert!(!open().with_keys(keys(&[&limited])).upholds(&permit), "the key may grant less now");
    assert!(open().upholds(&open().admit("/", now()).unwrap()), "nothing rests on a key");
}

#[test]
fn whoever_shows_the_same_token_is_the_same() {
    let (key, other) = (key(Algorithm::ES256, "a"), key(Algorithm::ES256, "b"));
    let policy = open().with_keys(keys(&[&key, &other]));
    let subject = |raw: &str| policy.admit(raw, now()).unwrap().subject().unwrap().to_owned();
    let plain = r#"{"root":"room","put":"x","exp":1800000010}"#;
    // ES256 signatures differ each time.
    assert_ne!(target(&key, plain), target(&key, plain));
    assert_eq!(subject(&target(&key, plain)), subject(&target(&key, plain)));
    assert_ne!(subject(&target(&key, plain)), subject(&target(&other, plain)));
    let renewed = r#"{"root":"room","put":"x","exp":1800000020}"#;
    assert_ne!(subject(&target(&key, plain)), subject(&target(&key, renewed)));
    // A `sub` is the subject, independent of the token and its key.
    let named = r#"{"root":"room","put":"x","sub":"alice","exp":1800000010}"#;
    assert_eq!(subject(&target(&key, named)), "alice");
    assert_eq!(subject(&target(&other, named)), "alice");
    let policy = policy.clone().with_subject("somebody");
    assert_eq!(policy.admit(&target(&key, named), now()).unwrap().subject(), Some("alice"));
}

#[test]
fn a_token_may_be_escaped_in_the_url() {
    let key = key(Algorithm::HS256, "a");
    let policy = open().with_keys(keys(&[&key]));
    let raw = target(&key, r#"{"root":"room","get":""}"#);
    assert!(policy.admit(&raw, now()).is_ok());
    assert!(policy.admit(&raw.replace('.', "%2E").replace("jwt", "j%77t"), now()).is_ok());
    assert_eq!(policy.admit(&format!("{raw}%2"), now()), Err(Refusal::MalformedToken));
}

#[test]
fn an_auth_server_grants_what_it_says() {
    let pattern = |text| Pattern::parse(text).unwrap();
    let granted = Granted {
        publish: vec![pattern("alice/**")],
        subscribe: vec![pattern("*/cam")],
        expires: Some(after(5)),
        subject: Some("alice".into()),
        ..Granted::default()
    };
    let permit = Policy::grant("/room?jwt=whatever", granted.clone(), now()).unwrap();
    assert_eq!((permit.root(), permit.expires()), (&path("room"), Some(after(5))));
    assert_eq!((permit.subject(), permit.is_peer(), permit.key_mark()), (Some("alice"), false, None));
    assert!(permit.publish().allows(&path("room/alice/x")) && !permit.publish().allows(&path("room/bob")));
    assert!(permit.subscribe().allows(&path("room/bob/cam")));
    // An alias replaces the path.
    let aliased = Granted { root: Some(path("p/7")), peer: true, ..granted.clone() };
    let permit = Policy::grant("/room", aliased, now()).unwrap();
    assert!(permit.root() == &path("p/7") && permit.is_peer());
    assert!(permit.publish().allows(&path("p/7/alice")) && !permit.publish().allows(&path("room/alice")));
    assert_eq!(Policy::grant("/room", granted.clone(), after(5)), Err(Refusal::Expired));
    assert_eq!(Policy::grant("/a/../b", granted, now()), Err(Refusal::Malformed));
    assert_eq!(Policy::grant("/room", Granted::default(), now()), Err(Refusal::Unauthorized));
}

#[test]
fn cluster_peer_has_all_rights_below_its_path_until_not_after() {
    let permit = Policy::peer("/a", "relay-2", after(5), now()).unwrap();
    assert!(permit.is_peer() && permit.subject() == Some("relay-2") && permit.expires() == Some(after(5)));
    assert_eq!((permit.publish(), permit.subscribe()), (&Scope::of([path("a")]), &Scope::of([path("a")])));
    assert_eq!(Policy::peer("/a", "relay-2", after(5), after(5)), Err(Refusal::Expired));
    assert_eq!(Policy::peer("/.", "relay-2", after(5), now()), Err(Refusal::Malformed));
}

mod attacks;

proptest::proptest! {
    #[test]
    fn no_target_panics_and_no_root_holds_what_is_refused(raw in "[%/.?&=a-f0-9jwt\\PC]{0,64}") {
        if let Ok(permit) = open().admit(&raw, now()) {
            let root = permit.root().as_str();
            assert!(root.is_empty() || root.split('/').all(|s| !matches!(s, "" | "." | "..")));
            assert!(!root.contains(char::is_control));
        }
    }

    #[test]
    fn an_escaped_name_comes_back_as_it_was(name in "[^/\\p{C}]{1,40}") {
        proptest::prop_assume!(name != "." && name != "..");
        let escaped: String = name.bytes().map(|b| format!("%{b:02x}")).collect();
        let permit = open().admit(&format!("/{escaped}"), now()).unwrap();
        assert_eq!(permit.root().as_str(), name);
    }
}
