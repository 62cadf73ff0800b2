//! Decoder invariants that must hold for any input, as functions that panic on a violation. Shared by the
//! fuzz targets and the tests that replay their findings.

use std::fmt::Debug;

use bytes::Bytes;
use relay_model::{Path, TrackInfo};

use crate::{
    DecodeError, MessageBuf,
    lite::{
        Announce, AnnounceInit, AnnounceOk, AnnounceRequest, Datagram, Fetch, Goaway, Group, GroupEvent,
        GroupReader, Message, Probe, Setup, Subscribe, SubscribeResponse, SubscribeUpdate, TrackRequest,
        Version,
        legacy::{self, ClientSetup, ServerSetup, SessionInfo},
        put_frame_head, put_group_header,
    },
};

/// Panics when the input violates an invariant.
pub type Check = fn(&[u8]);

/// Decoder families, by the name of their fuzz target.
pub const FAMILIES: &[(&str, Check)] =
    &[("control", control), ("group", group), ("datagram", datagram), ("path", path)];

/// Checks the input as a body of every message type, and as a message stream, in every version.
pub fn control(data: &[u8]) {
    assert_eq!(messages(&[data]), messages(&bytewise(data)));
    setups(data);
    for version in Version::every() {
        body::<Setup>(version, data);
        body::<AnnounceRequest>(version, data);
        body::<AnnounceOk>(version, data);
        body::<AnnounceInit>(version, data);
        body::<SessionInfo>(version, data);
        body::<Subscribe>(version, data);
        body::<SubscribeUpdate>(version, data);
        body::<TrackRequest>(version, data);
        body::<TrackInfo>(version, data);
        body::<Fetch>(version, data);
        body::<Probe>(version, data);
        body::<Goaway>(version, data);
        body::<Group>(version, data);
        typed(version, data, SubscribeResponse::next, SubscribeResponse::encode);
        typed(version, data, Announce::next, Announce::encode);
    }
}

/// Checks the input as the legacy SETUP exchange, from either side.
fn setups(data: &[u8]) {
    let client = drain(&[data], ClientSetup::next);
    assert_eq!(client, drain(&bytewise(data), ClientSetup::next));
    for setup in &client.0 {
        let mut out = Vec::new();
        setup.encode(&mut out);
        // `next` expects the bytes after the stream type.
        assert_eq!(out.remove(0), legacy::CLIENT_SETUP as u8);
        assert_eq!(drain(&[&out], ClientSetup::next).0, std::slice::from_ref(setup));
        assert!(setup.choose().is_none_or(Version::has_legacy_setup));
    }
    let server = drain(&[data], ServerSetup::next);
    assert_eq!(server, drain(&bytewise(data), ServerSetup::next));
    let mut out = Vec::new();
    server.0.iter().for_each(|setup| setup.encode(&mut out));
    assert_eq!(drain(&[&out], ServerSetup::next), (server.0, None));
}

/// Checks the input as a group stream after its type, and as the response to a FETCH.
pub fn group(data: &[u8]) {
    for version in Version::every() {
        for start in [GroupReader::new, GroupReader::frames] {
            let whole = events(start(version), &[data]);
            assert_eq!(whole, events(start(version), &bytewise(data)));
            resent(version, &whole.0);
        }
    }
}

/// Checks the input as a datagram.
pub fn datagram(data: &[u8]) {
    for version in Version::every() {
        if let Ok(datagram) = Datagram::decode(version, Bytes::copy_from_slice(data)) {
            let mut out = Vec::new();
            datagram.encode(version, &mut out);
            assert!(out.len() <= data.len());
            assert_eq!(Datagram::decode(version, out.into()), Ok(datagram));
        }
    }
}

/// Checks the input as a path, and as two joined paths.
pub fn path(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(path) = Path::parse(text) else { return };
    assert_eq!(Path::parse(path.as_str()).as_ref(), Ok(&path));
    assert!(
        !path.as_str().contains("//") && !path.as_str().starts_with('/') && !path.as_str().ends_with('/')
    );
    assert!(path.has_prefix(&path) && path.has_prefix(&Path::root()));
    let (head, tail) = text.split_once('/').unwrap_or((text, ""));
    if let (Ok(head), Ok(tail)) = (Path::parse(head), Path::parse(tail)) {
        assert_eq!(head.join(&tail).as_ref(), Ok(&path));
        assert_eq!(path.strip_prefix(&head), Some(tail.as_str()));
    }
}

