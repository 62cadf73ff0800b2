//! Promise: HTTP serves the state of the relay, live broadcasts and groups under the same authorization as sessions;
//! and an interrupted answer never looks complete.

#![allow(missing_docs)]

mod common;

use std::{io::Write, time::Duration};

use bytes::Bytes;
use relay_client::{Broadcast, Client, Prefs, SessionCode, StreamCode, Track, TrackInfo};
use rustix::process::Signal;
use tokio::task::block_in_place;

use common::{
    Running,
    http::{Reply, ask, connect, eventually, exchange, free_tcp, get, head, reply, until, upgrade},
    relay, run,
    site::{Site, code, ends, key, token},
    web::{Answer, Web},
};

/// A relay that serves HTTP, and its HTTP address.
fn site(auth: &str, more: &str) -> (Site, String) {
    let http = free_tcp();
    let site = Site::new(&format!("{auth}\n[web]\nhttp.listen = \"{http}\"\n{more}"));
    (site, http)
}

/// A publisher of `path` with one track.
async fn publisher(site: &Site, path: &str) -> (Client, Broadcast, Track) {
    let client = site.enter("").await.unwrap();
    let broadcast = client.broadcast(path).unwrap();
    let track = broadcast.track("video", TrackInfo::default()).unwrap();
    broadcast.announce();
    site.enter("").await.unwrap().announced("").await.unwrap().wait(path, true).await.unwrap();
    (client, broadcast, track)
}

