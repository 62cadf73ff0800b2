//! Attacks known to have succeeded against other verifiers, each next to the same token in its valid form.

use std::sync::OnceLock;

use aws_lc_rs::hmac;
use serde_json::json;

use super::*;
use crate::{Expected, encoding::encode};

const CLAIMS: &str = r#"{"root":"room","put":"","get":""}"#;

/// Returns a key of each algorithm. Generating RSA keys is slow, so that they share one.
fn key_of(algorithm: Algorithm) -> &'static Key {
    static KEYS: OnceLock<Vec<Key>> = OnceLock::new();
    let make = || {
        let rsa = key(Algorithm::RS256, "k").to_json();
        let of = |algorithm: Algorithm| match algorithm.name().as_bytes() {
            [b'R' | b'P', ..] => Key::parse(&rsa.replace("RS256", algorithm.name())).unwrap(),
            _ => key(algorithm, "k"),
        };
        Algorithm::ALL.map(of).to_vec()
    };
    KEYS.get_or_init(make).iter().find(|key| key.algorithm() == algorithm).unwrap()
}

fn header(algorithm: &str) -> String {
    json!({ "alg": algorithm, "kid": "k" }).to_string()
}

fn try_token(key: &Key, token: &str) -> Result<Permit, Refusal> {
    Policy::public(Scope::nothing(), Scope::nothing())
        .with_keys(keys(&[key]))
        .admit(&format!("/room?jwt={token}"), now())
}

/// Assembles a token with an arbitrary signature.
fn forged(header: &str, payload: &str, signature: &[u8]) -> String {
    format!("{}.{}.{}", encode(header.as_bytes()), encode(payload.as_bytes()), encode(signature))
}

#[test]
fn every_algorithm_is_accepted_with_either_half_of_its_key() {
    for algorithm in Algorithm::ALL {
        let key = key_of(algorithm);
        let token = key.sign(&claims(CLAIMS)).unwrap();
        assert!(try_token(key, &token).is_ok(), "{algorithm}");
        match key.public() {
            Ok(public) => {
                assert!(!public.is_private() && !public.may_sign());
                assert!(try_token(&public, &token).is_ok(), "{algorithm}");
                let read = Key::parse(&public.to_json()).unwrap();
                assert_eq!(read, public);
            }
            Err(error) => assert!(algorithm.is_symmetric(), "{error}"),
        }
    }
}

