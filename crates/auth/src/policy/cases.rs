//! Who may do what where: one table for every entrance. A request, and what different grants make of it.
//!
//! Each line of a request states the result of each verb. That each verb is allowed by one of them is
//! tested here, so that no entrance passes by refusing everything.

use relay_model::{Pattern, Scope};
use serde_json::{Value, json};

use crate::{Key, Policy, Refusal};

/// What lets a session in.
#[derive(Clone, Copy, Debug)]
pub enum Credential {
    /// None: these patterns are public, for publishing and for subscribing.
    Public(&'static [&'static str], &'static [&'static str]),
    /// A token with these claims.
    Token(&'static str),
}

/// What a session may do at one path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expected {
    /// Publish it and subscribe to it.
    Both,
    /// Publish it only.
    Publish,
    /// Subscribe to it only.
    Subscribe,
    /// Neither, but it is let in.
    Neither,
    /// It is not let in.
    Refused(Refusal),
}

/// One grant, one request, one result.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// What lets the session in.
    pub credential: Credential,
    /// The path it asks for: part of a URL, without a query.
    pub path: &'static str,
    /// What it then publishes or subscribes to, relative to that.
    pub at: &'static str,
    /// What it may do there.
    pub expected: Expected,
}

impl Case {
    /// Whether it may publish there.
    pub fn publishes(&self) -> bool {
        matches!(self.expected, Expected::Both | Expected::Publish)
    }

    /// Whether it may subscribe there.
    pub fn subscribes(&self) -> bool {
        matches!(self.expected, Expected::Both | Expected::Subscribe)
    }

    /// The request target, with the token if there is one, signed by `key`.
    pub fn target(&self, key: &Key) -> String {
        match self.credential {
            Credential::Public(..) => self.path.to_owned(),
            Credential::Token(claims) => {
                let mut header = json!({ "alg": key.algorithm().name(), "typ": "JWT" });
                if let Some(id) = key.id() {
                    header["kid"] = Value::from(id.as_str());
                }
                let token = key.seal(&header.to_string(), claims).unwrap_or_default();
                format!("{}?jwt={token}", self.path)
            }
        }
    }

    /// A policy that accepts tokens of `key`, and without one opens what the case says is public.
    pub fn policy(&self, key: &Key) -> Policy {
        let scope = |patterns: &[&str]| -> Scope {
            patterns.iter().filter_map(|text| Pattern::parse(text).ok()).collect()
        };
        let mut keys = crate::Keys::new();
        // Into an empty set, one fits.
        let _ = keys.insert(key.clone());
        let (publish, subscribe) = match self.credential {
            Credential::Public(publish, subscribe) => (scope(publish), scope(subscribe)),
            // A token must not fall back on what is public.
            Credential::Token(_) => (Scope::everything(), Scope::everything()),
        };
        Policy::public(publish, subscribe).with_keys(keys)
    }
}

/// Every case.
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

/// A path asked for, a path below it, and what grants make of that.
type Request = (&'static str, &'static str, &'static [(Credential, Expected)]);

use Credential::{Public, Token};
use Expected::{Both, Neither, Publish, Subscribe};

const OUTSIDE: Expected = Expected::Refused(Refusal::OutOfScope);
const MALFORMED: Expected = Expected::Refused(Refusal::MalformedToken);
const CLOSED: Expected = Expected::Refused(Refusal::Unauthorized);

/// The table.
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
    // Slashes in a row are one.
    (
        "//a///b//",
        "c",
        &[
            (Token(r#"{"root":"a/b","put":"c","get":"c"}"#), Both),
            (Token(r#"{"root":"//a//b//","put":"//c//","get":""}"#), Both),
            (Token(r#"{"root":"a","put":"c","get":"b"}"#), Subscribe),
        ],
    ),
    // A case is a difference.
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
    // An escape is read once, in the path only.
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
    // Dot segments are in no path, so in no grant.
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
    // A star is a letter in an old grant.
    (
        "/",
        "room/x",
        &[
            (Token(r#"{"publish":"*/x","subscribe":"room/*"}"#), Both),
            (Token(r#"{"put":"*/x","get":"room/*"}"#), Neither),
            (Token(r#"{"put":"**","get":"room"}"#), Subscribe),
        ],
    ),
    // What we do not know of a token changes nothing.
    (
        "/room",
        "x",
        &[
            (Token(r#"{"root":"room","put":"","get":"","cluster":false,"iss":"me","jti":7}"#), Both),
            (Token(r#"{"root":"room","get":"","cluster":true,"Put":"","roots":""}"#), Subscribe),
        ],
    ),
    // Who comes without a token has what is public, at any path above or below it.
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
