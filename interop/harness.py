"""Shared parts of the suites: a relay to test, and clients.

The client is the published `moq-rs` package: nothing here was written for this relay, so what passes
is what a stranger would see.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
from dataclasses import dataclass, field
from pathlib import Path

import moq
from versions import NEWEST, VERSIONS, Version

# Longest a case may take, seconds, unless it says otherwise.
CASE_SECONDS = 30
# Longest time for a relay to print its address, and to stop.
START_SECONDS = 20
STOP_SECONDS = 10
# URL scheme of each transport.
TRANSPORTS = {"quic": "moqt", "webtransport": "https", "websocket": "ws"}
# Keep every group for this long: the client's default skips all but the newest.
KEEP_ALL_US = 20_000_000


class Failure(AssertionError):
    """A promise that does not hold."""


def check(condition: bool, message: str) -> None:
    """Fails the case with `message` unless `condition` holds."""
    if not condition:
        raise Failure(message)


@dataclass
class Relay:
    """A relay that listens on `address` and supports `version`; `process` if this run started it."""

    address: str
    version: Version
    binary: Path | None = None
    workers: int = 2
    fingerprint: str | None = None
    process: subprocess.Popen[str] | None = None
    output: list[str] = field(default_factory=list)

    @classmethod
    def spawn(
        cls, binary: Path, version: Version = VERSIONS[NEWEST], workers: int = 2, auth: str = 'public = ""'
    ) -> Relay:
        """Starts `binary` on a free loopback port, with `version` alone, until it serves.

        `auth` is what its file says of who may come in: unless told otherwise, everybody.
        """
        relay = cls(f"127.0.0.1:{free_port()}", version, binary, workers)
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "relay.toml"
            file.write_text(
                f'[server]\nbind = "{relay.address}"\nversion = "{version.name}"\n'
                f'[web.http]\nlisten = "{relay.address}"\n[auth]\n{auth}\n'
            )
            relay._start([str(binary), "--config", str(file), "--workers", str(workers)])
        return relay

    def another(self) -> Relay:
        """A second relay like this one, for a case that ends it."""
        check(self.binary is not None, "this relay was not started here")
        return type(self).spawn(self.binary, self.version, self.workers)

    def _start(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_environment()
        )
        ready = threading.Event()
        threading.Thread(target=self._collect, args=(ready,), daemon=True).start()
        if not ready.wait(START_SECONDS):
            self.process.kill()
            raise Failure(f"the relay did not say where it listens:\n{self.log()}")

    def _collect(self, ready: threading.Event) -> None:
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if found := re.search(r"\b([0-9a-f]{64})\b", line):
                self.fingerprint = found[1]
            if self.fingerprint and any(self.address in seen for seen in self.output):
                ready.set()

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        """Asks the relay to end and checks that it ends well, within `seconds`."""
        if self.process is None:
            return
        check(self.process.poll() is None, f"the relay died with status {self.process.returncode}")
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failure(f"the relay did not end within {seconds} s of SIGTERM") from None
        check(status == 0, f"the relay ended with status {status} after SIGTERM")

    def log(self) -> str:
        """Last lines of the relay's output."""
        return "".join(self.output[-30:])

    def url(self, transport: str, path: str = "") -> str:
        """URL for `transport`, rooted at `path`."""
        return f"{TRANSPORTS[transport]}://{self.address}/{path}"


def clean_environment() -> dict[str, str]:
    """Environment without settings for the relay."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MOQ_")}


def free_port() -> int:
    """Finds a port that is free for UDP and TCP."""
    for _ in range(100):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as tcp,
        ):
            udp.bind(("127.0.0.1", 0))
            port = udp.getsockname()[1]
            with contextlib.suppress(OSError):
                tcp.bind(("127.0.0.1", port))
                return port
    raise Failure("no port is free of both UDP and TCP")


class Peer:
    """One session with origins of its own, so that nothing loops back inside the client."""

    def __init__(self, relay: Relay, transport: str, path: str = "", reconnect: bool = False) -> None:
        self.version = relay.version
        self.transport = transport
        self.published = moq.OriginProducer()
        self._client = moq.Client(
            relay.url(transport, path),
            **trust(relay),
            websocket_enabled=transport == "websocket",
            reconnect=reconnect,
            publish=self.published,
            subscribe=moq.OriginProducer(),
        )

    async def __aenter__(self) -> Peer:
        await asyncio.wait_for(self._client.__aenter__(), CASE_SECONDS)
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self._client.__aexit__(*exc)

    @property
    def session(self) -> moq.Session:
        session = self._client.session
        assert session is not None
        return session

    def broadcast(self, path: str) -> moq.BroadcastProducer:
        """Creates a broadcast that is not visible before it is announced."""
        return self.published.create_broadcast(path)

    def announced(self, prefix: str = "") -> moq.AnnounceConsumer:
        return self._client.announced(prefix)

    async def watch(self, path: str) -> moq.BroadcastConsumer:
        """Waits for `path` to be announced."""
        return await self._client.announced_broadcast(path)

    async def request(self, path: str) -> moq.BroadcastConsumer:
        """Requests `path` as it is now."""
        return await self._client.request_broadcast(path)


def trust(relay: Relay) -> dict[str, object]:
    """Trust settings of a client: the relay's fingerprint, if this run has read it from the output."""
    return {"tls_fingerprints": [relay.fingerprint]} if relay.fingerprint else {"tls_verify": False}


async def subscribe(broadcast: moq.BroadcastConsumer, track: str, **preferences: int | None) -> moq.TrackConsumer:
    """Subscribes with every group kept, unless `preferences` differ."""
    return await broadcast.subscribe_track(track, moq.Subscription(**{"max_age_us": KEEP_ALL_US, **preferences}))


async def expect_update(updates: moq.AnnounceConsumer, name: str, active: bool, seconds: float = CASE_SECONDS) -> None:
    """Expects the next announcement to be that `name`, a last segment, is announced or withdrawn."""
    update = await asyncio.wait_for(updates.__anext__(), seconds)
    seen = (update.prefix.rsplit("/", 1)[-1], update.active)
    check(seen == (name, active), f"announced {seen}, expected {(name, active)}")
