//! Promise: `/fetch` resolves a path to the right broadcast among those a client may read, and answers are not cached
//! beyond their validity.

#![allow(missing_docs)]

mod common;

use bytes::Bytes;
use relay_client::{Broadcast, Client, SessionCode, Track, TrackInfo};
use serde_json::{Value, json};
use tokio::task::block_in_place;

use common::{
    http::{Reply, ask, eventually, exchange, free_tcp, get, reply},
    run,
    site::{Site, key, token},
    web::{Answer, Web},
};

/// A relay that serves HTTP, and its address.
fn site(auth: &str) -> (Site, String) {
    let http = free_tcp();
    (Site::new(&format!("{auth}\n[web]\nhttp.listen = \"{http}\"")), http)
}

/// A publisher of `path` with these tracks, each with group 0 whose one frame is the name of the track.
async fn publish(site: &Site, target: &str, path: &str, tracks: &[&str]) -> (Client, Broadcast, Vec<Track>) {
    let client = site.enter(target).await.unwrap();
    let broadcast = client.broadcast(path).unwrap();
    let tracks: Vec<Track> =
        tracks.iter().map(|name| broadcast.track(name, TrackInfo::default()).unwrap()).collect();
    broadcast.announce();
    (client, broadcast, tracks)
}

fn group(track: &Track, sequence: u64, payload: &str) {
    let group = track.group(sequence);
    group.frame(0, Bytes::copy_from_slice(payload.as_bytes()));
    group.finish();
}

/// Requests until the group is complete, which its entity tag shows.
fn complete(http: &str, target: &str) -> Reply {
    eventually(target, || Some(get(http, target)).filter(|reply| reply.header("etag").is_some()))
}

fn is_announced(http: &str, path: &str) {
    eventually(path, || {
        let listed = get(http, "/announced").text().lines().any(|line| line == path);
        listed.then_some(())
    });
}

#[test]
fn longest_announced_broadcast_in_front_is_fetched() {
    run(async {
        let (site, http) = site("public = \"\"");
        let (_alice, _one, tracks) = publish(&site, "", "room/alice", &["info", "video/hd", "a b/c"]).await;
        tracks.iter().zip(["info", "hd", "abc"]).for_each(|(track, payload)| group(track, 0, payload));
        block_in_place(|| {
            is_announced(&http, "room/alice");
            let fetched = |target: &str| get(&http, target).text().to_owned();
            for target in [
                "/fetch/room/alice/video/hd",
                "/fetch/room/alice/video%2Fhd",
                "/fetch//room//alice/video/hd/",
                "/fetch/room/alice?track=video%2Fhd",
                "/fetch/room/alice?track=video/hd&group=0",
            ] {
                assert_eq!(fetched(target), "hd", "{target}");
            }
            assert_eq!(
                (fetched("/fetch/room/alice/info"), fetched("/fetch/room/alice/a%20b/c")),
                ("info".into(), "abc".into())
            );
            assert_eq!(fetched("/fetch/room/alice?track=a+b%2Fc"), "abc");
            for target in
                ["/fetch/room%2Falice/info", "/fetch/room%2Falice?track=info", "/fetch/room/alice?track="]
            {
                assert_eq!(get(&http, target).status, 400, "{target}");
            }
            for target in
                ["/fetch/room/bob/video/hd", "/fetch/room/alice/video?track=hd", "/fetch/room/alice/no/such"]
            {
                assert_eq!(get(&http, target).status, 404, "{target}");
            }
        });
        let (_other, _two, tracks) = publish(&site, "", "room/alice/video", &["hd"]).await;
        group(&tracks[0], 0, "other");
        block_in_place(|| {
            is_announced(&http, "room/alice/video");
            assert_eq!(get(&http, "/fetch/room/alice/video/hd").text(), "other");
            assert_eq!(get(&http, "/fetch/room/alice?track=video/hd").text(), "hd");
        });
    });
}

/// Answer to a request for another host.
fn at_host(http: &str, host: &str, target: &str) -> Reply {
    let request = format!("GET {target} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n");
    reply(&exchange(http, request.as_bytes()), false)
}

#[test]
fn broadcasts_are_found_where_the_gate_maps_paths() {
    run(async {
        let (site, http) = site("public = \"x\"\ndomains = \"relay.test\"");
        let (_alice, _one, tracks) = publish(&site, "/x", "room/alice", &["video/hd"]).await;
        group(&tracks[0], 0, "alice");
        // The literal path is a broadcast of another publisher.
        let (_other, _two, others) = publish(&site, "/x", "x/room/alice/video", &["hd"]).await;
        group(&others[0], 0, "other");
        block_in_place(|| {
            eventually("both are announced", || {
                let listed = at_host(&http, "x.relay.test", "/announced");
                (listed.text() == "room/alice\nx/room/alice/video\n").then_some(())
            });
            for target in ["/fetch/room/alice/video/hd", "/fetch/room/alice?track=video/hd"] {
                let found = at_host(&http, "x.relay.test", target);
                assert_eq!((found.status, found.text()), (200, "alice"), "{target}");
            }
            assert_eq!(at_host(&http, &http, "/fetch/x/room/alice/video/hd").text(), "alice");
        });
    });
}

