//! Captured sessions of deployed peers (a Rust relay and a Rust client) are parsed at both ends.
//!
//! The files hold the messages or records of each session, and the stream contents determined by the recorder.

use relay_model::{
    SessionCode, StreamCode,
    transport::{Dir, TransportClosed},
};

use super::*;
use crate::qmux::websocket::{self, Sent};

/// Streams of each direction that each end opens in advance, since some received frames respond to them.
const STREAMS: usize = 32;

struct Session {
    kind: (QmuxFraming, QmuxCarrier),
    client: QmuxConnection,
    server: QmuxConnection,
    now: Instant,
    closes: Vec<(bool, TransportClosed)>,
}

impl Session {
    fn new(kind: &str) -> Self {
        let kind = match kind {
            "webtransport" => (QmuxFraming::Legacy, QmuxCarrier::WebSocket),
            "qmux-00" => (QmuxFraming::Qmux00, QmuxCarrier::WebSocket),
            "qmux-01" => (QmuxFraming::Qmux01, QmuxCarrier::WebSocket),
            "tcp" => (QmuxFraming::Qmux01, QmuxCarrier::Bytes),
            other => panic!("{other}"),
        };
        let server = QmuxConfig::new(kind.0, kind.1);
        let client = QmuxConfig { is_client: true, ..server.clone() };
        let Ends { client, server, now, .. } = Ends::of(client, server, 1);
        let mut session = Self { kind, client, server, now, closes: Vec::new() };
        session.open();
        session
    }

    /// Opens the streams of an end once it has the peer's transport parameters.
    fn open(&mut self) {
        for end in [&mut self.client, &mut self.server] {
            // Only the first event is taken here.
            if end.streams.live() == (0, 0) && end.poll() == Some(TransportEvent::Ready) {
                for dir in [Dir::Bi, Dir::Uni] {
                    for _ in 0..STREAMS {
                        end.open(dir, 0);
                    }
                }
            }
        }
    }

    fn receiver(&mut self, dir: &str) -> &mut QmuxConnection {
        if dir == "c2r" { &mut self.server } else { &mut self.client }
    }

    fn feed(&mut self, dir: &str, unit: &[u8]) {
        let mut wire = Vec::new();
        if self.kind.1 == QmuxCarrier::WebSocket {
            let mask = (dir == "c2r").then_some([1, 2, 3, 4]);
            websocket::put_head(Sent::Message, unit.len(), mask, &mut wire);
            let start = wire.len();
            wire.extend_from_slice(unit);
            mask.into_iter().for_each(|key| websocket::unmask(&mut wire[start..], key, 0));
        } else {
            wire.extend_from_slice(unit);
        }
        let now = self.now;
        for byte in wire.chunks(3) {
            self.receiver(dir).receive(now, byte);
        }
        self.open();
    }

    /// Checks the content and the end of a stream.
    fn check(&mut self, dir: &str, stream: &str, end: &str, data: &str) {
        let (got, ended) = take(self.receiver(dir), Stream(stream.parse().unwrap()));
        let expected = match end {
            "fin" => Ok(()),
            "open" => Err(ReadError::Blocked),
            code => Err(ReadError::Reset(StreamCode(code.parse().unwrap()))),
        };
        assert_eq!(ended, expected, "{dir} {stream}");
        if !matches!(ended, Err(ReadError::Reset(_))) {
            assert_eq!(got, bytes(data), "{dir} {stream}");
        }
    }

    fn finish(mut self) {
        for dir in ["c2r", "r2c"] {
            let is_server = dir == "c2r";
            let told = events(self.receiver(dir)).into_iter().find_map(|event| match event {
                TransportEvent::Closed(closed) => Some(closed),
                _ => None,
            });
            let said = self.closes.iter().find(|(by_client, _)| *by_client == is_server);
            assert_eq!(told.as_ref(), said.map(|(_, closed)| closed), "{dir}");
        }
    }
}

fn bytes(hex: &str) -> Vec<u8> {
    let digit = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
    (0..hex.len()).step_by(2).map(digit).collect()
}

fn replay(capture: &str) -> usize {
    let mut sessions = 0;
    let mut session: Option<Session> = None;
    for line in capture.lines() {
        let words: Vec<&str> = line.splitn(5, ' ').collect();
        if let ["session", kind] = words[..] {
            session.take().into_iter().for_each(Session::finish);
            session = Some(Session::new(kind));
            sessions += 1;
            continue;
        }
        let session = session.as_mut().unwrap();
        match words[..] {
            [dir @ ("c2r" | "r2c"), unit] => session.feed(dir, &bytes(unit)),
            ["stream", dir, stream, end, data] => session.check(dir, stream, end, data),
            ["datagram", dir, data] => {
                assert_eq!(session.receiver(dir).recv_datagram().unwrap(), bytes(data));
            }
            ["close", dir, code, _, reason] => {
                let closed = TransportClosed::ByPeer(SessionCode(code.parse().unwrap()), reason.to_owned());
                session.closes.push((dir == "c2r", closed));
            }
            _ => panic!("{line}"),
        }
    }
    session.take().into_iter().for_each(Session::finish);
    sessions
}

#[test]
fn captured_sessions_are_parsed() {
    for capture in [
        include_str!("captures/qmux-01.txt"),
        include_str!("captures/qmux-00.txt"),
        include_str!("captures/webtransport.txt"),
        include_str!("captures/tcp.txt"),
    ] {
        assert_eq!(replay(capture), 2);
    }
}
