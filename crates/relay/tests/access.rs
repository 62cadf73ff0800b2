//! Promise: sessions are admitted and revoked by the current state of key files, key servers and auth servers.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, SystemTime},
};

use relay_auth::{Claims, Key};
use relay_client::{Client, SessionCode};
use serde_json::{Value, json};

use common::{
    run,
    site::{Site, claims, code, ends, flows, key, token, unauthorized},
    web::{Answer, Asked, Web},
};

#[test]
fn public_paths_and_tokens_of_a_key_file_are_admitted() {
    run(async {
        let key = key("root");
        let (jwk, text) = (key.public().unwrap().to_json(), token(&key, "room"));
        let site = Site::with("public = \"anon\"\nkey = \"root.jwk\"", |folder| {
            fs::write(folder.join("root.jwk"), jwk).unwrap();
        });
        for scheme in ["moqt", "https"] {
            let member = site.enter_by(scheme, &format!("/room?jwt={text}")).await.unwrap();
            let above = site.enter_by(scheme, &format!("/?jwt={text}")).await.unwrap();
            flows(&member, &format!("{scheme}/cam"), &above, &format!("room/{scheme}/cam")).await;
            let anybody = site.enter_by(scheme, "/anon").await.unwrap();
            flows(&anybody, scheme, &anybody_else(&site, scheme).await, &format!("anon/{scheme}")).await;
        }
        unauthorized(&site.refused("/room").await);
        unauthorized(&site.refused(&format!("/other?jwt={text}")).await);
        unauthorized(&site.refused(&format!("/room?jwt={}", &text[..text.len() - 4])).await);
    });
}

async fn anybody_else(site: &Site, scheme: &str) -> Client {
    site.enter_by(scheme, "/").await.unwrap()
}

#[test]
fn a_session_ends_with_its_token() {
    run(async {
        let key = key("root");
        let site = Site::with("key = \"root.jwk\"", |folder| {
            fs::write(folder.join("root.jwk"), key.to_json()).unwrap();
        });
        // A token counts in seconds.
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let at = SystemTime::UNIX_EPOCH + Duration::from_secs(now + 3);
        let brief = key.sign(&Claims { expires: Some(at), ..claims("room") }).unwrap();
        let client = site.enter(&format!("/room?jwt={brief}")).await.unwrap();
        unauthorized(&ends(&client, "a session with an expired token").await);
        let late = SystemTime::now().duration_since(at).expect("not before its expiry");
        assert!(late < Duration::from_millis(1_500), "{late:?} after its expiry");
        unauthorized(&site.refused(&format!("/room?jwt={brief}")).await);
    });
}

#[test]
fn key_folder_changes_apply_while_the_relay_runs() {
    run(async {
        let (first, second) = (key("first"), key("second"));
        let site = Site::with("key_dir = \"keys\"", |folder| {
            fs::create_dir(folder.join("keys")).unwrap();
            fs::write(folder.join("keys/first.jwk"), first.public().unwrap().to_json()).unwrap();
        });
        let of = |key: &Key| format!("/room?jwt={}", token(key, "room"));
        let one = site.enter(&of(&first)).await.unwrap();
        unauthorized(&site.refused(&of(&second)).await);
        fs::write(site.file("keys/second.jwk"), second.public().unwrap().to_base64url()).unwrap();
        site.relay.line_with("token verification keys changed");
        let two = site.enter(&of(&second)).await.unwrap();
        // A partly written file keeps its previous key.
        fs::write(site.file("keys/second.jwk"), "{\"kty\":").unwrap();
        site.relay.line_with("keeping the previous keys");
        drop(site.enter(&of(&second)).await.unwrap());
        fs::remove_file(site.file("keys/first.jwk")).unwrap();
        unauthorized(&ends(&one, "a session of a removed key").await);
        assert_eq!(two.is_closed(), None);
        unauthorized(&site.refused(&of(&first)).await);
    });
}

