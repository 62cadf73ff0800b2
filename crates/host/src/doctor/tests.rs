use std::{collections::BTreeSet, env, time::Duration};

use anstream::adapter::strip_str;
use relay_certificate::Fingerprint;
use relay_config::listeners::ListenerAddress;
use relay_worker::{Buffers, probe::Offload};
use time::macros::{date, datetime};

use super::{
    reading::{
        AddressState, Certificate, ClockReading, Files, HandshakeError, HandshakeResult, Ipv6,
        ListenerReading, PortState, RunningCertificate, TokenKeys, UsableCertificate,
    },
    *,
};
use crate::{
    diagnostics::{Diagnostic, holder::Holder},
    limits::memory::Reading,
};

const MIB: u64 = 1 << 20;

fn at(addr: &str) -> SocketAddr {
    addr.parse().unwrap()
}

fn port(standing: PortState) -> CheckVerdict {
    verdict::port(&Port { bind: at("[::]:4443"), standing })
}

fn taken(answers: &[Result<u64, &str>]) -> PortState {
    let took = |answer: &Result<u64, &str>| {
        answer.map(Duration::from_millis).map_err(|why| HandshakeError(why.to_owned()))
    };
    PortState::Taken {
        holder: Holder::Process { pid: 7, name: "moq-relay".to_owned() },
        answers: answers
            .iter()
            .map(|answer| HandshakeResult { at: at("127.0.0.1:4443"), took: took(answer), shown: None })
            .collect(),
    }
}

fn shown(doubts: Vec<Diagnostic>) -> Certificate {
    let names = vec!["relay.example.com".to_owned()];
    Certificate::Loaded(UsableCertificate { names, until: date!(2027 - 01 - 31), chain: 2, warnings: doubts })
}

/// Verdict on the configured certificate `named` of a relay that uses the certificate `one`.
fn in_use(named: Result<&[u8], Diagnostic>) -> CheckVerdict {
    let named = named.map(|named| (Fingerprint::of(named), date!(2027 - 01 - 31)));
    verdict::in_use(&RunningCertificate {
        file: "cert.pem".to_owned(),
        named,
        shown: Fingerprint::of(b"one"),
    })
}

fn relay() -> Holder {
    Holder::Process { pid: 7, name: "moq-relay".to_owned() }
}

fn entrance(vacancy: AddressState, is_optional: bool) -> CheckVerdict {
    let (name, key, place) = ("HTTP", "web.http.listen", ListenerAddress::Tcp(at("[::]:8080")));
    verdict::listener(&ListenerReading { name, key, place, vacancy, is_optional })
}

fn memory_of(mib: u64) -> Reading {
    Reading { limit: mib * MIB, free: mib * MIB / 2, resident: MIB }
}

fn files_of(hard: Option<u64>) -> Files {
    Files { hard, needed: 22, workers: 2 }
}

fn buffers_of(kib: usize) -> Buffers {
    Buffers { wanted: 8 << 20, recv: kib * 1_024, send: kib * 1_024 }
}

fn clock_of(now: time::OffsetDateTime, keeper: Option<&str>) -> CheckVerdict {
    verdict::clock(&ClockReading { now, time_service: keeper.map(str::to_owned) })
}

