//! Dials all addresses of a name (RFC 8305, "Happy Eyeballs"); the first connection is used.

use std::{
    future::{Future, poll_fn},
    io,
    net::SocketAddr,
    pin::Pin,
    task::Poll,
    time::Duration,
};

use crate::error::Error;

/// Head start of an address before the next is tried beside it (RFC 8305 §8, Connection Attempt Delay).
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Largest number of addresses tried per name: each takes a socket.
const ATTEMPTS: usize = 8;

/// Sorts addresses in the order of the attempts: that of the resolver, with alternating families (RFC 8305 §4).
pub(crate) fn order(found: impl IntoIterator<Item = SocketAddr>) -> Vec<SocketAddr> {
    let mut found: Vec<SocketAddr> = found.into_iter().collect();
    let mut ordered = Vec::new();
    let mut wants_v6 = found.first().is_some_and(SocketAddr::is_ipv6);
    while !found.is_empty() && ordered.len() < ATTEMPTS {
        let next = found.iter().position(|address| address.is_ipv6() == wants_v6).unwrap_or(0);
        let address = found.remove(next);
        if !ordered.contains(&address) {
            ordered.push(address);
            wants_v6 = !address.is_ipv6();
        }
    }
    ordered
}

/// Runs `attempt` for the addresses in order, overlapping, until one succeeds.
///
/// # Errors
/// Every attempt failed: the most specific of all errors.
pub(crate) async fn race<T, F: Future<Output = Result<T, Error>>>(
    addresses: &[SocketAddr],
    attempt: impl Fn(SocketAddr) -> F,
) -> Result<T, Error> {
    let mut waiting = addresses.iter().copied();
    let mut running: Vec<Pin<Box<F>>> = Vec::new();
    let mut best: Option<Error> = None;
    let mut is_due = true;
    loop {
        if is_due && let Some(address) = waiting.next() {
            running.push(Box::pin(attempt(address)));
        }
        if running.is_empty() {
            return Err(best.unwrap_or(Error::ConnectTimeout));
        }
        let more = waiting.len() > 0;
        let outcome = tokio::select! {
            outcome = first(&mut running) => Some(outcome),
            () = tokio::time::sleep(ATTEMPT_DELAY), if more => None,
        };
        is_due = true;
        match outcome {
            None => {}
            Some(Ok(done)) => return Ok(done),
            Some(Err(error)) => {
                let better = best.as_ref().is_none_or(|before| weight(&error) > weight(before));
                best = if better { Some(error) } else { best };
            }
        }
    }
}

/// Waits for the first of `running` to complete, removes it and returns its outcome.
async fn first<T, F: Future<Output = T>>(running: &mut Vec<Pin<Box<F>>>) -> T {
    poll_fn(|cx| {
        for (index, attempt) in running.iter_mut().enumerate() {
            if let Poll::Ready(outcome) = attempt.as_mut().poll(cx) {
                drop(running.remove(index));
                return Poll::Ready(outcome);
            }
        }
        Poll::Pending
    })
    .await
}

/// Specificity of an error: a relay's error outweighs a refusal of the system.
fn weight(error: &Error) -> u8 {
    match error {
        Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => 1,
        Error::Io(_) => 0,
        Error::ConnectTimeout => 2,
        _ => 3,
    }
}

#[cfg(test)]
mod tests {
    use std::{
        cell::RefCell,
        future::pending,
        sync::Arc,
        task::{Context, Waker},
    };

    use super::*;

    fn at(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    fn refused() -> Error {
        Error::Io(Arc::new(io::ErrorKind::ConnectionRefused.into()))
    }

    fn run<T>(test: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap().block_on(test)
    }

    #[test]
    fn families_take_turns_in_the_order_of_the_resolver() {
        let found = ["[::1]:1", "[::2]:1", "127.0.0.1:1", "127.0.0.2:1", "[::1]:1"].map(at);
        assert_eq!(order(found), ["[::1]:1", "127.0.0.1:1", "[::2]:1", "127.0.0.2:1"].map(at));
        let many = (1..=2 * ATTEMPTS as u16).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        assert_eq!(order(many).len(), ATTEMPTS);
    }

    #[test]
    fn silent_address_loses_to_the_next() {
        let tried = RefCell::new(Vec::new());
        let won = run(race(&["[::1]:1", "127.0.0.1:1", "127.0.0.2:1"].map(at), |address| {
            tried.borrow_mut().push(address);
            async move { if address.is_ipv6() { pending().await } else { Ok(address) } }
        }));
        assert_eq!(won.unwrap(), at("127.0.0.1:1"));
        assert_eq!(tried.into_inner(), ["[::1]:1", "127.0.0.1:1"].map(at), "no more than needed");
    }

    #[test]
    fn refused_address_starts_the_next_at_once() {
        // One poll: no timer has run.
        let won = run(async {
            let addresses = ["[::1]:1", "127.0.0.1:1"].map(at);
            let mut race = Box::pin(race(&addresses, |address| async move {
                if address.is_ipv6() { Err(refused()) } else { Ok(address) }
            }));
            race.as_mut().poll(&mut Context::from_waker(Waker::noop()))
        });
        assert!(matches!(won, Poll::Ready(Ok(address)) if address == at("127.0.0.1:1")));
    }

    #[test]
    fn error_of_the_relay_wins_over_a_refusal() {
        for addresses in [["[::1]:1", "127.0.0.1:1"], ["127.0.0.1:1", "[::1]:1"]] {
            let lost: Result<(), Error> = run(race(&addresses.map(at), |address| async move {
                Err(if address.is_ipv6() { refused() } else { Error::Status(403) })
            }));
            assert!(matches!(lost, Err(Error::Status(403))));
        }
    }
}
