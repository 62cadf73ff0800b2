"""Access rights: which sessions are admitted, where, and for how long, with the published client."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import moq
from groups import check_groups, expected_groups, live_track, publish_groups, read_groups
from harness import STOP_SECONDS, Failure, Peer, Relay, check, clean_environment, subscribe
from runner import Cases, Suite
from versions import NEWEST, VERSIONS, Version

# Time for which an event must not happen, where nothing else proves its absence.
SILENCE_SECONDS = 0.4
# Latest end of a session after its expiry.
LATE_SECONDS = 1.5

cases = Cases()


@dataclass
class Guarded(Relay):
    """A relay that has the public half of the key `root`, and is open to everybody below `anon`."""

    folder: Path = Path()

    @classmethod
    def spawn(
        cls, binary: Path, version: Version = VERSIONS[NEWEST], workers: int = 2, auth: str = 'public = "anon"'
    ) -> Guarded:
        folder = Path(tempfile.mkdtemp(prefix="rights-"))
        for name in ("root", "other"):
            files = ["--out", str(folder / f"{name}.jwk"), "--public", str(folder / f"{name}.public.jwk")]
            run(binary, "generate", "--algorithm", "ES256", "--id", "root", *files)
        auth = f'key = "{folder}/root.public.jwk"\n{auth}'
        relay = cast(Guarded, super().spawn(binary, version, workers, auth))
        relay.folder = folder
        return relay

    def stop(self, seconds: float = STOP_SECONDS) -> None:
        super().stop(seconds)
        shutil.rmtree(self.folder)

    def token(self, root: str, *arguments: str, key: str = "root") -> str:
        """Token for `root`, made by the relay's own binary."""
        check(self.binary is not None, "this suite needs the binary")
        return run(cast(Path, self.binary), "sign", "--key", str(self.folder / f"{key}.jwk"), "--root", root, *arguments)

    def room(self, path: str, root: str, *arguments: str, key: str = "root") -> str:
        """`path` with such a token, for a client's URL."""
        return f"{path}?jwt={self.token(root, *arguments, key=key)}"


BOTH = ("--publish", "", "--subscribe", "")


def run(binary: Path, *arguments: str) -> str:
    """Output of a verb of `token`."""
    command = [str(binary), "token", *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, env=clean_environment()).stdout.strip()


def guarded(relay: Relay) -> Guarded:
    check(isinstance(relay, Guarded), "the keys of this relay are not known")
    return cast(Guarded, relay)


async def flows(publisher: Peer, path: str, subscriber: Peer, seen: str) -> None:
    """Checks that data published as `path` reaches the subscriber as `seen`, every byte of it."""
    _broadcast, track = await live_track(publisher, path)
    reading = asyncio.create_task(read_groups(await subscribe(await subscriber.watch(seen), "data")))
    await track.used()
    await publish_groups(track, groups=3, frames=2)
    track.finish()
    check_groups(subscriber.version, await reading, expected_groups(3, 2), f"{path}, seen as {seen}")


async def closing(peer: Peer, seconds: float = 10) -> str:
    """Reason with which the relay closes a session."""
    try:
        await asyncio.wait_for(peer.session.closed(), seconds)
    except TimeoutError:
        raise Failure(f"the session goes on after {seconds} s") from None
    except moq.Error as error:
        # Over WebSocket this client shows no close reason.
        return str(error) if peer.transport == "websocket" else unauthorized(error)
    raise Failure("the session ended as if all were well")


def unauthorized(error: moq.Error) -> str:
    """Reason of a refusal that this client recognises as one: it would not reconnect."""
    check(moq.is_auth(error), f"the client would come back after {error!r}")
    details = moq.protocol_error(error)
    # A WebSocket is refused by an HTTP status, which has no reason.
    if details is None:
        return ""
    check(details.kind == moq.ProtocolKind.UNAUTHORIZED, f"ended with {details}")
    return details.message


