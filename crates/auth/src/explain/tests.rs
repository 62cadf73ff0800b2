use std::time::Duration;

use relay_model::Path;

use super::*;

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn key(id: &str) -> Key {
    Key::generate(Algorithm::HS256, Some(id.parse().unwrap())).unwrap()
}

fn keys(key: &Key) -> Keys {
    let mut keys = Keys::new();
    keys.insert(key.clone()).unwrap();
    keys
}

#[test]
fn all_that_is_wrong_is_said() {
    let scope = Claims::read(br#"{"root":"a","get":""}"#).unwrap().grants;
    let (ours, other) = (key("k").with_scope(scope).unwrap(), key("other"));
    let header = |id: &str| format!(r#"{{"alg":"HS256","kid":"{id}"}}"#);
    let old = r#"{"root":"b","get":"","exp":1700000000}"#;
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let explained = |key: &Key, id: &str, claims: &str| {
        explain(&key.seal(&header(id), claims).unwrap(), &keys(&ours), &Expected::default(), now())
    };
    let verdict = explained(&ours, "k", old);
    assert_eq!(verdict.errors, [TokenError::ExceedsKey, TokenError::Expired { at }]);
    assert_eq!((verdict.key.as_ref(), verdict.is_only_untimely()), (Some(&ours), false));
    let verdict = explained(&other, "other", old);
    assert_eq!(
        verdict.errors,
        [TokenError::UnknownKey(Some("other".parse().unwrap())), TokenError::Expired { at }]
    );
    let verdict = explained(&other, "k", "{}");
    assert_eq!(verdict.errors, [TokenError::BadSignature, TokenError::Useless]);
    let verdict = explained(&ours, "k", r#"{"root":"a","get":"","exp":1700000000}"#);
    assert!(verdict.is_only_untimely() && !verdict.is_valid());
    let verdict = explained(&ours, "k", r#"{"root":"a","get":"b"}"#);
    assert!(verdict.is_valid() && !verdict.is_only_untimely());
    let verdict = explain("no token", &keys(&ours), &Expected::default(), now());
    assert_eq!((verdict.token, verdict.errors), (None, vec![TokenError::Shape]));
}

#[test]
fn a_token_holds_for_a_person_exactly_when_it_does_for_a_relay() {
    let key = key("k");
    for claims in [
        r#"{"get":""}"#,
        r#"{"get":"","exp":1}"#,
        r#"{"get":"","nbf":1800000061}"#,
        "{}",
        r#"{"get":"..","exp":"x"}"#,
        r#"{"get":"","aud":"somebody"}"#,
    ] {
        let token = key.seal(r#"{"alg":"HS256","kid":"k"}"#, claims).unwrap();
        let verdict = explain(&token, &keys(&key), &Expected::default(), now());
        assert_eq!(
            verdict.is_valid(),
            keys(&key).verify(&token, &Expected::default(), now()).is_ok(),
            "{claims}"
        );
    }
}

#[test]
fn what_a_token_grants_at_a_path_is_what_a_session_there_gets() {
    let key = key("k");
    let token = key.seal(r#"{"alg":"HS256"}"#, r#"{"root":"room","put":"alice","get":""}"#).unwrap();
    let verdict = explain(&token, &keys(&key), &Expected::default(), now());
    let root = Path::parse("room/alice").unwrap();
    let permit = crate::Policy::public(relay_model::Scope::nothing(), relay_model::Scope::nothing())
        .with_keys(keys(&key))
        .admit(&format!("/room/alice?jwt={token}"), now())
        .unwrap();
    let grants = &verdict.claims().unwrap().grants;
    assert_eq!(grants.at(&root), Some((permit.publish().clone(), permit.subscribe().clone())));
    assert_eq!(grants.at(&Path::parse("other").unwrap()), None);
    assert_eq!(inspect(&token).unwrap().claims.as_ref().ok(), verdict.claims());
}

#[test]
fn claims_that_decide_nothing_are_named() {
    let key = key("k");
    let claims = r#"{"root":"room","get":"","iat":1,"iss":"x","jti":"x","cluster":true}"#;
    let token = key.seal(r#"{"alg":"HS256"}"#, claims).unwrap();
    assert_eq!(inspect(&token).unwrap().ignored, ["cluster", "jti"]);
}
