"""The media processes of a node: each a core's worth of calls, new calls to the one with the least to do."""

import asyncio
import os
from pathlib import Path

import msgspec
import numpy as np
from numpy.typing import NDArray

from sipagent.core.errors import CapacityError
from sipagent.core.events import EventSink
from sipagent.media.client import MediaClient, MediaPort
from sipagent.media.settings import MediaSettings

CALLS_A_PROCESS = 400  # from which "auto" wants another process, where there is a core for it
CORES_A_PROCESS = 2  # the other one is for main, lanes and models


class MediaPool:
    """As many `MediaClient` as the settings say; each has its part of the ports and of the slots."""

    def __init__(self, settings: MediaSettings, events: EventSink, run: Path | None = None) -> None:
        """``run``: the folder by which a new main finds the engines again."""
        count = process_count(settings, os.cpu_count() or 1)
        self.ipv6 = bool(settings.host6)
        self._clients = [
            MediaClient(part, events, run / f"media-{number}" if run is not None else None)
            for number, part in enumerate(split(settings, count))
        ]

    @property
    def pids(self) -> list[int]:
        """Of the running engines."""
        return [client.pid for client in self._clients if client.pid]

    async def start(self) -> None:
        """Raises SetupError when one is not ready within 10 s."""
        await asyncio.gather(*(client.start() for client in self._clients))

    async def open(
        self, far: tuple[str, int] | None = None, beside: MediaPort | None = None, *, ipv6: bool = False
    ) -> MediaPort:
        """A port of the least loaded process, or of the one that has the port `beside`, so that they can be joined.

        Raises as `MediaClient.open` does when none has room.
        """
        refusal: CapacityError | None = None
        clients = self._clients
        if beside is not None:
            clients = [client for client in clients if client.has(beside)]
            if not clients:
                raise CapacityError("the port to be joined with is closed")
        for client in sorted(clients, key=lambda client: (client.load, client.calls)):
            try:
                return await client.open(far, beside, ipv6=ipv6)
            except CapacityError as error:
                refusal = refusal or error
        assert refusal is not None
        raise refusal

    def beside(self, one: MediaPort, other: MediaPort) -> bool:
        """Whether the two ports are in the same process, where they can hear each other."""
        return any(client.has(one) and client.has(other) for client in self._clients)

    def claim(self, slot: int, port: int) -> MediaPort | None:
        """The port of a call that an earlier main has left; None when it is not open any more."""
        for client in self._clients:
            claimed = client.claim(slot, port)
            if claimed is not None:
                return claimed
        return None

    def close_unclaimed(self) -> None:
        """Ends what an earlier main had open and nobody has claimed."""
        for client in self._clients:
            client.close_unclaimed()

    def leave_sound(self, name: str, narrow: NDArray[np.int16], wide: NDArray[np.int16]) -> None:
        """A sound for lines without a main, mono at 8 and at 16 kHz; `stand_in.MUSIC` is what they all hear."""
        for client in self._clients:
            client.leave_sound(name, narrow, wide)

    async def close(self) -> None:
        """Idempotent."""
        await asyncio.gather(*(client.close() for client in self._clients))


def process_count(settings: MediaSettings, cores: int) -> int:
    """How many processes these settings mean on a machine with so many cores."""
    if settings.processes != "auto":
        return settings.processes
    return max(1, min(cores // CORES_A_PROCESS, -(-settings.capacity // CALLS_A_PROCESS)))


def split(settings: MediaSettings, count: int) -> list[MediaSettings]:
    """The settings of each process: equal parts of the ports, and slots for its share of the calls."""
    first = settings.port_min + settings.port_min % 2
    pairs = (settings.port_max + 1 - first) // 2
    each = pairs // count
    return [
        msgspec.structs.replace(
            settings,
            port_min=first + 2 * each * number,
            port_max=first + 2 * each * (number + 1) - 1,
            capacity=min(-(-settings.capacity // count), each - settings.shared_ports),
        )
        for number in range(count)
    ]
