"""Broadcasts through the relay: announced, subscribed to, timed, large, small, refused, ended."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import subprocess
import sys

import moq
from harness import Failure, Peer, Relay, Suite, check, clean_environment, subscribe

# The version both ends have in common.
VERSION = "moq-lite-05"
SUBSCRIBERS = 50
LARGE_FRAME_BYTES = 5_000_000
DATAGRAMS = 50
# Codes of applications travel as 64 and above.
ABORT_CODE = 77
# A publisher that vanishes without goodbye keeps its path for 5 s.
LINGER_SECONDS = 5
# The relay gives up a silent connection after 10 s.
IDLE_SECONDS = 10

suite = Suite("delivery")


def frame_of(group: int, index: int) -> tuple[bytes, int]:
    """Payload and timestamp (microseconds) of a frame; both differ for each."""
    return f"group {group} frame {index} ".encode() * (1 + index), group * 1_000_000 + index * 33_333 + 7


async def publish_groups(track: moq.TrackProducer, groups: int, frames: int, pause: float = 0.03) -> None:
    """Writes whole groups, paced as a live source would."""
    for group in range(groups):
        producer = track.append_group()
        for index in range(frames):
            producer.write_frame(*frame_of(group, index))
        producer.finish()
        await asyncio.sleep(pause)


async def read_groups(track: moq.TrackConsumer) -> dict[int, list[tuple[bytes, int]]]:
    """Everything until the track ends: sequence to frames."""
    received = {}
    async for group in track:
        received[group.sequence] = await read_frames(group)
    return received


async def read_frames(group: moq.GroupConsumer) -> list[tuple[bytes, int]]:
    return [(frame.payload, frame.timestamp_us) async for frame in group]


def expected_groups(groups: int, frames: int) -> dict[int, list[tuple[bytes, int]]]:
    return {group: [frame_of(group, index) for index in range(frames)] for group in range(groups)}


async def live_track(publisher: Peer, path: str, name: str = "data") -> tuple[moq.BroadcastProducer, moq.TrackProducer]:
    """An announced broadcast with one track."""
    broadcast = publisher.broadcast(path)
    track = broadcast.publish_track(name)
    broadcast.announce()
    return broadcast, track


@suite.case("client and relay agree on " + VERSION)
async def version_is_negotiated(relay: Relay, transport: str) -> None:
    # The client tells its version only in its log, which can be set up once per process.
    script = (
        "import asyncio, sys, moq\n"
        "moq.log_level('info')\n"
        "async def main():\n"
        "    async with moq.Client(sys.argv[1], tls_verify=False, websocket_enabled=False, reconnect=False):\n"
        "        await asyncio.sleep(0.2)\n"
        "asyncio.run(main())\n"
    )
    run = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-c", script, relay.url(transport)],
        capture_output=True,
        text=True,
        timeout=20,
        env=clean_environment(),
    )
    plain = re.sub(r"\x1b\[[0-9;]*m", "", run.stdout + run.stderr)
    versions = re.findall(r"connected version=(\S+)", plain)
    check(versions == [VERSION], f"the client says {versions or plain[-2000:]}")


@suite.case("frames arrive with their payloads, groups and timestamps")
async def frames_arrive_unchanged(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        _broadcast, track = await live_track(publisher, f"{transport}/plain")
        consumer = await subscribe(await subscriber.watch(f"{transport}/plain"), "data")
        reading = asyncio.create_task(read_groups(consumer))
        await track.used()
        await publish_groups(track, groups=8, frames=5)
        track.finish()
        received = await reading
        check(received == expected_groups(8, 5), f"received {summary(received)}")


@suite.case("a track keeps its timescale, priority and age")
async def track_info_is_passed_on(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        broadcast = publisher.broadcast(f"{transport}/info")
        track = broadcast.publish_track("data", moq.TrackInfo(priority=9, max_age_us=3_000_000, timescale=90_000))
        broadcast.announce()
        consumer = await subscribe(await subscriber.watch(f"{transport}/info"), "data")
        info = consumer.info()
        check(
            (info.priority, info.max_age_us, info.timescale) == (9, 3_000_000, 90_000),
            f"received priority {info.priority}, age {info.max_age_us} us, timescale {info.timescale}",
        )
        reading = asyncio.create_task(read_groups(consumer))
        await track.used()
        group = track.append_group()
        ticks = [0, 3_003, 6_006, 3_003, 900_000_000]
        for tick in ticks:
            group.write_frame(b"x", timestamp_us=tick * 1_000_000 // 90_000)
        group.finish()
        track.finish()
        received = [timestamp for _, timestamp in (await reading)[0]]
        expected = [tick * 1_000_000 // 90_000 for tick in ticks]
        close = all(abs(a - b) <= 12 for a, b in zip(received, expected, strict=True))
        check(close, f"timestamps {received}, expected {expected} to within one tick")


@suite.case("a broadcast is announced to watchers, and withdrawn")
async def announce_and_withdraw(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as watcher:
        early = publisher.broadcast(f"{transport}/announce/early")
        early.announce()
        updates = watcher.announced(f"{transport}/announce")
        await expect_update(updates, "early", active=True)
        late = publisher.broadcast(f"{transport}/announce/late")
        late.announce()
        await expect_update(updates, "late", active=True)
        early.close()
        await expect_update(updates, "early", active=False)
        late.unannounce()
        await expect_update(updates, "late", active=False)
        late.announce()
        await expect_update(updates, "late", active=True)
        updates.cancel()


@suite.case("a publisher that leaves takes its broadcasts along", seconds=LINGER_SECONDS + 30)
async def leaving_withdraws(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as watcher:
        updates = watcher.announced(f"{transport}/leaving")
        async with Peer(relay, transport) as publisher:
            broadcast = publisher.broadcast(f"{transport}/leaving/cam")
            broadcast.announce()
            await expect_update(updates, "cam", active=True)
        await expect_update(updates, "cam", active=False)
        updates.cancel()


# A publisher that writes half a group and then does nothing more; its arguments are URL and path.
HALF_A_GROUP = """
import asyncio, sys, moq
async def main():
    origin = moq.OriginProducer()
    async with moq.Client(sys.argv[1], tls_verify=False, websocket_enabled=False, publish=origin,
                          subscribe=moq.OriginProducer()):
        broadcast = origin.create_broadcast(sys.argv[2])
        track = broadcast.publish_track("data")
        broadcast.announce()
        await track.used()
        track.append_group().write_frame(b"half")
        await asyncio.sleep(120)
