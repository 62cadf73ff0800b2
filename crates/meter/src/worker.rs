//! What one worker counts.

use crate::Histogram;

macro_rules! worker {
    (
        counters { $($(#[doc = $cdoc:literal])+ $counter:ident,)* }
        gauges { $($(#[doc = $gdoc:literal])+ $gauge:ident,)* }
        peaks { $($(#[doc = $pdoc:literal])+ $peak:ident,)* }
        histograms { $($(#[doc = $hdoc:literal])+ $histogram:ident,)* }
    ) => {
        /// Everything one worker counts, as plain fields: count with `+= 1`.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Worker {
            $($(#[doc = $cdoc])+ pub $counter: u64,)*
            $($(#[doc = $gdoc])+ pub $gauge: u64,)*
            $($(#[doc = $pdoc])+ pub $peak: u64,)*
            $($(#[doc = $hdoc])+ pub $histogram: Histogram,)*
        }

        impl Worker {
            /// Adds what another worker counted; of peaks the higher one stands.
            pub fn add(&mut self, other: &Self) {
                $(self.$counter += other.$counter;)*
                $(self.$gauge += other.$gauge;)*
                $(self.$peak = self.$peak.max(other.$peak);)*
                $(self.$histogram.add(&other.$histogram);)*
            }

            /// Every counter (only grows) by name.
            pub fn counters(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($counter), self.$counter),)*].into_iter()
            }

            /// Every gauge (goes up and down), peaks included, by name.
            pub fn gauges(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [
                    $((stringify!($gauge), self.$gauge),)*
                    $((stringify!($peak), self.$peak),)*
                ]
                .into_iter()
            }

            /// What each of them counts, by name: as the fields say it.
            pub fn help() -> impl Iterator<Item = (&'static str, &'static str)> {
                [
                    $((stringify!($counter), concat!($($cdoc),+)),)*
                    $((stringify!($gauge), concat!($($gdoc),+)),)*
                    $((stringify!($peak), concat!($($pdoc),+)),)*
                    $((stringify!($histogram), concat!($($hdoc),+)),)*
                ]
                .into_iter()
            }

            /// Every histogram by name.
            pub fn histograms(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
                [$((stringify!($histogram), &self.$histogram),)*].into_iter()
            }
        }
    };
}

worker! {
    counters {
        /// Times the worker woke from waiting.
        wakes,
        /// Turns of its loop.
        turns,
        /// Parts of turns that left work for the next turn because their share of time was used up.
        turns_cut,
        /// Datagrams received.
        datagrams_in,
        /// Bytes received: UDP payload, and what stream sockets carried, TLS included.
        bytes_in,
        /// Receive calls.
        recv_calls,
        /// Receive errors other than "nothing there".
        recv_errors,
        /// Datagrams sent.
        datagrams_out,
        /// Bytes sent: UDP payload, and what stream sockets carried, TLS included.
        bytes_out,
        /// Send calls.
        send_calls,
        /// Sends the kernel refused for good; lost like any datagram.
        send_errors,
        /// Datagrams larger than the path takes (MTU probes).
        send_too_large,
        /// Segmented sends that failed and were repeated one by one; the connection stays without.
        gso_failures,
        /// Times the socket was full: the rest of the batch waited for room.
        socket_full,
        /// Datagrams that belonged to no connection and were dropped.
        datagrams_unknown,
        /// Datagrams dropped because their connection had too many waiting to be read.
        datagrams_dropped,
        /// Answers without a connection: version negotiation, retry, stateless reset.
        responses,
        /// Bytes received from stream sockets, also in `bytes_in`.
        stream_bytes_in,
        /// Bytes sent to stream sockets, also in `bytes_out`.
        stream_bytes_out,
        /// Times a stream socket was full: its peer takes less than there is for it.
        streams_full,
        /// Connections accepted.
        connections,
        /// Of these: over WebSocket.
        connections_websocket,
        /// Of these: over plain TCP or TLS.
        connections_tcp,
        /// Of these: over Unix sockets.
        connections_unix,
        /// Sessions authorised.
        sessions_opened,
        /// Authorised sessions that ended.
        sessions_closed,
        /// Connections that ended before they were authorised, for no reason of ours.
        sessions_abandoned,
        /// Refused: the credential does not allow it.
        refused_unauthorized,
        /// Refused: who decides could not be asked, or failed.
        refused_unavailable,
        /// Refused: who decides did not answer in time.
        refused_auth_timeout,
        /// Refused: the request target is no path.
        refused_malformed,
        /// Refused: not set up in time.
        refused_setup_timeout,
        /// Refused: no version in common.
        refused_version,
        /// Refused: no room for another session.
        refused_full,
        /// Refused: draining or shutting down.
        refused_draining,
        /// Refused: memory is at its ceiling.
        refused_memory,
        /// Sessions closed because their permit had expired.
        sessions_expired,
        /// Sessions closed because whoever let them in took that back.
        sessions_revoked,
        /// Sessions whose permit was replaced while they lived.
        sessions_revised,
        /// Sessions closed because memory of sessions was short and they held the largest share.
        sessions_closed_memory,
        /// Sessions closed because they had not left a relay that ends.
        sessions_sent_away,
        /// Panics caught while datagrams were fed to a connection.
        panics_feed,
        /// Panics caught while a session took its input.
        panics_input,
        /// Panics caught while timers ran.
        panics_timeout,
        /// Panics caught while an order of core was carried out.
        panics_order,
        /// Panics caught while news were delivered.
        panics_news,
        /// Panics caught while a connection was flushed.
        panics_flush,
        /// Panics caught in the endpoint itself; it was rebuilt on its socket.
        panics_endpoint,
        /// Orders of core carried out.
        orders,
        /// Orders for sessions that were gone.
        orders_unknown,
        /// Asks passed to core.
        asks,
        /// Batches of news pulled from logs.
        pulls,
        /// Frames received from publishers.
        frames_in,
        /// Frame payload received from publishers, bytes.
        payload_in,
        /// Groups received from publishers.
        groups_in,
        /// Frames handed to subscribers' streams.
        deliveries,
        /// Frame payload handed to subscribers' streams, bytes.
        payload_out,
        /// Groups begun for subscribers.
        groups_out,
        /// Groups reset for a subscriber because they were too old or too far behind.
        groups_expired,
        /// Media datagrams received from publishers.
        media_datagrams_in,
        /// Media datagrams handed to subscribers.
        media_datagrams_out,
        /// Sessions closed because the one thing they came to do is not allowed.
        roles_refused,
        /// Requests refused on an open session.
        requests_refused,
        /// Subscriptions and track requests refused for their number.
        subscriptions_limited,
        /// Fetches refused for their number.
        fetches_limited,
        /// Announce requests (watches) refused for their number.
        watches_limited,
        /// Announces not routed because their session has as many routed as it may have.
        announces_limited,
        /// Announces not routed because their path holds a control character, a line separator, a
        /// bidirectional control or a dot segment.
        announce_names_refused,
        /// Subscriptions, track requests and fetches refused because the track name holds one of these.
        track_names_refused,
        /// Requests refused because memory is at its ceiling.
        requests_refused_memory,
        /// Requests toward a peer that got no stream of it in time, or found too many waiting.
        requests_starved,
        /// Times a peer that asks too fast was let on.
        requests_paced,
        /// Sessions that were asked to move.
        goaways_out,
        /// Peers that said they go away.
        goaways_in,
        /// Groups of publishers refused because memory is at its ceiling.
        groups_refused,
        /// Sessions closed for a protocol violation.
        violations,
    }
    gauges {
        /// Sessions now, authorised or not.
        sessions,
        /// Connections now, closing ones included.
        connections_now,
    }
    peaks {
        /// Longest time in the last minute that a ready session waited for its worker, microseconds.
        ready_wait_peak_us,
    }
    histograms {
        /// How long a turn took, microseconds.
        turn_us,
        /// Longest time that a ready session waited for its worker, one value for each turn, microseconds.
        ready_wait_us,
        /// Datagrams one receive call gave.
        recv_batch,
        /// Datagrams one send call took.
        send_batch,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_has_a_help_text() {
        let help: Vec<_> = Worker::help().collect();
        let worker = Worker::default();
        let names = worker.counters().map(|(name, _)| name).chain(worker.gauges().map(|(name, _)| name));
        for name in names {
            let text = help.iter().find(|(other, _)| *other == name).map(|(_, text)| text.trim());
            assert!(text.is_some_and(|text| text.ends_with('.')), "{name}: {text:?}");
        }
    }

    #[test]
    fn adding_workers_adds_every_field() {
        let mut a = Worker { deliveries: 3, sessions: 1, ..Worker::default() };
        a.turn_us.record(7);
        let mut b = Worker { deliveries: 4, wakes: 1, sessions: 1, ..Worker::default() };
        b.turn_us.record(9);
        (a.ready_wait_peak_us, b.ready_wait_peak_us) = (5, 3);
        a.add(&b);
        assert_eq!(a.ready_wait_peak_us, 5, "of peaks the higher one stands");
        assert_eq!((a.deliveries, a.wakes, a.sessions), (7, 1, 2));
        assert_eq!(a.turn_us.count(), 2);
        assert!(a.counters().any(|(name, value)| (name, value) == ("deliveries", 7)));
        assert!(a.gauges().any(|(name, value)| (name, value) == ("sessions", 2)));
        assert!(a.histograms().any(|(name, value)| name == "turn_us" && value.sum() == 16));
    }
}
