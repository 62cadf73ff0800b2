//! What a peer publishes: its announces, and the tracks the relay asks it for.

use std::collections::HashSet;

use relay_model::{Ask, Epoch, Hop, LogId, Path, Prefs, StreamCode, TrackInfo, TrackName, Want};
use relay_store::{End, WriteError};
use relay_wire::{
    Error,
    lite::{self, BidiType, Message, SubscribeResponse},
    varint,
};

use crate::{
    inlet::{Ended, Inlet},
    requests::{NO_ERROR, Next, refuse},
    session::{Cx, Role, Session, Wanted},
    transport::{Dir, PRIORITY_CONTROL, Stream, Transport},
    upstream::{Opening, unclean},
};

/// Announces coming from the peer on one of our requests.
#[derive(Debug)]
pub(crate) struct Intake {
    /// Absolute prefix asked for.
    prefix: Path,
    sender: Option<Hop>,
    live: HashSet<Path, foldhash::fast::RandomState>,
}

/// An upstream track core wants.
pub(crate) struct Track {
    pub(crate) log: LogId,
    pub(crate) epoch: Epoch,
    pub(crate) path: Path,
    pub(crate) track: TrackName,
    pub(crate) prefs: Prefs,
    pub(crate) want: Want,
}

impl Session {
    // Announces of the peer.

