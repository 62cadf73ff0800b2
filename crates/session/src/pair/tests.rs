use relay_model::transport::TransportClosed;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use super::*;

const MS: Duration = Duration::from_millis(1);

/// A pair with its clock.
struct Bench {
    pair: Pair,
    now: Instant,
}

impl Bench {
    fn new(seed: u64, a: PairOptions, b: PairOptions) -> Self {
        let mut bench = Self { pair: Pair::with(seed, a, b), now: Instant::now() };
        bench.run(Duration::ZERO);
        assert_eq!(bench.pair.a.poll(), Some(TransportEvent::Ready));
        assert_eq!(bench.pair.b.poll(), Some(TransportEvent::Ready));
        bench
    }

    fn clean() -> Self {
        Self::new(1, PairOptions::default(), PairOptions::default())
    }

    fn run(&mut self, time: Duration) {
        self.now += time;
        self.pair.advance(self.now);
    }

    /// Runs until nothing is in flight.
    fn settle(&mut self) {
        self.run(Duration::ZERO);
        while let Some(at) = self.pair.next_arrival() {
            self.now = at;
            self.pair.advance(at);
        }
    }
}

fn events(end: &mut PairEnd) -> Vec<TransportEvent> {
    std::iter::from_fn(|| end.poll()).collect()
}

fn put(end: &mut PairEnd, stream: Stream, bytes: &[u8]) -> usize {
    end.write(stream, &mut [Bytes::copy_from_slice(bytes)]).unwrap()
}

/// Reads all available bytes. Returns them and the result of the last read.
fn take(end: &mut PairEnd, stream: Stream) -> (Vec<u8>, Result<(), ReadError>) {
    let mut all = Vec::new();
    loop {
        match end.read(stream, usize::MAX) {
            Ok(Some(bytes)) => all.extend_from_slice(&bytes),
            Ok(None) => return (all, Ok(())),
            Err(error) => return (all, Err(error)),
        }
    }
}

/// Options of a random impaired link.
fn rough(rng: &mut Rng) -> PairOptions {
    PairOptions {
        latency: MS * (rng.below(40) as u32),
        rate: rng.chance(0.5).then(|| 20_000 + rng.below(2_000_000)),
        loss: rng.below(30) as f64 / 100.0,
        mtu: 1 + rng.below(1_400) as usize,
        send_window: 1 + rng.below(20_000),
        partial: rng.below(100) as f64 / 100.0,
        stream_window: 1 + rng.below(8_000),
        connection_window: 1 + rng.below(16_000),
        bidi_streams: 1 + rng.below(4),
        uni_streams: 1 + rng.below(4),
        max_datagram: 1_200,
        measures: true,
    }
}

/// A writer driven by events only: it writes again after `Writable` or `Room`, and opens again after
/// `Openable`.
struct Writer {
    todo: Vec<(Dir, Vec<u8>)>,
    live: BTreeMap<Stream, Bytes>,
    sent: Vec<Vec<u8>>,
}

impl Writer {
    fn new(rng: &mut Rng) -> Self {
        let todo: Vec<_> = (0..12)
            .map(|n| {
                let dir = if rng.chance(0.5) { Dir::Uni } else { Dir::Bi };
                let body = (0..rng.below(12_000)).map(|_| rng.draw() as u8).collect::<Vec<_>>();
                (dir, [&[n][..], &body].concat())
            })
            .collect();
        let sent = todo.iter().map(|(_, bytes)| bytes.clone()).collect();
        Self { todo, live: BTreeMap::new(), sent }
    }

    fn open(&mut self, end: &mut PairEnd) {
        let mut refused = BTreeSet::new();
        self.todo.retain(|(dir, bytes)| {
            let slot = *dir == Dir::Uni;
            match (!refused.contains(&slot)).then(|| end.open(*dir, 0)).flatten() {
                Some(stream) => {
                    self.live.insert(stream, bytes.clone().into());
                    Self::pump(end, &mut self.live, stream);
                    false
                }
                None => {
                    refused.insert(slot);
                    true
                }
            }
        });
    }

