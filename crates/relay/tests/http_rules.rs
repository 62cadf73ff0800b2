//! Promise: requests are parsed according to RFC 9110 and RFC 9112, pages of other sites get no access, and only a
//! trusted proxy may name its client.

#![allow(missing_docs)]

mod common;

use std::{
    io::{Read, Write},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, ProtocolVersion, SupportedCipherSuite, SupportedProtocolVersion,
    crypto::aws_lc_rs::default_provider,
};
use tokio::task::block_in_place;

use common::{
    Running,
    http::{Anybody, Reply, ask, connect, exchange, free_tcp, get, head, reply, until},
    relay, run,
    site::Site,
    web::{Answer, Web},
};

/// A relay that serves HTTP with `more` in `[web]`, and its address.
fn site(more: &str) -> (Site, String) {
    let http = free_tcp();
    (Site::new(&format!("public = \"\"\n[web]\nhttp.listen = \"{http}\"\n{more}")), http)
}

/// A relay without a file, and its address.
fn development(more: &[&str]) -> (Running, String) {
    let address = free_tcp();
    let relay = Running::start(relay().args(["--bind", &address]).args(more));
    relay.line_with(" http://");
    (relay, address)
}

/// Sends a literal request, with line ends replaced by CRLF.
fn raw(http: &str, request: &str) -> Reply {
    reply(&exchange(http, request.replace('\n', "\r\n").as_bytes()), request.starts_with("HEAD"))
}

/// Status of a WebSocket request with these headers.
fn websocket(http: &str, headers: &str) -> u16 {
    let mut stream = connect(http);
    let request = format!(
        "GET /x HTTP/1.1\nupgrade: websocket\nconnection: upgrade\nsec-websocket-version: 13\n\
         sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\nsec-websocket-protocol: qmux-01.moq-lite-06\n{headers}\n"
    );
    stream.write_all(request.replace('\n', "\r\n").as_bytes()).unwrap();
    reply(&head(&mut stream), true).status
}

fn allowed(reply: &Reply) -> Option<&str> {
    reply.header("access-control-allow-origin")
}

#[test]
fn request_needs_one_valid_host() {
    run(async {
        let (_site, http) = site("page = true");
        let status = |request: &str| raw(&http, request).status;
        for (request, expected) in [
            ("GET /health HTTP/1.0\n\n", 200),
            ("GET /health HTTP/1.1\nconnection: close\n\n", 400),
            ("GET / HTTP/1.1\nconnection: close\n\n", 400),
            ("GET /health HTTP/1.1\nhost: a\nhost: a\nconnection: close\n\n", 400),
            ("GET /health HTTP/1.0\nhost: a\nhost: b\n\n", 400),
            ("GET /health HTTP/1.1\nhost:\nconnection: close\n\n", 400),
            ("GET /health HTTP/1.1\nhost: a b\nconnection: close\n\n", 400),
            ("GET /health HTTP/1.1\nhost: a/b\nconnection: close\n\n", 400),
            ("GET /health HTTP/1.1\nhost: u@a\nconnection: close\n\n", 400),
            ("GET http://other/health HTTP/1.1\nhost: a\nconnection: close\n\n", 200),
            ("GET http://other/health HTTP/1.1\nconnection: close\n\n", 400),
            ("GET http://u@other/health HTTP/1.1\nhost: a\nconnection: close\n\n", 400),
            ("GET http://other HTTP/1.1\nhost: a\nconnection: close\n\n", 200),
        ] {
            assert_eq!(block_in_place(|| status(request)), expected, "{request}");
        }
    });
}

#[test]
fn health_checks_of_balancers_are_answered() {
    run(async {
        let (_site, http) = site("page = true");
        let headers = (0..120).map(|n| format!("x-{n}: v\n")).collect::<String>();
        for (request, expected) in [
            ("OPTIONS / HTTP/1.0\n\n", 204),
            ("OPTIONS * HTTP/1.1\nhost: x\nconnection: close\n\n", 204),
            ("OPTIONS http://x HTTP/1.1\nhost: x\nconnection: close\n\n", 204),
            ("OPTIONS /health HTTP/1.1\nhost: x\nconnection: close\n\n", 204),
            ("GET * HTTP/1.1\nhost: x\nconnection: close\n\n", 400),
            ("GET /health/ HTTP/1.0\n\n", 200),
            ("GET /ready/?x HTTP/1.0\n\n", 200),
            ("HEAD /ready HTTP/1.0\n\n", 200),
            (&format!("GET /health HTTP/1.1\nhost: x\nconnection: close\n{headers}\n"), 200),
        ] {
            let answer = block_in_place(|| raw(&http, request));
            assert_eq!(answer.status, expected, "{request}");
            if expected == 204 {
                assert_eq!(answer.header("allow"), Some("GET, HEAD, OPTIONS"), "{request}");
            }
        }
        for request in
            ["CONNECT x:1 HTTP/1.1\nhost: x:1\n\n", "BREW /health HTTP/1.0\n\n", "POST /health HTTP/1.0\n\n"]
        {
            let answer = block_in_place(|| raw(&http, request));
            assert_eq!(
                (answer.status, answer.header("allow")),
                (405, Some("GET, HEAD, OPTIONS")),
                "{request}"
            );
        }
    });
}

