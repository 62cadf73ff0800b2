//! Authorization cases shared by the tests of all listeners: a request, and its result under different grants.
//!
//! Each request states the result of each verb. A test here checks that each verb is allowed by at least one grant
//! of each request, so that no listener passes by refusing everything.

#![allow(unused_qualifications, reason = "the table imports the variants, the code names their types")]

use relay_model::{Pattern, Scope};
use serde_json::json;

use crate::{Key, Policy, Refusal};

/// Credential of a session.
#[derive(Clone, Copy, Debug)]
pub enum Credential {
    /// No credential: these patterns are public, for publishing and for subscribing.
    Public(&'static [&'static str], &'static [&'static str]),
    /// A token with these claims.
    Token(&'static str),
}

/// Rights of a session at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExpectedRights {
    /// Publish and subscribe.
    Both,
    /// Publish only.
    Publish,
    /// Subscribe only.
    Subscribe,
    /// Neither, but the session is admitted.
    Neither,
    /// The session is refused.
    Refused(Refusal),
}

/// One grant, one request, one result.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// Credential of the session.
    pub credential: Credential,
    /// Requested path: that of the URL, without a query.
    pub path: &'static str,
    /// Path published or subscribed to, relative to `path`.
    pub at: &'static str,
    /// Expected rights.
    pub expected: ExpectedRights,
}

impl Case {
    /// Returns whether publishing is allowed.
    pub fn publishes(&self) -> bool {
        matches!(self.expected, ExpectedRights::Both | ExpectedRights::Publish)
    }

    /// Returns whether subscribing is allowed.
    pub fn subscribes(&self) -> bool {
        matches!(self.expected, ExpectedRights::Both | ExpectedRights::Subscribe)
    }

    /// Returns the request target, with the token, if any, signed by `key`.
    pub fn target(&self, key: &Key) -> String {
        match self.credential {
            Credential::Public(..) => self.path.to_owned(),
            Credential::Token(claims) => {
                let mut header = json!({ "alg": key.algorithm().name(), "typ": "JWT" });
                if let (Some(id), Some(fields)) = (key.id(), header.as_object_mut()) {
                    fields.insert("kid".to_owned(), id.as_str().into());
                }
                let token = key.seal(&header.to_string(), claims).unwrap_or_default();
                format!("{}?jwt={token}", self.path)
            }
        }
    }

    /// Returns a policy that accepts tokens of `key`, with the public access of the case.
    pub fn policy(&self, key: &Key) -> Policy {
        let scope = |patterns: &[&str]| -> Scope {
            patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect()
        };
        let mut keys = crate::Keys::new();
        // Cannot fail: the set is empty.
        let _ = keys.insert(key.clone());
        let (publish, subscribe) = match self.credential {
            Credential::Public(publish, subscribe) => (scope(publish), scope(subscribe)),
            // A token must not fall back to public access.
            Credential::Token(_) => (Scope::everything(), Scope::everything()),
        };
        Policy::public(publish, subscribe).with_keys(keys)
    }
}

/// Returns all cases.
pub fn all() -> impl Iterator<Item = Case> {
    REQUESTS.iter().flat_map(|(path, at, grants)| {
        grants.iter().map(|(credential, expected)| Case {
            credential: *credential,
            path,
            at,
            expected: *expected,
        })
    })
}

