//! Promise: this binary alone generates keys and tokens, keeps secrets in their files, and judges a token as a relay
//! does.

#![allow(missing_docs)]

mod common;

use std::{
    fs,
    io::Write as _,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::Path,
    process::{Output, Stdio},
    time::SystemTime,
};

use relay_auth::{Algorithm, Keys, Policy};
use relay_model::{Path as Place, Scope};
use serde_json::Value;
use tempfile::TempDir;

use common::relay;

/// A folder for keys.
struct Desk(TempDir);

impl Desk {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn run(&self, args: &[&str], input: &str) -> Output {
        let mut command = relay();
        command.current_dir(self.path()).arg("token").args(args);
        let mut child =
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        // The process may end before it has read all.
        let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
        child.wait_with_output().unwrap()
    }

    /// Standard output of a run that ends with this status.
    fn output(&self, args: &[&str], input: &str, status: i32) -> String {
        let output = self.run(args, input);
        let said = text(&output.stderr);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {said}");
        text(&output.stdout)
    }

    /// Standard error of a run that ends with this status.
    fn complaint(&self, args: &[&str], input: &str, status: i32) -> String {
        let output = self.run(args, input);
        assert_eq!(output.status.code(), Some(status), "{args:?}: {}", text(&output.stdout));
        text(&output.stderr)
    }

    fn sign(&self, args: &[&str]) -> String {
        self.output(&[&["sign"], args].concat(), "", 0).trim().to_owned()
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(name)).unwrap()
    }

    fn mode(&self, name: &str) -> u32 {
        fs::metadata(self.path().join(name)).unwrap().permissions().mode() & 0o777
    }

    fn names(&self) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

#[test]
fn signed_token_is_verified_by_either_half_of_the_key() {
    for algorithm in Algorithm::ALL {
        let desk = Desk::new();
        let mut generate = vec!["generate", "--algorithm", algorithm.name(), "--id", "k", "--out", "key.jwk"];
        let mut halves = vec!["key.jwk"];
        if !algorithm.is_symmetric() {
            generate.extend(["--public", "public.jwk"]);
            halves.push("public.jwk");
        }
        assert_eq!(desk.output(&generate, "", 0), "");
        let token =
            desk.sign(&["--key", "key.jwk", "--root", "room", "--publish", "alice", "--expires", "1h"]);
        for half in halves {
            let said = desk.output(&["verify", "--key", half], &token, 0);
            assert!(said.starts_with("the token holds\n"), "{said}");
            assert!(said.contains(algorithm.name()) && said.contains("room/alice/**"), "{said}");
        }
    }
}

