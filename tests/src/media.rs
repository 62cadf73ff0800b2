//! Media with verifiable content: every frame carries its position, and readers verify it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::Range,
    time::Duration,
};

use bytes::{BufMut, Bytes, BytesMut};
use relay_client::{
    Broadcast, Client, Error, Event, Frame, GroupWriter, Prefs, ReceivedGroup, StreamCode, Subscription,
    Track, TrackInfo,
};
use tokio::{
    sync::watch,
    task::{JoinHandle, JoinSet},
};

/// Size of the head: group, index, and whether the frame is its group's last, before the pattern.
const HEAD: usize = 17;
/// Time limit of conditions.
const PATIENCE: Duration = Duration::from_secs(20);

/// Content of the frame `index` of `group`: `size` bytes, at least its head.
pub fn payload(group: u64, index: u64, last: bool, size: usize) -> Bytes {
    let size = size.max(HEAD);
    let mut out = BytesMut::with_capacity(size);
    out.put_u64(group);
    out.put_u64(index);
    out.put_u8(last.into());
    let mut state = group.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ index.wrapping_mul(0xd6e8_feb8_6659_fd93);
    while out.len() < size {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = state.to_be_bytes();
        out.put_slice(&word[..word.len().min(size - out.len())]);
    }
    out.freeze()
}

/// Verifies that `frame` is the frame `index` of `group`, byte for byte; returns whether it is the last.
pub fn check(group: u64, index: u64, frame: &Frame) -> Result<bool, String> {
    let last = frame.payload.get(HEAD - 1).is_some_and(|flag| *flag == 1);
    if frame.payload != payload(group, index, last, frame.payload.len()) {
        return Err(format!("frame {index} of group {group} is not what was sent"));
    }
    Ok(last)
}

/// A published track of verifiable groups.
#[derive(Debug)]
pub struct Source {
    /// The announced broadcast; withdrawn when dropped.
    pub broadcast: Broadcast,
    /// The track.
    pub track: Track,
    /// Size of a frame, bytes.
    pub size: usize,
    /// Sequence of the next group.
    pub next: u64,
}

impl Source {
    /// Announces `path` with a track `video` whose frames have `size` bytes.
    pub fn announce(client: &Client, path: &str, size: usize) -> Self {
        let broadcast = client.broadcast(path).expect("a path");
        let info = TrackInfo { max_age_ms: 10_000, ..TrackInfo::default() };
        let track = broadcast.track("video", info).expect("a name");
        broadcast.announce();
        Self { broadcast, track, size, next: 0 }
    }

    /// Opens the next group.
    pub fn open(&mut self) -> OpenGroup {
        let writer = self.track.group(self.next);
        self.next += 1;
        OpenGroup { writer, index: 0, size: self.size }
    }

    /// Publishes the next group with this number of frames, and returns its sequence.
    pub fn group(&mut self, frames: u64) -> u64 {
        let mut group = self.open();
        (1..frames).for_each(|_| group.frame());
        let sequence = group.writer.sequence();
        group.finish();
        sequence
    }

    /// Ends the track cleanly.
    pub fn end(&self) {
        self.track.end(self.next);
    }
}

/// A group being written.
#[derive(Debug)]
pub struct OpenGroup {
    /// The client's handle.
    pub writer: GroupWriter,
    index: u64,
    size: usize,
}

impl OpenGroup {
    /// Adds a frame that is not the last.
    pub fn frame(&mut self) {
        self.put(false);
    }

    /// Adds the last frame and finishes the group.
    pub fn finish(mut self) {
        self.put(true);
        self.writer.finish();
    }

    fn put(&mut self, last: bool) {
        let payload = payload(self.writer.sequence(), self.index, last, self.size);
        self.writer.frame(self.index as i64, payload);
        self.index += 1;
    }
}

/// State of a reader.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// First group in the relay's answer.
    pub start: Option<u64>,
    /// Number of frames received, by group, finished or not.
    pub frames: BTreeMap<u64, u64>,
    /// Groups received completely, in order, intact, once.
    pub complete: BTreeSet<u64>,
    /// Groups that were reset, with the code.
    pub cut: Vec<(u64, Option<StreamCode>)>,
    /// Groups reported as dropped: first, last, code.
    pub dropped: Vec<(u64, u64, u64)>,
    /// Errors that must never happen: wrong bytes, a repeated group, a clean finish without the last frame.
    pub broken: Vec<String>,
    /// Bound in SUBSCRIBE_END.
    pub end: Option<u64>,
    /// `Some(true)`: END, then FIN. `Some(false)`: FIN alone.
    pub finished: Option<bool>,
    /// Error of the subscription: its reset, or the end of its session.
    pub failed: Option<String>,
    /// Code of that reset.
    pub code: Option<StreamCode>,
}

impl Seen {
    /// Groups in the range that were not received completely.
    pub fn lost(&self, groups: Range<u64>) -> Vec<u64> {
        groups.filter(|group| !self.complete.contains(group)).collect()
    }

    /// Whether the subscription has ended in any way.
    pub fn is_over(&self) -> bool {
        self.finished.is_some() || self.failed.is_some()
    }

