use std::time::Duration;

use super::*;
use crate::Algorithm;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn key(id: Option<&str>) -> Key {
    Key::generate(Algorithm::HS256, id.map(|id| id.parse().unwrap())).unwrap()
}

fn set(keys: &[&Key]) -> Keys {
    let mut set = Keys::new();
    for key in keys {
        set.insert((*key).clone()).unwrap();
    }
    set
}

fn token(key: &Key) -> String {
    key.sign(&Claims::read(br#"{"get":""}"#).unwrap()).unwrap()
}

#[test]
fn a_token_is_its_keys() {
    let (a, b) = (key(Some("a")), key(Some("b")));
    let (plain, other) = (key(None), key(None));
    // A key that has a name now, and had none when the token was made.
    let unnamed = Key::parse(&a.to_json().replace(r#""kid":"a","#, "")).unwrap();
    let verify = |keys: &[&Key], token: &str| set(keys).verify(token, now()).map(drop);
    let unknown = |id: Option<&str>| Err(Flaw::UnknownKey(id.map(|id| id.parse().unwrap())));
    for (keys, token, expected) in [
        (&[&a, &b][..], token(&a), Ok(())),
        (&[&a, &b, &plain], token(&b), Ok(())),
        (&[&b], token(&a), unknown(Some("a"))),
        (&[], token(&a), unknown(Some("a"))),
        // Without a name: the only key, or those without one.
        (&[&a], token(&unnamed), Ok(())),
        (&[&a, &b], token(&unnamed), unknown(None)),
        (&[&a, &b, &plain], token(&plain), Ok(())),
        (&[&plain, &other], token(&other), Ok(())),
        (&[&a, &plain], token(&unnamed), Err(Flaw::BadSignature)),
        (&[], token(&plain), unknown(None)),
        // A key without a name takes a token that names it.
        (&[&unnamed], token(&a), Ok(())),
        (&[&plain], token(&a), unknown(Some("a"))),
    ] {
        assert_eq!(verify(keys, &token), expected, "{keys:?}");
    }
}

#[test]
fn a_set_is_read_without_the_keys_that_are_no_good() {
    let (a, b) = (key(Some("a")), key(None));
    let text = format!(r#"{{"keys":[{},{{"kty":"OKP","alg":"X25519"}},7,{}]}}"#, a.to_json(), b.to_json());
    let (keys, faults) = Keys::parse(&text).unwrap();
    assert_eq!(keys, set(&[&a, &b]));
    assert_eq!(faults, [(1, KeyError::Algorithm), (2, KeyError::Field("keys"))]);
    assert_eq!(Keys::parse(&a.to_base64url()).unwrap().0, set(&[&a]), "one key is a set");
    assert_eq!(Keys::parse(r#"{"keys":7}"#).map(drop), Err(KeyError::Field("keys")));
    assert!(Keys::parse(r#"{"keys":[]}"#).unwrap().0.is_empty());
}

#[test]
fn two_keys_do_not_share_a_name() {
    let (a, other) = (key(Some("a")), key(Some("a")));
    let mut keys = set(&[&a, &a]);
    assert_eq!((keys.len(), keys.insert(other.clone())), (1, Err(KeyError::SameId)));
    assert!(keys.holds(a.mark()) && !keys.holds(other.mark()));
}

#[test]
fn a_set_has_a_limit() {
    let mut keys = Keys::new();
    for _ in 0..NAMELESS_KEYS {
        keys.insert(key(None)).unwrap();
    }
    assert_eq!(keys.insert(key(None)), Err(KeyError::TooMany));
    for at in keys.len()..KEYS {
        keys.insert(key(Some(&at.to_string()))).unwrap();
    }
    assert_eq!(keys.insert(key(Some("more"))), Err(KeyError::TooMany));
}
