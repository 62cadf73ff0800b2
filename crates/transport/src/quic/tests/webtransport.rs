//! WebTransport sessions with a minimal test client.

use relay_model::{SessionCode, StreamCode, transport::TransportClosed};
use web_transport_proto::{Capsule, ConnectRequest, ConnectResponse, Frame, Setting, Settings, VarInt};

use super::*;

const URL: &str = "https://localhost/live/../room?jwt=a%2Fb";
const LITE: &[&str] = &["moq-lite-06", "moq-lite-05"];

pub(super) fn settings() -> Vec<u8> {
    let mut settings = Settings::default();
    settings.enable_webtransport(1);
    let mut out = Vec::new();
    settings.encode(&mut out);
    out
}

pub(super) fn connect_request(protocols: &[&str]) -> Vec<u8> {
    let request = ConnectRequest::new(url::Url::parse(URL).unwrap())
        .with_protocols(protocols.iter().map(|name| (*name).to_owned()))
        .with_header("origin".parse().unwrap(), "https://app.example".parse().unwrap());
    let mut out = Vec::new();
    request.encode(&mut out).unwrap();
    out
}

pub(super) fn prefix(stream_type: u32, session: Stream) -> Vec<u8> {
    let mut out = Vec::new();
    VarInt::from_u32(stream_type).encode(&mut out);
    VarInt::from_u64(session.0).unwrap().encode(&mut out);
    out
}

fn capsule(capsule: &Capsule) -> Vec<u8> {
    let mut body = Vec::new();
    capsule.encode(&mut body);
    let mut out = Vec::new();
    Frame::DATA.encode(&mut out);
    VarInt::from_u32(body.len() as u32).encode(&mut out);
    out.extend(body);
    out
}

/// Test client that sends the same bytes as a browser.
struct Browser {
    pair: Pair,
    client: ConnKey,
    server: ConnKey,
    connect: Stream,
}

impl Browser {
    /// Creates a QUIC connection on which nothing was sent.
    fn silent() -> Self {
        Self::silent_with(Pair::new())
    }

    fn silent_with(mut pair: Pair) -> Self {
        let (client, server) = pair.connect(&["h3"]);
        assert_eq!(pair.client_events(client)[0], TransportEvent::Ready);
        let connect = pair.client.conn(client).open(Dir::Bi, 0).unwrap();
        Self { pair, client, server, connect }
    }

    /// Creates a connection with an accepted session.
    fn ready() -> Self {
        let mut browser = Self::silent();
        browser.send_uni(&settings());
        browser.request(LITE);
        browser.pair.settle();
        assert_eq!(browser.pair.server_events(browser.server), [TransportEvent::Ready]);
        let connect = browser.connect;
        let (bytes, _) = read_all(browser.us(), connect);
        let response = ConnectResponse::decode(&mut bytes.as_slice()).unwrap();
        assert_eq!(response.protocol.as_deref(), Some("moq-lite-06"));
        browser
    }

    fn us(&mut self) -> &mut QuicConnection {
        self.pair.client.conn(self.client)
    }

    fn relay(&mut self) -> &mut QuicConnection {
        self.pair.server.conn(self.server)
    }

    fn events(&mut self) -> Vec<TransportEvent> {
        self.pair.settle();
        self.pair.server_events(self.server)
    }

    fn send_uni(&mut self, bytes: &[u8]) -> Stream {
        let stream = self.us().open(Dir::Uni, 0).unwrap();
        write_all(self.us(), stream, bytes);
        stream
    }

    fn send_bidi(&mut self, bytes: &[u8]) -> Stream {
        let stream = self.us().open(Dir::Bi, 0).unwrap();
        write_all(self.us(), stream, bytes);
        stream
    }

    fn request(&mut self, protocols: &[&str]) {
        let connect = self.connect;
        write_all(self.us(), connect, &connect_request(protocols));
    }

