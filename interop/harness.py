"""What the suites share: a relay to talk to, clients, and a runner with bounded time.

The client is the published `moq-rs` package: nothing here was written for this relay, so what passes
is what a stranger would see.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import moq

# Longest a case may take, seconds, unless it says otherwise.
CASE_SECONDS = 30
# Longest a relay may take to print its address, and to stop.
START_SECONDS = 20
STOP_SECONDS = 10
# How each transport is asked for.
TRANSPORTS = {"quic": "moqt", "webtransport": "https"}
# Keep every group for this long: the client's default skips all but the newest.
KEEP_ALL_US = 20_000_000
# Functions of this file that every traceback goes through.
RUNNER = {"_run_case", "bounded", "check"}


class Failure(AssertionError):
    """A promise that was not kept."""


def check(condition: bool, message: str) -> None:
    """Fails the case with `message` unless `condition` holds."""
    if not condition:
        raise Failure(message)


@dataclass
class Relay:
    """A relay that listens on `address`; `process` when this run started it."""

    address: str
    fingerprint: str | None = None
    process: subprocess.Popen[str] | None = None
    output: list[str] = field(default_factory=list)

    @classmethod
    def spawn(cls, binary: Path, *arguments: str) -> Relay:
        """Starts `binary` as a development relay on a free loopback port and waits until it serves."""
        relay = cls(address=f"127.0.0.1:{free_port()}")
        command = [str(binary), "--bind", relay.address, *arguments]
        relay.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=clean_environment()
        )
        ready = threading.Event()
        threading.Thread(target=relay._collect, args=(ready,), daemon=True).start()
        if not ready.wait(START_SECONDS):
            relay.process.kill()
            raise Failure(f"the relay did not say where it listens:\n{relay.log()}")
        return relay

    def _collect(self, ready: threading.Event) -> None:
        assert self.process is not None and self.process.stdout is not None
        for line in self.process.stdout:
            self.output.append(line)
            if found := re.search(r"\b([0-9a-f]{64})\b", line):
                self.fingerprint = found[1]
            if self.fingerprint and any(self.address in seen for seen in self.output):
                ready.set()

    def stop(self) -> None:
        """Asks the relay to end and checks that it ends well."""
        if self.process is None:
            return
        check(self.process.poll() is None, f"the relay died with status {self.process.returncode}")
        self.process.send_signal(signal.SIGTERM)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise Failure(f"the relay did not end within {STOP_SECONDS} s of SIGTERM") from None
        check(status == 0, f"the relay ended with status {status} after SIGTERM")

    def log(self) -> str:
        """The last lines it printed."""
        return "".join(self.output[-30:])

    def url(self, transport: str, path: str = "") -> str:
        """Where to connect over `transport`, rooted at `path`."""
        return f"{TRANSPORTS[transport]}://{self.address}/{path}"


def clean_environment() -> dict[str, str]:
    """The environment without settings of a relay that somebody runs by hand."""
    return {key: value for key, value in os.environ.items() if not key.startswith("MOQ_")}


def free_port() -> int:
    """A UDP port that was free a moment ago."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Peer:
    """One session with origins of its own, so that nothing loops back inside the client."""

    def __init__(self, relay: Relay, transport: str, path: str = "") -> None:
        self.published = moq.OriginProducer()
        self._client = moq.Client(
            relay.url(transport, path),
            **trust(relay),
            websocket_enabled=False,
            reconnect=False,
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
        """A broadcast that nobody sees before it is announced."""
        return self.published.create_broadcast(path)

    def announced(self, prefix: str = "") -> moq.AnnounceConsumer:
        return self._client.announced(prefix)

    async def watch(self, path: str) -> moq.BroadcastConsumer:
        """Waits for `path` to be announced."""
        return await self._client.announced_broadcast(path)

    async def request(self, path: str) -> moq.BroadcastConsumer:
        """Asks for `path` as it is now."""
        return await self._client.request_broadcast(path)


def trust(relay: Relay) -> dict[str, object]:
    """How a client comes to trust the relay: by the fingerprint it printed, when we saw it."""
    return {"tls_fingerprints": [relay.fingerprint]} if relay.fingerprint else {"tls_verify": False}


async def subscribe(
    broadcast: moq.BroadcastConsumer, track: str, max_age_us: int = KEEP_ALL_US
) -> moq.TrackConsumer:
    """A subscription that keeps every group."""
    return await broadcast.subscribe_track(track, moq.Subscription(max_age_us=max_age_us))


Case = Callable[[Relay, str], Awaitable[None]]


@dataclass
class Suite:
    """Cases that run over each transport, one after the other."""

    name: str
    cases: list[tuple[str, Case, int]] = field(default_factory=list)

    def case(self, promise: str, seconds: int = CASE_SECONDS) -> Callable[[Case], Case]:
        """Registers a case under the promise it checks."""

        def register(function: Case) -> Case:
            self.cases.append((promise, function, seconds))
            return function

        return register

    def main(self) -> None:
        """Runs the suite as a program: prints a line a case and a summary, exits 1 after a failure."""
        parser = argparse.ArgumentParser(description=f"The {self.name} suite, against a relay.")
        parser.add_argument("--relay", type=Path, default=Path("target/release/moq-relay"), help="binary to start")
        parser.add_argument("--address", help="IP:PORT of a relay that already runs, instead of starting one")
        parser.add_argument("--workers", default="2", help="worker threads of the relay that is started")
        parser.add_argument("--only", default="", help="run cases whose name contains this")
        options = parser.parse_args()
        relay = (
            Relay(options.address)
            if options.address
            else Relay.spawn(options.relay, "--workers", options.workers)
        )
        failed = self._run(relay, options.only)
        sys.exit(1 if failed else 0)

    def _run(self, relay: Relay, only: str) -> int:
        passed = failed = 0
        for transport in TRANSPORTS:
            for promise, function, seconds in self.cases:
                if only not in promise:
                    continue
                good = self._run_case(f"{transport}: {promise}", function(relay, transport), seconds)
                passed, failed = passed + good, failed + (not good)
        if relay.process is not None:
            good = self._run_case("the relay ends well on SIGTERM", asyncio.to_thread(relay.stop), CASE_SECONDS)
            passed, failed = passed + good, failed + (not good)
        if failed:
            print(f"--- last lines of the relay\n{relay.log()}---")
        print(f"{self.name}: {passed} passed, {failed} failed", flush=True)
        return failed

    def _run_case(self, label: str, work: Awaitable[None], seconds: int) -> bool:
        started = time.monotonic()
        try:
            asyncio.run(bounded(work, seconds))
        except Exception as error:  # a case may fail in any way; the suite goes on
            seconds = time.monotonic() - started
            print(f"FAILED {label} ({seconds:.1f} s)")
            print(f"       {explain(error)}", flush=True)
            return False
        print(f"ok     {label} ({time.monotonic() - started:.1f} s)", flush=True)
        return True


def explain(error: BaseException) -> str:
    """What went wrong, and where in the suites it did."""
    if isinstance(error, TimeoutError) and error.__cause__ is not None:
        return "not done in time, waiting " + explain(error.__cause__).split(", ", 1)[-1]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parent == Path(__file__).parent]
    # The runner's own frames come first, and say nothing.
    places = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in ours if frame.name not in RUNNER]
    kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
    details = moq.protocol_error(error)
    return f"{kind}{details or error}, at {' < '.join(reversed(places)) or 'the start'}"


async def bounded(work: Awaitable[None], seconds: int) -> None:
    """Awaits `work`, at most `seconds`."""
    await asyncio.wait_for(work, seconds)