fn finished(track: &Track, sequence: u64, frames: &[&'static str]) {
    let group = track.group(sequence);
    frames.iter().for_each(|frame| group.frame(0, Bytes::from_static(frame.as_bytes())));
    group.finish();
}

/// Status, content type and text.
fn seen(reply: &Reply) -> (u16, &str, &str) {
    (reply.status, reply.header("content-type").unwrap_or_default(), reply.text())
}

const TEXT: &str = "text/plain; charset=utf-8";

#[test]
fn development_port_serves_http_and_tls_as_in_the_banner() {
    run(async {
        let address = free_tcp();
        let mut relay = Running::start(relay().args(["--bind", &address]));
        let said = relay.line_with(" http://");
        assert!(said.contains(&format!("http://{address}/")), "{said}");
        let fingerprint = relay.line_with("  certificate");
        let fingerprint = fingerprint.split_whitespace().nth(1).unwrap();
        let recording = relay.record();
        assert_eq!(seen(&get(&address, "/health")), (200, TEXT, "ok\n"));
        assert_eq!(seen(&get(&address, "/ready")), (200, TEXT, "ready\n"));
        assert_eq!(seen(&get(&address, "/certificate.sha256")), (200, TEXT, fingerprint));
        let tls =
            rustls::ClientConfig::builder_with_provider(rustls::crypto::aws_lc_rs::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(std::sync::Arc::new(common::http::Anybody))
                .with_no_client_auth();
        let mut session = rustls::ClientConnection::new(tls.into(), "localhost".try_into().unwrap()).unwrap();
        let mut stream = connect(&address);
        let mut tls = rustls::Stream::new(&mut session, &mut stream);
        tls.write_all(b"GET /health HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
        let mut all = Vec::new();
        let _ = std::io::Read::read_to_end(&mut tls, &mut all);
        assert_eq!(seen(&reply(&all, false)), (200, TEXT, "ok\n"));
        relay.signal(Signal::TERM);
        drop(relay);
        drop(recording);
    });
}

#[test]
fn any_origin_may_read_and_writes_are_rejected() {
    run(async {
        let (_site, http) = site("public = \"\"", "");
        for target in ["/health", "/announced", "/fetch/a/b", "/fetch/a", "/certificate.sha256"] {
            assert_eq!(get(&http, target).header("access-control-allow-origin"), Some("*"), "{target}");
            let asked = ask(&http, "OPTIONS", target, &["origin: https://x.test"]);
            assert_eq!(
                (asked.status, asked.header("access-control-allow-methods")),
                (204, Some("GET, HEAD, OPTIONS"))
            );
            let posted = ask(&http, "POST", target, &["content-length: 0"]);
            assert_eq!(
                (posted.status, posted.header("allow")),
                (405, Some("GET, HEAD, OPTIONS")),
                "{target}"
            );
            assert_eq!(ask(&http, "GET", target, &["content-length: 5"]).status, 413, "{target}");
            assert_eq!(ask(&http, "GET", target, &["transfer-encoding: chunked"]).status, 413, "{target}");
        }
        let missing = get(&http, "/nothing/here");
        assert_eq!((missing.status, missing.header("content-type")), (404, Some("text/html; charset=utf-8")));
        let head = ask(&http, "HEAD", "/health", &[]);
        assert_eq!((head.status, head.header("content-length"), head.text()), (200, Some("3"), ""));
    });
}

#[test]
fn live_broadcasts_are_listed_and_changes_streamed() {
    run(async {
        let (site, http) = site("public.subscribe = [\"\"]\npublic.publish = [\"\"]", "");
        block_in_place(|| {
            assert_eq!(seen(&get(&http, "/announced")), (200, TEXT, ""));
            let json = ask(&http, "GET", "/announced", &["accept: application/json"]);
            assert_eq!(seen(&json), (200, "application/json", "[]\n"));
        });
        let (_alice, broadcast, _) = publisher(&site, "room/alice").await;
        let (_bob, _one, _) = publisher(&site, "room/bob \"b\"").await;
        let (_other, _two, _) = publisher(&site, "other").await;
        block_in_place(|| {
            assert_eq!(seen(&get(&http, "/announced/room")), (200, TEXT, "alice\nbob \"b\"\n"));
            assert_eq!(seen(&get(&http, "/announced/")), (200, TEXT, "other\nroom/alice\nroom/bob \"b\"\n"));
            let json = ask(&http, "GET", "/announced//room/", &["accept: application/json"]);
            assert_eq!(seen(&json), (200, "application/json", "[\"alice\",\"bob \\\"b\\\"\"]\n"));
            let mut events = connect(&http);
            events
                .write_all(b"GET /announced/room HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n")
                .unwrap();
            let said = until(&mut events, "bob");
            assert!(said.contains("content-type: text/event-stream"), "{said}");
            assert!(said.contains("id: 0\nevent: announced\ndata: {\"path\":\"alice\"}\n\n"), "{said}");
            broadcast.withdraw();
            let said = until(&mut events, "alice\"}\n\n");
            assert!(said.contains("id: 2\nevent: ended\n"), "{said}");
            broadcast.announce();
            let said = until(&mut events, "alice\"}\n\n");
            assert!(said.contains("id: 3\nevent: announced\n"), "{said}");
        });
    });
}

#[test]
fn finished_group_is_fetched_in_whole_or_part_with_an_etag() {
    run(async {
        let (site, http) = site("public = \"\"", "");
        let (_client, _broadcast, track) = publisher(&site, "room/alice").await;
        track.retain(10);
        finished(&track, 0, &["old"]);
        finished(&track, 7, &["one", "", "three"]);
        block_in_place(|| {
            let latest = get(&http, "/fetch/room/alice/video");
            assert_eq!((latest.status, latest.text(), latest.is_whole), (200, "onethree", true));
            assert_eq!(
                (latest.header("moq-group"), latest.header("cache-control")),
                (Some("7"), Some("no-cache"))
            );
            let named = eventually("it is finished", || {
                Some(get(&http, "/fetch/room/alice/video?group=7"))
                    .filter(|named| named.header("etag").is_some())
            });
            assert_eq!((named.text(), named.header("content-length")), ("onethree", Some("8")));
            assert_eq!(named.header("cache-control"), Some("no-cache"));
            let tag = named.header("etag").unwrap();
            let again =
                ask(&http, "GET", "/fetch/room/alice/video?group=7", &[&format!("if-none-match: {tag}")]);
            assert_eq!((again.status, again.text(), again.header("etag")), (304, "", Some(tag)));
            let head = ask(&http, "HEAD", "/fetch/room/alice/video?group=7", &[]);
            assert_eq!((head.status, head.header("content-length"), head.text()), (200, Some("8"), ""));
            for (range, text) in [
                ("from=1", "three"),
                ("from=0&to=0", "one"),
                ("from=1&to=1", ""),
                ("from=2&to=9", "three"),
                ("from=3", ""),
            ] {
                let part = get(&http, &format!("/fetch/room/alice/video?group=7&{range}"));
                assert_eq!((part.status, part.text(), part.is_whole), (200, text, true), "{range}");
                assert_ne!(part.header("etag"), Some(tag), "{range}");
            }
            // Not cached here, so it is fetched from its publisher.
            let old = get(&http, "/fetch/room/alice/video?group=0");
            assert_eq!((old.status, old.text(), old.header("moq-group")), (200, "old", Some("0")));
        });
    });
}

#[test]
fn missing_target_is_404_and_malformed_request_400() {
    run(async {
        let (site, http) = site("public = \"\"", "");
        let (_client, _broadcast, track) = publisher(&site, "room/alice").await;
        finished(&track, 7, &["x"]);
        block_in_place(|| {
            for missing in
                ["/fetch/room/nobody/video", "/fetch/room/alice/audio", "/fetch/room/alice/video?group=3"]
            {
                assert_eq!(get(&http, missing).status, 404, "{missing}");
            }
            for bad in [
                "/fetch",
                "/fetch/",
                "/fetch/video",
                "/fetch/room/alice/video?group=x",
                "/fetch/room/alice/video?group=1&from=2&to=1",
            ] {
                assert_eq!(get(&http, bad).status, 400, "{bad}");
            }
        });
    });
}

#[test]
fn open_group_is_streamed_and_a_reset_one_stays_incomplete() {
    run(async {
        let (site, http) = site("public = \"\"", "");
        let (_client, _broadcast, track) = publisher(&site, "room/alice").await;
        let group = track.group(5);
        group.frame(0, "first".into());
        let ask = b"GET /fetch/room/alice/video HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
        block_in_place(|| {
            let mut stream = connect(&http);
            stream.write_all(ask).unwrap();
            let said = until(&mut stream, "first");
            assert!(
                said.contains("transfer-encoding: chunked") && said.contains("cache-control: no-cache"),
                "{said}"
            );
            assert!(!said.contains("etag"), "{said}");
            group.frame(0, "second".into());
            until(&mut stream, "second");
            group.begin(0, 100);
            group.payload("a part".into());
            until(&mut stream, "a part");
            group.reset(StreamCode::CANCEL);
            let rest = std::io::Read::bytes(stream).map_while(Result::ok).collect::<Vec<u8>>();
            assert!(!rest.ends_with(b"0\r\n\r\n"), "{}", String::from_utf8_lossy(&rest));

            let group = track.group(6);
            group.frame(0, "third".into());
            let mut stream = connect(&http);
            stream.write_all(ask).unwrap();
            until(&mut stream, "third");
            group.finish();
            until(&mut stream, "0\r\n\r\n");
        });
    });
}

#[test]
fn request_waits_for_the_first_group() {
    run(async {
        let (site, http) = site("public = \"\"", "");
        let (_client, _broadcast, track) = publisher(&site, "room/alice").await;
        let waits = tokio::task::spawn_blocking(move || get(&http, "/fetch/room/alice/video"));
        track.wait_subscribed().await;
        finished(&track, 0, &["here"]);
        assert_eq!(seen(&waits.await.unwrap()), (200, "application/octet-stream", "here"));
    });
}

#[test]
fn tokens_authorize_http_and_revocation_ends_answers() {
    run(async {
        let root = key("root");
        let json = root.public().map_or_else(|_| root.to_json(), |key| key.to_json());
        let http = free_tcp();
        let more = format!("key = \"root.jwk\"\npublic = \"open\"\n[web.http]\nlisten = \"{http}\"");
        let site = Site::with(&more, |folder| std::fs::write(folder.join("root.jwk"), json).unwrap());
        let jwt = token(&root, "room");
        let client = site.enter(&format!("/room?jwt={jwt}")).await.unwrap();
        let broadcast = client.broadcast("alice").unwrap();
        let track = broadcast.track("video", TrackInfo::default()).unwrap();
        broadcast.announce();
        finished(&track, 0, &["x"]);
        block_in_place(|| {
            let with = |target: &str| get(&http, &format!("{target}?jwt={jwt}"));
            eventually("it is announced", || (with("/announced/room").text() == "alice\n").then_some(()));
            assert_eq!(
                (with("/fetch/room/alice/video").status, with("/fetch/room/alice/video").text()),
                (200, "x")
            );
            for target in ["/announced/room", "/fetch/room/alice/video", "/announced/room?jwt=x"] {
                let refused = get(&http, target);
                assert_eq!((refused.status, refused.text()), (401, ""), "{target}");
            }
            assert_eq!(with("/announced/elsewhere").status, 401);
            assert_eq!(get(&http, "/announced/open").status, 200);
            assert_eq!(seen(&get(&http, "/announced")), (200, TEXT, ""), "public paths only");
            let mut events = connect(&http);
            let request = format!(
                "GET /announced/room?jwt={jwt} HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n"
            );
            events.write_all(request.as_bytes()).unwrap();
            until(&mut events, "alice");
            // The key is revoked.
            let other = key("other");
            std::fs::write(site.file("root.jwk"), other.to_json()).unwrap();
            let rest = std::io::Read::bytes(events).map_while(Result::ok).collect::<Vec<u8>>();
            assert!(!rest.ends_with(b"0\r\n\r\n"), "it breaks off");
            assert_eq!(with("/announced/room").status, 401);
        });
    });
}

#[test]
fn failing_auth_server_is_502_and_late_one_504() {
    run(async {
        let web = Web::start(|_| Answer::status(500)).await;
        let (_site, http) = site(&format!("url = \"{}\"", web.url), "");
        let both = |http: &str| (get(http, "/announced/a").status, get(http, "/fetch/a/b").status);
        assert_eq!(block_in_place(|| both(&http)), (502, 502));
        web.now(|_| Answer::status(403));
        assert_eq!(block_in_place(|| both(&http)), (401, 401));
        web.now(|_| Answer::status(403).after(Duration::from_secs(60)));
        assert_eq!(block_in_place(|| get(&http, "/announced/a").status), 504);
        let ends = || web.asked().iter().filter(|asked| asked.body.contains("\"end\"")).count();
        assert_eq!(ends(), 0, "rejected requests have no end event");
    });
}

#[test]
fn http_paths_are_parsed_as_session_paths() {
    run(async {
        let (_site, http) = site("public = \"\"", "");
        let long = format!("/{}", "a".repeat(1_025));
        let deep = "/a".repeat(33);
        for path in [
            "/..", "/a/../b", "/%2e%2e", "/.%2E/x", "/.", "/a%2fb", "/%2F", "/%00", "/%0a", "/%zz", "/%",
            "/%ff", &long, &deep,
        ] {
            assert_eq!(get(&http, &format!("/announced{path}")).status, 400, "{path}");
            assert_eq!(get(&http, &format!("/fetch{path}/t")).status, 400, "{path}");
        }
        for path in ["/a//b", "//a", "/a/", "/%41", "/%252e%252e", "/...", "/a%20b"] {
            assert_eq!(get(&http, &format!("/announced{path}")).status, 200, "{path}");
        }
        for raw in [&b"/announced/\0"[..], b"/announced/\xff", b"/announced/a b"] {
            let request = [b"GET ", raw, b" HTTP/1.1\r\nhost: x\r\n\r\n"].concat();
            assert_eq!(reply(&exchange(&http, &request), false).status, 400);
        }
    });
}

#[test]
fn invalid_websocket_requests_are_rejected() {
    run(async {
        let (_site, http) = site("public = \"\"", "origins = [\"https://app.test\"]");
        let key = "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==";
        let version = "sec-websocket-version: 13";
        let refused = |headers: &[&str]| upgrade(&http, "/room", headers);
        let old = refused(&[key, "sec-websocket-version: 8"]);
        assert_eq!((old.status, old.header("sec-websocket-version")), (426, Some("13")));
        assert_eq!(refused(&[version]).status, 400);
        assert_eq!(refused(&[version, "sec-websocket-key: short"]).status, 400);
        let unknown = refused(&[version, key, "sec-websocket-protocol: chat, qmux-02.moq-lite-06"]);
        assert_eq!((unknown.status, unknown.header("content-length")), (400, Some("0")));
        assert_eq!(refused(&[version, key, "origin: https://evil.test"]).status, 403);
    });
}

#[test]
fn ready_fails_during_drain_and_health_stays_ok() {
    run(async {
        let (site, http) = site("public = \"\"", "");
        let client = site.enter("").await.unwrap();
        let mut subscription = client.announced("").await.unwrap();
        assert_eq!(block_in_place(|| get(&http, "/ready").status), 200);
        site.relay.signal(Signal::TERM);
        block_in_place(|| {
            eventually("it is not ready", || {
                let ready = get(&http, "/ready");
                (ready.status == 503).then(|| assert_eq!(ready.text(), "draining\n"))
            });
            assert_eq!(get(&http, "/health").status, 200);
            assert_eq!(get(&http, "/announced").status, 503);
        });
        let _ = subscription.next().await;
        drop(client);
    });
}

#[test]
fn gate_receives_the_client_address_of_a_trusted_proxy() {
    run(async {
        let web = Web::start(|_| Answer::status(403)).await;
        let (_site, http) = site(&format!("url = \"{}\"", web.url), "proxy = [\"127.0.0.1\"]");
        let seen = |remote: &str| format!("\"remote\":\"{remote}");
        let ask = |before: &[u8], headers: &str, path: &str| {
            let request =
                format!("GET /announced/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
            block_in_place(|| reply(&exchange(&http, &[before, request.as_bytes()].concat()), false).status)
        };
        assert_eq!(ask(b"PROXY TCP4 203.0.113.7 10.0.0.1 5 443\r\n", "", "one"), 401);
        web.until("one", |asked| asked.body.contains("/one") && asked.body.contains(&seen("203.0.113.7:5")))
            .await;
        let binary = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xcb\0\x71\x08\x0a\0\0\x01\0\x06\x01\xbb";
        assert_eq!(ask(binary, "", "two"), 401);
        web.until("two", |asked| asked.body.contains("/two") && asked.body.contains(&seen("203.0.113.8:6")))
            .await;
        assert_eq!(ask(b"", "x-forwarded-for: 203.0.113.9\r\n", "three"), 401);
        web.until("three", |asked| {
            asked.body.contains("/three") && asked.body.contains(&seen("203.0.113.9"))
        })
        .await;
        assert_eq!(ask(b"PROXY TCP4 nonsense\r\n", "", "four"), 0, "closed");

        let (_site, http) = site(&format!("url = \"{}\"", web.url), "");
        let ask = |before: &[u8], headers: &str, path: &str| {
            let request =
                format!("GET /announced/{path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{headers}\r\n");
            block_in_place(|| reply(&exchange(&http, &[before, request.as_bytes()].concat()), false).status)
        };
        assert_eq!(ask(b"PROXY TCP4 203.0.113.7 10.0.0.1 5 443\r\n", "", "five"), 400, "no proxy is trusted");
        assert_eq!(ask(b"", "x-forwarded-for: 203.0.113.9\r\n", "six"), 401);
        web.until("six", |asked| asked.body.contains("/six") && asked.body.contains(&seen("127.0.0.1")))
            .await;
    });
}

#[test]
fn answers_and_logs_hold_no_token() {
    run(async {
        let http = free_tcp();
        let root = key("root");
        let auth = format!("key = \"root.jwk\"\n[web.http]\nlisten = \"{http}\"");
        let (site, recording) = Site::recorded("trace", &auth, |folder| {
            std::fs::write(folder.join("root.jwk"), root.to_json()).unwrap();
        });
        let good = token(&root, "room");
        let bad = token(&key("other"), "room");
        let websocket = ["sec-websocket-version: 13", "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ=="];
        let mut answers = String::new();
        for jwt in [&good, &bad] {
            for target in ["/announced/room", "/fetch/room/a/b", "/nothing", "/announced/%zz", "/fetch/x"] {
                let target = format!("{target}?jwt={jwt}");
                answers += &format!("{:?}", get(&http, &target));
                answers += &format!("{:?}", upgrade(&http, &target, &websocket));
            }
        }
        site.relay.signal(Signal::TERM);
        let log = block_in_place(|| recording.all().join("\n"));
        for jwt in [&good, &bad] {
            for part in jwt.split('.').skip(1) {
                assert!(!answers.contains(part), "in an answer");
                assert!(!log.contains(part), "in the log");
            }
        }
    });
}

#[test]
fn slow_requests_are_408_and_too_large_heads_431() {
    run(async {
        let (_site, http) = site("public = \"\"", "");
        let filler = |bytes: usize| "a".repeat(bytes);
        let with_head_of = |bytes: usize| {
            let rest = bytes - "GET /health HTTP/1.1\r\nhost: x\r\nx: \r\n\r\n".len();
            format!("GET /health HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", filler(rest))
        };
        let status = |text: &str| {
            let mut stream = connect(&http);
            stream.write_all(text.as_bytes()).unwrap();
            reply(&head(&mut stream), true).status
        };
        assert_eq!(status(&with_head_of(16 * 1024)), 200);
        assert_eq!(status(&with_head_of(16 * 1024 + 1)), 431);
        // Slow requests do not delay others.
        let mut slow: Vec<_> = (0..300).map(|_| connect(&http)).collect();
        slow.iter_mut().for_each(|stream| stream.write_all(b"GET /health HTT").unwrap());
        assert_eq!(get(&http, "/health").status, 200);
        for stream in &mut slow {
            assert_eq!(reply(&head(stream), true).status, 408);
        }
        assert_eq!(get(&http, "/health").status, 200);
    });
}

#[test]
fn readers_over_http_and_over_quic_share_a_track() {
    run(async {
        let (site, http) = site("public = \"\"", "");
        let (_client, _broadcast, track) = publisher(&site, "room/alice").await;
        finished(&track, 0, &["x"]);
        let reader = site.enter("").await.unwrap();
        let mut subscription = reader.subscribe("room/alice", "video", Prefs::default()).await.unwrap();
        assert_eq!(subscription.next_group().await.unwrap().sequence(), 0);
        // An HTTP reader and a QUIC subscriber of one track.
        assert_eq!(block_in_place(|| get(&http, "/fetch/room/alice/video").text().to_owned()), "x");
        finished(&track, 1, &["y"]);
        assert_eq!(subscription.next_group().await.unwrap().sequence(), 1);
    });
}

#[test]
fn operator_routes_are_served_at_the_private_listener_only() {
    run(async {
        let internal = free_tcp();
        let (site, http) = site("public = \"\"", &format!("[internal]\nlisten = \"{internal}\""));
        let (client, _broadcast, _track) = publisher(&site, "room/alice").await;
        for route in ["/sessions", "/broadcasts", "/nodes", "/metrics", "/status"] {
            assert_eq!(block_in_place(|| get(&http, route)).status, 404, "{route} is public");
            assert_eq!(block_in_place(|| get(&internal, route)).status, 200, "{route}");
        }
        let health = block_in_place(|| get(&internal, "/health"));
        assert_eq!((health.status, health.text()), (200, r#"{"status":"ok","silent":[]}"#));
        assert!(block_in_place(|| get(&internal, "/broadcasts")).text().contains("room/alice"));

        let sessions = block_in_place(|| get(&internal, "/sessions"));
        let sessions: serde_json::Value = serde_json::from_str(sessions.text()).unwrap();
        let id = sessions["sessions"][0]["id"].as_str().unwrap().to_owned();
        let kick = format!("/sessions/{id}/kick?code=77&reason=enough");
        assert_eq!(block_in_place(|| ask(&http, "POST", &kick, &[])).status, 404);
        let elsewhere = ["origin: https://elsewhere.example"];
        assert_eq!(block_in_place(|| ask(&internal, "POST", &kick, &elsewhere)).status, 403);
        assert!(client.is_closed().is_none(), "it was closed by a page of another origin");
        assert_eq!(block_in_place(|| ask(&internal, "POST", &kick, &[])).status, 200);
        let closed = ends(&client, "the session").await;
        assert_eq!(code(&closed), Some(SessionCode(77)), "{closed:?}");

        assert_eq!(block_in_place(|| ask(&internal, "POST", "/drain", &[])).status, 202);
        assert_eq!(block_in_place(|| site.relay.end()).code(), Some(0));
    });
}

#[test]
fn websocket_upgrade_checks_the_token_and_keeps_early_bytes() {
    run(async {
        let root = key("root");
        let http = free_tcp();
        let json = root.to_json();
        let more = format!("key = \"root.jwk\"\n[web]\nhttp.listen = \"{http}\"");
        let _site = Site::with(&more, |folder| std::fs::write(folder.join("root.jwk"), json).unwrap());
        let jwt = token(&root, "room");
        let headers = [
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
            "sec-websocket-version: 13",
            "sec-websocket-protocol: webtransport, qmux-00.moq-lite-05",
            "sec-websocket-protocol: qmux-01.moq-lite-04",
        ];
        block_in_place(|| {
            for target in ["/room", "/room?jwt=x"] {
                let refused = upgrade(&http, target, &headers);
                assert_eq!((refused.status, refused.header("content-length")), (401, Some("0")), "{target}");
            }
            assert_eq!(upgrade(&http, "/a/../b", &headers).status, 400);
            let lines: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
            let request = format!(
                "GET /room?jwt={jwt} HTTP/1.1\r\nhost: x\r\nconnection: Upgrade\r\nupgrade: websocket\r\n{lines}\r\n"
            );
            // A ping sent before the answer to the upgrade.
            let ping = [0x89, 0x82, 0, 0, 0, 0, b'h', b'i'];
            let mut stream = connect(&http);
            stream.write_all(&[request.as_bytes(), &ping].concat()).unwrap();
            let answer = reply(&head(&mut stream), true);
            assert_eq!(answer.status, 101);
            assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
            assert_eq!(answer.header("sec-websocket-protocol"), Some("qmux-00.moq-lite-05"));
            let mut seen = Vec::new();
            let mut some = [0; 4_096];
            while !seen.windows(4).any(|four| four == [0x8a, 2, b'h', b'i']) {
                let count = std::io::Read::read(&mut stream, &mut some).expect("the worker answers the ping");
                assert!(count > 0, "{seen:?}");
                seen.extend(&some[..count]);
            }
            assert!(seen.contains(&0x82), "its own parameters are received too: {seen:?}");
        });
    });
}
