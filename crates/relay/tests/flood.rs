//! Promise: thousands of bad tokens leave no memory in use and do not disturb authorized sessions.

#![allow(missing_docs)]

mod common;

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use relay_auth::{Claims, Key};
use relay_client::{Client, ClientConfig, Error, Prefs, SessionCode, TrackInfo};
use tokio::{
    task::{JoinHandle, JoinSet},
    time::sleep,
};

use common::{
    PATIENCE, resident, run, run_alone,
    site::{Site, claims, code, flows, key, token},
    web::{Answer, Asked, Web},
};

/// Measured attempts, and attempts before them after which the memory of the relay is stable.
const ATTEMPTS: usize = 10_000;
const WARM_UP: usize = 1_500;
/// Concurrent attempts.
const AT_ONCE: usize = 24;
/// Growth of the memory allowed afterwards, bytes: a kilobyte per attempt would exceed it.
const BOUND: u64 = 6 << 20;
/// Interval between groups of the authorized publishers.
const PACE: Duration = Duration::from_millis(10);
/// Length of the longest token that is parsed, and of one that is too long.
const LONG: usize = 8 * 1_024;
const TOO_LONG: usize = 16 * 1_024;

/// Bad tokens of several kinds.
struct Bad {
    expired: String,
    forged: String,
    long: String,
    too_long: String,
}

/// A token with this header and payload, and a well-formed but wrong signature.
fn unsigned(header: &str, payload: &str) -> String {
    let [header, payload] = [header, payload].map(|text| URL_SAFE_NO_PAD.encode(text));
    format!("{header}.{payload}.{}", URL_SAFE_NO_PAD.encode([1; 64]))
}

