"""A way between two media processes of a node: a port in each, and RTP on loopback between them.

Ports hear each other only within one process. Where two calls of different processes are joined, each hears the end
of the way that lies in its own; what is heard there comes out at the other end, a jitter buffer later.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from sipagent.media.client import MediaPort
from sipagent.media.pool import MediaPool
from sipagent.media.telephone_event import GAP_MS

PCMU, G722 = 0, 9
EVENTS = 101  # payload type of keys on the way
_LOOPBACK = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


class Heard(Protocol):
    """Whoever can be heard in a room, and hear."""

    port: MediaPort
    key_sinks: "list[Heard]"  # where the keys that come from there are pressed

    def hear(self, *others: "Heard", said: "Sequence[Heard]" = (), keys: bool = True) -> None: ...
    def pass_on(self, digit: str, duration_ms: int, by_info: bool) -> None: ...


class Relay:
    """One end."""

    def __init__(self, port: MediaPort) -> None:
        self.port = port
        self.key_sinks: list[Heard] = []
        self._key_source: Heard | None = None
        port.on_digit = self._pressed

    def hear(self, *others: Heard, said: Sequence[Heard] = (), keys: bool = True) -> None:
        """As `Leg.hear`."""
        keys = keys and len(others) == 1
        self.port.hear(*(other.port for other in others), said=[other.port for other in said], keys=keys)
        if self._key_source is not None:
            self._key_source.key_sinks.remove(self)
        self._key_source = others[0] if keys else None
        if self._key_source is not None:
            self._key_source.key_sinks.append(self)

    def pass_on(self, digit: str, duration_ms: int, by_info: bool) -> None:
        """A key of who is heard here; those in the audio the media process presses itself."""
        if by_info:
            self.port.press(digit, duration_ms, GAP_MS)

    def _pressed(self, digit: str, duration_ms: int) -> None:
        for sink in tuple(self.key_sinks):
            sink.pass_on(digit, duration_ms, by_info=False)


@asynccontextmanager
async def way_between(media: MediaPool, one: MediaPort, other: MediaPort) -> AsyncIterator[tuple[Relay, Relay]]:
    """The end beside each of the two ports. Raises CapacityError or SetupError."""
    codec = G722 if one.rate == other.rate > 8000 else PCMU
    ports: list[MediaPort] = []
    try:
        for port in (one, other):
            ports.append(await media.open(beside=port))
        for port, far in (ports, reversed(ports)):
            port.connect(_LOOPBACK.get(far.host, far.host), far.port, codec, EVENTS, telephone_event_in=EVENTS)
        yield Relay(ports[0]), Relay(ports[1])
    finally:
        await asyncio.gather(*(port.close() for port in ports))
