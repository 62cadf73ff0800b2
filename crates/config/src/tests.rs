use relay_http::{Allowed, ProxyHeader, TrustedProxy};
use relay_model::Path;
use relay_worker::{Congestion, Version};

use super::*;

fn parse(text: &str) -> Result<Config, ConfigLoadError> {
    Config::parse(FilePath::new("relay.toml"), text)
}

/// Version with this name.
fn version(name: &str) -> Version {
    Version::from_alpn(name).unwrap()
}

/// One pair of PEM files.
fn files(cert: &str, key: &str) -> Tls {
    Tls::Files(vec![CertFiles { cert: cert.into(), key: key.into() }])
}

/// Resolves the text of a file.
fn resolution(text: &str) -> Resolution {
    resolve::resolve(Some((FilePath::new("relay.toml"), text)), &SettingOverrides::default())
}

/// Error message of a refused file.
fn refusal(text: &str) -> String {
    parse(text).expect_err("the file should be refused").to_string()
}

#[test]
fn complete_file_is_parsed() {
    let text = "
        drain_timeout = \"1m\"
        [server]
        bind = \"[::1]:9000\"
        version = [\"moq-lite-05\", \"moq-lite-06\"]
        hop = 7
        [tls]
        cert = \"/etc/relay/cert.pem\"
        key = \"/etc/relay/key.pem\"
        root = [\"/etc/relay/ca.pem\"]
        [auth]
        public = \"/anon/\"
        takeover = \"any\"
        [cache]
        capacity = \"8GiB\"
        headroom = \"20%\"
        duration = 90
        [cluster]
        linger = 7
        [limits]
        memory = \"64MiB\"
        announces = 2000
        subscriptions = 3000
        fetches = 32
        requests = 500
        [runtime]
        workers = 3
        [quic]
        congestion_control = \"bbr\"
        idle_timeout = \"20s\"
        keep_alive = 0
        gso = false
        max_streams = 500
        initial_mtu = 1300
        max_mtu = 1400
        mtu_discovery = false
        [log]
        level = \"debug\"
        format = \"json\"
        [web]
        http.listen = \"[::]:80\"
        https.listen = \"[::]:443\"
        https.cert = \"web.pem\"
        https.key = \"web.key\"
        https.root = \"web-ca.pem\"
        ws = false
        page = false
        url = \"https://relay.example.com\"
        origins = \"https://app.example.com\"
        hosts = \"relay.example.com\"
        proxy = [\"10.0.0.0/8\", { net = \"10.1.0.0/16\", header = \"proxy\" }]
        proxy_header = \"forwarded\"
        [internal]
        listen = \"127.0.0.1:9101\"
        [listen]
        tcp.bind = \"127.0.0.1:4444\"
        tcp.tls = true
        unix.bind = \"/run/moq.sock\"
        unix.allow.uid = 1000
        unix.allow.gid = [1, 2]
        unix.allow.pid = 7
    ";
    let anon = Scope::of([Path::parse("anon").unwrap()]);
    let expected = Config {
        bind: "[::1]:9000".parse().unwrap(),
        tls: files("/etc/relay/cert.pem", "/etc/relay/key.pem"),
        client_roots: vec!["/etc/relay/ca.pem".into()],
        publish: anon.clone(),
        subscribe: anon,
        auth: Auth::default(),
        hop: Some(Hop(7)),
        cache: Cache {
            capacity: Size::Bytes(8 << 30),
            headroom: Size::Percent(20),
            duration: Duration::from_secs(90),
        },
        state: Size::Bytes(64 << 20),
        takeover: Takeover::Any,
        drain_timeout: Duration::from_secs(60),
        workers: NonZeroU16::new(3),
        linger: Duration::from_secs(7),
        limits: SessionLimits { announces: 2_000, subscriptions: 3_000, fetches: 32, requests: 500 },
        quic: QuicTuning {
            versions: vec![version("moq-lite-05"), version("moq-lite-06")],
            congestion: Congestion::Bbr,
            idle: Duration::from_secs(20),
            keep_alive: None,
            segmentation: false,
            max_streams: Some(500),
            initial_mtu: 1_300,
            max_mtu: 1_400,
            mtu_discovery: false,
        },
        web: Web {
            http: Some("[::]:80".parse().unwrap()),
            https: Some("[::]:443".parse().unwrap()),
            certificates: vec![CertFiles { cert: "web.pem".into(), key: "web.key".into() }],
            roots: vec!["web-ca.pem".into()],
            websocket: false,
            page: false,
            url: Some("https://relay.example.com/".to_owned()),
            origins: vec!["https://app.example.com".parse().unwrap()],
            hosts: vec!["relay.example.com".to_owned()],
            proxies: vec![
                TrustedProxy { network: "10.0.0.0/8".parse().unwrap(), header: None },
                TrustedProxy { network: "10.1.0.0/16".parse().unwrap(), header: Some(ProxyHeader::Proxy) },
            ],
            proxy_header: Some(ProxyHeader::Forwarded),
            internal: Some("127.0.0.1:9101".parse().unwrap()),
            tcp: Some("127.0.0.1:4444".parse().unwrap()),
            tcp_tls: true,
            unix: Some("/run/moq.sock".into()),
            unix_allow: Allowed { uids: vec![1_000], gids: vec![1, 2], pids: vec![7] },
        },
        log: LogConfig { level: Some(LevelFilter::DEBUG), format: Some(Format::Json) },
        from_file: true,
    };
    let parsed = resolution(text);
    assert_eq!(parsed.config, expected);
    assert_eq!(parsed.refusals, []);
}

#[test]
fn an_empty_prefix_opens_everything() {
    let config = parse("auth.public = \"\"").unwrap();
    assert_eq!((&config.publish, &config.subscribe), (&Scope::everything(), &Scope::everything()));
    assert_eq!(config.bind, DEFAULT_BIND);
    assert_eq!(config.tls, Tls::Generated(vec!["localhost".to_owned()]));
    assert_eq!(
        config,
        Config { bind: DEFAULT_BIND, web: Web::default(), from_file: true, ..Config::development() }
    );
    assert_eq!((config.drain_timeout, config.takeover), (DRAIN_TIMEOUT, Takeover::Identity));
    assert_eq!(
        config.quic.versions,
        [Version::ALL, &[Version::ANY_LEGACY]].concat(),
        "any of the oldest versions stands for all of them"
    );
}

#[test]
fn a_single_version_needs_no_list() {
    let config = parse("auth.public = \"\"\nserver.version = \"moq-lite-04\"\n").unwrap();
    assert_eq!(config.quic.versions, [version("moq-lite-04")]);
}

#[test]
fn file_that_admits_nobody_is_refused() {
    assert_eq!(
        refusal("[server]\nbind = \"[::]:4443\"\n"),
        "relay.toml: nobody may connect: set `auth.public` to the prefix that is open to all, \
         or to \"\" to open everything; or `auth.key` to admit clients with a token"
    );
}

#[test]
fn unknown_key_is_refused_with_position_and_suggestion() {
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
             the keys are `tls.cert`, `tls.key`, `tls.generate`, `tls.root`",
        ),
        (
            "[sever]\nbind = \"x\"\n",
            "relay.toml:1:2: unknown key `sever`; did you mean the section `server`?",
        ),
        ("\"ü\".x = 1\n", "relay.toml:1:1: unknown key `ü`; the sections are ALL"),
    ] {
        assert!(refusal(text).starts_with(expected.trim_end_matches("ALL")), "{}", refusal(text));
    }
}

#[test]
fn the_first_unknown_key_of_the_file_is_named() {
    assert!(refusal("[zzz]\na = 1\n[aaa]\nb = 1\n").starts_with("relay.toml:1:2: unknown key `zzz`"));
}

#[test]
fn only_one_kind_of_credentials_is_accepted() {
    let credentials = |line: &str| parse(&format!("[auth]\n{line}\n")).unwrap().auth.credentials;
    let url = |raw: &str| raw.parse().unwrap();
    for (line, expected) in [
        ("key = \"root.jwk\"", Credentials::Files(vec!["root.jwk".into()])),
        ("key_dir = \"/keys\"", Credentials::Dir(KeyDir::Local("/keys".into()))),
        ("key_dir = \"https://a.b/keys\"", Credentials::Dir(KeyDir::Remote(url("https://a.b/keys")))),
        ("url = \"https://a.b/\"", Credentials::Server(url("https://a.b/"))),
        ("jwks = \"https://a.b/keys\"", Credentials::Jwks(url("https://a.b/keys"))),
        ("url = \"http://127.0.0.1:1/\"", Credentials::Server(url("http://127.0.0.1:1/"))),
        ("auth_api = \"https://a.b/x?y=z\"", Credentials::Api(url("https://a.b/x?y=z"))),
        ("public = \"\"", Credentials::None),
    ] {
        assert_eq!(credentials(line), expected, "{line}");
    }
    let both = "[auth]\nkey = \"root.jwk\"\nurl = \"https://a.b/\"\n";
    assert_eq!(
        refusal(both),
        "relay.toml:3:7: `auth.key` and `auth.url` both decide which credentials are accepted; keep one"
    );
    let beside = "[auth]\npublic = \"anon\"\nurl = \"https://a.b/\"\n";
    assert!(
        refusal(beside).contains("`auth.public` beside `auth.url`: that server decides about every session")
    );
    let both = "[auth]\nkey_dir = \"keys\"\njwks = \"https://a.b/\"\n";
    assert!(
        refusal(both).starts_with("relay.toml:3:8: `auth.key_dir` and `auth.jwks` both decide"),
        "{}",
        refusal(both)
    );
    for (line, said) in [
        ("jwks = \"http://a.b/jwks\"", "`auth.jwks`: \"http://a.b/jwks\" is plain HTTP"),
        ("url = \"http://auth.example.com/\"", "is plain HTTP"),
        ("url = \"auth.example.com\"", "is not the URL of a server"),
        ("api = \"ftp://a.b\"", "is not the URL of a server"),
        ("key_dir = \"http://a.b/keys\"", "is plain HTTP"),
        ("key = []", "name at least one file"),
        ("refresh = \"10ms\"", "is too often"),
        ("refresh = \"7d\"", "is too seldom"),
        ("tls.cert = \"cert.pem\"", "`auth.tls.cert` needs `auth.tls.key` beside it"),
    ] {
        let said_of = refusal(&format!("[auth]\npublic = \"\"\n{line}\n"));
        assert!(said_of.contains(said), "{line}: {said_of}");
    }
}

#[test]
fn plain_http_is_accepted_for_listed_networks() {
    let with = |plain: &str, url: &str| format!("[auth]\n{plain}\njwks = \"{url}\"\n");
    for (plain, url) in [
        ("", "http://localhost:8080/jwks"),
        ("", "http://127.9.9.9/jwks"),
        ("", "http://[::1]/jwks"),
        ("plain = \"10.0.0.0/8\"", "http://10.1.2.3/jwks"),
        ("plain = [\"172.16.0.0/12\", \"fd00::/8\"]", "http://[fd00::1]/jwks"),
        ("plain = \"10.0.0.0/8\"", "http://auth.internal:8080/jwks"),
        ("plain = \"10.0.0.0/8\"", "https://203.0.113.1/jwks"),
    ] {
        assert!(parse(&with(plain, url)).unwrap().auth.asks(), "{plain} {url}");
    }
    for (plain, url) in [
        ("", "http://auth.internal:8080/jwks"),
        ("", "http://10.1.2.3/jwks"),
        ("plain = \"10.0.0.0/8\"", "http://11.1.2.3/jwks"),
        ("plain = \"10.0.0.0/8\"", "http://[fd00::1]/jwks"),
        ("plain = \"10.0.0.0/8\"", "http://0.0.0.0/jwks"),
    ] {
        let said = refusal(&with(plain, url));
        assert!(said.starts_with("relay.toml:3:8: `auth.jwks`: ") && said.contains("`auth.plain`"), "{said}");
    }
    let secret = refusal("[auth]\nurl = \"http://name:secret@a.b/?key=secret\"\n");
    assert!(!secret.contains("secret"), "{secret}");
}

#[test]
fn audience_and_issuer_are_for_verified_tokens() {
    let text = |line: &str, with: &str| format!("[auth]\npublic = \"\"\n{with}\n{line}\n");
    let auth =
        parse(&text("audience = \"moq\"\nissuer = [\"a\", \"b\"]", "key = \"root.jwk\"")).unwrap().auth;
    assert_eq!(
        (auth.expected.audience, auth.expected.issuer),
        (vec!["moq".into()], vec!["a".into(), "b".into()])
    );
    let beside = refusal(&text("audience = \"moq\"", ""));
    assert!(beside.starts_with("relay.toml:4:12: `auth.audience` is for tokens"), "{beside}");
    let server = refusal("[auth]\nurl = \"https://a.b/\"\nissuer = \"a\"\n");
    assert!(server.contains("`auth.url` has it verify none"), "{server}");
    let names = |count| format!("audience = {:?}", vec!["a"; count]);
    assert!(parse(&text(&names(relay_auth::EXPECTED), "key = \"root.jwk\"")).is_ok());
    assert!(refusal(&text(&names(relay_auth::EXPECTED + 1), "key = \"root.jwk\"")).contains("at most"));
}

#[test]
fn a_value_of_the_wrong_kind_names_its_key() {
    for (text, expected) in [
        (
            "[server]\nbind = 4443\n",
            "relay.toml:2:8: `server.bind`: 4443 is not a valid address; \
             write IP:PORT, as in \"[::]:4443\" or \"127.0.0.1:4443\"",
        ),
        (
            "[server]\nbind = \"localhost\"\n",
            "relay.toml:2:8: `server.bind`: \"localhost\" is not a valid address; \
             write IP:PORT, as in \"[::]:4443\" or \"127.0.0.1:4443\"",
        ),
    ] {
        assert_eq!(refusal(text), expected);
    }
    let known = "\"moq-lite-06\", \"moq-lite-05\", \"moq-lite-04\", \"moq-lite-03\", \"moql\"";
    for (line, expected) in [
        (
            "server.version = [\"moq-lite-05\", \"moq-lite-99\"]",
            format!("`server.version`: \"moq-lite-99\" is not a supported version; the versions are {known}"),
        ),
        ("server.version = []", format!("`server.version`: name at least one version: {known}")),
        (
            "server.version = 5",
            format!("`server.version`: 5 is not a supported version; the versions are {known}"),
        ),
        (
            "server.hop = 0",
            "`server.hop`: 0 is not a valid hop; write a number from 1 to 9007199254740991".to_owned(),
        ),
        (
            "auth.takeover = \"all\"",
            "`auth.takeover`: \"all\" is not known; write \"identity\" or \"any\"".to_owned(),
        ),
        (
            "cache.capacity = \"lots\"",
            "`cache.capacity`: \"lots\" is not a valid size; write \"8GiB\", \"500MB\" or \"75%\", \
             or a number of bytes"
                .to_owned(),
        ),
        (
            "drain_timeout = \"soon\"",
            "`drain_timeout`: \"soon\" is not a valid duration; write \"10s\", \"500ms\" or \"2m\", \
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
    assert_eq!(
        refusal("server = 3\n"),
        "relay.toml:1:10: `server` is a section: write [server] and its keys below, not 3"
    );
    let long = format!("auth.public = \"{}\"\n", "x".repeat(1_025));
    assert_eq!(refusal(&long), "relay.toml:1:15: `auth.public`: path is longer than 1024 bytes");
}

#[test]
fn certificates_are_paired_with_keys_or_generated() {
    let of = |tls: &str| parse(&format!("{tls}\n[auth]\npublic = \"\"\n")).unwrap().tls;
    let pair = |cert: &str, key: &str| CertFiles { cert: cert.into(), key: key.into() };
    let several = of("tls = { cert = [\"a\", \"b\"], key = [\"c\", \"d\"] }");
    assert_eq!(several, Tls::Files(vec![pair("a", "c"), pair("b", "d")]));
    let made = of("server.tls.generate = [\"relay.lan\", \"10.0.0.7\"]");
    assert_eq!(made, Tls::Generated(vec!["relay.lan".to_owned(), "10.0.0.7".to_owned()]));
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
fn all_problems_are_reported_in_order_of_position() {
    let said = refusal("typo = 1\n[server]\nbind = 1\n[quic]\ngso = \"no\"\n[cache]\ncapacity = \"lots\"\n");
    let places: Vec<&str> = said.lines().map(|line| &line[..14]).collect();
    assert_eq!(places, ["relay.toml:1:1", "relay.toml:3:8", "relay.toml:5:7", "relay.toml:7:1"], "{said}");
}

#[test]
fn deployed_spellings_are_the_same_keys() {
    for text in [
        "[server]\nlisten = \"127.0.0.1:9\"\ntls.cert = \"c\"\ntls.key = [\"k\"]\nquic.idle_timeout = \"7s\"\n",
        "[listen]\nbind = \"127.0.0.1:9\"\n[listen.tls]\ncert = [\"c\"]\nkey = \"k\"\n[quic]\nidle_timeout = 7\n",
    ] {
        let config = parse(&format!("{text}[auth]\npublic = \"anon/**\"\n")).unwrap();
        assert_eq!(config.bind, "127.0.0.1:9".parse().unwrap());
        assert_eq!(config.tls, files("c", "k"));
        assert_eq!(config.quic.idle, Duration::from_secs(7));
        assert_eq!(config.publish, Scope::of([Path::parse("anon").unwrap()]));
    }
}

#[test]
fn one_setting_with_two_values_is_refused_with_both_places() {
    let text = "auth.public = \"\"\n[server]\nbind = \"127.0.0.1:1\"\nlisten = \"127.0.0.1:2\"\n";
    assert_eq!(
        refusal(text),
        "relay.toml:4:10: `server.listen` and `server.bind` at line 3 are the same setting with different values; \
         keep one"
    );
    assert!(parse(&text.replace(":2", ":1")).is_ok(), "the same value twice is no contradiction");
}

#[test]
fn contradicting_values_are_refused() {
    for (text, expected) in [
        ("quic.keep_alive = \"10s\"", "`quic.keep_alive` (10s) must be less than `quic.idle_timeout` (10s)"),
        (
            "quic = { idle_timeout = \"2s\", keep_alive = \"2s\" }",
            "must be less than `quic.idle_timeout` (2s)",
        ),
        ("tls = { cert = [\"a\", \"b\"], key = \"a\" }", "`tls.cert` names 2 files and `tls.key` 1"),
        ("tls = { generate = \"a b\" }", "\"a b\" is not a valid host name"),
        ("tls = { cert = \"a\", key = \"a\", generate = \"localhost\" }", "loaded or generated, not both"),
        ("quic = { initial_mtu = 1400, max_mtu = 1300 }", "`quic.initial_mtu` (1400) is more than"),
        ("cache = { capacity = \"95%\" }", "are more than the memory there is"),
        ("limits.memory = 0", "`limits.memory` (0) leaves no room for sessions"),
        ("limits.memory = \"0%\"", "leaves no room for sessions"),
        ("limits.memory = \"60%\"", "are more than the memory there is"),
        ("server.tcp.bind = \"127.0.0.1:1\"", "set `server.bind` to where QUIC may listen"),
        ("auth.public_publish = \"a\"", "both set the public paths"),
        ("cluster.connect = \"https://a/\"", "`cluster.connect` is not supported: relays are not linked yet"),
        ("listen.lb_id = \"ab\"", "`listen.lb_id` is not supported"),
    ] {
        let said = refusal(&format!("auth.public = \"\"\n{text}\n"));
        assert!(said.contains(expected), "{text}: {said}");
    }
}

#[test]
fn a_short_idle_timeout_brings_a_shorter_keep_alive() {
    let config = parse("auth.public = \"\"\nquic.idle_timeout = \"4s\"\n").unwrap();
    assert_eq!(config.quic.keep_alive, Some(Duration::from_secs(2)));
}

#[test]
fn key_without_effect_is_accepted_with_a_warning() {
    let resolved = resolution("auth.public = \"\"\n[stats]\nprefix = \"x\"\n[iroh]\nenabled = false\n");
    assert_eq!(resolved.refusals, []);
    let [warning] = &resolved.warnings[..] else { panic!("{:?}", resolved.warnings) };
    assert_eq!(warning.place.to_string(), "relay.toml:3:1: ");
    assert!(warning.text.starts_with("`stats.prefix` has no effect: counters"), "{warning:?}");
}

#[test]
fn publishing_and_subscribing_are_opened_separately() {
    let config = parse("[auth.public]\nsubscribe = [\"a\", \"b\"]\npublish = \"a/x\"\n").unwrap();
    let of = |paths: &[&str]| Scope::of(paths.iter().map(|path| Path::parse(path).unwrap()));
    assert_eq!((config.subscribe, config.publish), (of(&["a", "b"]), of(&["a/x"])));
    let config = parse("[auth]\npublic_subscribe = \"a/**\"\n").unwrap();
    assert_eq!((config.subscribe, config.publish), (of(&["a"]), Scope::nothing()));
    assert!(refusal("[auth.public]\nsubscribe = []\n").contains("nobody may connect"));
}

fn outside(flags: &[(&'static str, &str)], variables: &[(&str, &str)]) -> SettingOverrides {
    SettingOverrides {
        flags: flags.iter().map(|(key, value)| (*key, vec![(*value).to_owned()])).collect(),
        variables: variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
    }
}

#[test]
fn precedence_is_flag_environment_file_default() {
    let text = "auth.public = \"\"\n[cache]\nduration = 1\n";
    let resolve =
        |outside: &SettingOverrides| resolve::resolve(Some((FilePath::new("relay.toml"), text)), outside);
    let variable = ("MOQ_CACHE_DURATION", "2s");
    for (outside, seconds, source) in [
        (outside(&[("cache.duration", "3")], &[variable]), 3, "--cache-duration"),
        (outside(&[], &[variable]), 2, "MOQ_CACHE_DURATION"),
        (outside(&[], &[]), 1, "line 3"),
    ] {
        let resolved = resolve(&outside);
        assert_eq!(resolved.refusals, []);
        assert_eq!(resolved.config.cache.duration, Duration::from_secs(seconds));
        assert_eq!(resolved.source("cache.duration").to_string(), source);
        assert_eq!(resolved.source("drain_timeout"), &Source::Default);
    }
}

#[test]
fn invalid_variable_is_reported_even_if_a_flag_overrides_it() {
    let variables = [("MOQ_CACHE_DURATION", "soon"), ("MOQ_CACHE_CAPACTIY", "1")];
    let resolved = resolve::resolve(None, &outside(&[("cache.duration", "3")], &variables));
    let said: Vec<String> = resolved.refusals.iter().map(ToString::to_string).collect();
    assert!(
        said.iter().any(|line| line.starts_with("MOQ_CACHE_DURATION: \"soon\" is not a valid duration")),
        "{said:?}"
    );
    assert_eq!(resolved.warnings[0].place.to_string(), "MOQ_CACHE_CAPACTIY: ");
    assert!(resolved.warnings[0].text.contains("did you mean MOQ_CACHE_CAPACITY?"));
}

#[test]
fn public_flag_overrides_directions_of_the_file() {
    let text = "[auth.public]\nsubscribe = \"a\"\n";
    let resolved =
        resolve::resolve(Some((FilePath::new("relay.toml"), text)), &outside(&[("auth.public", "b")], &[]));
    let of = Scope::of([Path::parse("b").unwrap()]);
    assert_eq!((&resolved.config.publish, &resolved.config.subscribe), (&of, &of));
}

#[test]
fn empty_variable_counts_as_unset_with_one_warning() {
    let file = (FilePath::new("relay.toml"), "auth.public = \"anon\"\n");
    for name in ["MOQ_AUTH_PUBLIC", "MOQ_TLS_CERT", "MOQ_LOG_LEVEL", "MOQ_CONFIG"] {
        let resolved = resolve::resolve(Some(file), &outside(&[], &[(name, "")]));
        assert_eq!(resolved.refusals, [], "{name}");
        assert_eq!(resolved.config.publish, Scope::of([Path::parse("anon").unwrap()]), "{name}");
        let [warning] = &resolved.warnings[..] else { panic!("{name}: {:?}", resolved.warnings) };
        assert_eq!(warning.place.to_string(), format!("{name}: "));
        assert_eq!(warning.text, "this variable is empty and counts as not set");
    }
    let alone = (FilePath::new("relay.toml"), "[server]\n");
    let resolved = resolve::resolve(Some(alone), &outside(&[], &[("MOQ_AUTH_PUBLIC", "")]));
    assert!(resolved.refusals[0].to_string().contains("nobody may connect"), "nobody, and not everybody");
    let resolved = resolve::resolve(Some(file), &outside(&[], &[("MOQ_AUTH_PUBLIC", "anon,")]));
    assert!(!resolved.refusals.is_empty(), "an empty part opens nothing");
}

#[test]
fn byte_order_mark_is_skipped_and_utf_16_named() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("relay.toml");
    let text = "[auth]\r\npublic = \"anon\"\r\n";
    for bytes in [text.as_bytes().to_vec(), [b"\xef\xbb\xbf", text.as_bytes()].concat()] {
        std::fs::write(&file, bytes).unwrap();
        assert_eq!(Config::load(&file).unwrap().publish, Scope::of([Path::parse("anon").unwrap()]));
    }
    let wide: Vec<u8> = "\u{feff}[auth]".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, said) in [(wide, "the file is UTF-16; save it as UTF-8"), (vec![0xc3, 0x28], "is not UTF-8")]
    {
        std::fs::write(&file, bytes).unwrap();
        let refusal = Config::load(&file).unwrap_err().to_string();
        assert!(refusal.contains("relay.toml: ") && refusal.contains(said), "{refusal}");
    }
}

#[test]
fn listeners_of_one_tcp_address_are_refused() {
    let text = |other: &str| {
        format!("auth.public = \"\"\n[web]\nhttp.listen = \"[::]:80\"\n{other} = \"[::]:80\"\n")
    };
    assert!(parse(&text("https.listen")).is_ok(), "HTTP and HTTPS share");
    let said = refusal("auth.public = \"\"\nweb.http.listen = \"[::]:80\"\ninternal.listen = \"[::]:80\"\n");
    assert!(said.contains("`web.http.listen` and `internal.listen` are both [::]:80"), "{said}");
}