/// Requested path, a path below it, and the results under different grants.
type Request = (&'static str, &'static str, &'static [(Credential, ExpectedRights)]);

use Credential::{Public, Token};
use ExpectedRights::{Both, Neither, Publish, Subscribe};

const OUTSIDE: ExpectedRights = ExpectedRights::Refused(Refusal::OutOfScope);
const MALFORMED: ExpectedRights = ExpectedRights::Refused(Refusal::MalformedToken);
const CLOSED: ExpectedRights = ExpectedRights::Refused(Refusal::Unauthorized);

/// All requests.
pub const REQUESTS: &[Request] = &[
    // The path is the root of the token.
    (
        "/room",
        "alice",
        &[
            (Token(r#"{"root":"room","put":"alice","get":""}"#), Both),
            (Token(r#"{"root":"/room/","put":["/alice/"],"get":["bob","alice"]}"#), Both),
            (Token(r#"{"root":"room","put":"bob","get":""}"#), Subscribe),
            (Token(r#"{"root":"room","put":"alice"}"#), Publish),
            (Token(r#"{"root":"room","put":"alice/cam","get":"bob"}"#), Neither),
            (Token(r#"{"root":"room","put":"alic","get":"alicea"}"#), Neither),
            (Token(r#"{"root":"rooms","put":"","get":""}"#), OUTSIDE),
            (Token(r#"{"root":"roo","put":"","get":""}"#), OUTSIDE),
            (Token(r#"{"root":"Room","put":"","get":""}"#), OUTSIDE),
            (Token(r#"{"root":"","put":"other","get":"rooms"}"#), OUTSIDE),
            (Token(r#"{"root":"room"}"#), MALFORMED),
            (Token(r#"{"root":"room","put":[],"get":[]}"#), MALFORMED),
        ],
    ),
    // The path is above the root of the token: its grants stay where they are.
    (
        "/",
        "room/alice",
        &[
            (Token(r#"{"root":"room","put":"alice","get":""}"#), Both),
            (Token(r#"{"put":["room/alice"],"get":["room"]}"#), Both),
            (Token(r#"{"root":"room","get":["alice"]}"#), Subscribe),
            (Token(r#"{"root":"room","put":["alice"]}"#), Publish),
            (Token(r#"{"root":"alice","put":"room","get":"room"}"#), Neither),
        ],
    ),
    // The path is below the root of the token: its grants are narrowed.
    (
        "/room/alice",
        "cam",
        &[
            (Token(r#"{"root":"room","put":"","get":""}"#), Both),
            (Token(r#"{"root":"room","put":"alice/cam","get":"alice/mic"}"#), Publish),
            (Token(r#"{"root":"room","put":"alice/cam2","get":"alice"}"#), Subscribe),
            (Token(r#"{"root":"room","put":"bob","get":"alice/mic"}"#), Neither),
            (Token(r#"{"root":"room","put":"bob","get":"bob"}"#), OUTSIDE),
            (Token(r#"{"root":"room/alice/cam/x","put":"","get":""}"#), Neither),
        ],
    ),
    // The root of the token is below the path, its grants further below.
    (
        "/a",
        "b/c/d",
        &[
            (Token(r#"{"root":"a/b","put":"c","get":"c/d"}"#), Both),
            (Token(r#"{"root":"a/b","put":"c/d/e","get":"c/d"}"#), Subscribe),
            (Token(r#"{"root":"a/b","put":"c/d","get":"d"}"#), Publish),
            (Token(r#"{"root":"a/b/c/d","put":"","get":""}"#), Both),
            (Token(r#"{"root":"ab","put":"","get":""}"#), OUTSIDE),
        ],
    ),
    // Everything.
    (
        "/any/where",
        "at/all",
        &[
            (Token(r#"{"root":"","put":"","get":""}"#), Both),
            (Token(r#"{"put":["a","any"],"get":[""]}"#), Both),
            (Token(r#"{"publish":"**","subscribe":["**"]}"#), Both),
            (Public(&["**"], &["**"]), Both),
            (Public(&[], &["**"]), Subscribe),
            (Public(&["any/where/at/**"], &["any/where/not/**"]), Publish),
            (Public(&["any/other/**"], &[]), CLOSED),
            (Public(&[], &[]), CLOSED),
        ],
    ),
    // Patterns.
    (
        "/room",
        "alice/cam",
        &[
            (Token(r#"{"root":"room","publish":["alice/**"],"subscribe":["**"]}"#), Both),
            (Token(r#"{"root":"room","publish":["*/cam"],"subscribe":["alice/cam"]}"#), Both),
            (Token(r#"{"root":"","publish":["*/alice/cam"],"subscribe":["**/cam"]}"#), Both),
            (Token(r#"{"root":"room","publish":["al*ce/c*"],"subscribe":["*"]}"#), Publish),
            (Token(r#"{"root":"room","publish":["alice"],"subscribe":["*/*"]}"#), Subscribe),
            (Token(r#"{"root":"room","publish":["alice/cam/*"],"subscribe":["*/mic"]}"#), Neither),
            (Token(r#"{"root":"rooms","publish":["**"],"subscribe":["**"]}"#), OUTSIDE),
            (Token(r#"{"root":"room","publish":["**"],"get":[""]}"#), MALFORMED),
            (Token(r#"{"root":"room","publish":["**"],"subscribe":["a//b"]}"#), MALFORMED),
            (Token(r#"{"root":"room","publish":["**"],"subscribe":["a**"]}"#), MALFORMED),
            (Public(&["room/*/cam"], &["*/alice/**"]), Both),
            (Public(&["room/alice"], &["*/alice/mic"]), Neither),
        ],
    ),
    // An exact grant is that path alone.
    (
        "/room/alice",
        "x",
        &[
            (Token(r#"{"root":"room","publish":["alice/x"],"subscribe":["alice/**"]}"#), Both),
            (Token(r#"{"root":"room","publish":["alice"],"subscribe":["alice"]}"#), Neither),
            (Token(r#"{"root":"room","publish":["alice/**/x"],"subscribe":["alice/x/**"]}"#), Both),
        ],
    ),
    // `live` is not above `lively`.
    (
        "/",
        "lively/x",
        &[
            (Public(&["lively/**"], &["lively/**"]), Both),
            (Public(&["live/**"], &["live*/**"]), Subscribe),
            (Token(r#"{"root":"live","put":"","get":""}"#), Neither),
        ],
    ),
    (
        "/live",
        "x",
        &[
            (Public(&["live/**"], &["live/**"]), Both),
            (Public(&["lively/**"], &["lively/**"]), CLOSED),
            (Token(r#"{"root":"lively","put":"","get":""}"#), OUTSIDE),
        ],
    ),
    // Repeated slashes count as one.
    (
        "//a///b//",
        "c",
        &[
            (Token(r#"{"root":"a/b","put":"c","get":"c"}"#), Both),
            (Token(r#"{"root":"//a//b//","put":"//c//","get":""}"#), Both),
            (Token(r#"{"root":"a","put":"c","get":"b"}"#), Subscribe),
        ],
    ),
    // Paths are case-sensitive.
    (
        "/ROOM",
        "x",
        &[
            (Token(r#"{"root":"ROOM","put":"","get":""}"#), Both),
            (Token(r#"{"root":"room","put":"","get":""}"#), OUTSIDE),
            (Token(r#"{"root":"","put":"ROOM/X","get":"ROOM/x"}"#), Subscribe),
        ],
    ),
    // Composed and decomposed letters are different names.
    (
        "/caf%C3%A9",
        "x",
        &[
            (Token("{\"root\":\"caf\u{e9}\",\"put\":\"\",\"get\":\"\"}"), Both),
            (Token(r#"{"root":"caf\u00e9","put":"","get":""}"#), Both),
            (Token("{\"root\":\"cafe\u{301}\",\"put\":\"\",\"get\":\"\"}"), OUTSIDE),
        ],
    ),
    (
        "/cafe%CC%81",
        "x",
        &[
            (Token("{\"root\":\"cafe\u{301}\",\"put\":\"\",\"get\":\"\"}"), Both),
            (Token("{\"root\":\"caf\u{e9}\",\"put\":\"\",\"get\":\"\"}"), OUTSIDE),
        ],
    ),
    // Escapes are decoded once, in the path only.
    (
        "/a%252fb",
        "x",
        &[
            (Token(r#"{"root":"a%2fb","put":"","get":""}"#), Both),
            (Token(r#"{"root":"a/b","put":"","get":""}"#), OUTSIDE),
            (Token(r#"{"root":"a%252fb","put":"","get":""}"#), OUTSIDE),
        ],
    ),
    (
        "/a/%62",
        "x",
        &[
            (Token(r#"{"root":"a/b","put":"","get":""}"#), Both),
            (Token(r#"{"root":"a%2fb","put":"","get":""}"#), OUTSIDE),
            (Token(r#"{"root":"a/%62","put":"","get":""}"#), OUTSIDE),
        ],
    ),
    // Dot segments are not allowed in paths, nor in grants.
    (
        "/a/b",
        "x",
        &[
            (Token(r#"{"root":"a/b","put":"","get":""}"#), Both),
            (Token(r#"{"root":"a/./b","put":"","get":""}"#), MALFORMED),
            (Token(r#"{"root":"a/c/../b","put":"","get":""}"#), MALFORMED),
            (Token(r#"{"root":"a","put":"./b","get":"b"}"#), MALFORMED),
            (Token(r#"{"root":"a","publish":"../**","subscribe":"b/**"}"#), MALFORMED),
            (Token(r#"{"root":"a","put":".b","get":"b"}"#), Subscribe),
        ],
    ),
    // `*` is an ordinary character in `put` and `get`.
    (
        "/",
        "room/x",
        &[
            (Token(r#"{"publish":"*/x","subscribe":"room/*"}"#), Both),
            (Token(r#"{"put":"*/x","get":"room/*"}"#), Neither),
            (Token(r#"{"put":"**","get":"room"}"#), Subscribe),
        ],
    ),
    // Unknown claims are ignored.
    (
        "/room",
        "x",
        &[
            (Token(r#"{"root":"room","put":"","get":"","cluster":false,"iss":"me","jti":7}"#), Both),
            (Token(r#"{"root":"room","get":"","cluster":true,"Put":"","roots":""}"#), Subscribe),
        ],
    ),
    // Without a token public access applies, at any path above or below it.
    (
        "/anon/room",
        "x",
        &[
            (Public(&["anon/**"], &["anon/**"]), Both),
            (Public(&["anon/room/x"], &["anon/room/y/**"]), Publish),
            (Public(&["other/**"], &["anon/*/x"]), Subscribe),
            (Public(&["anonymous/**"], &["ano/**"]), CLOSED),
        ],
    ),
];