    /// Returns the decoding error of a refusal, which contains its `:status`.
    fn refusal(&mut self, stream: Stream) -> String {
        // A session ignores events of unknown streams.
        let events = self.events();
        assert!(events.iter().all(|event| *event == TransportEvent::Readable(stream)), "{events:?}");
        self.pair.settle();
        let (bytes, end) = read_all(self.us(), stream);
        assert_eq!(end, Ok(()), "the answer is whole");
        ConnectResponse::decode(&mut bytes.as_slice()).unwrap_err().to_string()
    }
}

#[test]
fn settings_are_those_browsers_accept() {
    let mut browser = Browser::silent();
    browser.pair.settle();
    let events = browser.pair.client_events(browser.client);
    let control = opened(&events, Dir::Uni);
    // It may have been reported during the handshake already.
    let control = control.first().copied().unwrap_or(Stream(3));
    let (bytes, _) = read_all(browser.us(), control);
    let settings = Settings::decode(&mut bytes.as_slice()).unwrap();
    let get = |id: u64| settings.get(&Setting(VarInt::from_u64(id).unwrap())).map(|value| value.into_inner());
    for (id, value) in [
        (0x8, 1),
        (0x33, 1),
        (0xff_d277, 1),
        (0x2b60_3742, 1),
        (0x2b60_3743, 1),
        (0xc671_706a, 1),
        (0x6, 16_384),
    ] {
        assert_eq!(get(id), Some(value), "{id:#x}");
    }
    assert_eq!(get(0x14e9_cd29), None, "Safari would demand flow-control capsules");
    assert_eq!(settings.len(), 7);
}

#[test]
fn a_session_knows_its_target_origin_and_protocol() {
    let mut browser = Browser::ready();
    let conn = browser.relay();
    assert!(conn.layer().is_webtransport());
    assert_eq!(conn.layer().protocol(), Some("moq-lite-06"));
    // The test's URL type resolves the dot segments before sending.
    assert_eq!(conn.layer().target(), Some("/room?jwt=a%2Fb"));
    assert_eq!(conn.layer().origin(), Some("https://app.example"));
}

#[test]
fn the_first_offer_we_speak_is_taken() {
    let mut browser = Browser::silent();
    browser.send_uni(&settings());
    browser.request(&["h3", "moqt-18", "moq-lite-05", "moq-lite-04"]);
    assert_eq!(browser.events(), [TransportEvent::Ready]);
    assert_eq!(browser.relay().layer().protocol(), Some("moq-lite-05"), "not our newest, the client's first");
}

#[test]
fn connect_without_protocols_is_accepted_as_moql() {
    let mut browser = Browser::silent();
    browser.send_uni(&settings());
    browser.request(&[]);
    assert_eq!(browser.events(), [TransportEvent::Ready]);
    assert_eq!(browser.relay().layer().protocol(), Some("moql"));
    let mut browser = Browser::silent();
    browser.send_uni(&settings());
    browser.request(&["moqt-18", "moql"]);
    assert_eq!(browser.events(), [TransportEvent::Ready]);
    assert_eq!(browser.relay().layer().protocol(), Some("moql"));
    // An offer of unsupported protocols only is refused.
    let mut browser = Browser::silent();
    browser.send_uni(&settings());
    browser.request(&["moqt-18"]);
    let connect = browser.connect;
    assert_eq!(browser.refusal(connect), "expected 200, got: Some(400)");
}

#[test]
fn an_offer_we_are_not_to_speak_is_passed_over() {
    let mut browser = Browser::silent_with(Pair::speaking(&[relay_wire::lite::Version::V04.into()]));
    browser.send_uni(&settings());
    browser.request(&["moq-lite-06", "moq-lite-05", "moq-lite-04", "moq-lite-03"]);
    assert_eq!(browser.events(), [TransportEvent::Ready]);
    assert_eq!(browser.relay().layer().protocol(), Some("moq-lite-04"));
}

