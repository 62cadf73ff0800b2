//! Tests a log against a naive model: random interleavings of writers, feeds, fences, evictions and ends. Every
//! reader must read every group's bytes in order, or learn that it cannot.

use proptest::prelude::*;
use relay_model::{StreamCode, TrackInfo};

use super::*;
use crate::{FETCHED, LogEnd};

mod naive;
mod reader;

use naive::{From, Naive, Step, Streams};
use reader::Reader;

const MAX_AGE_MS: u64 = 1_000;
const WORKERS: u16 = 2;

#[derive(Clone, Debug)]
enum Op {
    /// A writer of a later epoch.
    Claim,
    /// Stage on one of the writers, the newest being the last, from one of its two streams of a group.
    Stage {
        writer: usize,
        from: From,
        step: Step,
    },
    Commit {
        writer: usize,
        ms: u64,
    },
    DropWriter {
        writer: usize,
    },
    Fence,
    End,
    Attach {
        worker: u16,
    },
    Detach {
        reader: usize,
    },
    /// A reader requests a group that may not have been opened for it.
    Await {
        reader: usize,
        group: u64,
    },
    /// A worker's turn, cut short after so many pulls.
    Turn {
        worker: u16,
        pulls: usize,
    },
}

/// Declared size of an object; some are empty.
fn size(group: u64, object: u64) -> u64 {
    (group * 3 + object * 5) % 4 * 3
}

/// The payload byte at `offset`.
fn byte(group: u64, object: u64, offset: u64) -> u8 {
    (group * 31 + object * 17 + offset * 7) as u8
}

fn payload(group: u64, object: u64, offset: u64, len: u64) -> Vec<u8> {
    (offset..offset + len).map(|at| byte(group, object, at)).collect()
}

fn step() -> impl Strategy<Value = Step> {
    let group = 0..6u64;
    prop_oneof![
        4 => group.clone().prop_map(Step::Open),
        12 => (group.clone(), 0..5u64, 0..3u64).prop_map(|(group, ahead, pieces)| Step::Next { group, ahead, pieces }),
        4 => (group.clone(), 1..5u64).prop_map(|(group, len)| Step::Data { group, len }),
        2 => (group.clone(), 0..4u64).prop_map(|(group, object)| Step::Again { group, object }),
        3 => group.clone().prop_map(Step::Finish),
        1 => group.clone().prop_map(Step::Reset),
        1 => group.clone().prop_map(Step::Datagram),
        1 => (500..3_000u64).prop_map(Step::Info),
        1 => group.clone().prop_map(Step::Absent),
        1 => group.clone().prop_map(Step::Failed),
    ]
}

fn op() -> impl Strategy<Value = Op> {
    let writer = prop_oneof![1 => Just(0usize), 8 => Just(usize::MAX)];
    let worker = 0..WORKERS;
    prop_oneof![
        2 => Just(Op::Claim),
        24 => (writer.clone(), step()).prop_map(|(writer, step)| Op::Stage { writer, from: From::Live, step }),
        12 => (writer.clone(), step()).prop_map(|(writer, step)| Op::Stage { writer, from: From::Fetch, step }),
        10 => (writer.clone(), prop_oneof![8 => Just(0u64), 3 => 1..700u64]).prop_map(|(writer, ms)| Op::Commit { writer, ms }),
        1 => writer.prop_map(|writer| Op::DropWriter { writer }),
        1 => Just(Op::Fence),
        1 => prop::bool::weighted(0.1).prop_map(|end| if end { Op::End } else { Op::Fence }),
        3 => worker.clone().prop_map(|worker| Op::Attach { worker }),
        1 => (0..4usize).prop_map(|reader| Op::Detach { reader }),
        2 => (0..4usize, 0..6u64).prop_map(|(reader, group)| Op::Await { reader, group }),
        8 => (worker, 1..4usize).prop_map(|(worker, pulls)| Op::Turn { worker, pulls }),
    ]
}