/// Number of sessions that the server was asked to admit.
fn connects(web: &Web) -> usize {
    web.asked().iter().filter(|asked| asked.body.contains("\"connect\"")).count()
}

#[test]
fn auth_server_with_other_roots_is_asked_a_few_times() {
    run(async {
        let web = Web::start(|asked| {
            let allow = |root: &str| {
                Answer::ok(json!({"root": root, "publish": ["**"], "subscribe": ["**"]}).to_string())
            };
            let target = serde_json::from_str::<Value>(&asked.body).unwrap()["path"].clone();
            match target.as_str().unwrap().trim_matches('/') {
                "" => allow("tenant"),
                path => allow(&format!("tenant/{path}")),
            }
        })
        .await;
        let (site, http) = site(&format!("url = \"{}\"", web.url));
        let (_client, _broadcast, tracks) = publish(&site, "", "room", &["a/b/c/d/e/f"]).await;
        group(&tracks[0], 0, "found");
        block_in_place(|| {
            eventually("it is announced", || (get(&http, "/announced").text() == "room\n").then_some(()));
            let before = connects(&web);
            assert_eq!(get(&http, "/fetch/room/a/b/c/d/e/f").text(), "found");
            assert_eq!(connects(&web) - before, 2, "for the longest path, and for the existing one");
            let before = connects(&web);
            assert_eq!(get(&http, "/fetch/none/a/b/c/d/e/f").status, 404);
            assert!(connects(&web) - before <= 4, "{:?}", web.asked());
        });
        // Repeated rejections do not cause unbounded requests.
        web.now(|_| Answer::ok("{}"));
        let before = connects(&web);
        assert_eq!(block_in_place(|| get(&http, "/fetch/room/a/b/c/d/e/f")).status, 401);
        assert!(connects(&web) - before <= 4, "{:?}", web.asked());
    });
}

#[test]
fn rights_are_those_of_the_resolved_broadcast() {
    run(async {
        let root = key("root");
        let http = free_tcp();
        let json = root.to_json();
        let more = format!("public = \"open\"\nkey = \"root.jwk\"\n[web]\nhttp.listen = \"{http}\"");
        let site = Site::with(&more, |folder| std::fs::write(folder.join("root.jwk"), json).unwrap());
        let jwt = token(&root, "secret");
        let (_one, _broadcast, tracks) =
            publish(&site, &format!("/secret?jwt={jwt}"), "cam", &["v/hd"]).await;
        group(&tracks[0], 0, "secret");
        block_in_place(|| {
            let with = |target: &str| get(&http, &format!("{target}?jwt={jwt}"));
            eventually("it is announced", || (with("/announced/secret").text() == "cam\n").then_some(()));
            assert_eq!(with("/fetch/secret/cam/v/hd").text(), "secret");
            // An unreadable broadcast is answered like a missing one.
            for (there, absent) in [
                ("/fetch/secret/cam/v/hd", "/fetch/secret/none/v/hd"),
                ("/fetch/secret/cam?track=v/hd", "/fetch/secret/none?track=v/hd"),
                ("/fetch/open/x/../../secret/cam/v", "/fetch/open/x/../../secret/none/v"),
            ] {
                let (there, absent) = (get(&http, there), get(&http, absent));
                assert_eq!((there.status, &there.body), (absent.status, &absent.body));
                assert_ne!(there.status, 200);
            }
        });
    });
}

#[test]
fn broadcast_that_may_not_be_read_is_passed_over() {
    run(async {
        // Publishing is public everywhere; subscribing only at `room/*`, and not below.
        let (http, internal) = (free_tcp(), free_tcp());
        let site = Site::new(&format!(
            "public.publish = \"\"\npublic.subscribe = \"room/*\"\n[web]\nhttp.listen = \"{http}\"\n\
             [internal]\nlisten = \"{internal}\""
        ));
        let (_one, _outer, tracks) = publish(&site, "", "room/alice", &["video/hd"]).await;
        group(&tracks[0], 0, "outer");
        block_in_place(|| is_announced(&http, "room/alice"));
        let before = block_in_place(|| get(&http, "/fetch/room/alice/video/hd"));
        let (_two, _inner, tracks) = publish(&site, "", "room/alice/video", &["hd"]).await;
        group(&tracks[0], 0, "inner");
        block_in_place(|| {
            eventually("both are announced", || {
                get(&internal, "/broadcasts").text().contains("room/alice/video").then_some(())
            });
            let after = get(&http, "/fetch/room/alice/video/hd");
            assert_eq!((before.status, before.text()), (200, "outer"));
            assert_eq!((after.status, after.text()), (200, "outer"));
        });
    });
}

