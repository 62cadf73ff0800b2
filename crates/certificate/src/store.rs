//! All server certificates and client authorities of a relay, in their newest usable version.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use relay_config::{Diagnostic, Tls};
use relay_worker::{Clients, RelayOptions, Tickets};
use rustls::server::ResolvesServerCert;

use super::{
    CertificateEvent, CertificateLoadError, Fingerprint,
    names::{CertificateResolver, Table},
    poll::{CertificateInUse, Roots},
};

/// Certificates in use. An unusable file never replaces a usable certificate.
pub struct CertificateStore {
    /// Certificate for clients without a known server name.
    first: CertificateInUse,
    others: Vec<CertificateInUse>,
    roots: Option<Roots>,
    shown: Arc<CertificateResolver>,
    tickets: Arc<Tickets>,
    /// Earliest `notAfter` of the certificates, Unix time in seconds.
    ends: Arc<AtomicU64>,
}

impl CertificateStore {
    /// Loads, or generates, the certificates that `tls` names. `roots`: files of client authorities; if empty, no
    /// client is asked for a certificate.
    ///
    /// # Errors
    /// A file cannot be used, or no certificate can be generated.
    pub fn open(tls: &Tls, roots: &[PathBuf], now: SystemTime) -> Result<Self, CertificateLoadError> {
        let mut all = match tls {
            Tls::Generated(names) => vec![CertificateInUse::made(names, now)?],
            Tls::Files(pairs) => {
                pairs.iter().map(|pair| CertificateInUse::read(pair, now)).collect::<Result<_, _>>()?
            }
        }
        .into_iter();
        let first = all.next().ok_or_else(|| CertificateLoadError::Generate("none is named".to_owned()))?;
        let roots = if roots.is_empty() { None } else { Some(Roots::read(roots)?) };
        let (shown, tickets, ends) = (Arc::default(), Arc::default(), Arc::default());
        let store = Self { first, others: all.collect(), roots, shown, tickets, ends };
        store.show();
        Ok(store)
    }

    /// Sets `options` to use these certificates, including later changes.
    pub fn configure(&self, options: &mut RelayOptions) {
        options.resolver = self.resolver();
        options.clients = self.clients();
        options.tickets = self.tickets.clone();
    }

    /// Resolver that selects among the current certificates.
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.shown.clone()
    }

    /// Verifier of client certificates, if there are authorities.
    pub fn clients(&self) -> Option<Arc<Clients>> {
        self.roots.as_ref().map(|roots| roots.clients.clone())
    }

    /// Fingerprint of the certificate for clients without a server name.
    pub fn fingerprint(&self) -> Fingerprint {
        self.first.identity.fingerprint()
    }

    /// Returns a function that gives that fingerprint at the time of each call.
    pub fn fingerprint_of_now(&self) -> impl Fn() -> Option<Fingerprint> + Send + Sync + 'static {
        let shown = self.shown.clone();
        move || shown.first().map(|leaf| Fingerprint::of(&leaf))
    }

    /// Returns a function that gives the names and addresses of the certificates in use at the time of each call.
    pub fn names_of_now(&self) -> impl Fn() -> Vec<String> + Send + Sync + 'static {
        let shown = self.shown.clone();
        move || shown.leaves().iter().flat_map(|leaf| super::names_of(leaf)).collect()
    }

    /// [`super::Identity::stable_secret`] of the first certificate.
    pub fn stable_secret(&self) -> [u8; 32] {
        self.first.identity.stable_secret()
    }

    fn all(&self) -> impl Iterator<Item = &CertificateInUse> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Events to log at the start: the certificates in use and warnings about them.
    pub fn opening(&self, now: SystemTime) -> Vec<CertificateEvent> {
        let of = |kept: &CertificateInUse| {
            let invalid = kept.ending(now).filter(|_| !kept.identity.is_valid_at(now));
            let doubts = kept.current_warnings(now).into_iter().map(|doubt| match &invalid {
                Some(invalid) if *invalid == doubt => CertificateEvent::Invalid(doubt),
                _ => CertificateEvent::Warning(doubt),
            });
            std::iter::once(kept.shown()).chain(doubts).collect::<Vec<_>>()
        };
        self.all().flat_map(of).collect()
    }

    /// Applies changes of the files and renews generated certificates; called about twice a second. A change is
    /// applied if it is still there at the next poll, or at once with `hurry`. Returns the events to log.
    pub fn poll(&mut self, now: SystemTime, hurry: bool) -> Vec<CertificateEvent> {
        let mut news = Vec::new();
        let mut changed = false;
        for kept in std::iter::once(&mut self.first).chain(&mut self.others) {
            changed |= kept.poll(now, hurry, &mut news);
        }
        if changed {
            self.show();
            // After the certificate, so that a full handshake in between already uses the new one.
            if let Err(error) = self.tickets.renew() {
                let todo = "resumed sessions get the new certificate later than others";
                let what = format!("no new keys for session tickets: {error}");
                news.push(CertificateEvent::Warning(Diagnostic::new(what, todo)));
            }
        }
        if let Some(roots) = &mut self.roots {
            roots.look(now, hurry, &mut news);
        }
        if hurry && news.is_empty() {
            news.push(CertificateEvent::Unchanged);
        }
        news
    }

    /// A current failure to use the files, if any.
    pub fn failure(&self) -> Option<&str> {
        let certificates = self.all().filter_map(|kept| kept.failure_log.now());
        certificates.chain(self.roots.as_ref().and_then(|roots| roots.said.now())).next()
    }

    /// Returns a function that gives the earliest `notAfter` of the certificates in use at the time of each call.
    pub fn first_end(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let ends = self.ends.clone();
        move || SystemTime::UNIX_EPOCH + Duration::from_secs(ends.load(Ordering::Relaxed))
    }

    fn show(&self) {
        let end = |kept: &CertificateInUse| kept.identity.not_after().duration_since(SystemTime::UNIX_EPOCH);
        let first = self.all().map(|kept| end(kept).unwrap_or_default().as_secs()).min();
        self.ends.store(first.unwrap_or_default(), Ordering::Relaxed);
        let mut table = Table::default();
        for kept in self.all() {
            table.add(kept.certified.clone(), kept.identity.names());
        }
        self.shown.set(table);
    }
}

#[cfg(test)]
mod tests;
