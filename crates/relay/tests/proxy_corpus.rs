//! Promise: no PROXY header of a trusted proxy breaks the relay. Replays the corpus `proxy`.

#![allow(missing_docs)]

mod common;

use std::{
    io::{Read, Write},
    net::Shutdown,
};

use rustix::process::Signal;
use tokio::task::block_in_place;

use common::{
    http::{connect, free_tcp, reply},
    run,
    site::Site,
};

#[path = "../../../fuzz/corpus.rs"]
mod corpus;

/// Request after a header.
const REQUEST: &[u8] = b"GET /health HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";

/// Status of the response to `header` and a request: 0 without a response.
fn status(address: &str, header: &[u8]) -> u16 {
    let mut stream = connect(address);
    // The relay may close the connection before all is written.
    let _ = stream.write_all(&[header, REQUEST].concat());
    let _ = stream.shutdown(Shutdown::Write);
    let mut response = Vec::new();
    let _ = stream.read_to_end(&mut response);
    reply(&response, false).status
}

#[test]
fn corpus_of_proxy_headers_breaks_no_connection() {
    run(async {
        let http = free_tcp();
        let (site, recording) = Site::recorded(
            "info",
            &format!("public = \"\"\n[web]\nhttp.listen = \"{http}\"\nproxy = [\"127.0.0.1\"]"),
            |_| {},
        );
        block_in_place(|| {
            corpus::replay("proxy", |header| {
                let status = status(&http, header);
                // A shortened header leaves bytes that begin the request: any refusal is right.
                assert!(status < 500, "status {status} after {header:?}");
            });
            for (name, header) in corpus::seeds("proxy") {
                let is_valid = name.starts_with("valid-");
                assert_eq!(status(&http, &header) == 200, is_valid, "{name}");
            }
        });
        site.relay.signal(Signal::TERM);
        let lines = block_in_place(|| recording.all());
        assert!(!lines.iter().any(|line| line.contains("panicked")), "{lines:#?}");
    });
}
