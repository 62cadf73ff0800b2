"""Publishers that vanish, leave and take over from each other; subscribers and relays that leave."""

from __future__ import annotations

import asyncio
import sys
import time
from itertools import pairwise

import moq
from groups import live_track
from harness import Failure, Peer, Relay, check, clean_environment, expect_update, subscribe
from runner import Cases

# Time for which a track without subscribers stays subscribed upstream.
LINGER_SECONDS = 5
# Idle timeout of the relay's connections.
IDLE_SECONDS = 10
# Drain time of the relay, unless its file sets it.
DRAIN_SECONDS = 10
# Time allowed beyond intended waits, on a machine that runs a dozen cases.
MARGIN_SECONDS = 1.5
# Pause between two groups of a publisher that signs its frames.
PACE_SECONDS = 0.05

# Lead of the first of two publishers.
LEAD_SECONDS = 1

cases = Cases()


# A publisher that writes half a group and then nothing more; its arguments are URL and path.
HALF_A_GROUP = """
import asyncio, sys, moq
async def main():
    origin = moq.OriginProducer()
    async with moq.Client(sys.argv[1], tls_verify=False, websocket_enabled=sys.argv[1].startswith("ws"),
                          publish=origin, subscribe=moq.OriginProducer()):
        broadcast = origin.create_broadcast(sys.argv[2])
        track = broadcast.publish_track("data")
        broadcast.announce()
        await track.used()
        track.append_group().write_frame(b"half")
        await asyncio.sleep(120)
asyncio.run(main())
"""


