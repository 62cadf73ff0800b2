//! Promise: a client with a certificate of a configured authority needs no token and may use all paths below its
//! own, and no others, until the certificate expires; with an auth server the certificate is only reported.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    path::Path as File,
    time::{Duration, SystemTime},
};

use aws_lc_rs::digest;
use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use relay_client::{Client, ClientConfig, ClientIdentity, Error, Prefs, StreamCode};
use rustls_pki_types::PrivatePkcs8KeyDer;
use serde_json::{Value, json};

use common::{
    run,
    site::{Site, ends, flows, key, token, unauthorized},
    web::{Answer, Asked, Web},
};

const DAY: Duration = Duration::from_secs(86_400);

/// An authority of client certificates.
struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

impl Authority {
    fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        let key = KeyPair::generate().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), pem }
    }

    /// A client with a certificate for `name`, and its fingerprint.
    fn client(&self, name: &str, until: SystemTime) -> (ClientConfig, String) {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        params.not_after = until.into();
        let key = KeyPair::generate().unwrap();
        let leaf = params.signed_by(&key, &self.issuer).unwrap();
        let mark = digest::digest(&digest::SHA256, leaf.der());
        let identity = ClientIdentity::new(
            vec![leaf.der().clone()],
            PrivatePkcs8KeyDer::from(key.serialize_der()).into(),
        );
        let config = ClientConfig { identity: Some(identity), ..ClientConfig::default() };
        (config, mark.as_ref().iter().map(|byte| format!("{byte:02x}")).collect())
    }

    /// A relay that trusts this authority, with these `auth` settings.
    fn site(&self, auth: &str, prepare: impl FnOnce(&File)) -> Site {
        Site::with(&format!("{auth}\n[tls]\nroot = \"root.pem\""), |folder| {
            fs::write(folder.join("root.pem"), &self.pem).unwrap();
            prepare(folder);
        })
    }
}

/// A time from now in whole seconds, as certificates store it.
fn in_seconds(seconds: u64) -> SystemTime {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    SystemTime::UNIX_EPOCH + Duration::from_secs(now + seconds)
}

/// Subscribes to a track that must be unroutable.
async fn unroutable(client: &Client, path: &str) {
    let mut subscription = client.subscribe(path, "t", Prefs::default()).await.unwrap();
    let error = subscription.next_group().await.unwrap_err();
    let Error::Reset(code) = &error else { panic!("{path}: {error:?}") };
    assert_eq!(code.stream(), Some(StreamCode::UNROUTABLE), "{path}: {error:?}");
}

#[test]
fn certificate_grants_its_subtree_and_tokens_still_work() {
    run(async {
        let authority = Authority::new("of clients");
        let (ours, _) = authority.client("edge.example", SystemTime::now() + DAY);
        let key = key("root");
        let site = authority.site("public = \"anon\"\nkey = \"root.jwk\"", |folder| {
            fs::write(folder.join("root.jwk"), key.to_json()).unwrap();
        });
        let everywhere = site.enter(&format!("/?jwt={}", token(&key, ""))).await.unwrap();
        for scheme in ["moqt", "https"] {
            let edge = site.enter_as(scheme, "/room", ours.clone()).await.unwrap();
            // A broadcast elsewhere is announced first, and must stay hidden.
            let elsewhere = everywhere.broadcast("elsewhere/cam").unwrap();
            let _track = elsewhere.track("t", Default::default()).unwrap();
            elsewhere.announce();
            let (own, others) = (format!("{scheme}/own"), format!("room/{scheme}/others"));
            flows(&edge, &own, &everywhere, &format!("room/{own}")).await;
            let within = everywhere.broadcast(&others).unwrap();
            let mut watch = edge.announced("").await.unwrap();
            within.announce();
            loop {
                let seen = watch.next().await.unwrap().unwrap();
                let path = seen.path.as_str();
                assert!(path.starts_with(scheme), "{path} is visible");
                if path.ends_with("others") {
                    break;
                }
            }
            drop(within);
            flows(&everywhere, &format!("room/{scheme}/x"), &edge, &format!("{scheme}/x")).await;
            for path in ["elsewhere/cam", "../elsewhere/cam", "room/elsewhere/cam"] {
                unroutable(&edge, path).await;
            }
            // Clients without a certificate have tokens and public paths only.
            let member = site.enter_by(scheme, &format!("/room?jwt={}", token(&key, "room"))).await.unwrap();
            let anybody = site.enter_by(scheme, "/anon").await.unwrap();
            assert!(member.is_closed().is_none() && anybody.is_closed().is_none());
            unauthorized(&site.enter_by(scheme, "/room").await.err().unwrap());
        }
    });
}

