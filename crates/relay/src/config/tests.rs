use super::*;

fn parse(text: &str) -> Result<Config, Error> {
    Config::parse(FilePath::new("relay.toml"), text)
}

/// The message a person reads.
fn refusal(text: &str) -> String {
    parse(text).expect_err("the file should be refused").to_string()
}

#[test]
fn a_whole_file_is_understood() {
    let text = "
        [server]
        bind = \"[::1]:9000\"
        [tls]
        cert = \"/etc/relay/cert.pem\"
        key = \"/etc/relay/key.pem\"
        [auth]
        public = \"/anon/\"
    ";
    let expected = Config {
        bind: "[::1]:9000".parse().unwrap(),
        tls: Tls::Files { cert: "/etc/relay/cert.pem".into(), key: "/etc/relay/key.pem".into() },
        public: Path::parse("anon").unwrap(),
        from_file: true,
    };
    assert_eq!(parse(text).unwrap(), expected);
}

#[test]
fn an_empty_prefix_opens_everything() {
    let config = parse("auth.public = \"\"").unwrap();
    assert!(config.public.is_root());
    assert_eq!(config.bind, DEFAULT_BIND);
    assert_eq!(config.tls, Tls::Generated);
}

#[test]
fn a_file_that_lets_nobody_in_is_refused() {
    assert_eq!(
        refusal("[server]\nbind = \"[::]:4443\"\n"),
        "relay.toml: nobody may connect: set `auth.public` to the prefix that is open to all, \
         or to \"\" to open everything"
    );
}

#[test]
fn an_unknown_key_is_refused_where_it_stands_with_the_nearest_name() {
    for (text, expected) in [
        ("[server]\nbnd = \"x\"\n", "relay.toml:2:1: unknown key `server.bnd`; did you mean `server.bind`?"),
        (
            "[auth]\n  pubilc = \"\"\n",
            "relay.toml:2:3: unknown key `auth.pubilc`; did you mean `auth.public`?",
        ),
        ("bind = \"[::]:1\"\n", "relay.toml:1:1: unknown key `bind`; did you mean `server.bind`?"),
        (
            "[tls]\ncertificate = \"x\"\n",
            "relay.toml:2:1: unknown key `tls.certificate`; \
          the keys are `auth.public`, `server.bind`, `tls.cert`, `tls.key`",
        ),
        ("[sever]\nbind = \"x\"\n", "relay.toml:1:2: unknown key `sever`; did you mean `server.bind`?"),
        (
            "\"ü\".x = 1\n",
            "relay.toml:1:1: unknown key `ü`; \
          the keys are `auth.public`, `server.bind`, `tls.cert`, `tls.key`",
        ),
        (
            "server = { \"ü\" = 1 }\n",
            "relay.toml:1:12: unknown key `server.ü`; \
          the keys are `auth.public`, `server.bind`, `tls.cert`, `tls.key`",
        ),
    ] {
        assert_eq!(refusal(text), expected);
    }
}

#[test]
fn the_first_unknown_key_of_the_file_is_named() {
    assert!(refusal("[zzz]\na = 1\n[aaa]\nb = 1\n").starts_with("relay.toml:1:2: unknown key `zzz`"));
}

#[test]
fn token_authentication_is_refused_rather_than_ignored() {
    for (key, line) in [("key", 4), ("key_dir", 4), ("url", 4), ("api", 4)] {
        let text = format!("[server]\n[auth]\npublic = \"\"\n{key} = \"root.jwk\"\n");
        assert_eq!(
            refusal(&text),
            format!(
                "relay.toml:{line}:1: `auth.{key}` asks for token authentication, which is not enforced yet: \
                 the relay refuses to start rather than run open; remove the key, or use `auth.public` alone"
            )
        );
    }
}

#[test]
fn token_authentication_is_named_before_any_other_mistake() {
    let text = "typo = 1\n[auth]\nkey.path = \"root.jwk\"\n";
    assert!(refusal(text).starts_with("relay.toml:3:1: `auth.key` asks for token authentication"));
}

#[test]
fn a_value_of_the_wrong_kind_names_its_key() {
    for (text, expected) in [
        (
            "[server]\nbind = 4443\n",
            "relay.toml:2:8: `server.bind`: invalid type: integer `4443`, expected a string",
        ),
        (
            "[server]\nbind = \"localhost\"\n",
            "relay.toml:2:8: `server.bind`: \"localhost\" is no address; \
             write IP:PORT, as in \"[::]:4443\" or \"127.0.0.1:4443\"",
        ),
    ] {
        assert_eq!(refusal(text), expected);
    }
    assert!(refusal("server = 3\n").starts_with("relay.toml:1:10: `server`: invalid type: integer `3`"));
    let long = format!("auth.public = \"{}\"\n", "x".repeat(1_025));
    assert_eq!(refusal(&long), "relay.toml:1:15: `auth.public`: path is longer than 1024 bytes");
}

#[test]
fn a_certificate_without_its_key_is_refused() {
    assert_eq!(
        refusal("[tls]\ncert = \"a.pem\"\n[auth]\npublic = \"\"\n"),
        "relay.toml:2:8: `tls.cert` needs `tls.key` beside it"
    );
    assert_eq!(
        refusal("[tls]\nkey = \"a.pem\"\n[auth]\npublic = \"\"\n"),
        "relay.toml:2:7: `tls.key` needs `tls.cert` beside it"
    );
}

#[test]
fn a_file_that_is_not_toml_is_refused_with_its_place() {
    assert!(refusal("[server\nbind = 1\n").starts_with("relay.toml:1:8: "));
    assert!(refusal("[auth]\npublic = \"\"\npublic = \"\"\n").starts_with("relay.toml:3:1: duplicate key"));
}

#[test]
fn a_missing_file_is_named() {
    let error = Config::load(FilePath::new("/nonexistent/relay.toml")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "cannot read /nonexistent/relay.toml: No such file or directory (os error 2)"
    );
}

#[test]
fn every_known_key_is_read() {
    let sample = |key: &str| if key == "server.bind" { "127.0.0.1:1" } else { "x" };
    let text: String = KEYS.iter().map(|key| format!("{key} = {:?}\n", sample(key))).collect();
    let config = parse(&text).unwrap();
    assert_eq!(config.bind, "127.0.0.1:1".parse().unwrap());
    assert_eq!(config.tls, Tls::Files { cert: "x".into(), key: "x".into() });
    assert_eq!(config.public.as_str(), "x");
}