async def start_half_a_group(relay: Relay, transport: str, path: str) -> asyncio.subprocess.Process:
    """Runs `HALF_A_GROUP` in a process that can be killed."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-c", HALF_A_GROUP, relay.url(transport), path, env=clean_environment()
    )


@cases.case("a publisher that leaves takes its broadcasts along")
async def leaving_withdraws(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as watcher:
        updates = watcher.announced(f"{transport}/leaving")
        async with Peer(relay, transport) as publisher:
            broadcast = publisher.broadcast(f"{transport}/leaving/cam")
            broadcast.announce()
            await expect_update(updates, "cam", active=True)
        await expect_update(updates, "cam", active=False)
        updates.cancel()


@cases.case("a publisher that is killed leaves no group that looks finished", seconds=60, long=True)
async def killed_publisher(relay: Relay, transport: str) -> None:
    path = f"{transport}/killed"
    async with Peer(relay, transport) as subscriber:
        updates = subscriber.announced(path)
        publisher = await start_half_a_group(relay, transport, path)
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


async def sign(track: moq.TrackProducer, name: bytes) -> None:
    """Writes `name` repeatedly, in groups from 0 on."""
    while True:
        track.write_frame(name)
        await asyncio.sleep(PACE_SECONDS)


class Follower:
    """Watches a path as a player would: subscribes at each announcement, and drops the previous subscription."""

    def __init__(self, peer: Peer, path: str) -> None:
        self.heard: asyncio.Queue[bytes] = asyncio.Queue()
        self._peer, self._path = peer, path
        self._listening: asyncio.Task[None] | None = None
        self._following = asyncio.create_task(self._follow())

    async def _follow(self) -> None:
        async for update in self._peer.announced(self._path):
            if update.active:
                if self._listening is not None:
                    self._listening.cancel()
                self._listening = asyncio.create_task(self._listen(await self._peer.watch(self._path)))

    async def _listen(self, broadcast: moq.BroadcastConsumer) -> None:
        consumer = await broadcast.subscribe_track("data")
        try:
            async for group in consumer:
                async for frame in group:
                    self.heard.put_nowait(frame.payload)
        except moq.Error:
            pass  # the publisher left; the next announcement brings another
        finally:
            consumer.cancel()

    async def hear(self, name: bytes, seconds: float, *, before: bytes | None = None) -> None:
        """Waits for a frame of `name`; earlier frames must all be `before`."""
        async with asyncio.timeout(seconds):
            while (heard := await self.heard.get()) != name:
                check(heard == before, f"heard {heard!r} while waiting for {name!r}")

    async def hear_only(self, name: bytes, times: int) -> None:
        """Checks that the next `times` frames are all from `name`."""
        async with asyncio.timeout(5):
            heard = [await self.heard.get() for _ in range(times)]
        check(set(heard) == {name}, f"heard {set(heard)} instead of {name!r} alone")

    def stop(self) -> None:
        for task in (self._following, self._listening):
            if task is not None:
                task.cancel()


@cases.case("of two publishers of a path one is heard at a time, and when it leaves the other")
async def two_publishers(relay: Relay, transport: str) -> None:
    path = f"{transport}/two"
    names = [b"first", b"second"]
    async with Peer(relay, transport) as watcher, Peer(relay, transport) as first, Peer(relay, transport) as second:
        follower = Follower(watcher, path)
        writing, broadcasts = [], []
        for publisher, name in zip((first, second), names, strict=True):
            broadcast, track = await live_track(publisher, path)
            # A broadcast without a reference is withdrawn.
            broadcasts.append(broadcast)
            writing.append(asyncio.create_task(sign(track, name)))
            if publisher is first:
                await follower.hear(name, 5)
                await asyncio.sleep(LEAD_SECONDS)
        # The relay chooses among equal publishers, and may choose again when the second one announces.
        await asyncio.sleep(2)
        heard = [follower.heard.get_nowait() for _ in range(follower.heard.qsize())]
        changes = sum(a != b for a, b in pairwise(heard))
        check(changes <= 1, f"{changes} changes between two live publishers")
        serving = heard[-1]
        await follower.hear_only(serving, 10)
        (first, second)[names.index(serving)].session.shutdown()
        other = names[1 - names.index(serving)]
        # A relay that cannot tell publishers apart waits for group numbers that it has not had.
        behind = 0.0 if relay.version.hop_ids else LEAD_SECONDS + MARGIN_SECONDS
        await follower.hear(other, MARGIN_SECONDS + behind, before=serving)
        await follower.hear_only(other, 10)
        for task in writing:
            task.cancel()
        follower.stop()


@cases.case("a publisher that comes after another said goodbye is heard at once, from group 0")
async def succession(relay: Relay, transport: str) -> None:
    path = f"{transport}/succession"
    async with Peer(relay, transport) as watcher, Peer(relay, transport) as second:
        follower = Follower(watcher, path)
        async with Peer(relay, transport) as first:
            _broadcast, track = await live_track(first, path)
            writing = asyncio.create_task(sign(track, b"first"))
            await follower.hear(b"first", 5)
            await follower.hear_only(b"first", 20)
            writing.cancel()
        _other, heir = await live_track(second, path)
        signing = asyncio.create_task(sign(heir, b"second"))
        await follower.hear(b"second", MARGIN_SECONDS, before=b"first")
        await follower.hear_only(b"second", 10)
        signing.cancel()
        follower.stop()


@cases.case("a publisher that comes after another vanished is heard when the silence is noticed", seconds=60, long=True)
async def takeover(relay: Relay, transport: str) -> None:
    path = f"{transport}/takeover"
    async with Peer(relay, transport) as watcher, Peer(relay, transport) as second:
        follower = Follower(watcher, path)
        vanishing = await start_half_a_group(relay, transport, path)
        try:
            await follower.hear(b"half", 20)
        finally:
            vanishing.kill()
            await vanishing.wait()
        _other, heir = await live_track(second, path)
        signing = asyncio.create_task(sign(heir, b"second"))
        # A watcher that subscribes again before the timeout is noticed receives the existing frame again.
        await follower.hear(b"second", IDLE_SECONDS + MARGIN_SECONDS, before=b"half")
        await follower.hear_only(b"second", 10)
        signing.cancel()
        follower.stop()


@cases.case("a track that the last subscriber left is given up by its publisher in time")
async def unsubscribe(relay: Relay, transport: str) -> None:
    path = f"{transport}/unsubscribe"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as stays, Peer(relay, transport) as leaves:
        _broadcast, track = await live_track(publisher, path)
        demand = track.demand()
        first = await subscribe(await leaves.watch(path), "data")
        second = await subscribe(await stays.watch(path), "data")
        both = [asyncio.create_task(consumer.next_group()) for consumer in (first, second)]
        await track.used()
        await asyncio.sleep(0.2)
        track.write_frame(b"x")
        await asyncio.gather(*both)
        first.cancel()
        await asyncio.sleep(LINGER_SECONDS + MARGIN_SECONDS)
        check(demand.is_used(), "the relay gave up a track that somebody still reads")
        second.cancel()
        started = time.monotonic()
        await asyncio.wait_for(demand.unused(), LINGER_SECONDS + MARGIN_SECONDS)
        waited = time.monotonic() - started
        check(waited > LINGER_SECONDS - 1, f"given up after {waited:.1f} s: a viewer that comes back would wait")


@cases.case("a relay that drains serves those that wait until it goes, then ends well", seconds=60, long=True, own_relay=True)
async def drain(relay: Relay, transport: str) -> None:
    draining = await asyncio.to_thread(relay.another)
    async with (
        Peer(draining, transport, reconnect=True) as publisher,
        Peer(draining, transport, reconnect=True) as subscriber,
    ):
        seen: list[list[moq.ConnectionStatus]] = [[], []]
        peers = zip((publisher, subscriber), seen, strict=True)
        statuses = [asyncio.create_task(follow_status(peer, changes)) for peer, changes in peers]
        _broadcast, track = await live_track(publisher, f"{transport}/drain")
        consumer = await subscribe(await subscriber.watch(f"{transport}/drain"), "data")
        writing = asyncio.create_task(sign(track, b"flowing"))
        arriving = consumer.groups_as_arrived()
        for _ in range(10):
            await anext(arriving)
        started = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(draining.stop, DRAIN_SECONDS + MARGIN_SECONDS))
        last, received = started, 0
        try:
            async for _group in arriving:
                last, received = time.monotonic(), received + 1
        except moq.Error as error:
            check(is_goaway_timeout(error, transport), f"the subscription ended with {error!r}")
        else:
            raise Failure("the relay ended a track that its publisher did not end")
        served = last - started
        await stopping
        check(served > DRAIN_SECONDS / 2, f"served for {served:.1f} s of {DRAIN_SECONDS} s")
        check(received > 0.8 * served / PACE_SECONDS, f"{received} groups in {served:.1f} s of draining")
        writing.cancel()
        for status in statuses:
            status.cancel()
        for changes in seen:
            migrates = moq.ConnectionStatus.MIGRATING in changes
            check(migrates == relay.version.goaway, f"a client went through {changes}")


def is_goaway_timeout(error: moq.Error, transport: str) -> bool:
    """Whether the client reports a GOAWAY timeout. Over WebSocket it shows no codes."""
    details = moq.protocol_error(error)
    return details.kind == moq.ProtocolKind.GOAWAY_TIMEOUT if details else transport == "websocket"


async def follow_status(peer: Peer, seen: list[moq.ConnectionStatus]) -> None:
    """Records every change of the status."""
    while True:
        seen.append(await peer.session.status())


@cases.case("a client that does not reconnect leaves a draining relay at once, if it is told", own_relay=True)
async def goaway(relay: Relay, transport: str) -> None:
    draining = await asyncio.to_thread(relay.another)
    async with Peer(draining, transport) as peer:
        closed = asyncio.create_task(peer.session.closed())
        await asyncio.sleep(0.2)
        started = time.monotonic()
        stopping = asyncio.create_task(asyncio.to_thread(draining.stop, DRAIN_SECONDS + MARGIN_SECONDS))
        ended: moq.Error | None = None
        try:
            await closed
        except moq.Error as error:
            ended = error
        waited = time.monotonic() - started
        await stopping
        if relay.version.goaway:
            check(waited < MARGIN_SECONDS and ended is None, f"left after {waited:.1f} s, with {ended!r}")
        else:
            late = waited > DRAIN_SECONDS / 2 and ended is not None and is_goaway_timeout(ended, transport)
            check(late, f"left after {waited:.1f} s, with {ended!r}; {relay.version.name} cannot tell")
