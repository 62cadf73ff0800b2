use std::{
    fs,
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
    time::{Duration, SystemTime},
};

use rcgen::{BasicConstraints, CertificateParams, IsCa, KeyPair};
use relay_config::CertFiles;
use tempfile::TempDir;

use super::*;

const DAY: Duration = Duration::from_secs(24 * 3_600);

/// A PEM pair valid for `days` from `now`.
fn made(name: &str, now: SystemTime, days: u32) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
    params.not_before = now.into();
    params.not_after = (now + DAY * days).into();
    (params.self_signed(&key).unwrap().pem(), key.serialize_pem())
}

fn authority() -> String {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.self_signed(&KeyPair::generate().unwrap()).unwrap().pem()
}

/// A folder with a pair, and the store that watches it.
struct Bench {
    folder: TempDir,
    store: CertificateStore,
    now: SystemTime,
}

impl Bench {
    fn new() -> Self {
        Self::with(|folder, now| {
            let (cert, key) = made("a.example", now, 90);
            fs::write(folder.join("cert.pem"), cert).unwrap();
            fs::write(folder.join("key.pem"), key).unwrap();
        })
    }

    fn with(fill: impl FnOnce(&Path, SystemTime)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        fill(folder.path(), now);
        let pair = CertFiles { cert: folder.path().join("cert.pem"), key: folder.path().join("key.pem") };
        let store = CertificateStore::open(&Tls::Files(vec![pair]), &[], now).unwrap();
        Self { folder, store, now }
    }

