//! Events of a connection's session, from those of the QUIC library and of the layers above it.

use std::net::SocketAddr;

use quinn_proto::StreamEvent;
use relay_model::transport::{Dir, Stream, TransportEvent};

use super::{QuicLink, SessionLayer, from_dir, index, to_dir};
use crate::quic::code;

const DIRS: [Dir; 2] = [Dir::Bi, Dir::Uni];

/// Pending events of a session, which precede those of the QUIC library.
#[derive(Debug)]
pub(super) struct SessionEvents {
    ready: bool,
    datagram: bool,
    room: bool,
    /// Whether streams may be pending in `accept`, by direction.
    accept: [bool; 2],
    /// Canonical remote address, as last reported.
    remote: SocketAddr,
    /// Address to which the peer has moved.
    moved: Option<SocketAddr>,
}

impl SessionEvents {
    /// Creates the events of a connection to `remote`.
    pub(super) fn new(remote: SocketAddr) -> Self {
        Self { ready: false, datagram: false, room: false, accept: [false; 2], remote, moved: None }
    }

    /// Queues `Ready`.
    pub(super) fn ready(&mut self) {
        self.ready = true;
    }

    /// Queues `Datagram`.
    pub(super) fn datagram(&mut self) {
        self.datagram = true;
    }

    /// Queues `Room` if `is_due`.
    #[inline]
    pub(super) fn room(&mut self, is_due: bool) {
        self.room |= is_due;
    }

    /// Queues `Moved` if `remote` is not the address last reported.
    #[inline]
    pub(super) fn set_remote(&mut self, remote: SocketAddr) {
        if self.moved.is_some() || remote != self.remote {
            self.moved = Some(remote);
        }
    }

    /// Drops all pending events.
    pub(super) fn clear(&mut self) {
        *self = Self::new(self.remote);
    }

    /// Returns the next event that precedes those of the QUIC library.
    #[inline]
    pub(super) fn next(&mut self, link: &mut QuicLink, layer: &mut SessionLayer) -> Option<TransportEvent> {
        if let Some(event) = self.next_of_connection() {
            return Some(event);
        }
        if let Some(id) = layer.with_h3(link, |h3, quic| h3.release(quic)).flatten() {
            return Some(TransportEvent::Opened(Stream(id.into()), to_dir(id.dir())));
        }
        if let Some(event) = self.next_stream(link, layer) {
            return Some(event);
        }
        self.next_of_data()
    }

    /// Returns `Ready` or `Moved`, which precede all others.
    fn next_of_connection(&mut self) -> Option<TransportEvent> {
        if std::mem::take(&mut self.ready) {
            return Some(TransportEvent::Ready);
        }
        let remote = self.moved.take()?;
        self.remote = remote;
        Some(TransportEvent::Moved(remote))
    }

    /// Returns `Datagram` or `Room`, which follow the streams.
    fn next_of_data(&mut self) -> Option<TransportEvent> {
        if std::mem::take(&mut self.datagram) {
            return Some(TransportEvent::Datagram);
        }
        std::mem::take(&mut self.room).then_some(TransportEvent::Room)
    }

    /// Returns the next stream that the peer has opened.
    fn next_stream(&mut self, link: &mut QuicLink, layer: &mut SessionLayer) -> Option<TransportEvent> {
        for dir in DIRS {
            while let Some(due) = self.accept.get_mut(index(from_dir(dir)))
                && *due
            {
                match link.quic.streams().accept(from_dir(dir)) {
                    None => *due = false,
                    Some(id) if layer.accepted(link, id) => {
                        return Some(TransportEvent::Opened(Stream(id.into()), dir));
                    }
                    Some(_) => {}
                }
            }
        }
        None
    }

