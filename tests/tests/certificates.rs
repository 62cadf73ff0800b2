//! Promise: certificates and authorities change while a relay runs, unusable files change nothing, each client is shown
//! the certificate for its server name, and a client certificate must be absent or from a known authority.

#![allow(missing_docs)]

use std::{fs, time::SystemTime};

use relay_tests::{
    certificates::{Authority, DAY, Served, Visitor},
    run, wait_until,
};

const NAME: &str = "localhost";

#[test]
fn certificate_is_replaced_by_any_means_without_drops() {
    run(60, async {
        let authority = Authority::new("an authority");
        let visitor = Visitor::new(&authority, None, false);
        let made: Vec<_> = (0..4).map(|_| authority.issue(&[NAME])).collect();
        let served = Served::start(&[&made[0]], None);
        let first = visitor.visit(served.addr(), NAME).await.expect("a session");
        assert_eq!(first.leaf, made[0].der);
        served.write("cert0.pem", &made[1].cert);
        served.write("key0.pem", &made[1].key);
        served.wait_shown(&visitor, NAME, &made[1]).await;
        served.replace("key0.pem", &made[2].key);
        served.replace("cert0.pem", &made[2].cert);
        served.wait_shown(&visitor, NAME, &made[2]).await;
        served.turn("cert0.pem", "fullchain4.pem", &made[3].cert);
        served.turn("key0.pem", "privkey4.pem", &made[3].key);
        served.wait_shown(&visitor, NAME, &made[3]).await;
        assert!(first.connection.close_reason().is_none(), "{:?}", first.connection.close_reason());
    });
}

#[test]
fn files_that_cannot_be_used_leave_the_last_good_pair_in_use() {
    run(60, async {
        let authority = Authority::new("an authority");
        let visitor = Visitor::new(&authority, None, false);
        let good = authority.issue(&[NAME]);
        let other = authority.issue(&[NAME]);
        let expired = authority.issue_until(&[NAME], SystemTime::now() - DAY);
        let beside = [authority.issue(&["beside.example"]), authority.issue(&["beside.example"])];
        let served = Served::start(&[&good, &beside[0]], None);
        let torn = other.cert.get(..other.cert.len() / 2).expect("a half");
        for (round, (cert, key)) in [
            (torn, &good.key),
            (&other.cert, &good.key),
            (&good.cert, &other.key),
            (&expired.cert, &expired.key),
        ]
        .into_iter()
        .enumerate()
        {
            served.write("cert0.pem", cert);
            served.write("key0.pem", key);
            // The certificate beside it changes too: once it is shown, the files were reloaded.
            let next = &beside[(round + 1) % 2];
            served.write("cert1.pem", &next.cert);
            served.write("key1.pem", &next.key);
            served.wait_shown(&visitor, "beside.example", next).await;
            let visit = visitor.visit(served.addr(), NAME).await.expect("a session");
            assert!(visit.leaf == good.der, "round {round}");
        }
        fs::remove_file(served.path("cert0.pem")).expect("a file");
        served.write("cert1.pem", &beside[1].cert);
        served.write("key1.pem", &beside[1].key);
        served.wait_shown(&visitor, "beside.example", &beside[1]).await;
        assert!(visitor.visit(served.addr(), NAME).await.expect("a session").leaf == good.der);
        served.write("cert0.pem", &other.cert);
        served.write("key0.pem", &other.key);
        served.wait_shown(&visitor, NAME, &other).await;
    });
}

#[test]
fn certificate_is_chosen_by_server_name() {
    run(60, async {
        let authority = Authority::new("an authority");
        let visitor = Visitor::new(&authority, None, false);
        // Valid for the unknown names too, so that the client accepts it for them.
        let first = authority.issue(&["first.example", "a.b.wild.example", "127.0.0.1"]);
        let wild = authority.issue(&["*.wild.example"]);
        let exact = authority.issue(&["a.wild.example"]);
        let served = Served::start(&[&first, &wild, &exact], None);
        for (name, expected) in [
            ("first.example", &first),
            ("a.wild.example", &exact),
            ("b.wild.example", &wild),
            ("B.WILD.example", &wild),
            ("a.b.wild.example", &first),
            ("127.0.0.1", &first),
        ] {
            let visit = visitor.visit(served.addr(), name).await.expect("a session");
            assert!(visit.leaf == expected.der, "{name}");
        }
        let refused = visitor.visit(served.addr(), "stranger.example").await.err();
        assert!(refused.is_some(), "the first certificate is not for that name");
    });
}

#[test]
fn a_client_may_show_a_certificate_we_know_or_none() {
    run(60, async {
        let (authority, other) = (Authority::new("ours"), Authority::new("theirs"));
        let served = Served::start(&[&authority.issue(&[NAME])], Some(&authority));
        let known = authority.issue(&["edge.example"]);
        let expired = authority.issue_until(&["edge.example"], SystemTime::now() - DAY);
        for (shows, comes_in) in [
            (None, true),
            (Some(known), true),
            (Some(other.issue(&["edge.example"])), false),
            (Some(expired), false),
        ] {
            let visitor = Visitor::new(&authority, shows.as_ref(), true);
            for _ in 0..2 {
                let visit = visitor.visit(served.addr(), NAME).await;
                assert_eq!(visit.is_ok(), comes_in, "{:?}", visit.err());
            }
        }
        wait_until("an end", 20, || served.relay.meter().sessions == 0).await;
    });
}

#[test]
fn other_authorities_count_for_new_clients_and_who_is_in_stays() {
    run(60, async {
        let (server, old, new) = (Authority::new("s"), Authority::new("old"), Authority::new("new"));
        let served = Served::start(&[&server.issue(&[NAME])], Some(&old));
        let of_old = Visitor::new(&server, Some(&old.issue(&["edge.example"])), true);
        let of_new = Visitor::new(&server, Some(&new.issue(&["edge.example"])), true);
        let kept = of_old.visit(served.addr(), NAME).await.expect("a session");
        assert!(of_new.visit(served.addr(), NAME).await.is_err());
        served.write("root.pem", "torn");
        served.replace("root.pem", new.pem());
        let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(15);
        while of_new.visit(served.addr(), NAME).await.is_err() {
            assert!(tokio::time::Instant::now() < deadline, "the new authority does not count");
        }
        assert!(of_old.visit(served.addr(), NAME).await.is_err(), "resumed sessions are verified again");
        assert!(kept.connection.close_reason().is_none());
    });
}