/// Steps staged by a writer, with the stream each belongs to.
type Staged = Vec<(From, Step)>;

struct World {
    store: Arc<Store>,
    log: Arc<Log>,
    now: Instant,
    wakes: WakeSet,
    epoch: u64,
    writers: Vec<(Writer, Staged, Streams)>,
    readers: Vec<Reader>,
    /// Workers that have not finished pulling.
    busy: [bool; WORKERS as usize],
    naive: Naive,
    /// Whether the model knows what is evicted.
    exact: bool,
}

impl World {
    fn new(capacity: u64, ceiling: u64, exact: bool) -> Self {
        let max_age = Duration::from_millis(MAX_AGE_MS);
        let store = Store::new(StoreConfig { workers: WORKERS.into(), capacity, ceiling, max_age });
        Self {
            log: store.create(LogId(1)),
            store,
            now: Instant::now(),
            wakes: WakeSet::new(),
            epoch: 0,
            writers: Vec::new(),
            readers: Vec::new(),
            busy: [false; WORKERS as usize],
            naive: Naive::default(),
            exact,
        }
    }

    fn apply(&mut self, op: Op) {
        match op {
            Op::Claim => self.claim(),
            Op::Stage { writer, from, step } => self.stage(writer, from, step),
            Op::Commit { writer, ms } => self.commit(writer, ms),
            Op::DropWriter { writer } => {
                if let Some(at) = self.writer(writer) {
                    let (writer, ..) = self.writers.remove(at);
                    self.naive.leave(writer.epoch().0);
                }
            }
            Op::Fence => {
                self.epoch += 1;
                assert!(self.store.fence(LogId(1), Epoch(self.epoch)));
                self.naive.fence(self.epoch);
            }
            Op::End => {
                let end = LogEnd { final_group: None, code: Some(StreamCode::CANCEL) };
                self.store.end(LogId(1), end, self.now, &mut self.wakes);
                self.naive.end(StreamCode::CANCEL);
            }
            Op::Attach { worker } if self.readers.len() < 4 => {
                self.readers.push(Reader::attach(&self.log, WorkerId(worker)));
            }
            Op::Detach { reader } if reader < self.readers.len() => drop(self.readers.remove(reader)),
            Op::Await { reader, group } => {
                if let Some(reader) = self.readers.get_mut(reader) {
                    reader.wait_for(group);
                }
            }
            Op::Turn { worker, pulls } => self.turn(worker, pulls),
            Op::Attach { .. } | Op::Detach { .. } => {}
        }
    }

    fn writer(&self, which: usize) -> Option<usize> {
        Some(which.min(self.writers.len().checked_sub(1)?))
    }

    fn claim(&mut self) {
        if self.writers.len() >= 3 {
            return;
        }
        self.epoch += 1;
        let claimed = self.log.writer(Epoch(self.epoch));
        assert_eq!(claimed.is_some(), self.naive.claim(self.epoch));
        self.writers.extend(claimed.map(|writer| (writer, Staged::new(), Streams::default())));
    }

    fn stage(&mut self, which: usize, from: From, step: Step) {
        let Some(at) = self.writer(which) else { return };
        let Some((writer, steps, streams)) = self.writers.get_mut(at) else { return };
        let Some(step) = self.naive.concrete(streams, from, step) else { return };
        let budget = self.store.budget();
        let strand = if from == From::Fetch { FETCHED } else { 0 };
        match &step {
            Step::Open(group) if from == From::Fetch => writer.fetched_group(*group),
            Step::Open(group) => writer.open_group(*group),
            Step::Object { group, object, size, len } => {
                let piece = budget.chunk(payload(*group, *object, 0, *len));
                writer.object(*group, strand, ObjectHead::frame(*object, None, *size), piece);
            }
            Step::Piece { group, object, offset, len } => {
                writer.data(*group, strand, budget.chunk(payload(*group, *object, *offset, *len)));
            }
            Step::Finish(group) => writer.finish(*group, strand),
            Step::Reset(group) => writer.reset(*group, strand, StreamCode(70)),
            Step::Datagram(group) => writer.datagram(*group, 0, budget.chunk(vec![1; 8])),
            Step::Info(ms) => writer.info(TrackInfo { max_age_ms: *ms, ..TrackInfo::default() }),
            Step::Absent(group) => writer.absent(*group, StreamCode::NOT_FOUND),
            Step::Failed(group) => writer.fetch_failed(*group, StreamCode::CONTROL_TIMEOUT),
            Step::Next { .. } | Step::Again { .. } | Step::Data { .. } => return,
        }
        steps.push((from, step));
    }