#[test]
fn streams_carry_their_prefix_both_ways() {
    let mut browser = Browser::ready();
    let connect = browser.connect;
    for (dir, kind) in [(Dir::Bi, 0x41), (Dir::Uni, 0x54)] {
        let up = if dir == Dir::Bi {
            browser.send_bidi(&prefix(kind, connect))
        } else {
            browser.send_uni(&prefix(kind, connect))
        };
        write_all(browser.us(), up, b"hello");
        browser.us().finish(up);
        assert_eq!(browser.events(), [TransportEvent::Opened(up, dir)]);
        assert_eq!(read_all(browser.relay(), up), (b"hello".to_vec(), Ok(())));

        let down = browser.relay().open(dir, 0).unwrap();
        write_all(browser.relay(), down, b"there");
        browser.relay().finish(down);
        browser.pair.settle();
        let expected = [prefix(kind, connect), b"there".to_vec()].concat();
        assert_eq!(read_all(browser.us(), down), (expected, Ok(())));
    }
}

#[test]
fn a_prefix_may_come_byte_by_byte() {
    let mut browser = Browser::ready();
    let connect = browser.connect;
    let stream = browser.us().open(Dir::Bi, 0).unwrap();
    let bytes = prefix(0x41, connect);
    for byte in &bytes[..bytes.len() - 1] {
        write_all(browser.us(), stream, &[*byte]);
        assert_eq!(browser.events(), []);
    }
    write_all(browser.us(), stream, &bytes[bytes.len() - 1..]);
    assert_eq!(browser.events(), [TransportEvent::Opened(stream, Dir::Bi)]);
    assert_eq!(browser.relay().read(stream, 1), Err(ReadError::Blocked));
    write_all(browser.us(), stream, b"z");
    assert_eq!(browser.events(), [TransportEvent::Readable(stream)]);
    assert_eq!(browser.relay().read(stream, 9), Ok(Some(Bytes::from_static(b"z"))));
}

#[test]
fn stream_codes_survive() {
    let mut browser = Browser::ready();
    let connect = browser.connect;
    let stream = browser.send_bidi(&[prefix(0x41, connect), b"x".to_vec()].concat());
    assert_eq!(browser.events(), [TransportEvent::Opened(stream, Dir::Bi)]);
    browser.us().reset(stream, StreamCode::EVICTED);
    browser.us().stop(stream, StreamCode::OLD);
    let events = browser.events();
    assert!(events.contains(&TransportEvent::Stopped(stream, StreamCode::OLD)), "{events:?}");
    assert_eq!(browser.relay().read(stream, 9), Err(ReadError::Reset(StreamCode::EVICTED)));
    browser.relay().reset(stream, StreamCode::CANCEL);
}

#[test]
fn datagrams_name_their_session() {
    let mut browser = Browser::ready();
    let max = browser.relay().max_datagram();
    assert_eq!(max, browser.us().max_datagram() - 1);
    browser.us().send_datagram(Bytes::from_static(b"\x00hi")).unwrap();
    browser.us().send_datagram(Bytes::from_static(b"\x07not ours")).unwrap();
    browser.us().send_datagram(Bytes::new()).unwrap();
    assert_eq!(browser.events(), [TransportEvent::Datagram]);
    assert_eq!(browser.relay().recv_datagram(), Some(Bytes::from_static(b"hi")));
    assert_eq!(browser.relay().recv_datagram(), None);
    browser.relay().send_datagram(Bytes::from(vec![1; max])).unwrap();
    browser.relay().send_datagram(Bytes::from_static(b"back")).unwrap();
    browser.pair.settle();
    assert_eq!(browser.us().recv_datagram().map(|datagram| datagram.len()), Some(max + 1));
    assert_eq!(browser.us().recv_datagram(), Some(Bytes::from_static(b"\x00back")));
}

#[test]
fn a_peer_without_datagrams_gets_none() {
    let mut browser = Browser::silent();
    let mut plain = Settings::default();
    plain.insert(Setting::WEBTRANSPORT_ENABLE_DEPRECATED, VarInt::from_u32(1));
    let mut bytes = Vec::new();
    plain.encode(&mut bytes);
    browser.send_uni(&bytes);
    browser.request(LITE);
    assert_eq!(browser.events(), [TransportEvent::Ready]);
    assert_eq!(browser.relay().max_datagram(), 0);
}

