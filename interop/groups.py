"""Writes and reads groups, and compares them by the features of a version."""

from __future__ import annotations

import asyncio

import moq
from harness import Peer, check
from versions import Version

# Payload and timestamp (microseconds) of each frame of each group, by sequence.
Groups = dict[int, list[tuple[bytes, int]]]


def frame_of(group: int, index: int) -> tuple[bytes, int]:
    """Payload and timestamp (microseconds) of a frame; both differ for each.

    The timestamps of a whole case span less than the 5 s after which a publisher drops what is old by them.
    """
    return f"group {group} frame {index} ".encode() * (1 + index), group * 100_000 + index * 3_333 + 7


def expected_groups(groups: int | range, frames: int) -> Groups:
    """Groups that `publish_groups` writes."""
    return {group: [frame_of(group, index) for index in range(frames)] for group in as_range(groups)}


async def publish_groups(track: moq.TrackProducer, groups: int | range, frames: int, pause: float = 0.03) -> None:
    """Writes whole groups, paced like a live source."""
    for group in as_range(groups):
        producer = track.create_group(group)
        for index in range(frames):
            producer.write_frame(*frame_of(group, index))
        producer.finish()
        await asyncio.sleep(pause)


def as_range(groups: int | range) -> range:
    return range(groups) if isinstance(groups, int) else groups


async def read_groups(track: moq.TrackConsumer) -> Groups:
    """Reads everything until the track ends, as it arrives.

    Groups travel on streams of their own, so that a later one may overtake; the client's reading in
    order would leave out the one that was overtaken.
    """
    return {group.sequence: await read_frames(group) async for group in track.groups_as_arrived()}


async def read_frames(group: moq.GroupConsumer) -> list[tuple[bytes, int]]:
    return [(frame.payload, frame.timestamp_us) async for frame in group]


def check_groups(version: Version, received: Groups, expected: Groups, what: str = "") -> None:
    """Checks groups and payloads, and timestamps if, and only if, `version` carries them."""
    label = f"{what}: " if what else ""
    check(payloads(received) == payloads(expected), f"{label}received {summary(received)}, or other payloads than sent")
    kept = [a == b for number in expected for (_, a), (_, b) in zip(received[number], expected[number], strict=True)]
    if version.timestamps:
        check(all(kept), f"{label}{kept.count(False)} of {len(kept)} timestamps differ")
    else:
        check(not any(kept), f"{label}{kept.count(True)} timestamps arrived, but {version.name} has none")


def payloads(groups: Groups) -> dict[int, list[bytes]]:
    return {number: [payload for payload, _ in frames] for number, frames in groups.items()}


def summary(received: Groups) -> str:
    """Summary of the received groups in one line."""
    groups = [f"group {number}: {len(frames)} frames" for number, frames in received.items()]
    return ", ".join(groups) or "nothing"


async def live_track(
    publisher: Peer, path: str, name: str = "data", info: moq.TrackInfo | None = None
) -> tuple[moq.BroadcastProducer, moq.TrackProducer]:
    """An announced broadcast with one track."""
    broadcast = publisher.broadcast(path)
    track = broadcast.publish_track(name, info)
    broadcast.announce()
    return broadcast, track