    /// Handles a stream event before `Ready`.
    pub(super) fn on_opening(&mut self, event: StreamEvent, link: &mut QuicLink, layer: &mut SessionLayer) {
        link.note_stream_data();
        match event {
            StreamEvent::Opened { dir } => {
                link.grow_credit(dir);
                // There is no session yet to which the stream could belong.
                while let Some(id) = link.quic.streams().accept(dir) {
                    layer.accepted(link, id);
                    if layer.h3().is_some_and(|h3| h3.protocol().is_some()) {
                        // The remaining streams are reported in order after the held ones.
                        self.expect_streams(dir);
                        return;
                    }
                }
            }
            StreamEvent::Readable { id } => {
                layer.with_h3(link, |h3, quic| h3.readable(quic, id));
            }
            StreamEvent::Stopped { id, .. } => {
                layer.with_h3(link, |h3, quic| h3.stopped(quic, id));
            }
            StreamEvent::Writable { .. } | StreamEvent::Finished { .. } | StreamEvent::Available { .. } => {}
        }
    }

    /// Translates a stream event for the session; `None` if it has no meaning there.
    #[inline]
    pub(super) fn on_stream(
        &mut self,
        event: StreamEvent,
        link: &mut QuicLink,
        layer: &mut SessionLayer,
    ) -> Option<TransportEvent> {
        match event {
            StreamEvent::Opened { dir } => {
                link.note_stream_data();
                link.grow_credit(dir);
                self.expect_streams(dir);
                self.next_stream(link, layer)
            }
            StreamEvent::Readable { id } => {
                link.note_stream_data();
                match layer.with_h3(link, |h3, quic| h3.readable(quic, id)).flatten() {
                    None => Some(TransportEvent::Readable(Stream(id.into()))),
                    Some(true) => Some(TransportEvent::Opened(Stream(id.into()), to_dir(id.dir()))),
                    Some(false) => None,
                }
            }
            StreamEvent::Writable { id } => {
                let is_held = layer.is_blocked(link, id) || layer.h3().is_some_and(|h3| h3.is_session(id));
                (!is_held).then_some(TransportEvent::Writable(Stream(id.into())))
            }
            StreamEvent::Stopped { id, error_code } => {
                let is_ours = layer.with_h3(link, |h3, quic| h3.stopped(quic, id)) == Some(true);
                (!is_ours)
                    .then(|| TransportEvent::Stopped(Stream(id.into()), code::stream_from_wire(error_code)))
            }
            StreamEvent::Available { dir } => {
                link.take_refused(dir).then_some(TransportEvent::Openable(to_dir(dir)))
            }
            StreamEvent::Finished { .. } => None,
        }
    }

    fn expect_streams(&mut self, dir: quinn_proto::Dir) {
        if let Some(due) = self.accept.get_mut(index(dir)) {
            *due = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(port: u16) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], port))
    }

    #[test]
    fn ready_precedes_moved_and_datagram_precedes_room() {
        let mut events = SessionEvents::new(address(1));
        events.room(true);
        events.datagram();
        events.set_remote(address(2));
        events.ready();
        assert_eq!(events.next_of_connection(), Some(TransportEvent::Ready));
        assert_eq!(events.next_of_connection(), Some(TransportEvent::Moved(address(2))));
        assert_eq!(events.next_of_connection(), None);
        assert_eq!(events.next_of_data(), Some(TransportEvent::Datagram));
        assert_eq!(events.next_of_data(), Some(TransportEvent::Room));
        assert_eq!(events.next_of_data(), None);
    }

    #[test]
    fn move_is_reported_once() {
        let mut events = SessionEvents::new(address(1));
        events.set_remote(address(1));
        assert_eq!(events.next_of_connection(), None);
        events.set_remote(address(2));
        assert_eq!(events.next_of_connection(), Some(TransportEvent::Moved(address(2))));
        events.set_remote(address(2));
        assert_eq!(events.next_of_connection(), None);
    }

    #[test]
    fn ended_session_has_no_pending_events() {
        let mut events = SessionEvents::new(address(1));
        events.ready();
        events.datagram();
        events.room(true);
        events.set_remote(address(2));
        events.clear();
        assert_eq!((events.next_of_connection(), events.next_of_data()), (None, None));
    }
}
