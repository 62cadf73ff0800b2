"""Broadcasts through the relay: announced, subscribed to, timed, large, small, refused, ended."""

from __future__ import annotations

import asyncio
import hashlib
import random
import re
import subprocess
import sys
import time

import leaving
import moq
import ranges
from groups import check_groups, expected_groups, frame_of, live_track, publish_groups, read_frames, read_groups
from harness import Failure, Peer, Relay, check, clean_environment, expect_update, subscribe
from runner import Cases, Suite

SUBSCRIBERS = 50
# Priority, age (us) and timescale that the client assumes for a track without TRACK_INFO.
CLIENT_DEFAULTS = (127, 5_000_000, 1000)
LARGE_FRAME_BYTES = 5_000_000
DATAGRAMS = 50
# An END that names the last group arrives sooner than this; without it, the wait for stragglers takes longer.
STRAGGLERS_SECONDS = 2
# Interval of the relay's PROBE reports is at most 10 s; the first one is sent at once.
PROBE_SECONDS = 3
# Application codes are sent as 64 + code.
ABORT_CODE = 77

cases = Cases()


@cases.case("client and relay agree on the version")
async def version_is_negotiated(relay: Relay, transport: str) -> None:
    # The client shows its version only in its log, which can be set up once per process.
    script = (
        "import asyncio, sys, moq\n"
        "moq.log_level('info')\n"
        "async def main():\n"
        "    url, websocket = sys.argv[1], sys.argv[1].startswith('ws')\n"
        "    async with moq.Client(url, tls_verify=False, websocket_enabled=websocket, reconnect=False):\n"
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
    check(versions == [relay.version.name], f"the client says {versions or plain[-2000:]}")


@cases.case("frames arrive with their payloads, groups and timestamps")
async def frames_arrive_unchanged(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        _broadcast, track = await live_track(publisher, f"{transport}/plain")
        consumer = await subscribe(await subscriber.watch(f"{transport}/plain"), "data")
        reading = asyncio.create_task(read_groups(consumer))
        await track.used()
        await publish_groups(track, groups=8, frames=5)
        track.finish()
        ended = time.monotonic()
        check_groups(relay.version, await reading, expected_groups(8, 5))
        waited = time.monotonic() - ended
        check((waited < STRAGGLERS_SECONDS) == relay.version.clean_end, f"the end of the track took {waited:.1f} s")


@cases.case("a track keeps its timescale, priority and age where the version has them")
async def track_info_is_passed_on(relay: Relay, transport: str) -> None:
    sent = moq.TrackInfo(priority=9, max_age_us=3_000_000, timescale=90_000)
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        _broadcast, track = await live_track(publisher, f"{transport}/info", info=sent)
        consumer = await subscribe(await subscriber.watch(f"{transport}/info"), "data")
        info = consumer.info()
        expected = (9, 3_000_000, 90_000) if relay.version.properties else CLIENT_DEFAULTS
        seen = (info.priority, info.max_age_us, info.timescale)
        check(seen == expected, f"priority, age (us) and timescale are {seen}, expected {expected}")
        reading = asyncio.create_task(consumer.next_group())
        await track.used()
        producer = track.append_group()
        ticks = [0, 3_003, 6_006, 3_003, 90_000]
        expected = [tick * 1_000_000 // 90_000 for tick in ticks]
        for timestamp in expected:
            producer.write_frame(b"x", timestamp)
        producer.finish()
        group = await reading
        check(group is not None, "the track ended first")
        received = [timestamp for _, timestamp in await read_frames(group)]
        close = all(abs(a - b) <= 12 for a, b in zip(received, expected, strict=True))
        check(close == relay.version.timestamps, f"timestamps {received}, sent {expected}")
        track.finish()


@cases.case("a broadcast is announced to watchers, and withdrawn")
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


@cases.case("an announcement names its publisher and the relay where the version has ids")
async def hop_ids(relay: Relay, transport: str) -> None:
    path = f"{transport}/hops"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as watcher:
        broadcast = publisher.broadcast(path)
        broadcast.announce()
        hops = (await anext(watcher.announced(path))).route.hops
        # Without ids the client stamps the first hop, and knows only the number of the others.
        named = all(hops) and len(hops) == 2
        check(named == relay.version.hop_ids and len(hops) >= 2, f"the hops are {hops}")


@cases.case("a client rooted at a path sees and fills only what is below it, where the path can be told")
async def rooted_session(relay: Relay, transport: str) -> None:
    root = f"{transport}/rooted"
    told = transport != "quic" or relay.version.quic_path
    async with Peer(relay, transport, root) as inside, Peer(relay, transport) as outside:
        _broadcast, track = await live_track(inside, "rooted-cam")
        # A relay that receives no path puts the session at its own root.
        path = f"{root}/rooted-cam" if told else "rooted-cam"
        consumer = await subscribe(await outside.watch(path), "data")
        reading = asyncio.create_task(read_groups(consumer))
        await track.used()
        await publish_groups(track, groups=2, frames=2)
        track.finish()
        check_groups(relay.version, await reading, expected_groups(2, 2))
        other = outside.broadcast(f"{root}/desk")
        elsewhere = outside.broadcast(f"{transport}/elsewhere")
        elsewhere.announce()
        other.announce()
        below, all_of_it = "desk", f"{root}/desk"
        paths = set()
        async for update in inside.announced():
            paths.add(update.prefix)
            if paths & {below, all_of_it}:
                break
        if told:
            check(paths <= {"rooted-cam", below}, f"a session rooted at {root} was told of {paths}")
        else:
            check(all_of_it in paths, f"a session that lost its root was told of {paths}")


@cases.case(f"{SUBSCRIBERS} subscribers of one publisher all receive everything, sent once", seconds=60, long=True, alone=True)
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
                check_groups(relay.version, received, expected_groups(groups, frames), f"subscriber {number}")

        followers = [asyncio.create_task(follow(number)) for number in range(SUBSCRIBERS)]
        for _ in followers:
            await ready.get()
        await track.used()
        # The last one to be ready still has to send its subscription.
        await asyncio.sleep(0.5)
        before = publisher.session.stats().bytes_sent or 0
        await publish_groups(track, groups, frames, pause=0.1)
        track.finish()
        await asyncio.gather(*followers)
        sent = (publisher.session.stats().bytes_sent or 0) - before
        payload = sum(len(data) for group in expected_groups(groups, frames).values() for data, _ in group)
        check(sent < 3 * payload + 20_000, f"the publisher sent {sent} B for {payload} B of payload: not once")


@cases.case("datagrams arrive with their sequence and timestamp where the version has them")
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
        if not relay.version.datagrams:
            check(not received, f"{len(received)} datagrams arrived, but {relay.version.name} has none")
            return
        # Over WebSocket this client sends datagrams, and drops those it receives.
        if transport == "websocket":
            check(not received, f"{len(received)} datagrams arrived: the client has learnt to")
            return
        # Datagrams may be lost, but hardly on loopback.
        check(len(received) >= DATAGRAMS * 9 // 10, f"{len(received)} of {DATAGRAMS} datagrams arrived")


@cases.case(f"a frame of {LARGE_FRAME_BYTES:,} bytes arrives byte for byte", long=True, alone=True)
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


@cases.case("a late subscriber starts at the first frame of the latest group")
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
        check_groups(relay.version, {1: received}, {1: expected_groups(2, 4)[1]})
        track.finish()


@cases.case("an end is clean for every subscriber, and an abort is not")
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
        check_groups(relay.version, await ended, expected_groups(3, 1), "clean track")
        producer = broken.append_group()
        producer.write_frame(b"half")
        group = await cut
        check(group is not None and (await group.read_frame()) is not None, "nothing arrived")
        producer.abort(ABORT_CODE)
        # The client sends an abort only together with later data.
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


@cases.case("a missing track and a missing broadcast are refused")
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
        # The refusal does not affect other subscriptions of the session.
        consumer = await subscribe(watched, "data")
        reading = asyncio.create_task(read_groups(consumer))
        await track.used()
        await publish_groups(track, groups=2, frames=1)
        track.finish()
        check_groups(relay.version, await reading, expected_groups(2, 1), "the other track")
        try:
            await asyncio.wait_for(subscriber.request(f"{transport}/nobody"), 10)
        except moq.Error:
            pass
        else:
            raise Failure("a broadcast that does not exist was served")


@cases.case("a subscriber that leaves costs the others nothing")
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
        check_groups(relay.version, await reading, expected_groups(20, 3), "the one that stayed")


@cases.case("a subscriber is told what the relay can send it", where=lambda version: version.ranges)
async def probe(relay: Relay, transport: str) -> None:
    path = f"{transport}/probe"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        _broadcast, track = await live_track(publisher, path)
        reading = asyncio.create_task(read_groups(await subscribe(await subscriber.watch(path), "data")))
        await track.used()
        await publish_groups(track, groups=10, frames=20)
        deadline = time.monotonic() + PROBE_SECONDS
        while (rate := subscriber.session.stats().estimated_recv_rate_bps) is None:
            check(time.monotonic() < deadline, f"no word of the relay on its bitrate in {PROBE_SECONDS} s")
            await asyncio.sleep(0.05)
        check(rate > 0, "the relay says that it can send nothing")
        track.finish()
        await reading


if __name__ == "__main__":
    Suite("delivery", [*cases.all, *ranges.cases.all, *leaving.cases.all]).main()
