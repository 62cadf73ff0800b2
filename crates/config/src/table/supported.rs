//! Supported keys.

use super::{Entry, KeySupport, Kind};

const fn used(key: &'static str, kind: Kind, default: &'static str, meaning: &'static str) -> Entry {
    Entry { key, spellings: &[], short: &[], kind, status: KeySupport::Used(default), meaning }
}

impl Entry {
    const fn or(mut self, spellings: &'static [&'static str]) -> Self {
        self.spellings = spellings;
        self
    }

    const fn short(mut self, short: &'static [&'static str]) -> Self {
        self.short = short;
        self
    }
}

pub(super) static ENTRIES: &[Entry] = &[
    used("server.bind", Kind::Address, "\"[::]:4443\"", "UDP address to listen on")
        .or(&["server.listen", "listen.bind"])
        .short(&["bind", "listen"]),
    used("server.version", Kind::Versions, "all", "protocol versions that are offered")
        .or(&["listen.version"]),
    used("server.hop", Kind::Hop, "random", "the relay's id in hop chains, below 2^53; give each its own")
        .or(&["cluster.id"]),
    used(
        "tls.cert",
        Kind::Files,
        "none",
        "certificate chain, leaf first (PEM); wants `tls.key`. Of several, a client gets the one for the name it \
         asks for, else the first. Reloaded when it changes",
    )
    .or(&["server.tls.cert", "listen.tls.cert"]),
    used("tls.key", Kind::Files, "none", "private key of the certificate (PEM); one for each, in the same order")
        .or(&["server.tls.key", "listen.tls.key"]),
    used(
        "tls.generate",
        Kind::Names,
        "none",
        "make a self-signed certificate for these names, for development; without `tls.cert` one for localhost is \
         made anyway",
    )
    .or(&["server.tls.generate", "listen.tls.generate"]),
    used(
        "tls.root",
        Kind::Files,
        "none",
        "authorities of client certificates (PEM): client certificates are optional, and rejected if issued \
         by anybody else. Reloaded when it changes",
    )
    .or(&["server.tls.root", "listen.tls.root"]),
    used(
        "auth.public",
        Kind::Prefixes,
        "none",
        "prefixes that everybody may publish and subscribe below, or patterns (`rooms/*/chat`); `\"\"` opens everything",
    ),
    used(
        "auth.public.subscribe",
        Kind::Prefixes,
        "`auth.public`",
        "prefixes that everybody may subscribe below",
    )
    .or(&["auth.public_subscribe"]),
    used("auth.public.publish", Kind::Prefixes, "`auth.public`", "prefixes that everybody may publish below")
        .or(&["auth.public_publish"]),
    used("auth.key", Kind::Files, "none", "key that verifies tokens (JWK), or a set of them. Reloaded when it changes"),
    used(
        "auth.key_dir",
        Kind::KeyDir,
        "none",
        "keys that verify tokens: a folder of `NAME.jwk`, or a URL, which is fetched itself and used as a key \
         set if it answers one; otherwise keys are fetched below it, as `NAME.jwk`",
    ),
    used("auth.jwks", Kind::Url, "none", "URL of the key set (JWKS) of an identity provider, which verifies tokens"),
    used(
        "auth.audience",
        Kind::Texts,
        "none",
        "values of `aud` that name this relay: with some, a token must have one of them; with none, a token with `aud` \
         is refused",
    ),
    used("auth.issuer", Kind::Texts, "any", "values of `iss` that are accepted: with some, a token must have one of them"),
    used("auth.url", Kind::Url, "none", "server that decides about each session: a POST when it connects, at each revalidation, and when it ends"),
    used("auth.api", Kind::Url, "none", "server that decides about each path and key, by the older protocol: one GET")
        .or(&["auth.auth_api"]),
    used("auth.refresh", Kind::Duration, "`\"60s\"`", "how often remote keys and grants are asked for again"),
    used(
        "auth.domains",
        Kind::Names,
        "none",
        "host names whose subdomains become the first part of the path, over WebTransport, WebSocket and HTTP: with `example.com`, \
         `b.a.example.com` is `/a/b`",
    )
    .short(&["auth-domain"]),
    used(
        "auth.plain",
        Kind::Networks,
        "this machine",
        "networks where keys and grants may be asked for over plain `http://`; compared with the address of each \
         connection. Anybody on that network path can decide who is admitted",
    ),
    used("auth.tls.root", Kind::Files, "the system's", "authorities trusted where keys and grants are asked for (PEM)"),
    used("auth.tls.cert", Kind::File, "none", "certificate shown there (PEM)"),
    used("auth.tls.key", Kind::File, "none", "its private key (PEM)"),
    used("auth.tls.disable_verify", Kind::Switch, "`false`", "accept any certificate there: for tests only"),
    used(
        "auth.takeover",
        Kind::Takeover,
        "\"identity\"",
        "clients that may take over a live path: those with the same token subject, or `\"any\"`",
    ),
    used("cache.capacity", Kind::Size, "\"40%\"", "groups held, as bytes or a share of the memory there is"),
    used(
        "cache.headroom",
        Kind::Size,
        "\"10%\"",
        "memory to leave free; the cache gives way when the machine or control group runs short",
    ),
    used("cache.duration", Kind::Duration, "\"30s\"", "how long a superseded group is held at most"),
    used(
        "limits.memory",
        Kind::Size,
        "\"20%\"",
        "memory of sessions beside the cache: announces, subscriptions, buffers. Above three quarters of it the largest \
         session of the largest address is closed; relays of the cluster have half as much of their own",
    ),
    used(
        "cluster.linger",
        Kind::Linger,
        "\"5s\"",
        "time for which a publisher that vanished without closing keeps its path",
    ),
    used(
        "limits.announces",
        Kind::Count,
        "1000",
        "broadcasts one session may announce. More are not routed until an earlier one ends; as many again are \
         remembered for that, the rest must be announced again. Relays of the same cluster have no limit",
    ),
    used(
        "limits.subscriptions",
        Kind::Count,
        "1000",
        "subscriptions, track requests and fetches one session may have open. One more is reset (0x9), and the \
         session goes on. Relays of the same cluster have no limit",
    ),
    used(
        "limits.fetches",
        Kind::Count,
        "64",
        "fetches one session may have open, in the same way; they count as `limits.subscriptions` too",
    ),
    used(
        "limits.requests",
        Kind::Requests,
        "200",
        "requests a session may make in a second, after 12 times as many at once. More are slowed; a session that \
         asks faster for 10 seconds is closed. Relays of the same cluster have no limit",
    ),
    used(
        "drain_timeout",
        Kind::Duration,
        "\"10s\"",
        "time clients have to move when the relay is stopped",
    ),
    used("runtime.workers", Kind::Workers, "one a core", "worker threads").short(&["workers"]),
    used(
        "quic.congestion_control",
        Kind::Congestion,
        "\"cubic\"",
        "congestion controller: `\"cubic\"` (or `\"loss\"`), `\"bbr\"` (or `\"delay\"`), \
         `\"newreno\"`",
    )
    .or(&["server.quic.congestion_control"]),
    used("quic.idle_timeout", Kind::Idle, "\"10s\"", "silence after which a connection is given up")
        .or(&["server.quic.idle_timeout"]),
    used(
        "quic.keep_alive",
        Kind::KeepAlive,
        "\"5s\"",
        "silence after which a ping is sent, by default at most half of `quic.idle_timeout`; \
         `\"0s\"` sends none",
    )
    .or(&["server.quic.keep_alive"]),
    used(
        "quic.gso",
        Kind::Switch,
        "true",
        "UDP segmentation offload; turn it off for a network card that garbles it",
    )
    .or(&["server.quic.gso"]),
    used(
        "quic.max_streams",
        Kind::Streams,
        "2048 and 1024",
        "bidirectional and unidirectional streams a peer may have open; it starts with fewer and gets \
         more as it uses them",
    )
    .or(&["server.quic.max_streams"])
    .short(&["quic-max-streams", "server-max-streams"]),
    used("quic.initial_mtu", Kind::Mtu, "1200", "largest datagram before the path was probed, bytes")
        .or(&["server.quic.initial_mtu"]),
    used("quic.max_mtu", Kind::Mtu, "1452", "largest datagram probed for, bytes")
        .or(&["server.quic.max_mtu"]),
    used("quic.mtu_discovery", Kind::Switch, "true", "probe for larger datagrams")
        .or(&["server.quic.mtu_discovery"]),
    used(
        "web.http.listen",
        Kind::Address,
        "none",
        "TCP address for HTTP and WebSocket; without a file, that of `server.bind`",
    ),
    used(
        "web.https.listen",
        Kind::Address,
        "none",
        "TCP address for HTTPS and WebSocket; may be that of `web.http.listen`. Without a file, that of `server.bind`",
    ),
    used(
        "web.https.cert",
        Kind::Files,
        "`tls.cert`",
        "certificate chain shown over HTTPS (PEM), if it is another one; wants `web.https.key`. Reloaded when it \
         changes",
    ),
    used("web.https.key", Kind::Files, "`tls.key`", "its private key (PEM)"),
    used(
        "web.https.root",
        Kind::Files,
        "none",
        "authorities of client certificates over HTTPS (PEM): browsers ask their users for one then",
    ),
    used("web.ws", Kind::Switch, "true", "WebSocket for clients without WebTransport"),
    used(
        "web.page",
        Kind::Switch,
        "false",
        "the web page at `/` of the public listeners; without a file it is on. The private listener always has it",
    ),
    used(
        "web.url",
        Kind::PublicUrl,
        "host of the page or of the certificate, port of `server.bind`",
        "public URL of the relay, as in `\"https://relay.example.com:4443/\"`: the page uses it for sessions and \
         in the commands it shows",
    ),
    used(
        "web.origins",
        Kind::Origins,
        "everybody",
        "origins of the pages that may open sessions over WebTransport and WebSocket and read answers over HTTP, as \
         in `\"https://app.example.com\"`; `https://*.example.com` stands for exactly one label. Clients other than \
         browsers are not checked. Without a file: pages of loopback and of the relay's own address, and those of the list",
    ),
    used(
        "web.hosts",
        Kind::Names,
        "everybody",
        "host names that HTTP requests may be addressed to, besides IP addresses and `localhost`; others get 403. \
         Without a file, and at `internal.listen`, that holds with no name listed, too. The list holds for the public \
         listeners too: name their public host names as well",
    ),
    used(
        "web.proxy",
        Kind::Proxies,
        "none",
        "networks of reverse proxies that are trusted to name their clients; `{ net = \"10.0.0.0/8\", header = \
         \"forwarded\" }` names the header of one network",
    ),
    used(
        "web.proxy_header",
        Kind::ProxyHeader,
        "\"x-forwarded-for\"",
        "where those proxies name their clients: `\"x-forwarded-for\"`, `\"forwarded\"`, or `\"proxy\"` (the PROXY \
         protocol). Other headers do not count. Where neither this key nor an entry names one, a connection may \
         also begin with a PROXY header",
    ),
    used(
        "internal.listen",
        Kind::Address,
        "none",
        "TCP address for operators only: plain HTTP, keep it private",
    ),
    used("server.tcp.bind", Kind::Address, "none", "TCP address for sessions without HTTP (qmux)")
        .or(&["listen.tcp.bind"]),
    used("listen.tcp.tls", Kind::Switch, "`false`", "TLS on that address"),
    used("server.unix.bind", Kind::File, "none", "Unix socket for sessions (qmux)").or(&["listen.unix.bind"]),
    used("server.unix.allow.uid", Kind::Ids, "everybody", "users let in there").or(&["listen.unix.allow.uid"]),
    used("server.unix.allow.gid", Kind::Ids, "everybody", "groups let in there").or(&["listen.unix.allow.gid"]),
    used("server.unix.allow.pid", Kind::Ids, "everybody", "processes let in there")
        .or(&["listen.unix.allow.pid"]),
    used("log.level", Kind::Level, "\"info\"", "log level; `RUST_LOG` is more specific and takes precedence"),
    used("log.format", Kind::Format, "\"text\"", "`\"text\"`, or `\"json\"`: one object a line"),
];
