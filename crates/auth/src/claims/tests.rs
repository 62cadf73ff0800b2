use super::*;

fn read(json: &str) -> Claims {
    Claims::read(json.as_bytes()).unwrap()
}

#[test]
fn claims_come_back_as_they_were_written() {
    for json in [
        r#"{"root":"room","put":["alice"],"get":[""],"exp":1800000000,"iat":1,"nbf":2,"sub":"alice"}"#,
        r#"{"get":"a*b"}"#,
        r#"{"root":"a","publish":["b","*/c","d/**"]}"#,
        r#"{"root":"a","subscribe":"**"}"#,
        r#"{"get":"","aud":"moq","iss":"https://id.example"}"#,
        r#"{"get":"","aud":["a","b"]}"#,
        r#"{"get":"","aud":[]}"#,
    ] {
        let claims = read(json);
        assert_eq!(read(&claims.to_json()), claims, "{json}");
    }
}

#[test]
fn grants_are_written_so_that_old_verifiers_read_them_or_refuse() {
    let subtrees = read(r#"{"root":"a","publish":["b/**"],"subscribe":["**"]}"#).to_json();
    assert_eq!(subtrees, r#"{"get":[""],"put":["b"],"root":"a"}"#);
    let exact = read(r#"{"root":"a","publish":["b"],"subscribe":["**"]}"#).to_json();
    assert_eq!(exact, r#"{"publish":["b"],"root":"a","subscribe":["**"]}"#);
    assert_eq!(read(r#"{"get":""}"#).to_json(), r#"{"get":[""],"root":""}"#, "some want `root`");
}

#[test]
fn a_claim_that_is_no_good_is_named() {
    for (json, claim, fault) in [
        (r#"{"root":7,"get":""}"#, "root", Fault::Text),
        (r#"{"get":[null]}"#, "get", Fault::Text),
        (r#"{"put":"a/../b"}"#, "put", Fault::Dots),
        (r#"{"publish":["./a"]}"#, "publish", Fault::Dots),
        (r#"{"get":"a\u0000"}"#, "get", Fault::Control),
        (r#"{"put":"","subscribe":"**"}"#, "publish", Fault::Mixed),
        (r#"{"get":"","exp":"1"}"#, "exp", Fault::Time),
        (r#"{"get":"","sub":"token:x"}"#, "sub", Fault::Reserved),
    ] {
        assert_eq!(Claims::read(json.as_bytes()), Err(ClaimError { claim, fault }.into()), "{json}");
    }
    let long = "x/".repeat(relay_model::limits::PATH_SEGMENTS);
    assert!(Claims::read(format!(r#"{{"root":"{long}","get":""}}"#).as_bytes()).is_ok());
    let deeper = Claims::read(format!(r#"{{"root":"{long}","get":"x"}}"#).as_bytes());
    assert_eq!(deeper, Err(ClaimError { claim: "root", fault: Fault::Path }.into()));
}

#[test]
fn a_time_is_rounded_so_that_a_token_never_lasts_longer() {
    let expires = SystemTime::UNIX_EPOCH + Duration::from_millis(1_999);
    let claims = Claims { expires: Some(expires), ..read(r#"{"get":""}"#) };
    assert_eq!(claims.to_json(), r#"{"exp":1,"get":[""],"root":""}"#);
}