#[test]
fn key_files_are_secret_and_never_overwritten() {
    let desk = Desk::new();
    let generate = ["generate", "--alg", "EdDSA", "--kid", "a", "--out-dir", ".", "--public", "public.jwk"];
    desk.output(&generate, "", 0);
    assert_eq!((desk.mode("a.jwk"), desk.mode("public.jwk") & !0o044), (0o600, 0o600));
    assert!(desk.read("a.jwk").contains(r#""d":"#) && !desk.read("public.jwk").contains(r#""d":"#));
    let before = (desk.read("a.jwk"), desk.read("public.jwk"));
    let said = desk.complaint(&generate, "", 1);
    assert!(said.contains("a.jwk exists and is not overwritten"), "{said}");
    // If the second file exists, the first is not left behind.
    let said =
        desk.complaint(&["generate", "--alg", "EdDSA", "--out", "b.jwk", "--public", "public.jwk"], "", 1);
    assert!(said.contains("public.jwk exists"), "{said}");
    assert_eq!((desk.read("a.jwk"), desk.read("public.jwk")), before);
    assert_eq!(desk.names(), ["a.jwk", "public.jwk"]);
    // A symbolic link is not followed.
    symlink(desk.path().join("elsewhere"), desk.path().join("link.jwk")).unwrap();
    desk.complaint(&["generate", "--out", "link.jwk"], "", 1);
    assert!(!desk.path().join("elsewhere").exists());
    // A world-readable key is a warning.
    let sign = ["sign", "--key", "a.jwk", "--publish", "x", "--expires", "1h"];
    assert_eq!(desk.complaint(&sign, "", 0), "");
    fs::set_permissions(desk.path().join("a.jwk"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(desk.complaint(&sign, "", 0).contains("chmod 600"));
}

#[test]
fn a_key_and_a_token_go_through_pipes() {
    let desk = Desk::new();
    let key = desk.output(&["generate", "--base64"], "", 0);
    let token = desk.output(&["sign", "--key", "-", "--get", ""], &key, 0);
    fs::write(desk.path().join("token"), &token).unwrap();
    assert!(desk.output(&["verify", "--key", "-", "--in", "token"], &key, 0).contains("everything"));
    assert!(desk.output(&["verify", "--key", "-", token.trim()], &key, 0).contains("everything"));
    desk.complaint(&["verify", "--key", "-"], &key, 2);
    fs::write(desk.path().join("key"), format!("\n{key}\n")).unwrap();
    desk.output(&["verify", "--key", "key"], &token, 0);
}

#[test]
fn the_command_lines_of_published_tools_work() {
    let desk = Desk::new();
    let generate = "generate --algorithm ES256 --id demo --out private.jwk --public public.jwk --root demo --publish a --subscribe b";
    desk.output(&generate.split(' ').collect::<Vec<_>>(), "", 0);
    let sign = "--key private.jwk --root demo --publish a/x --issued 1700000000 --expires 4102444800";
    let token = desk.sign(&sign.split(' ').collect::<Vec<_>>());
    fs::write(desk.path().join("token"), &token).unwrap();
    let said = desk.output(&["verify", "--key", "public.jwk", "--in", "token"], "", 0);
    assert!(said.contains("2023-11-14 22:13:20 UTC") && said.contains("2100-01-01 00:00:00 UTC"), "{said}");
    let out = desk.output(&["generate", "--key", "js.jwk", "--public", "x"], "", 2);
    assert_eq!((out.as_str(), desk.path().join("js.jwk").exists()), ("", false), "HS256 has no public half");
}

#[test]
fn a_url_is_ready_for_a_relay() {
    let desk = Desk::new();
    desk.output(&["generate", "--out", "key.jwk"], "", 0);
    let key = ["--key", "key.jwk", "--publish", "alice", "--expires", "1h", "--url"];
    let url = desk.sign(&[&key[..], &["https://relay.example:4443/a%20room?x=1#top"]].concat());
    let target = url.strip_prefix("https://relay.example:4443").unwrap();
    let keys = Keys::parse(&desk.read("key.jwk")).unwrap().0;
    let policy = Policy::public(Scope::nothing(), Scope::nothing()).with_keys(keys);
    let permit = policy.admit(target, SystemTime::now()).unwrap();
    assert_eq!(permit.root().as_str(), "a room");
    assert!(permit.publish().allows(&Place::parse("a room/alice").unwrap()));
    // The URL itself can be verified.
    assert!(desk.output(&["verify", "--key", "key.jwk", &url], "", 0).contains("a room/alice/**"));
    // A URL that a relay would reject is not printed.
    for (more, why) in [
        (&["https://relay.example/other", "--root", "room"][..], "grant nothing at /other"),
        (&["https://relay.example/?jwt=x"], "has a `jwt` already"),
        (&["https://relay.example/a%2fb"], "not a valid path"),
    ] {
        let said = desk.complaint(&[&["sign"], &key[..], more].concat(), "", 1);
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn invalid_token_is_reported_with_every_reason() {
    let desk = Desk::new();
    desk.output(&["generate", "--kid", "a", "--out", "a.jwk"], "", 0);
    desk.output(&["generate", "--kid", "a", "--out", "other.jwk", "--scope", "room"], "", 0);
    let good = desk.sign(&["--key", "a.jwk", "--get", "", "--expires", "1h"]);
    let old = desk.sign(&["--key", "a.jwk", "--get", "", "--expires", "1700000000"]);
    let early = desk.sign(&["--key", "a.jwk", "--get", "", "--nbf", "1h", "--expires", "2h"]);
    let (head, _) = good.rsplit_once('.').unwrap();
    for (key, token, reasons) in [
        ("a.jwk", old.as_str(), &["expired"][..]),
        ("a.jwk", &early, &["not valid before"]),
        ("other.jwk", &old, &["signature", "expired"]),
        ("a.jwk", &good[..good.len() - 4], &["signature"]),
        ("a.jwk", head, &["three base64url parts"]),
        ("a.jwk", "", &["three base64url parts"]),
        ("a.jwk", &"x".repeat(16 * 1024), &["longer than 8192 bytes"]),
    ] {
        let said = desk.output(&["verify", "--key", key], token, 1);
        let json = desk.output(&["verify", "--json", "--key", key], token, 1);
        let json: Value = serde_json::from_str(&json).unwrap();
        assert_eq!(json["holds"], false);
        let list = json["reasons"].as_array().unwrap();
        assert_eq!(list.len(), reasons.len(), "{json}");
        for (at, reason) in reasons.iter().enumerate() {
            assert!(said.contains(reason) && list[at].as_str().unwrap().contains(reason), "{said}");
        }
    }
    assert!(desk.output(&["verify", "--key", "a.jwk", "--path", "room"], &good, 0).contains("room/**"));
    // The scope of a key limits signing, too.
    let said = desk.complaint(&["sign", "--key", "other.jwk", "--get", ""], "", 1);
    assert!(said.contains("more than the `scope`"), "{said}");
    let narrow = desk.sign(&["--key", "other.jwk", "--root", "room", "--get", "x", "--expires", "1h"]);
    desk.output(&["verify", "--key", "other.jwk", "--path", "/room"], &narrow, 0);
    assert!(
        desk.output(&["verify", "--key", "other.jwk", "--path", "/a"], &narrow, 1).contains("nothing at /a")
    );
    // Verification by a folder, and by a set.
    desk.output(&["verify", "--key-dir", "."], &good, 0);
    let set = format!(r#"{{"keys":[{},{{"kty":"??"}}]}}"#, desk.read("a.jwk"));
    fs::write(desk.path().join("set.json"), set).unwrap();
    let output = desk.run(&["verify", "--key", "set.json"], &good);
    assert!(output.status.success() && text(&output.stderr).contains("key 2 of the set is left out"));
}

#[test]
fn neither_signatures_nor_secrets_are_shown() {
    let desk = Desk::new();
    desk.output(&["generate", "--out", "a.jwk"], "", 0);
    desk.output(&["generate", "--out", "b.jwk"], "", 0);
    let token = desk.sign(&["--key", "a.jwk", "--put", "x", "--sub", "alice", "--expires", "1h"]);
    let signature = token.rsplit('.').next().unwrap();
    let secret = |name: &str| -> String {
        let key: Value = serde_json::from_str(&desk.read(name)).unwrap();
        key["k"].as_str().unwrap().to_owned()
    };
    for args in [
        &["inspect"][..],
        &["inspect", "--json"],
        &["verify", "--key", "a.jwk"],
        &["verify", "--key", "b.jwk"],
        &["verify", "--json", "--key", "b.jwk"],
    ] {
        let output = desk.run(args, &token);
        let said = text(&output.stdout) + &text(&output.stderr);
        assert!(said.contains("alice"), "{said}");
        for hidden in [signature, &secret("a.jwk"), &secret("b.jwk")] {
            assert!(!said.contains(hidden), "{args:?}");
        }
    }
    // Errors about a key show nothing of it.
    fs::write(desk.path().join("bad.jwk"), desk.read("a.jwk").replace("HS256", "ES256")).unwrap();
    let said = desk.complaint(&["sign", "--key", "bad.jwk", "--put", "x"], "", 1);
    assert!(said.contains("bad.jwk") && said.contains("cannot be used with ES256"), "{said}");
    assert!(!said.contains(&secret("a.jwk")));
}

#[test]
fn inspect_reports_the_token_as_not_verified() {
    let desk = Desk::new();
    desk.output(&["generate", "--kid", "a", "--out", "a.jwk"], "", 0);
    let token = desk.sign(&["--key", "a.jwk", "--root", "r", "--put", "*/cam", "--get", ""]);
    let said = desk.output(&["inspect"], &token, 0);
    assert!(said.starts_with("not verified: anybody can have written this\n"), "{said}");
    assert!(said.contains("r/*/cam") && said.contains("never") && said.contains("a, HS256"), "{said}");
    let json: Value = serde_json::from_str(&desk.output(&["inspect", "--json", &token], "", 0)).unwrap();
    assert_eq!((&json["holds"], &json["publish"][0]), (&Value::Null, &Value::from("r/*/cam")));
    desk.output(&["inspect"], "no token", 1);
}

#[test]
fn check_shows_the_rights_of_a_token_and_of_anybody() {
    let desk = Desk::new();
    desk.output(&["generate", "--kid", "a", "--out", "a.jwk"], "", 0);
    desk.output(&["generate", "--kid", "b", "--out", "b.jwk"], "", 0);
    fs::write(desk.path().join("relay.toml"), "auth.public = \"anon\"\n").unwrap();
    let token = desk.sign(&["--key", "a.jwk", "--root", "room", "--put", "alice", "--expires", "1h"]);
    let check = |args: &[&str]| {
        let mut command = relay();
        let output = command.current_dir(desk.path()).args(["check", "relay.toml", "--token"]).args(args);
        let output = output.output().unwrap();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    };
    let signature = token.rsplit('.').next().unwrap();
    for (args, status, said) in [
        (&[token.as_str()][..], 0, "not verified: anybody can have written this"),
        (&[&token, "--token-key", "a.jwk"], 0, "the token holds"),
        (&[&token, "--token-key", "b.jwk"], 1, "no key with the `kid` a is known"),
        (&["x", "--token-key", "a.jwk"], 1, "not a token"),
    ] {
        let (code, out) = check(args);
        assert_eq!(code, Some(status), "{out}");
        assert!(out.contains(said) && out.contains("everybody: anon/**"), "{out}");
        assert!(!out.contains(signature), "{out}");
        assert_eq!(args[0] != "x", out.contains("room/alice/**"), "{out}");
    }
    let (_, json) = check(&[&token, "--token-key", "a.jwk", "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!((&json["token"]["holds"], &json["anonymous"]["publish"][0]), (&true.into(), &"anon".into()));
    assert_eq!(check(&[&token, "--token-key", "none.jwk"]).0, Some(1));
}

#[test]
fn usage_errors_end_with_2() {
    let desk = Desk::new();
    desk.output(&["generate", "--out", "a.jwk"], "", 0);
    for args in [
        &["generate", "--algorithm", "none"][..],
        &["generate", "--kid", "../a"],
        &["generate", "--scope", "a", "--publish", "b"],
        &["generate", "--public", "p.jwk"],
        &["generate", "--alg", "ES256", "--public", "-"],
        &["sign", "--key", "a.jwk"],
        &["sign", "--key", "a.jwk", "--put", "a/../b"],
        &["sign", "--key", "a.jwk", "--put", "a**"],
        &["sign", "--key", "a.jwk", "--put", "a", "--expires", "60"],
        &["sign", "--put", "a"],
        &["verify", "token"],
        &["inspect", "--key", "a.jwk"],
        &["mint"],
    ] {
        let output = desk.run(args, "");
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        assert!(output.stdout.is_empty() && !output.stderr.is_empty(), "{args:?}");
    }
    assert_eq!(desk.names(), ["a.jwk"]);
}
