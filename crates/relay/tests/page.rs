//! Promise: the page receives the public URLs of its relay and the rights of its token, and the private listener
//! serves it even if the public listeners do not.

#![allow(missing_docs)]

mod common;

use serde_json::{Value, json};
use tokio::task::block_in_place;

use common::{
    http::{Reply, exchange, free_tcp, reply},
    run,
    site::{Site, key, token},
};

const FILES: [&str; 4] = ["/", "/page.js", "/page.css", "/page.json"];

/// A relay with a public and a private HTTP listener; `more` belongs to `[web]`.
fn site(auth: &str, more: &str) -> (Site, String, String) {
    let (http, internal) = (free_tcp(), free_tcp());
    let more =
        format!("{auth}\n[internal]\nlisten = \"{internal}\"\n[web]\nhttp.listen = \"{http}\"\n{more}");
    (Site::new(&more), http, internal)
}

/// Requests `target`, as a browser does under the name `host`.
fn get(address: &str, target: &str, host: &str) -> Reply {
    let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    reply(&exchange(address, request.as_bytes()), false)
}

fn info(address: &str, target: &str) -> Value {
    let answer = get(address, target, address);
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("application/json")));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    serde_json::from_str(answer.text()).unwrap()
}

#[test]
fn private_listener_has_the_page_without_web_page() {
    run(async {
        for (more, public) in [("", 404), ("page = false", 404), ("page = true", 200)] {
            let (_site, http, internal) = site("public = \"anon\"", more);
            block_in_place(|| {
                for file in FILES {
                    assert_eq!(get(&internal, file, &internal).status, 200, "{more} {file}");
                    assert_eq!(get(&http, file, &http).status, public, "{more} {file}");
                }
                assert_eq!(get(&http, "/status", &http).status, 404, "{more}");
            });
        }
    });
}

#[test]
fn page_receives_the_public_addresses_of_the_relay() {
    run(async {
        let (site, http, internal) = site("public = \"anon\"", "page = true");
        let quic = site.url("https", "/");
        block_in_place(|| {
            let (public, private) = (info(&http, "/page.json"), info(&internal, "/page.json"));
            assert_eq!((&public["session"], &public["websocket"]), (&json!(quic), &json!("/")));
            assert_eq!(private["session"], json!(quic));
            assert_eq!(private["websocket"], json!(format!("ws://{http}/")));
            assert_eq!((&public["private"], &private["private"]), (&json!(false), &json!(true)));
            let digits = private["fingerprint"].as_str().unwrap();
            assert_eq!(get(&http, "/certificate.sha256", &http).text(), digits);
            let policy = get(&internal, "/", &internal);
            let policy = policy.header("content-security-policy").unwrap();
            let sources = format!("connect-src 'self' {} ws://{http}", quic.trim_end_matches('/'));
            assert!(policy.ends_with(&sources), "{policy}");
            let hostile = get(&internal, "/", "a;script-src *");
            let policy = hostile.header("content-security-policy").unwrap_or_default();
            assert!(!policy.contains("script-src"), "{policy}");
        });
    });
}

#[test]
fn page_receives_the_rights_of_its_token() {
    run(async {
        let key = key("one");
        let (_site, http, internal) = {
            let (http, internal) = (free_tcp(), free_tcp());
            let more = format!(
                "public = \"anon\"\nkey = \"key.jwk\"\n[internal]\nlisten = \"{internal}\"\n[web]\npage = true\n\
                 http.listen = \"{http}\"\n"
            );
            let public = key.public().unwrap().to_json();
            (
                Site::with(&more, |folder| std::fs::write(folder.join("key.jwk"), public).unwrap()),
                http,
                internal,
            )
        };
        block_in_place(|| {
            for address in [&http, &internal] {
                let of = |target: &str| {
                    let mut info = info(address, target);
                    (info["permit"].take(), info["refused"].take())
                };
                let both = |pattern: &str| json!({"publish": [pattern], "subscribe": [pattern]});
                assert_eq!(of("/page.json"), (both("anon/**"), Value::Null));
                let target = format!("/page.json?jwt={}", token(&key, "room"));
                assert_eq!(of(&target), (both("room/**"), Value::Null));
                assert_eq!(of("/page.json?jwt=none"), (Value::Null, json!("malformed token")));
            }
        });
    });
}

#[test]
fn configured_public_url_is_what_the_page_receives() {
    run(async {
        let (_site, http, internal) =
            site("public = \"\"", "url = \"https://Relay.example.com\"\npage = true");
        block_in_place(|| {
            for address in [&http, &internal] {
                assert_eq!(info(address, "/page.json")["session"], json!("https://relay.example.com/"));
            }
        });
    });
}
