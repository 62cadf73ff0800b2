//! Counters, gauges and histograms of one worker.

use crate::Histogram;

macro_rules! worker {
    (
        counters { $($(#[doc = $cdoc:literal])+ $counter:ident,)* }
        gauges { $($(#[doc = $gdoc:literal])+ $gauge:ident,)* }
        peaks { $($(#[doc = $pdoc:literal])+ $peak:ident,)* }
        histograms { $($(#[doc = $hdoc:literal])+ $histogram:ident,)* }
    ) => {
        /// All metrics of one worker, as plain fields: count with `+= 1`.
        #[derive(Clone, Debug, Default, PartialEq, Eq)]
        pub struct Worker {
            $($(#[doc = $cdoc])+ pub $counter: u64,)*
            $($(#[doc = $gdoc])+ pub $gauge: u64,)*
            $($(#[doc = $pdoc])+ pub $peak: u64,)*
            $($(#[doc = $hdoc])+ pub $histogram: Histogram,)*
        }

        impl Worker {
            /// Adds the metrics of another worker; of peaks, takes the higher one.
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

            /// Help text of every metric by name, taken from the field's doc comment.
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
        /// Wake-ups of the worker from waiting for events.
        wakes,
        /// Turns of the worker's event loop.
        turns,
        /// Parts of turns that left work for the next turn because their share of time was used up.
        turns_cut,
        /// Datagrams received.
        datagrams_in,
        /// Bytes received: UDP payload, and bytes of stream sockets, TLS included.
        bytes_in,
        /// Receive system calls.
        recv_calls,
        /// Receive errors other than "would block".
        recv_errors,
        /// Datagrams sent.
        datagrams_out,
        /// Bytes sent: UDP payload, and bytes of stream sockets, TLS included.
        bytes_out,
        /// Send system calls.
        send_calls,
        /// Sends the kernel refused permanently; their datagrams are lost.
        send_errors,
        /// Datagrams refused as larger than the path MTU (MTU probes).
        send_too_large,
        /// Segmented sends (GSO) that failed and were repeated one datagram at a time; the connection no longer
        /// uses GSO.
        gso_failures,
        /// Times the UDP socket's send buffer was full and the rest of the batch had to wait.
        socket_full,
        /// Datagrams that belonged to no connection and were dropped.
        datagrams_unknown,
        /// Datagrams dropped because their connection had too many waiting to be read.
        datagrams_dropped,
        /// Packets sent without a connection: version negotiation, Retry, stateless reset.
        responses,
        /// Bytes received from stream sockets; included in `bytes_in`.
        stream_bytes_in,
        /// Bytes sent to stream sockets; included in `bytes_out`.
        stream_bytes_out,
        /// Times a stream socket's send buffer was full because its peer reads too slowly.
        streams_full,
        /// Connections accepted.
        connections,
        /// Connections accepted over WebSocket.
        connections_websocket,
        /// Connections accepted over plain TCP or TLS.
        connections_tcp,
        /// Connections accepted over Unix sockets.
        connections_unix,
        /// Sessions authorised.
        sessions_opened,
        /// Authorised sessions that ended.
        sessions_closed,
        /// Connections that ended before they were authorised, for a reason outside the relay.
        sessions_abandoned,
        /// Sessions refused because the credential does not allow them.
        refused_unauthorized,
        /// Sessions refused because the authorisation request failed or could not be made.
        refused_unavailable,
        /// Sessions refused because the authorisation request timed out.
        refused_auth_timeout,
        /// Sessions refused because the request target is not a valid path.
        refused_malformed,
        /// Sessions refused because their setup timed out.
        refused_setup_timeout,
        /// Sessions refused because no protocol version is common.
        refused_version,
        /// Sessions refused because the session limit was reached.
        refused_full,
        /// Sessions refused because the relay was draining or shutting down.
        refused_draining,
        /// Sessions refused because memory was at its ceiling.
        refused_memory,
        /// Sessions closed because their permit expired.
        sessions_expired,
        /// Sessions closed because their permit was revoked.
        sessions_revoked,
        /// Permits replaced while their session was open.
        sessions_revised,
        /// Sessions closed because session memory was short and they held the largest share.
        sessions_closed_memory,
        /// Sessions closed by a draining or stopping relay because they had not left.
        sessions_sent_away,
        /// Panics caught while datagrams were passed to a connection.
        panics_feed,
        /// Panics caught while a session processed its input.
        panics_input,
        /// Panics caught while timers ran.
        panics_timeout,
        /// Panics caught while an order of the control plane was executed.
        panics_order,
        /// Panics caught while log events were delivered to subscribers.
        panics_news,
        /// Panics caught while a connection was flushed.
        panics_flush,
        /// Panics caught in the endpoint itself; it was rebuilt on its socket.
        panics_endpoint,
        /// Orders of the control plane executed.
        orders,
        /// Orders of the control plane for sessions that had already ended.
        orders_unknown,
        /// Requests passed to the control plane.
        asks,
        /// Batches of events read from logs.
        pulls,
        /// Frames received from publishers.
        frames_in,
        /// Frame payload received from publishers, bytes.
        payload_in,
        /// Groups received from publishers.
        groups_in,
        /// Frames written to subscribers' streams.
        deliveries,
        /// Frame payload written to subscribers' streams, bytes.
        payload_out,
        /// Groups started for subscribers.
        groups_out,
        /// Groups reset for a subscriber because they were too old or too far behind.
        groups_expired,
        /// Media datagrams received from publishers.
        media_datagrams_in,
        /// Media datagrams sent to subscribers.
        media_datagrams_out,
        /// Sessions closed because the only role they declared is not allowed.
        roles_refused,
        /// Requests refused on an open session.
        requests_refused,
        /// Subscriptions and track requests refused at the per-session limit.
        subscriptions_limited,
        /// Fetches refused at the per-session limit.
        fetches_limited,
        /// Announce requests refused at the per-session limit.
        watches_limited,
        /// Announces not routed because their session reached its limit of routed announces.
        announces_limited,
        /// Announces not routed because their path holds a control character, a line separator, a
        /// bidirectional control or a dot segment.
        announce_names_refused,
        /// Subscriptions, track requests and fetches refused because the track name holds a control character,
        /// a line separator, a bidirectional control or a dot segment.
        track_names_refused,
        /// Requests refused because memory was at its ceiling.
        requests_refused_memory,
        /// Requests to a peer that got no stream credit in time or found too many requests waiting.
        requests_starved,
        /// Throttled control streams resumed after the request rate fell below the limit.
        requests_paced,
        /// GOAWAY messages sent to ask sessions to move.
        goaways_out,
        /// GOAWAY messages received from peers.
        goaways_in,
        /// Groups from publishers refused because memory was at its ceiling.
        groups_refused,
        /// Sessions closed for a protocol violation.
        violations,
    }
    gauges {
        /// Open sessions, authorised or not.
        sessions,
        /// Open connections, closing ones included.
        connections_now,
    }
    peaks {
        /// Longest time in the last minute that a ready session waited for its worker, microseconds.
        ready_wait_peak_us,
    }
    histograms {
        /// Duration of a turn of the event loop, microseconds.
        turn_us,
        /// Longest time a ready session waited for its worker, one value per turn, microseconds.
        ready_wait_us,
        /// Datagrams per receive call.
        recv_batch,
        /// Datagrams per send call.
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
        assert_eq!(a.ready_wait_peak_us, 5, "the higher peak is kept");
        assert_eq!((a.deliveries, a.wakes, a.sessions), (7, 1, 2));
        assert_eq!(a.turn_us.count(), 2);
        assert!(a.counters().any(|(name, value)| (name, value) == ("deliveries", 7)));
        assert!(a.gauges().any(|(name, value)| (name, value) == ("sessions", 2)));
        assert!(a.histograms().any(|(name, value)| name == "turn_us" && value.sum() == 16));
    }
}