#[test]
fn idle_timeout_is_announced_and_longer_for_proxies() {
    run(async {
        let first = |http: &str, request: &str| {
            let mut stream = connect(http);
            stream.write_all(request.as_bytes()).unwrap();
            let answer = reply(&head(&mut stream), true);
            (answer.header("keep-alive").map(str::to_owned), answer.header("connection").map(str::to_owned))
        };
        let kept = |seconds: &str| (Some(format!("timeout={seconds}")), Some("keep-alive".to_owned()));
        let (_site, http) = site("");
        let get = "GET /health HTTP/1.1\r\nhost: x\r\n\r\n";
        assert_eq!(block_in_place(|| first(&http, get)), kept("30"));
        let missing = "GET /none HTTP/1.0\r\nconnection: keep-alive\r\n\r\n";
        assert_eq!(block_in_place(|| first(&http, missing)), kept("30"));
        assert_eq!(block_in_place(|| first(&http, "GET /health HTTP/1.0\r\n\r\n")).0, None, "it is closed");
        let (_site, http) = site("proxy = [\"127.0.0.1\"]");
        assert_eq!(block_in_place(|| first(&http, get)), kept("75"));
    });
}

#[test]
fn https_is_spoken_with_tls_1_2_and_told_apart_from_plain_http() {
    run(async {
        let https = free_tcp();
        let (_site, _http) = site(&format!("https.listen = \"{https}\""));
        let handshake = |version: &'static SupportedProtocolVersion| {
            let tls = ClientConfig::builder_with_provider(default_provider().into())
                .with_protocol_versions(&[version])
                .unwrap()
                .dangerous()
                .with_custom_certificate_verifier(Arc::new(Anybody))
                .with_no_client_auth();
            let mut session = ClientConnection::new(tls.into(), "localhost".try_into().unwrap()).unwrap();
            let mut stream = connect(&https);
            let mut tls = rustls::Stream::new(&mut session, &mut stream);
            tls.write_all(b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").unwrap();
            let mut all = Vec::new();
            let _ = tls.read_to_end(&mut all);
            let is_aead = session.negotiated_cipher_suite().is_some_and(|suite| match suite {
                SupportedCipherSuite::Tls13(_) => true,
                suite => ["GCM", "POLY1305"].iter().any(|name| format!("{:?}", suite.suite()).contains(name)),
            });
            (reply(&all, false).status, session.protocol_version(), is_aead)
        };
        block_in_place(|| {
            let (old, new) = (&rustls::version::TLS12, &rustls::version::TLS13);
            assert_eq!(handshake(old), (200, Some(ProtocolVersion::TLSv1_2), true));
            assert_eq!(handshake(new), (200, Some(ProtocolVersion::TLSv1_3), true));
            let plain = get(&https, "/health");
            assert_eq!((plain.status, plain.is_whole), (400, true));
            assert!(plain.text().contains("https://"), "{}", plain.text());
        });
    });
}

