//! Keys of deployed relays that have no effect here, or that this relay must refuse.

use super::{Entry, KeySupport, Kind};

type Spellings = &'static [&'static str];

const fn entry(
    key: &'static str,
    spellings: Spellings,
    short: Spellings,
    status: KeySupport,
    meaning: &'static str,
) -> Entry {
    Entry { key, spellings, short, kind: Kind::Any, status, meaning }
}

/// Key of connections to other relays, without effect.
const fn dial(key: &'static str, spellings: Spellings, short: Spellings, meaning: &'static str) -> Entry {
    entry(key, spellings, short, KeySupport::Idle("no other relays are dialled yet"), meaning)
}

/// Key that asks for a link to another relay, refused because no link would be made.
const fn link(key: &'static str, spellings: Spellings, short: Spellings, meaning: &'static str) -> Entry {
    const INSTEAD: &str = "relays are not linked yet, and this one would look healthy while it misses what the \
                           others have; remove the key to run it on its own";
    entry(key, spellings, short, KeySupport::Refused(INSTEAD), meaning)
}

/// Key without effect.
const fn idle(key: &'static str, spellings: Spellings, why: &'static str, meaning: &'static str) -> Entry {
    entry(key, spellings, &[], KeySupport::Idle(why), meaning)
}

impl Entry {
    /// Marks a key whose flag may stand without a value.
    const fn switch(mut self) -> Self {
        self.kind = Kind::AnySwitch;
        self
    }
}

const ENGINE: &str = "there is one QUIC engine";
const WINDOW: &str = "windows are sized by the relay";
const BALANCER: &str = "connection ids are not made for a load balancer yet, and clients that move would be lost; \
                        remove the key and balance by address";
const STAYS: &str = "clients stay at the address they came to";
const MODE: &str = "there is one way to ask; remove the key";
const STATS: &str = "counters are not published as broadcasts yet";
const IROH: &str = "there is no peer-to-peer listener";

