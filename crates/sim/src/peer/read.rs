//! Reading half of a client: requests and responses of the relay.

use super::*;

impl Peer {
    pub(super) fn read(&mut self, t: &mut PairEnd, stream: Stream, now: Instant) {
        let Some(mut role) = self.roles.remove(&stream) else { return };
        loop {
            // Single bytes up to the stream type, so that the bytes after it stay in order.
            let max = if matches!(role, StreamPurpose::Header(_)) { 1 } else { 64 * 1024 };
            match t.read(stream, max) {
                Ok(Some(bytes)) => role = self.receive(t, stream, role, bytes, now),
                Ok(None) => return self.over(t, stream, role, None),
                Err(ReadError::Blocked) => break,
                Err(ReadError::Reset(code)) => return self.over(t, stream, role, Some(code)),
                Err(ReadError::Gone) => return self.over(t, stream, role, Some(StreamCode::CANCEL)),
            }
        }
        self.roles.insert(stream, role);
    }

    fn receive(
        &mut self,
        t: &mut PairEnd,
        stream: Stream,
        role: StreamPurpose,
        bytes: Bytes,
        now: Instant,
    ) -> StreamPurpose {
        match role {
            StreamPurpose::Deaf => StreamPurpose::Deaf,
            StreamPurpose::Header(mut inbox) => {
                inbox.push(&bytes);
                match inbox.next_varint().map(|kind| UniType::from_id(self.version, kind)) {
                    None => StreamPurpose::Header(inbox),
                    Some(Some(UniType::Group)) => {
                        let reader = Box::new(GroupReader::new(self.version));
                        StreamPurpose::Group { reader, to: None, payload: Vec::new() }
                    }
                    Some(_) => StreamPurpose::Deaf,
                }
            }
            StreamPurpose::Request(mut inbox, mut kind) => {
                inbox.push(&bytes);
                if kind.is_none() {
                    kind = inbox.next_varint().and_then(|id| BidiType::from_id(self.version, id));
                }
                match kind {
                    Some(kind) => self.request(t, stream, inbox, kind),
                    None => StreamPurpose::Request(inbox, None),
                }
            }
            StreamPurpose::Serve(mut inbox) => {
                inbox.push(&bytes);
                while let Some(update) = inbox.next(self.version).expect("an update of the relay") {
                    self.updated(stream, update);
                }
                StreamPurpose::Serve(inbox)
            }
            StreamPurpose::Group { mut reader, mut to, mut payload } => {
                self.group(&mut reader, &mut to, &mut payload, bytes, now);
                StreamPurpose::Group { reader, to, payload }
            }
            StreamPurpose::Watch { mut inbox, mut greeted, mut next, mut ids } => {
                inbox.push(&bytes);
                self.announces(&mut inbox, &mut greeted, &mut next, &mut ids, now);
                StreamPurpose::Watch { inbox, greeted, next, ids }
            }
            StreamPurpose::Sub(mut inbox, at) => {
                inbox.push(&bytes);
                while let Some(response) =
                    SubscribeResponse::next(&mut inbox, self.version).expect("a response of the relay")
                {
                    if let SubscribeResponse::End { group } = response {
                        self.subs[at].bound = Some(group);
                    }
                }
                StreamPurpose::Sub(inbox, at)
            }
        }
    }

    fn request(
        &mut self,
        t: &mut PairEnd,
        stream: Stream,
        mut inbox: MessageBuf,
        kind: BidiType,
    ) -> StreamPurpose {
        let version = self.version;
        let heard = match kind {
            BidiType::Announce => inbox.next(version).map(|request| {
                request.map(|request| {
                    self.announce(t, stream, request);
                    StreamPurpose::Deaf
                })
            }),
            BidiType::Track => inbox.next(version).map(|request| {
                request.map(|request: TrackRequest| {
                    self.describe(t, stream, &request);
                    StreamPurpose::Deaf
                })
            }),
            BidiType::Fetch => inbox.next(version).map(|request| {
                request.map(|request: Fetch| {
                    self.fetch(t, stream, &request);
                    StreamPurpose::Deaf
                })
            }),
            BidiType::Subscribe => inbox.next(version).map(|request| {
                request.map(|request: Subscribe| match self.accept(t, stream, request) {
                    true => StreamPurpose::Serve(MessageBuf::new()),
                    false => StreamPurpose::Deaf,
                })
            }),
            BidiType::Probe | BidiType::Goaway => Ok(Some(StreamPurpose::Deaf)),
        };
        let role = heard.expect("a request of the relay");
        role.unwrap_or(StreamPurpose::Request(inbox, Some(kind)))
    }

