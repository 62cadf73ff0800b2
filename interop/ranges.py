"""Selection of groups: subscriptions with a range, changed subscriptions, fetches of single groups."""

from __future__ import annotations

import asyncio

import moq
from groups import Groups, check_groups, expected_groups, live_track, publish_groups, read_frames, read_groups
from harness import KEEP_ALL_US, Failure, Peer, Relay, check, subscribe
from runner import Cases

# Time for a change of a subscription to reach the relay and take effect.
SETTLE_SECONDS = 0.5

cases = Cases()


async def collect(track: moq.TrackConsumer, received: Groups) -> None:
    """Adds arriving groups to `received` until the track ends."""
    async for group in track.groups_as_arrived():
        received[group.sequence] = await read_frames(group)


def preferences(**changed: int | None) -> moq.Subscription:
    """Preferences of a subscription that keeps every group, with some changed."""
    return moq.Subscription(**{"max_age_us": KEEP_ALL_US, **changed})


@cases.case("a subscription to a range receives that range and nothing else", where=lambda version: version.ranges)
async def group_range(relay: Relay, transport: str) -> None:
    path = f"{transport}/range"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as some, Peer(relay, transport) as every:
        _broadcast, track = await live_track(publisher, path)
        # This client's end is exclusive.
        ranged = await subscribe(await some.watch(path), "data", group_start=2, group_end=5)
        part = asyncio.create_task(read_groups(ranged))
        whole = asyncio.create_task(read_groups(await subscribe(await every.watch(path), "data")))
        await track.used()
        # Both subscriptions must be open: the relay merges them into one upstream, as wide as both together.
        await asyncio.sleep(SETTLE_SECONDS)
        await publish_groups(track, groups=8, frames=2)
        track.finish()
        check_groups(relay.version, await part, expected_groups(range(2, 5), 2), "the range")
        check_groups(relay.version, await whole, expected_groups(8, 2), "the neighbour without a range")


@cases.case("a subscription that is changed receives from then on what it asks for", where=lambda version: version.ranges)
async def update(relay: Relay, transport: str) -> None:
    path = f"{transport}/update"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as subscriber:
        _broadcast, track = await live_track(publisher, path)
        consumer = await subscribe(await subscriber.watch(path), "data")
        received: Groups = {}
        reading = asyncio.create_task(collect(consumer, received))
        await track.used()

        async def then(groups: range, expected: set[int], what: str) -> None:
            await asyncio.sleep(SETTLE_SECONDS)
            await publish_groups(track, groups, frames=2)
            await asyncio.sleep(SETTLE_SECONDS)
            check(set(received) == expected, f"{what}: received {sorted(received)}, expected {sorted(expected)}")

        await then(range(0, 3), {0, 1, 2}, "at first")
        consumer.update(preferences(group_end=5))
        await then(range(3, 8), set(range(5)), "with an end")
        consumer.update(preferences(priority=7))
        await then(range(8, 9), set(range(9)), "without an end, again")
        consumer.update(preferences(group_start=11))
        await then(range(9, 13), {*range(9), 11, 12}, "with a later start")
        track.finish()
        await reading
        check_groups(relay.version, dict(sorted(received.items())), {
            **expected_groups(9, 2), **expected_groups(range(11, 13), 2)
        })


@cases.case("a late subscriber receives as much of the past as it accepts")
async def max_age(relay: Relay, transport: str) -> None:
    path = f"{transport}/age"
    # The client merges several subscriptions to a track into one, so each has a client of its own.
    peers = [Peer(relay, transport) for _ in range(4)]
    async with peers[0] as publisher, peers[1] as early, peers[2] as modest, peers[3] as greedy:
        _broadcast, track = await live_track(publisher, path)
        reading = asyncio.create_task(read_groups(await subscribe(await early.watch(path), "data")))
        await track.used()
        await publish_groups(track, groups=6, frames=2)
        await asyncio.sleep(SETTLE_SECONDS)
        latest = await subscribe(await modest.watch(path), "data", max_age_us=0)
        everything = await subscribe(await greedy.watch(path), "data")
        received: dict[str, Groups] = {"nothing old": {}, "everything": {}}
        consumers = zip((latest, everything), received.values(), strict=True)
        collecting = [asyncio.create_task(collect(consumer, groups)) for consumer, groups in consumers]
        await asyncio.sleep(SETTLE_SECONDS)
        await publish_groups(track, range(6, 8), frames=2)
        track.finish()
        await asyncio.gather(reading, *collecting)
        past = range(6) if relay.version.past else range(5, 6)
        expected = {"nothing old": [5, 6, 7], "everything": [*past, 6, 7]}
        seen = {name: sorted(groups) for name, groups in received.items()}
        check(seen == expected, f"received {seen}, expected {expected}")


