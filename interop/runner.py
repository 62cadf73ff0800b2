"""Runs cases: each over every version and transport, several at a time, each with a time limit."""

from __future__ import annotations

import argparse
import asyncio
import sys
import threading
import time
import traceback
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import moq
from harness import CASE_SECONDS, TRANSPORTS, Failure, Relay
from versions import NEWEST, VERSIONS, Version

# Most cases wait for something; this many run at a time.
AT_ONCE = 12
# Functions of this file and of `harness` that appear in every traceback.
RUNNER = {"bounded", "check"}

Work = Callable[[Relay, str], Awaitable[None]]


@dataclass(frozen=True)
class Case:
    """A promise, and the function that checks it."""

    promise: str
    work: Work
    # Time limit, seconds.
    seconds: int
    # Moves much data: runs without other cases.
    alone: bool
    # Takes long: runs over all transports on the newest two versions only, else over one.
    long: bool
    # Ends a relay, so it needs one that this run can start.
    own_relay: bool
    # Needs the path of the URL, which some versions do not carry over raw QUIC.
    path: bool
    # Whether a version has the feature under test.
    where: Callable[[Version], bool]

    def runs(self, version: Version, transport: str) -> bool:
        """Whether the case runs over `transport` in `version`."""
        both = not self.long or version.name in list(VERSIONS)[:2]
        carried = not self.path or version.quic_path or transport != "quic"
        return self.where(version) and carried and (both or transport == next(iter(TRANSPORTS)))


@dataclass
class Cases:
    """The cases of a file."""

    all: list[Case] = field(default_factory=list)

    def case(
        self,
        promise: str,
        seconds: int = CASE_SECONDS,
        *,
        alone: bool = False,
        long: bool = False,
        own_relay: bool = False,
        path: bool = False,
        where: Callable[[Version], bool] = lambda _version: True,
    ) -> Callable[[Work], Work]:
        """Registers a function under the promise it checks."""

        def register(work: Work) -> Work:
            self.all.append(Case(promise, work, seconds, alone, long, own_relay, path, where))
            return work

        return register


@dataclass
class Suite:
    """Cases under one name, run as a program."""

    name: str
    cases: list[Case]
    versions: list[str] = field(default_factory=lambda: list(VERSIONS))
    # Class of the relay to start.
    kind: type[Relay] = Relay
    passed: int = 0
    failed: int = 0
    _printing: threading.Lock = field(default_factory=threading.Lock)

    def main(self) -> None:
        """Prints one line per case and a summary; exits with 1 after a failure."""
        parser = argparse.ArgumentParser(description=f"The {self.name} suite, against a relay.")
        parser.add_argument("--relay", type=Path, default=Path("target/release/moq-relay"), help="binary to start")
        parser.add_argument("--address", help="IP:PORT of a relay that already runs, instead of starting one")
        parser.add_argument("--version", choices=list(VERSIONS), help="this version only")
        parser.add_argument("--workers", type=int, default=2, help="worker threads of a relay that is started")
        parser.add_argument("--only", default="", help="run cases whose name contains this")
        options = parser.parse_args()
        # A running relay is expected to agree on the newest version, unless the option names another.
        default = [NEWEST] if options.address else self.versions
        versions = [VERSIONS[name] for name in ([options.version] if options.version else default)]
        relays = [
            Relay(options.address, version)
            if options.address
            else self.kind.spawn(options.relay, version, options.workers)
            for version in versions
        ]
        self._run(relays, options.only)
        sys.exit(1 if self.failed else 0)

    def _run(self, relays: list[Relay], only: str) -> None:
        runs = [run for relay in relays for run in self._runs(relay, only)]
        # Longest cases first, so that none of them is left for the end.
        runs.sort(key=lambda run: -run[0].seconds)
        for alone, at_once in ((True, 1), (False, AT_ONCE)):
            with ThreadPoolExecutor(at_once) as pool:
                list(pool.map(lambda run: self._run_case(*run), (run for run in runs if run[0].alone == alone)))
        for relay in relays:
            if relay.process is not None:
                self._attempt(f"{relay.version.label}: the relay ends well on SIGTERM", relay.stop)
        if self.failed:
            for relay in relays:
                print(f"--- last lines of the relay for {relay.version.label}\n{relay.log()}---")
        print(f"{self.name}: {self.passed} passed, {self.failed} failed", flush=True)

    def _runs(self, relay: Relay, only: str) -> Iterator[tuple[Case, Relay, str]]:
        for transport in TRANSPORTS:
            for case in self.cases:
                possible = relay.process is not None or not case.own_relay
                if only in case.promise and possible and case.runs(relay.version, transport):
                    yield case, relay, transport

    def _run_case(self, case: Case, relay: Relay, transport: str) -> None:
        label = f"{relay.version.label} {transport}: {case.promise}"
        # An event loop of its own, so that everything a case leaves behind ends with it.
        self._attempt(label, lambda: asyncio.run(bounded(case.work(relay, transport), case.seconds)))

    def _attempt(self, label: str, work: Callable[[], None]) -> None:
        started = time.monotonic()
        trouble = None
        try:
            work()
        except Exception as error:  # a case may fail in any way; the suite goes on
            trouble = explain(error)
        seconds = time.monotonic() - started
        with self._printing:
            if trouble is None:
                self.passed += 1
                print(f"ok     {label} ({seconds:.1f} s)", flush=True)
            else:
                self.failed += 1
                print(f"FAILED {label} ({seconds:.1f} s)\n       {trouble}", flush=True)


def explain(error: BaseException) -> str:
    """Description of an error, with its positions in the suites."""
    if isinstance(error, TimeoutError) and error.__cause__ is not None:
        return "not done in time, waiting " + explain(error.__cause__).split(", ", 1)[-1]
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if Path(frame.filename).parent == Path(__file__).parent]
    # The runner's own frames come first and are of no use.
    places = [
        f"{Path(frame.filename).name}:{frame.lineno}"
        for frame in ours
        if frame.name not in RUNNER and Path(frame.filename).name != Path(__file__).name
    ]
    kind = "" if isinstance(error, Failure) else f"{type(error).__name__}: "
    details = moq.protocol_error(error)
    return f"{kind}{details or error}, at {' < '.join(reversed(places)) or 'the start'}"


async def bounded(work: Awaitable[None], seconds: int) -> None:
    """Awaits `work`, at most `seconds`."""
    await asyncio.wait_for(work, seconds)
