//! Promise: a panic message about a request contains no token.

#![allow(missing_docs)]

use std::{
    panic,
    sync::{Arc, Mutex},
};

use relay_client::{Client, ClientConfig};
use relay_tests::{relay::TestRelay, run, wait_until};
use relay_worker::{AdmissionRequest, Gate, GateAnswer};

const TOKEN: &str = "eyJhbGciOiJub25lIn0.c2VzYW1l.b3Blbg";

/// Gate that panics with the whole request.
struct Clumsy;

impl Gate for Clumsy {
    fn admit(&self, request: &AdmissionRequest) -> GateAnswer {
        panic!("cannot judge {request:?}")
    }
}

#[test]
fn a_panic_message_shows_who_asked_and_not_what_they_showed() {
    let said = Arc::<Mutex<Vec<String>>>::default();
    let heard = said.clone();
    panic::set_hook(Box::new(move |panic| heard.lock().unwrap().push(panic.to_string())));
    run(30, async {
        let relay = TestRelay::with(1, |options| options.gate = Arc::new(Clumsy));
        for url in relay.schemes() {
            let before = said.lock().unwrap().len();
            let client = Client::connect(&format!("{url}?jwt={TOKEN}"), ClientConfig::default()).await;
            wait_until("a panic", 15, || said.lock().unwrap().len() > before).await;
            drop(client);
        }
    });
    let _ = panic::take_hook();
    for message in &*said.lock().unwrap() {
        assert!(
            message.contains("cannot judge AdmissionRequest") && message.contains("127.0.0.1"),
            "{message}"
        );
        let shown = TOKEN.split('.').chain(["jwt"]).find(|part| message.contains(part));
        assert_eq!(shown, None, "{message}");
    }
}