#[test]
fn development_relay_accepts_pages_of_this_machine_only() {
    run(async {
        let (_relay, http) = development(&[]);
        let own = format!("http://{http}");
        for origin in [own.as_str(), "http://localhost:5173", "https://[::1]"] {
            let answer = block_in_place(|| ask(&http, "GET", "/announced", &[&format!("origin: {origin}")]));
            assert_eq!((answer.status, allowed(&answer)), (200, Some(origin)));
            assert_eq!(answer.header("vary"), Some("accept"), "and another line: origin");
            assert_eq!(
                block_in_place(|| websocket(&http, &format!("host: {http}\norigin: {origin}\n"))),
                101
            );
        }
        for origin in
            ["https://evil.example", "null", "http://127.0.0.1.evil.example", "http://localhost.evil.example"]
        {
            for target in ["/announced", "/fetch/a/b", "/status", "/certificate.sha256", "/"] {
                let answer = block_in_place(|| ask(&http, "GET", target, &[&format!("origin: {origin}")]));
                assert_eq!(allowed(&answer), None, "{origin} {target}");
                assert_eq!(answer.status == 403, target != "/certificate.sha256", "{origin} {target}");
            }
            assert_eq!(
                block_in_place(|| websocket(&http, &format!("host: {http}\norigin: {origin}\n"))),
                403
            );
        }
        let app = "https://app.example";
        let (_relay, listed) = development(&["--web-origins", app]);
        for origin in [app, "http://localhost:5173"] {
            let answer =
                block_in_place(|| ask(&listed, "GET", "/announced", &[&format!("origin: {origin}")]));
            assert_eq!((answer.status, allowed(&answer)), (200, Some(origin)), "a list adds to this machine");
        }
        let evil = ["origin: https://evil.example"];
        assert_eq!(block_in_place(|| ask(&listed, "GET", "/announced", &evil)).status, 403);
        // Embedded resources are requested without `Origin`.
        let embedded = ["sec-fetch-site: cross-site", "sec-fetch-mode: no-cors"];
        assert_eq!(block_in_place(|| ask(&http, "GET", "/fetch/a/b", &embedded)).status, 403);
    });
}

#[test]
fn foreign_host_names_are_refused_in_development() {
    run(async {
        let (_relay, http) = development(&["--web-hosts", "relay.test"]);
        let status = |target: &str, host: &str| {
            raw(&http, &format!("GET {target} HTTP/1.1\nhost: {host}\nconnection: close\n\n")).status
        };
        block_in_place(|| {
            for target in ["/health", "/status", "/announced", "/"] {
                for host in ["rebind.evil.example:1234", "localhost.evil.example", "127.0.0.1.evil.example"] {
                    assert_eq!(status(target, host), 403, "{target} {host}");
                }
                for host in [http.as_str(), "localhost:4443", "[::1]:4443", "192.0.2.1", "relay.test:80"] {
                    assert_eq!(status(target, host), 200, "{target} {host}");
                }
            }
            let absolute = "GET http://evil.example/status HTTP/1.1\nhost: localhost\nconnection: close\n\n";
            assert_eq!(raw(&http, absolute).status, 403, "the absolute form counts");
            assert_eq!(raw(&http, "GET /status HTTP/1.0\n\n").status, 200, "not a browser");
            assert_eq!(websocket(&http, "host: evil.example\norigin: http://evil.example\n"), 403);
            assert_eq!(websocket(&http, "host: evil.example\n"), 403);
        });
        let (_relay, unlisted) = development(&[]);
        let evil = "GET /health HTTP/1.1\nhost: rebind.evil.example\nconnection: close\n\n";
        assert_eq!(block_in_place(|| raw(&unlisted, evil)).status, 403, "without `web.hosts` as well");
    });
}

#[test]
fn private_listener_refuses_foreign_host_names() {
    run(async {
        let internal = free_tcp();
        let (_site, http) = site(&format!("hosts = [\"relay.test\"]\n[internal]\nlisten = \"{internal}\""));
        let status = |address: &str, target: &str, host: &str| {
            raw(address, &format!("GET {target} HTTP/1.1\nhost: {host}\nconnection: close\n\n")).status
        };
        block_in_place(|| {
            for target in ["/sessions", "/status", "/metrics", "/health"] {
                assert_eq!(status(&internal, target, "rebind.evil.example:9101"), 403, "{target}");
                assert_eq!(status(&internal, target, &internal), 200, "{target}");
                assert_eq!(status(&internal, target, "relay.test"), 200, "{target}");
            }
            for (host, expected) in [("evil.example", 403), ("relay.test", 200), (http.as_str(), 200)] {
                assert_eq!(
                    status(&http, "/health", host),
                    expected,
                    "`web.hosts` holds at the public listener"
                );
            }
        });
        let (_site, http) = site("");
        assert_eq!(
            block_in_place(|| status(&http, "/health", "any.example")),
            200,
            "without `web.hosts` every name is accepted"
        );
    });
}

