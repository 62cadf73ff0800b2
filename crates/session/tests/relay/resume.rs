//! A returning publisher resumes its track, or is found to have restarted its group numbers.

use std::time::Duration;

use relay_model::{Prefs, SessionCode, Start, StreamCode, transport::Stream};
use relay_wire::lite::{Subscribe, SubscribeResponse, Version};

use crate::{
    harness::{MS, Relay},
    peer::{Ask, Frames},
    show::{Show, patient, versions},
};

fn body(n: u64) -> Frames {
    (0..4).map(|at| (100 * n as i64 + at, vec![n as u8 + at as u8; 300])).collect()
}

/// A log with groups 0 to 2 whole and `sent` bytes of group 3, whose publisher's session has been lost; its
/// reader, and another session of the publisher.
struct Return {
    relay: Relay,
    show: Show,
    reader: usize,
    sub: Stream,
    publisher: usize,
}

impl Return {
    fn new(version: Version, sent: usize) -> Self {
        let mut relay = Relay::of(version, 1);
        relay.lingers = true;
        let publisher = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, publisher, "video");
        show.run(&mut relay, 3, MS * 20, body);
        let bytes = relay[publisher].group_bytes(show.subscribe, 3, &body(3));
        let whole = sent >= bytes.len();
        let stream = relay[publisher].open_uni(bytes[..sent.min(bytes.len())].to_vec());
        if whole {
            relay[publisher].finish(stream);
        }
        show.groups.insert(3, body(3));
        relay.run(MS * 30);
        relay[publisher].pair.cut("lost");
        relay.run(MS * 500);
        assert!(relay[reader].group(sub, 3)[0].end.is_none() || whole, "readers wait for it");
        let publisher = relay.publisher("live/cam", &["video"]);
        show.publisher = publisher;
        relay.resume("video", publisher);
        Self { relay, show, reader, sub, publisher }
    }

    /// The relay's subscription to the returning publisher.
    fn asked(&mut self) -> Subscribe {
        self.show.subscribe = self.relay.upstream(self.publisher, "video");
        self.relay[self.publisher].serving("video").unwrap().1
    }

    fn goes_on(mut self) {
        let Self { relay, show, reader, sub, .. } = &mut self;
        show.run(relay, 2, MS * 20, body);
        relay.run(MS * 3_000);
        show.check_all(relay, *reader, *sub, 0);
        let told = &relay[*reader].sub(*sub);
        assert!(
            told.end.is_none()
                && !told.responses.iter().any(|said| matches!(said, SubscribeResponse::Drop { .. }))
        );
        show.end(relay, "video");
        relay.until("end", |relay| relay[*reader].sub(*sub).end.is_some());
        assert!(relay[*reader].sub(*sub).end.unwrap().is_fin());
        relay.disperse();
    }
}

fn start_of(prefs: &Prefs) -> (Option<u64>, u64) {
    (prefs.start.floor(), prefs.start_frame)
}

#[test]
fn interrupted_group_is_requested_again_and_continues() {
    versions(|version| {
        // Two frames and part of the third: 300 bytes each, plus headers.
        let mut back = Return::new(version, 750);
        let asked = back.asked();
        let frame = if version.has_frame_ranges() { 2 } else { 0 };
        assert_eq!(start_of(&asked.prefs), (Some(3), frame));
        assert_ne!(asked.prefs.max_age_ms, 0);
        let Return { relay, publisher, show, reader, sub, .. } = &mut back;
        let bytes = relay[*publisher].group_bytes_from(show.subscribe, 3, frame, &body(3)[frame as usize..]);
        let stream = relay[*publisher].open_uni(bytes[..50].to_vec());
        relay.run(MS * 30);
        relay[*publisher].write(stream, bytes[50..].to_vec());
        relay[*publisher].finish(stream);
        relay.run(MS * 30);
        let group = &relay[*reader].group(*sub, 3)[0];
        assert_eq!(group.first_frame, 0, "the reader's stream continued");
        show.check_bytes(relay, *reader, *sub);
        assert!(relay[*reader].has(*sub, 3));
        back.goes_on();
    });
}

#[test]
fn next_group_is_requested_after_a_finished_one() {
    versions(|version| {
        let mut back = Return::new(version, usize::MAX);
        let asked = back.asked();
        assert_eq!(start_of(&asked.prefs), (Some(4), 0));
        back.goes_on();
    });
}

#[test]
fn repeated_group_is_not_sent_to_readers_twice() {
    versions(|version| {
        let mut back = Return::new(version, usize::MAX);
        back.asked();
        // The publisher sends the group again although it was not requested.
        back.relay[back.publisher].send_group(back.show.subscribe, 3, &body(3));
        back.relay.run(MS * 50);
        assert_eq!(back.relay[back.reader].group(back.sub, 3).len(), 1);
        back.goes_on();
    });
}

#[test]
fn lost_head_resets_the_group_and_the_track_continues() {
    let mut back = Return::new(Version::V06, 750);
    back.asked();
    // The publisher has frames from the fourth on only.
    let bytes = back.relay[back.publisher].group_bytes_from(back.show.subscribe, 3, 3, &body(3)[3..]);
    let stream = back.relay[back.publisher].open_uni(bytes);
    back.relay[back.publisher].finish(stream);
    back.relay.run(MS * 50);
    let ends: Vec<_> = back.relay[back.reader].group(back.sub, 3).iter().map(|group| group.end).collect();
    assert_eq!(ends.len(), 1);
    assert_eq!(ends[0].and_then(|end| end.code()), Some(StreamCode::OLD), "never spliced, never finished");
    back.show.run(&mut back.relay, 1, MS * 30, body);
    assert!(back.relay[back.reader].has(back.sub, 4));
    back.relay.disperse();
}

