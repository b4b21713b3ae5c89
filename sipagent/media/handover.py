"""New audio from the shared memory to the ports' callbacks: all calls that have some by one comparison."""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from sipagent.media.port import Frames, MediaPort
from sipagent.media.rings import FLAG_DIGIT, RX_FRAMES, TICKS_A_FRAME, Header, Rings
from sipagent.media.rtp import RATE

_RX_MASK = RX_FRAMES - 1

Ints = NDArray[np.int64]


def call_back(callback: "Callable[..., None] | None", *arguments: object) -> None:
    """A callback that raises must not cost the other calls their audio."""
    if callback is None:
        return
    try:
        callback(*arguments)
    except Exception as error:
        asyncio.get_running_loop().call_exception_handler(
            {"message": f"media: callback {callback!r} raised", "exception": error}
        )


class HandOver:
    """How far each of `ports`, by slot, has been handed what came."""

    def __init__(self, rings: Rings, ports: Mapping[int, MediaPort]) -> None:
        self._rings = rings
        self._ports = ports
        self._seen = np.zeros(rings.capacity, np.int64)
        self._rates = np.full(rings.capacity, RATE, np.int64)  # at the last time
        self._at_once = np.ones(rings.capacity, np.int64)  # frames that each port wants to be handed together
        self._active = np.zeros(0, np.int64)

    def begin(self, slot: int) -> None:
        """Whatever the ring has by now was another's."""
        self._seen[slot] = self._rings.rx_head[slot]
        self._rates[slot] = self._rings.rate[slot]
        self.gather(slot, 1)

    def settle(self) -> None:
        """After ports have come or gone."""
        self._active = np.array(sorted(self._ports), np.int64)

    def gather(self, slot: int, count: int) -> None:
        """From now on this port is handed so many frames together, and in the same tick as others that want so many."""
        self._at_once[slot] = count
        head = int(self._rings.rx_head[slot])
        self._rings.rx_wake[slot] = self._together(slot, head, count) if count > 1 else 0

    def run(self) -> None:
        """Hands on what is new, of each port that has as much as it wants."""
        rings, slots = self._rings, self._active
        seen, heads = self._seen[slots], rings.rx_head[slots]
        rows = np.flatnonzero((heads > seen) & (heads >= rings.rx_wake[slots]))
        if not len(rows):
            return
        slots, seen, heads = slots[rows], seen[rows], heads[rows]
        fresh, wanted = heads - seen, self._at_once[slots]
        self._seen[slots] = heads
        rings.rx_wake[slots] = np.where(wanted > 1, self._together(slots, heads, wanted), 0)
        rates = rings.rate[slots]
        steady = (fresh == wanted) & (rates == RATE) & (self._rates[slots] == RATE)
        for count in np.unique(fresh[steady]).tolist():
            some = steady & (fresh == count)
            self._steady(slots[some], seen[some], count)
        if not steady.all():
            for row in np.flatnonzero(~steady).tolist():
                self._odd(int(slots[row]), int(seen[row]), int(fresh[row]), int(rates[row]))

    def _together(self, slots: Any, heads: Any, wanted: Any) -> Any:
        """The next position of these slots that comes in the same tick as the others'; one slot or an array of them."""
        frame = (self._rings.header[Header.TICKS] - 1 - slots % TICKS_A_FRAME) // TICKS_A_FRAME  # of the newest
        return heads + wanted - frame % wanted

    def _steady(self, slots: Ints, positions: Ints, count: int) -> None:
        """So many frames each, of 8 kHz: gathered for all slots together."""
        rings, rows = self._rings, slots[:, None]
        places = (positions[:, None] + np.arange(count)) & _RX_MASK
        pcm, flags, arrival = rings.rx_pcm[rows, places], rings.rx_flags[rows, places], rings.rx_arrival[rows, places]
        keyed = (flags & FLAG_DIGIT).any(axis=1)
        each = zip(slots.tolist(), pcm, flags, arrival, positions.tolist(), keyed.tolist(), strict=True)
        for slot, *frames in each:
            port = self._ports.get(slot)  # a callback before may have closed it
            if port is not None and (port.on_frames is not None or port.taps):
                _tell(port, Frames(*frames))

    def _odd(self, slot: int, start: int, count: int, rate: int) -> None:
        """Frames of one slot, of any rate; several when main was busy. What the ring no longer holds was dropped."""
        port = self._ports.get(slot)
        if port is None:
            return
        before, self._rates[slot] = int(self._rates[slot]), rate
        rings = self._rings
        ring = rings.rx_pcm[slot] if rate == RATE else rings.rx_wide[slot]
        if rate != before and count > 1:
            port.dropped += count - 1
            start, count = start + count - 1, 1  # the older ones may have been written at the other rate
        safe = len(ring) - 2  # the engine may be writing the frame after the newest one
        if count > safe:
            port.dropped += count - safe
            start, count = start + count - safe, safe
        first = start % len(ring)
        place: slice | NDArray[np.int64] = slice(first, first + count)  # read by a slice it costs a third
        if first + count > len(ring):
            place = np.arange(start, start + count) % len(ring)
        audio, flags, arrival = ring[place], rings.rx_flags[slot, place], rings.rx_arrival[slot, place]
        keyed = bool((flags & FLAG_DIGIT).any())
        _tell(port, Frames(audio.copy(), flags.copy(), arrival.copy(), start, keyed))


def _tell(port: MediaPort, frames: Frames) -> None:
    call_back(port.on_frames, frames)
    for tap in tuple(port.taps):
        call_back(tap, frames)
