//! Promise: `check` explains a file before it is run, and its output matches the golden files.
//!
//! `UPDATE_GOLDEN=1 cargo test -p moq-relay --test config_check` rewrites them.

#![allow(missing_docs)]

mod common;

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Output,
};

use tempfile::TempDir;

use common::relay;

fn here(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests").join(folder)
}

/// All fixtures and the certificate they name, in a new folder.
fn fixtures() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    for from in [here("fixtures"), here("fixtures/refused")] {
        for entry in fs::read_dir(from).unwrap() {
            let path = entry.unwrap().path();
            if path.is_file() {
                fs::copy(&path, folder.path().join(path.file_name().unwrap())).unwrap();
            }
        }
    }
    certify(&folder, time::OffsetDateTime::now_utc() + time::Duration::days(36_500));
    folder
}

/// Writes a certificate that expires at `end`.
fn certify(folder: &TempDir, end: time::OffsetDateTime) {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["relay.example.com".into(), "127.0.0.1".into()];
    let mut params = rcgen::CertificateParams::new(names).unwrap();
    params.not_after = end;
    let certificate = params.self_signed(&key).unwrap();
    for (name, text) in
        [("cert.pem", certificate.pem()), ("ca.pem", certificate.pem()), ("key.pem", key.serialize_pem())]
    {
        fs::write(folder.path().join(name), text).unwrap();
    }
}

fn check(folder: &TempDir, args: &[&str], variables: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = relay();
    command.current_dir(folder.path()).arg("check").args(args).envs(variables.iter().copied());
    let Output { status, stdout, stderr } = command.output().unwrap();
    let said = String::from_utf8(stdout).unwrap() + &String::from_utf8(stderr).unwrap();
    (status.code(), said)
}

/// Masks values that depend on the machine or the day.
fn masked(said: &str) -> String {
    let line = |line: &str| {
        let label = line.split_whitespace().next().unwrap_or_default().trim_matches(['"', ':']);
        let is_text = line.starts_with("  ") && !line.contains(':') || line.contains("ceiling");
        match label {
            "memory" | "cache" | "ceiling" | "workers" | "SHA-256" | "valid" if is_text => {
                format!("  {label:<12} MASKED")
            }
            "memory_bytes" | "cache_bytes" | "ceiling_bytes" | "workers" | "sha256" | "days" | "until" => {
                format!("{}\"{label}\": MASKED", &line[..line.len() - line.trim_start().len()])
            }
            _ => line.to_owned(),
        }
    };
    said.lines().map(|text| line(text) + "\n").collect()
}

fn golden(name: &str, said: &str) {
    let file = here("golden/check").join(name);
    let said = masked(said);
    if env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&file, &said).unwrap();
    }
    let expected = fs::read_to_string(&file).unwrap_or_default();
    assert!(said == expected, "{} should hold (UPDATE_GOLDEN=1 writes it):\n{said}", file.display());
}

#[test]
fn check_output_matches_the_golden_files() {
    let folder = fixtures();
    for (name, starts) in [
        ("seed", false),
        ("minimal", true),
        ("dev-0.14", true),
        ("open-0.14", true),
        ("prod-0.14", false),
        ("leaf-0.14", false),
        ("root-0.14", true),
        ("edge-0.17", true),
        ("auth-0.17", true),
        ("syntax", false),
        ("unknown-key", false),
        ("wrong-value", false),
        ("two-spellings", false),
        ("half-certificate", false),
        ("certificates", false),
        ("combinations", false),
        ("stream-only", false),
        ("nobody", false),
        ("no-certificate", false),
    ] {
        let (code, said) = check(&folder, &[&format!("{name}.toml")], &[]);
        golden(&format!("{name}.txt"), &said);
        assert_eq!(code, Some(i32::from(!starts)), "{name}: {said}");
    }
}

#[test]
fn check_json_matches_the_golden_files() {
    let folder = fixtures();
    let (code, said) = check(&folder, &["open-0.14.toml", "--json"], &[]);
    assert_eq!(code, Some(0));
    golden("open-0.14.json", &said);
    let (code, said) = check(&folder, &["unknown-key.toml", "--json"], &[]);
    assert_eq!(code, Some(1));
    golden("unknown-key.json", &said);
}

#[test]
fn check_names_the_layer_of_every_value() {
    let folder = fixtures();
    let variables =
        [("MOQ_CACHE_DURATION", "2m"), ("MOQ_SERVER_BIND", "127.0.0.1:1"), ("MOQ_CACHE_HEADROM", "1")];
    let line = ["minimal.toml", "--cache-duration", "90s", "--tls-generate", "localhost"];
    let (code, said) = check(&folder, &line, &variables);
    assert_eq!(code, Some(0), "{said}");
    golden("layers.txt", &said);
}

#[test]
fn check_needs_no_file() {
    let (code, said) = check(&fixtures(), &[], &[]);
    assert_eq!(code, Some(0), "{said}");
    golden("no-file.txt", &said);
}