#[test]
fn no_spelling_of_none_is_an_algorithm() {
    for algorithm in Algorithm::ALL {
        let key = key_of(algorithm);
        for none in ["none", "None", "NONE", "nOnE", "none ", "", "null", "hs256", "HS256 ", "RS1", "ES512"] {
            for signature in [&b""[..], b"\0", &[0; 64]] {
                let token = forged(&header(none), CLAIMS, signature);
                assert_eq!(try_token(key, &token), Err(Refusal::MalformedToken), "{none:?}");
            }
            let signed = key.seal(&header(none), CLAIMS).unwrap();
            assert_eq!(try_token(key, &signed), Err(Refusal::MalformedToken), "{none:?}");
        }
        for odd in [r#"{"alg":null}"#, r#"{"alg":["HS256"]}"#, r#"{"alg":true}"#, "{}", r#"{"Alg":"HS256"}"#]
        {
            assert_eq!(
                try_token(key, &key.seal(odd, CLAIMS).unwrap()),
                Err(Refusal::MalformedToken),
                "{odd}"
            );
        }
        assert!(try_token(key, &key.seal(&header(algorithm.name()), CLAIMS).unwrap()).is_ok());
    }
}

/// Encodes a DER element.
fn der(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap().to_be_bytes();
    [&[tag, 0x82], &length[..], body].concat()
}

#[test]
fn a_public_key_is_no_secret_to_sign_with() {
    for algorithm in Algorithm::ALL.into_iter().filter(|algorithm| !algorithm.is_symmetric()) {
        let key = key_of(algorithm);
        let public = key.public().unwrap();
        let jwk: serde_json::Value = serde_json::from_str(&public.to_json()).unwrap();
        let number = |name: &str| {
            jwk.get(name)
                .map(|text| crate::encoding::decode(text.as_str().unwrap()).unwrap())
                .unwrap_or_default()
        };
        let raw = [number("n"), number("x"), number("y")].concat();
        let document =
            der(0x30, &[der(2, &[&[0], &number("n")[..]].concat()), der(2, &number("e"))].concat());
        let armoured = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, &document);
        let pem = format!("-----BEGIN PUBLIC KEY-----\n{armoured}\n-----END PUBLIC KEY-----\n");
        let secrets = [
            raw.clone(),
            [&[4], &raw[..]].concat(),
            document,
            pem.trim_end().as_bytes().to_vec(),
            pem.into_bytes(),
            public.to_json().into_bytes(),
            public.to_base64url().into_bytes(),
            Vec::new(),
        ];
        for secret in secrets {
            for (name, theirs) in [("HS256", hmac::HMAC_SHA256), ("HS512", hmac::HMAC_SHA512)] {
                let signed = format!("{}.{}", encode(header(name).as_bytes()), encode(CLAIMS.as_bytes()));
                let tag = hmac::sign(&hmac::Key::new(theirs, &secret), signed.as_bytes());
                let token = format!("{signed}.{}", encode(tag.as_ref()));
                assert_eq!(try_token(key, &token), Err(Refusal::BadSignature), "{algorithm}");
            }
        }
        assert!(try_token(key, &key.sign(&claims(CLAIMS)).unwrap()).is_ok());
    }
}

#[test]
fn only_the_algorithm_of_the_key_counts() {
    for algorithm in Algorithm::ALL {
        let key = key_of(algorithm);
        for other in Algorithm::ALL.into_iter().filter(|other| *other != algorithm) {
            // Signed by this key under another `alg`, and by a key of another algorithm under this `alg`.
            let renamed = key.seal(&header(other.name()), CLAIMS).unwrap();
            assert_eq!(try_token(key, &renamed), Err(Refusal::BadSignature), "{algorithm} as {other}");
            let signed = key_of(other).seal(&header(algorithm.name()), CLAIMS).unwrap();
            assert_eq!(try_token(key, &signed), Err(Refusal::BadSignature), "{other} as {algorithm}");
        }
        assert!(try_token(key, &key.seal(&header(algorithm.name()), CLAIMS).unwrap()).is_ok());
    }
}