#[test]
fn replaced_key_is_noticed_despite_an_unchanged_mtime() {
    run(async {
        let keys = [key("same"), key("same")];
        let jwk = |key: &Key| key.public().unwrap().to_json();
        let site = Site::with("key_dir = \"keys\"", |folder| {
            fs::create_dir(folder.join("keys")).unwrap();
            fs::write(folder.join("keys/same.jwk"), jwk(&keys[0])).unwrap();
        });
        let of = |key: &Key| format!("/room?jwt={}", token(key, "room"));
        let client = site.enter(&of(&keys[0])).await.unwrap();
        let file = site.file("keys/same.jwk");
        let time = fs::metadata(&file).unwrap().modified().unwrap();
        fs::write(&file, jwk(&keys[1])).unwrap();
        fs::File::options().write(true).open(&file).unwrap().set_modified(time).unwrap();
        unauthorized(&ends(&client, "a session of a replaced key").await);
        drop(site.enter(&of(&keys[1])).await.unwrap());
    });
}

#[test]
fn remote_key_is_fetched_once_and_refreshed() {
    run(async {
        let (known, unknown) = (key("known"), key("unknown"));
        let jwk = known.public().unwrap().to_json();
        let web = Web::start(move |asked: &Asked| match asked.target.as_str() {
            "/keys/known.jwk" => Answer::ok(jwk.clone()).after(Duration::from_millis(200)),
            _ => Answer::status(404),
        })
        .await;
        let site = Site::new(&format!("key_dir = \"{}/keys\"\nrefresh = \"1s\"", web.url));
        let of = |key: &Key| format!("/room?jwt={}", token(key, "room"));
        let target = of(&known);
        let (one, two, three) = tokio::join!(site.enter(&target), site.enter(&target), site.enter(&target));
        let client = one.unwrap();
        drop((two.unwrap(), three.unwrap()));
        let asked = |name: &str| web.asked().iter().filter(|asked| asked.target.contains(name)).count();
        assert_eq!(asked("/known.jwk"), 1);
        unauthorized(&site.refused(&of(&unknown)).await);
        unauthorized(&site.refused(&of(&unknown)).await);
        assert_eq!(asked("/unknown.jwk"), 1, "an absent key is cached");
        // An outage of the server revokes nothing; an answer without the key does.
        web.now(|_| Answer::status(500));
        site.relay.line_with("keeping the previous key");
        assert_eq!(client.is_closed(), None);
        web.now(|_| Answer::status(404));
        unauthorized(&ends(&client, "a session of a revoked key").await);
    });
}

#[test]
fn key_set_changes_apply_on_refresh() {
    run(async {
        let (first, second) = (key("first"), key("second"));
        let set = |keys: &[&Key]| {
            let keys: Vec<Value> = keys
                .iter()
                .map(|key| serde_json::from_str(&key.public().unwrap().to_json()).unwrap())
                .collect();
            json!({ "keys": keys }).to_string()
        };
        let before = set(&[&first]);
        let web = Web::start(move |_: &Asked| Answer::ok(before.clone())).await;
        let site = Site::new(&format!("key_dir = \"{}/jwks.json\"\nrefresh = \"1s\"", web.url));
        let of = |key: &Key| format!("/room?jwt={}", token(key, "room"));
        let client = site.enter(&of(&first)).await.unwrap();
        let after = set(&[&second]);
        web.now(move |_| Answer::ok(after.clone()));
        unauthorized(&ends(&client, "a session of a key that is not in the set").await);
        drop(site.enter(&of(&second)).await.unwrap());
    });
}

fn event(asked: &Asked, name: &str) -> Option<Value> {
    let body: Value = serde_json::from_str(&asked.body).ok()?;
    (asked.method == "POST" && body["event"] == name).then_some(body)
}

