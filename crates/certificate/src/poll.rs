//! A certificate, and a set of authorities, each reloaded when its files change.

use std::{path::PathBuf, sync::Arc, time::SystemTime};

use relay_config::{CertFiles, Diagnostic};
use relay_worker::Clients;
use rustls::{pki_types::CertificateDer, sign::CertifiedKey};

use super::{
    CertificateEvent, CertificateLoadError, Identity,
    countdown::Countdown,
    date, ending, pem, warnings,
    watched::{Contents, Digest, FailureLimit, FilePoll, Watched},
};

/// A certificate in use.
pub(super) struct CertificateInUse {
    source: CertificateSource,
    pub(super) identity: Identity,
    pub(super) certified: Arc<CertifiedKey>,
    countdown: Countdown,
    /// Warnings logged when it was loaded, other than about its expiry.
    doubts: Vec<Diagnostic>,
    pub(super) failure_log: FailureLimit,
}

enum CertificateSource {
    Files(CertFiles, Watched),
    Made(Vec<String>),
}

impl CertificateInUse {
    /// Loads a pair. An expired one is accepted: refusing to start would also stop the services that need no
    /// certificate.
    pub(super) fn read(pair: &CertFiles, now: SystemTime) -> Result<Self, CertificateLoadError> {
        let (watched, contents) = Watched::new(vec![pair.cert.clone(), pair.key.clone()]);
        let identity = identity(pair, contents)?;
        let mut kept = Self::of(CertificateSource::Files(pair.clone(), watched), identity)?;
        // The start logs both.
        kept.doubts = kept.lasting_warnings(now);
        kept.countdown.is_due(kept.identity.lifetime(), kept.identity.remaining(now), now);
        Ok(kept)
    }

    /// Generates a certificate.
    pub(super) fn made(names: &[String], now: SystemTime) -> Result<Self, CertificateLoadError> {
        Self::of(CertificateSource::Made(names.to_vec()), Identity::generate(names, now)?)
    }

    fn of(source: CertificateSource, identity: Identity) -> Result<Self, CertificateLoadError> {
        let certified =
            identity.certified().map_err(|error| CertificateLoadError::Generate(error.to_string()))?;
        let (countdown, said) = (Countdown::default(), FailureLimit::default());
        Ok(Self { source, identity, certified, countdown, doubts: Vec::new(), failure_log: said })
    }

    /// Warnings about it.
    pub(super) fn current_warnings(&self, now: SystemTime) -> Vec<Diagnostic> {
        match &self.source {
            CertificateSource::Files(CertFiles { cert, key }, _) => warnings(&self.identity, cert, key, now),
            CertificateSource::Made(_) => Vec::new(),
        }
    }

