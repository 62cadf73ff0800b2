//! A certificate, and a set of authorities, each reloaded when its files change.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use relay_worker::Clients;
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};

use super::{
    Error, Identity, News,
    countdown::Countdown,
    date, ending, pem, warnings,
    watched::{Contents, Digest, Look, Said, Watched},
};
use crate::{config::Pair, trouble::Trouble};

/// A certificate in use.
pub(super) struct Kept {
    source: Source,
    pub(super) identity: Identity,
    pub(super) certified: Arc<CertifiedKey>,
    countdown: Countdown,
    /// Warnings logged when it was loaded, other than about its expiry.
    doubts: Vec<Trouble>,
    pub(super) said: Said,
}

enum Source {
    Files(Pair, Watched),
    Made(Vec<String>),
}

impl Kept {
    /// Loads a pair. An expired one is accepted: refusing to start would also stop the services that need no
    /// certificate.
    pub(super) fn read(pair: &Pair, now: SystemTime) -> Result<Self, Error> {
        let (watched, contents) = Watched::new(vec![pair.cert.clone(), pair.key.clone()]);
        let identity = identity(pair, contents)?;
        let mut kept = Self::of(Source::Files(pair.clone(), watched), identity)?;
        // The start logs both.
        kept.doubts = kept.lasting_doubts(now);
        kept.countdown.is_due(kept.identity.lifetime(), kept.identity.remaining(now), now);
        Ok(kept)
    }

    /// Generates a certificate.
    pub(super) fn made(names: &[String], now: SystemTime) -> Result<Self, Error> {
        Self::of(Source::Made(names.to_vec()), Identity::generate(names, now)?)
    }

    fn of(source: Source, identity: Identity) -> Result<Self, Error> {
        let certified = identity.certified().map_err(|error| Error::Generate(error.to_string()))?;
        let (countdown, said) = (Countdown::default(), Said::default());
        Ok(Self { source, identity, certified, countdown, doubts: Vec::new(), said })
    }

    /// Warnings about it.
    pub(super) fn doubts(&self, now: SystemTime) -> Vec<Trouble> {
        match &self.source {
            Source::Files(Pair { cert, key }, _) => warnings(&self.identity, cert, key, now),
            Source::Made(_) => Vec::new(),
        }
    }

    /// Polls the files, or renews a generated certificate. Returns whether the certificate changed.
    pub(super) fn look(&mut self, now: SystemTime, hurry: bool, news: &mut Vec<News>) -> bool {
        let next = match &mut self.source {
            Source::Made(names) => {
                self.identity.is_to_be_renewed(now).then(|| Identity::generate(names, now))
            }
            Source::Files(pair, watched) => match watched.look(hurry) {
                Look::Unsettled => None,
                Look::Used => {
                    if self.said.is_over() {
                        news.push(News::Well(watched.shown()));
                    }
                    None
                }
                Look::Other(contents, digest) => {
                    let next = identity(pair, contents).and_then(|next| {
                        next.valid_at(&pair.cert, now)?;
                        Ok(next)
                    });
                    if next.is_ok() {
                        watched.used(digest);
                    }
                    Some(next)
                }
            },
        };
        let taken = next.is_some_and(|next| self.take(next, now, news));
        self.count_down(now, news);
        taken
    }

    fn take(&mut self, next: Result<Identity, Error>, now: SystemTime, news: &mut Vec<News>) -> bool {
        let made = next.and_then(|next| {
            let certified = next.certified().map_err(|error| Error::Generate(error.to_string()))?;
            Ok((next, certified))
        });
        let (identity, certified) = match made {
            Ok(made) => made,
            Err(error) => {
                self.keep(&error, now, news);
                return false;
            }
        };
        (self.identity, self.certified) = (identity, certified);
        (self.countdown, self.said) = (Countdown::default(), Said::default());
        news.push(self.shown());
        let doubts = self.lasting_doubts(now);
        let new = doubts.iter().filter(|doubt| !self.doubts.contains(doubt)).cloned();
        news.extend(new.map(News::Doubt));
        self.doubts = doubts;
        true
    }

    /// Warnings about it other than about its expiry.
    fn lasting_doubts(&self, now: SystemTime) -> Vec<Trouble> {
        let end = self.ending(now);
        self.doubts(now).into_iter().filter(|doubt| end.as_ref() != Some(doubt)).collect()
    }

