use std::time::Duration;

use relay_model::Pattern;

use super::*;

const SECRET: &str = "AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow";

fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000)
}

fn key(json: &str) -> Key {
    Key::parse(json).unwrap()
}

fn claims() -> Claims {
    let publish = vec![Pattern::parse("alice/**").unwrap()];
    Claims { grants: Grants { publish, ..Grants::default() }, ..Claims::default() }
}

/// Examples of RFC 7515 (Appendix A.1, A.3) and RFC 8037 (Appendix A.4).
const EXAMPLES: &[(&str, &str)] = &[
    (
        r#"{"kty":"oct","alg":"HS256","k":"AyM1SysPpbyDfgZld3umj1qzKObwVMkoqQ-EstJQLr_T-1qS0gZH75aKtMN3Yj0iPS4hcgUuTwjAzZr1Z9CAow"}"#,
        "eyJ0eXAiOiJKV1QiLA0KICJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6\
         Ly9leGFtcGxlLmNvbS9pc19yb290Ijp0cnVlfQ.dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk",
    ),
    (
        r#"{"kty":"EC","alg":"ES256","crv":"P-256","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0","d":"jpsQnnGQmL-YBIffH1136cspYG6-0iY7X1fCE9-E9LI"}"#,
        "eyJhbGciOiJFUzI1NiJ9.eyJpc3MiOiJqb2UiLA0KICJleHAiOjEzMDA4MTkzODAsDQogImh0dHA6Ly9leGFtcGxlLmNvbS9p\
         c19yb290Ijp0cnVlfQ.DtEhU3ljbEg8L38VWAfUAqOyKAM6-Xx-F4GawxaepmXFCgfTjDxw5djxLa8ISlSApmWQxfKTUJqPP3\
         -Kg6NU1Q",
    ),
    (
        r#"{"kty":"OKP","alg":"EdDSA","crv":"Ed25519","d":"nWGxne_9WmC6hEr0kuwsxERJxWl7MmkZcDusAxyuf2A","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}"#,
        "eyJhbGciOiJFZERTQSJ9.RXhhbXBsZSBvZiBFZDI1NTE5IHNpZ25pbmc.hgyY0il_MGCjP0JzlnLWG1PPOt7-09PGcvMg3AIb\
         QR6dWbhijcNR4ki4iylGjg5BhVsPt9g7sVvpAr_MuM0KAg",
    ),
];

#[test]
fn the_examples_of_the_standards_verify() {
    for (json, token) in EXAMPLES {
        let key = key(json);
        assert_eq!(key.check_signature(&Token::parse(token).unwrap()), Ok(()), "{key:?}");
        let other = token.replacen(".e", ".f", 1).replacen(".RX", ".RY", 1);
        assert_eq!(
            key.check_signature(&Token::parse(&other).unwrap()),
            Err(TokenError::BadSignature),
            "{key:?}"
        );
    }
}

#[test]
fn a_key_comes_back_as_it_was_written() {
    for algorithm in Algorithm::ALL {
        let made = Key::generate(algorithm, Some("a_B-9".parse().unwrap())).unwrap();
        for text in [made.to_json(), made.to_base64url(), format!("\n {} \n", made.to_json())] {
            let read = key(&text);
            assert_eq!(read, made, "{algorithm}");
            assert!(read.may_sign() && read.may_verify() && read.is_private());
            assert_eq!(made.verify(&read.sign(&claims()).unwrap(), now()), Ok(claims()), "{algorithm}");
        }
        assert_ne!(Key::generate(algorithm, None).unwrap(), made);
    }
}