    fn announces(
        &mut self,
        inbox: &mut MessageBuf,
        greeted: &mut bool,
        next: &mut u64,
        ids: &mut BTreeMap<u64, Path>,
        now: Instant,
    ) {
        if self.version.has_announce_ok() && !*greeted {
            let Some(_) = inbox.next::<AnnounceOk>(self.version).expect("a greeting") else { return };
            *greeted = true;
        }
        while let Some(announce) = Announce::next(inbox, self.version).expect("an announce of the relay") {
            let (path, update) = match announce {
                Announce::Active { suffix, hops, .. } => {
                    let id = *next;
                    *next += 1;
                    ids.insert(id, suffix.clone());
                    let before = self.live.insert(suffix.clone(), AnnouncedRoute { hops, id });
                    if before.is_some() && self.version != Version::V05 {
                        self.record_violation(format!("{suffix} announced while live"));
                    }
                    (suffix, if before.is_some() { Update::Rerouted } else { Update::Announced })
                }
                Announce::Restart { id, hops, .. } => {
                    let Some(path) = ids.get(&id).cloned() else {
                        self.record_violation(format!("restart of unknown announce {id}"));
                        continue;
                    };
                    self.live.insert(path.clone(), AnnouncedRoute { hops, id });
                    (path, Update::Rerouted)
                }
                Announce::Ended { suffix } => (suffix, Update::Withdrawn),
                Announce::EndedId { id } => {
                    let Some(path) = ids.remove(&id) else {
                        self.record_violation(format!("end of unknown announce {id}"));
                        continue;
                    };
                    (path, Update::Withdrawn)
                }
            };
            if update == Update::Withdrawn && self.live.remove(&path).is_none() {
                self.record_violation(format!("end of {path}, which is not live"));
            }
            self.updates.push((now, path, update));
        }
    }

    fn group(
        &mut self,
        reader: &mut GroupReader,
        to: &mut Option<(usize, u64)>,
        payload: &mut Vec<u8>,
        mut bytes: Bytes,
        now: Instant,
    ) {
        while let Some(event) = reader.next(&mut bytes).expect("a group of the relay") {
            match event {
                GroupEvent::Header(Group { subscribe, sequence, first_frame }) => {
                    let Some(at) = self.subs.iter().position(|sub| sub.id == subscribe) else { continue };
                    *to = Some((at, sequence));
                    let sub = &mut self.subs[at];
                    if sub.groups.contains_key(&sequence) {
                        let what = format!("group {sequence} of {} came twice", sub.path);
                        self.record_violation(what);
                        continue;
                    }
                    sub.groups.insert(sequence, GroupIn { frames: first_frame, end: None });
                }
                GroupEvent::Frame(_) => payload.clear(),
                GroupEvent::Payload(piece) => payload.extend_from_slice(&piece),
            }
            let Some(name) = Name::of(payload) else { continue };
            payload.clear();
            if let Some((at, sequence)) = *to {
                self.frame(at, sequence, name, now);
            }
        }
    }

    fn frame(&mut self, at: usize, sequence: u64, name: Name, now: Instant) {
        let sub = &mut self.subs[at];
        let Some(group) = sub.groups.get_mut(&sequence) else { return };
        let incarnation = *sub.incarnation.get_or_insert(name.incarnation);
        sub.last = Some(now);
        let expected = Name { incarnation, group: sequence, frame: group.frames };
        group.frames += 1;
        if name != expected {
            let what = format!("{}: {name:?} where {expected:?} was due", sub.path);
            self.record_violation(what);
        }
    }

    fn over(&mut self, t: &mut PairEnd, stream: Stream, role: StreamPurpose, code: Option<StreamCode>) {
        match role {
            StreamPurpose::Group { reader, to: Some((at, sequence)), .. } => {
                if code.is_none() && !reader.at_boundary() {
                    self.record_violation(format!("group {sequence} ended between frames"));
                }
                if let Some(group) = self.subs[at].groups.get_mut(&sequence) {
                    group.end = Some(code);
                }
            }
            StreamPurpose::Sub(_, at) => {
                let sub = &mut self.subs[at];
                let clean = code.is_none() && (sub.bound.is_some() || self.version.has_subscribe_ok());
                sub.end = Some(if clean { None } else { Some(code.unwrap_or(StreamCode::CANCEL)) });
                self.finish(t, stream);
            }
            StreamPurpose::Serve(_) => self.unserve(t, stream),
            StreamPurpose::Watch { .. } => {
                self.record_violation(format!("an announce stream ended: {code:?}"))
            }
            StreamPurpose::Request(..) => t.reset(stream, StreamCode::CANCEL),
            StreamPurpose::Group { .. } | StreamPurpose::Header(_) | StreamPurpose::Deaf => {}
        }
    }
}