#[test]
fn auth_server_decides_and_receives_the_end() {
    run(async {
        let web = Web::start(|asked: &Asked| match event(asked, "connect") {
            Some(body) if body["query"] == "jwt=sesame" => {
                Answer::ok(json!({ "publish": ["**"], "subscribe": ["**"] }).to_string())
            }
            Some(_) => Answer::status(403),
            None => Answer::ok(""),
        })
        .await;
        let site = Site::new(&format!("url = \"{}/auth\"", web.url));
        let client = site.enter_by("https", "/room?jwt=sesame").await.unwrap();
        unauthorized(&site.refused("/room?jwt=nothing").await);
        let asked =
            event(&web.until("about a session", |asked| event(asked, "connect").is_some()).await, "connect");
        let asked = asked.unwrap();
        for (name, value) in [
            ("node", json!("77")),
            ("transport", json!("webtransport")),
            ("alpn", json!("moq-lite-05")),
            ("path", json!("/room")),
            ("token", json!({ "kind": 0, "value": "c2VzYW1l" })),
            ("tls", Value::Null),
        ] {
            assert_eq!(asked[name], value, "{name} of {asked}");
        }
        assert!(asked["remote"].as_str().unwrap().starts_with("127.0.0.1:"), "{asked}");
        flows(&client, "cam", &client_of(&site).await, "cam").await;
        client.close(SessionCode::NONE, "bye").await;
        let is_it = |asked: &Asked, id: &Value| event(asked, "end").is_some_and(|end| end["id"] == *id);
        let end = web.until("of an end", |end| is_it(end, &asked["id"])).await;
        let end = event(&end, "end").unwrap();
        assert_eq!((&end["id"], &end["ended_by"]), (&asked["id"], &json!("peer")), "{end}");
        assert!(
            end["bytes_received"].as_u64() > Some(1_000) && end["bytes_sent"].as_u64() > Some(1_000),
            "{end}"
        );
        let ends = web.asked().iter().filter(|asked| event(asked, "end").is_some()).count();
        assert!(ends <= 2, "rejected sessions have no end event");
    });
}

async fn client_of(site: &Site) -> Client {
    site.enter("/room?jwt=sesame").await.unwrap()
}

#[test]
fn auth_server_narrows_and_revokes_live_sessions() {
    run(async {
        let granted = |publish: &[&str]| {
            json!({ "grant": { "publish": publish, "subscribe": ["**"], "revalidate": 1 } }).to_string()
        };
        let wide = granted(&["**"]);
        let web = Web::start(move |_: &Asked| Answer::ok(wide.clone())).await;
        let site = Site::new(&format!("url = \"{}\"", web.url));
        let publisher = site.enter("/room").await.unwrap();
        let watcher = site.enter("/room").await.unwrap();
        let (kept, lost) = (publisher.broadcast("kept").unwrap(), publisher.broadcast("lost").unwrap());
        kept.announce();
        lost.announce();
        let mut watch = watcher.announced("").await.unwrap();
        watch.wait("kept", true).await.unwrap();
        watch.wait("lost", true).await.unwrap();
        let narrow = granted(&["kept"]);
        web.now(move |_| Answer::ok(narrow.clone()));
        watch.wait("lost", false).await.unwrap();
        assert_eq!(publisher.is_closed(), None);
        web.now(|_| Answer::status(401));
        unauthorized(&ends(&publisher, "a revoked session").await);
    });
}

#[test]
fn no_session_is_admitted_while_the_auth_server_fails() {
    run(async {
        let good = || Answer::ok(json!({ "publish": ["**"] }).to_string());
        let web = Web::start(move |_: &Asked| good()).await;
        let site = Site::new(&format!("url = \"{}\"", web.url));
        drop(site.enter("/room").await.unwrap());
        for answer in [
            Answer::status(500),
            Answer::status(302).with("location: /elsewhere"),
            Answer::ok("not JSON"),
            Answer::ok("[]"),
            Answer::ok(json!({ "publish": ["**/**"] }).to_string()),
            Answer::ok(json!({ "publish": ["a/../**"] }).to_string()),
            Answer::ok(json!({ "publish": ["**"], "root": "a/./b" }).to_string()),
            Answer::ok(json!({ "publish": ["**"], "mounts": [{ "path": "x" }] }).to_string()),
            Answer::ok(json!({ "publish": ["**"], "expires": -1 }).to_string()),
            Answer::ok("x".repeat(300 * 1024)),
            good().after(Duration::from_secs(20)),
        ] {
            let said = format!("{} {}", answer.status, answer.body.chars().take(60).collect::<String>());
            let is_late = !answer.after.is_zero();
            let mut answers = Some(answer);
            web.now(move |_| answers.take().unwrap_or_else(|| Answer::status(500)));
            let closed = site.refused("/room").await;
            let expected = if is_late { SessionCode::TIMEOUT } else { SessionCode::INTERNAL };
            assert_eq!(code(&closed), Some(expected), "{said}: {closed:?}");
        }
        // An empty grant is a decision, and no reason to retry.
        web.now(|_| Answer::ok("{}"));
        unauthorized(&site.refused("/room").await);
        web.now(move |_| good());
        drop(site.enter("/room").await.unwrap());
    });
}

