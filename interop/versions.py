"""What each version of moq-lite carries, as this client shows it; `docs/versions.md` says why."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """One version, and what survives the way through a relay that speaks only that one.

    The cases assert both columns: what is carried arrives, what is not carried is absent.
    """

    name: str
    # Frames keep the time their publisher gave them; without, the receiver's clock stamps them.
    timestamps: bool
    # A subscriber learns priority, age and timescale of a track; without, the client's defaults.
    properties: bool
    # Groups of one frame can go in a datagram; without, they do not arrive.
    datagrams: bool
    # One old group can be asked for; without, the request is refused.
    fetch: bool
    # A late subscriber gets the old groups that its max age accepts; without, it begins with the latest.
    past: bool
    # An announcement names its publisher; without, one that follows another looks like the same.
    hop_ids: bool
    # The path in the URL of a raw QUIC session reaches the relay (in SETUP); without, its root is the root.
    quic_path: bool
    # An end of track names its last group; without, both sides wait some seconds for stragglers.
    clean_end: bool
    # A session can be asked to move elsewhere.
    goaway: bool
    # A subscription has bounds and can be changed, and a subscriber may ask what its path carries.
    ranges: bool

    @property
    def label(self) -> str:
        """How lines of output name it."""
        return self.name.removeprefix("moq-")


VERSIONS = {
    version.name: version
    for version in (
        #        name           times  props  dgrams fetch  past   hops   path   end    goaway ranges
        Version("moq-lite-06", True, True, True, True, True, True, True, True, True, True),
        Version("moq-lite-05", True, True, True, True, False, True, True, True, True, True),
        Version("moq-lite-04", False, False, False, False, False, True, False, False, True, True),
        Version("moq-lite-03", False, False, False, False, False, False, False, False, False, True),
        Version("moq-lite-02", False, False, False, False, False, False, False, False, False, False),
    )
}
NEWEST = next(iter(VERSIONS))
