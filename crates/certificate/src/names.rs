//! Certificate selection by the server name (SNI) of the client.

use std::{
    collections::HashMap,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};

use rustls::{
    pki_types::CertificateDer,
    server::{ClientHello, ResolvesServerCert},
    sign::CertifiedKey,
};

/// Certificates in use. A server name is looked up verbatim, then with its first label as a wildcard; for an
/// unknown name, an address or no name the first certificate is selected.
#[derive(Default)]
pub(super) struct CertificateResolver {
    table: RwLock<Arc<Table>>,
}

/// Certificates by name, in the order they were given.
#[derive(Default)]
pub(super) struct Table {
    all: Vec<Arc<CertifiedKey>>,
    /// Index by lower-case name, including the `*.` of wildcards.
    by_name: HashMap<String, Vec<usize>>,
}

impl CertificateResolver {
    pub(super) fn set(&self, table: Table) {
        *self.table.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(table);
    }
}

impl Table {
    pub(super) fn add(&mut self, key: Arc<CertifiedKey>, names: Vec<String>) {
        let index = self.all.len();
        self.all.push(key);
        for name in names {
            let same = self.by_name.entry(name.to_ascii_lowercase()).or_default();
            same.push(index);
        }
    }

    /// Selects the certificate for `name`, preferably one whose key `fits`: of two for one name the client may
    /// support the signature scheme of only one.
    fn choose(&self, name: Option<&str>, fits: impl Fn(&CertifiedKey) -> bool) -> Option<Arc<CertifiedKey>> {
        let found = name.and_then(|name| self.find(&name.trim_end_matches('.').to_ascii_lowercase()));
        let of_name: Vec<_> = found.into_iter().flatten().filter_map(|index| self.all.get(*index)).collect();
        let best = of_name.iter().find(|key| fits(key)).or(of_name.first());
        best.copied().or(self.all.first()).cloned()
    }

    fn find(&self, name: &str) -> Option<&Vec<usize>> {
        let wildcard = || self.by_name.get(&format!("*.{}", name.split_once('.')?.1));
        self.by_name.get(name).or_else(wildcard)
    }
}

impl CertificateResolver {
    /// Leaf (DER) of the first certificate, the one for unknown server names.
    pub(super) fn first(&self) -> Option<CertificateDer<'static>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.all.first()?.cert.first().cloned()
    }

    /// The leaf of every chain (DER).
    pub(super) fn leaves(&self) -> Vec<CertificateDer<'static>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner);
        table.all.iter().filter_map(|key| key.cert.first().cloned()).collect()
    }
}

impl ResolvesServerCert for CertificateResolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let table = self.table.read().unwrap_or_else(PoisonError::into_inner).clone();
        let fits = |key: &CertifiedKey| key.key.choose_scheme(hello.signature_schemes()).is_some();
        table.choose(hello.server_name(), fits)
    }
}

impl fmt::Debug for CertificateResolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shown").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use super::*;
    use crate::Identity;

    fn table(names: &[&[&str]]) -> Table {
        let mut table = Table::default();
        for names in names {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            let identity = Identity::generate(&names, SystemTime::now()).unwrap();
            table.add(identity.certified().unwrap(), names);
        }
        table
    }

    /// Index of the selected certificate.
    fn chosen(table: &Table, name: Option<&str>, fits: impl Fn(&CertifiedKey) -> bool) -> Option<usize> {
        let key = table.choose(name, fits)?;
        table.all.iter().position(|other| Arc::ptr_eq(other, &key))
    }

    #[test]
    fn sni_matches_exact_name_then_wildcard_then_first() {
        let table = table(&[
            &["first.example"],
            &["*.wild.example", "wild.example"],
            &["a.wild.example"],
            &["UPPER.example"],
        ]);
        for (name, expected) in [
            (Some("first.example"), 0),
            (Some("a.wild.example"), 2),
            (Some("b.wild.example"), 1),
            (Some("wild.example"), 1),
            (Some("B.Wild.EXAMPLE"), 1),
            (Some("upper.example"), 3),
            (Some("upper.example."), 3),
            (Some("a.b.wild.example"), 0),
            (Some("*.wild.example"), 1),
            (Some(".wild.example"), 1),
            (Some("wild"), 0),
            (Some("example"), 0),
            (Some(""), 0),
            (Some("unknown.test"), 0),
            (None, 0),
        ] {
            assert_eq!(chosen(&table, name, |_| true), Some(expected), "{name:?}");
        }
        assert_eq!(chosen(&Table::default(), Some("x"), |_| true), None);
    }

    #[test]
    fn client_gets_the_certificate_it_can_verify() {
        let table = table(&[&["other.example"], &["one.example"], &["one.example"]]);
        let second = table.all[2].clone();
        let fits_second = |key: &CertifiedKey| std::ptr::eq(key, Arc::as_ptr(&second));
        assert_eq!(chosen(&table, Some("one.example"), |_| true), Some(1));
        assert_eq!(chosen(&table, Some("one.example"), fits_second), Some(2));
        assert_eq!(chosen(&table, Some("one.example"), |_| false), Some(1), "the handshake then fails");
    }
}