#[test]
fn what_comes_before_the_connect_is_held_for_it() {
    let mut browser = Browser::silent();
    let connect = browser.connect;
    browser.us().send_datagram(Bytes::from_static(b"\x00early")).unwrap();
    let uni = browser.send_uni(&[prefix(0x54, connect), b"one".to_vec()].concat());
    let bidi = browser.send_bidi(&[prefix(0x41, connect), b"two".to_vec()].concat());
    let stray = browser.send_uni(&prefix(0x54, Stream(400)));
    assert_eq!(browser.events(), []);
    browser.request(LITE);
    assert_eq!(browser.events(), [], "settings are still missing");
    assert_eq!(browser.relay().phase(), ConnPhase::Opening);
    browser.send_uni(&settings());
    let events = browser.events();
    assert_eq!(events[0], TransportEvent::Ready);
    assert_eq!((opened(&events, Dir::Uni), opened(&events, Dir::Bi)), (vec![uni], vec![bidi]));
    assert!(events.contains(&TransportEvent::Datagram));
    assert_eq!(read_all(browser.relay(), uni).0, b"one");
    assert_eq!(read_all(browser.relay(), bidi).0, b"two");
    assert_eq!(browser.relay().recv_datagram(), Some(Bytes::from_static(b"early")));
    browser.pair.settle();
    let events = browser.pair.client_events(browser.client);
    assert!(events.contains(&TransportEvent::Stopped(stray, StreamCode(0x3994_bd84))), "{events:?}");
}

#[test]
fn holding_is_bounded() {
    let mut browser = Browser::silent();
    let connect = browser.connect;
    let mut sent = Vec::new();
    for _ in 0..100 {
        while let Some(stream) = browser.us().open(Dir::Bi, 0) {
            let bytes = prefix(0x41, connect);
            write_all(browser.us(), stream, &bytes);
            sent.push(stream);
        }
        browser.pair.settle();
        if sent.len() > 70 {
            break;
        }
    }
    let events = browser.pair.client_events(browser.client);
    let rejected = events.iter().filter(|event| matches!(event, TransportEvent::Stopped(..))).count();
    // The empty CONNECT stream is held too.
    assert_eq!(rejected, sent.len() + 1 - 64);
}

#[test]
fn closes_travel_as_capsules() {
    let mut browser = Browser::ready();
    let connect = browser.connect;
    let now = browser.pair.now;
    browser.relay().close(now, SessionCode::UNAUTHORIZED, "go away");
    assert_eq!(browser.relay().phase(), ConnPhase::Closed);
    assert_eq!(browser.pair.server_events(browser.server), [TransportEvent::Closed(TransportClosed::ByUs)]);
    browser.pair.settle();
    let expected = capsule(&Capsule::CloseWebTransportSession { code: 2, reason: "go away".into() });
    // The connection was closed after the capsule arrived, with the same code and reason.
    let events = browser.pair.client_events(browser.client);
    assert!(
        events.contains(&TransportEvent::Closed(TransportClosed::ByPeer(
            SessionCode::UNAUTHORIZED,
            "go away".into()
        ))),
        "{events:?}"
    );
    assert_eq!(read_all(browser.us(), connect).0, expected);
    browser.pair.run(Duration::from_secs(3));
    assert_eq!(browser.relay().phase(), ConnPhase::Drained);
}

#[test]
fn a_close_capsule_of_the_peer_ends_the_session() {
    let mut browser = Browser::ready();
    let connect = browser.connect;
    let bytes = capsule(&Capsule::CloseWebTransportSession { code: 0x11, reason: "bored".into() });
    let (a, b) = bytes.split_at(bytes.len() - 3);
    write_all(browser.us(), connect, a);
    assert_eq!(browser.events(), []);
    write_all(browser.us(), connect, b);
    let closed = TransportClosed::ByPeer(SessionCode::TIMEOUT, "bored".into());
    assert_eq!(browser.events(), [TransportEvent::Closed(closed)]);
    assert_eq!(browser.relay().phase(), ConnPhase::Closed);
    browser.pair.run(Duration::from_secs(3));
    assert_eq!(browser.relay().phase(), ConnPhase::Drained);
}

