//! All certificates of a relay, and what it asks of clients: the newest that can be used.

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use relay_worker::{Clients, Options, Tickets};
use rustls::server::ResolvesServerCert;

use super::{
    Error, Fingerprint, News,
    look::{Kept, Roots},
    names::{Shown, Table},
};
use crate::{config::Tls, trouble::Trouble};

/// The certificates in use. What cannot be used never replaces what can.
pub struct Store {
    /// Whoever asks for no name that is known gets this one.
    first: Kept,
    others: Vec<Kept>,
    roots: Option<Roots>,
    shown: Arc<Shown>,
    tickets: Arc<Tickets>,
    /// When the first of the certificates ends, in seconds since 1970.
    ends: Arc<AtomicU64>,
}

impl Store {
    /// Reads, or makes, what `tls` names; `roots`: files of the authorities that vouch for clients, none of
    /// which means that no client is asked.
    ///
    /// # Errors
    /// Anything of it cannot be used.
    pub fn open(tls: &Tls, roots: &[PathBuf], now: SystemTime) -> Result<Self, Error> {
        let mut all = match tls {
            Tls::Generated(names) => vec![Kept::made(names, now)?],
            Tls::Files(pairs) => pairs.iter().map(|pair| Kept::read(pair, now)).collect::<Result<_, _>>()?,
        }
        .into_iter();
        let first = all.next().ok_or_else(|| Error::Generate("none is named".to_owned()))?;
        let roots = if roots.is_empty() { None } else { Some(Roots::read(roots)?) };
        let (shown, tickets, ends) = (Arc::default(), Arc::default(), Arc::default());
        let store = Self { first, others: all.collect(), roots, shown, tickets, ends };
        store.show();
        Ok(store)
    }

    /// Has a relay show what is in use here, now and later.
    pub fn furnish(&self, options: &mut Options) {
        options.resolver = self.resolver();
        options.clients = self.clients();
        options.tickets = self.tickets.clone();
    }

    /// Gives the certificate of now.
    pub fn resolver(&self) -> Arc<dyn ResolvesServerCert> {
        self.shown.clone()
    }

    /// Whose certificates clients may show.
    pub fn clients(&self) -> Option<Arc<Clients>> {
        self.roots.as_ref().map(|roots| roots.clients.clone())
    }

    /// Of the certificate that is shown to clients that ask for no name.
    pub fn fingerprint(&self) -> Fingerprint {
        self.first.identity.fingerprint()
    }

    /// The same, of the one that is shown whenever it is asked for.
    pub fn fingerprint_of_now(&self) -> impl Fn() -> Option<Fingerprint> + Send + Sync + 'static {
        let shown = self.shown.clone();
        move || shown.first().map(|leaf| Fingerprint::of(&leaf))
    }

    /// The names and addresses of the certificates that are shown whenever it is asked for.
    pub fn names_of_now(&self) -> impl Fn() -> Vec<String> + Send + Sync + 'static {
        let shown = self.shown.clone();
        move || shown.leaves().iter().flat_map(|leaf| super::names_of(leaf)).collect()
    }

    /// See [`super::Identity::stable_secret`]; of the first certificate.
    pub fn stable_secret(&self) -> [u8; 32] {
        self.first.identity.stable_secret()
    }

    fn all(&self) -> impl Iterator<Item = &Kept> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// What the log should hold at the start: what is shown, and what is doubtful about it.
    pub fn opening(&self, now: SystemTime) -> Vec<News> {
        let of = |kept: &Kept| {
            let invalid = kept.ending(now).filter(|_| !kept.identity.is_valid_at(now));
            let doubts = kept.doubts(now).into_iter().map(|doubt| match &invalid {
                Some(invalid) if *invalid == doubt => News::Invalid(doubt),
                _ => News::Doubt(doubt),
            });
            std::iter::once(kept.shown()).chain(doubts).collect::<Vec<_>>()
        };
        self.all().flat_map(of).collect()
    }

    /// Takes up what is new in the files and renews what was made; to be called about twice a second. A change
    /// is believed when it is still there at the next look, or at once in a `hurry`. Returns what the log
    /// should hold.
    pub fn look(&mut self, now: SystemTime, hurry: bool) -> Vec<News> {
        let mut news = Vec::new();
        let mut changed = false;
        for kept in std::iter::once(&mut self.first).chain(&mut self.others) {
            changed |= kept.look(now, hurry, &mut news);
        }
        if changed {
            self.show();
            // After the certificate: who makes a whole handshake in between has it already.
            if let Err(error) = self.tickets.renew() {
                let todo = "clients that were here before see the new certificate later than others";
                let what = format!("no new keys for session tickets: {error}");
                news.push(News::Doubt(Trouble::new(what, todo)));
            }
        }
        if let Some(roots) = &mut self.roots {
            roots.look(now, hurry, &mut news);
        }
        if hurry && news.is_empty() {
            news.push(News::Unchanged);
        }
        news
    }

    /// What cannot be used now, if anything.
    pub fn trouble(&self) -> Option<&str> {
        let certificates = self.all().filter_map(|kept| kept.said.now());
        certificates.chain(self.roots.as_ref().and_then(|roots| roots.said.now())).next()
    }

    /// Gives the end of the certificate that ends first, of those shown whenever it is asked for.
    pub fn first_end(&self) -> impl Fn() -> SystemTime + Send + Sync + 'static {
        let ends = self.ends.clone();
        move || SystemTime::UNIX_EPOCH + Duration::from_secs(ends.load(Ordering::Relaxed))
    }

    fn show(&self) {
        let end = |kept: &Kept| kept.identity.not_after().duration_since(SystemTime::UNIX_EPOCH);
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