    fn write(&self, name: &str, text: &str) {
        let path = self.folder.path().join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn put(&self, (cert, key): &(String, String)) {
        self.write("cert.pem", cert);
        self.write("key.pem", key);
    }

    /// Polls once.
    fn look(&mut self) -> Vec<CertificateEvent> {
        self.now += Duration::from_millis(500);
        self.store.poll(self.now, false)
    }

    /// Polls as often as it takes to apply a change.
    fn settle(&mut self) -> Vec<CertificateEvent> {
        let mut news = self.look();
        news.extend(self.look());
        news
    }

    /// Text of the event that the new files cannot be used.
    fn kept(&mut self) -> String {
        match &self.settle()[..] {
            [CertificateEvent::Kept(trouble)] => trouble.to_string(),
            other => panic!("{other:?}"),
        }
    }
}

fn is_shown(news: &[CertificateEvent]) -> bool {
    matches!(news, [CertificateEvent::Shown { .. }, ..])
}

#[test]
fn new_pair_is_used_once_settled_or_at_once_in_a_hurry() {
    let mut bench = Bench::new();
    assert_eq!(bench.settle(), []);
    let first = bench.store.fingerprint();
    bench.put(&made("b.example", bench.now, 90));
    assert_eq!(bench.look(), [], "somebody may be writing still");
    assert_eq!(bench.store.fingerprint(), first);
    let news = bench.look();
    let [CertificateEvent::Shown { names, fingerprint, .. }] = &news[..] else { panic!("{news:?}") };
    assert_eq!((&names[..], *fingerprint), (&["b.example".to_owned()][..], bench.store.fingerprint()));
    assert_ne!(*fingerprint, first);
    bench.put(&made("c.example", bench.now, 90));
    assert!(is_shown(&bench.store.poll(bench.now, true)));
    assert_eq!(
        bench.store.poll(bench.now, true),
        [CertificateEvent::Unchanged],
        "a requested reload is answered"
    );
}

#[test]
fn unusable_pair_is_logged_once_and_replaces_nothing() {
    let mut bench = Bench::new();
    let good = (
        fs::read_to_string(bench.folder.path().join("cert.pem")).unwrap(),
        fs::read_to_string(bench.folder.path().join("key.pem")).unwrap(),
    );
    let first = bench.store.fingerprint();
    let torn = good.0.get(..good.0.len() / 2).unwrap().to_owned();
    let (other, other_key) = made("b.example", bench.now, 90);
    let expired = made("b.example", bench.now - DAY * 90, 80);
    for (cert, key, expected) in [
        (&torn, &good.1, "cert.pem is not valid PEM: "),
        (&good.0, &other_key, "does not belong to the certificate in "),
        (&other, &good.1, "does not belong to the certificate in "),
        (&expired.0, &expired.1, "cert.pem expired on "),
        (&String::new(), &good.1, "cert.pem: the file is empty"),
        (&good.1, &good.0, "it holds a private key"),
    ] {
        bench.write("cert.pem", cert);
        bench.write("key.pem", key);
        let said = bench.kept();
        assert!(said.contains(expected), "{said}");
        assert!(said.contains("; keeping the previous certificate, valid until 2"), "{said}");
        assert!(bench.store.failure().is_some_and(|trouble| trouble.contains(expected)));
        assert_eq!(bench.settle(), [], "once");
        assert_eq!(bench.store.fingerprint(), first);
        bench.put(&good);
        assert!(matches!(bench.settle()[..], [CertificateEvent::Recovered(_)]), "{expected}");
        assert_eq!(bench.store.failure(), None);
    }
    fs::remove_file(bench.folder.path().join("cert.pem")).unwrap();
    assert!(bench.kept().contains("there is no file "));
    fs::create_dir(bench.folder.path().join("cert.pem")).unwrap();
    assert!(bench.kept().contains("is a folder"), "another failure is logged");
    bench.now += DAY;
    assert!(bench.kept().contains("is a folder"), "a lasting one, once a day");
    assert_eq!(bench.store.fingerprint(), first);
    fs::remove_dir(bench.folder.path().join("cert.pem")).unwrap();
    bench.put(&(other, other_key));
    assert!(is_shown(&bench.settle()));
    assert_eq!(bench.store.failure(), None);
}

#[test]
fn warning_is_logged_when_it_is_new() {
    let mut bench = Bench::new();
    let open = |bench: &Bench| {
        let path = bench.folder.path().join("key.pem");
        fs::set_permissions(path, fs::Permissions::from_mode(0o644)).unwrap();
    };
    bench.put(&made("b.example", bench.now, 90));
    bench.settle();
    for expected in [1, 0] {
        bench.put(&made("b.example", bench.now, 90));
        open(&bench);
        let news = bench.settle();
        let doubts = news.iter().filter(|news| matches!(news, CertificateEvent::Warning(_))).count();
        assert!(is_shown(&news) && doubts == expected, "{news:?}");
    }
    bench.put(&made("b.example", bench.now, 3));
    let news = bench.settle();
    assert!(matches!(news[..], [CertificateEvent::Shown { .. }]), "three days are its whole life: {news:?}");
    bench.put(&made("b.example", bench.now - DAY * 80, 87));
    let news = bench.settle();
    assert!(
        matches!(news[..], [CertificateEvent::Shown { .. }, CertificateEvent::Ending(_)]),
        "the expiry is logged once: {news:?}"
    );
}

#[test]
fn pair_written_in_two_steps_is_used_when_complete() {
    let mut bench = Bench::new();
    let (cert, key) = made("b.example", bench.now, 90);
    bench.write("cert.pem", &cert);
    assert_eq!(bench.look(), [], "an incomplete pair logs nothing");
    bench.write("key.pem", &key);
    assert_eq!(bench.look(), []);
    assert!(is_shown(&bench.look()));
}

#[test]
fn retargeted_symlink_is_a_change() {
    // As certbot does: a link for each file.
    let mut bench = Bench::with(|folder, now| {
        for version in [1, 2] {
            let (cert, key) = made("a.example", now, 90);
            fs::write(folder.join(format!("cert{version}.pem")), cert).unwrap();
            fs::write(folder.join(format!("key{version}.pem")), key).unwrap();
        }
        symlink("cert1.pem", folder.join("cert.pem")).unwrap();
        symlink("key1.pem", folder.join("key.pem")).unwrap();
    });
    let first = bench.store.fingerprint();
    for (name, to) in [("cert.pem", "cert2.pem"), ("key.pem", "key2.pem")] {
        let path = bench.folder.path().join(name);
        fs::remove_file(&path).unwrap();
        symlink(to, path).unwrap();
    }
    assert!(is_shown(&bench.settle()));
    assert_ne!(bench.store.fingerprint(), first);

    // As Kubernetes does: a link to the folder of all files.
    let turn = |folder: &Path, version: u32, now| {
        let (cert, key) = made("a.example", now, 90);
        let of = folder.join(format!("..{version}"));
        fs::create_dir(&of).unwrap();
        fs::write(of.join("cert.pem"), cert).unwrap();
        fs::write(of.join("key.pem"), key).unwrap();
        symlink(format!("..{version}"), folder.join("..new")).unwrap();
        fs::rename(folder.join("..new"), folder.join("..data")).unwrap();
    };
    let mut bench = Bench::with(|folder, now| {
        turn(folder, 1, now);
        symlink("..data/cert.pem", folder.join("cert.pem")).unwrap();
        symlink("..data/key.pem", folder.join("key.pem")).unwrap();
    });
    turn(bench.folder.path(), 2, bench.now);
    assert!(is_shown(&bench.settle()));
}

#[test]
fn certificate_not_yet_valid_is_used_once_valid() {
    let mut bench = Bench::new();
    bench.put(&made("b.example", bench.now + DAY, 90));
    let said = bench.kept();
    assert!(said.contains("is not valid before "), "{said}");
    bench.now += DAY;
    assert!(is_shown(&bench.look()));
}

#[test]
fn expired_certificate_does_not_prevent_the_start() {
    let mut bench = Bench::with(|folder, now| {
        let (cert, key) = made("a.example", now - DAY * 90, 60);
        fs::write(folder.join("cert.pem"), cert).unwrap();
        fs::write(folder.join("key.pem"), key).unwrap();
    });
    let news = bench.store.opening(bench.now);
    assert!(is_shown(&news), "{news:?}");
    let is_invalid = |news: &CertificateEvent| matches!(news, CertificateEvent::Invalid(trouble) if trouble.problem.contains("expired on"));
    assert!(news.iter().any(is_invalid), "{news:?}");
    bench.put(&made("b.example", bench.now, 90));
    assert!(is_shown(&bench.settle()));
}

#[test]
fn expiry_is_logged_ahead_until_a_new_certificate() {
    let mut bench = Bench::new();
    let mut all = Vec::new();
    for _ in 0..90 {
        bench.now += DAY;
        all.extend(bench.look());
    }
    assert_eq!(all.len(), 6, "{all:?}");
    assert!(all.iter().take(5).all(|news| matches!(news, CertificateEvent::Ending(_))), "{all:?}");
    assert!(
        matches!(&all[..], [.., CertificateEvent::Invalid(last)] if last.problem.contains("expired on")),
        "{all:?}"
    );
    bench.put(&made("b.example", bench.now, 90));
    assert!(is_shown(&bench.settle()));
    bench.now += DAY;
    assert_eq!(bench.settle(), []);
}

#[test]
fn generated_certificate_is_renewed_before_expiry() {
    let start = SystemTime::now();
    let mut store =
        CertificateStore::open(&Tls::Generated(vec!["relay.lan".to_owned()]), &[], start).unwrap();
    let first = store.fingerprint();
    assert_eq!(store.poll(start + DAY * 9, false), []);
    let news = store.poll(start + DAY * 11, false);
    let [CertificateEvent::Shown { names, fingerprint, .. }] = &news[..] else { panic!("{news:?}") };
    assert_eq!(names[..], ["relay.lan".to_owned()]);
    assert_ne!(*fingerprint, first);
    assert_eq!(store.poll(start + DAY * 12, false), []);
}

#[test]
fn new_certificate_invalidates_older_tickets() {
    let mut bench = Bench::new();
    bench.store.tickets.renew().unwrap();
    let before = bench.store.tickets.current().unwrap();
    let is_same = |bench: &Bench| Arc::ptr_eq(&before, &bench.store.tickets.current().unwrap());
    bench.settle();
    assert!(is_same(&bench));
    bench.put(&made("b.example", bench.now, 90));
    bench.settle();
    assert!(!is_same(&bench));
}

#[test]
fn authorities_are_reloaded_and_unusable_ones_ignored() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("one.pem"), folder.path().join("two.pem"));
    fs::write(&one, authority()).unwrap();
    fs::write(&two, authority() + &authority()).unwrap();
    let now = SystemTime::now();
    let tls = Tls::Generated(vec!["localhost".to_owned()]);
    let mut store = CertificateStore::open(&tls, &[one.clone(), two.clone()], now).unwrap();
    assert!(store.clients().is_some());
    fs::write(&two, authority()).unwrap();
    assert_eq!(store.poll(now, false), []);
    assert!(matches!(store.poll(now, false)[..], [CertificateEvent::Roots { count: 2, .. }]));
    let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    for (text, expected) in [("", "the file is empty"), (broken, "two.pem cannot be used: certificate 1 ")] {
        fs::write(&two, text).unwrap();
        let news = store.poll(now, true);
        let [CertificateEvent::Kept(trouble)] = &news[..] else { panic!("{news:?}") };
        let said = trouble.to_string();
        assert!(
            said.contains(expected) && said.contains("keeping the previous client authorities"),
            "{said}"
        );
        assert!(store.failure().is_some());
    }
    assert!(CertificateStore::open(&tls, &[one, two], now).is_err(), "the start fails");
    assert!(CertificateStore::open(&tls, &[], now).unwrap().clients().is_none(), "nobody is asked");
}