#[test]
fn unresponsive_publisher_is_subscribed_again() {
    versions(|version| {
        let mut back = Return::new(version, 750);
        let first = back.asked();
        back.relay.run(MS * 1_900);
        assert_eq!(back.asked().id, first.id, "not yet");
        back.relay.run(MS * 200);
        let second = back.asked();
        assert_ne!(second.id, first.id);
        assert_eq!(
            second.prefs.start,
            if version.has_frame_ranges() { Start::Fresh { floor: 0 } } else { Start::Latest }
        );
        assert_eq!(second.prefs.start_frame, 0);
        let subscribes = |relay: &Relay, at: usize| {
            relay[at].asked.iter().filter(|asked| matches!(asked.what, Ask::Subscribe(_))).count()
        };
        assert_eq!(subscribes(&back.relay, back.publisher), 2);
        // Data of the first subscription is refused.
        let stale = back.relay[back.publisher].group_bytes(first.id, 9, &body(9));
        let stale = back.relay[back.publisher].open_uni(stale);
        back.relay.run(MS * 30);
        assert!(back.relay[back.publisher].stopped.contains_key(&stale));
        back.relay.run(MS * 4_000);
        assert_eq!(subscribes(&back.relay, back.publisher), 2, "once");
        let Return { relay, show, reader, sub, .. } = &mut back;
        let sequence = 5;
        show.air(relay, sequence, body(sequence));
        relay.run(MS * 50);
        assert!(relay[*reader].has(*sub, 5));
        assert_eq!(relay[*reader].group(*sub, 3)[0].end.unwrap().code(), Some(StreamCode::OLD));
        assert!(relay[*reader].sub(*sub).end.is_none());
        back.relay.disperse();
    });
}

#[test]
fn latest_start_does_not_wait_for_a_requested_group() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let publisher = relay.publisher("live/cam", &["video"]);
        let early = relay.subscriber();
        relay[early].subscribe("live/cam", "video", Prefs { start: Start::Group(128), ..patient() });
        let first = relay.upstream(publisher, "video");
        let late = relay.subscriber();
        let sub = relay[late].subscribe("live/cam", "video", patient());
        relay.run(MS * 50);
        // A publisher resolves the start once, so the subscription is repeated.
        let second = relay.upstream(publisher, "video");
        assert_ne!(second, first);
        assert_ne!(relay[publisher].serving("video").unwrap().1.prefs.start, Start::Group(128));
        relay[publisher].send_group(second, 3, &body(3));
        relay.run(MS * 50);
        assert!(relay[late].has(sub, 3));
        // Once it sends, new readers are served by the existing subscription.
        let third = relay.subscriber();
        relay[third].subscribe("live/cam", "video", patient());
        relay.run(MS * 50);
        assert_eq!(relay.upstream(publisher, "video"), second);
        relay.disperse();
    });
}

#[test]
fn restarted_group_numbers_end_the_log() {
    versions(|version| {
        for asked_anew in [false, true] {
            let mut back = Return::new(version, 750);
            back.asked();
            if asked_anew {
                back.relay.run(MS * 2_100);
                back.asked();
            }
            back.relay[back.publisher].send_group(back.show.subscribe, 0, &body(9));
            back.relay.run(MS * 50);
            let Return { relay, reader, sub, publisher, .. } = &mut back;
            let end = relay[*reader].sub(*sub).end.expect("a reset");
            assert!(!end.is_fin());
            assert!(!relay[*reader].group(*sub, 3)[0].is_complete());
            assert!(relay[*reader].group(*sub, 0).len() == 1, "groups are not mixed");
            // A new subscription gets a new log with the new groups.
            let again = relay[*reader].subscribe("live/cam", "video", patient());
            relay.run(MS * 50);
            let subscribe = relay.upstream(*publisher, "video");
            relay[*publisher].send_group(subscribe, 1, &body(9));
            relay.run(MS * 50);
            assert!(relay[*reader].has(again, 1));
            relay.disperse();
        }
    });
}

#[test]
fn a_session_that_lost_its_log_writes_nothing_more() {
    versions(|version| {
        let mut relay = Relay::of(version, 1);
        let old = relay.publisher("live/cam", &["video"]);
        let reader = relay.subscriber();
        let sub = relay[reader].subscribe("live/cam", "video", patient());
        let mut show = Show::new(&mut relay, old, "video");
        show.run(&mut relay, 2, MS * 20, body);
        let bytes = relay[old].group_bytes(show.subscribe, 2, &body(2));
        let stream = relay[old].open_uni(bytes[..500].to_vec());
        relay.run(MS * 30);
        // The publisher has another session, which the old one does not know yet.
        let new = relay.publisher("live/cam", &["video"]);
        relay.resume("video", new);
        relay.run(MS * 30);
        relay[old].write(stream, vec![0xff; 400]);
        relay[old].send_group(show.subscribe, 3, &vec![(0, vec![9; 10])]);
        relay.run(MS * 50);
        let subscribe = relay.upstream(new, "video");
        relay[new].send_group(subscribe, 2, &body(2));
        show.groups.insert(2, body(2));
        relay.run(MS * 50);
        show.check_all(&relay, reader, sub, 0);
        assert_eq!(relay[reader].group(sub, 3).len(), 0);
        assert!(relay.is_alive(old));
        relay[old].close(SessionCode::NONE, "");
        relay.run(Duration::from_secs(1));
        assert!(relay[reader].sub(sub).end.is_none());
        relay.disperse();
    });
}
