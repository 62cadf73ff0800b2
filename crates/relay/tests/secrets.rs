//! Promise: no token, token content, signature or key is ever in a log, at any level and of any library, nor in a
//! close reason.

#![allow(missing_docs)]

mod common;

use std::{fs, path::Path as File, time::Duration};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use relay_auth::{Algorithm, Claims, Key};
use relay_client::{Closed, SessionCode};
use serde_json::{Value, json};

use common::{
    Recording, run,
    site::{Site, claims, code, flows, key},
    web::{Answer, Asked, Web},
};

/// Secrets that must not appear, in every likely encoding.
struct Secrets(Vec<(&'static str, String)>);

impl Secrets {
    fn new() -> Self {
        Self(Vec::new())
    }

    fn text(&mut self, what: &'static str, text: &str) {
        self.0.push((what, text.to_owned()));
        // As a library prints bytes.
        self.bytes(what, text.as_bytes());
    }

    fn bytes(&mut self, what: &'static str, bytes: &[u8]) {
        // Parts must not appear either.
        for bytes in [bytes, &bytes[bytes.len() / 2..]] {
            let bytes = &bytes[..bytes.len().min(24)];
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
            self.0.extend([(what, hex.to_uppercase()), (what, hex), (what, list)]);
            self.0.push((what, URL_SAFE_NO_PAD.encode(&bytes[..bytes.len() / 3 * 3])));
        }
    }

    /// Adds a token, its parts and their content.
    fn token(&mut self, token: &str) {
        self.text("a token", token);
        self.0.push(("a token as an auth server is shown it", URL_SAFE_NO_PAD.encode(token)));
        let parts: Vec<&str> = token.split('.').collect();
        self.text("a payload", parts[1]);
        self.text("a signature", parts[2]);
        let payload = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
        self.text("a payload, decoded", std::str::from_utf8(&payload).unwrap());
        self.bytes("a signature, decoded", &URL_SAFE_NO_PAD.decode(parts[2]).unwrap());
    }

    /// Adds the private part of a key.
    fn key(&mut self, key: &Key) {
        let jwk: Value = serde_json::from_str(&key.to_json()).unwrap();
        for name in ["k", "d"] {
            if let Some(material) = jwk[name].as_str() {
                self.text("a key", material);
                self.bytes("a key, decoded", &URL_SAFE_NO_PAD.decode(material).unwrap());
            }
        }
    }

    fn search(&self, place: &str, text: &str) {
        for (what, secret) in &self.0 {
            assert!(!text.contains(secret.as_str()), "{what} in {place}: {text}");
        }
        assert!(!text.contains("jwt="), "a query in {place}: {text}");
    }
}

/// Opens accepted and rejected sessions over each transport, and searches their close reasons.
async fn visit(site: &Site, good: &str, secrets: &mut Secrets) {
    let parts: Vec<&str> = good.split('.').collect();
    let (start, rest) = parts[2].split_at(8);
    let bad = format!("{}.{}.{}{rest}", parts[0], parts[1], start.chars().rev().collect::<String>());
    secrets.token(good);
    secrets.token(&bad);
    let mut refusals = Vec::new();
    for scheme in ["moqt", "https"] {
        let member = site.enter_by(scheme, &format!("/room?jwt={good}")).await.unwrap();
        let other = site.enter(&format!("/room?jwt={good}")).await.unwrap();
        flows(&member, scheme, &other, scheme).await;
        for target in [
            format!("/room?jwt={bad}"),
            format!("/a%zz?jwt={good}"),
            format!("/x?jwt={good}&jwt=y.z.q"),
            format!("/room?jwt={good}.{good}"),
            format!("/jwt={good}"),
            format!("/room?token={good}"),
        ] {
            let refused = site.enter_by(scheme, &target).await.err();
            refusals.push(refused.unwrap_or_else(|| panic!("{target} was admitted")));
        }
    }
    for closed in refusals {
        let Closed::Peer { reason, .. } = &closed else { panic!("{closed:?}") };
        assert!(reason.len() < 64, "{reason}");
        secrets.search("a close reason", reason);
    }
}

/// Ends the relay, and searches its log.
fn end(site: Site, recording: Recording, secrets: &Secrets) {
    site.relay.signal(rustix::process::Signal::TERM);
    assert_eq!(site.relay.end().code(), Some(0));
    let said = recording.all();
    for part in ["moq_relay::session", "quinn_proto"] {
        assert!(said.iter().any(|line| line.contains(part)), "{part} logged nothing");
    }
    assert!(said.iter().any(|line| line.contains("TRACE")), "no trace lines were logged");
    for line in &said {
        secrets.search("the log", line);
    }
}

/// Filter for all log lines of all crates.
const ALL: &str = "trace";

fn write(folder: &File, name: &str, text: &str) {
    fs::write(folder.join(name), text).unwrap();
}

fn sign(key: &Key) -> String {
    key.sign(&Claims { subject: None, ..claims("room") }).unwrap()
}

#[test]
fn key_files_leak_no_secret() {
    run(async {
        let (pair, shared) = (key("pair"), Key::generate(Algorithm::HS256, None).unwrap());
        let (site, recording) = Site::recorded(ALL, "key = [\"pair.jwk\", \"shared.jwk\"]", |folder| {
            write(folder, "pair.jwk", &pair.to_json());
            write(folder, "shared.jwk", &shared.to_base64url());
        });
        let mut secrets = Secrets::new();
        for key in [&pair, &shared] {
            secrets.key(key);
            visit(&site, &sign(key), &mut secrets).await;
        }
        // A partly written file is read.
        let torn = pair.to_json();
        fs::write(site.file("pair.jwk"), &torn[..torn.len() - 9]).unwrap();
        recording.wait_for("keeping the previous keys");
        end(site, recording, &secrets);
    });
}

#[test]
fn key_server_leaks_no_secret() {
    run(async {
        let key = Key::generate(Algorithm::HS256, Some("shared".parse().unwrap())).unwrap();
        let jwk = key.to_json();
        let web = Web::start(move |asked: &Asked| match asked.target.as_str() {
            "/keys/shared.jwk?of=hunter2" => Answer::ok(jwk.clone()),
            _ => Answer::status(404),
        })
        .await;
        let auth = format!("key_dir = \"{}/keys?of=hunter2\"\nrefresh = \"1s\"", credentials(&web.url));
        let (site, recording) = Site::recorded(ALL, &auth, |_| {});
        let mut secrets = Secrets::new();
        secrets.key(&key);
        secrets.text("a password", "hunter2");
        visit(&site, &sign(&key), &mut secrets).await;
        // A malformed answer is logged without its content.
        let jwk: Value = serde_json::from_str(&key.to_json()).unwrap();
        let material = jwk["k"].clone();
        let mut answers = vec![format!("{jwk}x"), format!("{material}"), format!("[{material}]")];
        for name in ["alg", "kid", "scope"] {
            let mut jwk = jwk.clone();
            jwk[name] = material.clone();
            answers.push(jwk.to_string());
        }
        let last = answers.len();
        web.now(move |_| Answer::ok(answers.pop().unwrap_or_default()));
        web.until("again and again", |_| true).await;
        while web.asked().len() < last + 3 {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        recording.wait_for("keeping the previous key");
        end(site, recording, &secrets);
    });
}

/// URL with a name and password.
fn credentials(url: &str) -> String {
    url.replace("http://", "http://operator:hunter2@")
}

#[test]
fn auth_server_leaks_no_secret() {
    run(async {
        let key = key("pair");
        let good = sign(&key);
        let expected = format!("jwt={good}");
        let web = Web::start(move |asked: &Asked| {
            let body: Value = serde_json::from_str(&asked.body).unwrap();
            match body["query"] == expected.as_str() && body["path"] == "/room" {
                true => Answer::ok(json!({ "publish": ["**"], "subscribe": ["**"] }).to_string()),
                false => Answer::status(403),
            }
        })
        .await;
        let auth = format!("url = \"{}/auth?of=hunter2\"", credentials(&web.url));
        let (site, recording) = Site::recorded(ALL, &auth, |_| {});
        let mut secrets = Secrets::new();
        secrets.key(&key);
        secrets.text("a password", "hunter2");
        visit(&site, &good, &mut secrets).await;
        // Malformed answers that echo the request are logged without their content.
        let said = format!("jwt={good}");
        for answer in [
            json!(said),
            json!([said]),
            json!({ "publish": said }),
            json!({ "publish": [[said]] }),
            json!({ "publish": [format!("{said}//**")] }),
            json!({ "publish": ["**"], "root": format!("a/../{said}") }),
            json!({ "publish": ["**"], "expires": said }),
            json!({ "publish": ["**"], "mounts": said }),
            json!({ "grant": said }),
        ] {
            let text = answer.to_string();
            web.now(move |_| Answer::ok(answer.to_string()));
            let closed = site.enter(&format!("/room?jwt={good}")).await.err();
            assert_eq!(closed.as_ref().and_then(code), Some(SessionCode::INTERNAL), "{text}: {closed:?}");
        }
        recording.wait_for("is malformed");
        end(site, recording, &secrets);
    });
}

#[test]
fn older_auth_api_leaks_no_secret() {
    run(async {
        let key = Key::generate(Algorithm::HS256, Some("shared".parse().unwrap())).unwrap();
        let jwk: Value = serde_json::from_str(&key.to_json()).unwrap();
        let material = jwk["k"].clone();
        let web = Web::start(move |asked: &Asked| {
            let knows = asked.target.contains("root=room&kid=shared");
            Answer::ok(if knows { json!({ "key": jwk }) } else { json!({}) }.to_string())
        })
        .await;
        let auth = format!("api = \"{}/auth?of=hunter2\"", credentials(&web.url));
        let (site, recording) = Site::recorded(ALL, &auth, |_| {});
        let mut secrets = Secrets::new();
        secrets.key(&key);
        secrets.text("a password", "hunter2");
        let good = sign(&key);
        visit(&site, &good, &mut secrets).await;
        for answer in [json!(material), json!({ "alias": [material] }), json!({ "key": { "k": material } })] {
            web.now(move |_| Answer::ok(answer.to_string()));
            assert!(site.enter(&format!("/room/new?jwt={good}")).await.is_err());
        }
        recording.wait_for("is malformed");
        end(site, recording, &secrets);
    });
}

#[test]
fn unreachable_server_leaks_no_secret() {
    run(async {
        let gone =
            format!("http://{}", std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap());
        for way in ["url", "api", "key_dir"] {
            let auth = format!("{way} = \"{}/auth?of=hunter2\"", credentials(&gone));
            let (site, recording) = Site::recorded(ALL, &auth, |_| {});
            let mut secrets = Secrets::new();
            secrets.text("a password", "hunter2");
            let good = sign(&key("pair"));
            secrets.token(&good);
            let closed = site.enter(&format!("/room?jwt={good}")).await.err().unwrap();
            assert_eq!(code(&closed), Some(SessionCode::INTERNAL), "{way}: {closed:?}");
            recording.wait_for("onnection refused");
            end(site, recording, &secrets);
        }
    });
}