    /// Polls the files, or renews a generated certificate. Returns whether the certificate changed.
    pub(super) fn poll(&mut self, now: SystemTime, hurry: bool, news: &mut Vec<CertificateEvent>) -> bool {
        let next = match &mut self.source {
            CertificateSource::Made(names) => {
                self.identity.is_to_be_renewed(now).then(|| Identity::generate(names, now))
            }
            CertificateSource::Files(pair, watched) => match watched.poll(hurry) {
                FilePoll::Unsettled => None,
                FilePoll::Used => {
                    if self.failure_log.is_over() {
                        news.push(CertificateEvent::Recovered(watched.shown()));
                    }
                    None
                }
                FilePoll::Other(contents, digest) => {
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

    fn take(
        &mut self,
        next: Result<Identity, CertificateLoadError>,
        now: SystemTime,
        news: &mut Vec<CertificateEvent>,
    ) -> bool {
        let made = next.and_then(|next| {
            let certified =
                next.certified().map_err(|error| CertificateLoadError::Generate(error.to_string()))?;
            Ok((next, certified))
        });
        let (identity, certified) = match made {
            Ok(made) => made,
            Err(error) => {
                self.report_unusable(&error, now, news);
                return false;
            }
        };
        (self.identity, self.certified) = (identity, certified);
        (self.countdown, self.failure_log) = (Countdown::default(), FailureLimit::default());
        news.push(self.shown());
        let doubts = self.lasting_warnings(now);
        let new = doubts.iter().filter(|doubt| !self.doubts.contains(doubt)).cloned();
        news.extend(new.map(CertificateEvent::Warning));
        self.doubts = doubts;
        true
    }

    /// Warnings about it other than about its expiry.
    fn lasting_warnings(&self, now: SystemTime) -> Vec<Diagnostic> {
        let end = self.ending(now);
        self.current_warnings(now).into_iter().filter(|doubt| end.as_ref() != Some(doubt)).collect()
    }

    /// The event that this certificate is in use.
    pub(super) fn shown(&self) -> CertificateEvent {
        let from = match &self.source {
            CertificateSource::Files(pair, _) => pair.cert.display().to_string(),
            CertificateSource::Made(_) => "made here".to_owned(),
        };
        let (until, fingerprint) = (date(self.identity.not_after()), self.identity.fingerprint());
        CertificateEvent::Shown { from, names: self.identity.names(), until, fingerprint }
    }

    /// Reports that the new files cannot be used.
    fn report_unusable(
        &mut self,
        error: &CertificateLoadError,
        now: SystemTime,
        news: &mut Vec<CertificateEvent>,
    ) {
        let Diagnostic { problem: what, remedy: todo } = error.diagnostic();
        if self.failure_log.is_due(what.clone(), now) {
            let end = date(self.identity.not_after());
            let till = if self.identity.remaining(now).is_zero() { "expired on" } else { "valid until" };
            let what = format!("{what}; keeping the previous certificate, {till} {end}");
            news.push(CertificateEvent::Kept(Diagnostic { problem: what, remedy: todo }));
        }
    }

    fn count_down(&mut self, now: SystemTime, news: &mut Vec<CertificateEvent>) {
        let (lifetime, remaining) = (self.identity.lifetime(), self.identity.remaining(now));
        if let Some(end) = self.ending(now)
            && self.countdown.is_due(lifetime, remaining, now)
        {
            let is_valid = self.identity.is_valid_at(now);
            news.push(if is_valid { CertificateEvent::Ending(end) } else { CertificateEvent::Invalid(end) });
        }
    }

    /// Warning that it expires soon or is invalid; none for a generated one, which is renewed.
    pub(super) fn ending(&self, now: SystemTime) -> Option<Diagnostic> {
        match &self.source {
            CertificateSource::Files(pair, _) => ending(&self.identity, &pair.cert, now),
            CertificateSource::Made(_) => None,
        }
    }
}

fn identity(pair: &CertFiles, contents: Contents) -> Result<Identity, CertificateLoadError> {
    let mut contents = contents.into_iter();
    let mut next = || contents.next().unwrap_or_else(|| Ok(Vec::new()));
    let (cert, key) = (next(), next());
    Identity::of(&pair.cert, &cert?, &pair.key, &key?)
}

/// Client authorities, reloaded when their files change.
pub(super) struct Roots {
    watched: Watched,
    pub(super) clients: Arc<Clients>,
    pub(super) said: FailureLimit,
}

impl Roots {
    /// Loads the authorities.
    pub(super) fn read(files: &[PathBuf]) -> Result<Self, CertificateLoadError> {
        let (watched, contents) = Watched::new(files.to_vec());
        let roots = roots(files, contents)?;
        let unusable = |error: relay_worker::RootsError| CertificateLoadError::UnusableRoot {
            file: files.first().cloned().unwrap_or_default(),
            why: error.to_string(),
        };
        let clients = Arc::new(Clients::new(&roots).map_err(unusable)?);
        Ok(Self { watched, clients, said: FailureLimit::default() })
    }

    /// Polls the files and applies changes.
    pub(super) fn look(&mut self, now: SystemTime, hurry: bool, news: &mut Vec<CertificateEvent>) {
        match self.watched.poll(hurry) {
            FilePoll::Unsettled => {}
            FilePoll::Used => {
                if self.said.is_over() {
                    news.push(CertificateEvent::Recovered(self.watched.shown()));
                }
            }
            FilePoll::Other(contents, digest) => match self.take(contents, digest) {
                Ok(count) => {
                    self.said = FailureLimit::default();
                    news.push(CertificateEvent::Roots { from: self.watched.shown(), count });
                }
                Err(Diagnostic { problem: what, remedy: todo }) if self.said.is_due(what.clone(), now) => {
                    let what = format!("{what}; keeping the previous client authorities");
                    news.push(CertificateEvent::Kept(Diagnostic { problem: what, remedy: todo }));
                }
                Err(_) => {}
            },
        }
    }

    fn take(&mut self, contents: Contents, digest: Digest) -> Result<usize, Diagnostic> {
        let roots = roots(self.watched.files(), contents).map_err(|error| error.diagnostic())?;
        self.clients
            .replace(&roots)
            .map_err(|error| Diagnostic::new(error.to_string(), "correct `tls.root`"))?;
        self.watched.used(digest);
        Ok(roots.len())
    }
}

/// Counts the authorities in `files`.
///
/// # Errors
/// One of them cannot be used.
pub fn authorities(files: &[PathBuf]) -> Result<usize, CertificateLoadError> {
    let contents = files.iter().map(|file| pem::read(file)).collect();
    roots(files, contents).map(|roots| roots.len())
}

/// The authorities in all of the files.
fn roots(
    files: &[PathBuf],
    contents: Contents,
) -> Result<Vec<CertificateDer<'static>>, CertificateLoadError> {
    let mut all = Vec::new();
    for (file, content) in files.iter().zip(contents) {
        let some = pem::certificates(file, &content?)?;
        // Checked file by file, so that an error names the file.
        Clients::new(&some).map_err(|error| CertificateLoadError::UnusableRoot {
            file: file.clone(),
            why: error.to_string(),
        })?;
        all.extend(some);
    }
    Ok(all)
}