#[test]
fn a_session_ends_with_its_certificate() {
    run(async {
        let authority = Authority::new("of clients");
        let site = authority.site("public = \"anon\"", |_| {});
        let end = in_seconds(3);
        let (brief, _) = authority.client("brief.example", end);
        let (lasting, _) = authority.client("lasting.example", SystemTime::now() + DAY);
        let lasting = site.enter_as("moqt", "/room", lasting).await.unwrap();
        let over_quic = site.enter_as("moqt", "/room", brief.clone()).await.unwrap();
        let over_web = site.enter_as("https", "/room", brief).await.unwrap();
        for client in [over_quic, over_web] {
            unauthorized(&ends(&client, "a session with an expired certificate").await);
            let late = SystemTime::now().duration_since(end).expect("not before its expiry");
            assert!(late < Duration::from_millis(1_500), "{late:?} after its expiry");
        }
        assert_eq!(lasting.is_closed(), None);
    });
}

#[test]
fn auth_server_decides_about_client_certificates() {
    run(async {
        let authority = Authority::new("of clients");
        let end = in_seconds(3_600);
        let (edge, fingerprint) = authority.client("edge.example", end);
        let (stranger, _) = authority.client("stranger.example", end);
        let body = |asked: &Asked| serde_json::from_str::<Value>(&asked.body).unwrap();
        let web = Web::start(move |asked: &Asked| match body(asked)["tls"]["name"].as_str() {
            Some("edge.example") => {
                Answer::ok(json!({ "publish": ["own/**"], "subscribe": ["**"] }).to_string())
            }
            _ => Answer::status(403),
        })
        .await;
        let site = authority.site(&format!("url = \"{}/auth\"", web.url), |_| {});
        unauthorized(&site.enter("/room").await.err().unwrap());
        unauthorized(&site.enter_as("moqt", "/room", stranger).await.err().unwrap());
        for scheme in ["moqt", "https"] {
            let client = site.enter_as(scheme, "/room", edge.clone()).await.unwrap();
            let viewer = site.enter_as(scheme, "/room", edge.clone()).await.unwrap();
            // The session has the grant of the server, not its whole subtree.
            let refused = client.broadcast("other").unwrap();
            refused.announce();
            flows(&client, "own/x", &viewer, "own/x").await;
            unroutable(&viewer, "other").await;
        }
        let asked: Vec<Value> = web.asked().iter().map(body).collect();
        let of = |name: Option<&str>| {
            let is_it = |asked: &&Value| asked["event"] == "connect" && asked["tls"]["name"].as_str() == name;
            asked.iter().find(is_it).unwrap_or_else(|| panic!("{name:?} was not asked about"))
        };
        assert_eq!(of(None)["tls"], Value::Null);
        assert!(of(Some("stranger.example"))["tls"]["fingerprint"] != fingerprint.as_str());
        let expires = end.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let tls = &of(Some("edge.example"))["tls"];
        assert_eq!((&tls["fingerprint"], &tls["expires"]), (&json!(fingerprint), &json!(expires)), "{tls}");
        assert!(tls["issuer"].as_str().is_some_and(|issuer| issuer.contains("of clients")), "{tls}");
        assert_eq!(tls.as_object().map(serde_json::Map::len), Some(4), "{tls}");
    });
}

#[test]
fn certificate_of_an_unknown_authority_is_rejected() {
    run(async {
        let site = Authority::new("of clients").site("public = \"\"", |_| {});
        let (foreign, _) = Authority::new("of others").client("edge.example", SystemTime::now() + DAY);
        let refused = Client::connect(&site.url("moqt", "/room"), foreign).await;
        let refused = match refused {
            // The client completes the handshake before the relay has verified its certificate.
            Ok(client) => client.closed().await.to_string(),
            Err(error) => error.to_string(),
        };
        assert!(refused.contains("invalid peer certificate"), "{refused}");
        drop(site.enter_as("moqt", "/room", ClientConfig::default()).await.unwrap());
    });
}