async def refused(relay: Relay, transport: str, path: str) -> None:
    """Checks that a session is refused."""
    try:
        async with Peer(relay, transport, path) as peer:
            words = await closing(peer)
    except moq.Error as error:
        # Over WebTransport the client may be refused before it is connected, over WebSocket it always is.
        words = unauthorized(error)
    check("ey" not in words, f"the reason shows a token: {words}")


async def sees_nothing(peer: Peer, path: str) -> None:
    """Checks that neither the announcement of `path` nor the broadcast is visible."""
    updates = peer.announced()
    try:
        update = await asyncio.wait_for(updates.__anext__(), SILENCE_SECONDS)
    except TimeoutError:
        pass
    else:
        raise Failure(f"{update.prefix} is announced")
    try:
        consumer = await subscribe(await asyncio.wait_for(peer.request(path), 10), "data")
        await asyncio.wait_for(consumer.next_group(), 10)
    except moq.Error as error:
        details = moq.protocol_error(error)
        check(details is not None and details.kind == moq.ProtocolKind.UNROUTABLE, f"refused with {details or error!r}")
    else:
        raise Failure(f"{path} is served")


@cases.case("a token lets publish and subscribe, both ways", own_relay=True, path=True)
async def both_ways(relay: Relay, transport: str) -> None:
    root = f"{transport}-both"
    room = guarded(relay).room(root, root, *BOTH)
    async with Peer(relay, transport, room) as one, Peer(relay, transport, room) as other:
        await flows(one, "cam", other, "cam")
        await flows(other, "mic", one, "mic")


@cases.case("a path above the root of the token widens, one below it narrows", own_relay=True, path=True)
async def roots(relay: Relay, transport: str) -> None:
    root = f"{transport}-roots/room"
    above = guarded(relay).room(f"{transport}-roots", root, *BOTH)
    at = guarded(relay).room(root, root, *BOTH)
    below = guarded(relay).room(f"{root}/alice", root, *BOTH)
    async with (
        Peer(relay, transport, above) as wide,
        Peer(relay, transport, at) as plain,
        Peer(relay, transport, below) as narrow,
    ):
        await flows(wide, "room/a", plain, "a")
        await flows(narrow, "b", wide, "room/alice/b")
        await flows(wide, "room/alice/c", narrow, "c")
        beside, _track = await live_track(plain, "bob/cam")
        await wide.watch("room/bob/cam")
        await sees_nothing(narrow, "bob/cam")
        # The relay's root is not the token's root: nothing outside of it is visible.
        outside, _other = await live_track(wide, "elsewhere/cam")
        await sees_nothing(narrow, "elsewhere/cam")
        check(beside is not outside, "both are kept")


@cases.case("who may only subscribe publishes nothing", own_relay=True, path=True)
async def reader_only(relay: Relay, transport: str) -> None:
    root = f"{transport}-reader"
    full = guarded(relay).room(root, root, *BOTH)
    reading = guarded(relay).room(root, root, "--subscribe", "")
    async with Peer(relay, transport, full) as member, Peer(relay, transport, reading) as reader:
        held = await live_track(reader, "mine")
        await sees_nothing(member, "mine")
        await flows(member, "cam", reader, "cam")
        check(len(held) == 2, "it is kept")


@cases.case("who may only publish sees and hears nothing", own_relay=True, path=True)
async def writer_only(relay: Relay, transport: str) -> None:
    root = f"{transport}-writer"
    full = guarded(relay).room(root, root, *BOTH)
    writing = guarded(relay).room(root, root, "--publish", "mine")
    async with (
        Peer(relay, transport, full) as member,
        Peer(relay, transport, full) as another,
        Peer(relay, transport, writing) as writer,
    ):
        held = await live_track(another, "theirs")
        await member.watch("theirs")
        await sees_nothing(writer, "theirs")
        await flows(writer, "mine/cam", member, "mine/cam")
        # A grant covers a path and everything below it, by whole segments.
        beside = await live_track(writer, "minecraft")
        try:
            await asyncio.wait_for(member.watch("minecraft"), SILENCE_SECONDS)
        except TimeoutError:
            pass
        else:
            raise Failure("it published beside its grant")
        check(len(held) == len(beside) == 2, "both are kept")