#[test]
fn auth_server_answer_is_cached_for_its_lifetime() {
    run(async {
        let said = json!({ "subscribe": ["**"] }).to_string();
        let web =
            Web::start(move |_: &Asked| Answer::ok(said.clone()).with("cache-control: private, max-age=60"))
                .await;
        let site = Site::new(&format!("url = \"{}\"", web.url));
        for _ in 0..3 {
            drop(site.enter("/room?jwt=a").await.unwrap());
        }
        drop(site.enter("/room?jwt=b").await.unwrap());
        let asked = web.asked().iter().filter(|asked| event(asked, "connect").is_some()).count();
        assert_eq!(asked, 2);
    });
}

#[test]
fn folder_key_needs_a_plain_file_name() {
    run(async {
        let names = ["plain-1_A", "a.b", "a b", "a=", ""];
        let keys = names.map(|name| (name, key(name)));
        let site = Site::with("key_dir = \"keys\"", |folder| {
            fs::create_dir(folder.join("keys")).unwrap();
            for (name, key) in &keys {
                fs::write(folder.join(format!("keys/{name}.jwk")), key.public().unwrap().to_json()).unwrap();
            }
        });
        for (name, key) in &keys {
            let target = format!("/room?jwt={}", token(key, "room"));
            match *name {
                "plain-1_A" => drop(site.enter(&target).await.unwrap()),
                _ => unauthorized(&site.refused(&target).await),
            }
        }
    });
}

#[test]
fn older_auth_api_supplies_keys_and_public_paths() {
    run(async {
        let key = key("k1");
        let jwk: Value = serde_json::from_str(&key.public().unwrap().to_json()).unwrap();
        let is_revoked = Arc::new(AtomicBool::new(false));
        let revoked = is_revoked.clone();
        let web = Web::start(move |asked: &Asked| {
            let has = |part: &str| asked.target.contains(part);
            if has("root=forbidden") {
                return Answer::status(403);
            }
            if !has("root=demo") || !has("transport=quic") {
                return Answer::status(404);
            }
            let mut said = json!({ "alias": "x7/room", "public": { "subscribe": ["cam"] }, "tier": "gold" });
            if has("kid=k1") && !revoked.load(Ordering::Relaxed) {
                said["key"] = jwk.clone();
            }
            Answer::ok(said.to_string())
        })
        .await;
        let site = Site::new(&format!("api = \"{}/auth?v=1\"\nrefresh = \"1s\"", web.url));
        let member = site.enter(&format!("/demo/room?jwt={}", token(&key, "demo"))).await.unwrap();
        let public = site.enter("/demo/room").await.unwrap();
        flows(&member, "cam", &public, "cam").await;
        assert!(web.asked().iter().any(|asked| asked.target.contains("v=1&root=demo%2Froom&kid=k1")));
        let closed = site.refused("/other").await;
        assert_eq!(code(&closed), Some(SessionCode::INTERNAL), "{closed:?}");
        unauthorized(&site.refused("/forbidden").await);
        is_revoked.store(true, Ordering::Relaxed);
        unauthorized(&ends(&member, "a session with a revoked key").await);
        assert_eq!(public.is_closed(), None);
    });
}
