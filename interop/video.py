"""Real video: a clip of ffmpeg passes the client's container import, the relay and another client."""

from __future__ import annotations

import asyncio
import struct
import subprocess
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import moq
from harness import KEEP_ALL_US, Peer, Relay, check
from runner import Cases, Suite
from versions import NEWEST

SECONDS = 4
RATE = 30
GROUP_FRAMES = 30
# H.264 at a constant rate, one key frame per second, one MP4 fragment per frame: typical of a live encoder.
FFMPEG = [
    *("ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "error", "-y"),
    *("-f", "lavfi", "-i", f"testsrc=size=640x360:rate={RATE}:duration={SECONDS}"),
    *("-c:v", "libx264", "-profile:v", "main", "-preset", "veryfast", "-tune", "zerolatency"),
    *("-pix_fmt", "yuv420p", "-b:v", "1500k", "-bf", "0", "-threads", "1"),
    *("-g", str(GROUP_FRAMES), "-keyint_min", str(GROUP_FRAMES), "-sc_threshold", "0"),
    *("-movflags", "empty_moov+default_base_moof+frag_every_frame", "-f", "mp4"),
]

cases = Cases()


@dataclass(frozen=True)
class Sample:
    """One coded picture of the clip."""

    payload: bytes
    timestamp_us: int
    keyframe: bool


@dataclass(frozen=True)
class Clip:
    """A fragmented MP4 file, parsed independently of the client."""

    init: bytes
    fragments: list[bytes]
    samples: list[Sample]


@cache
def clip() -> Clip:
    """Makes the clip, once."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "clip.mp4"
        subprocess.run([*FFMPEG, str(file)], check=True, timeout=60)
        data = file.read_bytes()
    init, fragments, samples = b"", [], []
    timescale = 0
    moof = b""
    for kind, box in boxes(data):
        if kind in (b"ftyp", b"moov"):
            init += box
            if kind == b"moov":
                mdhd = descend(box[8:], b"trak", b"mdia", b"mdhd")
                timescale = struct.unpack_from(">I", mdhd, 12 if mdhd[0] == 0 else 20)[0]
        elif kind == b"moof":
            moof = box
        elif kind == b"mdat":
            fragments.append(moof + box)
            samples.append(sample_of(moof, box[8:], timescale))
    return Clip(init, fragments, samples)


def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
    """Boxes of `data`: type, and the whole box."""
    found, at = [], 0
    while at + 8 <= len(data):
        size = struct.unpack_from(">I", data, at)[0]
        check(8 <= size <= len(data) - at, f"box of {size} bytes at {at}")
        found.append((data[at + 4 : at + 8], data[at : at + size]))
        at += size
    return found


def descend(data: bytes, *path: bytes) -> bytes:
    """Content of the box at `path`."""
    for kind in path:
        data = next(box for name, box in boxes(data) if name == kind)[8:]
    return data


def sample_of(moof: bytes, payload: bytes, timescale: int) -> Sample:
    """The only sample of a fragment made with `frag_every_frame`."""
    traf = descend(moof[8:], b"traf")
    tfdt = descend(traf, b"tfdt")
    decode_time = struct.unpack_from(">Q" if tfdt[0] == 1 else ">I", tfdt, 4)[0]
    trun = descend(traf, b"trun")
    count = struct.unpack_from(">I", trun, 4)[0]
    check(count == 1, f"{count} samples in a fragment")
    # NAL unit type 5 is a key frame; parameter sets and SEI may come before it.
    kinds, at = set(), 0
    while at + 5 <= len(payload):
        kinds.add(payload[at + 4] & 0x1F)
        at += 4 + struct.unpack_from(">I", payload, at)[0]
    return Sample(payload, decode_time * 1_000_000 // timescale, 5 in kinds)


async def play(producer: moq.ContainerProducer) -> None:
    """Publishes the clip at twice its speed."""
    for fragment in clip().fragments:
        producer.write(fragment)
        await asyncio.sleep(0.5 / RATE)
    producer.finish()


async def first_rendition(broadcast: moq.BroadcastConsumer) -> tuple[str, moq.Video]:
    """Name and description of the only video track."""
    async with await broadcast.subscribe_catalog() as catalogs:
        async for catalog in catalogs:
            if catalog.video:
                check(len(catalog.video) == 1, f"renditions {list(catalog.video)}")
                return next(iter(catalog.video.items()))
    raise AssertionError("the catalog ended without video")


@cases.case("every picture arrives with its bytes, timestamp and key frame mark", seconds=60)
async def pictures(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as viewer:
        broadcast = publisher.broadcast(f"{transport}/pictures")
        producer = broadcast.publish_container(moq.ContainerFormat.FMP4, clip().init)
        broadcast.announce()
        watched = await viewer.watch(f"{transport}/pictures")
        name, video = await first_rendition(watched)
        check(video.codec.startswith("avc1."), f"codec {video.codec}")
        check((video.coded.width, video.coded.height) == (640, 360), f"size {video.coded}")
        media = await watched.subscribe_media(name, video, moq.Subscription(max_age_us=KEEP_ALL_US))
        received: list[Sample] = []

        async def view() -> None:
            async for frame in media:
                received.append(Sample(frame.payload, frame.timestamp_us, frame.keyframe))

        viewing = asyncio.create_task(view())
        await asyncio.sleep(0.5)
        await play(producer)
        await viewing
        compare(received, clip().samples)


def compare(received: list[Sample], sent: list[Sample]) -> None:
    """Reads the track frame by frame."""
    for number, (got, wanted) in enumerate(zip(received, sent)):
        check(got.payload == wanted.payload, f"picture {number}: payload differs")
        apart = abs(got.timestamp_us - wanted.timestamp_us)
        check(apart <= 1, f"picture {number}: at {got.timestamp_us} us, sent for {wanted.timestamp_us} us")
        check(got.keyframe == wanted.keyframe, f"picture {number}: key frame mark differs")
    check(len(received) == len(sent), f"{len(received)} of {len(sent)} pictures arrived")


@cases.case("what arrives plays: ffmpeg decodes it to the same pictures", seconds=90)
async def playback(relay: Relay, transport: str) -> None:
    async with Peer(relay, transport) as publisher, Peer(relay, transport) as viewer:
        broadcast = publisher.broadcast(f"{transport}/playback")
        producer = broadcast.publish_container(moq.ContainerFormat.FMP4, clip().init)
        broadcast.announce()
        watched = await viewer.watch(f"{transport}/playback")
        name, _video = await first_rendition(watched)
        track = await watched.subscribe_track(name, moq.Subscription(max_age_us=KEEP_ALL_US))
        groups: list[list[bytes]] = []

        async def record() -> None:
            async for group in track:
                groups.append([frame.payload async for frame in group])

        recording = asyncio.create_task(record())
        await asyncio.sleep(0.5)
        await play(producer)
        await recording
        sizes = [len(group) for group in groups]
        check(sizes == [GROUP_FRAMES] * (SECONDS * RATE // GROUP_FRAMES), f"groups of {sizes} frames")
        arrived = clip().init + b"".join(frame for group in groups for frame in group)
        sent = clip().init + b"".join(clip().fragments)
        got, wanted = await asyncio.gather(asyncio.to_thread(decode, arrived), asyncio.to_thread(decode, sent))
        check(len(wanted) == SECONDS * RATE, f"the clip itself decodes to {len(wanted)} pictures")
        check(got == wanted, f"{len(got)} pictures decoded, or other pictures than sent")


def decode(data: bytes) -> list[str]:
    """Checksum of each decoded picture."""
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-i", "pipe:0", "-f", "framemd5", "-"]
    run = subprocess.run(command, input=data, capture_output=True, timeout=60, check=True)
    lines = run.stdout.decode().splitlines()
    return [line.rsplit(",", 1)[-1].strip() for line in lines if not line.startswith("#")]


if __name__ == "__main__":
    Suite("video", cases.all, [NEWEST]).main()