@cases.case("without a token, what is public is open", own_relay=True, path=True)
async def public(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport, "anon") as one, Peer(relay, transport) as other:
        await flows(one, f"{transport}/cam", other, f"anon/{transport}/cam")
        held = await live_track(other, f"{transport}-secret/cam")
        try:
            await asyncio.wait_for(one.watch(f"{transport}-secret/cam"), SILENCE_SECONDS)
        except TimeoutError:
            pass
        else:
            raise Failure("it published beside what is public")
        check(len(held) == 2, "it is kept")
    await refused(relay, transport, f"{transport}-room")
    await refused(relay, transport, "anonymous")


@cases.case("where no path arrives, what is public is open", own_relay=True, where=lambda version: not version.quic_path)
async def pathless(relay: Relay, transport: str) -> None:
    room = guarded(relay).room("room", "room", *BOTH) if transport == "quic" else ""
    path = f"anon/{transport}-pathless"
    async with Peer(relay, transport, room) as one, Peer(relay, transport) as other:
        await flows(one, path, other, path)


@cases.case("tokens that have ended, of another key, or for another path are refused", own_relay=True, path=True)
async def bad(relay: Relay, transport: str) -> None:
    room = f"{transport}-bad"
    good = guarded(relay).token(room, *BOTH)
    for path in (
        guarded(relay).room(room, room, *BOTH, "--expires", "1000000000"),
        guarded(relay).room(room, room, *BOTH, key="other"),
        guarded(relay).room(f"{room}s", room, *BOTH),
        guarded(relay).room("anon", room, *BOTH),
        f"{room}?jwt={good[:-4]}",
        f"{room}?jwt={'.'.join(good.split('.')[:2])}.",
        f"{room}?jwt=garbage",
    ):
        await refused(relay, transport, path)
    good = f"{room}?jwt={good}"
    async with Peer(relay, transport, good) as one, Peer(relay, transport, good) as other:
        await flows(one, "cam", other, "cam")


@cases.case("a session ends with its token", own_relay=True, path=True)
async def expiry(relay: Relay, transport: str) -> None:
    root = f"{transport}-expiry"
    end = int(time.time()) + 3
    brief = guarded(relay).room(root, root, *BOTH, "--expires", str(end))
    lasting = guarded(relay).room(root, root, *BOTH, "--expires", "1h")
    async with Peer(relay, transport, brief) as one, Peer(relay, transport, lasting) as other:
        held = await live_track(other, "cam")
        await one.watch("cam")
        await closing(one)
        late = time.time() - end
        check(-0.1 < late < LATE_SECONDS, f"the session ended {late:.1f} s after its token")
        check(await other.session.status() == moq.ConnectionStatus.CONNECTED, "the other one has ended, too")
        check(len(held) == 2, "it is kept")


@cases.case("the removal of a key ends the sessions of its tokens, and no others", own_relay=True, path=True)
async def removal(relay: Relay, transport: str) -> None:
    site = cast(Guarded, await asyncio.to_thread(relay.another))
    try:
        room = site.room("room", "room", *BOTH)
        async with (
            Peer(site, transport, room) as member,
            Peer(site, transport, room) as other,
            Peer(site, transport, "anon") as anybody,
        ):
            await flows(member, "cam", other, "cam")
            removed = time.monotonic()
            (site.folder / "root.public.jwk").unlink()
            await closing(member)
            await closing(other)
            late = time.monotonic() - removed
            check(late < LATE_SECONDS, f"the session ended {late:.1f} s after its key")
            check(await anybody.session.status() == moq.ConnectionStatus.CONNECTED, "the public has to leave, too")
        await refused(site, transport, room)
    finally:
        await asyncio.to_thread(site.stop)


if __name__ == "__main__":
    Suite("rights", cases.all, kind=Guarded).main()