    /// Opens what waits for stream credit.
    pub(crate) fn open_wanted<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        while let Some(wanted) = self.wanting.front().cloned() {
            let gone = match &wanted {
                Wanted::Announces(_) => false,
                Wanted::Track(log) | Wanted::Subscribe(log) => self.upstreams.get_mut(*log).is_none(),
            };
            if gone {
                self.wanting.pop_front();
                continue;
            }
            let Some(stream) = t.open(Dir::Bi, PRIORITY_CONTROL) else { return };
            self.wanting.pop_front();
            self.open_one(t, cx, stream, wanted);
        }
    }

    pub(crate) fn open_one<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        wanted: Wanted,
    ) {
        let version = self.config.version;
        let mut message = Vec::new();
        let role = match wanted {
            Wanted::Announces(prefix) => {
                let Some(grant) = &self.grant else { return };
                let relative = prefix.strip_prefix(&grant.root).and_then(|rest| Path::parse(rest).ok());
                let request = lite::AnnounceRequest {
                    prefix: relative.unwrap_or_else(Path::root),
                    exclude_hop: self.config.hop,
                };
                varint::put(BidiType::Announce.id(), &mut message);
                request.encode(version, &mut message);
                Role::Intake(
                    Inlet::default(),
                    Box::new(Intake { prefix, sender: None, live: HashSet::default() }),
                )
            }
            Wanted::Track(log) => {
                let Some(up) = self.upstreams.get_mut(log) else { return };
                up.track_stream = Some(stream);
                let request = lite::TrackRequest { broadcast: up.broadcast.clone(), track: up.track.clone() };
                varint::put(BidiType::Track.id(), &mut message);
                request.encode(version, &mut message);
                Role::TrackUp(Inlet::default(), log)
            }
            Wanted::Subscribe(log) => {
                let Some(up) = self.upstreams.get_mut(log) else { return };
                up.subscribe_stream = Some(stream);
                let request = lite::Subscribe {
                    id: up.wire_id,
                    broadcast: up.broadcast.clone(),
                    track: up.track.clone(),
                    prefs: up.prefs,
                };
                varint::put(BidiType::Subscribe.id(), &mut message);
                request.encode(version, &mut message);
                Role::SubscribeUp(Inlet::default(), log)
            }
        };
        self.streams.insert(stream, role);
        self.control.send(t, cx.now, stream, message);
    }

    pub(crate) fn read_intake<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut inlet: Inlet,
        mut intake: Box<Intake>,
    ) -> Next {
        loop {
            let more = inlet.fill(t, stream);
            loop {
                if !self.may_ask() {
                    self.hold_back(stream);
                    return Next::Keep(Role::Intake(inlet, intake));
                }
                match self.next_announce(cx, &mut inlet, &mut intake) {
                    Ok(true) => {}
                    Ok(false) => break,
                    Err(error) => {
                        self.violation(t, cx, &error.to_string());
                        return Next::Done;
                    }
                }
            }
            if !more {
                break;
            }
        }
        if inlet.end().is_none() {
            return Next::Keep(Role::Intake(inlet, intake));
        }
        for path in intake.live {
            self.ask(cx, Ask::Unannounce { path });
        }
        self.control.finish(t, cx.now, stream);
        Next::Done
    }

    pub(crate) fn next_announce(
        &mut self,
        cx: &mut Cx<'_>,
        inlet: &mut Inlet,
        intake: &mut Intake,
    ) -> Result<bool, Error> {
        let version = self.config.version;
        let Some(sender) = intake.sender else {
            let Some(ok) = inlet.inbox.next::<lite::AnnounceOk>(version)? else { return Ok(false) };
            intake.sender = Some(ok.hop);
            return Ok(true);
        };
        let Some(announce) = inlet.inbox.next::<lite::Announce>(version)? else { return Ok(false) };
        let path = intake.prefix.join(&announce.suffix)?;
        match announce.status {
            lite::Status::Active => {
                let mut hops = announce.hops.to_vec();
                hops.push(sender);
                if hops.first() == Some(&Hop::ANONYMOUS) {
                    hops.insert(0, self.config.stamp);
                }
                intake.live.insert(path.clone());
                self.ask(cx, Ask::Announce { path, hops: hops.into(), cost: 0 });
            }
            lite::Status::Ended => {
                if intake.live.remove(&path) {
                    self.ask(cx, Ask::Unannounce { path });
                }
            }
        }
        Ok(true)
    }

    // Subscriptions of ours.

    pub(crate) fn open_upstream<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, track: Track) {
        let Some(log) = cx.store.log(track.log) else { return };
        self.close_upstream(t, cx, track.log);
        let Some(writer) = log.writer(track.epoch) else { return };
        let root = self.grant.as_ref().map_or_else(Path::root, |grant| grant.root.clone());
        let Some(broadcast) = track.path.strip_prefix(&root).and_then(|rest| Path::parse(rest).ok()) else {
            return;
        };
        self.upstreams.insert(Opening {
            log: track.log,
            epoch: track.epoch,
            broadcast,
            track: track.track,
            prefs: track.prefs,
            want: track.want,
            writer,
        });
        self.wanting.push_back(Wanted::Track(track.log));
        if track.want == Want::Live {
            self.wanting.push_back(Wanted::Subscribe(track.log));
        }
        self.open_wanted(t, cx);
    }

    pub(crate) fn update_upstream<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        log: LogId,
        prefs: Prefs,
        want: Want,
    ) {
        let version = self.config.version;
        let Some(up) = self.upstreams.get_mut(log) else { return };
        let changed = up.prefs != prefs;
        up.prefs = prefs;
        if want > up.want {
            up.want = want;
            self.wanting.push_back(Wanted::Subscribe(log));
            self.open_wanted(t, cx);
        } else if let Some(stream) = up.subscribe_stream.filter(|_| changed && up.deadline().is_none()) {
            let mut message = Vec::new();
            lite::SubscribeUpdate { prefs }.encode(version, &mut message);
            self.control.send(t, cx.now, stream, message);
        }
    }

    /// Nobody reads the track any more.
    pub(crate) fn close_upstream<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, log: LogId) {
        let Some(up) = self.upstreams.remove(log) else { return };
        for stream in [up.track_stream, up.subscribe_stream].into_iter().flatten() {
            if self.streams.remove(&stream).is_some() {
                t.stop(stream, NO_ERROR);
                self.control.finish(t, cx.now, stream);
            }
        }
        self.drop_groups(t, log);
    }

    /// Refuses the groups of a track that is gone.
    pub(crate) fn drop_groups<T: Transport>(&mut self, t: &mut T, log: LogId) {
        self.streams.retain(|stream, role| {
            let gone =
                matches!(role, Role::Group(ingest) if ingest.target.is_some_and(|target| target.log == log));
            if gone {
                t.stop(*stream, StreamCode::CANCEL);
            }
            !gone
        });
    }

    /// The track ended, however: the log's last entry is written and core is told.
    pub(crate) fn end_upstream<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>, log: LogId, end: End) {
        let Some(up) = self.upstreams.get_mut(log) else { return };
        let epoch = up.epoch;
        up.writer.end(end);
        // A fenced writer's end is stale: core has moved the log.
        let ended = up.writer.commit(cx.now, cx.rings);
        self.close_upstream(t, cx, log);
        if ended != Err(WriteError::Fenced) {
            self.ask(cx, Ask::Ended { log, epoch });
        }
    }

    /// Ends tracks whose last groups have come, or were waited for long enough.
    pub(crate) fn end_upstreams<T: Transport>(&mut self, t: &mut T, cx: &mut Cx<'_>) {
        if self.upstreams.deadline().is_some() {
            for (log, end) in self.upstreams.ended(cx.now) {
                self.end_upstream(t, cx, log, end);
            }
        }
    }

    pub(crate) fn read_track_up<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut inlet: Inlet,
        log: LogId,
    ) -> Next {
        inlet.fill(t, stream);
        let info = match inlet.inbox.next::<TrackInfo>(self.config.version) {
            Ok(Some(info)) => info,
            Ok(None) => {
                let code = match inlet.end() {
                    None => return Next::Keep(Role::TrackUp(inlet, log)),
                    Some(Ended::Fin) => StreamCode::NOT_FOUND,
                    Some(Ended::Reset(code)) => code,
                };
                self.control.reset(t, stream, StreamCode::CANCEL);
                self.end_upstream(t, cx, log, unclean(code));
                return Next::Done;
            }
            Err(_) => {
                refuse(t, cx, stream, StreamCode::CANCEL);
                self.end_upstream(t, cx, log, unclean(StreamCode::MALFORMED_TRACK));
                return Next::Done;
            }
        };
        if let Some(up) = self.upstreams.get_mut(log) {
            up.track_stream = None;
            up.writer.info(info);
            self.is_dirty = true;
        }
        t.stop(stream, NO_ERROR);
        self.control.finish(t, cx.now, stream);
        Next::Done
    }

    pub(crate) fn read_subscribe_up<T: Transport>(
        &mut self,
        t: &mut T,
        cx: &mut Cx<'_>,
        stream: Stream,
        mut inlet: Inlet,
        log: LogId,
    ) -> Next {
        loop {
            let more = inlet.fill(t, stream);
            loop {
                let Some(up) = self.upstreams.get_mut(log) else { return Next::Done };
                match SubscribeResponse::next(&mut inlet.inbox, self.config.version) {
                    Ok(Some(SubscribeResponse::Start { group })) => up.start(group),
                    Ok(Some(SubscribeResponse::End { group })) => up.bound = Some(group),
                    Ok(Some(SubscribeResponse::Drop { start, end, code })) => {
                        up.dropped(start, end);
                        up.writer.dropped(start, end, code);
                        self.is_dirty = true;
                    }
                    Ok(None) => break,
                    Err(_) => {
                        refuse(t, cx, stream, StreamCode::CANCEL);
                        self.end_upstream(t, cx, log, unclean(StreamCode::MALFORMED_TRACK));
                        return Next::Done;
                    }
                }
            }
            if !more {
                break;
            }
        }
        let Some(up) = self.upstreams.get_mut(log) else { return Next::Done };
        match inlet.end() {
            None => return Next::Keep(Role::SubscribeUp(inlet, log)),
            Some(Ended::Fin) if up.bound.is_some() => {
                up.finish(cx.now);
                up.subscribe_stream = None;
                self.control.finish(t, cx.now, stream);
                self.end_upstreams(t, cx);
            }
            Some(Ended::Fin) => {
                self.control.finish(t, cx.now, stream);
                self.end_upstream(t, cx, log, unclean(StreamCode::CANCEL));
            }
            Some(Ended::Reset(code)) => {
                self.control.finish(t, cx.now, stream);
                self.end_upstream(t, cx, log, unclean(code));
            }
        }
        Next::Done
    }
}