    fn pump(end: &mut PairEnd, live: &mut BTreeMap<Stream, Bytes>, stream: Stream) {
        let Some(rest) = live.get_mut(&stream) else { return };
        match end.write(stream, std::slice::from_mut(rest)) {
            Ok(_) if rest.is_empty() => {
                end.finish(stream);
                live.remove(&stream);
            }
            Ok(taken) => assert!(taken > 0),
            Err(error) => assert_eq!(error, WriteError::Blocked),
        }
    }
}

/// A reader that reads after `Opened` and `Readable` only, and responds to bidi streams with a FIN.
#[derive(Default)]
struct Reader {
    live: BTreeMap<Stream, Vec<u8>>,
    done: Vec<Vec<u8>>,
}

impl Reader {
    fn pump(&mut self, end: &mut PairEnd, stream: Stream, rng: &mut Rng) {
        let Some(body) = self.live.get_mut(&stream) else { return };
        loop {
            match end.read(stream, 1 + rng.below(3_000) as usize) {
                Ok(Some(bytes)) => body.extend_from_slice(&bytes),
                Ok(None) => {
                    self.done.extend(self.live.remove(&stream));
                    return end.finish(stream);
                }
                Err(error) => return assert_eq!(error, ReadError::Blocked),
            }
        }
    }
}