    fn commit(&mut self, which: usize, ms: u64) {
        self.now += Duration::from_millis(ms);
        let Some(at) = self.writer(which) else { return };
        let Some((writer, steps, _)) = self.writers.get_mut(at) else { return };
        if steps.is_empty() {
            return;
        }
        let before = self.log.lock_count();
        let result = writer.commit(self.now, &mut self.wakes);
        if self.exact {
            assert_eq!(self.log.lock_count(), before + 1);
        }
        let expected = self.naive.commit(writer.epoch().0, steps.drain(..), self.now);
        assert_eq!(result, expected);
    }

    fn turn(&mut self, worker: u16, pulls: usize) {
        let mut logs = Vec::new();
        self.store.ready_list(WorkerId(worker)).take(&mut logs);
        let busy = &mut self.busy[usize::from(worker)];
        *busy |= !logs.is_empty();
        for _ in 0..pulls {
            if *busy {
                let mine = self.readers.iter_mut().filter(|reader| reader.worker.0 == worker);
                *busy = mine.map(Reader::pull).filter(|more| *more).count() > 0;
            }
        }
    }

    fn check(&self) {
        let mut state = self.log.lock();
        state.locks -= 1;
        state.journal.check();
        let overhead: u64 = state.groups.values().map(|group| group.overhead).sum();
        assert_eq!(overhead + state.absent.overhead(), state.overhead);
        assert!(state.superseded.iter().map(|group| group.since).is_sorted());
        assert_eq!(
            state.superseded.len(),
            state.groups.values().filter(|g| g.superseded_at.is_some()).count()
        );
        assert_eq!(state.latest, self.naive.latest);
        if self.exact {
            assert!(state.groups.keys().eq(self.naive.groups.keys()));
            for (group, object) in (0..7).flat_map(|group| (0..4).map(move |object| (group, object))) {
                assert_eq!(state.lookup(group, object), self.naive.lookup(group, object), "{group} {object}");
            }
            assert_eq!(state.resume(), self.naive.resume());
        }
    }

    /// Runs workers as long as a ready list is pending; then every reader must be up to date.
    fn settle(&mut self) {
        while (0..WORKERS).any(|worker| {
            self.turn(worker, 1);
            self.busy[usize::from(worker)]
        }) {}
        for reader in &self.readers {
            reader.check_against(&self.log, &self.naive, self.exact);
        }
    }
}

fn run(ops: Vec<Op>, capacity: u64, ceiling: u64, exact: bool) {
    let mut world = World::new(capacity, ceiling, exact);
    world.apply(Op::Claim);
    world.apply(Op::Attach { worker: 0 });
    for op in ops {
        world.apply(op);
        world.check();
    }
    world.settle();
    let store = Arc::clone(&world.store);
    store.retire(LogId(1));
    drop(world);
    assert!(store.counts().is_empty());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_log_behaves_like_its_model(ops in prop::collection::vec(op(), 1..200)) {
        run(ops, 1 << 40, 1 << 41, true);
    }

    #[test]
    fn readers_stay_consistent_while_the_budget_evicts(ops in prop::collection::vec(op(), 1..200)) {
        run(ops, 900, 1_800, false);
    }
}