#[test]
fn an_old_key_is_read() {
    // No `kty`, no `key_ops`, padding, and obsolete fields.
    let old = key(&format!(r#"{{"alg":"HS256","k":"{SECRET}==","guest":["x"],"guest_sub":["y"]}}"#));
    assert!(old.may_sign() && old.may_verify());
    assert_eq!(
        old,
        key(&format!(r#"{{"kty":"oct","alg":"HS256","k":"{SECRET}","key_ops":["verify","sign"]}}"#))
    );
    assert_eq!(old.id(), None);
    let json = old.to_json();
    let padded = [2, 1, 0].map(|spaces| {
        let json = format!("{json}{}", " ".repeat((spaces + 6 - json.len() % 3) % 3));
        base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE, json)
    });
    assert!(padded.iter().any(|text| text.ends_with("==")), "{padded:?}");
    assert!(padded.iter().all(|text| Key::parse(text).as_ref() == Ok(&old)));
}

#[test]
fn a_text_that_is_no_key_is_refused_with_the_reason() {
    let with = |fields: &str| Key::parse(&format!(r#"{{"alg":"HS256","k":"{SECRET}"{fields}}}"#)).map(drop);
    let of = |json: &str| Key::parse(json).map(drop);
    let secret =
        |bytes: usize| of(&format!(r#"{{"alg":"HS256","k":"{}"}}"#, encoding::encode(&vec![7; bytes])));
    assert_eq!(with(""), Ok(()));
    assert_eq!(of(""), Err(KeyError::Json(crate::ObjectError::Syntax)));
    assert_eq!(of("not a key!"), Err(KeyError::Encoding));
    assert_eq!(of(&" ".repeat(KEY_BYTES + 1)), Err(KeyError::Json(crate::ObjectError::Syntax)), "only space");
    assert_eq!(of(&"x".repeat(KEY_BYTES + 1)), Err(KeyError::TooLong(KEY_BYTES)));
    assert_eq!(with(r#","k":"x""#), Err(KeyError::Json(crate::ObjectError::Twice)));
    assert_eq!(of("{}"), Err(KeyError::Missing("alg")));
    assert_eq!(of(r#"{"alg":"none","k":"x"}"#), Err(KeyError::Algorithm));
    assert_eq!(of(r#"{"alg":"HS256"}"#), Err(KeyError::Missing("k")));
    assert_eq!(of(r#"{"alg":"HS256","k":7}"#), Err(KeyError::Field("k")));
    assert_eq!(of(r#"{"alg":"HS256","k":"a b"}"#), Err(KeyError::Field("k")));
    assert_eq!((secret(31), secret(32)), (Err(KeyError::ShortSecret(31)), Ok(())));
    assert_eq!(with(r#","kid":"../x""#), Ok(()));
    assert_eq!(with(r#","kid":7"#), Err(KeyError::Field("kid")));
    assert_eq!(with(&format!(r#","kid":"{}""#, "k".repeat(crate::KEY_ID_BYTES + 1))), Err(KeyError::Id));
    assert_eq!(with(r#","use":"enc""#), Err(KeyError::Purpose));
    assert_eq!(with(r#","key_ops":[]"#), Err(KeyError::Useless));
    assert_eq!(with(r#","key_ops":"sign""#), Err(KeyError::Field("key_ops")));
    assert_eq!(with(r#","scope":{"root":"a"}"#), Err(KeyError::Scope("grants nothing".to_owned())));
    assert!(matches!(with(r#","scope":{"get":"a","roots":"b"}"#), Err(KeyError::Scope(_))));
    assert!(matches!(with(r#","scope":"a""#), Err(KeyError::Scope(_))));
    assert_eq!(with(r#","scope":{"get":["a"]}"#), Ok(()));
}

#[test]
fn an_algorithm_takes_only_keys_of_its_kind() {
    let keys = Algorithm::ALL.map(|algorithm| Key::generate(algorithm, None).unwrap());
    for key in &keys {
        for other in Algorithm::ALL {
            let json = key.to_json().replace(key.algorithm().name(), other.name());
            let fits = other.family() == key.algorithm().family();
            assert_eq!(Key::parse(&json).is_ok(), fits, "{} as {other}", key.algorithm());
        }
    }
}

#[test]
fn halves_that_do_not_fit_are_no_key() {
    for algorithm in [Algorithm::ES256, Algorithm::ES384, Algorithm::EdDSA, Algorithm::RS256] {
        let [one, two] = [0, 1].map(|_| -> Value {
            serde_json::from_str(&Key::generate(algorithm, None).unwrap().to_json()).unwrap()
        });
        let mut mixed = one.clone();
        mixed["d"] = two["d"].clone();
        assert_eq!(Key::parse(&mixed.to_string()).map(drop), Err(KeyError::Rejected), "{algorithm}");
        assert!(Key::parse(&one.to_string()).is_ok());
    }
    let mut point: Value =
        serde_json::from_str(&Key::generate(Algorithm::ES256, None).unwrap().public().unwrap().to_json())
            .unwrap();
    point["x"] = encoding::encode(&[1; 32]).into();
    assert_eq!(Key::parse(&point.to_string()).map(drop), Err(KeyError::Rejected), "not on the curve");
    point["x"] = encoding::encode(&[1; 31]).into();
    assert_eq!(Key::parse(&point.to_string()).map(drop), Err(KeyError::Field("x")));
}

#[test]
fn an_rsa_key_is_neither_weak_nor_a_way_to_keep_us_busy() {
    let of = |bytes: usize, e: &[u8]| {
        let n = [&[0, 0xff], vec![0xff; bytes - 1].as_slice()].concat();
        let json =
            json!({ "kty": "RSA", "alg": "PS256", "n": encoding::encode(&n), "e": encoding::encode(e) });
        Key::parse(&json.to_string()).map(drop)
    };
    assert_eq!(of(255, &[1, 0, 1]), Err(KeyError::Size(2_040)));
    assert_eq!((of(256, &[1, 0, 1]), of(256, &[0, 0, 3])), (Ok(()), Ok(())));
    assert_eq!(of(1_025, &[1, 0, 1]), Err(KeyError::Size(8_200)));
    for e in [&[][..], &[0], &[1], &[4], &[1, 0, 0, 0, 1]] {
        assert_eq!(of(256, e), Err(KeyError::Field("e")), "{e:?}");
    }
}

#[test]
fn a_public_half_holds_no_secret_and_signs_nothing() {
    for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric()) {
        let key = Key::generate(algorithm, None).unwrap();
        let public = key.public().unwrap();
        let json: Value = serde_json::from_str(&public.to_json()).unwrap();
        for name in ["d", "p", "q", "dp", "dq", "qi", "k"] {
            assert_eq!(json.get(name), None, "{algorithm}");
        }
        assert_eq!(json["key_ops"], json!(["verify"]));
        assert_eq!(public.sign(&claims()), Err(SignError::CannotSign));
        assert_eq!(public.mark(), key.mark());
    }
    let secret = Key::generate(Algorithm::HS256, None).unwrap();
    assert_eq!(secret.public().map(drop), Err(KeyError::NoPublicHalf));
}

#[test]
fn a_key_does_only_what_its_operations_say() {
    let with = |operations: &str| {
        key(&format!(r#"{{"alg":"HS256","k":"{SECRET}","key_ops":["{operations}","encrypt"]}}"#))
    };
    let (signer, verifier) = (with("sign"), with("verify"));
    let token = signer.sign(&claims()).unwrap();
    assert_eq!(verifier.verify(&token, now()), Ok(claims()));
    assert_eq!(signer.verify(&token, now()), Err(TokenError::KeyCannotVerify));
    assert_eq!(verifier.sign(&claims()), Err(SignError::CannotSign));
    // A public half with `key_ops` of only `sign` is useless.
    let pair = Key::generate(Algorithm::EdDSA, None).unwrap().public().unwrap().to_json();
    assert_eq!(Key::parse(&pair.replace("verify", "sign")).map(drop), Err(KeyError::Useless));
}

#[test]
fn a_key_never_shows_its_secret() {
    for algorithm in Algorithm::ALL {
        let key = Key::generate(algorithm, None).unwrap();
        let json: Value = serde_json::from_str(&key.to_json()).unwrap();
        let mut keys = crate::Keys::new();
        keys.insert(key.clone()).unwrap();
        let token = key.sign(&claims()).unwrap();
        let shown = format!(
            "{key:?} {keys:?} {:?} {:?}",
            key.mark(),
            crate::explain(&token, &keys, &Expected::default(), now())
        );
        for name in ["k", "d", "p", "q"] {
            if let Some(secret) = json.get(name).and_then(Value::as_str) {
                assert!(!shown.contains(secret), "{algorithm} {name}");
            }
        }
        assert!(!shown.contains(token.rsplit('.').next().unwrap()), "{algorithm}");
    }
}

#[test]
fn a_token_that_no_relay_would_take_is_not_signed() {
    let key = Key::generate(Algorithm::HS256, None).unwrap();
    assert_eq!(key.sign(&Claims::default()), Err(SignError::Useless));
    let subject = |length: usize| Claims { subject: Some("s".repeat(length).into()), ..claims() };
    assert!(key.sign(&subject(crate::SUBJECT_BYTES)).is_ok());
    assert!(matches!(key.sign(&subject(crate::SUBJECT_BYTES + 1)), Err(SignError::Refused(_))));
    let dots = vec![Pattern::parse("../a").unwrap()];
    let dots = Claims { grants: Grants { subscribe: dots, ..Grants::default() }, ..Claims::default() };
    assert!(matches!(key.sign(&dots), Err(SignError::Refused(_))));
    let publish: Vec<Pattern> = (0..crate::GRANTS)
        .map(|at| Pattern::parse(&format!("{at}-with-a-very-long-name/**")).unwrap())
        .collect();
    let long = Claims { grants: Grants { publish, ..Grants::default() }, ..Claims::default() };
    assert!(matches!(key.sign(&long), Err(SignError::TooLong(_))));
}