impl Bad {
    /// Makes the tokens. `known`: a key that the relay knows.
    fn new(known: &Key) -> Self {
        let past = Some(SystemTime::now() - Duration::from_secs(60));
        let sized = |length: usize| {
            let of = |fill: usize| {
                let payload = format!(r#"{{"root":"room","get":"","x":"{}"}}"#, "x".repeat(fill));
                unsigned(r#"{"alg":"ES256","kid":"known"}"#, &payload)
            };
            of((length - of(0).len()) / 4 * 3)
        };
        let (long, too_long) = (sized(LONG), sized(TOO_LONG));
        assert!((LONG - 8..=LONG).contains(&long.len()) && too_long.len() > TOO_LONG - 8);
        Self {
            expired: known.sign(&Claims { expires: past, ..claims("room") }).unwrap(),
            // Another key with the same `kid`.
            forged: token(&key("known"), "room"),
            long,
            too_long,
        }
    }

    /// Token of attempt `number`: each kind in turn, with a different `kid` for each unknown key.
    fn token(&self, number: usize) -> String {
        match number % 7 {
            0 => self.forged.clone(),
            1 => unsigned(&format!(r#"{{"alg":"ES256","kid":"k{number}"}}"#), r#"{"get":""}"#),
            2 => format!("{number}.garbage-{number}.{}", "A".repeat(number % 300)),
            3 => self.long.clone(),
            4 => self.too_long.clone(),
            5 => unsigned(r#"{"alg":"none","kid":"known"}"#, r#"{"get":""}"#),
            _ => self.expired.clone(),
        }
    }
}

/// Number of attempts by outcome.
type Ends = BTreeMap<String, usize>;

/// Makes `count` attempts over both transports.
async fn attempts(site: &Arc<Site>, bad: &Arc<Bad>, count: usize) -> Ends {
    let next = Arc::new(AtomicUsize::new(0));
    let mut all = JoinSet::new();
    for _ in 0..AT_ONCE {
        let (site, bad, next) = (site.clone(), bad.clone(), next.clone());
        all.spawn(async move {
            let mut ends = Ends::new();
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= count {
                    return ends;
                }
                *ends.entry(attempt(&site, &bad, number).await).or_default() += 1;
            }
        });
    }
    let mut ends = Ends::new();
    for part in all.join_all().await {
        part.into_iter().for_each(|(end, count)| *ends.entry(end).or_default() += count);
    }
    ends
}

async fn attempt(site: &Site, bad: &Bad, number: usize) -> String {
    // The longest tokens exceed what the client's library sends in a request head.
    let scheme = if number.is_multiple_of(4) && number % 7 != 4 { "https" } else { "moqt" };
    let url = site.url(scheme, &format!("/room?jwt={}", bad.token(number)));
    let closed = match Client::connect(&url, ClientConfig::default()).await {
        Ok(client) => client.closed().await,
        Err(Error::Closed(closed)) => closed,
        // WebTransport may reject by status.
        Err(Error::Status(status)) => return format!("status {status}"),
        Err(error) => panic!("attempt {number}: {error}"),
    };
    match code(&closed) {
        Some(SessionCode::UNAUTHORIZED) => "unauthorized".to_owned(),
        // The limit of key requests was reached; the client may try again.
        Some(SessionCode::INTERNAL) if number % 7 == 1 => "later".to_owned(),
        _ => panic!("attempt {number}: {closed:?}"),
    }
}

/// Runs an authorized publisher and subscriber until `stop` is set; returns the number of groups relayed.
fn good(site: &Arc<Site>, scheme: &'static str, target: &str, stop: &Arc<AtomicBool>) -> JoinHandle<u64> {
    let (site, target, stop) = (site.clone(), target.to_owned(), stop.clone());
    tokio::spawn(async move {
        let publisher = site.enter_by(scheme, &target).await.unwrap();
        let subscriber = site.enter_by(scheme, &target).await.unwrap();
        let broadcast = publisher.broadcast(scheme).unwrap();
        let track = broadcast.track("t", TrackInfo { max_age_ms: 30_000, ..TrackInfo::default() }).unwrap();
        broadcast.announce();
        subscriber.announced("").await.unwrap().wait(scheme, true).await.unwrap();
        let prefs = Prefs { max_age_ms: 30_000, ..Prefs::default() };
        let mut subscription = subscriber.subscribe(scheme, "t", prefs).await.unwrap();
        track.wait_subscribed().await;
        let mut number = 0;
        while !stop.load(Ordering::Relaxed) {
            let payload = format!("{scheme} {number}");
            let group = track.group(number);
            group.frame(0, payload.clone().into());
            group.finish();
            // Each group is awaited, so none is lost or late.
            let mut received = subscription.next_group().await.unwrap();
            assert_eq!(received.sequence(), number);
            assert_eq!(received.frame().await.unwrap().unwrap().payload, payload);
            number += 1;
            sleep(PACE).await;
        }
        assert!(publisher.is_closed().is_none() && subscriber.is_closed().is_none());
        number
    })
}

#[test]
#[expect(clippy::print_stdout, reason = "what was measured")]
fn ten_thousand_bad_tokens_leave_no_memory_in_use() {
    run_alone(async {
        let known = key("known");
        let jwk = known.public().unwrap().to_json();
        let web = Web::start(move |asked: &Asked| match asked.target.as_str() {
            "/known.jwk" => Answer::ok(jwk.clone()),
            _ => Answer::status(404),
        })
        .await;
        let site = Arc::new(Site::quiet(&format!("key_dir = \"{}/\"", web.url)));
        let bad = Arc::new(Bad::new(&known));
        let target = format!("/room?jwt={}", token(&known, "room"));
        let stop = Arc::new(AtomicBool::new(false));
        let goods = ["moqt", "https"].map(|scheme| good(&site, scheme, &target, &stop));
        attempts(&site, &bad, WARM_UP).await;
        let process = site.relay.child.id();
        let (before, began) = (resident(process), Instant::now());
        let ends = attempts(&site, &bad, ATTEMPTS).await;
        let took = began.elapsed();
        // Closed connections remain for the closing period (RFC 9000, section 10.2).
        let mut after = resident(process);
        while after > before + BOUND && began.elapsed() < took + PATIENCE / 2 {
            sleep(Duration::from_millis(100)).await;
            after = resident(process);
        }
        stop.store(true, Ordering::Relaxed);
        let mut groups = Vec::new();
        for good in goods {
            groups.push(good.await.unwrap());
        }
        println!("{ATTEMPTS} in {took:?}: {ends:?}; {before} bytes before, {after} after; groups {groups:?}");
        assert_eq!(ends.values().sum::<usize>(), ATTEMPTS, "{ends:?}");
        assert!(after <= before + BOUND, "{before} bytes before, {after} after");
        assert!(groups.iter().all(|groups| *groups > 100), "{groups:?}");
        // New sessions are admitted.
        let one = site.enter(&target).await.unwrap();
        let other = site.enter_by("https", &target).await.unwrap();
        flows(&one, "after", &other, "after").await;
    });
}

#[test]
fn bad_tokens_do_not_fill_the_log_during_a_key_outage() {
    run(async {
        let gone = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let (site, recording) = Site::recorded("info", &format!("key_dir = \"http://{gone}/\""), |_| {});
        for number in 0..20 {
            let header = format!(r#"{{"alg":"ES256","kid":"k{number}"}}"#);
            let closed = site.refused(&format!("/room?jwt={}", unsigned(&header, r#"{"get":""}"#))).await;
            assert_eq!(code(&closed), Some(SessionCode::INTERNAL), "{closed:?}");
        }
        site.relay.signal(rustix::process::Signal::TERM);
        assert_eq!(site.relay.end().code(), Some(0));
        let said = recording.all();
        let complaints = said.iter().filter(|line| line.contains(": keys cannot be fetched")).count();
        assert_eq!(complaints, 1, "{said:#?}");
    });
}
