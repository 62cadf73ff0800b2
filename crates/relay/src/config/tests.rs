use super::{
    file::{KEYS, known_keys},
    *,
};

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
        drain_timeout = \"1m\"
        [server]
        bind = \"[::1]:9000\"
        version = [\"moq-lite-05\", \"moq-lite-06\"]
        hop = 7
        [tls]
        cert = \"/etc/relay/cert.pem\"
        key = \"/etc/relay/key.pem\"
        [auth]
        public = \"/anon/\"
        takeover = \"any\"
        [cache]
        capacity = \"8GiB\"
        headroom = \"20%\"
        duration = 90
    ";
    let expected = Config {
        bind: "[::1]:9000".parse().unwrap(),
        tls: Tls::Files { cert: "/etc/relay/cert.pem".into(), key: "/etc/relay/key.pem".into() },
        public: Path::parse("anon").unwrap(),
        versions: vec![Version::V05, Version::V06],
        hop: Some(Hop(7)),
        cache: Cache {
            capacity: Size::Bytes(8 << 30),
            headroom: Size::Percent(20),
            duration: Duration::from_secs(90),
        },
        takeover: Takeover::Any,
        drain_timeout: Duration::from_secs(60),
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
    assert_eq!(config, Config { bind: DEFAULT_BIND, from_file: true, ..Config::development() });
    assert_eq!((config.drain_timeout, config.takeover), (DRAIN_TIMEOUT, Takeover::Identity));
    assert_eq!(config.versions, Version::ALL);
}

#[test]
fn a_single_version_needs_no_list() {
    let config = parse("auth.public = \"\"\nserver.version = \"moq-lite-04\"\n").unwrap();
    assert_eq!(config.versions, [Version::V04]);
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
        ("[tls]\ncertificate = \"x\"\n", "relay.toml:2:1: unknown key `tls.certificate`; the keys are ALL"),
        ("[sever]\nbind = \"x\"\n", "relay.toml:1:2: unknown key `sever`; did you mean `server.bind`?"),
        ("\"ü\".x = 1\n", "relay.toml:1:1: unknown key `ü`; the keys are ALL"),
        ("server = { \"ü\" = 1 }\n", "relay.toml:1:12: unknown key `server.ü`; the keys are ALL"),
    ] {
        assert_eq!(refusal(text), expected.replace("ALL", &known_keys()));
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
    let known = "\"moq-lite-06\", \"moq-lite-05\", \"moq-lite-04\", \"moq-lite-03\"";
    for (line, expected) in [
        (
            "server.version = [\"moq-lite-05\", \"moq-lite-99\"]",
            format!("`server.version`: \"moq-lite-99\" is no version we speak; the versions are {known}"),
        ),
        ("server.version = []", format!("`server.version`: name at least one version: {known}")),
        (
            "server.version = 5",
            format!("`server.version`: 5 is no version we speak; the versions are {known}"),
        ),
        ("server.hop = 0", "`server.hop`: 0 is no hop; write a number from 1 to 9007199254740991".to_owned()),
        (
            "auth.takeover = \"all\"",
            "`auth.takeover`: \"all\" is not known; write \"identity\" or \"any\"".to_owned(),
        ),
        (
            "cache.capacity = \"lots\"",
            "`cache.capacity`: \"lots\" is no size; write \"8GiB\", \"500MB\" or \"75%\", \
             or a number of bytes"
                .to_owned(),
        ),
        (
            "drain_timeout = \"soon\"",
            "`drain_timeout`: \"soon\" is no duration; write \"10s\", \"500ms\" or \"2m\", \
             or a number of seconds"
                .to_owned(),
        ),
    ] {
        let column = 1 + line.find(" = ").unwrap() + " = ".len();
        assert_eq!(
            refusal(&format!("auth.public = \"\"\n{line}\n")),
            format!("relay.toml:2:{column}: {expected}")
        );
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
    let sample = |key: &str| match key {
        "auth.takeover" => "\"any\"",
        "cache.capacity" | "cache.headroom" => "1",
        "cache.duration" | "drain_timeout" => "2",
        "server.bind" => "\"127.0.0.1:1\"",
        "server.hop" => "3",
        "server.version" => "\"moq-lite-05\"",
        _ => "\"x\"",
    };
    let text: String = KEYS.iter().map(|key| format!("{key} = {}\n", sample(key))).collect();
    let config = parse(&text).unwrap();
    assert_eq!(config.bind, "127.0.0.1:1".parse().unwrap());
    assert_eq!(config.tls, Tls::Files { cert: "x".into(), key: "x".into() });
    assert_eq!(config.public.as_str(), "x");
    assert_eq!(
        (config.takeover, config.hop, &config.versions[..]),
        (Takeover::Any, Some(Hop(3)), &[Version::V05][..])
    );
    let two = Duration::from_secs(2);
    let cache = Cache { capacity: Size::Bytes(1), headroom: Size::Bytes(1), duration: two };
    assert_eq!((config.cache, config.drain_timeout), (cache, two));
}
