//! Records of a scripted peer.

use std::{collections::BTreeMap, time::Instant};

use relay_model::{Cost, Hops, Path, Prefs, StreamCode, TrackInfo, limits, transport::Stream};
use relay_wire::{
    MessageBuf,
    lite::{
        Announce, AnnounceInit, AnnounceOk, AnnounceRequest, Fetch, Goaway, Subscribe, SubscribeResponse,
        TrackRequest, Version,
    },
};

use crate::peer::track;

/// End of a stream, and its time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Fin(Instant),
    Reset(StreamCode, Instant),
}

impl Ended {
    pub(crate) fn is_fin(self) -> bool {
        matches!(self, Self::Fin(_))
    }

    pub(crate) fn code(self) -> Option<StreamCode> {
        match self {
            Self::Fin(_) => None,
            Self::Reset(code, _) => Some(code),
        }
    }

    pub(crate) fn at(self) -> Instant {
        match self {
            Self::Fin(at) | Self::Reset(_, at) => at,
        }
    }
}

/// Tick recorded for a frame without a timestamp.
pub(crate) const UNTIMED: i64 = -1;

/// Frames of a group: (tick, payload).
pub(crate) type Frames = Vec<(i64, Vec<u8>)>;

/// A group as received by the peer.
#[derive(Clone, Debug, Default)]
pub(crate) struct GroupIn {
    pub(crate) subscribe: u64,
    /// `None` until the header has arrived.
    pub(crate) sequence: Option<u64>,
    pub(crate) first_frame: u64,
    pub(crate) frames: Frames,
    /// Declared size of the last frame.
    pub(crate) size: u64,
    pub(crate) end: Option<Ended>,
    /// Whether the FIN came between frames.
    pub(crate) clean: bool,
}

impl GroupIn {
    pub(crate) fn is_complete(&self) -> bool {
        self.clean && self.end.is_some_and(Ended::is_fin)
    }
}

#[derive(Debug, Default)]
pub(crate) struct WatchIn {
    pub(crate) ok: Option<AnnounceOk>,
    pub(crate) init: Option<AnnounceInit>,
    pub(crate) live: BTreeMap<Path, Hops>,
    pub(crate) costs: BTreeMap<Path, Cost>,
    by_id: BTreeMap<u64, Path>,
    next_id: u64,
    pub(crate) heard: Vec<Announce>,
    pub(crate) end: Option<Ended>,
}

#[derive(Debug, Default)]
pub(crate) struct SubIn {
    /// Subscribe id carried by its groups.
    pub(crate) id: u64,
    pub(crate) responses: Vec<SubscribeResponse>,
    /// Time END arrived.
    pub(crate) said_end: Option<Instant>,
    pub(crate) end: Option<Ended>,
}

#[derive(Debug, Default)]
pub(crate) struct TrackIn {
    pub(crate) info: Option<TrackInfo>,
    pub(crate) end: Option<Ended>,
}

/// A request of the relay to the peer.
#[derive(Debug)]
pub(crate) struct Asked {
    pub(crate) stream: Stream,
    pub(crate) what: Ask,
    pub(crate) updates: Vec<Prefs>,
    pub(crate) end: Option<Ended>,
}

impl Asked {
    pub(crate) fn is_track(&self) -> bool {
        matches!(self.what, Ask::Track(_))
    }

    pub(crate) fn what_is_track(&self, name: &str) -> bool {
        matches!(&self.what, Ask::Track(request) if request.track == track(name))
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ask {
    Announce(AnnounceRequest),
    Track(TrackRequest),
    Subscribe(Subscribe),
    Fetch(Fetch),
    Goaway(Goaway),
}

/// Applies the messages of an announce stream; a message that the version forbids fails the test.
pub(crate) fn hear_watch(version: Version, inbox: &mut MessageBuf, watch: &mut WatchIn) {
    if version.has_announce_ok() && watch.ok.is_none() {
        watch.ok = inbox.next(version).unwrap();
        if watch.ok.is_none() {
            return;
        }
    }
    if version.has_announce_init() && watch.init.is_none() {
        let Some(init) = inbox.next::<AnnounceInit>(version).unwrap() else { return };
        for suffix in &init.suffixes {
            let before = watch.live.insert(suffix.clone(), [].into());
            assert!(before.is_none(), "{suffix} twice in a list");
        }
        watch.init = Some(init);
    }
    while let Some(announce) = Announce::next(inbox, version).unwrap() {
        watch.heard.push(announce.clone());
        match announce {
            Announce::Active { suffix, hops, cost } => {
                let before = watch.live.insert(suffix.clone(), hops.clone());
                assert!(before.is_none() || version == Version::V05, "{suffix} is live already");
                assert!(hops.len() <= limits::HOPS);
                watch.costs.insert(suffix.clone(), cost);
                watch.by_id.insert(watch.next_id, suffix);
                watch.next_id += 1;
            }
            Announce::Restart { id, hops, cost } => {
                let suffix = watch.by_id.get(&id).expect("a number in use");
                assert!(hops.len() <= limits::HOPS);
                watch.live.insert(suffix.clone(), hops);
                watch.costs.insert(suffix.clone(), cost);
            }
            Announce::Ended { suffix } => {
                watch.live.remove(&suffix).expect("an end of something live");
            }
            Announce::EndedId { id } => {
                let suffix = watch.by_id.remove(&id).expect("a number in use");
                watch.live.remove(&suffix).expect("an end of something live");
            }
        }
    }
}
