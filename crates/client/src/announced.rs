//! Watching what is announced below a prefix.

use std::{collections::VecDeque, sync::Arc};

use relay_model::{Hop, Path};
use relay_wire::lite::{Announce, AnnounceOk, AnnounceRequest, BidiType, Status};

use crate::{
    control::{ControlReader, request},
    error::Error,
    session::Session,
    stream::SendStream,
};

/// One broadcast came, changed its route, or went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// Its whole path.
    pub path: Path,
    /// Whether it is there.
    pub active: bool,
    /// Who it passes, original publisher first, the peer last; empty when gone.
    pub hops: Vec<Hop>,
}

/// A live watch. Dropped, it ends.
#[derive(Debug)]
pub struct Announced {
    prefix: Path,
    hop: Hop,
    initial: VecDeque<Announcement>,
    reader: ControlReader,
    send: SendStream,
}

impl Announced {
    pub(crate) async fn open(session: Arc<Session>, prefix: Path, exclude_hop: Hop) -> Result<Self, Error> {
        let (mut send, recv) = session.carrier.open_bidi().await?;
        let ask = AnnounceRequest { prefix: prefix.clone(), exclude_hop };
        send.write(&request(BidiType::Announce.id(), &ask, session.version)).await?;
        let mut reader = ControlReader::new(recv, session.version);
        let AnnounceOk { hop, count } = reader.expect().await?;
        let mut watch = Self { prefix, hop, initial: VecDeque::new(), reader, send };
        for _ in 0..count {
            let announcement = watch.read().await?.ok_or(Error::Truncated)?;
            watch.initial.push_back(announcement);
        }
        Ok(watch)
    }

    /// The peer's id, as it said here.
    pub fn hop(&self) -> Hop {
        self.hop
    }

    /// What was announced when the watch began, and was not taken by [`Announced::next`] yet.
    pub fn initial(&self) -> impl Iterator<Item = &Announcement> {
        self.initial.iter()
    }

    /// The next announcement; `None` when the peer finished the stream.
    pub async fn next(&mut self) -> Result<Option<Announcement>, Error> {
        match self.initial.pop_front() {
            Some(announcement) => Ok(Some(announcement)),
            None => self.read().await,
        }
    }

    /// Waits until `path` is announced (or, not `active`, withdrawn); skips what comes before.
    pub async fn wait(&mut self, path: &str, active: bool) -> Result<Announcement, Error> {
        loop {
            let announcement = self.next().await?.ok_or(Error::Ended)?;
            if announcement.path.as_str() == path && announcement.active == active {
                return Ok(announcement);
            }
        }
    }

    async fn read(&mut self) -> Result<Option<Announcement>, Error> {
        let Some(Announce { status, suffix, hops }) = self.reader.next().await? else { return Ok(None) };
        let path = self.prefix.join(&suffix).map_err(|e| Error::Malformed(e.to_string()))?;
        let active = status == Status::Active;
        let mut hops = hops.to_vec();
        if active {
            hops.push(self.hop);
        }
        Ok(Some(Announcement { path, active, hops }))
    }
}

impl Drop for Announced {
    fn drop(&mut self) {
        self.send.finish();
    }
}