async def fetch(broadcast: moq.BroadcastConsumer, group: int) -> list[tuple[bytes, int]]:
    """Fetches one group of the track."""
    return await read_frames(await asyncio.wait_for(broadcast.fetch_group("data", group), 5))


async def refused(broadcast: moq.BroadcastConsumer, group: int, kind: moq.ProtocolKind | None) -> None:
    """Checks that a fetch of `group` fails, with `kind` if that is known."""
    try:
        frames = await fetch(broadcast, group)
    except TimeoutError:
        raise Failure(f"a fetch of group {group} had no answer") from None
    except moq.Error as error:
        details = moq.protocol_error(error)
        good = kind is None or (details is not None and details.kind == kind)
        check(good, f"a fetch of group {group} was refused with {details or error!r}")
    else:
        raise Failure(f"a fetch of group {group} brought {frames}")


@cases.case("old groups can be fetched, from the cache and from the publisher, where the version has it")
async def fetching(relay: Relay, transport: str) -> None:
    path = f"{transport}/fetch"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as early, Peer(relay, transport) as late:
        _broadcast, track = await live_track(publisher, path)
        # There is no subscription yet: only the publisher has these groups.
        await publish_groups(track, groups=3, frames=2)
        live = await subscribe(await early.watch(path), "data", group_start=3)
        reading = asyncio.create_task(read_groups(live))
        await track.used()
        await publish_groups(track, range(3, 8), frames=2)
        await asyncio.sleep(SETTLE_SECONDS)
        watched = await late.watch(path)
        if relay.version.fetch:
            check(await fetch(watched, 4) == expected_groups(5, 2)[4], "the group from the cache differs")
            check(await fetch(watched, 1) == expected_groups(3, 2)[1], "the group from the publisher differs")
            await refused(watched, 99, moq.ProtocolKind.NOT_FOUND)
        else:
            await refused(watched, 4, None)
        # Neither affects the session or other subscriptions.
        consumer = await subscribe(watched, "data", group_start=8)
        following = asyncio.create_task(read_groups(consumer))
        await asyncio.sleep(SETTLE_SECONDS)
        await publish_groups(track, range(8, 10), frames=2)
        track.finish()
        check_groups(relay.version, await following, expected_groups(range(8, 10), 2), "after the fetch")
        check_groups(relay.version, await reading, expected_groups(range(3, 10), 2), "live")


@cases.case("a fetch of a group that the relay holds asks nothing of its publisher", where=lambda version: version.fetch)
async def fetch_cached(relay: Relay, transport: str) -> None:
    path = f"{transport}/cached"
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as early, Peer(relay, transport) as late:
        _broadcast, track = await live_track(publisher, path)
        reading = asyncio.create_task(read_groups(await subscribe(await early.watch(path), "data")))
        await track.used()
        await publish_groups(track, groups=3, frames=2)
        await asyncio.sleep(SETTLE_SECONDS)
        payload = b"x" * 100_000
        big = track.create_group(3)
        big.write_frame(payload, 400_000)
        big.finish()
        await asyncio.sleep(SETTLE_SECONDS)
        watched = await late.watch(path)
        before = publisher.session.stats().bytes_sent or 0
        frames = await fetch(watched, 3)
        sent = (publisher.session.stats().bytes_sent or 0) - before
        check(frames == [(payload, 400_000)], "the group differs")
        check(sent < len(payload) // 10, f"the publisher sent {sent} B for a group that the relay holds")
        track.finish()
        await reading