#[test]
fn only_an_incarnation_is_immutable() {
    run(async {
        let (site, http) = site("public = \"\"");
        let (client, broadcast, tracks) = publish(&site, "", "cam", &["v"]).await;
        group(&tracks[0], 0, "first");
        let url = "/fetch/cam/v?group=0";
        let (first, named) = block_in_place(|| {
            is_announced(&http, "cam");
            let first = complete(&http, url);
            assert_eq!((first.text(), first.header("cache-control")), ("first", Some("no-cache")));
            let again =
                ask(&http, "GET", url, &[&format!("if-none-match: {}", first.header("etag").unwrap())]);
            assert_eq!((again.status, again.header("cache-control")), (304, Some("no-cache")));
            let named = format!("{url}&incarnation={}", first.header("moq-incarnation").unwrap());
            let answer = get(&http, &named);
            assert_eq!(answer.header("cache-control"), Some("public, max-age=3600, immutable"));
            assert_eq!((answer.text(), answer.header("etag")), ("first", first.header("etag")));
            assert_eq!(get(&http, &format!("{url}&incarnation=0-0-0")).status, 404);
            (first, named)
        });
        // The publisher reconnects, and restarts at group 0.
        drop((tracks, broadcast));
        client.close(SessionCode::NONE, "").await;
        let (_client, _broadcast, tracks) = publish(&site, "", "cam", &["v"]).await;
        group(&tracks[0], 0, "second");
        block_in_place(|| {
            let second = eventually("the second content", || {
                Some(get(&http, url)).filter(|reply| reply.status == 200 && reply.text() == "second")
            });
            assert_ne!(second.header("moq-incarnation"), first.header("moq-incarnation"));
            let tag = format!("if-none-match: {}", first.header("etag").unwrap());
            assert_eq!(
                ask(&http, "GET", url, &[&tag]).status,
                200,
                "the old tag is not that of the new group"
            );
            assert_eq!(get(&http, &named).status, 404, "the URL of the first does not show the second");
        });
    });
}

#[test]
fn access_that_is_not_public_is_private() {
    run(async {
        let root = key("root");
        let http = free_tcp();
        let json = root.to_json();
        let more = format!("public = \"open\"\nkey = \"root.jwk\"\n[web]\nhttp.listen = \"{http}\"");
        let site = Site::with(&more, |folder| std::fs::write(folder.join("root.jwk"), json).unwrap());
        let jwt = token(&root, "room");
        let (_one, _broadcast, tracks) = publish(&site, &format!("/room?jwt={jwt}"), "cam", &["v"]).await;
        group(&tracks[0], 0, "x");
        block_in_place(|| {
            let url = format!("/fetch/room/cam/v?group=0&jwt={jwt}");
            let named = complete(&http, &url);
            assert_eq!(named.header("cache-control"), Some("private, no-cache"));
            assert_eq!(named.header("vary"), Some("authorization"));
            let incarnation = named.header("moq-incarnation").unwrap();
            let immutable = get(&http, &format!("{url}&incarnation={incarnation}"));
            assert_eq!(immutable.header("cache-control"), Some("private, max-age=3600, immutable"));
        });
        // Grants of an auth server may depend on the client, even without a token.
        let allow = r#"{"publish":["**"],"subscribe":["**"]}"#;
        let web = Web::start(move |_| Answer::ok(allow)).await;
        let (site, http) = self::site(&format!("url = \"{}\"", web.url));
        let (_one, _broadcast, tracks) = publish(&site, "", "cam", &["v"]).await;
        group(&tracks[0], 0, "x");
        let asked = block_in_place(|| complete(&http, "/fetch/cam/v?group=0"));
        assert_eq!(asked.header("cache-control"), Some("private, no-cache"));
        assert!(asked.headers.contains(&("vary".to_owned(), "authorization".to_owned())), "{asked:?}");
        let said = r#"{"public":{"publish":[""],"subscribe":[""]}}"#;
        let web = Web::start(move |_| Answer::ok(said)).await;
        let (site, http) = self::site(&format!("api = \"{}\"", web.url));
        let (_one, _broadcast, tracks) = publish(&site, "", "cam", &["v"]).await;
        group(&tracks[0], 0, "x");
        let asked = block_in_place(|| complete(&http, "/fetch/cam/v?group=0"));
        assert_eq!(asked.header("cache-control"), Some("private, no-cache"));
    });
}

#[test]
fn head_reads_no_group() {
    run(async {
        let (site, http) = site("public = \"\"");
        let (_client, _broadcast, tracks) = publish(&site, "", "cam", &["v"]).await;
        let frames = tracks[0].group(0);
        (0..1_000).for_each(|_| frames.frame(0, Bytes::from_static(b"xy")));
        frames.finish();
        block_in_place(|| {
            let whole = complete(&http, "/fetch/cam/v?group=0");
            assert_eq!(whole.header("content-length"), Some("2000"));
            let head = ask(&http, "HEAD", "/fetch/cam/v?group=0", &[]);
            assert_eq!((head.status, head.header("content-length")), (200, Some("2000")));
            assert_eq!((head.header("etag"), head.text()), (whole.header("etag"), ""));
            // The length of a part is computed for GET only, since it needs a walk over the frames.
            let part = "/fetch/cam/v?group=0&from=500&to=999";
            assert_eq!(get(&http, part).header("content-length"), Some("1000"));
            let head = ask(&http, "HEAD", part, &[]);
            assert_eq!((head.status, head.header("content-length")), (200, None));
            assert!(head.header("etag").is_some());
        });
    });
}