#[test]
fn the_end_of_the_connect_stream_ends_the_session() {
    let mut browser = Browser::ready();
    let connect = browser.connect;
    browser.us().finish(connect);
    assert_eq!(
        browser.events(),
        [TransportEvent::Closed(TransportClosed::ByPeer(SessionCode::NONE, String::new()))]
    );
    let mut browser = Browser::ready();
    browser.us().reset(connect, StreamCode::CANCEL);
    let events = browser.events();
    assert!(matches!(events[..], [TransportEvent::Closed(TransportClosed::Lost(_))]), "{events:?}");
}

#[test]
fn a_connection_closed_by_the_browser_ends_the_session() {
    let mut browser = Browser::ready();
    let now = browser.pair.now;
    browser.us().close(now, SessionCode::GOAWAY_TIMEOUT, "");
    let closed = TransportClosed::ByPeer(SessionCode::GOAWAY_TIMEOUT, String::new());
    assert_eq!(browser.events(), [TransportEvent::Closed(closed)]);
}

#[test]
fn offers_we_do_not_speak_are_refused() {
    for offer in [&["moq-lite-02"][..], &["h3"], &[]] {
        let mut browser = Browser::silent_with(Pair::speaking(Version::ALL));
        browser.send_uni(&settings());
        browser.request(offer);
        let connect = browser.connect;
        assert_eq!(browser.refusal(connect), "expected 200, got: Some(400)");
        browser.pair.run(Duration::from_secs(2));
        assert_eq!(browser.events(), []);
        assert_ne!(browser.relay().phase(), ConnPhase::Ready);
        browser.pair.run(Duration::from_secs(3));
        assert_eq!(browser.relay().phase(), ConnPhase::Drained, "it does not linger");
    }
}

#[test]
fn other_requests_get_404() {
    let mut browser = Browser::ready();
    // A second session, then a request that is not for a session.
    let second = browser.send_bidi(&connect_request(LITE));
    assert_eq!(browser.refusal(second), "expected 200, got: Some(404)");
    let mut section = vec![0, 0];
    // :method GET, :scheme https, :path /, :authority x
    section.extend([0xc0 | 17, 0xc0 | 23, 0xc0 | 1, 0x50, 1, b'x']);
    let get = [vec![0x21, 1, 0, 1, section.len() as u8], section].concat();
    let stream = browser.send_bidi(&get);
    browser.us().finish(stream);
    assert_eq!(browser.refusal(stream), "expected 200, got: Some(404)");
    let stream = browser.send_bidi(&[0, 1, 9]);
    assert_eq!(browser.refusal(stream), "expected 200, got: Some(400)");
    let huge = browser.send_bidi(&[1, 0x80, 1, 0, 0]);
    write_all(browser.us(), huge, &[0; 30_000]);
    assert_eq!(browser.refusal(huge), "expected 200, got: Some(431)");
    assert_eq!(browser.events(), []);
    assert_eq!(browser.relay().phase(), ConnPhase::Ready);
}

#[test]
fn streams_that_are_not_ours_are_discarded_in_bounds() {
    let mut browser = Browser::ready();
    let encoder = browser.send_uni(&[2]);
    write_all(browser.us(), encoder, &[0; 10_000]);
    let grease = browser.send_uni(&[0x21, 1, 2, 3]);
    let other = browser.send_uni(&prefix(0x54, Stream(4)));
    assert_eq!(browser.events(), []);
    browser.pair.settle();
    let events = browser.pair.client_events(browser.client);
    assert!(events.contains(&TransportEvent::Stopped(grease, StreamCode(0x103))), "{events:?}");
    assert!(events.contains(&TransportEvent::Stopped(other, StreamCode(0x3994_bd84))), "{events:?}");
    for _ in 0..10 {
        fill(browser.us(), encoder, 20_000);
        browser.pair.settle();
    }
    let events = browser.events();
    assert!(matches!(events[..], [TransportEvent::Closed(TransportClosed::Lost(_))]), "{events:?}");
}