asyncio.run(main())
"""


@suite.case("a publisher that is killed leaves no group that looks finished", seconds=60)
async def killed_publisher(relay: Relay, transport: str) -> None:
    path = f"{transport}/killed"
    async with Peer(relay, transport) as subscriber:
        updates = subscriber.announced(path)
        publisher = await asyncio.create_subprocess_exec(
            sys.executable, "-c", HALF_A_GROUP, relay.url(transport), path, env=clean_environment()
        )
        try:
            await expect_update(updates, "killed", active=True)
            consumer = await subscribe(await subscriber.watch(path), "data")
            group = await consumer.next_group()
            check(group is not None and (await group.read_frame()) is not None, "nothing arrived")
        finally:
            publisher.kill()
            await publisher.wait()
        try:
            frame = await group.read_frame()
        except moq.Error:
            pass
        else:
            raise Failure(f"half a group looked finished: {frame}")
        await expect_update(updates, "killed", active=False)
        updates.cancel()


async def expect_update(updates: moq.AnnounceConsumer, name: str, active: bool) -> None:
    update = await asyncio.wait_for(updates.__anext__(), IDLE_SECONDS + LINGER_SECONDS + 10)
    seen = (update.prefix.rsplit("/", 1)[-1], update.active)
    check(seen == (name, active), f"announced {seen}, expected {(name, active)}")


@suite.case("a client rooted at a path sees and fills only what is below it")
async def rooted_session(relay: Relay, transport: str) -> None:
    root = f"{transport}/rooted"
    async with Peer(relay, transport, root) as inside, Peer(relay, transport) as outside:
        _broadcast, track = await live_track(inside, "cam")
        consumer = await subscribe(await outside.watch(f"{root}/cam"), "data")
        reading = asyncio.create_task(read_groups(consumer))
        await track.used()
        await publish_groups(track, groups=2, frames=2)
        track.finish()
        check(await reading == expected_groups(2, 2), "the groups differ")
        other = outside.broadcast(f"{root}/desk")
        elsewhere = outside.broadcast(f"{transport}/elsewhere")
        elsewhere.announce()
        other.announce()
        paths = set()
        async for update in inside.announced():
            paths.add(update.prefix)
            if "desk" in paths:
                break
        check(paths <= {"cam", "desk"}, f"a session rooted at {root} was told of {paths}")


@suite.case(f"{SUBSCRIBERS} subscribers of one publisher all receive everything, sent once", seconds=60)
async def many_subscribers(relay: Relay, transport: str) -> None:
    groups, frames = 10, 10
    path = f"{transport}/many"
    async with Peer(relay, transport) as publisher:
        _broadcast, track = await live_track(publisher, path)
        ready: asyncio.Queue[int] = asyncio.Queue()

        async def follow(number: int) -> None:
            async with Peer(relay, transport) as subscriber:
                consumer = await subscribe(await subscriber.watch(path), "data")
                await ready.put(number)
                received = await read_groups(consumer)
                check(received == expected_groups(groups, frames), f"subscriber {number}: {summary(received)}")

        followers = [asyncio.create_task(follow(number)) for number in range(SUBSCRIBERS)]
        for _ in followers:
            await ready.get()
        await track.used()
        # The last to be ready has still to send its subscription.
        await asyncio.sleep(0.5)
        before = publisher.session.stats().bytes_sent or 0
        await publish_groups(track, groups, frames, pause=0.1)
        track.finish()
        await asyncio.gather(*followers)
        sent = (publisher.session.stats().bytes_sent or 0) - before
        payload = sum(len(data) for group in expected_groups(groups, frames).values() for data, _ in group)
        check(sent < 3 * payload + 20_000, f"the publisher sent {sent} B for {payload} B of payload: not once")


@suite.case("datagrams arrive with their sequence and timestamp")
async def datagrams(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        _broadcast, track = await live_track(publisher, f"{transport}/datagrams")
        consumer = await subscribe(await subscriber.watch(f"{transport}/datagrams"), "data")
        received: dict[int, tuple[bytes, int]] = {}

        async def collect() -> None:
            while (datagram := await consumer.recv_datagram()) is not None:
                received[datagram.sequence] = (datagram.payload, datagram.timestamp_us)

        collecting = asyncio.create_task(collect())
        await track.used()
        sent = {}
        for number in range(DATAGRAMS):
            payload, timestamp = random.randbytes(1 + number * 20), number * 20_000
            sent[track.append_datagram(payload, timestamp)] = (payload, timestamp)
            await asyncio.sleep(0.005)
        track.finish()
        await asyncio.wait_for(collecting, 10)
        wrong = {number for number, datagram in received.items() if sent.get(number) != datagram}
        check(not wrong, f"datagrams {sorted(wrong)} are not what was sent")
        # Datagrams may be lost, but hardly on loopback.
        check(len(received) >= DATAGRAMS * 9 // 10, f"{len(received)} of {DATAGRAMS} datagrams arrived")


@suite.case(f"a frame of {LARGE_FRAME_BYTES:,} bytes arrives byte for byte")
async def large_frame(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        _broadcast, track = await live_track(publisher, f"{transport}/large")
        consumer = await subscribe(await subscriber.watch(f"{transport}/large"), "data")
        reading = asyncio.create_task(consumer.next_group())
        await track.used()
        payload = random.randbytes(LARGE_FRAME_BYTES)
        producer = track.append_group()
        producer.write_frame(payload, timestamp_us=1)
        producer.write_frame(b"after", timestamp_us=2)
        producer.finish()
        group = await reading
        check(group is not None, "the track ended first")
        (first, _), (second, _) = await read_frames(group)
        check(len(first) == len(payload), f"{len(first)} bytes arrived")
        check(hashlib.sha256(first).digest() == hashlib.sha256(payload).digest(), "the bytes differ")
        check(second == b"after", "the next frame differs")
        track.finish()


@suite.case("a late subscriber starts at the first frame of the latest group")
async def late_join(relay: Relay, transport: str) -> None:
    path = f"{transport}/late"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as early, Peer(relay, transport) as late:
        _broadcast, track = await live_track(publisher, path)
        first = await subscribe(await early.watch(path), "data")
        opening = asyncio.create_task(first.next_group())
        await track.used()
        done = track.append_group()
        done.write_frame(*frame_of(0, 0))
        done.finish()
        check((await opening) is not None, "the first group did not arrive")
        producer = track.append_group()
        for index in range(3):
            producer.write_frame(*frame_of(1, index))
        group = await first.next_group()
        check(group is not None and group.sequence == 1, "the early subscriber missed the second group")
        # The relay has the group when the early subscriber has read its third frame.
        for _ in range(3):
            await group.read_frame()
        joined = await late.watch(path)
        consumer = await joined.subscribe_track("data")
        latest = await consumer.next_group()
        check(latest is not None and latest.sequence == 1, f"joined at group {latest and latest.sequence}")
        producer.write_frame(*frame_of(1, 3))
        producer.finish()
        received = await read_frames(latest)
        check(received == expected_groups(2, 4)[1], f"received {len(received)} frames, or others than sent")
        track.finish()


@suite.case("an end is clean for every subscriber, and an abort is not")
async def ends(relay: Relay, transport: str) -> None:
    path = f"{transport}/ends"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        broadcast = publisher.broadcast(path)
        clean, broken = broadcast.publish_track("clean"), broadcast.publish_track("broken")
        broadcast.announce()
        watched = await subscriber.watch(path)
        ended = asyncio.create_task(read_groups(await subscribe(watched, "clean")))
        consumer = await subscribe(watched, "broken")
        cut = asyncio.create_task(consumer.next_group())
        await clean.used()
        await broken.used()
        await publish_groups(clean, groups=3, frames=1)
        clean.finish()
        check(await ended == expected_groups(3, 1), "the clean track differs")
        producer = broken.append_group()
        producer.write_frame(b"half")
        group = await cut
        check(group is not None and (await group.read_frame()) is not None, "nothing arrived")
        producer.abort(ABORT_CODE)
        # The client tells of an abort only when it has something else to say.
        broken.write_frame(b"next")
        try:
            frame = await group.read_frame()
        except moq.Error as error:
            details = moq.protocol_error(error)
            check(details is not None and details.code == ABORT_CODE + 64, f"the abort arrived as {details or error}")
        else:
            raise Failure(f"an aborted group looked finished: {frame}")
        following = await consumer.next_group()
        check(following is not None and following.sequence == 1, "the group after an aborted one is missing")


@suite.case("a missing track and a missing broadcast are refused")
async def missing(relay: Relay, transport: str) -> None:
    path = f"{transport}/missing"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        _broadcast, track = await live_track(publisher, path)
        watched = await subscriber.watch(path)
        try:
            refused = await subscribe(watched, "no-such-track")
            await asyncio.wait_for(refused.next_group(), 10)
        except moq.Error as error:
            details = moq.protocol_error(error)
            check(
                details is not None and details.kind == moq.ProtocolKind.NOT_FOUND,
                f"the refusal was {details or error!r}",
            )
        else:
            raise Failure("a track that does not exist was served")
        # The refusal costs its neighbours nothing.
        consumer = await subscribe(watched, "data")
        reading = asyncio.create_task(read_groups(consumer))
        await track.used()
        await publish_groups(track, groups=2, frames=1)
        track.finish()
        check(await reading == expected_groups(2, 1), "the other track suffered")
        try:
            await asyncio.wait_for(subscriber.request(f"{transport}/nobody"), 10)
        except moq.Error:
            pass
        else:
            raise Failure("a broadcast that does not exist was served")


@suite.case("a subscriber that leaves costs the others nothing")
async def leaving_subscriber(relay: Relay, transport: str) -> None:
    path = f"{transport}/leaver"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as stays:
        _broadcast, track = await live_track(publisher, path)
        reading = asyncio.create_task(read_groups(await subscribe(await stays.watch(path), "data")))
        async with Peer(relay, transport) as leaves:
            leaving = await subscribe(await leaves.watch(path), "data")
            first = asyncio.create_task(leaving.next_group())
            await track.used()
            writing = asyncio.create_task(publish_groups(track, groups=20, frames=3))
            await first
        await writing
        track.finish()
        check(await reading == expected_groups(20, 3), "the one that stayed lost something")


def summary(received: dict[int, list[tuple[bytes, int]]]) -> str:
    """What arrived, in one line."""
    groups = [f"group {number}: {len(frames)} frames" for number, frames in sorted(received.items())]
    return ", ".join(groups) or "nothing"


if __name__ == "__main__":
    suite.main()