/// Checks that a message that decodes survives encoding and decoding.
fn body<M: Message + PartialEq + Debug>(version: Version, data: &[u8]) {
    let Ok(message) = M::decode(version, data) else { return };
    let (mut inbox, mut out) = (MessageBuf::new(), Vec::new());
    message.encode(version, &mut out);
    inbox.push(&out);
    assert_eq!(inbox.next::<M>(version), Ok(Some(message)));
    assert!(inbox.is_empty());
}

/// Checks the same for a stream of messages that may have a type before the size, whole and byte by byte.
fn typed<M: PartialEq + Debug>(
    version: Version,
    data: &[u8],
    next: fn(&mut MessageBuf, Version) -> Result<Option<M>, DecodeError>,
    encode: fn(&M, Version, &mut Vec<u8>),
) {
    let whole = drain(&[data], |inbox| next(inbox, version));
    assert_eq!(whole, drain(&bytewise(data), |inbox| next(inbox, version)));
    let mut out = Vec::new();
    whole.0.iter().for_each(|message| encode(message, version, &mut out));
    assert_eq!(drain(&[&out], |inbox| next(inbox, version)), (whole.0, None));
}

fn bytewise(data: &[u8]) -> Vec<&[u8]> {
    data.chunks(1).collect()
}

/// Collects what `take` returns, and the error that ended it.
fn drain<T>(
    pieces: &[&[u8]],
    mut take: impl FnMut(&mut MessageBuf) -> Result<Option<T>, DecodeError>,
) -> (Vec<T>, Option<DecodeError>) {
    let (mut inbox, mut all) = (MessageBuf::new(), Vec::new());
    for piece in pieces {
        inbox.push(piece);
        loop {
            match take(&mut inbox) {
                Ok(Some(item)) => all.push(item),
                Ok(None) => break,
                Err(error) => return (all, Some(error)),
            }
        }
    }
    (all, None)
}

fn messages(pieces: &[&[u8]]) -> (Vec<Bytes>, Option<DecodeError>) {
    drain(pieces, MessageBuf::next_message)
}

/// Collects all events with payload pieces joined, the error, and whether a FIN would be clean.
fn events(mut reader: GroupReader, pieces: &[&[u8]]) -> (Vec<GroupEvent>, Option<DecodeError>, bool) {
    let mut all: Vec<GroupEvent> = Vec::new();
    let mut payload = Vec::new();
    for piece in pieces {
        let mut input = Bytes::copy_from_slice(piece);
        loop {
            match reader.next(&mut input) {
                Ok(Some(GroupEvent::Payload(piece))) => {
                    assert!(!piece.is_empty());
                    payload.extend_from_slice(&piece);
                }
                Ok(Some(event)) => {
                    close_payload(&mut payload, &mut all);
                    all.push(event);
                }
                Ok(None) => {
                    assert!(input.is_empty());
                    break;
                }
                Err(error) => {
                    close_payload(&mut payload, &mut all);
                    return (all, Some(error), reader.at_boundary());
                }
            }
        }
    }
    close_payload(&mut payload, &mut all);
    (all, None, reader.at_boundary())
}

fn close_payload(payload: &mut Vec<u8>, all: &mut Vec<GroupEvent>) {
    if !payload.is_empty() {
        all.push(GroupEvent::Payload(std::mem::take(payload).into()));
    }
}

/// Checks that received events can be re-encoded and decode to the same events.
fn resent(version: Version, received: &[GroupEvent]) {
    let (mut out, mut previous, mut header) = (Vec::new(), 0, false);
    for event in received {
        match event {
            GroupEvent::Header(group) => {
                header = true;
                put_group_header(version, group, &mut out);
                out.remove(0);
            }
            GroupEvent::Frame(head) => {
                put_frame_head(version, previous, *head, &mut out);
                previous = head.tick.unwrap_or(previous);
            }
            GroupEvent::Payload(payload) => out.extend_from_slice(payload),
        }
    }
    let start = if header { GroupReader::new } else { GroupReader::frames };
    assert_eq!(events(start(version), &[&out]).0, received);
}
