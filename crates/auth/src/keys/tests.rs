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
    // The same key without its `kid`.
    let unnamed = Key::parse(&a.to_json().replace(r#""kid":"a","#, "")).unwrap();
    let verify = |keys: &[&Key], token: &str| set(keys).verify(token, &Expected::default(), now()).map(drop);
    let unknown = |id: Option<&str>| Err(TokenError::UnknownKey(id.map(|id| id.parse().unwrap())));
    for (keys, token, expected) in [
        (&[&a, &b][..], token(&a), Ok(())),
        (&[&a, &b, &plain], token(&b), Ok(())),
        (&[&b], token(&a), unknown(Some("a"))),
        (&[], token(&a), unknown(Some("a"))),
        // Without `kid`: the only key, or the keys without `kid`.
        (&[&a], token(&unnamed), Ok(())),
        (&[&a, &b], token(&unnamed), unknown(None)),
        (&[&a, &b, &plain], token(&plain), Ok(())),
        (&[&plain, &other], token(&other), Ok(())),
        (&[&a, &plain], token(&unnamed), Err(TokenError::BadSignature)),
        (&[], token(&plain), unknown(None)),
        // A key without `kid` verifies a token with one.
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
fn sets_of_identity_providers_are_read() {
    let rsa = |text: &str| Key::parse(text).unwrap().public().unwrap().to_json();
    let jwk = rsa(&Key::generate(Algorithm::RS256, None).unwrap().to_json());
    let with = |fields: &str| {
        let mut value: serde_json::Value = serde_json::from_str(&jwk).unwrap();
        let fields: serde_json::Value = serde_json::from_str(fields).unwrap();
        let object = value.as_object_mut().unwrap();
        object.remove("alg");
        object.remove("key_ops");
        object.extend(fields.as_object().unwrap().clone());
        value.to_string()
    };
    let names = |keys: &Keys| -> Vec<(String, Algorithm)> {
        keys.iter_named().map(|(id, key)| (id.as_str().to_owned(), key.algorithm())).collect()
    };
    let read = |keys: &[String]| Keys::parse(&format!(r#"{{"keys":[{}]}}"#, keys.join(","))).unwrap();
    // Encryption keys in the set are not an error; `alg` may be absent; any text is a valid `kid`.
    let odd = "J4j+I06r0I0vpYnBNucugV8xAPV5/Xv4uYrrpwwSNK0=";
    let (keys, faults) = read(&[
        with(r#"{"use":"enc","alg":"RSA-OAEP","kid":"e"}"#),
        with(r#"{"use":"enc","alg":"RS256","kid":"e"}"#),
        with(r#"{"use":"sig","kid":"azure","x5t":"azure","x5c":["MII="]}"#),
        with(&format!(r#"{{"alg":"RS512","kid":"{odd}"}}"#)),
        with(&format!(r#"{{"alg":"RS256","kid":"{odd}"}}"#)),
    ]);
    assert_eq!(faults, []);
    let expected = [(odd, Algorithm::RS256), (odd, Algorithm::RS512), ("azure", Algorithm::RS256)];
    assert_eq!(names(&keys), expected.map(|(id, algorithm)| (id.to_owned(), algorithm)));
    // A secret without `alg` is rejected.
    let secret = r#"{"kty":"oct","kid":"s","k":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}"#.to_owned();
    assert_eq!(read(&[secret]).1, [(0, KeyError::Missing("alg"))]);
    let long = with(&format!(r#"{{"kid":"{}"}}"#, "k".repeat(crate::KEY_ID_BYTES + 1)));
    assert_eq!(read(&[long]).1, [(0, KeyError::Id)]);
}

#[test]
fn a_public_key_without_alg_has_that_of_its_kind() {
    for algorithm in [Algorithm::RS256, Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA] {
        let key = Key::generate(algorithm, Some("k".parse().unwrap())).unwrap();
        let named = key.public().unwrap().to_json();
        let bare = named.replace(&format!(r#""alg":"{algorithm}","#), "");
        assert_ne!(named, bare);
        assert_eq!(Key::parse(&bare).unwrap(), Key::parse(&named).unwrap());
        assert!(
            set(&[&Key::parse(&bare).unwrap()]).verify(&token(&key), &Expected::default(), now()).is_ok()
        );
    }
    for other in
        [r#"{"kty":"EC","crv":"P-521","x":"AA","y":"AA"}"#, r#"{"kty":"OKP","crv":"X25519","x":"AA"}"#]
    {
        assert_eq!(Key::parse(other).map(drop), Err(KeyError::Missing("alg")), "{other}");
    }
}

#[test]
fn kid_and_alg_together_name_a_key() {
    let [first, second, third] = [Algorithm::HS512, Algorithm::HS256, Algorithm::ES256]
        .map(|it| Key::generate(it, Some("a".parse().unwrap())).unwrap());
    let plain = key(None);
    let verify =
        |keys: &[&Key], by: &Key| set(keys).verify(&token(by), &Expected::default(), now()).map(drop);
    for by in [&first, &second, &third] {
        assert_eq!(verify(&[&first, &second, &third], by), Ok(()));
    }
    // A known `kid` with another algorithm is not an unknown key, and keys without `kid` are not tried.
    let other = Err(TokenError::OtherAlgorithm { token: Algorithm::HS256, key: Algorithm::HS512 });
    assert_eq!(verify(&[&first, &plain], &second), other);
    let mut keys = set(&[&first, &second, &third, &plain]);
    let id = "a".parse().unwrap();
    assert!(keys.get(&id, Algorithm::HS256).is_some() && keys.get(&id, Algorithm::EdDSA).is_none());
    keys.remove(&id);
    assert_eq!(keys, set(&[&plain]));
}

#[test]
fn two_keys_do_not_share_a_name() {
    let (a, other) = (key(Some("a")), key(Some("a")));
    let mut keys = set(&[&a, &a]);
    assert_eq!((keys.len(), keys.insert(other.clone())), (1, Err(KeyError::SameId)));
    assert!(keys.contains(a.mark()) && !keys.contains(other.mark()));
}

#[test]
fn a_set_may_be_longer_than_a_key() {
    let jwk = Key::generate(Algorithm::RS256, None).unwrap().public().unwrap().to_json();
    let chain = "M".repeat(2_048);
    let with = |kid: usize| {
        let mut value: serde_json::Value = serde_json::from_str(&jwk).unwrap();
        let object = value.as_object_mut().unwrap();
        object.insert("kid".into(), kid.to_string().into());
        object.insert("x5c".into(), vec![chain.clone()].into());
        value.to_string()
    };
    let set = |count| format!(r#"{{"keys":[{}]}}"#, (0..count).map(with).collect::<Vec<_>>().join(","));
    let text = set(60);
    assert!(text.len() > KEY_BYTES);
    let (keys, faults) = Keys::parse(&text).unwrap();
    assert_eq!((keys.len(), faults), (60, vec![]));
    let key = format!(r#"{{"x5c":["{}"],{}"#, "M".repeat(KEY_BYTES), &jwk[1..]);
    assert_eq!(Keys::parse(&key), Err(KeyError::TooLong(KEY_BYTES)));
    let long = format!("{}{}", " ".repeat(SET_BYTES), set(1));
    assert!(Keys::parse(&long).is_ok(), "space does not count");
    assert_eq!(Keys::parse(&set(200)), Err(KeyError::TooLong(SET_BYTES)));
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