pub(super) static ENTRIES: &[Entry] = &[
    entry("auth.api_mode", &[], &[], KeySupport::Refused(MODE), "how the server of `auth.api` is asked"),
    entry(
        "auth.public.api",
        &["auth.public_api"],
        &[],
        KeySupport::Refused("`auth.api` says what is public, too; or write it down as `auth.public`"),
        "server asked what is public",
    ),
    idle("auth.mtls_tier", &[], STATS, "label of peers that show a certificate"),
    idle("server.backend", &["listen.backend"], ENGINE, "QUIC library"),
    idle("listen.timeout", &[], "handshake and setup have 5 seconds", "how long a handshake may take"),
    entry(
        "server.quic.preferred_v4",
        &["listen.preferred_v4"],
        &["server-preferred-v4"],
        KeySupport::Idle(STAYS),
        "IPv4 address clients are asked to move to",
    ),
    entry(
        "server.quic.preferred_v6",
        &["listen.preferred_v6"],
        &["server-preferred-v6"],
        KeySupport::Idle(STAYS),
        "IPv6 address clients are asked to move to",
    ),
    entry(
        "listen.lb_id",
        &["server.quic.quic_lb_id", "server.quic.lb_id"],
        &["listen-quic-lb-id"],
        KeySupport::Refused(BALANCER),
        "id of this relay at a QUIC load balancer",
    ),
    entry(
        "listen.lb_nonce",
        &["server.quic.quic_lb_nonce", "server.quic.lb_nonce"],
        &["listen-quic-lb-nonce"],
        KeySupport::Refused(BALANCER),
        "length of the random part of connection ids",
    ),
    entry("listen.load_balancer", &[], &[], KeySupport::Refused(BALANCER), "scheme of a QUIC load balancer"),
    idle("quic.receive_window", &["server.quic.receive_window"], WINDOW, "unread bytes of a connection"),
    idle(
        "quic.stream_receive_window",
        &["server.quic.stream_receive_window"],
        WINDOW,
        "unread bytes of a stream",
    ),
    idle("quic.send_window", &["server.quic.send_window"], WINDOW, "unacknowledged bytes of a connection"),
    idle("quic.qlog", &["server.quic.qlog"], "no QUIC traces are written", "folder for QUIC traces"),
    idle("runtime.pin", &[], "the system places the workers", "keep each worker on a core").switch(),
    idle("runtime.io_uring", &[], "workers use epoll", "io_uring for the sockets").switch(),
    link("cluster.connect", &["cluster.root"], &[], "relays to link to"),
    link("cluster.connect_api", &[], &[], "server that lists the relays to link to"),
    link("cluster.mesh", &[], &[], "find other relays by what they announce").switch(),
    link("cluster.lan.enabled", &[], &["cluster-lan"], "find other relays on the local network").switch(),
    dial("cluster.lan.secret", &[], &[], "secret of relays on the local network"),
    dial("cluster.lan.app", &[], &[], "name of their group"),
    dial("cluster.node", &[], &[], "URL other relays find this one at"),
    dial("cluster.token", &[], &[], "token shown to other relays"),
    dial("cluster.tier", &[], &[], "label of links to other relays"),
    dial("cluster.connect_api_tls_root", &[], &[], "whom to trust when the list of relays is fetched"),
    dial("client.connect", &["connect.url"], &["connect"], "URL to dial"),
    dial("client.bind", &["connect.bind"], &[], "address to dial from"),
    dial("client.backend", &["connect.backend"], &[], "QUIC library"),
    dial("client.version", &["connect.version"], &[], "versions to offer"),
    dial("client.timeout", &["connect.timeout"], &["client-connect-timeout"], "how long dialling may take"),
    dial("client.failover_delay", &["connect.race"], &[], "when the next address is tried"),
    dial("client.resolution_delay", &["connect.resolution_delay"], &[], "how long IPv4 waits for IPv6"),
    dial("connect.once", &[], &[], "dial once only").switch(),
    dial("client.tls.root", &["connect.tls.root"], &[], "whom to trust"),
    dial(
        "client.tls.system_roots",
        &["connect.tls.system_roots"],
        &["tls-system-roots"],
        "trust those of the system",
    )
    .switch(),
    dial(
        "client.tls.fingerprint",
        &["connect.tls.fingerprint"],
        &["tls-fingerprint"],
        "certificates to trust",
    ),
    dial("client.tls.cert", &["connect.tls.cert"], &[], "certificate to show"),
    dial("client.tls.key", &["connect.tls.key"], &[], "its private key"),
    dial(
        "client.tls.disable_verify",
        &["connect.tls.insecure", "connect.tls.disable_verify"],
        &["tls-disable-verify"],
        "trust anybody",
    )
    .switch(),
    dial("client.tls.host_name", &["connect.tls.host_name"], &[], "name to expect"),
    dial(
        "client.backoff.initial",
        &["connect.backoff.initial"],
        &["backoff-initial"],
        "first wait to dial again",
    ),
    dial(
        "client.backoff.multiplier",
        &["connect.backoff.multiplier"],
        &["backoff-multiplier"],
        "growth of that wait",
    ),
    dial("client.backoff.max", &["connect.backoff.max"], &["backoff-max"], "longest wait"),
    dial("client.backoff.timeout", &["connect.backoff.timeout"], &["backoff-timeout"], "when to give up"),
    dial(
        "client.websocket.enabled",
        &["connect.websocket.enabled"],
        &["websocket-enabled"],
        "fall back to TCP",
    )
    .switch(),
    dial("client.websocket.delay", &["connect.websocket.delay"], &["websocket-delay"], "when to fall back"),
    dial("connect.goaway.redirect", &[], &["goaway-redirect"], "where a relay that leaves may send us"),
    dial(
        "connect.goaway.handover",
        &[],
        &["goaway-handover"],
        "how long a relay that leaves goes on serving",
    ),
    dial("client.quic.congestion_control", &[], &[], "congestion control"),
    dial("client.quic.idle_timeout", &[], &[], "idle timeout"),
    dial("client.quic.keep_alive", &[], &[], "keep-alive"),
    dial("client.quic.gso", &[], &[], "segmentation offload").switch(),
    dial("client.quic.max_streams", &[], &["client-max-streams"], "streams a peer may have open"),
    dial("client.quic.mtu_discovery", &[], &[], "probing for larger datagrams").switch(),
    dial("client.quic.qlog", &[], &[], "folder for QUIC traces"),
    idle("stats.enabled", &[], STATS, "publish counters as broadcasts").switch(),
    idle("stats.prefix", &[], STATS, "where they are published"),
    idle("stats.interval", &[], STATS, "how often"),
    idle("stats.node", &[], STATS, "name of this relay in them"),
    idle("stats.depth", &[], STATS, "how finely they are split"),
    idle("stats.linger", &[], STATS, "how long an empty one stays"),
    idle("iroh.enabled", &[], IROH, "peer-to-peer listener").switch(),
    idle("iroh.secret", &[], IROH, "its key"),
    idle("iroh.bind_v4", &[], IROH, "its IPv4 address"),
    idle("iroh.bind_v6", &[], IROH, "its IPv6 address"),
    idle("iroh.disable_relay", &[], IROH, "direct connections only").switch(),
    idle("jemalloc.*", &[], "memory comes from another allocator", "memory profiles"),
];
