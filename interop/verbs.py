"""Verbs of the binary against the published client, in both directions."""

from __future__ import annotations

import asyncio
import json

from groups import check_groups, expected_groups, live_track, publish_groups, read_groups
from harness import Peer, Relay, check, clean_environment, subscribe
from runner import Cases, Suite
from versions import VERSIONS

# More than a relay caches for a subscriber that is behind; this client sends no flow control by groups.
MANY_BYTES = 6_000_000

cases = Cases()


async def verb(relay: Relay, transport: str, name: str, *arguments: str) -> asyncio.subprocess.Process:
    """Starts a verb of the relay's own binary."""
    check(relay.binary is not None, "this suite needs the binary")
    trust = ["--fingerprint", relay.fingerprint] if relay.fingerprint else ["--insecure"]
    return await asyncio.create_subprocess_exec(
        str(relay.binary),
        name,
        relay.url(transport),
        *arguments,
        *trust,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=clean_environment(),
    )


async def finished(process: asyncio.subprocess.Process, given: bytes = b"") -> bytes:
    """Waits for a successful end, and returns the output."""
    output, said = await process.communicate(given)
    check(process.returncode == 0, f"status {process.returncode}: {said.decode()}")
    return output


@cases.case("lines given to pub are the frames of a subscriber", own_relay=True)
async def pub_lines(relay: Relay, transport: str) -> None:
    path = f"{transport}/pub"
    async with Peer(relay, transport) as subscriber:
        process = await verb(relay, transport, "pub", path, "data", "--lines", "--group-frames", "3")
        consumer = await subscribe(await subscriber.watch(path), "data")
        reading = asyncio.create_task(read_groups(consumer))
        await finished(process, b"".join(b"line %d\n" % number for number in range(10)))
        groups = await reading
        frames = [payload for number in sorted(groups) for payload, _ in groups[number]]
        check(frames == [b"line %d" % number for number in range(10)], f"received {frames}")
        check([len(groups[number]) for number in sorted(groups)] == [3, 3, 3, 1], "the groups are cut elsewhere")


@cases.case("bytes given to pub at a rate arrive whole", own_relay=True)
async def pub_bytes(relay: Relay, transport: str) -> None:
    path = f"{transport}/bytes"
    content = bytes(number * 7 % 251 for number in range(1_000)) * (MANY_BYTES // 1_000)
    async with Peer(relay, transport) as subscriber:
        process = await verb(relay, transport, "pub", path, "data", "--rate", str(MANY_BYTES))
        consumer = await subscribe(await subscriber.watch(path), "data")
        reading = asyncio.create_task(read_groups(consumer))
        await finished(process, content)
        groups = await reading
        received = b"".join(payload for number in sorted(groups) for payload, _ in groups[number])
        check(received == content, f"{len(received)} bytes arrived of {len(content)}, or others")


@cases.case("sub writes what a publisher sent, and ends with the track", own_relay=True)
async def sub_lines(relay: Relay, transport: str) -> None:
    path = f"{transport}/sub"
    async with Peer(relay, transport) as publisher:
        _broadcast, track = await live_track(publisher, path)
        process = await verb(relay, transport, "sub", path, "data", "--length-prefixed")
        await track.used()
        # More groups than the window of `sub`.
        await publish_groups(track, groups=60, frames=3, pause=0.005)
        track.finish()
        expected = [payload for frames in expected_groups(60, 3).values() for payload, _ in frames]
        wanted = b"".join(len(payload).to_bytes(4, "big") + payload for payload in expected)
        received = await finished(process)
        check(received == wanted, f"{len(received)} bytes were written of {len(wanted)}, or others")


@cases.case("sub stops after the group it was told", own_relay=True)
async def sub_until(relay: Relay, transport: str) -> None:
    path = f"{transport}/until"
    async with Peer(relay, transport) as publisher:
        _broadcast, track = await live_track(publisher, path)
        process = await verb(relay, transport, "sub", path, "data", "--lines", "--until", "2")
        await track.used()
        await publish_groups(track, groups=5, frames=1)
        received = await finished(process)
        expected = b"".join(frames[0][0] + b"\n" for frames in expected_groups(3, 1).values())
        check(received == expected, f"{received!r} was written")
        track.finish()


@cases.case("ls lists what a client announces", own_relay=True)
async def listed(relay: Relay, transport: str) -> None:
    prefix = f"{transport}/ls"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as watcher:
        tracks = [await live_track(publisher, f"{prefix}/{name}") for name in ("b", "a")]
        for name in ("a", "b"):
            await watcher.watch(f"{prefix}/{name}")
        plain = await finished(await verb(relay, transport, "ls", prefix))
        check(plain.decode().split() == [f"{prefix}/a", f"{prefix}/b"], f"listed {plain!r}")
        lines = (await finished(await verb(relay, transport, "ls", prefix, "--json"))).splitlines()
        check([json.loads(line)["path"] for line in lines] == [f"{prefix}/a", f"{prefix}/b"], f"listed {lines}")
        check(len(tracks) == 2, "both are kept")


@cases.case("fetch asks a publisher for an old group", own_relay=True, where=lambda version: version.fetch)
async def fetched(relay: Relay, transport: str) -> None:
    path = f"{transport}/fetch"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as watcher:
        _broadcast, track = await live_track(publisher, path)
        await publish_groups(track, groups=3, frames=3)
        await watcher.watch(path)
        received = await finished(
            await verb(relay, transport, "fetch", path, "data", "--group", "1", "--frames", "1..", "--lines")
        )
        expected = b"".join(payload + b"\n" for payload, _ in expected_groups(3, 3)[1][1:])
        check(received == expected, f"{received!r} was written")
        track.finish()


@cases.case("a subscription of sub costs its neighbours nothing", own_relay=True)
async def neighbours(relay: Relay, transport: str) -> None:
    path = f"{transport}/neighbours"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        _broadcast, track = await live_track(publisher, path)
        process = await verb(relay, transport, "sub", path, "data", "--lines")
        neighbour = asyncio.create_task(read_groups(await subscribe(await subscriber.watch(path), "data")))
        await track.used()
        # Both subscriptions must be open before the first group.
        await asyncio.sleep(1)
        await publish_groups(track, groups=6, frames=2)
        track.finish()
        check_groups(relay.version, await neighbour, expected_groups(6, 2), "the neighbour of sub")
        await finished(process)


if __name__ == "__main__":
    # The verbs do not support versions older than 03.
    Suite("verbs", cases.all, versions=[name for name in VERSIONS if VERSIONS[name].ranges]).main()