#[test]
fn a_signature_is_whole_or_nothing() {
    for algorithm in Algorithm::ALL {
        let key = key_of(algorithm);
        let good = key.sign(&claims(CLAIMS)).unwrap();
        let (signed, signature) = good.rsplit_once('.').unwrap();
        let bytes = crate::encoding::decode(signature).unwrap();
        let refused = |token: &str, what: &str| {
            let got = try_token(key, token).unwrap_err();
            assert!(
                matches!(got, Refusal::BadSignature | Refusal::MalformedToken),
                "{algorithm} {what}: {got}"
            );
        };
        refused(&format!("{signed}."), "stripped");
        refused(signed, "stripped with its dot");
        refused(&format!("{signed}.{}", encode(&vec![0; bytes.len()])), "zeros");
        refused(&format!("{signed}.{}", encode(&vec![0xff; bytes.len()])), "ones");
        refused(&format!("{signed}.{}", encode(&[&bytes[..], &[0]].concat())), "longer");
        for length in [1, bytes.len() / 2, bytes.len() - 1] {
            refused(&format!("{signed}.{}", encode(&bytes[..length])), "shorter");
        }
        for at in [0, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.clone();
            flipped[at] ^= 1;
            refused(&format!("{signed}.{}", encode(&flipped)), "flipped");
        }
        for other in [
            format!("{good}="),
            format!("{good}.x"),
            format!(".{good}"),
            format!("{good} "),
            good.replace('.', ".."),
        ] {
            refused(&other, "another shape");
        }
        // Other claims with this signature.
        let header = signed.split('.').next().unwrap();
        let wider = encode(br#"{"root":"","put":"","get":""}"#);
        refused(&format!("{header}.{wider}.{signature}"), "other claims");
        assert!(try_token(key, &good).is_ok(), "{algorithm}");
    }
}

#[test]
fn a_key_id_is_never_a_path() {
    let key = key_of(Algorithm::HS256);
    for id in ["../k", "..", ".", "/etc/passwd", "k/../k", "k\0", "a b", "", "k.jwk", "%6b", "é", "K", "k "]
    {
        let token = key.seal(&json!({ "alg": "HS256", "kid": id }).to_string(), CLAIMS).unwrap();
        assert_eq!(try_token(key, &token), Err(Refusal::UnknownKey), "{id:?}");
        let policy = open().with_keys(keys(&[key]));
        let missing = policy.missing_key(&format!("/?jwt={token}")).unwrap().0.unwrap();
        assert_eq!(missing.as_str(), id);
        if id != "K" {
            assert_eq!(missing.file_stem(), None, "{id:?}");
        }
    }
    let long = "k".repeat(crate::KEY_ID_BYTES + 1);
    let token = key.seal(&json!({ "alg": "HS256", "kid": long }).to_string(), CLAIMS).unwrap();
    assert_eq!(try_token(key, &token), Err(Refusal::MalformedToken));
    for odd in [r#"{"alg":"HS256","kid":7}"#, r#"{"alg":"HS256","kid":["k"]}"#] {
        assert_eq!(try_token(key, &key.seal(odd, CLAIMS).unwrap()), Err(Refusal::MalformedToken), "{odd}");
    }
    assert!("k".repeat(crate::KEY_ID_BYTES).parse::<KeyId>().is_ok());
    assert!(try_token(key, &key.seal(&header("HS256"), CLAIMS).unwrap()).is_ok());
    assert!(
        try_token(key, &key.seal(r#"{"alg":"HS256"}"#, CLAIMS).unwrap()).is_ok(),
        "there is only one key"
    );
}

#[test]
fn a_token_does_not_say_which_key_verifies_it() {
    let (ours, theirs) = (key_of(Algorithm::ES256), key(Algorithm::ES256, "k"));
    let jwk: serde_json::Value = serde_json::from_str(&theirs.public().unwrap().to_json()).unwrap();
    for extra in [
        json!({ "jwk": jwk }),
        json!({ "jku": "https://evil.example/keys" }),
        json!({ "x5u": "https://evil.example/cert" }),
        json!({ "x5c": ["MIIB"] }),
    ] {
        let mut header: serde_json::Value = serde_json::from_str(&header("ES256")).unwrap();
        header.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
        let header = header.to_string();
        assert_eq!(try_token(ours, &theirs.seal(&header, CLAIMS).unwrap()), Err(Refusal::BadSignature));
        assert!(try_token(ours, &ours.seal(&header, CLAIMS).unwrap()).is_ok(), "ignored: {header}");
    }
}

#[test]
fn what_must_be_understood_is_refused() {
    let key = key_of(Algorithm::EdDSA);
    for crit in [r#"["b64"]"#, r#"["exp"]"#, "[]", "null", r#""exp""#] {
        let header = format!(r#"{{"alg":"EdDSA","kid":"k","b64":false,"crit":{crit}}}"#);
        assert_eq!(
            try_token(key, &key.seal(&header, CLAIMS).unwrap()),
            Err(Refusal::MalformedToken),
            "{crit}"
        );
    }
    for claims in [r#"{"root":"room","get":"","aud":"someone"}"#, r#"{"root":"room","get":"","aud":["a"]}"#] {
        assert_eq!(try_token(key, &key.seal(&header("EdDSA"), claims).unwrap()), Err(Refusal::OtherAudience));
    }
    assert!(try_token(key, &key.seal(&header("EdDSA"), CLAIMS).unwrap()).is_ok());
}

#[test]
fn a_time_is_a_finite_number_or_the_token_is_refused() {
    let key = key_of(Algorithm::HS256);
    let attempt = |claims: &str| try_token(key, &key.seal(&header("HS256"), claims).unwrap());
    for name in ["exp", "nbf", "iat"] {
        for value in [
            r#""1900000000""#,
            r#""1900000000.5""#,
            "1e400",
            "-1e400",
            "NaN",
            "Infinity",
            "1900000000.",
            ".5",
            "+1900000000",
            "0x71",
            "true",
            "[1900000000]",
            "{}",
        ] {
            let got = attempt(&format!(r#"{{"root":"room","get":"","{name}":{value}}}"#));
            assert_eq!(got, Err(Refusal::MalformedToken), "{name} = {value}");
        }
        assert!(attempt(&format!(r#"{{"root":"room","get":"","{name}":null}}"#)).is_ok(), "no {name}");
    }
    let far = attempt(r#"{"root":"room","get":"","exp":9223372036854775807,"iat":0,"nbf":0}"#);
    assert!(far.unwrap().expires().is_some());
    let expires = |exp: &str| attempt(&format!(r#"{{"root":"room","get":"","exp":{exp}}}"#));
    for past in ["0", "-1", "-0.5", "-1e300", "1800000000", "1799999999.999", "1.7e9", "18e8"] {
        assert_eq!(expires(past), Err(Refusal::Expired), "{past}");
    }
    for ahead in
        ["1800000000.5", "1.9e9", "1900000000.0", "1900000000337", "9223372036854775808", "1e19", "1e300"]
    {
        assert!(expires(ahead).unwrap().expires().is_some(), "{ahead}");
    }
    let at = now() + Duration::from_millis(500);
    assert_eq!(expires("1800000000.5").unwrap().expires(), Some(at));
    for (nbf, holds) in [("1800000059.9", true), ("1800000060.5", false), ("1e300", false), ("-7", true)] {
        let got = attempt(&format!(r#"{{"root":"room","get":"","nbf":{nbf},"iat":1.7e9}}"#));
        assert_eq!(got.is_ok(), holds, "nbf = {nbf}");
    }
    assert!(attempt(r#"{"root":"room","get":"","exp":1800000001}"#).is_ok());
    // Clock skew is allowed for `nbf`, not for `exp`.
    assert!(attempt(r#"{"root":"room","get":"","nbf":1800000060}"#).is_ok());
    assert_eq!(attempt(r#"{"root":"room","get":"","nbf":1800000061}"#), Err(Refusal::NotYetValid));
    assert!(attempt(r#"{"root":"room","get":"","iat":1900000000}"#).is_ok(), "iat decides nothing");
}

#[test]
fn a_token_for_another_audience_or_of_another_issuer_is_refused() {
    let key = key_of(Algorithm::ES256);
    let expected =
        Expected { audience: vec!["moq".to_owned()], issuer: vec!["https://id.example".to_owned()] };
    let policy = open().with_keys(keys(&[key])).with_expected(expected);
    for (claims, outcome) in [
        (r#"{"get":"","aud":"moq","iss":"https://id.example"}"#, Ok(())),
        (r#"{"get":"","aud":["x","moq"],"iss":"https://id.example"}"#, Ok(())),
        (r#"{"get":"","aud":"x","iss":"https://id.example"}"#, Err(Refusal::OtherAudience)),
        (r#"{"get":"","iss":"https://id.example"}"#, Err(Refusal::OtherAudience)),
        (r#"{"get":"","aud":"moq","iss":"https://id.example.org"}"#, Err(Refusal::OtherIssuer)),
        (r#"{"get":"","aud":"moq"}"#, Err(Refusal::OtherIssuer)),
    ] {
        let token = key.seal(&header("ES256"), claims).unwrap();
        assert_eq!(policy.admit(&format!("/?jwt={token}"), now()).map(drop), outcome, "{claims}");
    }
    assert!(policy.admit("/", now()).is_ok(), "public access needs no audience");
    assert_eq!(
        key.verify(&key.seal(&header("ES256"), r#"{"get":"","aud":"moq"}"#).unwrap(), now()),
        Err(TokenError::Audience)
    );
}

#[test]
fn nothing_is_said_twice() {
    let key = key_of(Algorithm::HS256);
    for (head, claims) in [
        (header("HS256"), r#"{"root":"room","get":"","root":""}"#),
        (header("HS256"), r#"{"root":"room","get":"","get":"x"}"#),
        (header("HS256"), r#"{"root":"room","get":"","exp":1,"exp":1900000000}"#),
        (header("HS256"), "{\"root\":\"room\",\"get\":\"\",\"\\u0072oot\":\"\"}"),
        (header("HS256"), r#"{"root":"room","get":"","x":{"y":1,"y":1}}"#),
        (r#"{"alg":"HS256","kid":"k","alg":"HS256"}"#.to_owned(), CLAIMS),
        (r#"{"alg":"HS256","kid":"k","kid":"other"}"#.to_owned(), CLAIMS),
    ] {
        let got = try_token(key, &key.seal(&head, claims).unwrap());
        assert_eq!(got, Err(Refusal::MalformedToken), "{head} {claims}");
    }
    assert!(try_token(key, &key.seal(&header("HS256"), CLAIMS).unwrap()).is_ok());
}

#[test]
fn a_claim_of_another_type_is_refused_not_guessed() {
    let key = key_of(Algorithm::HS256);
    let attempt = |claims: &str| try_token(key, &key.seal(&header("HS256"), claims).unwrap());
    for claims in [
        "null",
        "[]",
        r#""room""#,
        "",
        "{}",
        r#"{"root":null,"get":""}"#,
        r#"{"root":7,"get":""}"#,
        r#"{"root":["room"],"get":""}"#,
        r#"{"root":"room","get":null}"#,
        r#"{"root":"room","get":7}"#,
        r#"{"root":"room","get":[7]}"#,
        r#"{"root":"room","get":[["x"]]}"#,
        r#"{"root":"room","get":{"x":1}}"#,
        r#"{"root":"room","get":"","put":null}"#,
        r#"{"root":"room","get":"","subscribe":null}"#,
        r#"{"root":"room","get":"","aud":7}"#,
        r#"{"root":"room","get":"","aud":null}"#,
        r#"{"root":"room","get":"","aud":{"moq":1}}"#,
        r#"{"root":"room","get":"","aud":["moq",7]}"#,
        r#"{"root":"room","get":"","aud":[["moq"]]}"#,
        r#"{"root":"room","get":"","iss":7}"#,
        r#"{"root":"room","get":"","iss":null}"#,
        r#"{"root":"room","get":"","iss":["id"]}"#,
        r#"{"root":"room","get":"","sub":7}"#,
        r#"{"root":"room","get":"","sub":"token:0123"}"#,
        r#"{"root":"room","get":"","sub":"a\nb"}"#,
        r#"{"root":"ro\u0000om","get":""}"#,
    ] {
        assert_eq!(attempt(claims), Err(Refusal::MalformedToken), "{claims}");
    }
    let sub = |length| format!(r#"{{"root":"room","get":"","sub":"{}"}}"#, "s".repeat(length));
    assert!(attempt(&sub(crate::SUBJECT_BYTES)).is_ok());
    assert_eq!(attempt(&sub(crate::SUBJECT_BYTES + 1)), Err(Refusal::MalformedToken));
    let list = |count| format!(r#"{{"root":"room","get":{}}}"#, json!(vec!["x"; count]));
    assert!(attempt(&list(crate::GRANTS)).is_ok());
    assert_eq!(attempt(&list(crate::GRANTS + 1)), Err(Refusal::MalformedToken));
    assert!(attempt(r#"{"root":"room","get":"","sub":""}"#).is_ok());
}

#[test]
fn a_token_at_the_limit_is_read_and_one_past_it_is_not() {
    let key = key_of(Algorithm::HS256);
    let of = |filler: usize| {
        let claims = format!(r#"{{"root":"room","get":"","x":"{}"}}"#, "x".repeat(filler));
        key.seal(&header("HS256"), &claims).unwrap()
    };
    // Three bytes of the payload take four characters of the token.
    let filler = (0..=TOKEN_BYTES).rev().find(|filler| of(*filler).len() <= TOKEN_BYTES).unwrap();
    assert!(of(filler).len() > TOKEN_BYTES - 4);
    assert!(try_token(key, &of(filler)).is_ok());
    assert_eq!(try_token(key, &of(filler + 4)), Err(Refusal::MalformedToken));
    assert_eq!(crate::inspect(&"x".repeat(16 * 1024)), Err(TokenError::TooLong), "not even looked at");
    assert_eq!(try_token(key, &of(filler).replace('.', "%2e")), Err(Refusal::MalformedToken), "nor escaped");
}

#[test]
fn a_key_grants_no_more_than_its_scope() {
    let grants = |json: &str| claims(json).grants;
    let key = key(Algorithm::HS256, "k").with_scope(grants(r#"{"root":"a","put":["live"],"get":["", "x"]}"#));
    let key = key.unwrap();
    let attempt = |claims: &str| {
        let token = key.seal(&header("HS256"), claims).unwrap();
        open().with_keys(keys(&[&key])).admit(&format!("/?jwt={token}"), now()).map(drop)
    };
    for (payload, expected) in [
        (r#"{"root":"a","put":"live/x","get":""}"#, Ok(())),
        (r#"{"root":"","put":"a/live","get":"a/b"}"#, Ok(())),
        (r#"{"root":"a/live/x","publish":["**"],"subscribe":["*"]}"#, Ok(())),
        (r#"{"root":"a","put":"lively"}"#, Err(Refusal::OutOfScope)),
        (r#"{"root":"a","put":""}"#, Err(Refusal::OutOfScope)),
        (r#"{"root":"","get":""}"#, Err(Refusal::OutOfScope)),
        (r#"{"root":"a","publish":["*"]}"#, Err(Refusal::OutOfScope)),
        // The whole token is rejected, not only the excess grant.
        (r#"{"root":"a","put":["live","other"],"get":""}"#, Err(Refusal::OutOfScope)),
    ] {
        assert_eq!(attempt(payload), expected, "{payload}");
        assert_eq!(key.sign(&claims(payload)).is_ok(), expected.is_ok(), "{payload}");
    }
}

proptest::proptest! {
    #[test]
    fn no_token_panics(token in "[A-Za-z0-9_.%=\\-\\PC]{0,200}", claims in "\\PC{0,80}") {
        let key = key_of(Algorithm::HS256);
        let _ = try_token(key, &token);
        let _ = crate::explain(&token, &keys(&[key]), &Expected::default(), now());
        let _ = crate::explain(&forged(&claims, &token, b"x"), &keys(&[key]), &Expected::default(), now());
        let _ = try_token(key, &key.seal(&header("HS256"), &claims).unwrap());
    }

    #[test]
    fn no_byte_of_a_token_can_be_changed(at in 0..1000_usize, by in 1..=255_u8) {
        let key = key_of(Algorithm::EdDSA);
        let token = key.sign(&claims(CLAIMS)).unwrap();
        let mut bytes = token.clone().into_bytes();
        let at = at % bytes.len();
        bytes[at] ^= by;
        if let Ok(changed) = String::from_utf8(bytes) {
            proptest::prop_assert!(try_token(key, &changed).is_err(), "{} {}", at, changed);
        }
        proptest::prop_assert!(try_token(key, &token).is_ok());
    }
}