    /// Panics unless all of `groups` were received completely, and nothing else happened.
    pub fn assert_lossless(&self, groups: Range<u64>, who: &str) {
        let lost = self.lost(groups);
        let fine = lost.is_empty() && self.broken.is_empty() && self.cut.is_empty();
        assert!(fine, "{who} lost {lost:?}, cut {:?}, broken {:?}, {:?}", self.cut, self.broken, self.failed);
    }

    fn begin(&mut self, group: u64) {
        if self.frames.insert(group, 0).is_some() {
            self.broken.push(format!("group {group} came twice"));
        }
    }
}

/// A subscription that is read to its end by a task.
#[derive(Debug)]
pub struct Viewer {
    seen: watch::Receiver<Seen>,
    task: JoinHandle<()>,
}

/// Preferences that accept groups of any age a test can take.
pub fn patient() -> Prefs {
    Prefs { max_age_ms: 60_000, ..Prefs::default() }
}

impl Viewer {
    /// Subscribes to `video` of `path` and reads the subscription.
    pub async fn join(client: &Client, path: &str) -> Self {
        Self::of(client.subscribe(path, "video", patient()).await.expect("subscribe"))
    }

    /// Reads `subscription`.
    pub fn of(subscription: Subscription) -> Self {
        let (sender, seen) = watch::channel(Seen::default());
        Self { seen, task: tokio::spawn(view(subscription, sender)) }
    }

    /// Current state.
    pub fn seen(&self) -> Seen {
        self.seen.borrow().clone()
    }

    /// Waits for `condition`; panics at the time limit.
    pub async fn wait(&self, what: &str, condition: impl FnMut(&Seen) -> bool) {
        if !self.reaches(PATIENCE, condition).await {
            panic!("waited for {what}, got {:?}", self.seen.borrow());
        }
    }

    /// Whether `condition` becomes true within `time`.
    pub async fn reaches(&self, time: Duration, condition: impl FnMut(&Seen) -> bool) -> bool {
        let mut seen = self.seen.clone();
        matches!(tokio::time::timeout(time, seen.wait_for(condition)).await, Ok(Ok(_)))
    }

    /// Waits until `group` is complete.
    pub async fn wait_group(&self, group: u64) {
        self.wait(&format!("group {group}"), |seen| seen.complete.contains(&group)).await;
    }

    /// Waits for the end of the subscription and of its open groups, and returns the final state.
    pub async fn finish(self) -> Seen {
        self.wait("the end", Seen::is_over).await;
        if tokio::time::timeout(PATIENCE, self.task).await.is_err() {
            panic!("groups stay open after the end: {:?}", self.seen.borrow());
        }
        self.seen.borrow().clone()
    }

    /// Unsubscribes.
    pub fn leave(self) {
        self.task.abort();
    }
}

async fn view(mut subscription: Subscription, seen: watch::Sender<Seen>) {
    let mut groups = JoinSet::new();
    loop {
        match subscription.next().await {
            Event::Ok(_) => {}
            Event::Start { group } => seen.send_modify(|s| s.start = Some(group)),
            Event::End { group } => seen.send_modify(|s| s.end = Some(group)),
            Event::Drop { start, end, code } => seen.send_modify(|s| s.dropped.push((start, end, code))),
            Event::Group(group) => {
                seen.send_modify(|s| s.begin(group.sequence()));
                groups.spawn(read(group, seen.clone()));
            }
            Event::Datagram { .. } => {}
            Event::Finished { clean } => {
                seen.send_modify(|s| s.finished = Some(clean));
                break;
            }
            Event::Failed(error) => {
                seen.send_modify(|s| {
                    s.code = code_of(&error);
                    s.failed = Some(error.to_string());
                });
                break;
            }
        }
    }
    while groups.join_next().await.is_some() {}
}

async fn read(mut group: ReceivedGroup, seen: watch::Sender<Seen>) {
    let (sequence, mut index, mut last) = (group.sequence(), 0, false);
    loop {
        match group.frame().await {
            Ok(Some(frame)) => {
                let checked = check(sequence, index, &frame);
                index += 1;
                seen.send_modify(|s| {
                    s.frames.insert(sequence, index);
                    if last {
                        s.broken.push(format!("group {sequence} goes on after its last frame"));
                    }
                    match checked {
                        Ok(flag) => last = flag,
                        Err(why) => s.broken.push(why),
                    }
                });
            }
            Ok(None) if last => {
                seen.send_modify(|s| {
                    s.complete.insert(sequence);
                });
                return;
            }
            Ok(None) => {
                return seen.send_modify(|s| s.broken.push(format!("group {sequence} finished early")));
            }
            Err(error) => return seen.send_modify(|s| s.cut.push((sequence, code_of(&error)))),
        }
    }
}

/// Application code of a stream reset or stop, if there is one.
pub fn code_of(error: &Error) -> Option<StreamCode> {
    match error {
        Error::Reset(code) | Error::Stopped(code) => code.stream(),
        _ => None,
    }
}