fn transfer(seed: u64) -> (Vec<Vec<u8>>, Duration) {
    let mut rng = Rng::new(seed);
    let (a, b) = (rough(&mut rng), rough(&mut rng));
    let mut bench = Bench::new(seed, a, b);
    let start = bench.now;
    let (mut writer, mut reader) = (Writer::new(&mut rng), Reader::default());
    writer.open(&mut bench.pair.a);
    let mut idle = 0;
    while reader.done.len() < writer.sent.len() {
        bench.run(MS * 5);
        idle += 1;
        assert!(idle < 200_000, "seed {seed}: stuck");
        for event in events(&mut bench.pair.a) {
            match event {
                TransportEvent::Writable(stream) => Writer::pump(&mut bench.pair.a, &mut writer.live, stream),
                TransportEvent::Room => {
                    for stream in writer.live.keys().copied().collect::<Vec<_>>() {
                        Writer::pump(&mut bench.pair.a, &mut writer.live, stream);
                    }
                }
                TransportEvent::Openable(_) => writer.open(&mut bench.pair.a),
                TransportEvent::Readable(stream) => {
                    let _ = take(&mut bench.pair.a, stream);
                }
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        // The response halves are read like any stream, which arms their `Readable`.
        for event in events(&mut bench.pair.b) {
            match event {
                TransportEvent::Opened(stream, _) => {
                    assert!(reader.live.insert(stream, Vec::new()).is_none());
                    reader.pump(&mut bench.pair.b, stream, &mut rng);
                }
                TransportEvent::Readable(stream) => reader.pump(&mut bench.pair.b, stream, &mut rng),
                other => panic!("seed {seed}: {other:?}"),
            }
        }
        for number in 0..16 {
            let _ = take(&mut bench.pair.a, Stream(number << 2));
        }
    }
    let mut got = reader.done.clone();
    got.sort_by_key(|body| body[0]);
    assert_eq!(got, writer.sent, "seed {seed}");
    bench.settle();
    bench.settle();
    for number in 0..16 {
        let _ = take(&mut bench.pair.a, Stream(number << 2));
    }
    assert_eq!(bench.pair.a.live_streams(), (0, 0), "seed {seed}");
    assert_eq!(bench.pair.b.live_streams(), (0, 0), "seed {seed}");
    assert_eq!(bench.pair.a.outstanding(), 0, "seed {seed}");
    (reader.done, bench.now - start)
}

#[test]
fn every_byte_arrives_once_in_order_on_any_link() {
    for seed in 0..150 {
        transfer(seed);
    }
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 200..210 {
        assert_eq!(transfer(seed), transfer(seed));
    }
}

#[test]
fn loss_delays_a_stream_but_not_its_neighbours() {
    let overtaken = (0..20).any(|seed| {
        let mut bench =
            Bench::new(seed, PairOptions { loss: 0.3, ..PairOptions::default() }, PairOptions::default());
        let streams: Vec<_> = (0..10).map(|_| bench.pair.a.open(Dir::Uni, 0).unwrap()).collect();
        for &stream in &streams {
            put(&mut bench.pair.a, stream, b"x");
        }
        bench.run(Duration::ZERO);
        bench.run(MS * 6);
        let opened = events(&mut bench.pair.b);
        // In order of their keys, including those whose first bytes are lost.
        let order: Vec<_> = (0..opened.len()).map(|n| TransportEvent::Opened(streams[n], Dir::Uni)).collect();
        assert_eq!(opened, order);
        let empty = |bench: &mut Bench, n: usize| take(&mut bench.pair.b, streams[n]).0.is_empty();
        (1..opened.len()).any(|n| empty(&mut bench, n - 1) && !empty(&mut bench, n))
    });
    assert!(overtaken);
}

#[test]
fn a_new_stream_is_opened_before_its_data_and_read_at_once() {
    let mut bench = Bench::clean();
    let stream = bench.pair.a.open(Dir::Uni, 0).unwrap();
    put(&mut bench.pair.a, stream, b"one");
    bench.settle();
    assert_eq!(events(&mut bench.pair.b), [TransportEvent::Opened(stream, Dir::Uni)]);
    assert_eq!(take(&mut bench.pair.b, stream), (b"one".to_vec(), Err(ReadError::Blocked)));
    put(&mut bench.pair.a, stream, b"two");
    bench.settle();
    assert_eq!(events(&mut bench.pair.b), [TransportEvent::Readable(stream)]);
    assert_eq!(take(&mut bench.pair.b, stream), (b"two".to_vec(), Err(ReadError::Blocked)));
    bench.pair.a.finish(stream);
    bench.settle();
    assert_eq!(events(&mut bench.pair.b), [TransportEvent::Readable(stream)]);
    assert_eq!(take(&mut bench.pair.b, stream), (vec![], Ok(())));
    assert_eq!(take(&mut bench.pair.b, stream), (vec![], Err(ReadError::Gone)));
    assert_eq!(bench.pair.a.write(stream, &mut [Bytes::from_static(b"x")]), Err(WriteError::Gone));
}

#[test]
fn blocked_write_gets_writable_and_short_write_gets_room() {
    let peer = PairOptions { stream_window: 10, ..PairOptions::default() };
    let mut bench = Bench::new(1, PairOptions::default(), peer);
    let stream = bench.pair.a.open(Dir::Uni, 0).unwrap();
    let mut chunks =
        [Bytes::from_static(b"01234"), Bytes::from_static(b"56789abc"), Bytes::from_static(b"d")];
    assert_eq!(bench.pair.a.write(stream, &mut chunks), Ok(10));
    assert_eq!(chunks.each_ref().map(|c| c.as_ref()), [b"", b"abc" as &[u8], b"d"]);
    bench.settle();
    assert_eq!(events(&mut bench.pair.a), [TransportEvent::Room]);
    assert_eq!(bench.pair.a.write(stream, &mut chunks), Err(WriteError::Blocked));
    bench.settle();
    assert_eq!(events(&mut bench.pair.a), []);
    bench.pair.b.read(stream, 4).unwrap();
    bench.settle();
    assert_eq!(events(&mut bench.pair.a), [TransportEvent::Writable(stream)]);
    assert_eq!(bench.pair.a.write(stream, &mut chunks), Ok(4));
    assert_eq!(bench.pair.a.write(stream, &mut chunks), Ok(0));
}

#[test]
fn connection_credit_is_shared_and_returned_by_reads() {
    let peer = PairOptions { connection_window: 10, ..PairOptions::default() };
    let mut bench = Bench::new(1, PairOptions::default(), peer);
    let [one, two] = [0; 2].map(|_| bench.pair.a.open(Dir::Uni, 0).unwrap());
    assert_eq!(put(&mut bench.pair.a, one, b"01234567"), 8);
    assert_eq!(put(&mut bench.pair.a, two, b"0123"), 2);
    let x = || Bytes::from_static(b"x");
    bench.pair.a.exempt(true);
    assert_eq!(bench.pair.a.write(two, &mut [x()]), Err(WriteError::Blocked));
    bench.settle();
    bench.pair.b.hold_credit(true);
    assert_eq!(take(&mut bench.pair.b, one).0.len(), 8);
    bench.settle();
    assert_eq!(events(&mut bench.pair.a), [TransportEvent::Room]);
    bench.pair.b.hold_credit(false);
    bench.settle();
    assert_eq!(events(&mut bench.pair.a), [TransportEvent::Writable(two)]);
    assert_eq!(bench.pair.a.write(two, &mut [x()]), Ok(1));
}

#[test]
fn reset_and_stop_return_connection_credit() {
    let peer = PairOptions { connection_window: 10, ..PairOptions::default() };
    let mut bench = Bench::new(1, PairOptions::default(), peer);
    for stop in [false, true] {
        let stream = bench.pair.a.open(Dir::Uni, 0).unwrap();
        assert_eq!(put(&mut bench.pair.a, stream, b"0123456789"), 10);
        bench.settle();
        if stop {
            bench.pair.b.stop(stream, StreamCode::CANCEL);
        } else {
            bench.pair.a.reset(stream, StreamCode::OLD);
        }
        bench.settle();
    }
    let stream = bench.pair.a.open(Dir::Uni, 0).unwrap();
    assert_eq!(put(&mut bench.pair.a, stream, b"0123456789"), 10);
}

#[test]
fn valve_counts_unacknowledged_bytes_and_can_be_lifted() {
    let mine = PairOptions { send_window: 10, ..PairOptions::default() };
    let mut bench = Bench::new(1, mine, PairOptions::default());
    let stream = bench.pair.a.open(Dir::Uni, 0).unwrap();
    assert_eq!(put(&mut bench.pair.a, stream, b"0123456789abc"), 10);
    let mut more = [Bytes::from_static(b"more")];
    assert_eq!(bench.pair.a.write(stream, &mut more), Err(WriteError::Blocked));
    bench.pair.a.exempt(true);
    assert_eq!(bench.pair.a.write(stream, &mut more), Ok(4));
    bench.pair.a.exempt(false);
    assert_eq!(bench.pair.a.outstanding(), 14);
    bench.run(MS * 6);
    bench.run(MS * 6);
    assert_eq!(bench.pair.a.outstanding(), 0);
    assert_eq!(events(&mut bench.pair.a), [TransportEvent::Room]);
    assert_eq!(put(&mut bench.pair.a, stream, b"0123456789abc"), 10);
    assert_eq!(bench.pair.a.write(stream, &mut [Bytes::from_static(b"x")]), Err(WriteError::Blocked));
    bench.settle();
    assert_eq!(events(&mut bench.pair.a), [TransportEvent::Room, TransportEvent::Writable(stream)]);
}

#[test]
fn streams_that_end_make_room_for_others() {
    let peer = PairOptions { uni_streams: 1, bidi_streams: 1, ..PairOptions::default() };
    let mut bench = Bench::new(1, PairOptions::default(), peer);
    let uni = bench.pair.a.open(Dir::Uni, 0).unwrap();
    let bidi = bench.pair.a.open(Dir::Bi, 0).unwrap();
    for (stream, dir) in [(uni, Dir::Uni), (bidi, Dir::Bi)] {
        put(&mut bench.pair.a, stream, b"x");
        bench.pair.a.finish(stream);
        assert_eq!(bench.pair.a.open(dir, 0), None);
    }
    bench.settle();
    assert_eq!(take(&mut bench.pair.b, uni), (b"x".to_vec(), Ok(())));
    assert_eq!(take(&mut bench.pair.b, bidi), (b"x".to_vec(), Ok(())));
    bench.settle();
    assert_eq!(events(&mut bench.pair.a), [TransportEvent::Openable(Dir::Uni)]);
    assert!(bench.pair.a.open(Dir::Uni, 0).is_some());
    bench.pair.b.reset(bidi, StreamCode::CANCEL);
    bench.settle();
    assert_eq!(
        events(&mut bench.pair.a),
        [TransportEvent::Readable(bidi), TransportEvent::Openable(Dir::Bi)]
    );
    bench.pair.b.allow(Dir::Uni, 2);
    bench.settle();
    assert!(bench.pair.a.open(Dir::Uni, 0).is_some() && bench.pair.a.open(Dir::Uni, 0).is_some());
    assert_eq!(bench.pair.a.open(Dir::Uni, 0), None);
}

#[test]
fn a_reset_discards_what_was_not_read() {
    let mut bench = Bench::clean();
    let stream = bench.pair.a.open(Dir::Uni, 0).unwrap();
    put(&mut bench.pair.a, stream, b"half of it");
    bench.settle();
    assert_eq!(bench.pair.b.read(stream, 4), Ok(Some(Bytes::from_static(b"half"))));
    bench.pair.a.reset(stream, StreamCode::OLD);
    bench.pair.a.reset(stream, StreamCode::CANCEL);
    bench.settle();
    assert_eq!(bench.pair.b.read(stream, 4), Err(ReadError::Reset(StreamCode::OLD)));
    assert_eq!(bench.pair.b.read(stream, 4), Err(ReadError::Gone));
    assert_eq!(bench.pair.a.outstanding(), 0);
}

#[test]
fn a_stop_reaches_the_writer_also_after_it_finished() {
    for finished in [false, true] {
        let mut bench = Bench::clean();
        let stream = bench.pair.a.open(Dir::Uni, 0).unwrap();
        put(&mut bench.pair.a, stream, b"x");
        bench.run(Duration::ZERO);
        bench.run(MS * 6);
        bench.pair.b.stop(stream, StreamCode::CANCEL);
        assert_eq!(bench.pair.b.read(stream, 1), Err(ReadError::Gone));
        if finished {
            bench.pair.a.finish(stream);
        }
        bench.run(MS * 6);
        assert_eq!(events(&mut bench.pair.a), [TransportEvent::Stopped(stream, StreamCode::CANCEL)]);
        let refused = if finished { WriteError::Gone } else { WriteError::Stopped(StreamCode::CANCEL) };
        assert_eq!(bench.pair.a.write(stream, &mut [Bytes::from_static(b"y")]), Err(refused));
        bench.pair.a.reset(stream, StreamCode::CANCEL);
        bench.settle();
        assert_eq!(bench.pair.b.live_streams(), (0, 0));
        assert_eq!(bench.pair.a.live_streams(), (0, 0));
    }
}

#[test]
fn higher_priority_is_sent_first_and_equals_take_turns() {
    let mine = PairOptions { rate: Some(100_000), ..PairOptions::default() };
    let mut bench = Bench::new(1, mine, PairOptions::default());
    let low = bench.pair.a.open(Dir::Uni, 1).unwrap();
    let other = bench.pair.a.open(Dir::Uni, 1).unwrap();
    let high = bench.pair.a.open(Dir::Uni, 2).unwrap();
    for stream in [low, other, high] {
        put(&mut bench.pair.a, stream, &[0; 20_000]);
    }
    bench.run(Duration::ZERO);
    bench.run(MS * 208);
    assert!(take(&mut bench.pair.b, low).0.is_empty());
    assert_eq!(take(&mut bench.pair.b, high).0.len(), 20_000);
    bench.run(MS * 200);
    let (one, two) = (take(&mut bench.pair.b, low).0.len(), take(&mut bench.pair.b, other).0.len());
    assert!(one.abs_diff(two) <= 1_200 && one > 5_000, "{one} {two}");
    bench.pair.a.set_priority(other, 9);
    bench.run(MS * 130);
    assert!(take(&mut bench.pair.b, low).0.len() <= 3 * 1_200);
    assert_eq!(take(&mut bench.pair.b, other).0.len(), 20_000 - two);
}

#[test]
fn a_link_at_rate_zero_passes_nothing_until_it_is_back() {
    let mut bench = Bench::clean();
    let stream = bench.pair.a.open(Dir::Uni, 0).unwrap();
    bench.pair.a.tune(|options| options.rate = Some(0));
    put(&mut bench.pair.a, stream, b"x");
    bench.run(MS * 1_000);
    assert_eq!(bench.pair.next_arrival(), None);
    bench.pair.a.tune(|options| options.rate = None);
    bench.settle();
    assert_eq!(take(&mut bench.pair.b, stream).0, b"x");
}

#[test]
fn datagrams_are_lost_but_never_doubled_or_cut() {
    let mine = PairOptions { loss: 0.4, ..PairOptions::default() };
    let mut bench = Bench::new(7, mine, PairOptions { max_datagram: 2, ..PairOptions::default() });
    assert_eq!(bench.pair.a.max_datagram(), 2);
    assert_eq!(bench.pair.a.send_datagram(Bytes::from_static(b"abc")), Err(DatagramError::TooLarge));
    for n in 0..100 {
        bench.pair.a.send_datagram(Bytes::from(vec![n, n])).unwrap();
    }
    bench.settle();
    assert_eq!(events(&mut bench.pair.b), [TransportEvent::Datagram]);
    let got: Vec<_> = std::iter::from_fn(|| bench.pair.b.recv_datagram()).collect();
    assert!(got.len() > 40 && got.len() < 80, "{}", got.len());
    assert!(got.is_sorted() && got.iter().all(|d| d.len() == 2 && d[0] == d[1]));
    assert_eq!(got.iter().collect::<BTreeSet<_>>().len(), got.len());

    let mut bench =
        Bench::new(7, PairOptions::default(), PairOptions { max_datagram: 0, ..PairOptions::default() });
    assert_eq!(bench.pair.a.send_datagram(Bytes::new()), Err(DatagramError::Unsupported));
}

#[test]
fn the_oldest_datagrams_make_room() {
    let mut bench = Bench::clean();
    let count = limits::DATAGRAM_QUEUE / 1_024 + 1;
    for n in 0..count {
        bench.pair.a.send_datagram(Bytes::from(vec![n as u8; 1_024])).unwrap();
    }
    bench.settle();
    let got: Vec<_> = std::iter::from_fn(|| bench.pair.b.recv_datagram()).map(|d| d[0]).collect();
    assert_eq!(got, (1..count as u8).collect::<Vec<_>>());
}

#[test]
fn closed_is_the_last_event_at_both_ends() {
    let mut bench = Bench::clean();
    let stream = bench.pair.a.open(Dir::Bi, 0).unwrap();
    put(&mut bench.pair.a, stream, b"x");
    bench.settle();
    bench.pair.a.close(bench.now, SessionCode::PROTOCOL_VIOLATION, "why");
    bench.pair.a.close(bench.now, SessionCode::NONE, "again");
    assert_eq!(events(&mut bench.pair.a), [TransportEvent::Closed(TransportClosed::ByUs)]);
    assert_eq!(bench.pair.a.open(Dir::Bi, 0), None);
    bench.settle();
    let why = TransportClosed::ByPeer(SessionCode::PROTOCOL_VIOLATION, "why".to_owned());
    assert_eq!(
        events(&mut bench.pair.b),
        [TransportEvent::Opened(stream, Dir::Bi), TransportEvent::Closed(why)]
    );
    assert_eq!(take(&mut bench.pair.b, stream).1, Err(ReadError::Gone));
    bench.pair.cut("too late");
    assert_eq!(events(&mut bench.pair.b), []);

    let mut bench = Bench::clean();
    bench.pair.cut("idle");
    for end in [&mut bench.pair.a, &mut bench.pair.b] {
        assert_eq!(events(end), [TransportEvent::Closed(TransportClosed::Lost("idle".to_owned()))]);
    }
}