    /// The event that this certificate is in use.
    pub(super) fn shown(&self) -> News {
        let from = match &self.source {
            Source::Files(pair, _) => pair.cert.display().to_string(),
            Source::Made(_) => "made here".to_owned(),
        };
        let (until, fingerprint) = (date(self.identity.not_after()), self.identity.fingerprint());
        News::Shown { from, names: self.identity.names(), until, fingerprint }
    }

    /// Reports that the new files cannot be used.
    fn keep(&mut self, error: &Error, now: SystemTime, news: &mut Vec<News>) {
        let Trouble { what, todo } = error.trouble();
        if self.said.is_due(what.clone(), now) {
            let end = date(self.identity.not_after());
            let till = if self.identity.remaining(now).is_zero() { "expired on" } else { "valid until" };
            let what = format!("{what}; keeping the previous certificate, {till} {end}");
            news.push(News::Kept(Trouble { what, todo }));
        }
    }

    fn count_down(&mut self, now: SystemTime, news: &mut Vec<News>) {
        let (lifetime, remaining) = (self.identity.lifetime(), self.identity.remaining(now));
        if let Some(end) = self.ending(now)
            && self.countdown.is_due(lifetime, remaining, now)
        {
            let is_valid = self.identity.is_valid_at(now);
            news.push(if is_valid { News::Ending(end) } else { News::Invalid(end) });
        }
    }

    /// Warning that it expires soon or is invalid; none for a generated one, which is renewed.
    pub(super) fn ending(&self, now: SystemTime) -> Option<Trouble> {
        match &self.source {
            Source::Files(pair, _) => ending(&self.identity, &pair.cert, now),
            Source::Made(_) => None,
        }
    }
}

fn identity(pair: &Pair, contents: Contents) -> Result<Identity, Error> {
    let mut contents = contents.into_iter();
    let mut next = || contents.next().unwrap_or_else(|| Ok(Vec::new()));
    let (cert, key) = (next(), next());
    Identity::of(&pair.cert, &cert?, &pair.key, &key?)
}

/// Client authorities, reloaded when their files change.
pub(super) struct Roots {
    watched: Watched,
    pub(super) clients: Arc<Clients>,
    pub(super) said: Said,
}

impl Roots {
    /// Loads the authorities.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, Error> {
        let (watched, contents) = Watched::new(files.to_vec());
        let roots = roots(files, contents)?;
        let unusable = |error: relay_worker::RootsError| Error::UnusableRoot {
            file: files.first().cloned().unwrap_or_default(),
            why: error.to_string(),
        };
        let clients = Arc::new(Clients::new(&roots).map_err(unusable)?);
        Ok(Self { watched, clients, said: Said::default() })
    }

    /// Polls the files and applies changes.
    pub(super) fn look(&mut self, now: SystemTime, hurry: bool, news: &mut Vec<News>) {
        match self.watched.look(hurry) {
            Look::Unsettled => {}
            Look::Used => {
                if self.said.is_over() {
                    news.push(News::Well(self.watched.shown()));
                }
            }
            Look::Other(contents, digest) => match self.take(contents, digest) {
                Ok(count) => {
                    self.said = Said::default();
                    news.push(News::Roots { from: self.watched.shown(), count });
                }
                Err(Trouble { what, todo }) if self.said.is_due(what.clone(), now) => {
                    let what = format!("{what}; keeping the previous client authorities");
                    news.push(News::Kept(Trouble { what, todo }));
                }
                Err(_) => {}
            },
        }
    }

    fn take(&mut self, contents: Contents, digest: Digest) -> Result<usize, Trouble> {
        let roots = roots(self.watched.files(), contents).map_err(|error| error.trouble())?;
        self.clients
            .replace(&roots)
            .map_err(|error| Trouble::new(error.to_string(), "correct `tls.root`"))?;
        self.watched.used(digest);
        Ok(roots.len())
    }
}

/// Counts the authorities in `files`.
///
/// # Errors
/// One of them cannot be used.
pub(crate) fn authorities(files: &[PathBuf]) -> Result<usize, Error> {
    let contents = files.iter().map(|file| pem::read(file)).collect();
    roots(files, contents).map(|roots| roots.len())
}

/// The authorities in all of the files.
fn roots(files: &[PathBuf], contents: Contents) -> Result<Vec<CertificateDer<'static>>, Error> {
    let mut all = Vec::new();
    for (file, content) in files.iter().zip(contents) {
        let some = pem::certificates(file, &content?)?;
        // Checked file by file, so that an error names the file.
        Clients::new(&some)
            .map_err(|error| Error::UnusableRoot { file: file.clone(), why: error.to_string() })?;
        all.extend(some);
    }
    Ok(all)
}
