//! Requests with one answer, or one kind of answer.

use relay_model::{Path, StreamCode, TrackInfo, TrackName, limits};
use relay_wire::lite::{BidiType, Fetch, Goaway, Message, Probe, TrackRequest};

use crate::{
    control::{ControlReader, request},
    error::Error,
    groups::ReceivedGroup,
    session::ClientSession,
    stream::{RecvStream, SendStream},
};

/// Measurements of the connection by the peer (PROBE), until dropped.
#[derive(Debug)]
pub struct Probes {
    reader: ControlReader,
    send: SendStream,
}

impl Probes {
    /// Returns the next measurement; `None` when the peer finished the stream. [`Error::Reset`] when it measures
    /// nothing.
    pub async fn next(&mut self) -> Result<Option<Probe>, Error> {
        self.reader.next().await
    }
}

impl Drop for Probes {
    fn drop(&mut self) {
        self.reader.stream().stop(StreamCode(0));
        self.send.finish();
    }
}

impl ClientSession {
    /// Returns an error unless the session's version has `what`.
    pub(crate) fn need(&self, has: bool, what: &'static str) -> Result<(), Error> {
        if has { Ok(()) } else { Err(Error::Unsupported(self.version.alpn(), what)) }
    }

    pub(crate) async fn track_info(&self, broadcast: Path, track: TrackName) -> Result<TrackInfo, Error> {
        self.need(self.version.has_tracks(), "TRACK")?;
        let recv = self.ask(BidiType::Track, &TrackRequest { broadcast, track }).await?;
        ControlReader::new(recv, self.version).receive().await
    }

    pub(crate) async fn fetch(&self, fetch: Fetch) -> Result<ReceivedGroup, Error> {
        self.need(self.version.has_tracks(), "FETCH")?;
        let part = fetch.start_frame != 0 || fetch.end_frame.is_some();
        self.need(self.version.has_frame_ranges() || !part, "FETCH of some frames")?;
        let recv = self.ask(BidiType::Fetch, &fetch).await?;
        Ok(ReceivedGroup::bare(recv, self.version, fetch.group, fetch.start_frame))
    }

    pub(crate) async fn probe(&self) -> Result<Probes, Error> {
        let (mut send, recv) = self.carrier.open_bidi().await?;
        let mut kind = Vec::new();
        relay_wire::varint::put(BidiType::Probe.id(), &mut kind);
        send.write(&kind).await?;
        Ok(Probes { reader: ControlReader::new(recv, self.version), send })
    }

    pub(crate) async fn go_away(&self, uri: &str) -> Result<(), Error> {
        self.need(self.version.has_goaway(), "GOAWAY")?;
        if uri.len() > limits::GOAWAY_URI_BYTES {
            return Err(Error::Url("longer than GOAWAY allows".into()));
        }
        self.ask(BidiType::Goaway, &Goaway { uri: uri.to_owned() }).await.map(drop)
    }

    /// Sends a request and a FIN.
    async fn ask<M: Message>(&self, kind: BidiType, message: &M) -> Result<RecvStream, Error> {
        let (mut send, recv) = self.carrier.open_bidi().await?;
        send.write(&request(kind.id(), message, self.version)).await?;
        send.finish();
        Ok(recv)
    }
}