#[test]
fn listed_origins_govern_cors() {
    run(async {
        let (_site, http) = site("origins = [\"https://*.app.test/\", \"http://x.test:80\"]");
        for (origin, is_listed) in [
            ("https://a.app.test", true),
            ("https://A.APP.test:443", true),
            ("http://x.test", true),
            ("https://app.test", false),
            ("https://a.b.app.test", false),
            ("http://a.app.test", false),
            ("null", false),
        ] {
            let header = format!("origin: {origin}");
            for target in ["/announced", "/fetch/a/b"] {
                let answer = block_in_place(|| ask(&http, "GET", target, &[&header]));
                assert_eq!(allowed(&answer), is_listed.then_some(origin), "{target}");
                assert_eq!(answer.status == 403, !is_listed, "{target} {origin}");
                let preflight = block_in_place(|| ask(&http, "OPTIONS", target, &[&header]));
                assert_eq!(allowed(&preflight), is_listed.then_some(origin), "{target}");
            }
            let expected = if is_listed { 101 } else { 403 };
            assert_eq!(
                block_in_place(|| websocket(&http, &format!("host: x\norigin: {origin}\n"))),
                expected
            );
        }
        assert_eq!(block_in_place(|| get(&http, "/announced")).status, 200, "no page asks");
        let twice = ["origin: https://a.app.test", "authorization: Bearer a", "authorization: Bearer b"];
        let answer = block_in_place(|| ask(&http, "GET", "/announced", &twice));
        assert_eq!(
            (answer.status, allowed(&answer)),
            (400, Some("https://a.app.test")),
            "errors are read too"
        );
    });
}

#[test]
fn only_the_header_of_the_trusted_proxy_counts() {
    run(async {
        let web = Web::start(|_| Answer::status(403)).await;
        let seen = async |proxy: &str, before: &str, headers: &str| {
            let http = free_tcp();
            let auth = format!("url = \"{}\"\n[web]\nhttp.listen = \"{http}\"\n{proxy}", web.url);
            let _site = Site::new(&auth);
            let asked = web.asked().len();
            let request =
                format!("{before}GET /announced/x HTTP/1.1\nhost: x\nconnection: close\n{headers}\n");
            block_in_place(|| raw(&http, &request));
            let body = web.asked().get(asked).map(|asked| asked.body.clone()).unwrap_or_default();
            let body: serde_json::Value = serde_json::from_str(&body).unwrap_or_default();
            let remote = body["remote"].as_str().unwrap_or_default().to_owned();
            remote.rsplit_once(':').map(|(address, _)| address.to_owned()).unwrap_or_default()
        };
        let both = "x-forwarded-for: 203.0.113.5\nforwarded: for=10.9.9.9\n";
        let before = "PROXY TCP4 203.0.113.7 10.0.0.1 5 443\n";
        let list = "proxy = [\"127.0.0.1\"]";
        for (proxy, before, headers, expected) in [
            (list.to_owned(), "", both, "203.0.113.5"),
            (list.to_owned(), "", "forwarded: for=10.9.9.9\n", "127.0.0.1"),
            (list.to_owned(), before, "", "203.0.113.7"),
            (format!("{list}\nproxy_header = \"x-forwarded-for\""), "", both, "203.0.113.5"),
            (format!("{list}\nproxy_header = \"x-forwarded-for\""), before, both, ""),
            (format!("{list}\nproxy_header = \"forwarded\""), "", both, "10.9.9.9"),
            (format!("{list}\nproxy_header = \"proxy\""), before, both, "203.0.113.7"),
            (format!("{list}\nproxy_header = \"proxy\""), "", both, "127.0.0.1"),
            ("proxy = [{ net = \"127.0.0.1\", header = \"forwarded\" }]".to_owned(), "", both, "10.9.9.9"),
            (
                "proxy = [{ net = \"127.0.0.0/8\", header = \"forwarded\" }, \"127.0.0.1\"]".to_owned(),
                "",
                both,
                "203.0.113.5",
            ),
        ] {
            assert_eq!(seen(&proxy, before, headers).await, expected, "{proxy} {before} {headers}");
        }
    });
}

#[test]
fn text_list_ends_each_line() {
    run(async {
        let (site, http) = site("");
        let client = site.enter("").await.unwrap();
        let broadcast = client.broadcast("a").unwrap();
        broadcast.announce();
        block_in_place(|| {
            let mut events = connect(&http);
            events
                .write_all(b"GET /announced HTTP/1.1\r\nhost: x\r\naccept: text/event-stream\r\n\r\n")
                .unwrap();
            until(&mut events, "\"a\"");
            assert_eq!(get(&http, "/announced").text(), "a\n");
        });
    });
}
