//! Promise: unmodified tokens and key sets of identity providers work, from any URL; a token is accepted in the query
//! or in `Authorization`; and requests to `auth.api` name the transport of the client.

#![allow(missing_docs)]

mod common;

use std::{
    collections::BTreeSet,
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use relay_auth::{Algorithm, Claims, Key};
use relay_client::{Client, ClientConfig, SessionCode};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use common::{
    PATIENCE,
    http::{ask, free_tcp, get, upgrade},
    run,
    site::{Site, claims, code, key, token, unauthorized},
    web::{Answer, Asked, Web},
};

/// A `kid` in the format of Amazon Cognito.
const ODD: &str = "J4j+I06r0I0vpYnBNucugV8xAPV5/Xv4uYrrpwwSNK0=";

fn set(keys: &[&Key]) -> String {
    let keys: Vec<Value> =
        keys.iter().map(|key| serde_json::from_str(&key.public().unwrap().to_json()).unwrap()).collect();
    json!({ "keys": keys }).to_string()
}

/// Waits until a session is admitted.
async fn enters(site: &Site, target: &str) -> Client {
    for _ in 0..PATIENCE.as_millis() / 50 {
        if let Ok(client) = site.enter(target).await {
            return client;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("{target} is never admitted");
}

#[test]
fn key_set_is_found_at_any_url() {
    run(async {
        let key = key(ODD);
        let target = format!("/room?jwt={}", token(&key, "room"));
        for (setting, path) in [
            ("key_dir", "/realms/m/protocol/openid-connect/certs"),
            ("key_dir", "/common/discovery/v2.0/keys"),
            ("key_dir", "/application/o/moq/jwks/"),
            ("key_dir", "/.well-known/jwks.json?tenant=a"),
            ("jwks", "/oauth2/v3/certs"),
            ("jwks", "/"),
        ] {
            let answer = set(&[&key]);
            let web = Web::start(move |asked: &Asked| match asked.target == path {
                true => Answer::ok(answer.clone()),
                false => Answer::status(404),
            })
            .await;
            let site = Site::new(&format!("{setting} = \"{}{path}\"", web.url));
            site.enter(&target).await.unwrap_or_else(|closed| panic!("{setting} {path}: {closed:?}"));
            assert!(web.asked().iter().all(|asked| asked.target == path), "{:?}", web.asked());
        }
    });
}

#[test]
fn remote_key_folder_is_requested_by_plain_names_only() {
    run(async {
        let (plain, odd) = (key("plain"), key(ODD));
        let jwk = plain.public().unwrap().to_json();
        // The URL itself answers something other than a key set.
        let web = Web::start(move |asked: &Asked| match asked.target.as_str() {
            "/keys" => Answer::ok("<html>a list of files</html>"),
            "/keys/plain.jwk" => Answer::ok(jwk.clone()),
            _ => Answer::status(404),
        })
        .await;
        let site = Site::new(&format!("key_dir = \"{}/keys\"", web.url));
        let of = |key: &Key| format!("/room?jwt={}", token(key, "room"));
        unauthorized(&site.refused(&of(&odd)).await);
        drop(site.enter(&of(&plain)).await.unwrap());
        unauthorized(&site.refused(&of(&odd)).await);
        let targets: BTreeSet<String> = web.asked().into_iter().map(|asked| asked.target).collect();
        assert_eq!(targets, ["/keys", "/keys/plain.jwk"].map(str::to_owned).into());
    });
}

#[test]
fn key_set_that_appears_later_is_found() {
    run(async {
        let key = key("k1");
        let target = format!("/room?jwt={}", token(&key, "room"));
        for (status, refused) in [(500, SessionCode::INTERNAL), (404, SessionCode::UNAUTHORIZED)] {
            let is_there = Arc::new(AtomicBool::new(false));
            let (there, answer) = (is_there.clone(), set(&[&key]));
            let web = Web::start(move |asked: &Asked| match there.load(Ordering::Relaxed) {
                true if asked.target == "/certs" => Answer::ok(answer.clone()),
                _ => Answer::status(status),
            })
            .await;
            let site = Site::new(&format!("key_dir = \"{}/certs\"\nrefresh = \"1s\"", web.url));
            let closed = site.refused(&target).await;
            assert_eq!(code(&closed), Some(refused), "{status}: {closed:?}");
            is_there.store(true, Ordering::Relaxed);
            drop(enters(&site, &target).await);
        }
    });
}

#[test]
fn key_set_outage_keeps_the_previous_keys() {
    run(async {
        let key = key("k1");
        let target = format!("/room?jwt={}", token(&key, "room"));
        let answer = set(&[&key]);
        let web = Web::start(move |_: &Asked| Answer::ok(answer.clone())).await;
        let site = Site::new(&format!("key_dir = \"{}/certs\"\nrefresh = \"1s\"", web.url));
        let client = site.enter(&target).await.unwrap();
        for outage in [Answer::status(404), Answer::ok("<html>"), Answer::status(302).with("location: /x")] {
            web.now(move |_| outage.clone());
            site.relay.line_with("key refresh failed");
            assert_eq!(client.is_closed(), None);
            drop(site.enter(&target).await.unwrap());
        }
        assert!(web.asked().iter().all(|asked| asked.target == "/certs"));
    });
}

#[test]
fn one_kid_may_have_keys_of_several_algorithms() {
    run(async {
        let keys = [Algorithm::ES384, Algorithm::ES256, Algorithm::EdDSA]
            .map(|algorithm| Key::generate(algorithm, Some(ODD.parse().unwrap())).unwrap());
        let text = set(&[&keys[0], &keys[1]]);
        let site =
            Site::with("key = \"set.jwks\"", |folder| fs::write(folder.join("set.jwks"), text).unwrap());
        for key in &keys[..2] {
            drop(site.enter(&format!("/room?jwt={}", token(key, "room"))).await.unwrap());
        }
        unauthorized(&site.refused(&format!("/room?jwt={}", token(&keys[2], "room"))).await);
    });
}

#[test]
fn token_must_be_for_this_audience_and_of_this_issuer() {
    run(async {
        let key = key("k1");
        let of = |audience: &[&str], issuer: Option<&str>| {
            let audience = audience.iter().map(|name| Arc::from(*name)).collect::<Vec<_>>();
            let audience = Some(audience).filter(|names| !names.is_empty());
            let claims = Claims { audience, issuer: issuer.map(Arc::from), ..claims("room") };
            format!("/room?jwt={}", key.sign(&claims).unwrap())
        };
        let with = |settings: &str| {
            let jwk = key.public().unwrap().to_json();
            Site::with(&format!("key = \"k.jwk\"\n{settings}"), move |folder| {
                fs::write(folder.join("k.jwk"), jwk).unwrap();
            })
        };
        let site = with("audience = [\"moq\", \"https://relay.example\"]\nissuer = \"https://id.example\"");
        for audience in [&["moq"][..], &["billing", "https://relay.example"]] {
            drop(site.enter(&of(audience, Some("https://id.example"))).await.unwrap());
        }
        for (audience, issuer) in [
            (&["billing"][..], Some("https://id.example")),
            (&[], Some("https://id.example")),
            (&["moq"], Some("https://other.example")),
            (&["moq"], None),
        ] {
            unauthorized(&site.refused(&of(audience, issuer)).await);
        }
        let site = with("");
        unauthorized(&site.refused(&of(&["moq"], None)).await);
        drop(site.enter(&of(&[], Some("anybody"))).await.unwrap());
    });
}

#[test]
fn token_in_authorization_counts_over_http_and_websocket() {
    run(async {
        let key = key("root");
        let (http, jwk) = (free_tcp(), key.public().unwrap().to_json());
        let auth = format!("public = \"anon\"\nkey = \"root.jwk\"\n[web]\nhttp.listen = \"{http}\"");
        let site = Site::with(&auth, |folder| fs::write(folder.join("root.jwk"), jwk).unwrap());
        let publisher = site.enter(&format!("/room?jwt={}", token(&key, "room"))).await.unwrap();
        let broadcast = publisher.broadcast("cam").unwrap();
        broadcast.announce();
        let member = site.enter(&format!("/room?jwt={}", token(&key, "room"))).await.unwrap();
        member.announced("").await.unwrap().wait("cam", true).await.unwrap();
        let bearer = format!("authorization: Bearer {}", token(&key, "room"));
        let other = format!("authorization: Bearer {}", token(&key, "elsewhere"));
        block_in_place(|| {
            assert_eq!(ask(&http, "GET", "/announced/room", &[&bearer]).text().trim_end(), "cam");
            let refused = |target: &str, headers: &[&str]| {
                let reply = ask(&http, "GET", target, headers);
                assert_eq!(reply.status, 401, "{target} {headers:?}");
                assert_eq!(
                    reply.header("www-authenticate"),
                    Some("Bearer realm=\"moq\""),
                    "{target} {headers:?}"
                );
            };
            refused("/announced/room", &[]);
            refused("/announced/room", &[&other]);
            refused("/announced/room", &["authorization: Basic eDp5"]);
            refused("/fetch/room/cam/video", &[]);
            // A bad token is rejected on public paths too, and the query takes precedence over the header.
            refused("/announced/anon", &[&other]);
            refused(&format!("/announced/room?jwt={}", token(&key, "elsewhere")), &[&bearer]);
            assert_eq!(ask(&http, "GET", "/announced/room?jwt=", &[&bearer]).status, 200);
            assert_eq!(ask(&http, "GET", "/announced/room", &[&bearer, &bearer]).status, 400);
            assert_eq!(get(&http, "/announced/anon").status, 200);
            let preflight =
                ask(&http, "OPTIONS", "/announced/room", &["access-control-request-headers: authorization"]);
            assert!(preflight.header("access-control-allow-headers").unwrap().contains("Authorization"));
            let socket = |headers: &[&str]| {
                let mut all =
                    vec!["sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="];
                all.push("sec-websocket-protocol: qmux-01.moq-lite-05");
                all.extend(headers);
                upgrade(&http, "/room", &all)
            };
            assert_eq!(socket(&[&bearer]).status, 101);
            let refused = socket(&[&other]);
            assert_eq!((refused.status, refused.header("www-authenticate").is_some()), (401, true));
        });
    });
}

#[test]
fn auth_api_request_names_the_client_transport() {
    run(async {
        let said = json!({ "public": { "subscribe": [""], "publish": [""] } }).to_string();
        let web = Web::start(move |_: &Asked| Answer::ok(said.clone())).await;
        let (http, tcp, folder) = (free_tcp(), free_tcp(), tempfile::tempdir().unwrap());
        let socket = folder.path().join("s.sock");
        let site = Site::new(&format!(
            "api = \"{}/auth\"\n[web]\nhttp.listen = \"{http}\"\n[server.tcp]\nbind = \"{tcp}\"\n[server.unix]\nbind = {socket:?}",
            web.url
        ));
        let quic = site.url("", "");
        for (transport, url) in [
            ("quic", format!("moqt{quic}/")),
            ("webtransport", format!("https{quic}/")),
            ("websocket", format!("ws://{http}/")),
            ("tcp", format!("tcp://{tcp}/")),
            ("unix", format!("unix://{}:/", socket.display())),
        ] {
            let client = Client::connect(&url, ClientConfig::default()).await.unwrap();
            client.announced("").await.unwrap();
            let question = format!("/auth?root=&transport={transport}");
            web.until(transport, |asked| asked.target == question).await;
        }
        assert_eq!(block_in_place(|| get(&http, "/announced")).status, 200);
        web.until("http", |asked| asked.target == "/auth?root=&transport=http").await;
    });
}