/// Every possible verdict, good ones first per check.
fn all() -> Vec<(&'static str, CheckVerdict)> {
    let denied = Err::<(), _>("Operation not permitted");
    let doubt = || Diagnostic::new("the chain is incomplete", "use fullchain.pem");
    let missing = Ipv6::Missing("Cannot assign requested address".to_owned());
    let free = |via: &str, arrived| PortState::Free { via: via.parse().unwrap(), arrived };
    let only = |certificate: &Certificate| verdict::certificate(certificate).remove(0);
    vec![
        ("configuration", verdict::configuration(Some(Path::new("relay.toml")), None)),
        ("configuration", verdict::configuration(None, None)),
        ("configuration", verdict::configuration(Some(Path::new("x")), Some("x:1:2: unknown key `sever`"))),
        ("cores", verdict::cores(4, 4)),
        ("cores", verdict::cores(2, 4)),
        ("memory", verdict::memory(&memory_of(2_048), 800 * MIB)),
        ("memory", verdict::memory(&memory_of(128), 51 * MIB)),
        ("memory", verdict::memory(&memory_of(32), 12 * MIB)),
        ("open files", verdict::files(&files_of(Some(65_536)))),
        ("open files", verdict::files(&files_of(None))),
        ("open files", verdict::files(&files_of(Some(1_024)))),
        ("open files", verdict::files(&files_of(Some(20)))),
        ("clock", clock_of(datetime!(2026-11-25 11:04:12 UTC), Some("chronyd"))),
        ("clock", clock_of(datetime!(2026-11-25 11:04:12 UTC), None)),
        ("clock", clock_of(datetime!(1970-01-01 00:00:09 UTC), None)),
        ("buffers", verdict::buffers(buffers_of(8_192))),
        ("buffers", verdict::buffers(buffers_of(208))),
        ("buffers", verdict::no_socket(&"Operation not permitted")),
        ("offload", verdict::offload(&Offload { send: 64, receive: 64 })),
        ("offload", verdict::offload(&Offload { send: 1, receive: 64 })),
        ("offload", verdict::offload(&Offload { send: 64, receive: 1 })),
        ("offload", verdict::no_socket(&"Operation not permitted")),
        ("steering", verdict::steering(&Ok::<(), &str>(()))),
        ("steering", verdict::steering(&denied)),
        ("certificate", only(&Certificate::Generated)),
        ("certificate", only(&Certificate::Authorities(1))),
        ("certificate", only(&shown(Vec::new()))),
        ("certificate", only(&shown(vec![doubt()]))),
        ("certificate", only(&Certificate::Refused(Diagnostic::new("there is no file x", "correct [tls]")))),
        ("IPv6", verdict::ipv6(&Ipv6::Global, at("[::]:4443"))),
        ("IPv6", verdict::ipv6(&Ipv6::Local, at("[::]:4443"))),
        ("IPv6", verdict::ipv6(&missing, at("0.0.0.0:4443"))),
        ("IPv6", verdict::ipv6(&missing, at("[::]:4443"))),
        ("IPv6", verdict::ipv6(&missing, at("[2001:db8::1]:4443"))),
        ("keys", verdict::keys(&TokenKeys::None)),
        ("keys", verdict::keys(&TokenKeys::Usable("auth.key"))),
        (
            "keys",
            verdict::keys(&TokenKeys::Unusable("auth.key", "root.jwk: there is no such file".to_owned())),
        ),
        ("listener", entrance(AddressState::Free, false)),
        ("listener", entrance(AddressState::OfRelay(relay()), false)),
        ("listener", entrance(AddressState::Taken(relay()), false)),
        ("listener", entrance(AddressState::Taken(Holder::Unknown), true)),
        (
            "listener",
            entrance(AddressState::Refused(Diagnostic::new("not allowed", "use another port")), false),
        ),
        ("port", port(free("192.0.2.7", true))),
        ("port", port(free("127.0.0.1", true))),
        ("port", port(free("192.0.2.7", false))),
        ("port", port(taken(&[Ok(2), Ok(3)]))),
        ("port", port(taken(&[Ok(2), Err("connect timed out")]))),
        ("port", port(taken(&[Err("connect timed out")]))),
        ("port", port(PortState::Refused(Diagnostic::new("not allowed", "use another port")))),
        ("running", verdict::running(&Port { bind: at("[::]:4443"), standing: free("::1", true) })),
        ("running", verdict::running(&Port { bind: at("[::]:4443"), standing: taken(&[Ok(2)]) })),
        ("in use", in_use(Ok(b"one"))),
        ("in use", in_use(Ok(b"two"))),
        ("in use", in_use(Err(Diagnostic::new("there is no file x", "correct [tls]")))),
    ]
}

#[test]
fn every_verdict_matches_its_golden_text() {
    let findings = all().into_iter().map(|(check, verdict)| Finding { check, verdict }).collect();
    let report = DoctorReport { findings };
    golden("verdicts.txt", &strip_str(&report.to_string()).to_string());
    golden("verdicts.json", &format!("{:#}\n", report.json()));
}

#[test]
fn every_check_has_a_good_and_a_bad_verdict() {
    let (mut well, mut bad) = (BTreeSet::new(), BTreeSet::new());
    for (check, verdict) in all() {
        if verdict.diagnostic().is_some() {
            bad.insert(check)
        } else {
            well.insert(check)
        };
    }
    assert_eq!(well, bad);
}

#[test]
fn status_is_coloured_and_can_be_stripped() {
    let findings = vec![Finding { check: "cores", verdict: verdict::cores(2, 2) }];
    let coloured = DoctorReport { findings }.to_string();
    let plain = strip_str(&coloured).to_string();
    assert!(!plain.contains('\x1b') && coloured.contains("\x1b[32mok"));
    assert!(plain.ends_with("\nAll is well.\n"));
}

/// Compares with a golden file; `GOLDEN=write` rewrites it.
fn golden(name: &str, text: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/doctor").join(name);
    if env::var_os("GOLDEN").is_some_and(|value| value == "write") {
        std::fs::create_dir_all(file.parent().unwrap()).unwrap();
        std::fs::write(&file, text).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&file).unwrap_or_default(), text, "{}", file.display());
}
