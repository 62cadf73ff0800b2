//! Replay of the corpora `qmux` and `websocket`.

use super::*;
use crate::{
    corpus,
    qmux::{
        frame,
        params::Parameters,
        websocket::{self, WebSocketItem, WebSocketReader, unmask},
    },
};

const FRAMINGS: [QmuxFraming; 3] = [QmuxFraming::Legacy, QmuxFraming::Qmux00, QmuxFraming::Qmux01];

/// Reason with which a server loses a connection that sends these pieces. The application reads after all of them, so
/// that the state of streams does not depend on the pieces.
fn lost(framing: QmuxFraming, over: QmuxCarrier, pieces: &[&[u8]]) -> Option<String> {
    let now = Instant::now();
    let mut server = QmuxConnection::new(QmuxConfig::new(framing, over), now);
    pieces.iter().for_each(|piece| server.receive(now, piece));
    let mut lost = None;
    for event in events(&mut server) {
        match event {
            TransportEvent::Opened(stream, _) => drop(take(&mut server, stream)),
            TransportEvent::Closed(closed) => lost = Some(format!("{closed:?}")),
            _ => {}
        }
    }
    output(&mut server, now);
    lost
}

#[test]
fn corpus_of_qmux_breaks_no_decoder() {
    corpus::replay("qmux", |data| {
        for framing in FRAMINGS {
            let mut rest = data;
            let mut before = rest.len() + 1;
            while rest.len() < before {
                before = rest.len();
                if !matches!(frame::take(framing, &mut rest, true), Ok(Some(_))) {
                    break;
                }
            }
            // A complete frame does not depend on the bytes after it.
            for end in 0..data.len() {
                let (mut part, mut whole) = (&data[..end], data);
                if let Ok(Some(found)) = frame::take(framing, &mut part, false) {
                    assert!(
                        matches!(frame::take(framing, &mut whole, false), Ok(Some(same)) if same == found)
                    );
                    assert_eq!(data.len() - whole.len(), end - part.len());
                }
            }
            if let Ok(mut parameters) = Parameters::get(framing, data) {
                let mut out = Vec::new();
                parameters.put(framing, &mut out);
                if framing != QmuxFraming::Qmux01 {
                    parameters.datagram = 0;
                }
                assert!(Parameters::get(framing, &out).is_ok_and(|again| again == parameters));
            }
        }
        for (framing, over) in KINDS {
            let bytes: Vec<&[u8]> = data.chunks(1).collect();
            assert_eq!(lost(framing, over, &[data]), lost(framing, over, &bytes), "{framing:?} {over:?}");
        }
    });
}

/// Messages and control frames as text, an incomplete message, and whether the input is a violation.
fn items(is_client: bool, pieces: &[&[u8]]) -> (Vec<String>, Vec<u8>, bool) {
    let mut reader = WebSocketReader::new(is_client, websocket::largest(QmuxFraming::Qmux01));
    let (mut items, mut message) = (Vec::new(), Vec::new());
    for mut piece in pieces.iter().copied() {
        loop {
            match reader.next(&mut piece) {
                Ok(Some(WebSocketItem::Data(data))) => {
                    let mut bytes = data.bytes.to_vec();
                    if let Some((key, at)) = data.mask {
                        unmask(&mut bytes, key, at);
                    }
                    message.extend(bytes);
                    if data.is_end {
                        items.push(format!("{:?}", std::mem::take(&mut message)));
                    }
                }
                Ok(Some(other)) => items.push(format!("{other:?}")),
                Ok(None) => break,
                Err(_) => return (items, message, true),
            }
        }
        assert!(piece.is_empty(), "all input is taken");
    }
    (items, message, false)
}

#[test]
fn corpus_of_websocket_breaks_no_decoder() {
    corpus::replay("websocket", |data| {
        let bytes: Vec<&[u8]> = data.chunks(1).collect();
        for is_client in [false, true] {
            assert_eq!(items(is_client, &[data]), items(is_client, &bytes));
        }
        for (framing, over) in KINDS.into_iter().filter(|(_, over)| *over == QmuxCarrier::WebSocket) {
            assert_eq!(lost(framing, over, &[data]), lost(framing, over, &bytes), "{framing:?}");
        }
    });
}
