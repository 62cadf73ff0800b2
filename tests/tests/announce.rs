//! Promise: a watch of a prefix receives every broadcast below it, and its withdrawal and replacement, whatever causes
//! them.

#![allow(missing_docs)]

use std::time::Duration;

use relay_client::{Announced, Announcement, Broadcast, Client, ClientConfig, Hop, SessionCode, Tuning};
use relay_model::limits;
use relay_tests::{relay::TestRelay, run, wait_until, within};

async fn next(watch: &mut Announced) -> Announcement {
    within("an announcement", 10, watch.next()).await.expect("a live watch").expect("an announcement")
}

async fn expect(watch: &mut Announced, path: &str, active: bool) -> Announcement {
    let announcement = next(watch).await;
    assert_eq!((announcement.path.as_str(), announcement.active), (path, active));
    announcement
}

fn announce(client: &Client, path: &str) -> Broadcast {
    let broadcast = client.broadcast(path).expect("a path");
    broadcast.announce();
    broadcast
}

#[test]
fn a_watch_sees_what_comes_and_goes_below_its_prefix() {
    run(30, async {
        let relay = TestRelay::start(2);
        for url in relay.schemes() {
            let publisher = relay.connect().await;
            let early = announce(&publisher, "live/early");
            relay.announced("live/early").await;
            let viewer = relay.connect_to(&url, ClientConfig::default()).await;
            let mut watch = viewer.announced("live").await.expect("a watch");
            assert_eq!(watch.hop(), Hop(0x7e57), "the relay's own hop");
            let initial: Vec<_> = watch.initial().map(|found| found.path.as_str().to_owned()).collect();
            assert_eq!(initial, ["live/early"]);
            expect(&mut watch, "live/early", true).await;

            let _aside = announce(&publisher, "lively/not");
            let deep = announce(&publisher, "live/a/b");
            let found = expect(&mut watch, "live/a/b", true).await;
            assert_eq!((found.hops.len(), found.hops.last()), (2, Some(&watch.hop())));
            deep.withdraw();
            expect(&mut watch, "live/a/b", false).await;
            deep.announce();
            expect(&mut watch, "live/a/b", true).await;
            drop(early);
            expect(&mut watch, "live/early", false).await;
            publisher.close(SessionCode::NONE, "bye").await;
            expect(&mut watch, "live/a/b", false).await;
        }
    });
}

#[test]
fn what_a_vanished_publisher_announced_is_withdrawn() {
    run(30, async {
        let relay = TestRelay::start(2);
        let tuning = Tuning { idle: Duration::from_millis(500), keep_alive: None, ..Tuning::default() };
        let publisher =
            relay.connect_to(&relay.raw(), ClientConfig { tuning, ..ClientConfig::default() }).await;
        let _broadcasts = [announce(&publisher, "a"), announce(&publisher, "b")];
        let viewer = relay.connect().await;
        let mut watch = viewer.announced("").await.expect("a watch");
        assert!(next(&mut watch).await.active && next(&mut watch).await.active);
        publisher.link().set_blackhole(true);
        let mut gone = [next(&mut watch).await, next(&mut watch).await];
        gone.sort_by_key(|gone| gone.path.clone());
        assert_eq!(
            gone.map(|gone| (gone.path.as_str().to_owned(), gone.active)),
            [("a".to_owned(), false), ("b".to_owned(), false)]
        );
    });
}

#[test]
fn a_new_route_replaces_the_old_in_place() {
    run(30, async {
        let relay = TestRelay::start(2);
        let first = relay.connect().await;
        let broadcast = announce(&first, "cam");
        let viewer = relay.connect().await;
        let mut watch = viewer.announced("").await.expect("a watch");
        within("the first", 10, watch.wait("cam", true)).await.expect("an announcement");
        broadcast.announce_through(&[Hop(77)]);
        let through = expect(&mut watch, "cam", true).await;
        assert_eq!((through.hops.first(), through.hops.len()), (Some(&Hop(77)), 3));
        // A second publisher takes over when the first one leaves.
        let second = relay.connect().await;
        let _spare = announce(&second, "cam");
        relay.wait_meter("its announcement", |meter| meter.sessions >= 3).await;
        let mut spare = second.announced("").await.expect("a watch");
        within("the first's route", 10, spare.wait("cam", true)).await.expect("an announcement");
        drop(broadcast);
        let mut last = expect(&mut watch, "cam", true).await;
        if last.hops.first() == Some(&Hop(77)) {
            last = expect(&mut watch, "cam", true).await;
        }
        assert_eq!(last.hops.len(), 2);
    });
}

#[test]
fn a_publisher_is_not_told_of_itself() {
    run(30, async {
        let relay = TestRelay::start(2);
        let publisher = relay.connect().await;
        let mut watch = publisher.announced("").await.expect("a watch");
        let _own = announce(&publisher, "mine");
        relay.announced("mine").await;
        let other = relay.connect().await;
        let _theirs = announce(&other, "theirs");
        expect(&mut watch, "theirs", true).await;
    });
}

#[test]
fn surplus_announce_waits_until_an_earlier_one_ends() {
    run(60, async {
        let relay = TestRelay::start(2);
        let publisher = relay.connect().await;
        let mut all: Vec<_> =
            (0..limits::ANNOUNCES).map(|at| announce(&publisher, &format!("p/{at}"))).collect();
        let viewer = relay.connect().await;
        let mut watch = viewer.announced("p").await.expect("a watch");
        for _ in 0..limits::ANNOUNCES {
            assert!(next(&mut watch).await.active);
        }
        assert_eq!(publisher.is_closed(), None);
        // Announcing an announced path again does not count as a further announce.
        all[0].announce_through(&[Hop(5)]);
        expect(&mut watch, "p/0", true).await;
        assert_eq!(publisher.is_closed(), None);

        all.push(announce(&publisher, "p/one-too-many"));
        wait_until("the count", 5, || relay.counts().total().announces_limited == 1).await;
        assert_eq!(publisher.is_closed(), None);
        all.remove(0).withdraw();
        expect(&mut watch, "p/0", false).await;
        expect(&mut watch, "p/one-too-many", true).await;
        assert_eq!(publisher.is_closed(), None);
    });
}
