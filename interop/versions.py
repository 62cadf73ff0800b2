"""Features of each version of moq-lite, as seen by this client; `docs/versions.md` has the reasons."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """One version, and the features that survive a relay that supports only that one.

    The cases assert both columns: what is carried arrives, what is not carried is absent.
    """

    name: str
    # Frames keep their publisher's timestamps; without, the receiver's clock stamps them.
    timestamps: bool
    # A subscriber receives priority, age and timescale of a track; without, it uses the client's defaults.
    properties: bool
    # Groups of one frame can be sent as a datagram; without, they do not arrive.
    datagrams: bool
    # One old group can be fetched; without, the request is refused.
    fetch: bool
    # A late subscriber gets the old groups within its max age; without, it starts with the latest.
    past: bool
    # An announcement names its publisher; without, one publisher looks like the next.
    hop_ids: bool
    # The path in the URL of a raw QUIC session reaches the relay (in SETUP); without, its root is the relay's.
    quic_path: bool
    # An end of track names its last group; without, both sides wait some seconds for stragglers.
    clean_end: bool
    # A session can be asked to move (GOAWAY).
    goaway: bool
    # A subscription has bounds and can be changed, and a subscriber may request PROBE.
    ranges: bool

    @property
    def label(self) -> str:
        """Name of the version in the output."""
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
