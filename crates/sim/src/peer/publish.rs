//! Publishing half of a client: announces and serves its broadcasts.

use super::*;

/// A subscription of the relay.
pub(super) struct SimServed {
    pub(super) path: Path,
    id: u64,
    prefs: Prefs,
    /// First group sent, if any.
    from: Option<u64>,
    open: BTreeMap<u64, (Stream, u64, bool)>,
    ended: bool,
}

impl Peer {
    /// Announces a broadcast, or changes the cost of an announced one.
    pub fn publish(&mut self, t: &mut PairEnd, path: Path, content: SharedContent, cost: Cost) {
        self.broadcasts.insert(path.clone(), (content, cost));
        self.send_announces(t, &path);
    }

    /// Withdraws a broadcast and resets its open streams.
    pub fn withdraw(&mut self, t: &mut PairEnd, path: &Path) {
        self.broadcasts.remove(path);
        self.send_announces(t, path);
    }

    fn send_announces(&mut self, t: &mut PairEnd, path: &Path) {
        for at in 0..self.announcing.len() {
            self.send_announce(t, at, path);
        }
    }

    pub(super) fn send_announce(&mut self, t: &mut PairEnd, at: usize, path: &Path) {
        let version = self.version;
        let own: Hops = if version.has_announce_ok() { [].into() } else { [self.hop].into() };
        let announcing = &mut self.announcing[at];
        let Some(rest) = path.strip_prefix(&announcing.prefix) else { return };
        let suffix = Path::parse(rest).expect("part of a path");
        let cost = self.broadcasts.get(path).map(|(_, cost)| *cost);
        let told = announcing.advertised.get(path).copied();
        let mut out = Vec::new();
        match (cost, told) {
            (None, None) => return,
            (None, Some((id, _))) => {
                announcing.advertised.remove(path);
                match version.has_announce_ids() {
                    true => Announce::EndedId { id }.encode(version, &mut out),
                    false => Announce::Ended { suffix }.encode(version, &mut out),
                }
            }
            (Some(cost), None) => {
                announcing.advertised.insert(path.clone(), (announcing.next, cost));
                announcing.next += 1;
                Announce::Active { suffix, hops: own, cost }.encode(version, &mut out);
            }
            (Some(cost), Some((id, before))) if before != cost && version.has_announce_ids() => {
                announcing.advertised.insert(path.clone(), (id, cost));
                Announce::Restart { id, hops: own, cost }.encode(version, &mut out);
            }
            (Some(_), Some(_)) => return,
        }
        let stream = announcing.stream;
        self.write(t, stream, out);
    }

    pub(super) fn announce(&mut self, t: &mut PairEnd, stream: Stream, request: AnnounceRequest) {
        let at = self.announcing.len();
        self.announcing.push(AnnounceAnswer {
            stream,
            prefix: request.prefix,
            advertised: BTreeMap::new(),
            next: 0,
        });
        if self.version.has_announce_ok() {
            let mut out = Vec::new();
            AnnounceOk { hop: self.hop, count: self.broadcasts.len() as u64 }.encode(self.version, &mut out);
            self.write(t, stream, out);
        }
        for path in self.broadcasts.keys().cloned().collect::<Vec<_>>() {
            self.send_announce(t, at, &path);
        }
    }

    pub(super) fn describe(&mut self, t: &mut PairEnd, stream: Stream, request: &TrackRequest) {
        if !self.broadcasts.contains_key(&request.broadcast) || request.track.as_str() != TRACK {
            t.reset(stream, StreamCode::NOT_FOUND);
            return;
        }
        let mut out = Vec::new();
        TrackInfo::default().encode(self.version, &mut out);
        self.write(t, stream, out);
        self.finish(t, stream);
    }

    pub(super) fn accept(&mut self, t: &mut PairEnd, stream: Stream, request: Subscribe) -> bool {
        if !self.broadcasts.contains_key(&request.broadcast) {
            t.reset(stream, StreamCode::NOT_FOUND);
            return false;
        }
        if self.version.has_subscribe_ok() {
            let mut out = Vec::new();
            SubscribeResponse::Ok(SubscribeOk::default()).encode(self.version, &mut out);
            self.write(t, stream, out);
        }
        let Subscribe { id, broadcast, prefs, .. } = request;
        let open = BTreeMap::new();
        self.serving.insert(stream, SimServed { path: broadcast, id, prefs, from: None, open, ended: false });
        true
    }

    pub(super) fn updated(&mut self, stream: Stream, update: SubscribeUpdate) {
        if let Some(serving) = self.serving.get_mut(&stream) {
            serving.prefs = update.prefs;
        }
    }