#[test]
fn a_wrong_command_line_is_a_usage_error() {
    let folder = fixtures();
    for line in [&["--nonsense"][..], &["--cache-duration", "soon"], &["a.toml", "b.toml"]] {
        assert_eq!(check(&folder, line, &[]).0, Some(2), "{line:?}");
    }
    let (code, said) = check(&folder, &["absent.toml"], &[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("cannot read absent.toml: No such file"), "{said}");
}

#[test]
fn certificate_about_to_end_or_expired_is_a_warning() {
    let folder = fixtures();
    let now = time::OffsetDateTime::now_utc();
    certify(&folder, now + time::Duration::hours(5 * 24 + 1));
    let (code, said) = check(&folder, &["open-0.14.toml"], &[]);
    assert_eq!(code, Some(0));
    assert!(
        said.contains("  the certificate in cert.pem expires on ") && said.contains(", in 5 days; renew it"),
        "{said}"
    );
    certify(&folder, now - time::Duration::days(2));
    let (code, said) = check(&folder, &["open-0.14.toml"], &[]);
    assert_eq!(code, Some(0));
    assert!(said.contains("  the certificate in cert.pem expired on "), "{said}");
}

#[test]
fn hazards_are_named() {
    let folder = fixtures();
    let line = ["minimal.toml", "--drain-timeout", "5m", "--auth-takeover", "any", "--bind", "[::]:0"];
    let (code, said) = check(&folder, &line, &[]);
    assert_eq!(code, Some(0), "{said}");
    for expected in [
        "systemd kills after 90s",
        "any client that may publish a path may take it over",
        "port 0 takes a free one",
    ] {
        assert!(said.contains(expected), "{said}");
    }
    let (_, said) = check(&folder, &["minimal.toml", "--auth-public", "**"], &[]);
    assert!(
        said.contains("anybody who reaches this address may publish and subscribe to everything"),
        "{said}"
    );
    let (_, said) = check(&folder, &["minimal.toml", "--auth-public", "**", "--bind", "127.0.0.1:1"], &[]);
    assert!(!said.contains("anybody who reaches this address"), "loopback is no exposure: {said}");
}

#[test]
fn hosts_without_a_public_name_bring_a_warning() {
    let folder = fixtures();
    let said = |hosts: &str, more: &str| {
        let text = format!(
            "[tls]\ncert = \"cert.pem\"\nkey = \"key.pem\"\n[auth]\npublic = \"a\"\n[internal]\n\
             listen = \"127.0.0.1:9101\"\n[web]\nhosts = [{hosts}]\n{more}"
        );
        fs::write(folder.path().join("relay.toml"), text).unwrap();
        let (code, said) = check(&folder, &["relay.toml"], &[]);
        assert_eq!(code, Some(0), "{said}");
        said.contains("lists no public host name: requests for relay.example.com get 403")
    };
    let public = "https.listen = \"127.0.0.1:8443\"";
    assert!(said("\"relay\"", public));
    assert!(said("\"relay\", \"*.relay.example.com\"", public));
    for hosts in ["\"relay\", \"Relay.example.com\"", "\"*.example.com\""] {
        assert!(!said(hosts, public), "{hosts}");
    }
    assert!(!said("\"relay\", \"cdn.example.net\"", &format!("{public}\nurl = \"https://cdn.example.net\"")));
    assert!(!said("\"relay\"", ""), "nothing public");
}

#[test]
fn tcp_and_unix_listeners_are_listed_and_checked() {
    let folder = fixtures();
    let write = |text: &str| fs::write(folder.path().join("relay.toml"), text).unwrap();
    let good = "[server]\nbind = \"127.0.0.1:4443\"\ntcp.bind = \"127.0.0.1:4444\"\nunix.bind = \"relay.sock\"\n\
                [auth]\npublic = \"\"\n[internal]\nlisten = \"127.0.0.1:9101\"\n[web]\nhttp.listen = \"[::]:8080\"\n\
                https.listen = \"[::]:8443\"\nhttps.cert = \"cert.pem\"\nhttps.key = \"key.pem\"\n";
    write(good);
    let (code, said) = check(&folder, &["relay.toml"], &[]);
    assert_eq!(code, Some(0), "{said}");
    for line in [
        "  HTTP         [::]:8080, all interfaces, IPv6 and IPv4: HTTP, WebSocket (ws://)",
        "  HTTPS        [::]:8443, all interfaces, IPv6 and IPv4: HTTPS, WebSocket (wss://)",
        "  internal     127.0.0.1:9101, this machine only: for operators",
        "  TCP          127.0.0.1:4444, this machine only: sessions, without TLS",
        "  Unix         relay.sock: sessions",
        "certificates of HTTPS",
    ] {
        assert!(said.lines().any(|said| said.starts_with(line)), "{line}: {said}");
    }
    let (_, json) = check(&folder, &["relay.toml", "--json"], &[]);
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["listens"]["others"].as_array().map(Vec::len), Some(5), "{json:#}");
    write(&good.replace("cert.pem", "cdn.pem").replace("relay.sock", "/nonexistent/x.sock"));
    let (code, said) = check(&folder, &["relay.toml"], &[]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("relay.toml:12:14: there is no file cdn.pem; correct its name"), "{said}");
    assert!(
        said.contains("relay.toml:4:13: cannot listen on /nonexistent/x.sock: there is no folder"),
        "{said}"
    );
}