#[test]
fn http3_that_breaks_its_rules_ends_the_connection() {
    let broken: [&[u8]; 4] = [
        &[0, 0, 0],                         // DATA on the control stream
        &[0, 4, 0xc0, 0, 0, 1, 0, 0, 0, 0], // SETTINGS of 4 GiB
        &[0, 4, 1, 0x40],                   // half a varint in SETTINGS
        &[0, 1, 2, 0, 0],                   // HEADERS on the control stream
    ];
    for bytes in broken {
        let mut browser = Browser::silent();
        browser.send_uni(bytes);
        assert_eq!(browser.events().len(), 1, "{bytes:?}");
        assert_eq!(browser.relay().phase(), ConnPhase::Closed, "{bytes:?}");
    }
    let mut browser = Browser::ready();
    browser.send_uni(&settings());
    assert!(
        matches!(browser.events()[..], [TransportEvent::Closed(TransportClosed::Lost(_))]),
        "two control streams"
    );
}

#[test]
fn a_browser_that_never_connects_is_dropped() {
    let mut browser = Browser::silent();
    browser.send_uni(&settings());
    browser.pair.run(Duration::from_secs(4));
    assert_eq!(browser.relay().phase(), ConnPhase::Opening);
    browser.pair.run(Duration::from_secs(2));
    let phase = browser.relay().phase();
    assert!(matches!(phase, ConnPhase::Closed | ConnPhase::Drained), "{phase:?}");
}

#[test]
fn prefixes_pass_a_shut_valve() {
    let mut browser = Browser::ready();
    let media = browser.relay().open(Dir::Uni, 0).unwrap();
    fill(browser.relay(), media, usize::MAX);
    let late = browser.relay().open(Dir::Uni, 0).unwrap();
    assert_eq!(browser.relay().write(late, &mut [Bytes::from_static(b"x")]), Err(WriteError::Blocked));
    browser.relay().finish(late);
    browser.pair.settle();
    let connect = browser.connect;
    assert_eq!(read_all(browser.us(), late), (prefix(0x54, connect), Ok(())));
}

#[test]
fn a_prefix_the_peer_has_no_credit_for_goes_first_later() {
    let mut browser = Browser::ready();
    let full: Vec<Stream> = (0..8).map(|_| browser.relay().open(Dir::Uni, 0).unwrap()).collect();
    let mut quiet = 0;
    while quiet < 20 {
        let taken: usize = full.iter().map(|stream| fill(browser.relay(), *stream, usize::MAX).0).sum();
        quiet = if taken == 0 { quiet + 1 } else { 0 };
        browser.events();
    }
    let late = browser.relay().open(Dir::Uni, 0).unwrap();
    assert_eq!(browser.relay().write(late, &mut [Bytes::from_static(b"x")]), Err(WriteError::Blocked));
    let done = browser.relay().open(Dir::Uni, 0).unwrap();
    browser.relay().finish(done);
    assert!(!browser.events().contains(&TransportEvent::Writable(late)));
    assert_eq!(read_all(browser.us(), late).0, b"", "nothing got through");
    read_all(browser.us(), full[0]).1.unwrap_err();
    let events = browser.events();
    assert!(events.contains(&TransportEvent::Writable(late)), "{events:?}");
    write_all(browser.relay(), late, b"x");
    browser.pair.settle();
    let connect = browser.connect;
    let prefix = prefix(0x54, connect);
    assert_eq!(read_all(browser.us(), late).0, [prefix.clone(), b"x".to_vec()].concat());
    assert_eq!(read_all(browser.us(), done), (prefix, Ok(())));
}