    /// Ends a subscription cancelled by the relay.
    pub(super) fn unserve(&mut self, t: &mut PairEnd, stream: Stream) {
        let Some(serving) = self.serving.remove(&stream) else { return };
        for (group, _, done) in serving.open.values() {
            if !done {
                t.reset(*group, StreamCode::CANCEL);
                self.pending.remove(group);
            }
        }
        self.finish(t, stream);
    }

    pub(super) fn fetch(&mut self, t: &mut PairEnd, stream: Stream, request: &Fetch) {
        let content = self.broadcasts.get(&request.broadcast).map(|(content, _)| content.clone());
        let group = content.as_ref().and_then(|c| c.borrow().groups.get(&request.group).cloned());
        let (Some(content), Some(group)) = (content, group.filter(|group| group.finished)) else {
            t.reset(stream, StreamCode::NOT_FOUND);
            return;
        };
        let incarnation = content.borrow().incarnation;
        let mut out = Vec::new();
        for frame in 0..group.frames {
            put_frame(self.version, Name { incarnation, group: request.group, frame }, &mut out);
        }
        self.write(t, stream, out);
        self.finish(t, stream);
    }

    /// Sends new frames to all subscriptions.
    pub(super) fn serve(&mut self, t: &mut PairEnd) {
        for stream in self.serving.keys().copied().collect::<Vec<_>>() {
            let Some(mut serving) = self.serving.remove(&stream) else { continue };
            match self.broadcasts.get(&serving.path).map(|(content, _)| content.clone()) {
                Some(content) => {
                    self.serve_one(t, &mut serving, &content);
                    self.end_one(t, stream, &mut serving, &content);
                    self.serving.insert(stream, serving);
                }
                None => {
                    for (group, _, done) in serving.open.values().filter(|(_, _, done)| !done) {
                        debug_assert!(!done);
                        self.pending.remove(group);
                        t.reset(*group, StreamCode::CANCEL);
                    }
                    t.reset(stream, StreamCode::NOT_FOUND);
                }
            }
        }
    }

    fn serve_one(&mut self, t: &mut PairEnd, serving: &mut SimServed, content: &SharedContent) {
        let content = content.borrow();
        let Some(latest) = content.latest() else { return };
        let from = *serving.from.get_or_insert_with(|| {
            let oldest = content.groups.keys().next().copied().unwrap_or(latest);
            match serving.prefs.start {
                relay_model::Start::Latest => latest,
                relay_model::Start::Group(group) => group.max(oldest),
                // With a maximum age of seconds, all held groups are fresh.
                relay_model::Start::Fresh { floor } if serving.prefs.max_age_ms >= 1_000 => floor.max(oldest),
                relay_model::Start::Fresh { floor } => floor.max(latest),
            }
        });
        for (sequence, group) in content.groups.range(from..) {
            let first = match serving.prefs.start.floor() {
                Some(floor) if floor == *sequence && self.version.has_frame_ranges() => {
                    serving.prefs.start_frame
                }
                _ => 0,
            };
            if !serving.open.contains_key(sequence) {
                let Some(stream) = t.open(Dir::Uni, 0) else { return };
                let mut out = Vec::new();
                let header = Group { subscribe: serving.id, sequence: *sequence, first_frame: first };
                put_group_header(self.version, &header, &mut out);
                self.write(t, stream, out);
                serving.open.insert(*sequence, (stream, first, false));
            }
            let Some((stream, sent, done)) = serving.open.get_mut(sequence) else { continue };
            let (stream, mut out) = (*stream, Vec::new());
            while *sent < group.frames {
                let name = Name { incarnation: content.incarnation, group: *sequence, frame: *sent };
                put_frame(self.version, name, &mut out);
                *sent += 1;
            }
            let finishes = group.finished && !std::mem::replace(done, *done || group.finished);
            if !out.is_empty() {
                self.write(t, stream, out);
            }
            if finishes {
                self.finish(t, stream);
            }
        }
    }

    fn end_one(&mut self, t: &mut PairEnd, stream: Stream, serving: &mut SimServed, content: &SharedContent) {
        if !content.borrow().ended || std::mem::replace(&mut serving.ended, true) {
            return;
        }
        if !self.version.has_subscribe_ok() {
            let mut out = Vec::new();
            if let Some(from) = serving.from {
                SubscribeResponse::Start { group: from }.encode(self.version, &mut out);
            }
            SubscribeResponse::End { group: content.borrow().bound() }.encode(self.version, &mut out);
            self.write(t, stream, out);
        }
        self.finish(t, stream);
    }
}

/// Encodes a frame: its head (with a tick delta of 0) and its payload.
fn put_frame(version: Version, name: Name, out: &mut Vec<u8>) {
    let payload = name.payload();
    put_frame_head(version, 0, FrameHead { tick: Some(0), size: payload.len() as u64 }, out);
    out.extend_from_slice(&payload);
}
